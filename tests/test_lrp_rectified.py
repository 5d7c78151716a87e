"""The shortcut of LRP behind ReLUs: taken where it may be, and never seen in the relevance."""

import keras
import numpy as np
import pytest
from sampled import rest_slow
from test_lrp import NETS, SHAPE, batch_of, functional, net, randomized, vgg_like

from kvis2 import lrp
from kvis2.lrp import Rectified

layers = keras.layers


class ByPosition(lrp.Epsilon):
    """A rule that gives relevance to inputs of zero."""

    def relevance(self, step, relevance):
        (shares,) = super().relevance(step, relevance)
        return [shares + 0.1]


COMPOSITES = {
    "epsilon": lrp.Composite(lrp.Epsilon(0.1), lrp.Epsilon(0.1)),
    "gamma": lrp.Composite(lrp.Epsilon(0.1), lrp.Gamma(0.5)),
    "default": lrp.EpsilonPlusFlat(),
    "flat on top": lrp.Composite(lrp.Flat(), lrp.Epsilon(0.1)),
    "flat below": lrp.Composite(lrp.Epsilon(0.1), lrp.Flat(), first=lrp.Gamma(0.5)),
    "custom": lrp.Composite(ByPosition(0.1), lrp.Gamma(0.5)),
}


@pytest.fixture
def taken(monkeypatch):
    """The answers of the shortcut, while it is on; all None once `taken.off()` was called."""
    original = Rectified.output

    class Answers(list):
        def off(self):
            monkeypatch.setattr(Rectified, "output", lambda self, call: None)

    answers = Answers()

    def output(self, call):
        answers.append((call.path, original(self, call)))
        return answers[-1][1]

    monkeypatch.setattr(Rectified, "output", output)
    return answers


def relevance(model, composite, images):
    explainer = lrp.LRP(model, composite, keepdims=True, normalize=False)
    return explainer([0, 1, 2], images), explainer.bias_share


@pytest.mark.parametrize(
    "name",
    [
        each if each in ("epsilon", "flat below") else pytest.param(each, marks=pytest.mark.slow)
        for each in COMPOSITES
    ],
)
@pytest.mark.parametrize("build", rest_slow(NETS, 2))
def test_the_relevance_is_that_without_the_shortcut(taken, build, name):
    images = batch_of(SHAPE)
    fast, fast_share = relevance(net(build, bias=True), COMPOSITES[name], images)
    taken.off()

    slow, slow_share = relevance(net(build, bias=True), COMPOSITES[name], images)

    np.testing.assert_allclose(fast, slow, rtol=1e-5, atol=1e-6 * np.abs(slow).max())
    np.testing.assert_allclose(fast_share, slow_share, rtol=1e-4, atol=1e-5)


def paths_taken(taken):
    return {path for path, relu in taken if relu is not None}


def test_a_chain_of_convolutions_takes_it_everywhere_but_at_the_head(taken):
    relevance(net(vgg_like, bias=True), COMPOSITES["epsilon"], batch_of(SHAPE))

    linear = {path for path, _ in taken if "conv" in path or "dense" in path or path == "head"}
    assert len(linear) == 5
    assert paths_taken(taken) == linear - {"head"}


def test_a_rule_that_shares_by_something_else_stops_it(taken):
    composite = lrp.Composite(lrp.Flat(), lrp.Epsilon(0.1))  # Flat in the two dense layers.
    model = net(vgg_like, bias=True)
    last = [each.name for each in model.layers if "conv" in each.name][-1]

    relevance(model, composite, batch_of(SHAPE))

    convolutions = {path for path, _ in taken if "conv" in path}
    assert paths_taken(taken) == convolutions - {last}


@pytest.mark.parametrize(
    "after",
    [
        layers.LayerNormalization(),
        layers.Rescaling(1.0, offset=0.5),
        layers.Activation("sigmoid"),
        layers.LeakyReLU(),
    ],
)
def test_an_output_that_is_used_otherwise_does_not_take_it(taken, after):
    def build(x):
        x = layers.Conv2D(4, 3, activation="relu", name="seen")(x)
        return layers.Dense(3, name="head")(layers.Flatten()(after(x)))

    model = randomized(functional(SHAPE, build))

    relevance(model, COMPOSITES["epsilon"], batch_of(SHAPE))

    assert "seen" in {path for path, _ in taken}
    assert "seen" not in paths_taken(taken)


def test_a_shortcut_around_the_activation_stops_it(taken):
    def build(x):
        x = layers.Conv2D(4, 3, name="seen")(x)
        x = layers.Add()([x, layers.ReLU()(x)])
        return layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(x))

    relevance(randomized(functional(SHAPE, build)), COMPOSITES["epsilon"], batch_of(SHAPE))

    assert paths_taken(taken) == set()
