"""A model with NaN in a weight, as a diverged training leaves it: the weight is named."""

import re

import keras
import numpy as np
import pytest
from explainers import EXPLAINERS, OF_TRANSFORMERS

import kvis2
from kvis2 import metrics
from kvis2.callbacks import ActivationLogger, CamLogger
from kvis2.passes import Prediction

NAMED = (
    r"Expected a model whose weights are finite\. "
    r"Received: NaN or infinity in '(sequential[_0-9]*/)?late/kernel'"
)
PICTURES = np.random.default_rng(0).random((3, 12, 10, 3), dtype="float32")


def diverged(activation):
    """tanh passes NaN on, so that the outputs are NaN; ReLU makes zeros of it."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12, 10, 3)),
            keras.layers.Conv2D(4, 3, activation="relu", name="early"),
            keras.layers.Conv2D(4, 3, activation=activation, name="late"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    kernel, bias = model.get_layer("late").get_weights()
    model.get_layer("late").set_weights([np.full_like(kernel, np.nan), bias])
    return model


@pytest.mark.filterwarnings("ignore:GuidedReLU replaced")
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("GradCAM", "RISE") else pytest.mark.slow)
        for name in sorted(EXPLAINERS.keys() - OF_TRANSFORMERS)
    ],
)
def test_every_explainer_names_the_weight(name, activation):
    model = diverged(activation)
    with pytest.raises(ValueError, match=NAMED):
        EXPLAINERS[name](model)(1, PICTURES)


@pytest.mark.parametrize(
    "look",
    [
        lambda model: Prediction(model).of(PICTURES),
        lambda model: kvis2.activations(model, "late", PICTURES),
        lambda model: metrics.Deletion(model)(1, PICTURES, np.ones((3, 12, 10))),
        lambda model: metrics.AverageDrop(model)(1, PICTURES, np.ones((3, 12, 10))),
        lambda model: kvis2.ActivationMaximization(model, steps=2)(1),
        lambda model: kvis2.DeepDream(model, "late", steps=1, octaves=1)(None, PICTURES),
        lambda model: kvis2.FeatureInversion(model, "late", steps=2)(PICTURES),
    ],
    ids=["predict", "activations", "deletion", "drop", "maximise", "dream", "invert"],
)
def test_all_that_runs_the_model_names_the_weight(look):
    with pytest.raises(ValueError, match=NAMED):
        look(diverged("tanh"))


@pytest.mark.parametrize("kind", [CamLogger, ActivationLogger])
def test_a_logger_names_the_weight_and_logs_no_more(kind, tmp_path):
    model = diverged("tanh")
    model.compile("sgd", "sparse_categorical_crossentropy")
    logger = kind(tmp_path, PICTURES)
    # After an epoch the gradients have carried it to all weights.
    said = r"logs no more.*NaN or infinity in '.*(early|late)/kernel'"
    with pytest.warns(RuntimeWarning, match=said):
        model.fit(PICTURES, np.arange(3), epochs=2, verbose=0, callbacks=[logger])
    assert logger.history["step"] == []


def test_finite_weights_are_not_blamed():
    """An overflow of the model itself: its map is refused, and no weight is named."""
    model = diverged("relu")
    model.get_layer("late").set_weights([np.full((3, 3, 4, 4), 1e38, "float32"), np.zeros(4)])
    with pytest.raises(ValueError, match="outputs and gradients are finite") as caught:
        kvis2.GradCAM(model)(1, PICTURES)
    assert not re.search("'late/kernel'", str(caught.value))
