"""What the measures of explainers share: a definite score, raw maps, one vector for each image."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2 import models, scores
from kvis2.explainers import Explainer
from kvis2.metrics.result import Measurement
from kvis2.models import Batch
from kvis2.passes import Method, Probe
from kvis2.shown import Shown
from kvis2.types import Tensors


class OfExplainer(Shown):
    """Base of the measures of explainers: `measure(score, images)`.

    Args:
        explainer: Any explainer. It is measured by its raw maps, whatever it normalises by.
    """

    better = "lower"

    def __init__(self, explainer: Explainer) -> None:
        if not isinstance(explainer, Explainer):
            raise TypeError(
                "Expected an explainer, which makes one map per input. Received: "
                f"{explainer!r}. Give for example {type(self).__name__}(GradCAM(model))."
            )
        self.explainer = explainer

    def measured(self, score: Any, batch: Batch, images: Any) -> dict[str, Any]:
        """The values, and what else a `Measurement` is made of.

        Args:
            score: One definite score per sample.
            batch: The inputs.
            images: The same as the user gave them.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to measure.")

    def __call__(self, score: Any, images: Any) -> Measurement:
        """Measure the explainer on every image.

        Args:
            score: What is explained, as the explainer takes it. A predicted class (None) is that
                of the model and the images as they are.
            images: What the model takes.

        Returns:
            float32 `(batch,)`, a `Measurement`.

        Raises:
            ValueError: If the score or the images do not fit the model.
        """
        batch = Batch(self.explainer.model, images)
        count = models.output_count(self.explainer.model)
        whole = scores.as_scores(score, batch.size, count)
        found = self.measured(definite(self.explainer, whole, batch), batch, images)
        hidden = ("explainer", "better")
        settings = {k: v for k, v in vars(self).items() if k not in hidden and k[0] != "_"}
        settings["explainer"] = type(self.explainer).__name__
        plain = score is None or isinstance(score, int)
        settings["score"] = score if plain else type(score).__name__
        return Measurement(
            found.pop("values"),
            type(self).__name__,
            settings=settings,
            better=self.better,
            **found,
        )


class _Choices(Method):
    """What the parts of a score choose by the outputs: classes, regions."""

    def __init__(self, method: Method) -> None:
        self._look_as(method, verbose=0, reference=None, reshape=None, pre_activation=False)

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor]:
        fixed = scores.flat(probe.fixed(score, inputs))
        parts = zip(scores.flat(score), fixed, strict=True)
        return [getattr(now, name) for before, now in parts for name in before.choices]


def definite(method: Method, score: Any, batch: Batch) -> Any:
    """`score` with what it chooses by the outputs for the inputs as they are."""
    parts = scores.flat(score)
    if not any(each.choices for each in parts):
        return score
    method._follow()
    found = iter(_Choices(method).results(score, batch))

    def fixed(part: Any) -> Any:
        return part.definite({name: next(found) for name in part.choices}) if part.choices else part

    by_name = isinstance(score, Mapping)
    keys = sorted(score) if by_name else None  # The order in which structures are flattened.
    if keys is not None:
        return {name: fixed(score[name]) for name in keys}
    return keras.tree.map_structure(fixed, score)


def raw(explainer: Explainer) -> Explainer:
    """The explainer without normalisation."""
    return explainer.with_settings(normalize=False)


def raw_maps(explainer: Explainer, score: Any, images: Any, quiet: bool = False) -> list[Any]:
    """The raw maps of all inputs that have one, each `(batch, ...)`.

    Args:
        explainer: The explainer.
        score: One score per sample.
        images: The inputs, in the structure that the model takes.
        quiet: Whether the warning of blank maps is held back, where the model is not the user's.
    """
    with warnings.catch_warnings():
        if quiet:
            warnings.filterwarnings("ignore", message=".*found no evidence")
        maps = explainer(score, images)
    return [np.asarray(each) for each in keras.tree.flatten(maps) if each is not None]


def joined(maps: list[Any]) -> NDArray[np.float32]:
    """One map for each sample: that of the only input, or the values of all in one row."""
    if len(maps) == 1:
        return maps[0]
    return np.concatenate([each.reshape(len(each), -1) for each in maps], axis=1)
