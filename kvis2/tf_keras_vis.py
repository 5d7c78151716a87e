"""The one adaptor for tf-keras-vis: its scores, modifiers and explainers beside those of kvis2.

tf-keras-vis need not be installed: its objects are known by the module of their class.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kvis2 import models, scores
from kvis2.models import GuidedReLU, LinearOutput
from kvis2.scores import BinaryScore, CategoricalScore, FunctionScore, InactiveScore, Score


def is_one(value: Any) -> bool:
    """Whether an object is of a class of tf-keras-vis, or of a subclass of one."""
    return any(each.__module__.startswith("tf_keras_vis") for each in type(value).__mro__)


def has_own_model(explainer: Any, model: keras.Model) -> bool:
    """Whether an explainer of tf-keras-vis holds a copy of the model, which sees no new weights."""
    return is_one(explainer) and explainer.model is not model


def score_for(score: Any, probabilities: np.ndarray | None) -> Any:
    """A score that an explainer of tf-keras-vis takes, which knows no predicted class.

    Args:
        score: Classes by image, None for the predicted ones, or any other score, left as it is.
        probabilities: What the model predicts, `(batch, classes)`.
    """
    if score is None and probabilities is not None:
        single = probabilities.shape[1] == 1
        columns = np.hstack([1 - probabilities, probabilities]) if single else probabilities
        score = np.argmax(columns, axis=1).tolist()
    if not isinstance(score, list):
        return score
    binary = probabilities is not None and probabilities.shape[1] == 1
    return BinaryScore(score) if binary else CategoricalScore(score)


def _score(value: Any) -> Score | None:
    """The kvis2 score that does what one of tf-keras-vis does."""
    if not is_one(value):
        return None
    name = type(value).__name__
    if name == "CategoricalScore":
        return CategoricalScore(value.indices)
    if name == "BinaryScore":
        return BinaryScore(value.target_values)
    return InactiveScore() if name == "InactiveScore" else FunctionScore(value)


def _modifier(value: Any) -> models.Modifier | None:
    """The kvis2 modifier that does what one of tf-keras-vis does, without a clone."""
    if not is_one(value):
        return None
    if type(value).__name__ == "ReplaceToLinear":
        return LinearOutput()
    guided = type(value).__name__ == "GuidedBackpropagation"
    if guided and value.target_activations == [keras.activations.relu]:
        return GuidedReLU(("relu",))
    return None


scores.convert_with(_score)
models.convert_with(_modifier)
