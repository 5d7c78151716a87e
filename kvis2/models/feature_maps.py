"""Spatial feature maps: which calls of a pass yield one, by shape and not by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kvis2.models import layers
from kvis2.models.activations import final_activation
from kvis2.models.spaces import axes_between, input_space
from kvis2.models.taps import Call, Steps, is_in_the_open, tensors_of
from kvis2.types import Tensors


def spatial_calls(
    model: keras.Model, calls: Sequence[Call], inputs: Tensors, outputs: Tensors, total: tf.Tensor
) -> list[Call]:
    """The calls whose output still has the spatial rank of an input and moves the score.

    Args:
        model: The model.
        calls: All calls of layers in a pass, in order.
        inputs: The flat inputs of the pass.
        outputs: Its outputs, before and after the modifiers: no feature maps, even if spatial.
        total: The scores.
    """
    ranks = {len(input_space(model, each)) for each in inputs} - {0}
    reached = None if tf.executing_eagerly() else ancestors(total)
    logits = [final_activation(each)[1] for each in outputs]
    final = [*outputs, *logits]
    found: list[Call] = []
    turned: list[Call] = []  # The same axes in another order, as behind a Permute.
    known: list[tuple[tf.Tensor, dict[Any, Any]]] = [(each, {}) for each in inputs]
    inside_attention = {id(layer) for layer in layers.inside_attention(model)}
    for call in calls:
        if id(call.layer) in inside_attention:  # (batch, tokens, heads, size) is no image.
            continue
        tensors = tensors_of(call.output)
        if not (tf.is_tensor(call.output) or isinstance(call.output, Steps)):
            continue
        if not all(map(tf.is_tensor, tensors)) or not is_in_the_open(call):
            continue
        sizes = spatial_sizes(call, model)
        if len(sizes) not in ranks or not all(size is None or size > 1 for size in sizes):
            continue
        if is_output(call, final):
            continue
        if reached is not None and not all(each.op in reached for each in tensors):
            continue
        pairs = [_axes_and_space(call, model, each, axes) for each, axes in known]
        if any(axes is None or axes == space for axes, space in pairs):
            kept = found
        elif any(axes is not None and set(axes) == set(space) for axes, space in pairs):
            kept = turned
        else:
            continue
        # A container, or a dropout at inference, passes the tensor of another layer on.
        if not kept or call.output is not kept[-1].output:
            kept.append(call)
    return found or turned


def is_output(call: Call, outputs: Tensors) -> bool:
    """Whether what a layer returned is one of `outputs`, but for its precision."""
    final = {_source(each) for each in outputs}
    return any(_source(each) in final for each in tensors_of(call.output))


def _axes_and_space(
    call: Call, model: keras.Model, inputs: tf.Tensor, known: dict[Any, Any]
) -> tuple[list[int | None] | None, list[int]]:
    """Which axes of an input those of a map are, None if it is not known; and its space."""
    space = input_space(model, inputs)
    if not tf.is_tensor(call.output) or not tf.is_symbolic_tensor(call.output):
        return None, space
    axes = axes_between(call.output, inputs, known)
    if axes is None:
        return None, space
    first = layers.data_format(model, call.layer) == "channels_first"
    return list(axes[2:] if first else axes[1:-1]), space


def spatial_sizes(call: Call, model: keras.Model) -> list[int | None]:
    """The lengths of the spatial axes of what a layer returned in one call."""
    output, times = call.output, []
    while isinstance(output, Steps):
        times.append(len(output))
        output = output[0]
    if output.shape.rank is None or output.shape.rank < 2:
        return []
    first = layers.data_format(model, call.layer) == "channels_first"
    return [*times, *(output.shape[2:] if first else output.shape[1:-1])]


def _source(tensor: tf.Tensor) -> Any:
    """What stands for a tensor and its copies in another precision."""
    if not tf.is_symbolic_tensor(tensor):
        return id(tensor)
    operation = tensor.op
    while operation.type in ("Identity", "Cast", "EnsureShape"):
        operation = operation.inputs[0].op
    return operation


def ancestors(tensor: tf.Tensor) -> set[tf.Operation]:
    """All operations of its graph that a symbolic `tensor` is computed from."""
    seen: set[tf.Operation] = set()
    pending = [tensor.op]
    while pending:
        operation = pending.pop()
        if operation not in seen:
            seen.add(operation)
            pending.extend(each.op for each in operation.inputs)
    return seen
