"""Replace attributes of live layers during one pass, and put them back."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from kvis2.types import Override

# Layers are shared by all threads; two passes must not be traced through each other's overrides.
_TRACING = threading.RLock()


@contextmanager
def overriding(overrides: Iterable[Override]) -> Iterator[None]:
    """Hold all `overrides` in force inside the `with` block, and undo them even on an error.

    Keras looks attributes such as `call` up on the instance at every call, so a layer is reached
    at any depth of nesting. The instance dictionary is written directly: the layer tracks
    nothing and `vars(layer)` is the same afterwards. Several overrides of one attribute stack,
    the last one outermost.

    Args:
        overrides: What to replace, and by what.

    Example:
        >>> layer = keras.layers.Dense(2, activation="relu")
        >>> linear = Override(layer, "activation", lambda old: keras.activations.linear)
        >>> with overriding([linear]):
        ...     layer.activation is keras.activations.linear
        True
    """
    with _TRACING, ExitStack() as stack:
        for layer, attribute, replace in overrides:
            attributes = vars(layer)
            replacement = replace(getattr(layer, attribute))
            stack.callback(_restore, attributes, attribute, attributes.get(attribute, _ABSENT))
            attributes[attribute] = replacement
        yield


_ABSENT = object()


def _restore(attributes: dict[str, Any], attribute: str, value: Any) -> None:
    if value is _ABSENT:
        del attributes[attribute]
    else:
        attributes[attribute] = value
