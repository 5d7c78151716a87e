"""The output of a layer for images, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2.models import Batch
from kvis2.passes import Method, Probe
from kvis2.types import LayerReference, Tensors


class Features(Method):
    """The output of a layer, compiled and kept as every pass is."""

    def __init__(self, model: keras.Model, layer: LayerReference, **settings: Any) -> None:
        super().__init__(model, layer, model_modifier=None, **settings)

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor]:
        """The features of one chunk."""
        return [probe.features(inputs)]

    def of(self, batch: Batch) -> Iterator[np.ndarray]:
        """The features of all images, one forward pass after the other."""
        for (features,) in self.chunks([], batch, self.rows_of(batch.shapes)):
            assert features is not None
            yield features


def activations(
    model: keras.Model,
    layer: LayerReference,
    images: Any,
    *,
    pre_activation: bool = False,
    call_index: int = -1,
    batch_size: int | None = None,
) -> np.ndarray:
    """The output of a layer for images, in batches.

    Args:
        model: Any built Keras model. It is neither copied nor changed.
        layer: A layer at any depth: object, unique name, path or index.
        images: What the model takes, `(batch, ...)`.
        pre_activation: What enters the layer's ReLU or other activation instead.
        call_index: Which call of a layer that the model calls more than once.
        batch_size: How many images one forward pass holds; None chooses by their size.

    Returns:
        float32 `(batch, *spatial, channels)`, or `(batch, units)` of a dense layer.

    Example:
        >>> activations(model, "block4b_add", images).shape
        (8, 14, 14, 80)
    """
    method = Features(
        model, layer, pre_activation=pre_activation, call_index=call_index, batch_size=batch_size
    )
    return np.concatenate(list(method.of(Batch(model, images))))


# -- kernels --------------------------------------------------------------------------------------


# -- patches --------------------------------------------------------------------------------------
