"""The one rule of what is a tensor and what is part of the trace.

The NumPy attributes of a score or an explainer are its *fields*: they are fed to a compiled pass
as tensors, so their values may change from call to call. So are arrays inside its lists, and the
fields of a `Traced` object inside it; their names are paths ("explainer.baselines.0"). Every
other attribute is part of the trace, and two objects that agree in these share a compiled pass;
but for those that a class declares `untraced`, which no pass sees.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import numpy as np
import tensorflow as tf

from kvis2.shown import Shown

T = TypeVar("T")


class Traced(Shown):
    """Base of what shares a compiled pass with its equals, also as an attribute of another."""

    untraced: ClassVar[frozenset[str]] = frozenset()
    """Names of attributes that no pass depends on."""


class Seed(Traced):
    """The seed of a method: a field of its pass, so that another seed is not another trace.

    Args:
        value: From 0 to 2**31 - 1: the same seed gives the same bytes on a CPU; None draws another
            at every call, from no global generator.

    Raises:
        ValueError: If it is neither.
    """

    def __init__(self, value: int | None) -> None:
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if value is not None and not (whole and 0 <= value < 2**31):
            raise ValueError(
                f"Expected `seed` from 0 to {2**31 - 1}, or None. Received: {value!r}. "
                "The same seed gives the same noise."
            )
        self.value = value

    def drawn(self) -> np.ndarray:
        """The seed of one call, an int32."""
        if self.value is None:
            return np.random.default_rng().integers(2**31 - 1, size=(), dtype=np.int32)
        return np.asarray(self.value, np.int32)

    def __repr__(self) -> str:
        return repr(self.value)


def detached(owner: T) -> T:
    """A copy of `owner` for one call, without what no pass sees, and with its seeds drawn."""
    copied = copy.copy(owner)
    for name, value in _seen(owner).items():
        if isinstance(value, Seed):
            vars(copied)[name] = value.drawn()
        elif isinstance(value, Traced) and type(value).untraced:
            vars(copied)[name] = detached(value)
    for name in type(owner).untraced:  # type: ignore[attr-defined]
        vars(copied).pop(name, None)
    return copied


def _seen(owner: Any) -> dict[str, Any]:
    """The attributes of `owner` that a pass may depend on."""
    untraced = getattr(type(owner), "untraced", ())
    return {name: value for name, value in vars(owner).items() if name not in untraced}


# What most attributes are: neither fields nor owners of any, which is seen soonest by the type.
_PLAIN = frozenset((bool, int, float, str, type(None)))


def fields(owner: Any) -> dict[str, Any]:
    """The fields of `owner` by path, in a fixed order: arrays, or tensors once bound."""
    values = sorted(_seen(owner).items())
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
    return isinstance(value, Traced)


def _signature(owner: Any, form: Callable[[Any], Hashable]) -> Hashable:
    values = sorted(_seen(owner).items())
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
