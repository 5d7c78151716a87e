"""The one rule of what is a tensor and what is part of the trace.

The NumPy attributes of a score or an explainer are its *fields*: they are fed to a compiled pass
as tensors, so their values may change from call to call. Every other attribute is part of the
trace, and two objects that agree in these share a compiled pass.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

T = TypeVar("T")


def fields(owner: Any) -> dict[str, Any]:
    """The fields of `owner` by attribute name, in a fixed order: arrays, or tensors once bound."""
    return {
        name: value
        for name, value in sorted(vars(owner).items())
        if isinstance(value, np.ndarray | tf.Tensor)
    }


def with_fields(owner: T, values: Mapping[str, Any]) -> T:
    """A shallow copy of `owner` with other values in its fields."""
    bound = copy.copy(owner)
    vars(bound).update(values)
    return bound


def signature(owner: Any) -> Hashable:
    """What two objects must have in common to share a trace: all but the values of the fields."""
    known = fields(owner)
    rest = ((k, _hashable(v)) for k, v in sorted(vars(owner).items()) if k not in known)
    shapes = ((name, each.dtype.name, each.shape) for name, each in known.items())
    return (type(owner), tuple(rest), tuple(shapes))


def batch_signature(owner: Any) -> Hashable:
    """The signature of an object whose fields have the batch for their first axis."""
    return signature(with_fields(owner, {k: v[:1] for k, v in fields(owner).items()}))


def _hashable(value: Any) -> Hashable:
    if isinstance(value, list | tuple):
        return (type(value), *map(_hashable, value))
    if isinstance(value, dict):
        return (dict, *((k, _hashable(v)) for k, v in sorted(value.items())))
    if hasattr(value, "__dict__") and getattr(type(value), "traced_by_value", False):
        return signature(value)
    try:
        hash(value)
    except TypeError:
        return id(value)  # The compiled pass keeps the value alive, so its id is not reused.
    return value
