"""Which activations a traced pass computes, by its TensorFlow operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import tensorflow as tf

_BY_OPERATION = {
    "Relu": "relu",
    "Relu6": "relu6",
    "LeakyRelu": "leaky_relu",
    "Elu": "elu",
    "Selu": "selu",
    "Softplus": "softplus",
    "Erf": "gelu",
    "Erfc": "gelu",
    "Tanh": "tanh",
}


def activation(operation: tf.Operation) -> str | None:
    """The name of the activation that `operation` computes, or None if it computes none.

    A sigmoid counts only as the gate of a swish, `x * sigmoid(x)`. A ReLU6 that is part of
    `relu6(x + 3) / 6` gates and does not activate; it is a "hard_sigmoid".
    """
    if operation.type == "Sigmoid":
        return "swish" if _is_swish(operation) else None
    if operation.type == "Relu6" and _is_hard_sigmoid(operation):
        return "hard_sigmoid"
    return _BY_OPERATION.get(operation.type)


def counted(operations: Iterable[tf.Operation]) -> Counter[str]:
    """How many activations of which name there are among `operations`.

    Those in functions that the operations call are named "relu in a tf.function" and so on.
    """
    found: Counter[str] = Counter()
    for operation in operations:
        name = activation(operation)
        inside = [_BY_OPERATION.get(each) for each in called(operation)]
        found.update([name] if name else [])
        found.update(f"{each} in a tf.function" for each in inside if each)
    return found


def called(operation: tf.Operation) -> list[str]:
    """The types of the operations in the function that `operation` calls, if it calls one."""
    if operation.type not in ("PartitionedCall", "StatefulPartitionedCall"):
        return []
    name = operation.get_attr("f").name
    library = operation.graph.as_graph_def().library.function
    bodies = [each.node_def for each in library if each.signature.name == name]
    return [node.op for body in bodies for node in body]


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
    name = _ACTIVATIONS.get(operation.type)
    if name is None:
        return None, output
    argument = operation.inputs[0]
    for each in reversed(around):
        argument = RELABELLING[each.type](argument, each)
    return name, argument


_ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}


# Operations that only move or relabel values: they are applied to the logits as well.
RELABELLING: dict[str, Callable[[tf.Tensor, tf.Operation], tf.Tensor]] = {
    "Identity": lambda x, operation: x,
    "Cast": lambda x, operation: tf.cast(x, operation.outputs[0].dtype),
    "Reshape": lambda x, operation: tf.reshape(x, operation.inputs[1]),
    "Transpose": lambda x, operation: tf.transpose(x, operation.inputs[1]),
    "Squeeze": lambda x, operation: tf.reshape(x, tf.shape(operation.outputs[0])),
    "ExpandDims": lambda x, operation: tf.reshape(x, tf.shape(operation.outputs[0])),
}


def _recorded_by_keras(output: tf.Tensor) -> tuple[str | None, tf.Tensor]:
    """Keras keeps the argument of its softmax and sigmoid on the eager result, for its losses."""
    logits = getattr(output, "_keras_logits", None)
    if logits is None:
        return None, output
    return ("sigmoid" if output.shape[-1] == 1 else "softmax"), logits


_MAXIMIZED_BEFORE = (
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Softplus", "Softsign"),
    *("Tanh", "Sigmoid", "Softmax", "LogSoftmax"),
)


def before_activation(output: tf.Tensor) -> tf.Tensor:
    """What entered the activation that a symbolic `output` is the result of, or `output` itself.

    It does not matter whether the activation is fused into the layer or a layer of its own. The
    gradient of a ReLU that is off is zero; before it there is one.
    """
    if not tf.is_symbolic_tensor(output):
        return output
    operation = output.op
    while operation.type in ("Identity", "IdentityN", "Cast"):
        operation = operation.inputs[0].op
    if operation.type in _MAXIMIZED_BEFORE:
        return operation.inputs[0]
    gates = [each for each in operation.inputs if each.op.type == "Sigmoid"]
    if operation.type == "Mul" and gates:  # swish: x * sigmoid(x), or x * sigmoid(beta x)
        argument = next(each for each in operation.inputs if each is not gates[0])
        gated = gates[0].op.inputs[0]
        if argument.ref() in {gated.ref(), *(each.ref() for each in gated.op.inputs)}:
            return argument
    return output


def responses(output: tf.Tensor) -> tf.Tensor:
    """Units before their activation; of filters the negative responses count only a tenth.

    The mean over space of a linear filter depends on the mean of the image alone, whatever the
    filter looks for. Of its positive part it does not.
    """
    argument = before_activation(output)
    return argument if argument.shape.rank < 3 else tf.nn.leaky_relu(argument, 0.1)
