"""Which activations a traced pass computes, by its TensorFlow operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

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
