"""Random transforms: what they do to a picture, their gradients, and their random numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from kvis2.transforms import (
    Blur,
    Crop,
    Jitter,
    Pad,
    RandomCrop,
    Rotate,
    Scale,
    as_transforms,
    transformed,
)

SEED = tf.constant([3, 5])
EVERY = [Jitter(3), Scale(0.8, 1.2), Rotate(20.0), Blur(), Pad(2), Crop(9), RandomCrop(0.5, 0.9)]


@pytest.fixture
def pictures():
    return np.random.default_rng(0).random((3, 14, 11, 2), dtype="float32")


def test_jitter_is_a_cyclic_roll_within_its_bounds(pictures):
    seen = set()
    for number in range(200):
        moved = Jitter((2, 1))(tf.constant(pictures), tf.constant([0, number])).numpy()
        shift = next(
            (down, right)
            for down in range(-2, 3)
            for right in range(-1, 2)
            if np.array_equal(moved, np.roll(pictures, (down, right), (1, 2)))
        )
        seen.add(shift)
    assert len(seen) == 15  # every shift of -2..2 x -1..1, and no other


def test_jitter_below_one_is_a_fraction_cut_to_pixels():
    line = np.arange(224.0, dtype=np.float32)[None, :, None] * np.ones([1, 1, 1], np.float32)
    shifts = {
        int(Jitter(0.05)(tf.constant(line), tf.constant([1, number])).numpy()[0, 0, 0])
        for number in range(400)
    }
    assert shifts == {*range(12), *range(213, 224)}  # -11..11, round the edge


def test_a_shift_for_each_axis_must_be_one_for_each():
    with pytest.raises(ValueError, match="each of the 2 spatial axes"):
        Jitter((1, 2, 3))(tf.zeros([1, 5, 5, 1]), SEED)
    with pytest.raises(ValueError, match="not negative"):
        Jitter(-1)


def test_zoom_by_two_is_interpolation_about_the_centre(pictures):
    found = Scale(2.0, 2.0)(tf.constant(pictures), SEED).numpy()
    rows = (np.arange(14) - 6.5) / 2 + 6.5
    columns = (np.arange(11) - 5) / 2 + 5
    grid = np.meshgrid(rows, columns, indexing="ij")
    expected = ndimage.map_coordinates(pictures[1, ..., 1].astype(float), grid, order=1)
    np.testing.assert_allclose(found[1, ..., 1], expected, atol=1e-5)


def test_a_turn_is_bilinear_about_the_centre(pictures):
    angles = [
        np.deg2rad(float(tf.random.stateless_uniform([], [7, n], -30.0, 30.0))) for n in range(3)
    ]
    for number, angle in enumerate(angles):
        found = Rotate(30.0)(tf.constant(pictures), tf.constant([7, number])).numpy()
        down, right = np.arange(14)[:, None] - 6.5, np.arange(11)[None] - 5.0
        rows = np.cos(angle) * down - np.sin(angle) * right + 6.5
        columns = np.sin(angle) * down + np.cos(angle) * right + 5.0
        expected = ndimage.map_coordinates(
            pictures[0, ..., 0].astype(float),
            [np.clip(rows, 0, 13), np.clip(columns, 0, 10)],
            order=1,
        )
        np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-5)


def test_a_turn_of_a_volume_turns_every_slice():
    volume = np.random.default_rng(0).random((2, 3, 8, 9, 1), dtype="float32")
    found = Rotate(30.0)(tf.constant(volume), SEED).numpy()
    alone = Rotate(30.0)(tf.constant(volume[:, 1]), SEED).numpy()
    np.testing.assert_allclose(found[:, 1], alone, atol=1e-6)
    with pytest.raises(ValueError, match="two spatial axes"):
        Rotate()(tf.zeros([1, 8, 2]), SEED)


def test_a_crop_is_a_part_and_a_border_continues_the_edge(pictures):
    part = Crop(9)(tf.constant(pictures), SEED).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(pictures, (9, 9), (1, 2))
    matches = (np.moveaxis(windows, 3, -1) == part[:, None, None]).all(axis=(0, 3, 4, 5))
    assert matches.sum() == 1
    padded = Pad(2)(tf.constant(pictures), SEED).numpy()
    widths = ((0, 0), (2, 2), (2, 2), (0, 0))
    np.testing.assert_array_equal(padded, np.pad(pictures, widths, mode="edge"))
    grey = Pad(2, value=0.5)(tf.constant(pictures), SEED).numpy()
    np.testing.assert_array_equal(grey, np.pad(pictures, widths, constant_values=0.5))


def test_a_random_crop_shows_a_part_of_a_ramp():
    ramp = np.arange(64.0, dtype=np.float32)[None, :, None]
    slopes = []
    for number in range(50):
        part = RandomCrop(0.5, 0.9)(tf.constant(ramp), tf.constant([2, number])).numpy().ravel()
        slopes.append(np.diff(part)[10:50].mean())
        assert part.min() >= 0
        assert part.max() <= 63
    assert 0.5 <= min(slopes) < 0.6
    assert 0.8 < max(slopes) <= 0.9


@pytest.mark.parametrize("transform", EVERY, ids=repr)
def test_the_same_seed_is_the_same_change_and_another_is_another(transform, pictures):
    images = tf.constant(pictures)
    first, again, other = (
        transform(images, tf.constant(seed)).numpy() for seed in ([1, 2], [1, 2], [1, 4])
    )
    np.testing.assert_array_equal(first, again)
    if not isinstance(transform, Pad):
        assert not np.array_equal(first, other)
    np.testing.assert_array_equal(transform(images[1:2], tf.constant([1, 2]))[0], first[1])


@pytest.mark.parametrize("transform", EVERY, ids=repr)
def test_the_gradient_of_a_linear_transform_is_its_transpose(transform, pictures):
    """<T x, y> = <x, T' y> for random x, y: the gradient is exact."""
    images = tf.constant(pictures)
    with tf.GradientTape() as tape:
        tape.watch(images)
        changed = transformed(images, [transform], SEED)
        weights = tf.constant(np.random.default_rng(1).normal(size=changed.shape), tf.float32)
        total = tf.reduce_sum(changed * weights)
    gradient = tape.gradient(total, images).numpy()
    assert float(total) == pytest.approx((gradient * pictures).sum(), rel=1e-3, abs=1e-3)


