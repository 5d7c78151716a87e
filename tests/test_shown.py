"""What objects show of themselves."""

import importlib
import inspect

import keras
import numpy as np
import pytest

import kvis2
from kvis2 import callbacks, lrp, metrics, scores


@pytest.fixture(scope="module")
def model():
    layers = [keras.layers.Conv2D(4, 3, name="conv"), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Dense(3)], name="net")


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (kvis2.GradCAM, "GradCAM(model='net')"),
        (
            lambda m: kvis2.GradCAM(m, "conv", resize=False, batch_size=8),
            "GradCAM(model='net', layer='conv', resize=False, batch_size=8)",
        ),
        (
            lambda m: kvis2.IntegratedGradients(m, steps=9, method="trapezoid"),
            "IntegratedGradients(model='net', steps=9, method='trapezoid')",
        ),
        (
            lambda m: kvis2.SmoothGrad(kvis2.GradCAM(m), seed=3),
            "SmoothGrad(explainer=GradCAM(model='net'), seed=3)",
        ),
        (lambda m: lrp.Epsilon(0.5), "Epsilon(epsilon=0.5)"),
        (lambda m: scores.CategoricalScore([1, 2]), "CategoricalScore(indices=[1, 2])"),
        (
            lambda m: metrics.Deletion(m, steps=4, baseline=np.zeros((8, 8, 3))),
            "Deletion(model='net', steps=4, baseline=<float64 (8, 8, 3)>)",
        ),
        (
            lambda m: metrics.RandomLogit(kvis2.GradCAM(m)),
            "RandomLogit(explainer=GradCAM(model='net'))",
        ),
        (
            lambda m: callbacks.CamLogger("logs", np.zeros((2, 8, 8, 3)), [0, 1], every=2, top_k=1),
            "CamLogger(log_dir='logs', images=<float64 (2, 8, 8, 3)>, labels=[0, 1], every=2, "
            "top_k=1)",
        ),
    ],
)
def test_the_call_that_makes_it_is_shown(model, make, shown):
    found = repr(make(model))
    if found.startswith("SmoothGrad"):  # The noise is an object of its own.
        found = found.replace(found[found.index(", noise=") : found.index(", seed")], "")
    assert found == shown


@pytest.mark.parametrize(
    "room", ["", ".lrp", ".scores", ".metrics", ".callbacks", ".regularizers", ".images"]
)
def test_every_public_class_shows_its_settings(room):
    module = importlib.import_module(f"kvis2{room}")
    classes = [getattr(module, name) for name in getattr(module, "__all__", vars(module))]
    plain = {
        each.__name__
        for each in classes
        if inspect.isclass(each)
        and each.__module__.startswith("kvis2")
        and each.__repr__ is object.__repr__
    }
    assert plain <= {"Writer", "Schedule"}  # a protocol, and a plan without an argument of its own


def test_a_description_is_shown_as_html_in_a_notebook(model, capsys):
    odd = keras.Sequential([keras.Input((8, 8, 3)), *model.layers], name="a>b")
    html = kvis2.describe(odd)._repr_html_()
    assert "a&gt;b" in html
    assert "<b>" in html
    assert html.startswith("<pre>")
    assert "conv" in html
    capsys.readouterr()
