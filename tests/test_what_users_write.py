"""Ways of writing models, inputs and scores that users have: right, or refused in a sentence."""

import dataclasses
import tracemalloc
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from sampled import rest_slow

import kvis2
from kvis2.models import Batch

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.random((3, 16, 12, 3), dtype="float32")
RECORD = RNG.random((3, 5), dtype="float32")

pytestmark = pytest.mark.filterwarnings("ignore:.*found no evidence")


def net(units=3):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((16, 12, 3))
    x = L.Conv2D(6, 3, activation="relu", name="conv")(inputs)
    return keras.Model(inputs, L.Dense(units, name="out")(L.GlobalAveragePooling2D()(x)))


def built(model, *data):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*was called on layer")
        model(*data)
    return model


# -- what comes in --------------------------------------------------------------------------------


class Text(keras.Model):
    def __init__(self):
        super().__init__()
        self.embedding = L.Embedding(50, 8, name="embedding")
        self.conv = L.Conv1D(8, 3, activation="relu")
        self.pool = L.GlobalAveragePooling1D()
        self.head = L.Dense(2, activation="softmax")

    def call(self, tokens, mask=None, training=None):
        return self.head(self.pool(self.conv(self.embedding(tokens))))


def test_a_subclassed_text_model_gets_tokens_as_its_functional_twin_does():
    tokens = RNG.integers(1, 50, (2, 10))
    model = built(Text(), tokens)
    inputs = keras.Input((10,), dtype="int32")
    twin = keras.Model(inputs, model.call(inputs))
    for make in (kvis2.GradCAM, lambda m: kvis2.Saliency(m, layer="embedding")):
        np.testing.assert_allclose(make(model)(1, tokens), make(twin)(1, tokens), atol=1e-5)


class Two(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.pool = L.Conv2D(8, 3, activation="relu"), L.GlobalAveragePooling2D()
        self.table, self.head = L.Dense(4, activation="relu"), L.Dense(3, activation="softmax")

    def call(self, image, record, training=False):
        x = keras.ops.concatenate([self.pool(self.conv(image)), self.table(record)], -1)
        return self.head(x)


@pytest.mark.parametrize("method", [kvis2.GradCAM, kvis2.Saliency, kvis2.Occlusion])
def test_a_call_with_two_tensors_is_called_with_two(method):
    model = built(Two(), X, RECORD)
    inputs = keras.Input((16, 12, 3)), keras.Input((5,))
    twin = keras.Model(list(inputs), model.call(*inputs))
    found, expected = method(model)(1, [X, RECORD]), method(twin)(1, [X, RECORD])
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, atol=1e-5)


@dataclasses.dataclass
class Result:
    kind: object
    features: object


