"""A model that crops or flips its input: the map lies where the layer looks, and nowhere else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kvis2
import kvis2.callbacks

SIZE = (16, 12)
IMAGES = np.random.default_rng(0).random((2, *SIZE, 3), dtype="float32")


def network(before=None, size=SIZE):
    """What is done to the input, then a small network with positive weights."""
    inputs = keras.Input((*size, 3))
    x = inputs if before is None else before(inputs)
    keras.utils.set_random_seed(4)
    positive = keras.initializers.RandomUniform(0.1, 1.0, seed=4)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(2, kernel_initializer=positive)(x))


def function(change):
    return layers.Lambda(change)


ROWS, COLUMNS = slice(4, 14), slice(2, 12)
CROPS = {
    "Cropping2D": (lambda x: layers.Cropping2D(((4, 2), (2, 0)))(x), (ROWS, COLUMNS)),
    "slices": (lambda x: x[:, 4:14, 2:], (ROWS, COLUMNS)),
    "negative": (lambda x: x[:, -12:-2, 2:], (ROWS, COLUMNS)),
    "ellipsis": (lambda x: function(lambda x: x[..., 2:, :])(x), (slice(None), COLUMNS)),
    "twice": (lambda x: x[:, 2:][:, 2:12, 2:], (ROWS, COLUMNS)),
    "tf.slice": (
        lambda x: function(lambda x: tf.slice(x, [0, 4, 2, 0], [-1, 10, 10, -1]))(x),
        (ROWS, COLUMNS),
    ),
    "scaled first": (lambda x: layers.Rescaling(1.0)(x)[:, 4:14], (ROWS, slice(None))),
    "CenterCrop": (lambda x: layers.CenterCrop(8, 12)(x), (slice(4, 12), slice(None))),
}


@pytest.mark.parametrize(
    "kind",
    [
        kvis2.GradCAM,
        pytest.param(kvis2.LayerCAM, marks=pytest.mark.slow),
        pytest.param(kvis2.ScoreCAM, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", CROPS)
def test_the_map_of_a_crop_lies_in_the_crop(name, kind):
    before, (rows, columns) = CROPS[name]
    part = IMAGES[:, rows, columns]
    found = kind(network(before), "conv", normalize=False)(1, IMAGES)
    expected = np.zeros((2, *SIZE), "float32")
    expected[:, rows, columns] = kind(network(size=part.shape[1:3]), "conv", normalize=False)(
        1, part
    )
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("flip", "axes"),
    [
        (lambda x: keras.ops.flip(x, 1), [1]),
        (lambda x: x[:, ::-1, ::-1], [1, 2]),
        (lambda x: keras.ops.flip(keras.ops.flip(x, 1), 1), []),
        (lambda x: keras.ops.flip(keras.ops.transpose(x, (0, 2, 1, 3)), 1), [2]),
    ],
    ids=["rows", "both", "twice", "of a transposed"],
)
def test_a_flip_is_undone(flip, axes):
    model = network(flip)
    found = kvis2.GradCAM(model, normalize=False)(1, IMAGES)
    layer = model.get_layer("conv")
    seen = keras.Model(model.inputs[0], layer.output)(IMAGES).numpy()
    weights = model.layers[-1].kernel.numpy()[:, 1] / np.prod(seen.shape[1:3])
    expected = np.maximum(seen @ weights, 0)
    if expected.shape[1:] != SIZE:
        expected = expected.transpose(0, 2, 1)
    np.testing.assert_allclose(found, np.flip(expected, axes), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("paddings", "mode"),
    [(((5, 0), (0, 9)), "CONSTANT"), (((4, 4), (3, 3)), "CONSTANT"), (((0, 6), (5, 0)), "REFLECT")],
)
def test_what_lies_over_a_wide_padding_is_cut_off(paddings, mode):
    """As a letterbox inside the model: the map of the padded picture, without its padding."""
    (top, _), (left, _) = paddings
    wide = np.pad(IMAGES, [(0, 0), *paddings, (0, 0)], mode.lower())
    model = network(function(lambda x: tf.pad(x, [(0, 0), *paddings, (0, 0)], mode)))
    found = kvis2.GradCAM(model, "conv", normalize=False)(1, IMAGES)
    whole = kvis2.GradCAM(network(size=wide.shape[1:3]), "conv", normalize=False)(1, wide)
    expected = whole[:, top : top + SIZE[0], left : left + SIZE[1]]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert expected.max() > 0


def test_a_narrow_padding_keeps_the_part_as_a_convolution_takes_it_off():
    model = network(lambda x: layers.Conv2D(3, 3)(layers.ZeroPadding2D(1)(x)))
    cam = kvis2.GradCAM(model, normalize=False)
    seen = keras.Model(model.inputs[0], model.get_layer("conv").output)(IMAGES).numpy()
    weights = model.layers[-1].kernel.numpy()[:, 1] / np.prod(SIZE)
    np.testing.assert_allclose(cam(1, IMAGES), np.maximum(seen @ weights, 0), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("moved", "shape"),
    [
        (lambda x: tf.roll(x, 5, 2), SIZE),
        (lambda x: tf.roll(x, [3, 1], [1, 2]), SIZE),
        (lambda x: tf.concat([x, x], 2), (16, 24)),
    ],
    ids=["rolled", "both", "beside itself"],
)
def test_what_is_at_no_one_place_stays_in_a_space_of_its_own(moved, shape):
    pooled = lambda x: layers.AveragePooling2D(2)(function(moved)(x))  # noqa: E731
    found = kvis2.GradCAM(network(pooled), "conv")(1, IMAGES)
    assert found.shape == (2, *(each // 2 for each in shape))


def test_channels_that_are_put_beside_the_input_keep_its_place():
    model = network(lambda x: layers.Concatenate()([x, x * 2.0])[..., :3])
    expected = kvis2.GradCAM(network(), "conv")(1, IMAGES)
    np.testing.assert_allclose(kvis2.GradCAM(model, "conv")(1, IMAGES), expected, rtol=1e-4)


def test_the_input_keeps_its_part_through_convolutions_and_steps():
    """Every second row of the lower half: still the lower half."""
    found = kvis2.GradCAM(network(lambda x: x[:, 8::2]), normalize=False)(1, IMAGES)
    assert not found[:, :8].any()
    assert found[:, 8:].all()


def test_parts_that_are_laid_over_each_other_stay_in_a_space_of_their_own():
    model = network(lambda x: layers.Concatenate()([x[:, :8], x[:, 8:]]))
    assert kvis2.GradCAM(model, "conv")(1, IMAGES).shape == (2, 8, 12)


def test_a_logger_draws_the_map_where_the_crop_is(tmp_path):
    model = network(CROPS["Cropping2D"][0])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    boxes = [[2, 4, 12, 14]] * 2
    logger = kvis2.callbacks.CamLogger(tmp_path, IMAGES, [0, 1], boxes=boxes, on_error="raise")
    model.fit(IMAGES, np.array([0, 1]), verbose=0, callbacks=[logger])
    np.testing.assert_allclose(logger.history["energy_in_box"], 1.0, atol=1e-6)


def test_the_last_map_behind_a_permute_is_found_and_turned_back():
    model = network(lambda x: layers.Permute((2, 1, 3))(x))
    cam = kvis2.GradCAM(model, normalize=False)
    found = cam(1, IMAGES)
    assert cam.layer.name == "conv"
    expected = kvis2.GradCAM(network(size=(12, 16)), normalize=False)(
        1, IMAGES.transpose(0, 2, 1, 3)
    )
    np.testing.assert_allclose(found, expected.transpose(0, 2, 1), rtol=1e-4)
