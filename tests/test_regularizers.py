"""Penalties, constraints and gradient modifiers against golden numbers and plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from kvis2.regularizers import (
    AlphaNorm,
    BlurEvery,
    ClipColors,
    ClipGradient,
    L1Decay,
    L2Decay,
    LpNorm,
    NormalizeGradient,
    Quantize,
    TotalVariation,
)

# The image of the golden numbers: 2 x 3 pixels of 2 channels, some negative.
GOLDEN = np.array([[[[5, 1], [2, 3], [4, 5]], [[6, 7], [8, 9], [10, -4]]]], np.float32)


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (TotalVariation(beta=2.0), 10.8333333),
        (TotalVariation(beta=1.5), 4.4449714),
        (LpNorm(p=6), 0.9352389),
        (LpNorm(p=2), 1.7199806),
        (LpNorm(p=float("inf")), 0.8333333),
    ],
)
def test_the_golden_numbers_of_keras_vis(penalty, expected):
    assert penalty(tf.constant(GOLDEN)).numpy() == pytest.approx([expected], rel=1e-6)


def test_the_largest_magnitude_may_be_a_negative_value():
    """max(x) instead of max |x| gives a third of this."""
    norm = LpNorm(p=float("inf"))(-tf.constant(GOLDEN))
    assert norm.numpy() == pytest.approx([10 / 12], rel=1e-6)


def test_total_variation_along_one_axis():
    line = tf.constant([0.0, 1.0, 3.0, 2.0])[None, :, None]
    assert TotalVariation()(line).numpy() == pytest.approx([1.5])


def test_total_variation_over_three_axes():
    volume = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2)).astype(np.float32)
    inner = volume[:, :-1, :-1, :-1]
    expected = (
        (volume[:, 1:, :-1, :-1] - inner) ** 2
        + (volume[:, :-1, 1:, :-1] - inner) ** 2
        + (volume[:, :-1, :-1, 1:] - inner) ** 2
    ).sum(axis=(1, 2, 3, 4))
    found = TotalVariation(mean=False)(tf.constant(volume)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_total_variation_of_inversion_runs_over_rows_and_columns():
    """The golden number of the second original once its axes are right."""
    values = (np.arange(24.0) ** 1.5 / 10).reshape(1, 3, 2, 4)
    images = np.moveaxis(values, 1, -1).astype(np.float32)
    assert TotalVariation(mean=False)(tf.constant(images)).numpy() == pytest.approx(
        [37.3546558], rel=1e-5
    )


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (AlphaNorm(alpha=6), (np.abs(GOLDEN.astype(float)) ** 6).sum()),
        (L1Decay(), np.abs(GOLDEN).sum()),
        (L2Decay(), (GOLDEN**2).sum() / 2),
    ],
)
def test_sums_of_powers(penalty, expected):
    assert penalty(tf.constant(GOLDEN)).numpy() == pytest.approx([expected], rel=1e-6)


@pytest.mark.parametrize(
    "penalty",
    [TotalVariation(beta=1.2), TotalVariation(), LpNorm(p=6), LpNorm(p=2), LpNorm(p=1), L1Decay()],
    ids=repr,
)
@pytest.mark.parametrize("value", [0.0, 128.0])
def test_a_flat_image_has_a_finite_gradient(penalty, value):
    images = tf.fill([1, 4, 4, 3], value)
    with tf.GradientTape() as tape:
        tape.watch(images)
        total = penalty(images)
    assert np.isfinite(tape.gradient(total, images).numpy()).all()


def test_the_norm_of_bright_images_does_not_overflow():
    images = tf.fill([1, 224, 224, 3], 128.0)
    expected = 128 * (224 * 224 * 3) ** (1 / 6) / (224 * 224 * 3)
    assert LpNorm(p=6)(images).numpy() == pytest.approx([expected], rel=1e-4)
    assert np.isfinite(LpNorm(p=30)(images).numpy()).all()


def test_every_penalty_counts_each_image_by_itself():
    images = np.random.default_rng(0).normal(size=(3, 5, 4, 2)).astype(np.float32)
    for penalty in (TotalVariation(), LpNorm(), AlphaNorm(), L1Decay(), L2Decay()):
        alone = [penalty(tf.constant(each[None])).numpy()[0] for each in images]
        np.testing.assert_allclose(penalty(tf.constant(images)).numpy(), alone, rtol=1e-6)


def test_what_cannot_be_penalised_is_said():
    with pytest.raises(ValueError, match="p from 1 to infinity"):
        LpNorm(p=0.5)
    with pytest.raises(ValueError, match="no neighbours"):
        TotalVariation()(tf.zeros([1, 5]))


# -- constraints ----------------------------------------------------------------------------------

BOUNDS = (np.float32(0), np.float32(255))


def test_quantized_images_are_what_a_picture_file_holds():
    images = np.array([[-3.0, 0.4, 0.6, 254.7, 300.0]], np.float32)
    found = Quantize()(tf.constant(images), 0, BOUNDS).numpy()
    np.testing.assert_allclose(found, [[0, 0, 1, 255, 255]], atol=1e-4)


def test_colours_are_clipped_by_channel():
    low, high = np.float32([0, -1]), np.float32([1, 1])
    found = ClipColors()(tf.constant([[[-0.5, -0.5], [2.0, 2.0]]]), 0, (low, high)).numpy()
    np.testing.assert_array_equal(found, [[[0, -0.5], [1, 1]]])


def test_the_blur_comes_before_every_nth_step():
    images = np.zeros((1, 21, 21, 1), np.float32)
    images[0, 10, 10] = 1
    blur = BlurEvery(every=3, deviation=1.5)
    changed = [
        not np.array_equal(blur(tf.constant(images), tf.constant(step), BOUNDS), images)
        for step in range(7)
    ]
    assert changed == [False, False, True, False, False, True, False]
    expected = ndimage.gaussian_filter(images[0, ..., 0].astype(float), 1.5, truncate=8)
    found = blur(tf.constant(images), tf.constant(2), BOUNDS).numpy()[0, ..., 0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


# -- gradient modifiers ---------------------------------------------------------------------------


def test_gradients_are_shortened_by_image_only_where_too_long():
    gradients = np.zeros((2, 3, 3, 1), np.float32)
    gradients[0, 0, 0], gradients[1, 0, :2] = 3.0, 0.03
    clipped = ClipGradient(0.1)(tf.constant(gradients)).numpy()
    np.testing.assert_allclose(clipped[0], gradients[0] / 30, rtol=1e-6)
    np.testing.assert_array_equal(clipped[1], gradients[1])


def test_normalized_gradients_have_length_one_and_zero_stays_zero():
    gradients = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)
    gradients[2] = 0
    found = NormalizeGradient()(tf.constant(gradients)).numpy()
    lengths = np.sqrt((found**2).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(lengths, [1, 1, 0], rtol=1e-5)
