"""Whose map it is, and in which space: axes are followed, a space of its own is an answer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sampled import rest_slow

import kvis2
from kvis2.models import axes_between

L = keras.layers


def axes_of(shape, make, dtype="float32"):
    """The axes of what layers make of an input, as they are followed in the traced graph."""
    inputs = keras.Input(shape, dtype=dtype)
    model, found = keras.Model(inputs, make(inputs)), []

    @tf.function(autograph=False)
    def run(x):
        found.append(axes_between(model(x, training=False), x))

    run.get_concrete_function(tf.TensorSpec((None, *shape), dtype))
    return found[0]


@pytest.mark.parametrize(
    ("shape", "make", "expected"),
    [
        ((5, 6, 3), lambda x: L.Conv2D(4, 3)(L.ZeroPadding2D()(x)), (0, 1, 2, 3)),
        ((9, 3), lambda x: L.Conv1D(4, 3)(x), (0, 1, 2)),
        ((5, 6, 3), lambda x: L.Dense(4)(x), (0, 1, 2, None)),
        ((9, 3), lambda x: L.EinsumDense("abc,cd->abd", output_shape=(None, 4))(x), (0, 1, None)),
        ((28, 28), lambda x: L.Conv2D(3, 3)(L.Reshape((28, 28, 1))(x)), (0, 1, 2, None)),
        ((784,), lambda x: L.Reshape((28, 28, 1))(x), (0, None, None, None)),
        ((24, 24, 3), lambda x: L.Permute((2, 1, 3))(L.Conv2D(4, 3)(x)), (0, 2, 1, 3)),
        ((24, 24, 3), lambda x: L.Permute((3, 1, 2))(x), (0, 3, 1, 2)),
        ((16, 16, 3), lambda x: L.Reshape((16, 8))(L.Conv2D(8, 4, 4)(x)), (0, None, 3)),
        ((8, 8, 3), lambda x: L.BatchNormalization()(L.SeparableConv2D(4, 3)(x)), (0, 1, 2, 3)),
        (
            (8, 8, 3),
            lambda x: x * L.Dense(3)(keras.ops.mean(x, (1, 2), keepdims=True)),
            (0, 1, 2, 3),
        ),
        ((8, 8, 3), lambda x: keras.ops.mean(x, 3), (0, 1, 2)),
        ((6, 5), lambda x: L.LSTM(3, return_sequences=True)(x), None),
    ],
)
def test_axes_are_followed(shape, make, expected):
    assert axes_of(shape, make) == expected


def test_axes_of_tokens_are_followed_through_their_embedding():
    assert axes_of((7,), lambda x: L.Conv1D(4, 3)(L.Embedding(9, 5)(x)), "int32") == (0, 1, None)


METHODS = [
    kvis2.GradCAM,
    kvis2.Saliency,
    kvis2.InputXGradient,
    kvis2.IntegratedGradients,
    kvis2.LRP,
    lambda model, layer: kvis2.SmoothGrad(kvis2.Saliency(model, layer), samples=2),
    lambda model, layer: kvis2.ScoreCAM(model, layer, max_channels=2),
]


@pytest.mark.parametrize("method", METHODS)
def test_the_map_of_a_layer_is_given_to_the_inputs_that_feed_it_alone(method):
    def branch(name):
        inputs = keras.Input((16, 12, 3), name=name)
        x = L.Conv2D(4, 3, activation="relu", name=f"conv_{name}")(inputs)
        return inputs, L.GlobalAveragePooling2D()(x)

    keras.utils.set_random_seed(0)
    (a, features_a), (b, features_b) = branch("a"), branch("b")
    x = L.Concatenate()([features_a, features_b])
    model = keras.Model([a, b], L.Dense(2, activation="softmax")(x))
    data = list(np.random.default_rng(0).random((2, 2, 16, 12, 3), dtype="float32"))
    maps = method(model, layer="conv_b")(1, data)
    assert maps[0] is None
    assert maps[1].shape == (2, 16, 12)


@pytest.mark.parametrize("method", rest_slow([*METHODS[:-1], kvis2.LayerCAM, kvis2.EigenCAM], 4))
@pytest.mark.parametrize("resize", rest_slow([True, False]))
@pytest.mark.filterwarnings("ignore:.*found no evidence")
def test_a_layer_with_a_space_of_its_own_is_explained_in_it(method, resize):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((784,))
    x = L.Conv2D(8, 3, activation="relu", name="conv")(L.Reshape((28, 28, 1))(inputs))
    outputs = L.Dense(3, activation="softmax")(L.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    image = keras.Input((28, 28, 1))
    twin = keras.Model(image, model.layers[-1](model.layers[-2](model.get_layer("conv")(image))))
    data = np.random.default_rng(0).random((2, 784), dtype="float32")
    if not isinstance(method, type):
        pytest.skip("the wrapper takes the options of what it wraps") if not resize else None
        found = method(model, layer="conv")(1, data)
        assert found.shape == (2, 26, 26)
        return
    found = method(model, layer="conv", resize=resize)(1, data)
    expected = method(twin, layer="conv", resize=False)(1, data.reshape(2, 28, 28, 1))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_masking_by_a_layer_with_a_space_of_its_own_is_refused():
    inputs = keras.Input((64,))
    x = L.Conv2D(4, 3, name="conv")(L.Reshape((8, 8, 1))(inputs))
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    with pytest.raises(ValueError, match=r"Expected a layer whose space is that of the input"):
        kvis2.ScoreCAM(model, "conv")(1, np.zeros((2, 64), "float32"))


GREY = [
    kvis2.GradCAM,
    kvis2.ScoreCAM,
    kvis2.Saliency,
    kvis2.InputXGradient,
    kvis2.IntegratedGradients,
    kvis2.Occlusion,
    kvis2.LRP,
    kvis2.FullGrad,
    kvis2.GuidedGradCAM,
    lambda model: kvis2.SmoothGrad(kvis2.GradCAM(model), samples=2),
    lambda model: kvis2.RISE(model, samples=4),
]


@pytest.mark.parametrize("method", rest_slow(GREY, 5))
@pytest.mark.parametrize("scaled", rest_slow([False, True]))
@pytest.mark.filterwarnings("ignore:.*found no evidence")
def test_grey_images_without_an_axis_of_channels_are_images(method, scaled):
    def net(grey):
        keras.utils.set_random_seed(0)
        before = [L.Rescaling(2.0)] if scaled else []
        start = [keras.Input((14, 12)), *before, L.Reshape((14, 12, 1))]
        return keras.Sequential(
            [
                *(start if grey else [keras.Input((14, 12, 1)), *before]),
                L.Conv2D(8, 3, activation="relu", name="conv"),
                L.GlobalAveragePooling2D(),
                L.Dense(4, activation="softmax"),
            ]
        )

    data = np.random.default_rng(0).random((2, 14, 12), dtype="float32")
    for index in range(4):
        found = method(net(True))(index, data)
        assert found.shape == (2, 14, 12)
        if found.any():
            break
    expected = method(net(False))(index, data[..., None])
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.filterwarnings("ignore:.*found no evidence")
def test_a_permuted_layer_gives_the_map_of_the_layer_before_it():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((14, 14, 3)),
            L.Conv2D(4, 3, activation="relu", name="conv", bias_initializer="ones"),
            L.Permute((2, 1, 3), name="permuted"),
            L.Flatten(),
            L.Dense(3),
        ]
    )
    data = np.random.default_rng(0).random((2, 14, 14, 3), dtype="float32")
    data[:, :5] *= 4
    for index in range(3):
        right = kvis2.GradCAM(model, "conv")(index, data)
        np.testing.assert_allclose(kvis2.GradCAM(model)(index, data), right, atol=1e-5)
        permuted = kvis2.GradCAM(model, "permuted")(index, data)
        np.testing.assert_allclose(permuted, right, atol=1e-5)
    assert kvis2.GradCAM(model, "permuted", normalize=False)(0, data).shape == (2, 14, 14)


def test_a_model_that_returns_its_features_too_is_explained_at_them():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 12, 3))
    first = L.Conv2D(8, 3, activation="relu", name="first")(inputs)
    last = L.Conv2D(8, 3, activation="relu", name="last")(first)
    outputs = L.Dense(3, activation="softmax")(L.GlobalAveragePooling2D()(last))
    plain, both = keras.Model(inputs, outputs), keras.Model(inputs, [last, outputs])
    data = np.random.default_rng(0).random((2, 16, 12, 3), dtype="float32")
    cam = kvis2.GradCAM(both, normalize=False)
    for index in range(3):
        found = cam([kvis2.InactiveScore(), index], data)
        if found.any():
            break
    assert cam.layer is both.get_layer("last")
    np.testing.assert_allclose(found, kvis2.GradCAM(plain, normalize=False)(index, data), atol=1e-6)


def test_a_layer_score_means_the_channel_also_where_channels_come_first():
    images = np.random.default_rng(0).random((2, 7, 6, 3), dtype="float32")
    found, weights = [], None
    for layout, pictures in (
        ("channels_last", images),
        ("channels_first", np.ascontiguousarray(np.moveaxis(images, -1, 1))),
    ):
        inputs = keras.Input(pictures.shape[1:])
        x = L.Conv2D(4, 3, data_format=layout, name="conv")(inputs)
        x = L.GlobalAveragePooling2D(data_format=layout)(x)
        model = keras.Model(inputs, L.Dense(2)(x))
        weights = model.get_weights() if weights is None else weights
        model.set_weights(weights)
        score = kvis2.LayerScore("conv", 3)
        found.append(kvis2.Saliency(model, normalize=False)(score, pictures))
    assert np.ptp(found[0]) > 0
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-6)
