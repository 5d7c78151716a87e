"""Which part of an input the positions of a tensor come from: crops and flips are followed.

A map is stretched over the part of the input that its layer sees. Crops, slices, flips and wide
paddings of the input itself are followed to the pixel. Narrow paddings, convolutions and poolings
keep the part, as is usual: padding makes up for what a convolution takes off. What is rolled round
an axis of the input, or put beside itself, is at no one place of it. What shifts a map later is not
looked at.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kvis2.models.spaces import Axes, axes_between, operands_of


class Extent(NamedTuple):
    """A part of an axis of the input.

    Attributes:
        start: Where it begins, as a share of the axis; below 0 where there is padding.
        stop: Where it ends; before `start` if the axis is turned around.
    """

    start: float
    stop: float


WHOLE = Extent(0.0, 1.0)
_NARROW = 0.1  # of an axis: what a padding adds that a convolution may take off again


class _Part(NamedTuple):
    """The part of the input that a tensor comes from.

    Attributes:
        extents: By axis of the input, for those that are not whole, None for those that are at no
            one place; None for all if it is not known.
        is_input: Whether the tensor still has the pixels of the input.
    """

    extents: dict[int, Extent | None] | None
    is_input: bool


_NOWHERE = _Part(None, False)
_ALL = _Part({}, True)
_POINTWISE = frozenset(
    (
        *("Abs", "Add", "AddN", "AddV2", "Cast", "ClipByValue", "ConcatV2", "DivNoNan", "Exp"),
        *(
            "EnsureShape",
            "ExpandDims",
            "MirrorPad",
            "Pad",
            "PadV2",
            "FusedBatchNormV3",
            "Identity",
            "Log",
            "Log1p",
            "Maximum",
        ),
        *("Minimum", "Mul", "Neg", "RealDiv", "Reshape", "ResizeArea", "ResizeBicubic", "Rsqrt"),
        *("ResizeBilinear", "ResizeNearestNeighbor", "Sqrt", "Square", "Squeeze", "Sub", "Tanh"),
        *("Transpose", "Relu", "Sigmoid"),
    )
)


def extents_between(tensor: tf.Tensor, source: tf.Tensor) -> dict[int, Extent | None] | None:
    """Which part of each axis of `source` a symbolic `tensor` comes from.

    Args:
        tensor: Computed from `source`, in the same graph.
        source: An input of the model.

    Returns:
        The axes of the source that are cropped, padded or turned around, with what is left of
        them, None for an axis that is rolled or put beside itself; None where it is not known, or
        where parts of the input that differ are laid over each other.
    """
    axes: dict[Any, Axes | None] = {}
    axes_between(tensor, source, axes)
    known: dict[Any, _Part] = {source.ref(): _ALL}
    pending = [tensor]
    while pending:  # Depth first without recursion, as axes are followed.
        each = pending[-1]
        if each.ref() in known:
            pending.pop()
            continue
        operands = [x for x in operands_of(each.op) if axes.get(x.ref()) is not None]
        waiting = [x for x in operands if x.ref() not in known]
        if waiting:
            pending.extend(waiting)
            continue
        parts = [known[x.ref()] for x in operands]
        found = parts[0] if parts else _ALL
        if any(each.extents != found.extents for each in parts):
            found = _NOWHERE
        known[each.ref()] = _after(each.op, operands, found, axes) if parts else found
        pending.pop()
    return known[tensor.ref()].extents


def _after(
    operation: tf.Operation, operands: list[tf.Tensor], part: _Part, axes: dict[Any, Axes | None]
) -> _Part:
    """The part of the result of an operation."""
    if part.extents is None or not part.is_input:
        return part
    own = axes[operands[0].ref()]
    assert own is not None
    if operation.type in ("StridedSlice", "Slice"):
        cuts = _cuts(operation)
    elif operation.type == "ReverseV2":
        places = tf.get_static_value(operation.inputs[1])
        cuts = None if places is None else {int(i) % len(own): WHOLE[::-1] for i in places}
    elif operation.type in ("Pad", "PadV2", "MirrorPad"):
        cuts = _paddings(operation)
    elif operation.type in ("Roll", "ConcatV2"):
        return _Part(_lost(operation, own, part.extents), True)
    else:
        return _Part(part.extents, operation.type in _POINTWISE)
    if cuts is None:
        return _NOWHERE
    extents = dict(part.extents)
    for place, (start, stop) in cuts.items():
        axis = own[place]
        if axis is None or (start, stop) == WHOLE:
            continue
        before = extents.get(axis, WHOLE)
        if before is None:
            continue
        low, high = before
        extents[axis] = Extent(low + start * (high - low), low + stop * (high - low))
    return _Part(extents, True)


def _paddings(operation: tf.Operation) -> dict[int, tuple[float, float]] | None:
    """What a padding makes of each axis of its operand, as shares; narrow ones are left out."""
    shape = operation.inputs[0].shape
    given = tf.get_static_value(operation.inputs[1])
    if given is None:
        return None
    found = {}
    for place, (length, (before, after)) in enumerate(zip(shape, given, strict=True)):
        if before == after == 0:
            continue
        if length is None:
            return None
        if max(before, after) > _NARROW * length:
            found[place] = (-float(before) / length, 1 + float(after) / length)
    return found


def _lost(
    operation: tf.Operation, own: Axes, extents: dict[int, Extent | None]
) -> dict[int, Extent | None]:
    """The extents with None for the axes along which positions are moved round or doubled."""
    given = tf.get_static_value(operation.inputs[-1])
    places = range(len(own)) if given is None else [int(i) % len(own) for i in np.ravel(given)]
    lost = {axis: None for place in places if (axis := own[place]) is not None}
    return {**extents, **lost}


def _cuts(operation: tf.Operation) -> dict[int, tuple[float, float]] | None:
    """What a slice leaves of each axis of its operand, as shares; None if that is not known."""
    shape = operation.inputs[0].shape
    given = [tf.get_static_value(each) for each in operation.inputs[1:]]
    if any(each is None for each in given):
        return None
    if operation.type == "Slice":
        sizes = [n if size == -1 else size for n, size in zip(shape, given[1], strict=True)]
        pairs = zip(given[0], sizes, strict=True)
        slices: list[slice] | None = [
            slice(int(a), None if n is None else int(a) + int(n)) for a, n in pairs
        ]
    else:
        slices = _slices(operation, given, len(shape))
    if slices is None:
        return None
    cuts = {}
    for place, (length, each) in enumerate(zip(shape, slices, strict=True)):
        if each.start in (None, 0) and each.stop is None and each.step is None:
            continue
        if length is None:
            return None
        left = np.arange(length)[each]
        if len(left) > 1:  # A position stands for as many pixels as a step has.
            step = int(left[1] - left[0])
            before, after = (0, step) if step > 0 else (1, 1 + step)
            cuts[place] = ((left[0] + before) / length, (left[-1] + after) / length)
    return {k: (float(a), float(min(b, 1.0))) for k, (a, b) in cuts.items()}


def _slices(operation: tf.Operation, given: list[np.ndarray], rank: int) -> list[slice] | None:
    """The slices of a `StridedSlice`, one for each axis; None for one that adds or drops axes."""
    begins, ends, steps = given
    masks = {name: operation.get_attr(f"{name}_mask") for name in ("begin", "end", "ellipsis")}
    if any(operation.get_attr(f"{name}_mask") for name in ("new_axis", "shrink_axis")):
        return None
    found: list[slice] = []
    for i, (begin, end, step) in enumerate(zip(begins, ends, steps, strict=True)):
        if masks["ellipsis"] >> i & 1:
            found += [slice(None)] * (rank - len(begins) + 1)
            continue
        start = None if masks["begin"] >> i & 1 else int(begin)
        stop = None if masks["end"] >> i & 1 else int(end)
        found.append(slice(start, stop, None if step == 1 else int(step)))
    return found + [slice(None)] * (rank - len(found))
