"""Sanity checks and sensitivity of explainers, against models that really have other weights."""

import keras
import metric_references as references
import numpy as np
import pytest
from keras import Model, Sequential, layers

import kvis2
from kvis2.metrics import (
    MaxSensitivity,
    ParameterRandomization,
    RandomLogit,
    complexity,
    spearman,
    ssim,
)
from kvis2.passes import trace_count

RANDOM = np.random.default_rng(0)


def permuted(model, names, seed):
    """A copy of a model in which the weights of some layers are shuffled."""
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    for name in names:
        draw = np.random.default_rng(seed)
        layer = copied.get_layer(name)
        shuffled = [
            each.ravel()[draw.permutation(each.size)].reshape(each.shape)
            for each in layer.get_weights()
        ]
        layer.set_weights(shuffled)
    return copied


@pytest.fixture
def normed_model():
    """Convolutions with batch normalisation, which class activation maps fold."""
    stack = [
        layers.Conv2D(4, 3, padding="same", use_bias=False, name="first"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(),
        layers.Conv2D(5, 3, padding="same", activation="relu", name="second"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, activation="softmax", name="head"),
    ]
    model = Sequential([layers.Input((16, 12, 3)), *stack])
    norm = model.get_layer("norm")
    norm.set_weights([RANDOM.uniform(0.5, 2, 4).astype("f") for _ in norm.get_weights()])
    return model


EXPLAINERS = {
    "Saliency": kvis2.Saliency,
    "GradCAM": kvis2.GradCAM,
    "LayerCAM fused": lambda m: kvis2.LayerCAM(m, layers=["first", "second"]),
    "guided": lambda m: kvis2.Saliency(
        m, model_modifier=[kvis2.LinearOutput(), kvis2.GuidedReLU()], reduce="signed"
    ),
    "IntegratedGradients": lambda m: kvis2.IntegratedGradients(m, steps=4),
    "LRP": kvis2.LRP,
    "ScoreCAM": kvis2.ScoreCAM,
    "SmoothGrad": lambda m: kvis2.SmoothGrad(kvis2.Saliency(m), samples=3),
    "Occlusion": lambda m: kvis2.Occlusion(m, window=5, stride=5),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found no evidence")
@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize("order", ["top_down", "bottom_up", "independent"])
def test_randomised_maps_are_those_of_a_model_with_such_weights(normed_model, images, name, order):
    make = EXPLAINERS[name]
    measure = ParameterRandomization(make(normed_model), order=order, seed=5)
    weights = normed_model.get_weights()
    found = measure(
        1,
        images,
    )
    for now, then in zip(normed_model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)
    names = ["first", "norm", "second", "head"]
    ordered = names[::-1] if order == "top_down" else names
    before = np.abs(make(normed_model)(1, images))
    expected = []
    for stage, layer in enumerate(ordered):
        chosen = [layer] if order == "independent" else ordered[: stage + 1]
        after = make(permuted(normed_model, chosen, 5))(1, images)
        expected.append(spearman(before, np.abs(after)))
        assert found.details["layers"][stage] == (layer,)
    np.testing.assert_allclose(found.curve, np.stack(expected, axis=1), atol=2e-3)
    np.testing.assert_allclose(found, found.curve.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(found.fractions, [0.25, 0.5, 0.75, 1])


def test_all_stages_share_one_trace_and_new_weights_are_seen(normed_model, images):
    measure = ParameterRandomization(kvis2.GradCAM(normed_model))
    before = measure(1, images)
    traces = trace_count(normed_model)
    assert traces == 1
    ParameterRandomization(kvis2.GradCAM(normed_model), order="independent", seed=3)(2, images)
    assert trace_count(normed_model) == traces
    normed_model.set_weights([each[..., ::-1] for each in normed_model.get_weights()])
    assert (np.asarray(measure(1, images)) != np.asarray(before)).any()


def test_layers_inside_nested_and_subclassed_models_are_randomised(normed_model, images):
    nested = Sequential([layers.Input((16, 12, 3)), normed_model])

    class Subclassed(Model):
        def __init__(self):
            super().__init__()
            self.inner = normed_model

        def call(self, inputs):
            return self.inner(inputs)

    subclassed = Subclassed()
    subclassed(images)
    plain = ParameterRandomization(kvis2.Saliency(normed_model))(None, images)
    for model in (nested, subclassed):
        found = ParameterRandomization(kvis2.Saliency(model))(None, images)
        np.testing.assert_allclose(found.curve, plain.curve, atol=1e-4)
        paths = [path for (path,) in found.details["layers"]]
        assert [path.rsplit("/")[-1] for path in paths] == ["head", "second", "norm", "first"]
        assert all("/" in path for path in paths)


def test_stages_group_the_layers_and_chosen_layers_are_taken_in_their_order(normed_model, images):
    every = ParameterRandomization(kvis2.Saliency(normed_model))(1, images)
    two = ParameterRandomization(kvis2.Saliency(normed_model), stages=2)(1, images)
    np.testing.assert_allclose(two.curve, every.curve[:, 1::2], atol=1e-6)
    assert two.details["layers"] == [("head", "second"), ("norm", "first")]
    chosen = ParameterRandomization(kvis2.Saliency(normed_model), layers=["second", "head"])
    np.testing.assert_allclose(chosen(1, images).curve, every.curve[:, :2], atol=1e-6)


def test_the_class_is_that_of_the_trained_model(normed_model, images):
    labels = normed_model(images).numpy().argmax(axis=1).tolist()
    for measure in (ParameterRandomization, RandomLogit, MaxSensitivity):
        expected = measure(kvis2.Saliency(normed_model))(labels, images)
        found = measure(kvis2.Saliency(normed_model))(None, images)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_structural_similarity_and_initialisers(normed_model, images):
    explainer = kvis2.Saliency(normed_model)
    measure = ParameterRandomization(
        explainer, similarity="ssim", initialization="initializer", stages=1, seed=2
    )
    found = measure(1, images)
    np.testing.assert_array_equal(found, measure(1, images))
    copied = keras.models.clone_model(normed_model)
    for layer in copied.layers:
        for number, weight in enumerate(layer.weights):
            initializer = getattr(layer, f"{weight.name}_initializer")
            config = initializer.get_config()
            if "seed" in config:
                initializer = type(initializer).from_config({**config, "seed": 2 + number})
            weight.assign(initializer(weight.shape, dtype=weight.dtype))
    after = kvis2.Saliency(copied)(1, images)
    np.testing.assert_allclose(found, ssim(explainer(1, images), after), atol=1e-4)


def test_the_efficient_variant_is_the_relative_rise_of_the_complexity(normed_model, images):
    measure = ParameterRandomization(kvis2.Saliency(normed_model), variant="efficient", seed=5)
    found = measure(1, images)
    names = ["first", "norm", "second", "head"]
    own = complexity(kvis2.Saliency(normed_model)(1, images))
    after = complexity(kvis2.Saliency(permuted(normed_model, names, 5))(1, images))
    np.testing.assert_allclose(found, (after - own) / own, atol=1e-4)
    assert found.better == "higher"


def test_the_smooth_variant_averages_maps_of_noisy_images(normed_model, images):
    options = {"variant": "smooth", "samples": 3, "noise": 0.2, "stages": 1, "seed": 5}
    found = ParameterRandomization(kvis2.Saliency(normed_model), **options)(1, images)
    other = permuted(normed_model, ["first", "norm", "second", "head"], 5)
    means = []
    for model in (normed_model, other):
        total = 0
        for sample in range(3):
            draw = np.random.default_rng([5, sample]).normal(size=images.shape[1:])
            ranges = np.ptp(images, axis=(1, 2, 3), keepdims=True)
            noisy = (images + 0.2 * ranges * draw).astype(np.float32)
            total += kvis2.Saliency(model, normalize=False)(1, noisy)
        means.append(total / 3)
    np.testing.assert_allclose(found, spearman(*means), atol=2e-3)


def test_maps_of_two_inputs_are_compared_as_one():
    left, right = layers.Input((8, 8, 1)), layers.Input((5,))
    joined = layers.Concatenate()([layers.Flatten()(left), right])
    hidden = layers.Dense(6, activation="relu")(joined)
    model = Model([left, right], layers.Dense(3, activation="softmax")(hidden))
    inputs = [RANDOM.random((2, 8, 8, 1), dtype="f"), RANDOM.random((2, 5), dtype="f")]
    found = RandomLogit(kvis2.Saliency(model), classes=2)([0, 1], inputs)
    explainer = kvis2.Saliency(model, normalize=False)
    pairs = [explainer(label, inputs) for label in ([0, 1], 2)]
    rows = [np.concatenate([a.reshape(2, -1), b], axis=1) for a, b in pairs]
    expected = [references.spearman(a, b) for a, b in zip(*rows, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for measure in (ParameterRandomization, MaxSensitivity):
        assert np.isfinite(np.asarray(measure(kvis2.Saliency(model))(None, inputs))).all()


def test_guided_backpropagation_and_eigen_cam_do_not_see_the_class(small_model, images):
    eigen = RandomLogit(kvis2.EigenCAM(small_model))(None, images)
    np.testing.assert_allclose(eigen, np.ones(5), atol=1e-6)
    found = RandomLogit(kvis2.GradCAM(small_model))(None, images)
    predicted = small_model(images).numpy().argmax(axis=1)
    assert (found.details["classes"] != predicted).all()
    assert (np.asarray(found) < 0.99).any()


def test_one_unit_has_one_other_class(images):
    stack = [layers.Conv2D(4, 3, activation="relu"), layers.Flatten()]
    model = Sequential([layers.Input((16, 12, 3)), *stack, layers.Dense(1, "sigmoid")])
    found = RandomLogit(kvis2.Saliency(model))(1, images)
    np.testing.assert_array_equal(found.details["classes"], np.zeros(5))
    np.testing.assert_allclose(found, np.ones(5), atol=1e-6)  # the same gradient, turned round


def test_sensitivity_is_the_largest_relative_change_within_the_radius(small_model, images):
    found = MaxSensitivity(kvis2.Saliency(small_model), radius=0.1, samples=4, seed=3)(2, images)
    explainer = kvis2.Saliency(small_model, normalize=False)
    own = explainer(2, images)
    for number, image in enumerate(images):
        changes = []
        for sample in range(4):
            draw = np.random.default_rng([3, sample]).uniform(-1, 1, image.shape)
            moved = image + 0.1 * np.ptp(image) * draw
            change = explainer(2, moved.astype(np.float32)[None])[0] - own[number]
            changes.append(np.linalg.norm(change) / np.linalg.norm(own[number]))
        np.testing.assert_allclose(found[number], max(changes), rtol=1e-3)
        np.testing.assert_allclose(found.details["changes"][number], changes, rtol=1e-3)


def test_a_linear_model_has_steady_gradients():
    model = Sequential([layers.Input((8, 6, 2)), layers.Flatten(), layers.Dense(3)])
    images = RANDOM.random((3, 8, 6, 2), dtype="f")
    found = MaxSensitivity(kvis2.Saliency(model))(1, images)
    np.testing.assert_array_equal(found, np.zeros(3))


def test_given_perturbations_may_be_coarse_or_of_each_image(small_model, images):
    coarse = (0.05 * RANDOM.normal(size=(3, 4, 4, 3))).astype(np.float32)
    whole = coarse.repeat(4, axis=1).repeat(3, axis=2)
    each = np.repeat(whole[:, None], 5, axis=1)
    explainer = kvis2.Saliency(small_model)
    found = [MaxSensitivity(explainer, perturbations=p)(1, images) for p in (coarse, whole, each)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5)
    with pytest.raises(ValueError, match=r"perturbations of shape \(n, 16, 12, 3\)"):
        MaxSensitivity(explainer, perturbations=np.ones((2, 20, 4, 3)))(1, images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda e: ParameterRandomization(e, order="upwards"), "`order` to be one of 'top_down'"),
        (lambda e: ParameterRandomization(e, variant="fast"), "`variant` to be one of 'plain'"),
        (lambda e: ParameterRandomization(e, similarity="l2"), "`similarity` to be one of"),
        (lambda e: ParameterRandomization(e, stages=0), "`stages` to be a positive int or None"),
        (lambda e: ParameterRandomization(e, initialization="zeros"), "`initialization` to be"),
        (lambda e: MaxSensitivity(e, radius=0), "a `radius` above 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(small_model, make, message):
    with pytest.raises(ValueError, match=message):
        make(kvis2.Saliency(small_model))


def test_what_cannot_be_checked_is_named(small_model, images):
    for measure in (ParameterRandomization, RandomLogit, MaxSensitivity):
        with pytest.raises(TypeError, match="Expected an explainer"):
            measure(small_model)
    saliency = kvis2.Saliency(small_model)
    with pytest.raises(ValueError, match=r"Expected layers with weights .*'pool'"):
        ParameterRandomization(saliency, layers=["pool"])(1, images)
    with pytest.raises(ValueError, match="score of one class"):
        RandomLogit(saliency)(kvis2.ContrastScore(0, 1), images)
    with pytest.raises(ValueError, match="other than those explained"):
        RandomLogit(saliency, classes=1)(1, images)
    narrow = Sequential([layers.Input((16, 4, 3)), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(ValueError, match="at least 7 x 7"):
        RandomLogit(kvis2.Saliency(narrow), similarity="ssim")(1, images[:, :, :4])
