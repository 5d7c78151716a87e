"""Where a map belongs: which inputs a layer sees, and at which size."""

from __future__ import annotations

import tensorflow as tf

from kvis2 import models
from kvis2.models import ancestors
from kvis2.passes import Probe, resize
from kvis2.types import Tensors


def placed(
    maps: tf.Tensor, activations: tf.Tensor, probe: Probe, inputs: Tensors, resized: bool
) -> list[tf.Tensor | None]:
    """A layer's `maps` for every input that the layer sees and whose space it shares; else None.

    Args:
        maps: `(batch, *spatial)`.
        activations: The activations that the maps were made from.
        probe: The probe that watched the layer.
        inputs: The flat inputs.
        resized: Whether the maps are brought to the size of the input.
    """
    result: list[tf.Tensor | None] = []
    for each in inputs:
        size = spatial_size(each, probe)
        if len(size) != maps.shape.rank - 1 or not feeds(each, activations):
            result.append(None)
        else:
            result.append(resize(maps, size) if resized else maps)
    if all(each is None for each in result):
        assert probe.layer is not None
        raise ValueError(
            "Expected a layer with as many spatial axes as an input it depends on. Received: "
            f"'{models.layer_path(probe.model, probe.layer)}' with {maps.shape.rank - 1}. "
            "Choose another layer, or give `reshape=` to make a grid of its tokens."
        )
    return result


def spatial_size(inputs: tf.Tensor, probe: Probe) -> list[int | tf.Tensor]:
    """The lengths of the spatial axes of an input: static where known."""
    axes = models.spatial_axes(probe.model, inputs.shape, inputs.dtype)
    dynamic = tf.shape(inputs)
    return [dynamic[i] if inputs.shape[i] is None else inputs.shape[i] for i in axes]


def feeds(inputs: tf.Tensor, activations: tf.Tensor) -> bool:
    """Whether the activations are computed from this input; taken for granted when eager."""
    return not tf.is_symbolic_tensor(activations) or inputs.op in ancestors(activations)
