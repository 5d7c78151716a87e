"""Taps: overrides that note what layers return, or replace it, while a pass is traced."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kvis2.models import layers
from kvis2.models.activations import activation_of
from kvis2.models.layers import entry_of
from kvis2.types import Override


class Call(NamedTuple):
    """One call of one layer inside a pass."""

    layer: keras.Operation
    output: Any  # a tensor; `Steps` of them for a layer inside a TimeDistributed


class Steps(tuple):
    """What a layer inside a TimeDistributed yields: one output for every time step."""


def tap(
    layer: keras.Operation,
    calls: list[Call],
    tape: tf.GradientTape | None = None,
    separate: bool = False,
    pre_activation: bool = False,
) -> Override:
    """An override that appends every call of `layer` to `calls` and changes nothing.

    With `separate` the tensor that is noted is a copy of its own, even where a layer passes the
    tensor of another on: what comes after the layer is computed from it, and not around it.
    With `pre_activation` the output of a call is what enters the layer's activation.
    """

    def noted(output: Any) -> Any:
        if separate and tf.is_tensor(output):
            output = tf.identity(output)
        if tape is not None and tf.is_tensor(output) and output.dtype.is_floating:
            tape.watch(output)
        calls.append(Call(layer, output))
        return output

    return handed_through(layer, noted, pre_activation)


def handed_through(
    layer: keras.Operation, function: Callable[[Any], Any], pre_activation: bool = False
) -> Override:
    """An override that hands the output of `layer` through `function` before it goes on.

    With `pre_activation` it is what enters the layer's activation that is handed through: the one
    that is fused into it, or the layer itself if it is one.

    Raises:
        ValueError: If the layer has no activation to look before.
    """

    def after(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return function(call(*args, **kwargs))

        return wrapped

    def before(activation: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(activation)
        def wrapped(x: Any, *args: Any, **kwargs: Any) -> Any:
            return activation(function(x), *args, **kwargs)

        return wrapped

    if not pre_activation:
        return Override(layer, entry_of(layer), after)
    attribute = activation_of(layer)
    if attribute is None:
        raise ValueError(
            "Expected a layer with an activation, to look at what enters it. Received: "
            f"'{layer.name}', a {type(layer).__name__}. Leave `pre_activation` out."
        )
    return Override(layer, attribute, before)


def replacing(
    layer: keras.Operation,
    call_number: int,
    replaced: Callable[[tf.Tensor], tf.Tensor],
    pre_activation: bool,
) -> Override:
    """Replaces the output of one of the calls of `layer`."""
    count = 0

    def in_its_turn(output: tf.Tensor) -> tf.Tensor:
        nonlocal count
        count += 1
        return replaced(output) if count == call_number + 1 else output

    return handed_through(layer, in_its_turn, pre_activation)


def chosen(model: keras.Model, layer: keras.Operation, calls: Sequence[Call], index: int) -> Call:
    """The call of `layer` that `index` means, which must have one tensor for output."""
    path = layers.layer_path(model, layer)
    if not calls:
        raise ValueError(
            "Expected a layer that the model calls when it computes its outputs. Received: "
            f"'{path}', which was not reached. Choose a layer on the way to the output."
        )
    if not -len(calls) <= index < len(calls):
        raise ValueError(
            f"Expected a `call_index` below {len(calls)}, the number of calls of the layer "
            f"'{path}'. Received: {index}. The first call is 0, the last -1."
        )
    call = calls[index]
    if not is_in_the_open(call):
        raise ValueError(
            "Expected a layer that is called in the open. Received: "
            f"'{path}', which is called inside a loop (a TimeDistributed over an open number "
            "of time steps, the cell of an RNN) or a tf.function of its own. Choose the layer "
            "around it, or fix the number of time steps in the model's input."
        )
    if not (tf.is_tensor(call.output) or isinstance(call.output, Steps)):
        raise ValueError(
            f"Expected a layer with one output tensor. Received: '{path}', which returns "
            f"a {type(call.output).__name__}. Choose a layer inside or after it."
        )
    return call


_IN_A_LOOP = object()
"""The output of a layer that is called inside a loop."""


def joined(layer: keras.layers.TimeDistributed, calls: list[Call]) -> Override:
    """An override that makes one call of the calls that `layer` makes, one per time step."""

    def watch(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            start = len(calls)
            output = call(inputs, *args, **kwargs)
            steps = inputs.shape[1]
            inside = calls[start:]
            if steps is None:  # Keras vectorises: what was seen is one step of a loop.
                calls[start:] = [Call(each.layer, _IN_A_LOOP) for each in inside]
                return output
            each = len(inside) // steps
            calls[start:] = [
                Call(inside[i].layer, Steps(other.output for other in inside[i::each]))
                for i in range(each)
            ]
            return output

        return watched

    return Override(layer, "call", watch)


def inlined(layer: keras.Operation) -> Override:
    """An override that runs a `call` decorated with `tf.function` in the graph of the pass."""
    return Override(
        layer, "call", lambda call: tf.autograph.to_graph(call.python_function, recursive=False)
    )


def is_function(call: Any) -> bool:
    """Whether a layer's `call` is decorated with `tf.function`."""
    return hasattr(call, "python_function") and hasattr(call, "get_concrete_function")


def tensors_of(output: Any) -> list[Any]:
    """What a layer returned, without the nesting of `Steps`; a list as it is."""
    if isinstance(output, Steps):
        return [tensor for each in output for tensor in tensors_of(each)]
    return output if isinstance(output, list) else [output]


def packed_like(output: Any, tensors: Iterator[tf.Tensor]) -> Any:
    """`tensors` in the nesting of `output`: the way back from `_tensors`."""
    if isinstance(output, Steps):
        return Steps(packed_like(each, tensors) for each in output)
    return next(tensors)


def is_in_the_open(call: Call) -> bool:
    """Whether what a layer returned is eager, or in the graph of the pass itself."""
    if call.output is _IN_A_LOOP:
        return False
    tensors = [each for each in tensors_of(call.output) if tf.is_symbolic_tensor(each)]
    return all(each.graph is tf.compat.v1.get_default_graph() for each in tensors)
