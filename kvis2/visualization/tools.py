"""The utilities of keras-vis in one place: `from kvis2.visualization import tools as utils`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kvis2.visualization.arrays import (
    bgr2rgb,
    deprocess_input,
    get_img_shape,
    normalize,
    random_array,
    set_random_seed,
    slicer,
    stitch_images,
)
from kvis2.visualization.graphs import apply_modifications, find_layer_idx
from kvis2.visualization.identifiers import named
from kvis2.visualization.pictures import draw_text, load_img, lookup_imagenet_labels

__all__ = [
    "add_defaults_to_kwargs",
    "apply_modifications",
    "bgr2rgb",
    "deprocess_input",
    "draw_text",
    "find_layer_idx",
    "get_identifier",
    "get_img_shape",
    "listify",
    "load_img",
    "lookup_imagenet_labels",
    "normalize",
    "random_array",
    "reverse_enumerate",
    "set_random_seed",
    "slicer",
    "stitch_images",
]


def listify(value: Any) -> list[Any]:
    """A list as it is, anything else as a list of one.

    Example:
        >>> listify(3)
        [3]
    """
    return value if isinstance(value, list) else [value]


def reverse_enumerate(iterable: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Pairs (index, value) from the last to the first.

    Example:
        >>> list(reverse_enumerate("ab"))
        [(1, 'b'), (0, 'a')]
    """
    return zip(range(len(iterable) - 1, -1, -1), reversed(iterable), strict=True)


def add_defaults_to_kwargs(defaults: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
    """`kwargs`, with the `defaults` that they lack.

    Example:
        >>> add_defaults_to_kwargs({"a": 1, "b": 2}, b=3)
        {'a': 1, 'b': 3}
    """
    return {**defaults, **kwargs}


def get_identifier(
    identifier: str | Callable[..., Any], module_globals: Mapping[str, Any], module_name: str
) -> Any:
    """What a name stands for in an explicit registry; anything callable as it is.

    Args:
        identifier: A name or a callable.
        module_globals: What the names stand for. A registry, not all that a module imports.
        module_name: What to call it in an error.

    Raises:
        ValueError: If the name is not in it.

    Example:
        >>> get_identifier("guided", BACKPROP_MODIFIERS, "backprop modifier")
    """
    return named(identifier, module_globals, module_name)
