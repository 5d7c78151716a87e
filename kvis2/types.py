"""Protocols and aliases that the other modules speak in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import keras
import numpy as np
import tensorflow as tf

Arrays: TypeAlias = "np.ndarray | Sequence[np.ndarray | None] | Mapping[str, np.ndarray | None]"
"""One array per input, in the structure in which the model takes its inputs."""

Tensors: TypeAlias = "list[tf.Tensor]"
"""The model's inputs or outputs, flattened."""

LayerReference: TypeAlias = "keras.Layer | str | int"
"""A layer: the object, its unique name, its path with "/", or its index in `model.layers`."""


class Override(NamedTuple):
    """One attribute of one live layer that is replaced while a pass is traced."""

    layer: keras.Operation
    attribute: str
    replace: Callable[[Any], Any]


class Modifier(Protocol):
    """What a model modifier can change in one pass. See `kvis2.models.Modifier`."""

    def overrides(self, model: keras.Model) -> Sequence[Override]:
        """Attributes of layers to replace during the pass."""

    def gradients(self) -> Mapping[str, str]:
        """Names of registered gradients by the type of the TensorFlow operation they replace."""

    def output(self, output: tf.Tensor) -> tf.Tensor:
        """The tensor that is explained in the place of a model output."""

    def check(self, operations: Sequence[tf.Operation]) -> None:
        """Raise or warn, now that the forward pass has been traced into `operations`."""