STRUCTURES = {
    "nested": (lambda head, pooled, maps: {"kind": head, "aux": [pooled, maps]}, {"kind": 1}),
    "dataclass": (lambda head, pooled, maps: Result(head, [pooled, maps]), {"kind": 1}),
    "tuple": (lambda head, pooled, maps: (head, {"pooled": pooled, "maps": maps}), None),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_outputs_of_any_structure_are_scored_by_their_paths(name):
    structure, score = STRUCTURES[name]

    class Detector(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv, self.pool = L.Conv2D(8, 3, activation="relu"), L.GlobalAveragePooling2D()
            self.head = L.Dense(3)

        def call(self, x):
            maps = self.conv(x)
            pooled = self.pool(maps)
            return structure(self.head(pooled), pooled, maps)

    model = Detector()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*was called on layer")
        model.head(model.pool(model.conv(X)))
        model.built = True
    inputs = keras.Input((16, 12, 3))
    twin = keras.Model(inputs, model.head(model.pool(model.conv(inputs))))
    if score is None:
        score = [1, kvis2.InactiveScore(), kvis2.InactiveScore()]
    expected = kvis2.GradCAM(twin)(1, X)
    np.testing.assert_allclose(kvis2.GradCAM(model)(score, X), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"Expected scores for outputs named .*Received: \['x'\]"):
        kvis2.GradCAM(model)({"x": 1}, X)


def test_an_rnn_that_keeps_a_state_is_refused():
    inputs = keras.Input(batch_shape=(2, 5, 3))
    model = keras.Model(inputs, L.Dense(2)(L.LSTM(4, stateful=True)(inputs)))
    with pytest.raises(ValueError, match=r"Received: 'lstm.*', an RNN with `stateful=True`"):
        kvis2.Saliency(model)(1, np.zeros((2, 5, 3), "float32"))


def test_the_memory_of_a_batch_goes_by_its_rows():
    inputs = keras.Input((64, 64, 3))
    model = keras.Model(inputs, L.GlobalAveragePooling2D()(inputs))
    images = np.zeros((200, 64, 64, 3), "uint8")
    tracemalloc.start()
    batch = Batch(model, images)
    rows = batch.rows(0, 4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows[0].dtype == np.float32
    assert peak < images.nbytes / 4
    bad = images.astype("float32")
    bad[150, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="Received: an input with 1 NaN or infinite values"):
        kvis2.Saliency(model, batch_size=50)(1, bad)


def test_pictures_of_no_pixels_are_refused():
    with pytest.raises(ValueError, match=r"Expected an input with values. Received: shape"):
        kvis2.Saliency(keras.Sequential([keras.Input((None, None, 3)), L.GlobalMaxPooling2D()]))(
            1, np.zeros((1, 0, 4, 3), "float32")
        )


# -- scores ---------------------------------------------------------------------------------------


def test_a_built_in_score_is_called_with_any_number_of_samples():
    output = RNG.normal(size=(3, 4, 2)).astype("float32")
    means = output.mean(axis=1)
    cases = [
        (kvis2.CategoricalScore(1), means[:, 1]),
        (kvis2.CategoricalScore([1, 0, 1]), means[[0, 1, 2], [1, 0, 1]]),
        (kvis2.ContrastScore(0, 1), means[:, 0] - means[:, 1]),
        (kvis2.RegressionScore("decrease", unit=1), -means[:, 1]),
        (kvis2.SegmentationScore(1), means[:, 1]),
        (kvis2.SegmentationScore(1, np.ones((1, 4))), means[:, 1]),
        (kvis2.LayerScore("conv", 1), np.abs(output).sum(axis=1)[:, 1]),
    ]
    for score, expected in cases:
        np.testing.assert_allclose(score(tf.constant(output)), expected, rtol=1e-5)


def test_scores_composed_in_a_function_are_the_contrast():
    one, other = kvis2.CategoricalScore(1), kvis2.CategoricalScore(0)
    cam = kvis2.GradCAM(net(), normalize=False)
    composed = cam(lambda output: one(output) - other(output), X)
    np.testing.assert_allclose(composed, cam(kvis2.ContrastScore(1, 0), X), atol=1e-7)


@pytest.mark.parametrize(
    "method",
    [kvis2.GradCAM, kvis2.ScoreCAM, kvis2.Saliency, kvis2.Occlusion, kvis2.IntegratedGradients],
)
@pytest.mark.parametrize(
    "function",
    rest_slow([lambda o: o[:2, 0], lambda o: tf.reshape(o, (-1,)), lambda o: tf.reduce_sum(o)]),
)
def test_a_score_function_of_the_wrong_length_gets_a_sentence(method, function):
    with pytest.raises(ValueError, match=r"Expected a score function that returns one number"):
        method(net())(function, X)


def test_lrp_refuses_the_score_of_a_hidden_layer():
    with pytest.raises(ValueError, match="Expected a score of the model's output, for LRP"):
        kvis2.LRP(net())(kvis2.LayerScore("conv", 0), X)


# -- eager passes, broken weights, int8 -----------------------------------------------------------


def test_a_score_that_runs_eagerly_finds_layer_class_and_cause():
    def rows(output):
        return [row[0] for row in output]  # As users of tf-keras-vis write scores.

    model = net()
    cam = kvis2.GradCAM(model)
    with pytest.warns(UserWarning, match="explained eagerly"):
        found = cam(rows, X)
    assert cam.layer is model.get_layer("conv")
    np.testing.assert_allclose(found, kvis2.GradCAM(model)(0, X), atol=1e-5)
    kernel, bias = model.get_layer("conv").get_weights()
    model.get_layer("conv").set_weights([kernel * 0, bias * 0 - 1])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert not kvis2.GradCAM(model)(rows, X).any()
    assert any("Likely cause" in str(each.message) for each in said)


def test_a_class_that_an_eager_model_does_not_have_gets_the_sentence():
    class Eager(L.Layer):
        def call(self, x):
            return x * float(np.asarray(x).size > 0)

    model = keras.Sequential(
        [L.Conv2D(4, 3, activation="relu"), Eager(), L.GlobalAveragePooling2D(), L.Dense(2)]
    )
    model.run_eagerly = True
    built(model, X)
    with pytest.raises(ValueError, match="Expected a class index from 0 to 1"):
        kvis2.GradCAM(model)(99, X)


def test_weights_that_are_not_finite_are_named_and_not_called_zero():
    model = net()
    model.get_layer("conv").kernel.assign(model.get_layer("conv").kernel * np.nan)
    with pytest.raises(ValueError, match=r"weights are finite. Received: NaN .*conv/kernel"):
        kvis2.GradCAM(model)(0, X)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.skipif(not hasattr(L.Dense, "quantize"), reason="this Keras cannot quantize")
def test_int8_layers_are_watched_and_refused_by_lrp_by_their_names():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((16, 12, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, activation="relu")(inputs))
    full = keras.Model(inputs, L.Dense(3, name="out")(L.Dense(8, name="hidden")(x)))
    model = keras.models.clone_model(full)
    model.set_weights(full.get_weights())
    model.quantize("int8")
    with pytest.raises(ValueError, match=r"Received: '(hidden|out)', which is quantized"):
        kvis2.LRP(model)(1, X)
    hidden = kvis2.activations(model, "hidden", X)
    expected = kvis2.activations(full, "hidden", X)
    np.testing.assert_allclose(hidden, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.filterwarnings("default:.*found no evidence")
@pytest.mark.parametrize("method", [kvis2.Occlusion, kvis2.RISE])
def test_a_method_without_gradients_blames_none(method):
    options = {"samples": 4} if method is kvis2.RISE else {}
    with pytest.warns(UserWarning, match="no part that was hidden changes the score") as said:
        method(net(), **options)(1, np.zeros((1, 16, 12, 3), "float32"))
    assert "gradient" not in str(said[0].message)


@pytest.mark.parametrize(
    ("dtype", "images", "said"),
    [
        ("uint8", np.linspace(0, 1, 8 * 6 * 3), r"fractions from 0\.0 to 1\.0"),
        ("uint8", np.linspace(-8, 300, 8 * 6 * 3).round(), r"numbers from -8\.0 to 300\.0"),
        ("uint8", np.arange(144) * 2, r"Received: numbers from 0 to 286\."),
        ("int32", np.full(144, 1.7), r"Received: fractions from 1\.7 to 1\.7"),
    ],
)
def test_no_value_is_changed_by_a_cast_to_integers(dtype, images, said):
    model = keras.Sequential(
        [
            keras.Input((8, 6, 3), dtype=dtype),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, kernel_initializer="ones"),
        ]
    )
    with pytest.raises(ValueError, match=f"Expected whole numbers from .*{said}"):
        kvis2.GradCAM(model)(1, images.reshape(1, 8, 6, 3))
    whole = np.arange(144.0).reshape(1, 8, 6, 3)
    found = kvis2.GradCAM(model)(1, whole)
    np.testing.assert_array_equal(found, kvis2.GradCAM(model)(1, whole.astype(dtype)))


def test_a_token_outside_of_the_vocabulary_is_said_in_one_sentence():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((9,), dtype="int32"),
            keras.layers.Embedding(20, 4),
            keras.layers.Conv1D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(3),
        ]
    )
    with pytest.raises(ValueError, match=r"Expected an input .* 33 is not in \[0, 20\)") as caught:
        kvis2.GradCAM(model)(1, np.full((2, 9), 33))
    assert "\n" not in str(caught.value)


class ImageAndRecord(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv, self.out = keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Dense(3)

    def call(self, image, record, training=False):
        pooled = keras.ops.mean(self.conv(image), (1, 2))
        return self.out(keras.ops.concatenate([pooled, record], axis=-1))


def test_inputs_by_the_names_of_the_arguments_of_call():
    draw = np.random.default_rng(0)
    image, record = draw.random((2, 8, 6, 3), "float32"), draw.random((2, 5), "float32")
    model = ImageAndRecord()
    model(image, record)
    saliency = kvis2.Saliency(model)
    listed = saliency(1, [image, record])
    named = saliency(1, {"record": record, "image": image})
    assert list(named) == ["image", "record"]
    for one, other in zip(listed, named.values(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match=r"each of the arguments \['image', 'record'\].*: one\."):
        saliency(1, image)
