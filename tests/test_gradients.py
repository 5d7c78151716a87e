"""Input x gradient, integrated and expected gradients, statistics over noise: numbers, axioms."""

import gc
import weakref

import keras
import numpy as np
import pytest
import references
from references import assert_same
from sampled import rest_slow
from tiny_net import Case, TinyNet

import kvis2
from kvis2.explainers import (
    ExpectedGradients,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
    SmoothGradSquared,
    VarGrad,
)


@pytest.fixture(scope="module")
def case():
    return Case.of(TinyNet.random(64))


def gradient_of(case):
    return lambda images: case.net.gradients(images, case.classes).images


def cubic_model(shape=(4, 5, 2)):
    """score = sum(x^3): gradients are quadratic, so both quadratures can be checked by hand."""
    inputs = keras.Input(shape)
    dense = keras.layers.Dense(1, name="score", kernel_initializer="ones")
    return keras.Model(inputs, dense(keras.layers.Flatten()(inputs**3)))


@pytest.fixture
def cubic_images():
    return np.random.default_rng(2).normal(size=(3, 4, 5, 2)).astype(np.float32)


# -- reductions -----------------------------------------------------------------------------------

PIXELS = np.array([[1, -2, 0, 4], [-1, 1, 3, 0], [2, 0, -2, 1]], np.float32)  # channels, pixels


def linear_model(gradient):
    """A model whose gradient is `gradient` everywhere."""
    model = keras.Sequential(
        [keras.Input(gradient.shape), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    model.set_weights([gradient.reshape(-1, 1), np.zeros(1, np.float32)])
    return model


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        ("absolute", [2, 2, 3, 4]),
        ("absolute_sum", [4, 3, 5, 5]),
        ("signed", [2, -1, 1, 5]),
        ("positive", [2, 1, 3, 4]),
        ("negative", [1, 2, 2, 0]),
    ],
)
def test_reductions_of_the_channels(reduce, expected):
    gradient = PIXELS.T.reshape(2, 2, 3)
    explainer = kvis2.Saliency(linear_model(gradient), reduce=reduce, normalize=False)
    np.testing.assert_allclose(explainer(0, np.ones((2, 2, 3)))[0].ravel(), expected)


def test_positive_and_negative_saliency_in_colour_are_the_golden_vectors():
    """cnn-visualizations: pos = max(0, g) / max(g), neg = max(0, -g) / -min(g)."""
    model, image = linear_model(PIXELS.T.reshape(2, 2, 3)), np.ones((2, 2, 3))
    golden = {
        "positive": [0.25, 0, 0, 1, 0, 0.25, 0.75, 0, 0.5, 0, 0, 0.25],
        "negative": [0, 1, 0, 0, 0.5, 0, 0, 0, 0, 0, 1, 0],
    }
    for reduce, expected in golden.items():
        maps = kvis2.Saliency(model, reduce=reduce, keepdims=True)(0, image)
        np.testing.assert_allclose(np.moveaxis(maps[0], -1, 0).ravel(), expected, rtol=1e-6)


# -- input x gradient -----------------------------------------------------------------------------


def test_input_times_gradient(case):
    maps = InputXGradient(case.model, normalize=False)(case.classes, case.images)
    assert_same(maps, references.input_times_gradient(case.images, case.gradients.images))


def test_input_times_gradient_at_a_layer(case):
    explainer = InputXGradient(case.model, layer="conv1", normalize=False, resize=False)
    maps = explainer(case.classes, case.images)
    assert_same(maps, references.input_times_gradient(case.values.conv1, case.gradients.conv1))


def test_input_times_gradient_without_biases_adds_up_to_the_score():
    net = TinyNet.random(3)
    zeros = {name: 0 * getattr(net, name) for name in ("bias1", "bias2", "bias")}
    case = Case.of(net._replace(**zeros))
    maps = InputXGradient(case.model, normalize=False)(case.classes, case.images)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), case.logit(case.images), rtol=1e-4)


# -- integrated gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [None, pytest.param(0.7, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "method", ["gauss-legendre", pytest.param("trapezoid", marks=pytest.mark.slow)]
)
def test_integrated_gradients_of_a_net(case, baseline, method):
    """Against 400 midpoints in NumPy; the gradient of a ReLU net jumps, so not digit for digit."""
    start = np.full_like(case.images, baseline or 0.0)
    expected = references.integrated_gradients(case.images, start, gradient_of(case), 400)
    explainer = IntegratedGradients(
        case.model, baseline=baseline, steps=200, method=method, keepdims=True, normalize=False
    )
    maps = explainer(case.classes, case.images)
    assert_same(maps, expected, relative=0.01)


