"""How an object shows itself: `GradCAM(model='resnet50', layer='conv5', resize=False)`."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_LONGEST = 80  # characters of one argument


class Shown:
    """Shows, as the call that would make it, the arguments that are not as by default."""

    option_kinds: ClassVar[tuple[type, ...]] = ()
    """Dataclasses whose fields are further arguments of the constructor."""

    def __repr__(self) -> str:
        """The call that would make it, long arguments shortened."""
        shown = []
        for name, default in _defaults(type(self)).items():
            value = _value(self, name)
            if value is not None and not _same(value, default):
                shown.append(f"{name}={_text(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"


def _defaults(cls: type[Shown]) -> dict[str, Any]:
    """The defaults of all parameters; where two have one name, that of the subclass."""
    found: dict[str, Any] = {}
    for name, parameter in _parameters(cls):
        found.setdefault(name, parameter.default)
    return found


def _parameters(cls: type[Shown]) -> Iterator[tuple[str, inspect.Parameter]]:
    """The parameters of a constructor, and of those that it hands `**options` to."""
    for owner in cls.__mro__:
        if "__init__" not in vars(owner) or owner is object:
            continue
        parameters = inspect.signature(vars(owner)["__init__"]).parameters
        hands_on = False
        for name, parameter in list(parameters.items())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                hands_on = True
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                yield name, parameter
        if not hands_on:
            break
    for kind in cls.option_kinds:
        yield from inspect.signature(kind).parameters.items()


def _value(shown: Any, name: str) -> Any:
    """The argument as it was kept: on the object, or among its settings."""
    parts = (getattr(shown, each, None) for each in ("settings", "log", "style"))
    for owner in (shown, *parts):
        try:
            return getattr(owner, name)
        except Exception:  # A property may need a call first, and a repr must not fail.
            continue
    return None


def _same(value: Any, default: Any) -> bool:
    if value is default:
        return True
    try:
        if type(value) is type(default):
            return bool(value == default)
    except Exception:  # Arrays of several values have no one truth.
        return False
    return repr(value) == repr(default)  # Such as a `Seed` and its number.


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size <= 8 and value.dtype != object:
        return str(value.tolist())
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{getattr(value.dtype, 'name', value.dtype)} {tuple(value.shape)}>"
    if isinstance(value, list | tuple) and any(hasattr(each, "shape") for each in value):
        return f"[{', '.join(map(_text, value))}]"
    name = getattr(value, "name", None)
    if hasattr(value, "weights") and isinstance(name, str):  # A model or a layer.
        return repr(name)
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__name__
    if isinstance(value, Shown):
        return repr(value)
    text = _SHORT.repr(value) if isinstance(value, dict | list | tuple | str) else repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
