"""What a model predicts for the probe images, and which of it a logger explains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from kvis2 import models
from kvis2.models import Meaning, meaning_of
from kvis2.scores import InactiveScore, RegressionScore


class Explained(NamedTuple):
    """What of a model is explained.

    Attributes:
        score: What an explainer takes: None for the predicted class, classes by image, or any
            score; for several outputs a list of them.
        output: Which of the flat outputs the panel tells the classes of.
        labels: The true classes in that output, or None.
    """

    score: Any
    output: int
    labels: np.ndarray | None


def explained_by(model: keras.Model, score: Any, labels: np.ndarray | None) -> Explained:
    """What is explained of `model`, as it is compiled now.

    Args:
        model: The model that the explainer looks at.
        score: "label", "predicted", or any score that explainers take.
        labels: The classes of the probe images, or None.

    Raises:
        ValueError: If labels could be those of several outputs.
    """
    names = models.output_names(model) or ["output"]
    wanted = None if isinstance(score, str) and score == "predicted" else score
    if not (isinstance(wanted, str) and wanted == "label"):
        return _given(wanted, names, labels)
    kinds = [_by_loss(model, index) for index in range(len(names))]
    classes = [i for i, kind in enumerate(kinds) if kind is None or kind.names_classes]
    if labels is None:
        index = classes[0] if classes else 0
        return Explained(_alone(None, index, names), index, None)
    if not classes:
        part: Any = RegressionScore()  # What raises the number; labels are no classes.
        return Explained(_alone(part, 0, names), 0, None)
    if len(classes) > 1:
        raise ValueError(
            "Expected to know which output the labels are of. Received: labels for a model with "
            f"the outputs {[names[i] for i in classes]}. Give score=, such as "
            f"score={{{names[classes[0]]!r}: labels}}."
        )
    return Explained(_alone(labels.tolist(), classes[0], names), classes[0], labels)


def explained_predictions(
    explained: Explained, probabilities: np.ndarray | None, names: list[str]
) -> Explained | None:
    """The same with the predicted classes in the place of the true ones.

    Args:
        explained: What explains the true classes.
        probabilities: `(batch, classes)`, or None.
        names: Of the model's outputs.

    Returns:
        None where nothing else is predicted, or no classes are.
    """
    if probabilities is None or explained.labels is None:
        return None
    classes = np.argmax(two_classes(probabilities), axis=1)
    if np.array_equal(classes, explained.labels):
        return None
    return explained._replace(score=_alone(classes.tolist(), explained.output, names))


def score_words(explained: Explained) -> str:
    """What a score that is no class is called in a panel: its function's or its class' name."""
    score = explained.score
    if isinstance(score, list) and explained.output < len(score):
        score = score[explained.output]
    if isinstance(score, RegressionScore):
        return "a higher output"
    return str(getattr(score, "__name__", type(score).__name__)).replace("<lambda>", "this score")


def _given(score: Any, names: list[str], labels: np.ndarray | None) -> Explained:
    """A score of the user's own; of several outputs the first that it names is told."""
    if isinstance(score, Mapping):
        named = [name for name in names if name in score]
        index = names.index(named[0]) if named else 0
        return Explained(dict(score), index, labels if len(names) == 1 else None)
    return Explained(score, 0, labels if len(names) == 1 else None)


def _alone(part: Any, index: int, names: list[str]) -> Any:
    """The score of one of several outputs, the others left out."""
    if len(names) == 1:
        return part
    return [part if i == index else InactiveScore() for i in range(len(names))]


def _by_loss(model: keras.Model, index: int) -> Meaning | None:
    """What the units of an output mean by the compiled loss; None if that does not tell."""
    if models.loss_of(model, index) is None:
        return None
    outputs = getattr(model, "outputs", None) or []
    shape = outputs[index].shape if index < len(outputs) else (None, None)
    found = meaning_of(model, index, models.static_shape(shape), None)
    return found if found.because.startswith("the loss") else None


def as_probabilities(outputs: np.ndarray, meaning: Meaning) -> np.ndarray | None:
    """Turn the outputs of a classifier into probabilities.

    Args:
        outputs: `(batch, classes)`: probabilities stay as they are, logits go through a softmax,
            or a sigmoid where classes do not exclude each other.
        meaning: What the units are taken for. Where it does not tell logits from probabilities,
            outputs outside of 0..1 are logits.

    Returns:
        float32 `(batch, classes)`, or None where the outputs are not those of a classifier.
    """
    if outputs.ndim != 2 or not meaning.names_classes:
        return None
    logits = meaning.logits
    if logits is None:
        logits = bool(outputs.min() < -1e-3 or outputs.max() > 1 + 1e-3)
    if not logits:
        return np.clip(outputs, 0.0, 1.0)
    if meaning.kind != "classes":
        return 1 / (1 + np.exp(-outputs))
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def two_classes(probabilities: np.ndarray) -> np.ndarray:
    """Return a column for each class, also for the one output of a binary classifier."""
    if probabilities.shape[1] > 1:
        return probabilities
    return np.concatenate([1 - probabilities, probabilities], axis=1)
