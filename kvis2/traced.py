"""The one rule of what is a tensor and what is part of the trace.

The NumPy attributes of a score or an explainer are its *fields*: they are fed to a compiled pass
as tensors, so their values may change from call to call. So are arrays inside its lists, and the
fields of an explainer inside an explainer; their names are paths ("explainer.baselines.0"). Every
other attribute is part of the trace, and two objects that agree in these share a compiled pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

T = TypeVar("T")

# What most attributes are: neither fields nor owners of any, which is seen soonest by the type.
_PLAIN = frozenset((bool, int, float, str, type(None)))


def fields(owner: Any) -> dict[str, Any]:
    """The fields of `owner` by path, in a fixed order: arrays, or tensors once bound."""
    values = sorted(vars(owner).items())
    return dict(
        leaf for name, value in values if type(value) not in _PLAIN for leaf in _leaves(name, value)
    )


def with_fields(owner: T, values: Mapping[str, Any]) -> T:
    """A shallow copy of `owner` with other values in its fields."""
    bound = copy.copy(owner)
    for path, value in values.items():
        name, _, rest = path.partition(".")
        vars(bound)[name] = _replaced(vars(bound)[name], rest, value)
    return bound


def signature(owner: Any) -> Hashable:
    """What two objects must have in common to share a trace: all but the values of the fields."""
    return _signature(owner, _whole)


def batch_signature(owner: Any) -> Hashable:
    """The signature of an object whose fields have the batch for their first axis."""
    return _signature(owner, _row)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if _is_field(value):
        yield path, value
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _leaves(f"{path}.{index}", each)
    elif _has_fields(value):
        for name, each in fields(value).items():
            yield f"{path}.{name}", each


def _replaced(container: Any, path: str, value: Any) -> Any:
    """`container` with `value` at `path` inside it."""
    if not path:
        return value
    if not isinstance(container, list | tuple):
        return with_fields(container, {path: value})
    index, _, rest = path.partition(".")
    items = list(container)
    items[int(index)] = _replaced(items[int(index)], rest, value)
    return items if isinstance(container, list) else tuple(items)


def _is_field(value: Any) -> bool:
    return isinstance(value, np.ndarray | tf.Tensor)


def _has_fields(value: Any) -> bool:
    return hasattr(value, "__dict__") and getattr(type(value), "traced_by_value", False)


def _signature(owner: Any, form: Callable[[Any], Hashable]) -> Hashable:
    values = sorted(vars(owner).items())
    return (type(owner), *((name, _hashable(value, form)) for name, value in values))


def _whole(field: Any) -> Hashable:
    return (field.dtype, tuple(field.shape))


def _row(field: Any) -> Hashable:
    return (field.dtype, tuple(field.shape[1:]))


def _hashable(value: Any, form: Callable[[Any], Hashable]) -> Hashable:
    if type(value) in _PLAIN:
        return value
    if _is_field(value):
        return form(value)
    if isinstance(value, list | tuple):
        return (type(value), *(_hashable(each, form) for each in value))
    if isinstance(value, dict):
        return (dict, *((key, _hashable(each, form)) for key, each in sorted(value.items())))
    if _has_fields(value):
        return _signature(value, form)
    try:
        hash(value)
    except TypeError:
        return id(value)  # The compiled pass keeps the value alive, so its id is not reused.
    return value
