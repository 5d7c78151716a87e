"""Every call of a layer with a rule in one traced pass, and the overrides that record them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kvis2 import models
from kvis2.lrp.affine import LinearPart, linear_parts
from kvis2.lrp.composites import Composite
from kvis2.lrp.rules import Pass, Rule
from kvis2.types import Override, Tensors

STEP = "Kvis2RelevanceStep"
"""The name of the gradient of the identities that calls end in."""


@dataclass(eq=False)
class RuledCall:
    """One call of a layer with a rule, as it was traced.

    Attributes:
        path: Where the layer is in the model.
        layer: The live layer.
        inputs: The tensors that receive relevance.
        function: Computes the output from these.
        part: The affine part of a convolution or dense layer.
        rule: The rule; of a convolution or dense layer once the depth is known.
        output: That of the identity that the call ends in.
        before: The call of a BatchNormalization that is folded into this one.
        after: The same of one that comes after it.
        first: The position of the first operation of the call in the graph.
        last: The position after its last operation.
    """

    path: str
    layer: keras.Operation
    inputs: Tensors
    function: Callable[..., Any]
    part: LinearPart | None = None
    rule: Rule | None = None
    output: tf.Tensor = None
    before: RuledCall | None = None
    after: RuledCall | None = None
    first: int = 0
    last: int = 0


class ConditionedOutput(NamedTuple):
    """The output of a layer whose channels relevance is conditioned on."""

    path: str
    tensor: tf.Tensor
    axis: int


@dataclass(eq=False)
class CallRecorder:
    """Ends every call of a layer with a rule in an identity that can carry the rule.

    Args:
        composite: Which layer gets which rule.
        watched: The layer whose outputs are `sources`; None for none.
        conditioned: The paths of the layers whose outputs are noted.

    Attributes:
        calls: The calls by the operation that they end in.
        sources: The outputs of the watched layer.
        gates: Tensors that are known to scale others.
        conditioned_outputs: The outputs of the layers `conditioned`, in the order of the pass.
    """

    composite: Composite
    watched: keras.Operation | None
    conditioned: frozenset[str] = frozenset()
    calls: dict[tf.Operation, RuledCall] = field(default_factory=dict)
    sources: Tensors = field(default_factory=list)
    gates: set[Any] = field(default_factory=set)
    conditioned_outputs: list[ConditionedOutput] = field(default_factory=list)
    _ranges: list[tuple[int, int, str, keras.Operation]] = field(default_factory=list)
    _graph: tf.Graph = field(default_factory=tf.compat.v1.get_default_graph)

    def overrides(self, model: keras.Model) -> Sequence[Override]:
        """Every layer of the model: with its rule, or only observed."""
        layers = list(models.walk(model))
        activations = [
            Override(layer, "activation", functools.partial(self._with_activation, path, layer))
            for path, layer in layers
            if callable(getattr(layer, "activation", None))
        ]
        return activations + [
            Override(layer, models.entry_of(layer), functools.partial(self._with_rule, path, layer))
            for path, layer in layers
        ]

    def layer_of(self, operation: tf.Operation) -> tuple[str, keras.Operation] | None:
        """Path and layer of the innermost layer that an operation belongs to."""
        position = self._graph.get_operations().index(operation)
        around = [each for each in self._ranges if each[0] <= position < each[1]]
        if not around:
            return None
        return min(around, key=lambda each: each[1] - each[0])[2:]

    def _with_activation(
        self, path: str, layer: keras.Operation, activation: Callable[..., Any]
    ) -> Callable[..., Any]:
        @functools.wraps(activation)
        def passing(x: tf.Tensor) -> tf.Tensor:
            return self._activated(path, layer, activation, x)

        return passing

    def _with_rule(
        self, path: str, layer: keras.Operation, call: Callable[..., Any]
    ) -> Callable[..., Any]:
        @functools.wraps(call)
        def ruled(*args: Any, **kwargs: Any) -> Any:
            if tf.compat.v1.get_default_graph() is not self._graph:
                return call(*args, **kwargs)  # Inside a loop, which has no rule.
            first = _operation_count()
            output = self._called(path, layer, call, args, kwargs)
            if path in self.conditioned:
                self._noted(path, layer, output)
            self._ranges.append((first, _operation_count(), path, layer))
            if layer is self.watched:
                self.sources.extend(x for x in keras.tree.flatten(output) if tf.is_tensor(x))
            return output

        return ruled

    def _noted(self, path: str, layer: keras.Operation, output: Any) -> None:
        """Keep the output of a layer whose channels relevance is conditioned on."""
        if not tf.is_tensor(output) or output.shape.rank is None or output.shape.rank < 2:
            raise ValueError(
                f"Expected a layer with one output of channels, to choose among. Received: '{path}'"
                f", which returns a {type(output).__name__}. Name a layer inside or after it."
            )
        first = getattr(layer, "data_format", None) == "channels_first"
        axis = 1 if first and output.shape.rank > 2 else output.shape.rank - 1
        # Of several calls the last one stays, as with other methods.
        known = [each for each in self.conditioned_outputs if each.path != path]
        self.conditioned_outputs[:] = [*known, ConditionedOutput(path, output, axis)]

    def _called(
        self,
        path: str,
        layer: keras.Operation,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if models.is_affine(layer):
            arguments = dict(kwargs)
            x = args[0] if args else arguments.pop("inputs")
            of_first = functools.partial(_with_first, call, args[1:], arguments)
            for part in linear_parts(layer, path, of_first):
                x = self._ended(RuledCall(path, layer, [x], part.call, part=part))
            return x if layer.activation is None else layer.activation(x)
        own = self.composite.own_rule(path, layer)
        if own is None and _is_elementwise(layer):
            return self._activated(path, layer, call, *args)
        rule = own or self.composite.rule(path, layer)
        if rule is None:
            return call(*args, **kwargs)
        inputs, function = _as_function(call, args, kwargs)
        return self._ended(RuledCall(path, layer, inputs, function, rule=rule))

    def _activated(
        self, path: str, layer: keras.Operation, activation: Callable[..., Any], x: tf.Tensor
    ) -> tf.Tensor:
        """The activation of x, passed by relevance. A softmax or sigmoid is left to be found."""
        first = _operation_count()
        output = activation(x)
        if output is x or output.op.type in ("Softmax", "LogSoftmax", "Sigmoid"):
            return output
        if tf.compat.v1.get_default_graph() is not self._graph:
            return output
        call = RuledCall(path, layer, [x], activation, rule=Pass(), first=first)
        ended = self._identity(call, output)
        if activation is keras.activations.hard_sigmoid or type(layer).__name__ == "HardSigmoid":
            self.gates.add(ended.ref())
        return ended

    def _ended(self, call: RuledCall) -> tf.Tensor:
        """The output of a call, ending in the identity that carries its rule."""
        call.first = _operation_count()
        output = call.function(*call.inputs)
        if not tf.is_tensor(output):
            raise ValueError(
                "Expected a layer with one output tensor, to give it a rule. Received: "
                f"'{call.path}', which returns a {type(output).__name__}. Give the layers inside "
                "it rules instead."
            )
        return self._identity(call, output)

    def _identity(self, call: RuledCall, output: tf.Tensor) -> tf.Tensor:
        call.output = carrier(self._graph, [output, *call.inputs])
        call.last = _operation_count()
        self.calls[call.output.op] = call
        return call.output


def _is_elementwise(layer: keras.Operation) -> bool:
    kind = models.kind_of_layer(layer)
    return not isinstance(layer, keras.Layer) and kind is not None and kind.final is None


def carrier(graph: tf.Graph, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """The first of `tensors`, from an identity whose gradient is that of `STEP`."""
    with graph.gradient_override_map({"IdentityN": STEP}):
        return tf.identity_n(list(tensors))[0]


def _as_function(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensors, Callable[..., Any]]:
    """The tensors that `call` gets anywhere in its arguments, and a function of these alone."""
    flat = keras.tree.flatten((args, kwargs))
    positions = [i for i, x in enumerate(flat) if tf.is_tensor(x) and x.dtype.is_floating]

    def function(*tensors: tf.Tensor) -> Any:
        values = list(flat)
        for i, each in zip(positions, tensors, strict=True):
            values[i] = each
        new_args, new_kwargs = keras.tree.pack_sequence_as((args, kwargs), values)
        return call(*new_args, **new_kwargs)

    return [flat[i] for i in positions], function


def _with_first(
    call: Callable[..., Any], rest: tuple[Any, ...], kwargs: dict[str, Any], first: Any
) -> Any:
    return call(first, *rest, **kwargs)


def _operation_count() -> int:
    return len(tf.compat.v1.get_default_graph().get_operations())
