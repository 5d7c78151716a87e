"""What a layer says and what it looks for: feature maps, kernels, its favourite image patches."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2.explainers import Explainer, probe_of
from kvis2.models import Batch, before_activation, open_axes
from kvis2.passes import Compiled, Probe, automatic_rows, compiled
from kvis2.traced import signature
from kvis2.types import LayerReference, Tensors


class Features(Explainer):
    """The output of a layer as an explainer, so that it is compiled and kept like one."""

    def __init__(
        self, model: keras.Model, layer: LayerReference, early: bool, **options: Any
    ) -> None:
        super().__init__(model, layer, model_modifier=None, **options)
        self.early = early

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The features of one chunk."""
        return [probe.features(inputs, before_activation if self.early else tf.identity)]

    def chunks(self, batch: Batch) -> Iterator[np.ndarray]:
        """The features of all images, one forward pass after the other."""
        rows = self.batch_size or automatic_rows(batch.arrays)
        method, axes = self._detached(0), open_axes(self.model, batch)
        shapes = tuple((each.dtype.name, each.shape[1:]) for each in batch.arrays)

        def make() -> Compiled:
            probe = functools.partial(probe_of, weakref.ref(self.model), method, batch.packing)
            return Compiled(method, probe, [], batch.rows(0, 1), axes)

        run = compiled(self.model, (signature(method), shapes), make)
        for start in range(0, batch.size, rows):
            yield run(method, [], batch.rows(start, start + rows))[0].numpy()


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
        pre_activation: What enters the layer's final ReLU or other activation instead.
        call_index: Which call of a layer that the model calls more than once.
        batch_size: How many images one forward pass holds; None chooses by their size.

    Returns:
        float32 `(batch, *spatial, channels)`, or `(batch, units)` of a dense layer.

    Example:
        >>> activations(model, "block4b_add", images).shape
        (8, 14, 14, 80)
    """
    method = Features(model, layer, pre_activation, call_index=call_index, batch_size=batch_size)
    return np.concatenate(list(method.chunks(Batch(model, images))))


# -- kernels --------------------------------------------------------------------------------------


# -- patches --------------------------------------------------------------------------------------
