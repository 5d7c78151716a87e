"""The one list of activation kinds: how layers, operations and traced graphs show them.

A new kind is one entry of `_KINDS`, or one call of `register_activation` by a user. Guided ReLUs,
LRP, `pre_activation` and `describe` all ask here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
import tensorflow as tf


class ActivationKind(NamedTuple):
    """One kind of activation: element by element, but for a softmax.

    Attributes:
        name: As Keras names it.
        operations: The types of the TensorFlow operations that compute it, and nothing else does.
        layers: Names of the classes of `keras.layers` and `keras.ops` that are it.
        not_negative: Whether it is never below zero.
        final: The final activation that classifiers end in, "softmax" or "sigmoid", if it is one.
    """

    name: str
    operations: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    not_negative: bool = False
    final: str | None = None


_KINDS: list[ActivationKind] = [
    ActivationKind("relu", ("Relu",), ("ReLU", "Relu"), not_negative=True),
    ActivationKind("relu6", ("Relu6",), ("Relu6",), not_negative=True),
    ActivationKind("leaky_relu", ("LeakyRelu",), ("LeakyReLU", "LeakyRelu")),
    ActivationKind("prelu", (), ("PReLU",)),
    ActivationKind("elu", ("Elu",), ("ELU", "Elu")),
    ActivationKind("celu", (), ("Celu",)),
    ActivationKind("selu", ("Selu",), ("Selu",)),
    ActivationKind("softplus", ("Softplus",), ("Softplus",), not_negative=True),
    ActivationKind("softsign", ("Softsign",), ("Softsign",)),
    ActivationKind("squareplus", (), ("Squareplus",)),
    ActivationKind("gelu", ("Erf", "Erfc"), ("Gelu",)),
    ActivationKind("tanh", ("Tanh",), ("Tanh",)),
    ActivationKind("hard_tanh", (), ("HardTanh",)),
    ActivationKind("silu", (), ("Silu",)),
    ActivationKind("hard_silu", (), ("HardSilu",)),
    ActivationKind("hard_sigmoid", (), ("HardSigmoid",)),
    ActivationKind("mish", (), ("Mish",)),
    ActivationKind("sigmoid", ("Sigmoid",), ("Sigmoid",), not_negative=True, final="sigmoid"),
    ActivationKind(
        "softmax", ("Softmax", "LogSoftmax"), ("Softmax", "LogSoftmax"), final="softmax"
    ),
]


def register_activation(kind: ActivationKind) -> None:
    """Let kvis2 know an activation of one's own, in every method.

    Args:
        kind: Its name, the names of the layer classes that are it, and the TensorFlow operations
            that compute it, if these compute nothing else.

    Example:
        >>> register_activation(ActivationKind("snake", layers=("Snake",)))
    """
    if not isinstance(kind, ActivationKind):
        raise TypeError(
            f"Expected an ActivationKind. Received: {kind!r}. Give for example "
            "`ActivationKind('snake', layers=('Snake',))`."
        )
    _KINDS[:] = [kind, *(each for each in _KINDS if each.name != kind.name)]


def kind_of_operation(operation_type: str) -> ActivationKind | None:
    """The kind that operations of a TensorFlow type compute."""
    return next((each for each in _KINDS if operation_type in each.operations), None)


def kind_of_layer(layer: keras.Operation) -> ActivationKind | None:
    """The kind that a layer, or an operation of `keras.ops`, is by itself."""
    names = [each.__name__ for each in type(layer).__mro__]
    return next((each for each in _KINDS if set(names) & set(each.layers)), None)


def activation_of(layer: keras.Operation) -> str | None:
    """The attribute of `layer` through which its activation runs; None if it has none.

    "activation" where one is fused into the layer (a linear one included), "call" where the
    layer is an activation itself.
    """
    if callable(getattr(layer, "activation", None)):
        return "activation"
    return "call" if kind_of_layer(layer) is not None else None


def activation(operation: tf.Operation) -> str | None:
    """The name of the activation that `operation` computes, or None if it computes none.

    A sigmoid counts only as the gate of a swish, `x * sigmoid(x)`. A ReLU6 that is part of
    `relu6(x + 3) / 6` gates and does not activate; it is a "hard_sigmoid".
    """
    if operation.type == "Sigmoid":
        return "swish" if _is_swish(operation) else None
    if operation.type == "Relu6" and _is_hard_sigmoid(operation):
        return "hard_sigmoid"
    return _counted_name(operation.type)


def _counted_name(operation_type: str) -> str | None:
    kind = kind_of_operation(operation_type)
    return kind.name if kind is not None and kind.final is None else None


def counted(operations: Iterable[tf.Operation]) -> Counter[str]:
    """How many activations of which name there are among `operations`.

    Those in functions that the operations call are named "relu in a tf.function" and so on.
    """
    found: Counter[str] = Counter()
    for operation in operations:
        name = activation(operation)
        inside = [_counted_name(each) for each in called(operation)]
        found.update([name] if name else [])
        found.update(f"{each} in a tf.function" for each in inside if each)
    return found


def called(operation: tf.Operation) -> list[str]:
    """The types of all operations in the functions that `operation` calls, at any depth."""
    return [node.op for body in _bodies(operation) for node in body.node_def]


def _bodies(operation: tf.Operation) -> list[Any]:
    """The definitions of the function that `operation` calls, and of those called from there."""
    if operation.type not in _CALLS:
        return []
    library = {x.signature.name: x for x in operation.graph.as_graph_def().library.function}
    pending, found = [operation.get_attr("f").name], {}
    while pending:
        name = pending.pop()
        if name in library and name not in found:
            found[name] = library[name]
            nodes = [node for node in library[name].node_def if node.op in _CALLS]
            pending.extend(node.attr["f"].func.name for node in nodes)
    return list(found.values())


_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def _is_hard_sigmoid(operation: tf.Operation) -> bool:
    return any(
        consumer.type in ("Mul", "RealDiv") and any(map(_is_six_or_a_sixth, consumer.inputs))
        for consumer in operation.outputs[0].consumers()
    )


def _is_six_or_a_sixth(operand: tf.Tensor) -> bool:
    value = tf.get_static_value(operand)
    if value is None or value.size != 1:
        return False
    return min(abs(float(value) - 6), abs(float(value) - 1 / 6)) < 1e-3


def _is_swish(operation: tf.Operation) -> bool:
    argument = operation.inputs[0]
    sources = {argument.ref(), *(x.ref() for x in argument.op.inputs)}
    return any(
        consumer.type == "Mul" and any(x.ref() in sources for x in consumer.inputs)
        for consumer in operation.outputs[0].consumers()
    )


def final_activation(output: tf.Tensor) -> tuple[str | None, tf.Tensor]:
    """Name and argument of the softmax or sigmoid that `output` ends in.

    Args:
        output: A model output, `(batch, ..., units)`, symbolic or eager.

    Returns:
        `("softmax" or "sigmoid", argument)`, the argument in the shape of `output`; or
        `(None, output)`.
    """
    if not tf.is_symbolic_tensor(output):
        return _recorded_by_keras(output)
    around: list[tf.Operation] = []
    operation = output.op
    while operation.type in RELABELLING:
        around.append(operation)
        operation = operation.inputs[0].op
    kind = kind_of_operation(operation.type)
    if kind is None or kind.final is None:
        return None, output
    argument = operation.inputs[0]
    for each in reversed(around):
        argument = RELABELLING[each.type](argument, each)
    return kind.final, argument


# Operations that only move or relabel values: they are applied to the logits as well.
RELABELLING: dict[str, Callable[[tf.Tensor, tf.Operation], tf.Tensor]] = {
    "Identity": lambda x, operation: x,
    "EnsureShape": lambda x, operation: x,
    "Cast": lambda x, operation: tf.cast(x, operation.outputs[0].dtype),
    "Reshape": lambda x, operation: tf.reshape(x, operation.inputs[1]),
    "Transpose": lambda x, operation: tf.transpose(x, operation.inputs[1]),
    "Squeeze": lambda x, operation: tf.reshape(x, tf.shape(operation.outputs[0])),
    "ExpandDims": lambda x, operation: tf.reshape(x, tf.shape(operation.outputs[0])),
}


def buried_activation(output: tf.Tensor) -> tuple[str, list[str]] | None:
    """A softmax or sigmoid that is followed by more steps, or ends in a function.

    Args:
        output: A symbolic model output that `final_activation` finds nothing in.

    Returns:
        "softmax" or "sigmoid", and what comes after it; None if there is none.
    """
    passed: list[str] = []
    pending, seen = [output.op], 0
    while pending and seen < 64:
        each = pending.pop()
        seen += 1
        kind = kind_of_operation(each.type)
        if kind is not None and kind.final is not None and passed:
            return kind.final, passed
        finals = {k.final for k in map(kind_of_operation, called(each)) if k and k.final}
        if finals:
            name = "softmax" if "softmax" in finals else "sigmoid"
            return name, [*passed, "the end of a tf.function"]
        if each.type in _AFTER or each.type in RELABELLING:
            passed.append(each.type)
            pending.extend(tensor.op for tensor in each.inputs)
    return None


# What averages, clips and scales probabilities.
_AFTER = frozenset(
    (
        *("Mul", "AddV2", "AddN", "Sub", "RealDiv", "ConcatV2", "Pow", "Log", "Maximum"),
        *("Minimum", "ClipByValue", "Mean", "Sum", "Pack", "StridedSlice"),
    )
)


def _recorded_by_keras(output: tf.Tensor) -> tuple[str | None, tf.Tensor]:
    """Keras keeps the argument of its softmax and sigmoid on the eager result, for its losses."""
    logits = getattr(output, "_keras_logits", None)
    if logits is None:
        return None, output
    return ("sigmoid" if output.shape[-1] == 1 else "softmax"), logits
