"""Replace attributes of live layers during one pass, for the thread that traces it alone.

Other threads call, train and save the model at the same moment, so nothing is written into a
layer. While overrides are in force the *class* of each such layer has a descriptor that shows
the overriding thread its replacement, and everybody else what they would have seen without it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from kvis2.types import Override


@contextmanager
def overriding(overrides: Iterable[Override]) -> Iterator[None]:
    """Hold all `overrides` in force inside the `with` block, in this thread alone.

    Keras looks attributes such as `call` up on the instance at every call, so a layer is reached
    at any depth of nesting. `vars(layer)` is the same before, meanwhile and after, even on an
    error; in other threads the layer computes what it always does. Several overrides of one
    attribute stack, the last one outermost.

    Args:
        overrides: What to replace, and by what.

    Example:
        >>> layer = keras.layers.Dense(2, activation="relu")
        >>> linear = Override(layer, "activation", lambda old: keras.activations.linear)
        >>> with overriding([linear]):
        ...     layer.activation is keras.activations.linear
        True
    """
    with ExitStack() as stack:
        for layer, attribute, replace in overrides:
            replacement = replace(getattr(layer, attribute))
            _Switch.install(type(layer), attribute)
            stack.callback(_Switch.uninstall, type(layer), attribute)
            key, replaced = (id(layer), attribute), _own_replacements()
            stack.callback(_put_back, replaced, key, replaced.get(key, _ABSENT))
            replaced[key] = replacement
        yield


_ABSENT: Any = object()
_THREADS = threading.local()


def _own_replacements() -> dict[tuple[int, str], Any]:
    """What this thread sees in the place of attributes, by the layer's id and the name."""
    found = getattr(_THREADS, "replaced", None)
    if found is None:
        found = _THREADS.replaced = {}
    return found


def _put_back(replaced: dict[tuple[int, str], Any], key: tuple[int, str], value: Any) -> None:
    if value is _ABSENT:
        del replaced[key]
    else:
        replaced[key] = value


class _Switch:
    """A class attribute that shows each thread its own replacement, else what was there.

    Args:
        owner: The class whose instances may have replacements. Instances of its subclasses have
            switches of their own, so that `super().call` finds the original here.
        attribute: The name.
    """

    _lock = threading.Lock()
    _installed: dict[tuple[type, str], _Switch] = {}  # noqa: RUF012 (one for the process)

    def __init__(self, owner: type, attribute: str) -> None:
        self._owner = owner
        self._attribute = attribute
        self._original = vars(owner).get(attribute, _ABSENT)
        self._users = 0

    @classmethod
    def install(cls, owner: type, attribute: str) -> None:
        """Put the switch into the class, if it is not there already."""
        with cls._lock:
            switch = cls._installed.get((owner, attribute))
            if switch is None:
                switch = cls._installed[owner, attribute] = cls(owner, attribute)
                setattr(owner, attribute, switch)
            switch._users += 1

    @classmethod
    def uninstall(cls, owner: type, attribute: str) -> None:
        """Leave the class as it was, once nobody needs the switch any more."""
        with cls._lock:
            switch = cls._installed[owner, attribute]
            switch._users -= 1
            if switch._users:
                return
            del cls._installed[owner, attribute]
            if switch._original is _ABSENT:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, switch._original)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self._of_class(owner or self._owner)
        if type(instance) is self._owner:
            replacement = _own_replacements().get((id(instance), self._attribute), _ABSENT)
            if replacement is not _ABSENT:
                return replacement
        if self._is_computed:
            return self._original.__get__(instance, type(instance))
        if self._attribute in vars(instance):
            return vars(instance)[self._attribute]
        if self._original is _ABSENT:
            return getattr(super(self._owner, instance), self._attribute)
        if hasattr(self._original, "__get__"):
            return self._original.__get__(instance, type(instance))
        return self._original

    def __set__(self, instance: Any, value: Any) -> None:
        key = (id(instance), self._attribute)
        if type(instance) is self._owner and key in _own_replacements():
            _own_replacements()[key] = value
        elif self._is_computed:
            self._original.__set__(instance, value)
        else:
            vars(instance)[self._attribute] = value

    def __delete__(self, instance: Any) -> None:
        if self._attribute not in vars(instance):
            raise AttributeError(self._attribute)
        del vars(instance)[self._attribute]

    @property
    def _is_computed(self) -> bool:
        """Whether the class computes the attribute, so that instances hold none of that name."""
        return hasattr(type(self._original), "__set__")

    def _of_class(self, owner: type) -> Any:
        if self._original is _ABSENT:
            return getattr(super(self._owner, owner), self._attribute)
        if hasattr(self._original, "__get__"):
            return self._original.__get__(None, owner)
        return self._original
