"""Protocols and aliases that the other modules speak in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import keras
import tensorflow as tf

Tensors: TypeAlias = "list[tf.Tensor]"
"""The model's inputs or outputs, flattened."""

LayerReference: TypeAlias = "keras.Layer | str | int"
"""A layer: the object, its unique name, its path with "/", or its index in `model.layers`."""


class Override(NamedTuple):
    """One attribute of one live layer that is replaced while a pass is traced."""

    layer: keras.Operation
    attribute: str
    replace: Callable[[Any], Any]
