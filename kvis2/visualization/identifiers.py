"""Names that stand for objects, and the one switch back to the numbers of keras-vis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COMPAT = "keras-vis"


def named(identifier: Any, registry: Mapping[str, Any], kind: str) -> Any:
    """What a name stands for in `registry`; anything callable, or a modifier object, as it is.

    Raises:
        ValueError: If a name is not in the registry.
        TypeError: If it is neither a name nor usable itself.
    """
    if isinstance(identifier, str):
        if identifier not in registry:
            raise ValueError(
                f"Expected the name of a {kind}: {', '.join(map(repr, registry))}. "
                f"Received: {identifier!r}. Give one of these, or a function."
            )
        return registry[identifier]
    if callable(identifier):
        return identifier
    raise TypeError(
        f"Expected a {kind}: one of {', '.join(map(repr, registry))}, or a function. "
        f"Received: {identifier!r}."
    )


def is_original(compat: str | None) -> bool:
    """Whether the numbers of keras-vis are asked for, defects included.

    Raises:
        ValueError: If `compat` is neither None nor "keras-vis".
    """
    if compat not in (None, COMPAT):
        raise ValueError(
            f"Expected `compat` to be None or {COMPAT!r}. Received: {compat!r}. "
            "None gives the corrected numbers."
        )
    return compat == COMPAT
