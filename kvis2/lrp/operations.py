"""Relevance through single TensorFlow operations: whatever runs outside of a layer with a rule.

A `+` in a subclassed model, `keras.layers.Add` and `keras.ops.add` are the same operation in the
traced graph, and so are treated the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kvis2 import models
from kvis2.lrp.rules import proportional, stabilized

# Results that are never below zero, and sums that are not where no summand is.
_NOT_NEGATIVE = frozenset(("Softmax", "Abs", "Square"))
_AVERAGES = frozenset(("AddV2", "AvgPool", "AvgPool3D", "Mean", "Sum"))

# What moves or selects values moves their relevance: the gradient of these is their rule.
MOVES = frozenset(
    (
        "BatchToSpaceND",
        "BroadcastTo",
        "Cast",
        "ConcatV2",
        "DepthToSpace",
        "EnsureShape",
        "ExpandDims",
        "GatherNd",
        "GatherV2",
        "Identity",
        "Max",
        "MaxPool",
        "MaxPool3D",
        "MaxPoolV2",
        "Maximum",
        "Min",
        "Minimum",
        "MirrorPad",
        "Pack",
        "Pad",
        "PadV2",
        "PreventGradient",
        "Reshape",
        "ResizeNearestNeighbor",
        "ReverseV2",
        "Roll",
        "Select",
        "SelectV2",
        "Slice",
        "Snapshot",
        "SpaceToBatchND",
        "SpaceToDepth",
        "Split",
        "SplitV",
        "Squeeze",
        "StopGradient",
        "StridedSlice",
        "Tile",
        "Transpose",
        "Unpack",
    )
)

# Each value is treated by itself: relevance passes.
_ELEMENTWISE = frozenset(
    (
        "ClipByValue",
        "Elu",
        "LeakyRelu",
        "Neg",
        "Relu",
        "Relu6",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Tanh",
    )
)

# Linear in the operands that receive relevance: shares in proportion to the contributions.
LINEAR = frozenset(
    (
        "Add",
        "AddN",
        "AddV2",
        "AvgPool",
        "AvgPool3D",
        "BatchMatMul",
        "BatchMatMulV2",
        "BatchMatMulV3",
        "BiasAdd",
        "Conv2D",
        "Conv2DBackpropInput",
        "Conv3D",
        "Conv3DBackpropInputV2",
        "Cumsum",
        "DepthwiseConv2dNative",
        "Einsum",
        "MatMul",
        "Mean",
        "Mul",
        "RealDiv",
        "ResizeBicubic",
        "ResizeBilinear",
        "Sub",
        "Sum",
    )
)

# Linear in each of two operands, which get half of the relevance each.
_BILINEAR = frozenset(
    (
        "BatchMatMul",
        "BatchMatMulV2",
        "BatchMatMulV3",
        "Einsum",
        "MatMul",
        "Mul",
    )
)

RULED = _ELEMENTWISE | LINEAR | {"Softmax"}
"""The types of operations that `relevance_of` replaces the gradient of."""

_FIRST_OPERAND = {"RealDiv", "ClipByValue", "BiasAdd", "ResizeBicubic", "ResizeBilinear"}
_ARITHMETIC = {"Add", "AddV2", "Mul", "RealDiv", "Sub"}
_SUMS = {"Add", "AddV2", "BiasAdd", "Sub"}
_EPSILON = 1e-9


class Dependence:
    """Which operations of a graph depend on what, and what may be a gate.

    Args:
        graph: The graph, the forward pass already in it.
        inputs: The model's inputs.
        gates: Tensors that are known to scale others: outputs of hard sigmoids.
        detached: Whether attention weights count as constants.
    """

    def __init__(
        self, graph: tf.Graph, inputs: Sequence[tf.Tensor], gates: set[Any], detached: bool
    ) -> None:
        self._operations = graph.get_operations()
        self._gates = gates
        self._detached = detached
        self.on_inputs = self.after(inputs)
        self._on_weights = self._following({"ReadVariableOp"})

    def after(self, tensors: Sequence[tf.Tensor]) -> set[tf.Operation]:
        """The operations that depend on `tensors`, those that make them included."""
        reached = {each.op for each in tensors}
        for operation in self._operations:  # In the order of creation: producers come first.
            if any(each.op in reached for each in operation.inputs):
                reached.add(operation)
        return reached

    def _following(self, types: set[str]) -> set[tf.Operation]:
        reached: set[tf.Operation] = set()
        for operation in self._operations:
            if operation.type in types or any(x.op in reached for x in operation.inputs):
                reached.add(operation)
        return reached

    def receivers(self, operation: tf.Operation) -> list[int]:
        """The positions of the operands that get relevance; the others count as constants."""
        found = [
            i
            for i, each in enumerate(operation.inputs)
            if each.op in self.on_inputs and each.dtype.is_floating
        ]
        if operation.type in _FIRST_OPERAND:
            return [i for i in found if i == 0]
        if len(found) < 2 or operation.type not in _BILINEAR:
            return found
        signals = [i for i in found if not self._scales(operation, i)]
        return signals or found

    def is_by_literal(self, operation: tf.Operation) -> bool:
        """Whether a value is shifted or scaled by a constant that is no weight.

        That is preprocessing, element by element: a black pixel may well be evidence. A weight that
        is added is a bias, which keeps its share.
        """
        constants = [each for each in operation.inputs if each.op not in self.on_inputs]
        return operation.type in _ARITHMETIC and any(
            each.op not in self._on_weights for each in constants
        )

    def _scales(self, operation: tf.Operation, position: int) -> bool:
        """Whether an operand only scales the other one."""
        operand, other = operation.inputs[position], operation.inputs[1 - position]
        source = self._source(operand)
        if operation.type != "Mul":
            return self._detached and source is not None and source.type == "Softmax"
        if source is None or source.type in ("Sigmoid", "Softmax"):
            return True
        return _is_broadcast(operand, other) and not _is_broadcast(other, operand)

    def _source(self, tensor: tf.Tensor) -> tf.Operation | None:
        """What made a tensor before it was moved, shifted or scaled; None for a known gate.

        Gates are, beside the outputs of hard sigmoids, `relu6(x + 3) / 6` and the second factor of
        a GELU, `1 + erf(x)` or `1 + tanh(x)`.
        """
        operation = tensor.op
        if tensor.ref() in self._gates:
            return None
        if operation.type in MOVES and operation.inputs:
            return self._source(operation.inputs[0])
        if operation.type not in _ARITHMETIC:
            return operation
        dependent = [each for each in operation.inputs if each.op in self.on_inputs]
        if len(dependent) != 1:
            return operation
        source = self._source(dependent[0])
        shifted = operation.type in ("Add", "AddV2")
        if source is None or (shifted and source.type in ("Erf", "Tanh")):
            return None
        if not shifted and _ends_in_relu6(source):
            return None
        return source


def _ends_in_relu6(operation: tf.Operation) -> bool:
    if operation.type == "IdentityN":  # A layer with a rule ends in one.
        operation = operation.inputs[0].op
    return operation.type == "Relu6"


def _is_broadcast(operand: tf.Tensor, other: tf.Tensor) -> bool:
    """Whether `operand` is repeated along an axis to fit `other`."""
    if operand.shape.rank is None or other.shape.rank is None:
        return False
    if operand.shape.rank != other.shape.rank:
        return operand.shape.rank < other.shape.rank
    return any(a == 1 and b != 1 for a, b in zip(operand.shape, other.shape, strict=True))


def is_not_negative(tensor: tf.Tensor) -> bool:
    """Whether the graph tells that no value is below zero: behind a ReLU, also pooled or padded."""
    pending = [tensor]
    while pending:
        each = pending.pop()
        operation = each.op
        if operation.type == "IdentityN":
            pending.append(operation.inputs[each.value_index])
        elif operation.type in MOVES or operation.type in _AVERAGES:
            pending.extend(x for x in operation.inputs if x.dtype.is_floating)
        elif not _is_never_negative(operation.type):
            value = tf.get_static_value(each)
            if value is None or value.min(initial=0) < 0:
                return False
    return True


def _is_never_negative(operation_type: str) -> bool:
    kind = models.kind_of_operation(operation_type)
    return operation_type in _NOT_NEGATIVE or (kind is not None and kind.not_negative)


def relevance_of(
    operation: tf.Operation, relevance: tf.Tensor, dependence: Dependence, absorbing: bool = True
) -> list[tf.Tensor | None]:
    """The relevance of every operand, by the relevance of the operation's output.

    Args:
        operation: What relevance has come to.
        relevance: That of its output.
        dependence: What depends on the inputs.
        absorbing: Whether a weight that is added, a bias, keeps its share.
    """
    receivers = dependence.receivers(operation)
    shares: list[tf.Tensor | None] = [None] * len(operation.inputs)
    if not receivers:
        return shares
    float32 = tf.cast(relevance, tf.float32)
    inputs = [tf.cast(operation.inputs[i], tf.float32) for i in receivers]
    if operation.type == "Softmax":
        received = [_through_softmax(operation, inputs[0], float32)]
    elif operation.type in _ELEMENTWISE:
        received = [float32]
    elif len(receivers) == 1 and (
        dependence.is_by_literal(operation) or (not absorbing and operation.type in _SUMS)
    ):
        received = [_summed_to(inputs[0], float32)]
    else:
        halves = 1 / len(receivers) if operation.type in _BILINEAR else 1.0
        function = _again(operation, receivers)
        output = tf.cast(operation.outputs[0], tf.float32)
        total = stabilized(output, _EPSILON)
        received = proportional(function, inputs, total, halves * float32)
    for i, each in zip(receivers, received, strict=True):
        shares[i] = tf.cast(each, operation.inputs[i].dtype)
    return shares


def _through_softmax(operation: tf.Operation, logits: tf.Tensor, relevance: tf.Tensor) -> tf.Tensor:
    """Achtibat et al. 2024, eq. 13: `R_i = x_i (R_i - s_i sum_j R_j)`, its Taylor expansion."""
    weights = tf.cast(operation.outputs[0], tf.float32)
    total = tf.reduce_sum(relevance, axis=-1, keepdims=True)
    return tf.math.multiply_no_nan(logits, relevance - weights * total)


def _summed_to(inputs: tf.Tensor, relevance: tf.Tensor) -> tf.Tensor:
    """Relevance in the shape of an operand that was broadcast."""
    zeros = tf.zeros_like(inputs)
    output = zeros + tf.zeros_like(relevance)
    return tf.gradients(output, zeros, grad_ys=relevance)[0]


def _again(operation: tf.Operation, positions: Sequence[int]) -> Callable[..., tf.Tensor]:
    """The operation as a function of some of its operands, in float32, with its own gradient."""
    attributes = {
        name: value for name, value in operation.node_def.attr.items() if not name.startswith("_")
    }
    half = (tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum)
    for value in attributes.values():
        if value.type in half:
            value.type = tf.float32.as_datatype_enum

    def function(*operands: tf.Tensor) -> tf.Tensor:
        inputs = [
            tf.cast(each, tf.float32) if each.dtype in (tf.float16, tf.bfloat16) else each
            for each in operation.inputs
        ]
        for position, operand in zip(positions, operands, strict=True):
            inputs[position] = operand
        graph = operation.graph
        return graph.create_op(operation.type, inputs, attrs=attributes, name="lrp").outputs[0]

    return function
