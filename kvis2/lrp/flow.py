"""One pass of relevance: rules put in the place of the gradients of a live model.

The forward pass is the model's own. A call of a layer with a rule ends in an identity whose
gradient is the rule; single operations elsewhere get the gradient of `lrp_operations`. The gradient
of the score with respect to the input is then the relevance of the input.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

from kvis2.lrp.affine import folded, normalizes_channels
from kvis2.lrp.biases import shared_evenly, without_bias
from kvis2.lrp.composites import Composite
from kvis2.lrp.operations import MOVES, RULED, Dependence, relevance_of
from kvis2.lrp.recorder import STEP, CallRecorder, ConditionedOutput, RuledCall, carrier
from kvis2.lrp.rectified import Rectified
from kvis2.lrp.rules import Step
from kvis2.models import Modifier
from kvis2.types import Override, Tensors

BatchNorm = keras.layers.BatchNormalization


@dataclass(frozen=True, eq=False)
class RelevanceFlow(Modifier):
    """The overrides and gradients of one traced pass. Made for one trace and dropped after it.

    Args:
        composite: Which layer gets which rule.
        inputs: The model's flat inputs.
        watched: The layer whose relevance is asked for; None for the inputs.
        start: Whether the relevance starts with the "score" or with "one".
        bias: What becomes of the share of biases: "absorb", "ignore" or "share".
        conditioned: The paths of the layers whose outputs are noted for `through_channels`.
    """

    composite: Composite
    inputs: Tensors
    watched: keras.Operation | None
    start: str
    bias: str = "absorb"
    conditioned: frozenset[str] = frozenset()
    recorder: CallRecorder = field(init=False)
    _absorbed: Tensors = field(default_factory=list)
    _outputs: dict[tf.Operation, tf.Tensor] = field(default_factory=dict)
    _starts: Tensors = field(default_factory=list)
    _sums: dict[Any, tf.Tensor] = field(default_factory=dict)
    _graph: tf.Graph = field(default_factory=tf.compat.v1.get_default_graph)

    def __post_init__(self) -> None:
        recorder = CallRecorder(self.composite, self.watched, self.conditioned)
        object.__setattr__(self, "recorder", recorder)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Let the gradients of the current graph ask this flow."""
        _FLOWS[self._graph] = self
        try:
            yield
        finally:
            del _FLOWS[self._graph]

    # -- the forward pass ----------------------------------------------------------------------

    def overrides(self, model: keras.Model) -> Sequence[Override]:
        """Every layer of the model: with its rule, or only observed."""
        self.composite.validate(model)
        return self.recorder.overrides(model)

    def gradients(self) -> dict[str, str]:
        """The rules of single operations."""
        return dict.fromkeys(RULED, _OPERATION)

    def output(self, output: tf.Tensor) -> tf.Tensor:
        """The same output, at which gradients become relevance."""
        if not self._outputs:  # The first output: the forward pass is traced.
            self._fold()
            self._choose_rules()
            self._see_through(self._dependence.on_inputs)
        self._check_supported(output)
        started = carrier(self._graph, [output])
        self._outputs[started.op] = output
        return started

    # -- what is known once the forward pass is traced -----------------------------------------

    @functools.cached_property
    def _dependence(self) -> Dependence:
        detached = self.composite.attention == "detached"
        return Dependence(self._graph, self.inputs, self.recorder.gates, detached)

    def _see_through(self, operations: Iterable[tf.Operation]) -> None:
        """Let relevance take the operations inside a function that has a gradient of its own.

        `tf.nn.silu` is one. Such a function ends in an IdentityN of its results and arguments.
        """
        name = attr_value_pb2.AttrValue(s=STEP.encode())
        for each in operations:
            if each.type == "IdentityN" and each not in self.recorder.calls:
                each._set_attr("_gradient_op_type", name)

    def _fold(self) -> None:
        """Join each BatchNormalization with the one layer before it, or the layers after it."""
        position = {each: i for i, each in enumerate(self._graph.get_operations())}

        def used_only_by(tensor: tf.Tensor, users: Sequence[RuledCall]) -> bool:
            return all(
                any(user.first <= position[each] < user.last for user in users)
                for each in tensor.consumers()
            )

        for norm in list(self.recorder.calls.values()):
            if not self._is_plain_batch_norm(norm):
                continue
            (inputs,) = norm.inputs
            linear = self.recorder.calls.get(inputs.op)
            if _is_foldable(norm, linear) and used_only_by(inputs, [norm]):
                linear.after = norm  # type: ignore[union-attr]
                continue
            calls = self.recorder.calls.values()
            users = [each for each in calls if each.inputs[0].op is norm.output.op]
            if all(_is_foldable(norm, user) for user in users) and used_only_by(norm.output, users):
                for user in users:
                    user.before = norm

    def _is_plain_batch_norm(self, call: RuledCall) -> bool:
        return (
            isinstance(call.layer, BatchNorm)
            and len(call.inputs) == 1
            and self.composite.own_rule(call.path, call.layer) is None
        )

    def _choose_rules(self) -> None:
        """Give convolution and dense layers their rules, now that their depths are known."""
        depths: dict[tf.Operation, int] = {}
        linear: list[tuple[RuledCall, int]] = []
        for operation in self._graph.get_operations():
            depth = max((depths.get(each.op, 0) for each in operation.inputs), default=0)
            call = self.recorder.calls.get(operation)
            if call is not None and call.part is not None:
                # The operations of the call come before its end and count nothing.
                linear.append((call, depth))
                depth += 1
            depths[operation] = depth
        levels = 1 + max((depth for _, depth in linear), default=-1)
        self.composite.validate_depths(levels)
        for call, depth in linear:
            call.rule = self.composite.linear_rule(call.path, call.layer, depth, levels)

    def _check_supported(self, output: tf.Tensor) -> None:
        """Raise if relevance would come to an operation that no rule is known for."""
        sources = self.inputs if self.watched is None else self.recorder.sources
        on_the_way = self._dependence.after(sources)
        seen = {each.op for each in sources}
        pending = [output.op]
        while pending:
            operation = pending.pop()
            if operation in seen or operation not in on_the_way:
                continue
            seen.add(operation)
            if operation in self.recorder.calls:
                pending.extend(each.op for each in self.recorder.calls[operation].inputs)
            elif operation.type in RULED:
                receivers = self._dependence.receivers(operation)
                pending.extend(operation.inputs[i].op for i in receivers)
            elif operation.type in MOVES or operation.type == "IdentityN":
                pending.extend(each.op for each in operation.inputs if each.dtype.is_floating)
            else:
                raise ValueError(self._unsupported(operation))

    def _unsupported(self, operation: tf.Operation) -> str:
        """The sentence for an operation that no rule is known for."""
        kind = f"operation '{operation.type}'"
        found = self.recorder.layer_of(operation)
        if found is None:
            return (
                "Expected a model that is made of layers and operations with an LRP rule. Received:"
                f" the {kind} in the model itself. Put it into a layer of its own and give that a "
                "rule: `kvis2.lrp.register(LayerClass, rule)`."
            )
        path, name = found[0], type(found[1]).__name__
        return (
            f"Expected layers with an LRP rule. Received: '{path}' ({name}), whose {kind} has "
            f"none. Register one, `kvis2.lrp.register({name}, rule)`, or give the composite an "
            f"entry, `layers={{{path!r}: rule}}`."
        )

    # -- the backward pass ---------------------------------------------------------------------

    def backward(
        self, operation: tf.Operation, upstream: Sequence[tf.Tensor]
    ) -> list[tf.Tensor | None]:
        """The gradient of an identity that carries a rule or begins the relevance."""
        if operation in self._outputs:
            return [self._begun(upstream[0], self._outputs[operation])]
        if operation not in self.recorder.calls:
            return list(upstream)
        call = self.recorder.calls[operation]
        relevance = tf.cast(upstream[0], tf.float32)
        # A bias that is shared gives relevance to units that are off as well.
        rectified = None if self.bias == "share" else self._rectified.output(call)
        step = _step(call, rectified)
        if self.bias == "ignore" and step.affine is not None:
            step = without_bias(step)
        assert call.rule is not None
        shares = call.rule.relevance(step, relevance)
        if self.bias == "share" and step.affine is not None and step.affine.offset is not None:
            shares = [shared_evenly(step, call.rule, relevance)]
        if step.affine is not None and step.affine.offset is not None:
            self._absorbed.append(self._sum(relevance) - self._sum(shares[0]))
        casts = [tf.cast(r, x.dtype) for r, x in zip(shares, call.inputs, strict=True)]
        return [None, *casts]

    @functools.cached_property
    def _rectified(self) -> Rectified:
        return Rectified(self._graph, self.recorder.calls, self._dependence)

    def _sum(self, relevance: tf.Tensor) -> tf.Tensor:
        """That of each sample, once: what one layer hands out is often what another one gets."""
        if relevance.op.type == "MaxPoolGrad":  # The sum of what it was given to spread.
            relevance = relevance.op.inputs[2]
        key = relevance.ref()
        if key not in self._sums:
            self._sums[key] = summed_by_sample(relevance)
        return self._sums[key]

    def through(self, operation: tf.Operation, relevance: tf.Tensor) -> list[tf.Tensor | None]:
        """The relevance of the operands of a single operation."""
        return relevance_of(operation, relevance, self._dependence, self.bias == "absorb")

    def _begun(self, weights: tf.Tensor, output: tf.Tensor) -> tf.Tensor:
        """The relevance of a model output that counts with `weights` in the score."""
        relevance = weights
        if self.start == "score":
            relevance *= output / tf.cast(_by_sample(self._magnitude, output), output.dtype)
        self._starts.append(summed_by_sample(relevance))
        return relevance

    @functools.cached_property
    def _magnitude(self) -> tf.Tensor:
        """The largest output of each sample, `(batch,)`, by which relevance is divided on its way.

        So that it does not overflow in half precision.
        """
        largest = [
            tf.reduce_max(tf.abs(each), axis=list(range(1, each.shape.rank)))
            for each in (tf.cast(output, tf.float32) for output in self._outputs.values())
        ]
        magnitude = functools.reduce(tf.maximum, largest)
        used = tf.logical_and(magnitude > 0, self.start == "score")
        return tf.where(used, magnitude, tf.ones_like(magnitude))

    def through_channels(
        self, total: tf.Tensor, upstream: tf.Tensor, channels: Mapping[str, Sequence[int]]
    ) -> list[tf.Tensor | None]:
        """The relevance of the inputs through chosen channels of layers, and no other way.

        Args:
            total: The scores `(batch,)`.
            upstream: What their gradient starts with.
            channels: By the path of a layer the channels whose relevance goes on.
        """
        found = {each.path: each for each in self.recorder.conditioned_outputs}
        for path in reversed(found):
            (relevance,) = tf.gradients(total, found[path].tensor, grad_ys=upstream)
            if relevance is None or len(found) < len(channels):
                raise ValueError(
                    "Expected layers of `channels` that lie one after the other on the way to the "
                    f"score. Received: {list(channels)}. Choose others."
                )
            upstream = _of_channels(found[path], relevance, channels[path])
            total = found[path].tensor
        return list(tf.gradients(total, self.inputs, grad_ys=upstream))

    def restored(self, relevance: tf.Tensor) -> tf.Tensor:
        """Relevance as it would be without the division by the largest output."""
        return relevance * _by_sample(self._magnitude, relevance)

    def started(self) -> tf.Tensor:
        """The relevance of all outputs together, `(batch,)`, divided by the largest output."""
        return tf.add_n(self._starts)

    def bias_share(self) -> tf.Tensor:
        """How much of the relevance the layers with a bias absorbed, as a part of the start."""
        started = self.started()
        absorbed = tf.add_n(self._absorbed) if self._absorbed else tf.zeros_like(started)
        return tf.math.divide_no_nan(absorbed, started)


