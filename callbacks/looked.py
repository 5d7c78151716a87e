"""What a logger saw of the probe images at one step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kvis2.callbacks.predictions import Explained, as_probabilities
from kvis2.explainers import Explainer, FullGrad
from kvis2.images import normalize
from kvis2.passes import Predicted


class Looked(NamedTuple):
    """What a logger saw of the probe images.

    Attributes:
        maps: For each flat input its maps as they are drawn, or None.
        probabilities: `(batch, classes)`, or None.
        explained: What was explained.
        raw: The maps as the method computes them, at the grid of their layer where it has one.
    """

    maps: list[np.ndarray | None]
    probabilities: np.ndarray | None
    explained: Explained
    raw: list[np.ndarray | None]


def probabilities_of(predicted: Predicted, output: int) -> np.ndarray | None:
    """The probabilities of one of the outputs, or None where it has no classes."""
    if output >= len(predicted.outputs):
        return None
    values = np.asarray(predicted.outputs[output], np.float32)
    return as_probabilities(values, predicted.meanings[output])


def at_layer(explainer: Explainer) -> Explainer:
    """The explainer that gives raw maps of a layer's own grid, where it can."""
    if getattr(explainer, "layers", None) is not None and not isinstance(explainer, FullGrad):
        return explainer.with_settings(normalize=False)  # Fused at the size of the input.
    return explainer.with_settings(resize=False, normalize=False)


def shapes_of(images: Any) -> list[tuple[int, ...]]:
    """The shapes of the flat probe inputs."""
    if isinstance(images, Mapping):
        return [images[name].shape for name in sorted(images)]
    return [each.shape for each in images] if isinstance(images, list) else [images.shape]


def scaled(maps: np.ndarray) -> np.ndarray:
    """Maps within -1..1, divided by their largest magnitude where they are not."""
    return normalize(maps) if np.abs(maps).max() > 1 else maps