def test_the_size_is_restored(pictures):
    for transforms in ([Pad(4)], [Crop(8)], [Pad(3), Jitter(2), Crop(9)]):
        assert transformed(tf.constant(pictures), transforms, SEED).shape == pictures.shape
    flat = tf.fill([1, 9, 9, 3], 0.25)
    np.testing.assert_allclose(transformed(flat, [Pad(4)], SEED), flat, rtol=1e-6)


def test_a_keras_layer_is_a_transform_that_leaves_its_generator_alone(pictures):
    layer = keras.layers.RandomTranslation(0.3, 0.3, seed=4)
    (transform,) = as_transforms(layer)
    images = tf.constant(pictures)

    run = tf.function(lambda seed: transform(images, seed))
    first, again = run(tf.constant([1, 2])).numpy(), run(tf.constant([1, 2])).numpy()
    other = run(tf.constant([1, 3])).numpy()
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.allclose(first, pictures)
    np.testing.assert_allclose(transform(images[2:], tf.constant([1, 2]))[0], first[2], atol=1e-6)
    np.testing.assert_array_equal(layer.generator.state.numpy(), [4, 0])


def test_no_global_generator_is_touched(pictures):
    keras.utils.set_random_seed(7)
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002
    before = keras.random.uniform([3]).numpy()
    keras.utils.set_random_seed(7)
    for transform in EVERY:
        transform(tf.constant(pictures), SEED)
    np.testing.assert_array_equal(keras.random.uniform([3]).numpy(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_what_is_no_transform_is_refused():
    with pytest.raises(TypeError, match="Expected transforms such as"):
        as_transforms([Jitter])
    with pytest.raises(ValueError, match="0 < low <= high"):
        Scale(1.2, 0.8)
