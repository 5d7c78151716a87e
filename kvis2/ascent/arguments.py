"""The arguments of gradient ascent that may be one for all inputs, or one for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from kvis2 import models


class Part(NamedTuple):
    """A regularizer, a transform or a constraint, and the inputs that it is for.

    Attributes:
        value: What it is.
        inputs: The places of the inputs, flat; None is all of them.
    """

    value: Any
    inputs: tuple[int, ...] | None = None

    def concerns(self, index: int) -> bool:
        """Whether it is for the input at this place."""
        return self.inputs is None or index in self.inputs


def parts(
    model: keras.Model, given: Any, parse: Callable[[Any], Sequence[Any]], count: int, what: str
) -> tuple[Part, ...]:
    """What a user gave for all inputs, or by input: a dict by name, or a list with one for each.

    Args:
        model: Whose inputs they are.
        given: Anything that `parse` takes, for all; a dict of such by the names of inputs, those
            that are not named have none; or one such list for each of several inputs.
        parse: Makes a sequence of what is given for one input; refuses what it does not know.
        count: How many inputs there are.
        what: What the argument is called.

    Raises:
        ValueError: If the names are not those of the inputs.
        TypeError: If `parse` raises it.
    """
    if isinstance(given, Mapping):
        names = input_names(model, given)
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(
                f"Expected {what} for inputs among {names}. Received: {unknown}. Name inputs of "
                "the model."
            )
        each: list[Any] = [given.get(name) for name in names]
    elif _is_by_input(given, count):
        each = list(given)
    else:
        return tuple(Part(value) for value in parse(given))
    return tuple(Part(value, (i,)) for i, own in enumerate(each) for value in parse(own))


def _is_by_input(given: Any, count: int) -> bool:
    if not isinstance(given, list | tuple) or len(given) != count or count == 1:
        return False
    several = [each for each in given if each is not None]
    return bool(several) and all(isinstance(each, list | tuple) for each in several)


def input_names(model: keras.Model, given: Mapping[str, Any]) -> list[str]:
    """The names of the inputs, flat; of a model that declares none, those that are given."""
    structure = models.input_structure(model)
    if structure is None:
        return sorted(given)
    if isinstance(structure, Mapping):
        return list(structure)
    return [each.name for each in keras.tree.flatten(structure)]


def functions(given: Any, what: str, example: str) -> tuple[Any, ...]:
    """One function or several; None is none.

    Raises:
        TypeError: If something cannot be called.
    """
    if given is None:
        return ()
    several = tuple(given) if isinstance(given, list | tuple) else (given,)
    for each in several:
        if not callable(each) or isinstance(each, type):
            raise TypeError(
                f"Expected {what} to be functions such as {example}. Received: {each!r}. Give one, "
                "a list of them, or a dict of these by input."
            )
    return several


def image_shapes(model: keras.Model, shape: Any) -> list[tuple[int | None, ...]] | None:
    """Shape of one image of each input, channels last; None if neither model nor user says it.

    Raises:
        ValueError: If an image would have no pixels.
    """
    shapes = _image_shapes(model, shape)
    for each in shapes or ():
        if 0 in each:
            raise ValueError(
                f"Expected images with pixels. Received: shape {each}. Give for example "
                "`shape=(224, 224, 3)`."
            )
    declared = None if shape is None else _image_shapes(model, None)
    if declared is not None and not _fits(shapes, declared):
        raise ValueError(
            f"Expected images of shape {', '.join(map(str, declared))} (None: any). Received: "
            f"`shape={shape!r}`. Give it where the model leaves the size open."
        )
    return shapes


def _fits(shapes: Any, declared: Sequence[Sequence[int | None]]) -> bool:
    """Whether shapes are those that a model declares, where it says so."""
    return len(shapes) == len(declared) and all(
        len(own) == len(other)
        and all(isinstance(n, int) and m in (None, n) for n, m in zip(own, other, strict=True))
        for own, other in zip(shapes, declared, strict=True)
    )


def _image_shapes(model: keras.Model, shape: Any) -> list[tuple[int | None, ...]] | None:
    structure = models.input_structure(model)
    if shape is not None:
        flat = list(shape.values()) if isinstance(shape, Mapping) else shape
        several = all(isinstance(each, Sequence) for each in flat)
        return [tuple(each) for each in flat] if several else [tuple(flat)]
    if structure is None:
        return None
    shapes = [tuple(each.shape[1:]) for each in keras.tree.flatten(structure)]
    if models.data_format(model) == "channels_first":
        return [(*each[1:], each[0]) if len(each) > 1 else each for each in shapes]
    return shapes


def ranges(model: keras.Model, given: Any, count: int) -> tuple[tuple[Any, Any], ...]:
    """(low, high) for each flat input, each a number or a tuple over the channels.

    Raises:
        ValueError: If a range has no two ends, or low is not below high.
    """
    if isinstance(given, Mapping):
        names = input_names(model, given)
        if set(names) != set(given):
            raise ValueError(
                f"Expected ranges for the inputs {names}. Received: {sorted(given)}. Name each "
                "input."
            )
        each_range: list[Any] = [given[name] for name in names]
    elif count > 1 and isinstance(given, list | tuple) and all(map(_is_pair, given)):
        each_range = list(given)
    else:
        each_range = [given] * count
    if len(each_range) != count:
        raise ValueError(
            f"Expected a range for each of the {count} inputs. Received: {given!r}. Give one "
            "(low, high) for all, or as many as there are inputs."
        )
    return tuple(_range(each, given) for each in each_range)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray) and len(value) == 2


def _range(pair: Any, given: Any) -> tuple[Any, Any]:
    try:
        low, high = (np.asarray(each, np.float64) for each in pair)
        fits = bool(np.all(np.isfinite(low) & np.isfinite(high)) and np.all(low < high))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            "Expected `input_range` to be (low, high), low below high and both finite. Received: "
            f"{given!r}. It is what the model was trained on, such as (0, 255)."
        )
    return _as_hashable(low), _as_hashable(high)


def _as_hashable(value: np.ndarray) -> Any:
    return tuple(value.tolist()) if value.ndim else float(value)
