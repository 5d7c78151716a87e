"""The maps from parameters to images against NumPy's Fourier transform and closed forms."""

import numpy as np
import pytest
import tensorflow as tf

from kvis2.parametrizations import (
    Fourier,
    MagnitudeConstrained,
    Pixels,
    Standardized,
    mean_magnitude,
)

BOUNDS = (np.float32(-2), np.float32(6))
SHAPES = [(12, 3), (8, 9, 3), (9, 8, 1), (4, 6, 5, 2)]


def test_the_start_of_keras_vis_is_standardized_uniform_noise():
    start = Pixels().start((64, 64, 3), (0.0, 255.0), 0)
    assert start.mean() == pytest.approx(127.5, abs=1e-3)
    assert start.std() == pytest.approx(12.75, abs=1e-3)
    assert start.min() > 127.5 - 12.75 * 1.76
    assert start.max() < 127.5 + 12.75 * 1.76
    np.testing.assert_array_equal(start, Pixels().start((64, 64, 3), (0.0, 255.0), 0))
    assert not np.array_equal(start, Pixels().start((64, 64, 3), (0.0, 255.0), 1))


def test_standard_units_are_those_of_the_preprocessing():
    """x = (-1, 0, 2) in standard units is (65, 116, 218) as a picture."""
    image = Standardized().image(
        tf.constant([[[[-1.0, 0.0, 2.0]]]]), (1, 1, 3), (np.float32(0), np.float32(255))
    )
    np.testing.assert_array_equal(np.round(image.numpy()).ravel(), [65, 116, 218])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chart", [Pixels(), Fourier(), Fourier(decay=0.5)], ids=repr)
def test_what_is_encoded_is_found_again(chart, shape):
    images = np.random.default_rng(0).uniform(-1.5, 5.5, (2, *shape)).astype(np.float32)
    parameters = chart.encode(tf.constant(images), BOUNDS)
    np.testing.assert_allclose(chart.image(parameters, shape, BOUNDS), images, atol=2e-3)
    start = chart.start(shape, BOUNDS, 0)
    assert start.shape == parameters.shape[1:]
    assert chart.image(start[None], shape, BOUNDS).shape == (1, *shape)


@pytest.mark.parametrize("shape", [(8, 9, 3), (6, 7, 1)])
def test_fourier_images_are_those_of_the_formula(shape):
    """Written out with NumPy, one colour at a time."""
    chart, rng = Fourier(decay=1.5), np.random.default_rng(1)
    height, width, channels = shape
    parameters = rng.normal(size=(1, 2, channels, height, width // 2 + 1))

    def weight(down, right):
        return max(np.hypot(down, right), 1 / max(height, width)) ** -1.5

    rows, columns = np.fft.fftfreq(height), np.fft.fftfreq(width)
    full = np.array([[weight(a, b) for b in columns] for a in rows])
    half = np.array([[weight(a, b) for b in np.fft.rfftfreq(width)] for a in rows])
    half /= np.sqrt(2 * (full**2).sum()) / (height * width)
    planes = [
        np.fft.irfft2((parameters[0, 0, c] + 1j * parameters[0, 1, c]) * half, s=shape[:2])
        for c in range(channels)
    ]
    values = np.stack(planes, axis=-1)
    if channels == 3:
        root = np.array([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
        root /= np.sqrt((root**2).sum(axis=0)).max()
        values = np.array([[root @ pixel for pixel in row] for row in values])
    expected = -2 + 8 / (1 + np.exp(-values))

    found = chart.image(tf.constant(parameters, tf.float32), shape, BOUNDS).numpy()[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 1), (48, 64, 1), (12, 14, 16, 1)])
@pytest.mark.parametrize("decay", [0.0, 1.0, 2.0])
def test_unit_parameters_give_pixels_of_unit_variance(shape, decay):
    chart = Fourier(decay=decay, deviation=1.0, contrast=float("inf"))
    starts = np.stack([chart.start(shape, BOUNDS, seed) for seed in range(300)])
    unit = (chart.image(tf.constant(starts), shape, BOUNDS).numpy().astype(float) + 2) / 8
    logits = np.log(unit) - np.log1p(-unit)
    assert np.sqrt((logits**2).mean()) == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("chart", [Fourier(), MagnitudeConstrained()], ids=repr)
def test_images_stay_in_the_range_and_have_a_gradient(chart, shape):
    parameters = tf.constant(chart.start(shape, BOUNDS, 0)[None] * 50)

    @tf.function
    def run(parameters):
        image = chart.image(parameters, shape, BOUNDS)
        return image, tf.gradients(
            image * tf.random.stateless_normal(image.shape, [0, 0]), parameters
        )

    image, (gradient,) = run(parameters)
    assert image.numpy().min() >= -2
    assert image.numpy().max() <= 6
    assert np.isfinite(gradient).all()
    assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_contrast_is_scaled_down_to_its_limit_and_never_up(shape):
    def logits(parameters, **options):
        image = Fourier(**options).image(tf.constant(parameters), shape, (0.0, 1.0)).numpy()
        return np.log(image.astype(float)) - np.log1p(-image.astype(float))

    loud = Fourier(deviation=1.0).start(shape, BOUNDS, 3)[None]
    free = logits(loud, contrast=float("inf"))
    limited = logits(loud, contrast=0.25)
    np.testing.assert_allclose(limited, free * 0.25 / free.std(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(logits(loud * 0.01, contrast=0.25), free * 0.01, atol=1e-5)


def spectrum_of(chart, phases, shape):
    image = chart.image(tf.constant(phases[None]), shape, BOUNDS).numpy()[0].astype(float)
    unit = (image + 2) / 8
    return np.abs(np.fft.rfft2(np.log(unit) - np.log1p(-unit), axes=(0, 1)))


def test_phases_leave_the_magnitudes_as_they_are():
    chart, shape = MagnitudeConstrained(decay=1.0), (16, 16, 1)
    one, other = (spectrum_of(chart, chart.start(shape, BOUNDS, seed), shape) for seed in (0, 1))
    # Frequencies that are their own conjugate have a sign for a phase, so they are left out; the
    # rest is the same up to the scale that the standardisation sets.
    ratio = (one / other)[1:8, 1:8]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-2)
    expected = np.hypot.outer(np.fft.fftfreq(16), np.fft.rfftfreq(16))[1:8, 1:8] ** -1
    relative = one[1:8, 1:8, 0] / expected
    np.testing.assert_allclose(relative, relative.mean(), rtol=1e-2)


def test_the_mean_magnitude_is_that_of_the_photographs():
    photographs = np.random.default_rng(0).uniform(-1.5, 5.5, (4, 8, 6, 1)).astype(np.float32)
    magnitude = np.array(mean_magnitude(photographs, BOUNDS))
    unit = (photographs.astype(float) + 2) / 8
    logits = np.log(unit) - np.log1p(-unit)
    expected = np.abs(np.fft.rfft2(logits, axes=(1, 2))).mean(axis=0)
    relative = magnitude / np.moveaxis(expected, -1, 0)
    np.testing.assert_allclose(relative, relative.mean(), rtol=1e-3)