def test_gauss_legendre_is_exact_for_polynomials(cubic_images):
    """score = sum x^3 along the line: x^3 - b^3 per value, from two points only."""
    explainer = IntegratedGradients(
        cubic_model(), baseline=0.5, steps=2, keepdims=True, normalize=False
    )
    assert_same(explainer(0, cubic_images), cubic_images**3 - 0.5**3)
    assert explainer.completeness_gap.shape == (3,)
    assert explainer.completeness_gap.max() < 1e-4


def test_trapezoid_by_hand(cubic_images):
    """The trapezoidal rule with n points misses t^2 by 1 / (6 (n - 1)^2)."""
    steps = 5
    explainer = IntegratedGradients(
        cubic_model(), method="trapezoid", steps=steps, keepdims=True, normalize=False
    )
    excess = 3 * (1 / 3 + 1 / (6 * (steps - 1) ** 2))
    assert_same(explainer(0, cubic_images), excess * cubic_images**3)
    np.testing.assert_allclose(explainer.completeness_gap, excess - 1, rtol=1e-3)


def test_without_multiplication_it_is_the_mean_gradient(cubic_images):
    explainer = IntegratedGradients(
        cubic_model(), multiply_by_inputs=False, steps=3, keepdims=True, normalize=False
    )
    assert_same(explainer(0, cubic_images), cubic_images**2)  # mean of 3 (t x)^2
    assert np.isnan(explainer.completeness_gap).all()


def test_several_baselines_are_averaged(cubic_images):
    baselines = np.random.default_rng(5).normal(size=(4, *cubic_images.shape[1:]))
    options = {"steps": 3, "keepdims": True, "normalize": False, "batch_size": 3}
    explainer = IntegratedGradients(cubic_model(), baseline=baselines, **options)
    assert_same(explainer(0, cubic_images), cubic_images**3 - (baselines**3).mean(axis=0))
    assert explainer.completeness_gap.max() < 1e-4

    numbers = IntegratedGradients(cubic_model(), baseline=[0.0, 0.5, 1.0], **options)
    assert_same(numbers(0, cubic_images), cubic_images**3 - (0 + 0.5**3 + 1) / 3)


def test_a_blurred_baseline_is_the_gaussian_blur_of_each_image():
    from scipy.ndimage import gaussian_filter1d

    image = np.random.default_rng(5).normal(size=(1, 60, 40, 2)).astype(np.float32)
    start = image.astype(np.float64)
    for axis in (1, 2):
        ones = gaussian_filter1d(np.ones_like(start), 3.0, axis, mode="constant", truncate=30)
        start = gaussian_filter1d(start, 3.0, axis, mode="constant", truncate=30) / ones
    explainer = IntegratedGradients(
        cubic_model((60, 40, 2)), baseline="blur", steps=2, keepdims=True, normalize=False
    )
    assert_same(explainer(0, image), image**3 - start**3)


def test_attributions_are_complete(case):
    explainer = IntegratedGradients(case.model, steps=200, normalize=False)
    maps = explainer(case.classes, case.images)
    change = case.logit(case.images) - case.logit(np.zeros_like(case.images))
    expected = np.abs(maps.sum(axis=(1, 2)) - change) / np.abs(change)
    np.testing.assert_allclose(explainer.completeness_gap, expected, rtol=0.02, atol=1e-5)
    assert explainer.completeness_gap.max() < 0.02


def text_model(body):
    """tokens -> embedding of 5 x 3 numbers -> `body` -> one unit."""
    tokens = keras.Input((5,), dtype="int32")
    x = body(keras.layers.Embedding(9, 3, name="embedding")(tokens))
    model = keras.Model(tokens, keras.layers.Dense(1)(keras.layers.Flatten()(x)))
    draw = np.random.default_rng(6)
    model.set_weights([draw.normal(size=w.shape) for w in model.get_weights()])
    return model


SENTENCES = np.array([[1, 2, 3, 4, 5], [8, 8, 0, 7, 6]])