_FLOWS: weakref.WeakKeyDictionary[tf.Graph, RelevanceFlow] = weakref.WeakKeyDictionary()


def _of_channels(output: ConditionedOutput, relevance: tf.Tensor, chosen: Sequence[int]) -> Any:
    """Relevance of a layer's output with that of all but the chosen channels set to zero."""
    count = output.tensor.shape[output.axis]
    wrong = [each for each in chosen if not 0 <= each < (count or max(chosen) + 1)]
    if wrong:
        raise ValueError(
            f"Expected channels from 0 to {count - 1} of the layer '{output.path}'. Received: "
            f"{wrong[0]}. Choose one that it has."
        )
    size = tf.shape(relevance)[output.axis]
    kept = tf.reduce_max(tf.one_hot(list(chosen), size, dtype=relevance.dtype), axis=0)
    shape = [-1 if i == output.axis else 1 for i in range(output.tensor.shape.rank)]
    return relevance * tf.reshape(kept, shape)


def _is_foldable(norm: RuledCall, linear: RuledCall | None) -> bool:
    if linear is None or linear.part is None:
        return False
    return normalizes_channels(norm.layer, linear.part.layer, norm.output.shape.rank)


def _step(call: RuledCall, rectified: tf.Tensor | None) -> Step:
    """What the rule gets to see of a call."""
    rectified = None if rectified is None else tf.cast(rectified, tf.float32)
    if call.part is None:
        inputs = [tf.cast(each, tf.float32) for each in call.inputs]
        output = tf.cast(call.output, tf.float32)
        return Step(call.path, call.layer, inputs, call.function, output, rectified=rectified)
    (source,) = call.inputs if call.before is None else call.before.inputs
    inputs = tf.stop_gradient(tf.cast(source, tf.float32))
    output = tf.cast((call if call.after is None else call.after).output, tf.float32)
    before = None if call.before is None else call.before.layer
    after = None if call.after is None else call.after.layer
    affine, function = folded(call.part, inputs, output, before, after)
    affine = affine._replace(rectified=rectified)
    return Step(call.path, call.layer, [inputs], function, output, affine, rectified)


def summed_by_sample(values: tf.Tensor) -> tf.Tensor:
    """The sum of all values of each sample, `(batch,)`, float32."""
    values = tf.cast(values, tf.float32)
    return tf.reduce_sum(values, list(range(1, values.shape.rank)))


def _by_sample(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """`values (batch,)` with as many axes as `like`."""
    return tf.reshape(values, [-1] + [1] * (like.shape.rank - 1))


def _step_gradient(operation: tf.Operation, *upstream: tf.Tensor) -> list[tf.Tensor | None]:
    return _FLOWS[operation.graph].backward(operation, upstream)


def _operation_gradient(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    return _FLOWS[operation.graph].through(operation, upstream)


_OPERATION = "Kvis2RelevanceOperation"
# A reloaded module finds its names taken: TensorFlow's registry outlives it.
with suppress(KeyError):
    tf.RegisterGradient(STEP)(_step_gradient)
    tf.RegisterGradient(_OPERATION)(_operation_gradient)
