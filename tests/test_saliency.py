"""Gradients to the input against a backward pass written by hand, closed forms and axioms."""

import keras
import numpy as np
import pytest
import references
from references import assert_same
from tiny_net import Case, TinyNet

import kvis2


@pytest.fixture(scope="module")
def case():
    return Case.of(TinyNet.random(64))


def polynomial_model(power, shape=(6, 7, 1)):
    """score = sum(x ** power), so the gradient is known for every input."""
    inputs = keras.Input(shape)
    dense = keras.layers.Dense(1, name="score", kernel_initializer="ones")
    return keras.Model(inputs, dense(keras.layers.Flatten()(inputs**power)))


def test_saliency_is_the_largest_magnitude_over_the_channels(case):
    maps = kvis2.Saliency(case.model, normalize=False)(case.classes, case.images)

    assert maps.dtype == np.float32
    assert_same(maps, references.saliency(case.gradients.images))


def test_saliency_is_normalized_by_image(case):
    maps = kvis2.Saliency(case.model)(case.classes, case.images)
    assert_same(maps, references.normalize(references.saliency(case.gradients.images)))


def test_a_negative_gradient_counts_by_its_magnitude():
    images = np.array([[[[-3.0], [0.5]], [[2.0], [-1.0]]]], np.float32)
    maps = kvis2.Saliency(polynomial_model(2, (2, 2, 1)), normalize=False)(0, images)
    np.testing.assert_allclose(maps, [[[6, 1], [4, 2]]], rtol=1e-6)


REDUCTIONS = {
    "absolute": references.saliency,
    "signed": lambda gradients: gradients.sum(axis=-1),
    "positive": lambda gradients: references.relu(gradients).max(axis=-1),
    "negative": lambda gradients: references.relu(-gradients).max(axis=-1),
}


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_the_channels_become_one_map(case, reduce):
    expected = REDUCTIONS[reduce](case.gradients.images)
    maps = kvis2.Saliency(case.model, reduce=reduce, normalize=False)(case.classes, case.images)
    assert_same(maps, expected)


def test_the_channels_may_be_kept(case):
    maps = kvis2.Saliency(case.model, keepdims=True, normalize=False)(case.classes, case.images)
    assert_same(maps, case.gradients.images)


def test_the_gradient_to_a_layer_has_the_layers_size(case):
    explainer = kvis2.Saliency(case.model, layer="conv1", normalize=False, resize=False)
    maps = explainer(case.classes, case.images)
    assert_same(maps, references.saliency(case.gradients.conv1))


# -- SmoothGrad -----------------------------------------------------------------------------------


def test_the_noise_is_a_fraction_of_each_images_own_range():
    """E[3 (x + s e)^2] = 3 (x^2 + s^2): the mean map shows the standard deviation s."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (2, 6, 7, 1)).astype(np.float32)
    images[1] = 5 + 10 * images[1]
    deviation = 0.3 * np.ptp(images, axis=(1, 2, 3))
    explainer = kvis2.Saliency(
        polynomial_model(3), smooth_samples=400, smooth_noise=0.3, seed=1, normalize=False
    )

    maps = explainer(0, images).astype(np.float64)

    for one, image, expected in zip(maps, images[..., 0], deviation, strict=True):
        estimate = np.sqrt((one / 3 - image**2).mean())
        assert estimate == pytest.approx(expected, rel=0.06)
        # every pixel: the deviation of 3 (x + s e)^2 is 3 sqrt(4 x^2 s^2 + 2 s^4)
        error = one - references.saliency(3 * (image**2 + expected**2)[..., None])
        spread = 3 * np.sqrt(4 * image**2 * expected**2 + 2 * expected**4) / np.sqrt(400)
        assert np.abs(error / spread).max() < 4.5
        assert 0.5 < np.sqrt(np.mean((error / spread) ** 2)) < 1.5  # not one draw for all pixels


def test_smooth_grad_averages_signed_gradients():
    """Smilkov 2017, and not tf-keras-vis, which averages magnitudes.

    At x = 0 the gradient 2 (x + s e) of x^2 has mean 0, but its magnitude has mean 1.6 s.
    """
    images = np.zeros((1, 6, 7, 1), np.float32)
    images[0, 0, 0, 0] = 1.0  # the range
    explainer = kvis2.Saliency(
        polynomial_model(2), smooth_samples=400, smooth_noise=0.5, seed=0, normalize=False
    )

    maps = explainer(0, images)

    assert maps[0, 0, 0] == pytest.approx(2.0, abs=0.25)
    assert maps[0].ravel()[1:].mean() < 0.1  # magnitudes would give .8


def test_smooth_grad_of_a_linear_score_is_its_gradient():
    rng = np.random.default_rng(0)
    inputs = keras.Input((4, 5, 2))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    kernel = rng.normal(size=(40, 2)).astype(np.float32)
    model.set_weights([kernel, np.zeros(2, np.float32)])
    images = rng.normal(size=(3, 4, 5, 2)).astype(np.float32)

    maps = kvis2.Saliency(model, smooth_samples=5, seed=0, normalize=False)(1, images)

    assert_same(maps, np.abs(kernel[:, 1].reshape(1, 4, 5, 2)).max(axis=-1).repeat(3, axis=0))


def test_smooth_grad_without_noise_is_saliency(case):
    explainer = kvis2.Saliency(case.model, smooth_samples=3, smooth_noise=0.0, normalize=False)
    maps = explainer(case.classes, case.images)
    assert_same(maps, references.saliency(case.gradients.images))


def test_smooth_grad_estimates_the_mean_of_the_gradients_by_hand(case):
    """Two independent draws of 64 samples each: equal up to their sampling error."""
    rng, draws = np.random.default_rng(5), 64
    deviation = 0.15 * np.ptp(case.images, axis=(1, 2, 3))[:, None, None, None]
    noise = deviation * rng.normal(size=(draws, *case.images.shape))

    def gradient(images):
        return case.net.gradients(images, case.classes).images

    expected = references.saliency(references.smooth_grad(case.images, gradient, noise))
    plain = references.saliency(case.gradients.images)
    explainer = kvis2.Saliency(case.model, smooth_samples=draws, seed=3, normalize=False)

    maps = explainer(case.classes, case.images)

    distance = np.abs(maps - expected).mean()
    assert distance < 0.25 * np.abs(plain - expected).mean()


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_seed_repeats_the_noise(case, batch_size):
    def explain(seed):
        explainer = kvis2.Saliency(
            case.model, smooth_samples=4, seed=seed, normalize=False, batch_size=batch_size
        )
        return explainer(case.classes, case.images)

    np.testing.assert_array_equal(explain(7), explain(7))
    assert np.abs(explain(7) - explain(8)).max() > 1e-3 * explain(7).max()