@pytest.mark.parametrize("baseline", rest_slow([[[4, 1, 0, 2, 3], [0, 0, 0, 5, 5]], 4]))
def test_integrated_gradients_at_an_embedding(baseline):
    """score = sum w e^3 over the embedding: each word gets its w (e^3 - e_baseline^3)."""
    model = text_model(lambda x: x**3)
    embedding, kernel, _ = (each.astype(np.float64) for each in model.get_weights())
    starts = np.atleast_2d(baseline) * np.ones((1, 5), int)
    change = embedding[SENTENCES] ** 3 - (embedding[starts] ** 3).mean(axis=0)
    explainer = IntegratedGradients(
        model, "embedding", baseline=baseline, steps=2, batch_size=3, normalize=False
    )
    assert_same(explainer(0, SENTENCES), (change * kernel.reshape(5, 3)).sum(axis=-1))
    assert explainer.completeness_gap.max() < 1e-4


def test_attributions_at_an_embedding_are_complete():
    model = text_model(keras.layers.Conv1D(6, 3, activation="tanh", padding="same"))
    explainer = IntegratedGradients(model, "embedding", baseline=0, steps=60, normalize=False)
    maps = explainer(0, SENTENCES)
    change = (model(SENTENCES) - model(np.zeros((1, 5), int))).numpy()[:, 0]
    np.testing.assert_allclose(maps.sum(axis=1), change, rtol=1e-3)
    assert explainer.completeness_gap.max() < 1e-3


@pytest.mark.slow
def test_expected_gradients_at_an_embedding_come_close_to_integrated_gradients():
    model = text_model(keras.layers.Conv1D(6, 3, activation="tanh", padding="same"))
    drawn = ExpectedGradients(
        model, "embedding", baseline=[0, 3], samples=2000, keepdims=True, normalize=False
    )
    own = IntegratedGradients(
        model, "embedding", baseline=[0, 3], steps=60, keepdims=True, normalize=False
    )
    expected = own(0, SENTENCES)
    assert expected.shape == (2, 5, 3)
    assert np.abs(drawn(0, SENTENCES) - expected).mean() < 0.05 * np.abs(expected).mean()


@pytest.mark.slow
def test_attributions_at_a_hidden_layer_are_complete(case):
    explainer = IntegratedGradients(
        case.model, "conv1", steps=200, normalize=False, resize=False, batch_size=50
    )
    maps = explainer(case.classes, case.images)
    change = case.logit(case.images) - case.logit(np.zeros_like(case.images))
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), change, rtol=0.02, atol=1e-3)
    assert explainer.completeness_gap.max() < 0.02


def test_tokens_cannot_be_blurred():
    with pytest.raises(ValueError, match="an image to blur"):
        IntegratedGradients(text_model(lambda x: x), "embedding", baseline="blur")(0, SENTENCES)


@pytest.mark.slow
def test_expected_gradients_come_close_to_integrated_gradients_over_the_baselines(cubic_images):
    baselines = np.random.default_rng(5).normal(size=(3, *cubic_images.shape[1:]))
    expected = cubic_images**3 - (baselines**3).mean(axis=0)
    errors = []
    for samples in (30, 3000):
        explainer = ExpectedGradients(
            cubic_model(), baseline=baselines, samples=samples, seed=3, keepdims=True,
            normalize=False,
        )  # fmt: skip
        errors.append(np.abs(explainer(0, cubic_images) - expected).mean())
    assert errors[1] < 0.02 * np.abs(expected).mean() + errors[0] / 4
    assert errors[1] < errors[0]


# -- statistics over noise ------------------------------------------------------------------------

STATISTICS = [SmoothGrad, SmoothGradSquared, VarGrad]


def test_smooth_grad_of_saliency_is_smoothed_saliency(case):
    wrapped = SmoothGrad(kvis2.Saliency(case.model, normalize=False), 6, 0.2, seed=4)
    own = kvis2.Saliency(case.model, smooth_samples=6, smooth_noise=0.2, seed=4, normalize=False)
    np.testing.assert_array_equal(
        wrapped(case.classes, case.images), own(case.classes, case.images)
    )


@pytest.mark.parametrize(
    "make", rest_slow([kvis2.GradCAM, kvis2.Saliency, InputXGradient, kvis2.LayerCAM])
)
def test_without_noise_the_mean_is_the_map_and_the_variance_is_zero(case, make):
    explainer = make(case.model, normalize=False)
    plain = explainer(case.classes, case.images)
    assert_same(SmoothGrad(explainer, 3, 0.0)(case.classes, case.images), plain)
    with pytest.warns(UserWarning, match="zero everywhere"):
        assert not VarGrad(explainer, 3, 0.0)(case.classes, case.images).any()
    if make is not InputXGradient:  # Its channels are summed after they are squared.
        squared = SmoothGradSquared(explainer, 3, 0.0)(case.classes, case.images)
        assert_same(squared, plain.astype(np.float64) ** 2)


