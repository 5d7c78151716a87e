"""What a logger saw of the probe images at one step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.callbacks.predictions import Explained, as_probabilities
from kvis2.explainers import Explainer, FullGrad
from kvis2.images import normalize
from kvis2.passes import Predicted, resize


class Looked(NamedTuple):
    """What a logger saw of the probe images.

    Attributes:
        maps: For each flat input its maps as they are drawn, or None.
        probabilities: `(batch, classes)`, or None.
        explained: What was explained.
        raw: The maps as the method computes them, at the grid of their layer where it has one.
        first: Number of the first input that has maps and can be drawn.
    """

    maps: list[np.ndarray | None]
    probabilities: np.ndarray | None
    explained: Explained
    raw: list[np.ndarray | None]
    first: int = 0


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


def finished(
    explainer: Explainer, raw: np.ndarray | None, shape: tuple[int, ...]
) -> np.ndarray | None:
    """A raw map of a layer as the explainer gives it: at the input's size, and scaled.

    Args:
        explainer: Whose map it is.
        raw: `(batch, *grid)`, or None.
        shape: Of the input.
    """
    if raw is None:
        return None
    settings, size = explainer.settings, _size_of(explainer, shape[1:], raw.ndim - 1)
    if settings.resize and size is not None and raw.shape[1:] != size:
        raw = np.asarray(resize(tf.constant(raw), list(size)))
    return scaled(normalize(raw, settings.normalize))  # type: ignore[arg-type]


def _size_of(explainer: Explainer, shape: tuple[int, ...], rank: int) -> tuple[int, ...] | None:
    """The size of an input along `rank` spatial axes; None if it has not so many."""
    if len(shape) == rank:
        return shape
    if len(shape) != rank + 1:
        return None
    first = models.data_format(explainer.model) == "channels_first"
    return shape[1:] if first else shape[:-1]


def checked_maps(maps: Any, count: int) -> list[np.ndarray | None]:
    """The maps of the flat inputs, as an explainer returned them for `count` images."""
    if isinstance(maps, Mapping):
        maps = [maps[name] for name in sorted(maps)]
    found: list[np.ndarray | None] = []
    for each in maps if isinstance(maps, list | tuple) else [maps]:
        array = None if each is None else np.asarray(each, dtype=np.float32)
        if array is not None and (array.shape[0] != count or array.ndim < 2):
            raise ValueError(
                "Expected the explainer to return maps of shape (batch, height, width) for "
                f"{count} images. Received: shape {array.shape}. Explain inputs, and "
                "leave resize=True."
            )
        found.append(array)
    return found


def place_of(explainer: Any, raw: np.ndarray) -> str:
    """Whose map it is, for a caption: "out_relu 7x7", or the method's name where no layer is.

    Args:
        explainer: Any explainer.
        raw: Its maps at the layer's own grid, `(batch, *grid)`.
    """
    layer = getattr(explainer, "layer", None)
    name = getattr(layer, "name", layer)
    if not isinstance(name, str):
        several = getattr(explainer, "layers", None)
        return f"{len(several)} layers" if several else type(explainer).__name__
    return f"{name.split('/')[-1]} {'x'.join(map(str, raw.shape[1:]))}"
