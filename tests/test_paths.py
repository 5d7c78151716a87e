"""Paths of gradients against PAIR saliency 0.2.1, and the papers' equations in NumPy."""

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
import references
from references import assert_same
from tiny_net import Case, TinyNet

from kvis2 import IDGI, BlurIG, GuidedIG, IntegratedGradients, LayerConductance

CHANNELS = {"normalize": False, "keepdims": True}


@pytest.fixture(scope="module")
def case():
    return Case.of(TinyNet.random(64))


@pytest.fixture(scope="module")
def goldens():
    with np.load(Path(__file__).parent / "goldens" / "saliency.npz") as stored:
        return dict(stored)


# -- IDGI -----------------------------------------------------------------------------------------


def slow_idgi(case, baseline, steps):
    """Yang 2023, Algorithm 1, one step after the other."""
    found = np.zeros(case.images.shape)
    points = [baseline + step / steps * (case.images - baseline) for step in range(steps + 1)]
    for here, there in itertools.pairwise(points):
        gradients = case.net.gradients(here, case.classes).images
        change = case.logit(there) - case.logit(here)
        for n, gradient in enumerate(gradients):
            found[n] += gradient**2 / (gradient**2).sum() * change[n]
    return found


@pytest.mark.parametrize("batch_size", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_idgi_is_the_papers_equation(case, batch_size):
    images = case.images.astype(np.float64)
    expected = slow_idgi(case._replace(images=images), 0.2, 7)
    explainer = IDGI(case.model, baseline=0.2, steps=7, batch_size=batch_size, **CHANNELS)
    assert_same(explainer(case.classes, case.images), expected, relative=1e-3)
    assert (explainer.completeness_gap < 1e-4).all()  # Whatever the number of steps.


@pytest.mark.slow
def test_idgi_of_several_baselines_is_their_mean(case):
    each = [
        IDGI(case.model, baseline=level, steps=3, **CHANNELS)(case.classes, case.images)
        for level in (-0.5, 0.4)
    ]
    both = IDGI(case.model, baseline=[-0.5, 0.4], steps=3, **CHANNELS)(case.classes, case.images)
    assert_same(both, np.mean(each, axis=0))


def test_idgi_of_very_small_gradients(case):
    """The squares of gradients of 1e-25 are no float32."""
    small = Case.of(case.net._replace(dense=1e-25 * case.net.dense, bias=0 * case.net.bias))
    images = small.images.astype(np.float64)
    expected = slow_idgi(small._replace(images=images), 0.0, 2)
    found = IDGI(small.model, steps=2, **CHANNELS)(small.classes, small.images)
    assert_same(found, expected, relative=1e-2)


def test_idgi_at_a_layer_adds_up(case):
    explainer = IDGI(case.model, "conv1", steps=4, normalize=False, resize=False)
    maps = explainer(case.classes, case.images)
    assert maps.shape == (3, 5, 7)
    assert (explainer.completeness_gap < 1e-4).all()


# -- Layers ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_layers():
    with np.load(Path(__file__).parent / "goldens" / "captum.npz") as stored:
        return dict(stored)


def test_integrated_gradients_at_a_layer_are_those_of_captum(case, of_layers):
    explainer = IntegratedGradients(case.model, "conv1", baseline=0.2, resize=False, **CHANNELS)
    assert_same(explainer(case.classes, of_layers["images"]), of_layers["layer_ig"], relative=1e-3)


@pytest.mark.parametrize("batch_size", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_conductance_is_that_of_captum(case, of_layers, batch_size):
    """Captum with 2000 steps: both are sums for one integral."""
    options = {"baseline": 0.2, "steps": 100, "batch_size": batch_size, **CHANNELS}
    explainer = LayerConductance(case.model, "conv1", **options)
    maps = explainer(case.classes, of_layers["images"])
    assert_same(maps, of_layers["conductance"], relative=1e-2)
    assert (explainer.completeness_gap < 0.01).all()
    other = np.abs(of_layers["conductance"] - of_layers["layer_ig"]).max()
    assert other > 0.1 * np.abs(of_layers["conductance"]).max()


def test_conductance_by_hand(case):
    """Two steps, written out."""
    images = case.images.astype(float)
    values = [case.net.forward(part * images).conv1 for part in (0, 0.5, 1)]
    slopes = [case.net.gradients(part * images, case.classes).conv1 for part in (0, 0.5, 1)]
    expected = sum((slopes[j] + slopes[j + 1]) / 2 * (values[j + 1] - values[j]) for j in range(2))
    maps = LayerConductance(case.model, "conv1", steps=2, **CHANNELS)(case.classes, case.images)
    assert_same(maps, expected)


def test_conductance_of_tokens():
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(7, 3, name="embedding")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    with pytest.raises(ValueError, match="an input of floats, to lay a line to"):
        LayerConductance(model, "embedding")(0, np.ones((1, 5), np.int32))


# -- Guided integrated gradients ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("golden", "options"),
    [
        ("guided", {"steps": 20, "fraction": 0.25, "max_distance": 0.1}),
        ("guided_free", {"baseline": 0.3, "steps": 12, "fraction": 0.1, "max_distance": 1.0}),
        ("guided_straight", {"steps": 8, "fraction": 0.5, "max_distance": 0.0}),
    ],
)
def test_guided_ig_is_that_of_pair_saliency(case, goldens, golden, options):
    explainer = GuidedIG(case.model, **options, **CHANNELS)
    maps = explainer(case.classes, goldens["images"])
    assert_same(maps, goldens[golden], relative=1e-3)


@pytest.mark.slow
def test_guided_ig_on_the_straight_line_is_integrated_gradients(case):
    straight = GuidedIG(case.model, steps=200, max_distance=0.0, **CHANNELS)
    expected = references.integrated_gradients(
        case.images.astype(float), 0.0, lambda x: case.net.gradients(x, case.classes).images, 200
    )
    assert_same(straight(case.classes, case.images), expected, relative=2e-2)
    assert (straight.completeness_gap < 0.05).all()


@pytest.mark.slow
def test_guided_ig_moves_all_inputs_together():
    """An image and a vector: the path is over the values of both."""
    image, vector = keras.Input((4, 5, 2), name="image"), keras.Input((3,), name="vector")
    x = keras.layers.Concatenate()([keras.layers.Flatten()(image), vector])
    x = keras.layers.Dense(6, activation="softplus")(x)
    model = keras.Model([image, vector], keras.layers.Dense(2)(x))
    flat = keras.Sequential([keras.Input((43,)), *model.layers[-2:]])
    draw = np.random.default_rng(0)
    model.set_weights([draw.normal(0, 0.4, w.shape) for w in model.get_weights()])
    given = draw.normal(size=(2, 43)).astype(np.float32)
    options = {"steps": 10, "max_distance": 0.2, **CHANNELS}
    expected = GuidedIG(flat, **options)(1, given)
    maps = GuidedIG(model, **options)(1, [given[:, :40].reshape(2, 4, 5, 2), given[:, 40:]])
    assert_same(maps[0].reshape(2, 40), expected[:, :40])
    assert_same(maps[1], expected[:, 40:])


# -- Blur integrated gradients --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_blur_ig_is_that_of_pair_saliency(case, goldens, batch_size):
    explainer = BlurIG(case.model, max_deviation=3, steps=20, batch_size=batch_size, **CHANNELS)
    assert_same(explainer(case.classes, goldens["images"]), goldens["blur"], relative=1e-3)


@pytest.mark.slow
def test_blur_ig_adds_up_with_many_steps(case):
    explainer = BlurIG(case.model, max_deviation=3, steps=400, **CHANNELS)
    total = explainer(case.classes, case.images).sum(axis=(1, 2, 3))
    assert (explainer.completeness_gap < 0.05).all()
    integrated = IntegratedGradients(case.model, **CHANNELS)(case.classes, case.images)
    assert np.abs(total - integrated.sum(axis=(1, 2, 3))).max() > 0.01  # Another baseline.


@pytest.mark.slow
def test_blur_ig_takes_the_papers_share_of_the_longest_side(case):
    own = BlurIG(case.model, steps=5, **CHANNELS)(case.classes, case.images)
    same = BlurIG(case.model, steps=5, max_deviation=9 * 50 / 224, **CHANNELS)
    assert_same(own, same(case.classes, case.images))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda model: IDGI(model, steps=0), "int of 1 or more"),
        (lambda model: IDGI(model, multiply_by_inputs=False), "no `multiply_by_inputs`"),
        (lambda model: GuidedIG(model, fraction=0), "`fraction` above 0"),
        (lambda model: GuidedIG(model, baseline=[0.0, 1.0]), "one baseline"),
        (lambda model: GuidedIG(model, layer="late"), "no `layer` for GuidedIG"),
        (lambda model: BlurIG(model, max_deviation=0.0), "above 0 or None"),
    ],
)
def test_wrong_argument(small_model, make, said):
    with pytest.raises(ValueError, match=said):
        make(small_model)


@pytest.mark.slow
def test_vectors_have_no_space_to_blur():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="image or a signal to blur"):
        BlurIG(model)(0, np.ones((1, 4), np.float32))