def test_mean_square_and_variance_of_a_known_distribution():
    """score = sum x^2, so g = 2 (x + s e): mean 2 x, mean square 4 (x^2 + s^2), variance 4 s^2."""
    inputs = keras.Input((6, 7, 1))
    dense = keras.layers.Dense(1, kernel_initializer="ones")
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs**2)))
    image = np.random.default_rng(0).uniform(-1, 1, (1, 6, 7, 1)).astype(np.float32)
    deviation, samples = 0.3 * np.ptp(image), 500
    found = {
        statistic: statistic(
            kvis2.Saliency(model, reduce="signed", normalize=False), samples, 0.3, seed=1
        )(0, image)[0].astype(np.float64)
        for statistic in STATISTICS
    }
    x = image[0, ..., 0].astype(np.float64)
    standard_error = 2 * deviation / np.sqrt(samples)
    assert np.abs(found[SmoothGrad] - 2 * x).max() < 4.5 * standard_error
    assert np.sqrt(((found[SmoothGrad] - 2 * x) ** 2).mean()) > 0.5 * standard_error
    assert found[VarGrad].mean() == pytest.approx(4 * deviation**2, rel=0.03)
    assert_same(found[SmoothGradSquared], found[VarGrad] + found[SmoothGrad] ** 2, 1e-4)


def test_the_variance_keeps_its_digits_beside_a_large_mean():
    """g = 1000 + 2 s e: the difference of the two moments in float32 would be noise."""
    inputs = keras.Input((6, 7, 1))
    dense = keras.layers.Dense(1, kernel_initializer="ones")
    x = keras.layers.Flatten()(inputs**2 + 3000.0 * inputs)
    model = keras.Model(inputs, dense(x))
    image = np.random.default_rng(0).uniform(0, 1, (1, 6, 7, 1)).astype(np.float32)
    maps = VarGrad(kvis2.Saliency(model, reduce="signed", normalize=False), 300, 0.1)(0, image)
    assert maps.mean() == pytest.approx(4 * (0.1 * np.ptp(image)) ** 2, rel=0.1)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_seeds_repeat_and_chunks_do_not_matter(case, statistic):
    def explain(seed, batch_size):
        explainer = kvis2.Saliency(case.model, normalize=False, batch_size=batch_size)
        return statistic(explainer, 5, 0.2, seed=seed)(None, case.images)

    first = explain(1, None)
    np.testing.assert_array_equal(first, explain(1, None))
    assert_same(explain(1, 1), first)
    assert_same(explain(1, 7), first)
    assert np.abs(explain(2, None) - first).max() > 1e-3 * first.max()
    assert (explain(None, None) != explain(None, None)).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda m, seed: ExpectedGradients(m, baseline=[0.0, 0.5], samples=6, seed=seed),
        lambda m, seed: kvis2.SmoothGradCAMPlusPlus(m, "conv1", samples=3, seed=seed),
        lambda m, seed: kvis2.RISE(m, samples=6, cells=3, seed=seed),
    ],
    ids=["ExpectedGradients", "SmoothGradCAMPlusPlus", "RISE"],
)
def test_a_seed_repeats_every_byte_and_another_does_not(case, make):
    first, again, other = (make(case.model, seed)(0, case.images) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert np.abs(other - first).max() > 1e-3
    fresh = make(case.model, None)
    assert (fresh(0, case.images) != fresh(0, case.images)).any()


def test_one_trace_for_all_seeds_noises_and_classes(case):
    before = kvis2.passes.compilation.trace_count(case.model)
    for seed, noise, label in [(0, 0.1, 0), (5, 0.3, 1), (9, 0.0, 2)]:
        SmoothGrad(InputXGradient(case.model, normalize=False), 11, noise, seed=seed)(
            label, case.images
        )
    assert kvis2.passes.compilation.trace_count(case.model) == before + 1


def test_wrappers_nest(case):
    inner = IntegratedGradients(case.model, steps=4, normalize=False)
    maps = SmoothGrad(inner, 3, 0.0)(case.classes, case.images)
    assert_same(maps, inner(case.classes, case.images))


@pytest.mark.slow
def test_a_pass_does_not_keep_the_model_alive():
    case = Case.of(TinyNet.random(1))
    model = weakref.ref(case.model)
    SmoothGrad(IntegratedGradients(case.model, steps=2), 2)(0, case.images)
    del case
    gc.collect()
    assert model() is None


def test_noise_needs_an_explainer(case):
    with pytest.raises(TypeError, match="Expected an explainer"):
        SmoothGrad(case.model)
