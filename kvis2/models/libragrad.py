"""LibraGrad: gradients that are complete in transformers, by pruned and scaled backward paths."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from kvis2.models.activations import RELABELLING, activation
from kvis2.models.modifiers import Modifier

# The gradient of what may be a gate, where it is none: by its operation and the upstream.
_PLAIN: dict[str, Callable[[tf.Operation, tf.Tensor], tf.Tensor]] = {
    "Softmax": lambda op, up: (
        (up - tf.reduce_sum(up * op.outputs[0], -1, keepdims=True)) * op.outputs[0]
    ),
    "Sigmoid": lambda op, up: tf.raw_ops.SigmoidGrad(y=op.outputs[0], dy=up),
    "Tanh": lambda op, up: tf.raw_ops.TanhGrad(y=op.outputs[0], dy=up),
    "Erf": lambda op, up: up * _slope_of_erf(op),
    "Erfc": lambda op, up: -up * _slope_of_erf(op),
    "Relu6": lambda op, up: tf.raw_ops.Relu6Grad(gradients=up, features=op.outputs[0]),
    "Rsqrt": lambda op, up: tf.raw_ops.RsqrtGrad(y=op.outputs[0], dy=up),
    "Sqrt": lambda op, up: tf.raw_ops.SqrtGrad(y=op.outputs[0], dy=up),
}
_MARK = "_kvis2_libragrad"

# Of two factors that may both be gates, that of the higher rank is one: a standard deviation scales
# what comes out of a sigmoid, a sigmoid what comes out of a tanh.
_RANKS = {
    "Rsqrt": 4,
    "Sqrt": 4,
    "Softmax": 3,
    "Sigmoid": 2,
    "Erf": 2,
    "Erfc": 2,
    "Relu6": 2,
    "Tanh": 1,
}
_MOVES = frozenset((*RELABELLING, "BroadcastTo", "Neg", "Pack", "StridedSlice", "Tile"))
_BY_A_CONSTANT = frozenset(
    ("Add", "AddV2", "Mul", "RealDiv", "Sub", "Maximum", "Minimum", "SelectV2")
)
_PRODUCTS = frozenset(
    ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "MatMul", "Mul", "RealDiv")
)
_NOT_OF_DATA = frozenset(("Const", "ReadVariableOp", "Shape", "Size", "Rank", "VarHandleOp"))


@dataclass(frozen=True)
class LibraGrad(Modifier):
    r"""LibraGrad: gates count as constants on the way back, so that gradients are complete.

    A product `g(x) v(x)` of a gate and a value has a gradient by both, which together count it
    twice or not at all: the gradients of transformers do not add up. Here the backward path into
    gates is pruned: attention weights (a softmax that multiplies), the standard deviation of layer,
    RMS, group and unit normalisations, and the gates of GELU, SiLU, Mish, hard swish and squeeze
    and excitation; a product of two values without a gate (SwiGLU) passes half to each. Forward
    values do not change. What is left is linear at the input: `x * g` and the biases' share add up
    to the score (FullGrad-completeness). It lifts every gradient method: give it beside
    `LinearOutput()`.

    Gates are found in the traced graph, however they are written; those inside a `tf.function` of
    their own are not seen. A matrix product of two values without a softmax (linear attention)
    keeps its gradient.

    Raises:
        ValueError: At the first explanation, if the model has no gate.

    References:
        Mehri et al. (2025), LibraGrad: Balancing Gradient Flow for Universally Better Vision
        Transformer Attributions. https://arxiv.org/abs/2411.16760

    Example:
        >>> explainer = InputXGradient(vit, model_modifier=[LinearOutput(), LibraGrad()])
        >>> maps = explainer(243, images)
    """

    def gradients(self) -> Mapping[str, str]:
        """The pruned gradient of all that may be a gate, and the halved one of products."""
        return {**dict.fromkeys(_PLAIN, _GATE), "Mul": _PRODUCT}

    def check(self, operations: Sequence[tf.Operation]) -> None:
        """Mark the gates of the forward pass; raise if there is none at all."""
        through = attr_value_pb2.AttrValue(s=_THROUGH.encode())
        for each in operations:
            # `tf.nn.silu` ends in an identity that hides its sigmoid from the gradient.
            if each.type == "IdentityN" and _is_gated(each.inputs[0]):
                each._set_attr("_gradient_op_type", through)
        # Now, before gradients add consumers of their own to the graph.
        gates = [each for each in operations if each.type in _PLAIN and _gates(each)]
        products = [each for each in operations if each.type == "Mul" and _is_of_values(each)]
        for each in (*gates, *products):
            each._set_attr(_MARK, attr_value_pb2.AttrValue(b=True))
        if not gates:
            raise ValueError(
                "Expected a model with gates: attention, layer normalisation, GELU or SiLU, for "
                "LibraGrad. Received: a model without any, whose gradients are complete already. "
                "Leave LibraGrad out."
            )


def _slope_of_erf(operation: tf.Operation) -> tf.Tensor:
    return tf.exp(-tf.square(operation.inputs[0])) * 1.1283791670955126  # 2 / sqrt(pi)


def _is_gated(tensor: tf.Tensor) -> bool:
    """Whether a tensor is a product with a sigmoid: a swish."""
    operation = tensor.op
    return operation.type == "Mul" and any(x.op.type == "Sigmoid" for x in operation.inputs)


def _gates(operation: tf.Operation) -> bool:
    """Whether what an operation yields scales something else that depends on the input."""
    own = _rank(operation)
    pending, seen = list(operation.outputs) if own else [], set()
    while pending:
        tensor = pending.pop()
        for user in tensor.consumers():
            if user in seen:
                continue
            seen.add(user)
            values = [x for x in user.inputs if x is not tensor and _is_of_data(x)]
            if user.type in _PRODUCTS and values:
                # Divided by a gate, a value is scaled; a gate that is divided is a value.
                scales = user.type != "RealDiv" or user.inputs[1] is tensor
                if scales and own > _rank_of_source(values[0]):
                    return True
            elif user.type in _MOVES or (user.type in _BY_A_CONSTANT and not values):
                pending.extend(user.outputs)
    return False


def _rank(operation: tf.Operation) -> int:
    """Which of two factors is the gate: that of the higher rank; 0 is no gate at all."""
    if operation.type == "Relu6" and activation(operation) != "hard_sigmoid":
        return 0
    return _RANKS.get(operation.type, 0)


def _is_of_data(tensor: tf.Tensor) -> bool:
    """Whether a tensor depends on anything but weights and constants."""
    pending, seen = [tensor.op], set()
    while pending:
        operation = pending.pop()
        if operation in seen or operation.type in _NOT_OF_DATA:
            continue
        seen.add(operation)
        if not operation.inputs:
            return operation.outputs[0].dtype != tf.resource
        pending.extend(each.op for each in operation.inputs)
    return False


def _rank_of_source(tensor: tf.Tensor) -> int:
    """The rank of what a factor was before it was moved, shifted or scaled by constants."""
    operation = tensor.op
    while operation.type not in _PLAIN:
        moved = operation.type in _MOVES or operation.type in _BY_A_CONSTANT
        sources = [x for x in operation.inputs if _is_of_data(x)]
        if not moved or len(sources) != 1:
            return 0
        operation = sources[0].op
    return _rank(operation)


def _is_of_values(product: tf.Operation) -> bool:
    """Whether both factors depend on the input, and neither is the gate of the other."""
    factors = list(product.inputs)
    return all(map(_is_of_data, factors)) and len({_rank_of_source(x) for x in factors}) == 1


def _is_marked(operation: tf.Operation) -> bool:
    return _MARK in operation.node_def.attr


def _gate(operation: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    if _is_marked(operation):
        return tf.zeros_like(operation.inputs[0])
    return _PLAIN[operation.type](operation, upstream)


def _product(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor]:
    factors = list(operation.inputs)
    again = tf.multiply(*[tf.identity(x) for x in factors])
    found = tf.gradients(again, factors, grad_ys=upstream)
    if factors[0] is factors[1]:  # A square: its gradient by both at once.
        found = [0.5 * found[0], 0.5 * found[0]]
    return [0.5 * each if _is_marked(operation) else each for each in found]


def _through(operation: tf.Operation, *upstream: tf.Tensor) -> list[tf.Tensor | None]:
    return [upstream[0], *[None] * (len(operation.inputs) - 1)]


def _register(name: str, gradient: Callable[..., object]) -> str:
    # A reloaded module finds its name taken: TensorFlow's registry outlives it.
    with contextlib.suppress(KeyError):
        tf.RegisterGradient(name)(gradient)
    return name


_GATE = _register("Kvis2LibraGradGate", _gate)
_PRODUCT = _register("Kvis2LibraGradProduct", _product)
_THROUGH = _register("Kvis2LibraGradThrough", _through)
