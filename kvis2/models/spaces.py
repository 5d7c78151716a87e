"""Which axes of a tensor are which axes of an input: followed through the operations between them.

A map belongs to an input only if its axes are the input's. `Permute` exchanges them, a `Reshape`
of a vector makes new ones, and a grey image `(batch, height, width)` gets its channels inside the
model. What mixes axes in a way that is not known here leaves them unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from kvis2.models.layers import spatial_axes

Axes: TypeAlias = "tuple[int | None, ...]"
"""For each axis of a tensor the axis of the input that it is; None for one of its own."""

# Each position of the result comes from the same place of the first operand, or from around it.
_KEEPING = frozenset(
    (
        *("AvgPool", "AvgPool3D", "BiasAdd", "Cast", "Conv2D", "Conv3D", "DepthwiseConv2dNative"),
        *("FusedBatchNormV3", "LogSoftmax", "MaxPool", "MaxPool3D", "MirrorPad", "Pad", "PadV2"),
        *("ResizeArea", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor", "Roll"),
        *("Reverse", "ReverseV2", "Slice", "Softmax", "StopGradient", "StridedSlice"),
    )
)
_ELEMENTWISE = frozenset(
    (
        *("Abs", "Add", "AddN", "AddV2", "ClipByValue", "ConcatV2", "Cos", "DivNoNan", "Elu"),
        *(
            "EnsureShape",
            "Equal",
            "Erf",
            "Erfc",
            "Exp",
            "Expm1",
            "Floor",
            "Greater",
            "GreaterEqual",
            "Identity",
        ),
        *("IdentityN", "LeakyRelu", "Less", "LessEqual", "Log", "Log1p", "Maximum", "Minimum"),
        *("Mul", "Neg", "Pow", "RealDiv", "Reciprocal", "Relu", "Relu6", "Round", "Rsqrt"),
        *("Select", "SelectV2", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt"),
        *("Square", "SquaredDifference", "Sub", "Tanh", "Xlogy", "ZerosLike"),
    )
)
_PRODUCTS = frozenset(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"))
_REDUCTIONS = frozenset(("Mean", "Sum", "Max", "Min", "Prod"))
_LOOKUPS = frozenset(("GatherV2", "ResourceGather"))
_MOST_STEPS = 64  # From an input to where it gets its channels.


def axes_between(
    tensor: tf.Tensor, source: tf.Tensor, known: dict[Any, Axes | None] | None = None
) -> Axes | None:
    """Which axes of `source` the axes of a symbolic `tensor` are.

    Args:
        tensor: Computed from `source`, in the same graph.
        source: An input of the model.
        known: What was found for other tensors of the same source, which is added to.

    Returns:
        For each axis of the tensor that of the source, or None for one of its own; None alone
        where an operation on the way is not known.
    """
    known = {} if known is None else known
    known[source.ref()] = tuple(range(source.shape.rank))
    # Depth first without recursion: graphs are deeper than Python's stack.
    pending = [tensor]
    while pending:
        each = pending[-1]
        if each.ref() in known:
            pending.pop()
            continue
        operands = operands_of(each.op)
        waiting = [x for x in operands if x.ref() not in known]
        if waiting:
            pending.extend(waiting)
            continue
        found = [known[x.ref()] for x in operands]
        known[each.ref()] = _through(each, operands, found)
        pending.pop()
    return known[tensor.ref()]


def operands_of(operation: tf.Operation) -> list[tf.Tensor]:
    """The operands whose axes say something about those of the result."""
    if operation.type in _LOOKUPS:
        return [operation.inputs[1]]
    if operation.type == "Reshape":
        before = _before_dense(operation)
        return [operation.inputs[0] if before is None else before]
    if operation.type in _ELEMENTWISE or operation.type in _PRODUCTS:
        return [x for x in operation.inputs if x.shape.rank]
    if operation.type in _KEEPING or operation.type in _REDUCTIONS or operation.type in _RULES:
        return [operation.inputs[0]]
    return []


def _before_dense(operation: tf.Operation) -> tf.Tensor | None:
    """What a dense layer over the last axis flattens, multiplies, and brings back here."""
    product = operation.inputs[0].op
    flattened = product.inputs[0].op if product.type == "MatMul" else None
    if flattened is None or flattened.type != "Reshape":
        return None
    before = flattened.inputs[0]
    return before if before.shape.rank == operation.outputs[0].shape.rank else None


def _through(tensor: tf.Tensor, operands: Sequence[tf.Tensor], axes: Sequence[Any]) -> Axes | None:
    """The axes of a result, given those of its operands."""
    found = [(x, a) for x, a in zip(operands, axes, strict=True) if a is not None]
    kind, rank = tensor.op.type, tensor.shape.rank
    if rank is None or not found:
        return None
    operand, known = found[0]
    if kind in _RULES:
        return _RULES[kind](tensor, operand, known)
    if kind in _LOOKUPS:
        return (*known, *[None] * (rank - len(known)))
    if kind in _REDUCTIONS:
        return _reduced(tensor, operand, known)
    if kind in _PRODUCTS:  # By weights; of two parts of the input the axes are mixed.
        return (*known[:-1], None) if len(found) == 1 and operand is operands[0] else None
    if kind in _KEEPING:
        return known if operand.shape.rank == rank else None
    whole = [(x, a) for x, a in found if x.shape.rank == rank]
    return _combined(whole, tensor) if whole else None


def _combined(operands: Sequence[tuple[tf.Tensor, Axes]], result: tf.Tensor) -> Axes | None:
    """Axes on which all operands agree, but for those that are stretched."""
    combined: list[int | None] = []
    for place, length in enumerate(result.shape):
        own = {a[place] for x, a in operands if x.shape[place] != 1 or length == 1} - {None}
        if len(own) > 1:
            return None
        combined.append(own.pop() if own else None)
    return tuple(combined)


def _reduced(tensor: tf.Tensor, operand: tf.Tensor, axes: Axes) -> Axes | None:
    places = tf.get_static_value(tensor.op.inputs[1])
    if places is None:
        return None
    gone = {int(i) % operand.shape.rank for i in places.reshape(-1)}
    if tensor.op.get_attr("keep_dims"):
        return tuple(None if i in gone else axis for i, axis in enumerate(axes))
    return tuple(axis for i, axis in enumerate(axes) if i not in gone)


def _transposed(tensor: tf.Tensor, operand: tf.Tensor, axes: Axes) -> Axes | None:
    order = tf.get_static_value(tensor.op.inputs[1])
    if order is None:  # Keras' tensordot asks at run time whether the order is the usual one.
        return axes if operand.shape.as_list() == tensor.shape.as_list() else None
    return tuple(axes[i] for i in order)


def _expanded(tensor: tf.Tensor, operand: tf.Tensor, axes: Axes) -> Axes | None:
    place = tf.get_static_value(tensor.op.inputs[1])
    if place is None:
        return None
    place = int(place.reshape(-1)[0]) % tensor.shape.rank
    return (*axes[:place], None, *axes[place:])


def _squeezed(tensor: tf.Tensor, operand: tf.Tensor, axes: Axes) -> Axes | None:
    places = [int(i) % operand.shape.rank for i in tensor.op.get_attr("squeeze_dims")]
    if not places:
        return None
    return tuple(axis for i, axis in enumerate(axes) if i not in places)


def _reshaped(tensor: tf.Tensor, operand: tf.Tensor, axes: Axes) -> Axes | None:
    """Axes of the same length in the same order are the same; merged or split ones are new."""
    old, new = operand.shape.as_list(), tensor.shape.as_list()
    result: list[int | None] = [None] * len(new)
    i = j = 0
    while i < len(old) and j < len(new):  # From the front.
        if old[i] == new[j]:
            result[j] = axes[i]
            i, j = i + 1, j + 1
        elif new[j] == 1 or old[i] == 1:
            i, j = i + (new[j] != 1), j + (new[j] == 1)
        else:
            break
    k, m = len(old) - 1, len(new) - 1
    while k >= i and m >= j and old[k] is not None:  # From the back: the middle is made anew.
        if old[k] == new[m]:
            result[m] = axes[k]
            k, m = k - 1, m - 1
        elif new[m] == 1 or old[k] == 1:
            k, m = k - (new[m] != 1), m - (new[m] == 1)
        else:
            break
    return tuple(result)


_RULES: dict[str, Callable[[tf.Tensor, tf.Tensor, Axes], Axes | None]] = {
    "Transpose": _transposed,
    "ExpandDims": _expanded,
    "Squeeze": _squeezed,
    "Reshape": _reshaped,
}


def input_space(model: keras.Model, inputs: tf.Tensor) -> list[int]:
    """The axes of an input of `model` that are space (or time), by what the model makes of it.

    Example:
        >>> input_space(model, tf.zeros([8, 224, 224, 3]))
        [1, 2]
    """
    axes = spatial_axes(model, inputs.shape, inputs.dtype)
    whole = list(range(1, inputs.shape.rank))
    if axes == whole or inputs.shape.rank < 3 or not tf.is_symbolic_tensor(inputs):
        return axes
    return whole if gets_channels(inputs) else axes


def gets_channels(inputs: tf.Tensor) -> bool:
    """Whether a model gives a symbolic input an axis of channels, so that all its own are space.

    Args:
        inputs: An input `(batch, ...)` that is no vector, such as grey images `(batch, height,
            width)` that a `Reshape` makes `(batch, height, width, 1)` of.
    """
    rank = inputs.shape.rank
    pending, seen = [inputs], 0
    while pending and seen < _MOST_STEPS:
        each = pending.pop()
        seen += 1
        for operation in each.consumers():
            if not operation.outputs or not operation.outputs[0].dtype.is_floating:
                continue
            result = operation.outputs[0]
            if result.shape.rank == rank and operation.type in _ELEMENTWISE | {"Cast"}:
                pending.append(result)
            elif operation.type in ("Reshape", "ExpandDims") and result.shape.rank == rank + 1:
                kept = _RULES[operation.type](result, each, tuple(range(rank)))
                if kept is not None and kept == (*range(rank), None):
                    return True
    return False
