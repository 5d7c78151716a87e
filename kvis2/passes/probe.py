"""One pass through a live model: scores, activations and gradients.

A `Probe` is the only place that calls the model. It taps layers by overriding their `call` while
the pass is traced, so a layer is reached at any depth of any kind of model, and it reads the live
variables, so weights may change between calls. Passes are compiled and kept by
`kvis2.passes.compilation`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kvis2 import models, scores
from kvis2.models import (
    Call,
    Modifier,
    Steps,
    chosen,
    final_activation,
    inlined,
    is_function,
    joined,
    overriding,
    packed_like,
    replacing,
    spatial_calls,
    spatial_sizes,
    tap,
    tensors_of,
)
from kvis2.types import LayerReference, Override, Tensors

# A power of two scales exactly; it lifts float16 gradients over the smallest float16.
_FLOAT16_SCALE = 1024.0


_LEFT_BY_A_CALL: dict[str, Callable[[Any], Any]] = {
    "_called": lambda called: called,
    "_parent_path": lambda path: path,
    "_losses": lambda _: [],
    "_loss_ids": lambda _: set(),
}


class Trace(NamedTuple):
    """What one pass over a batch yields: float32, channels last.

    Attributes:
        inputs: The flat model inputs.
        outputs: The flat explained outputs (linear, if so modified).
        scores: One number per sample, `(batch,)`.
        activations: Output of the watched layer `(batch, *spatial, channels)`; the list of the
            inputs if no layer is watched.
        gradients: d scores / d activations, in the same shape or list.
    """

    inputs: Tensors
    outputs: Tensors
    scores: tf.Tensor
    activations: Any
    gradients: Any


class Survey(NamedTuple):
    """What a forward pass shows of a model.

    Attributes:
        outputs: What the model returned, flat.
        activations: For each output the softmax or sigmoid that it ends in: its name or None.
        operations: The operations of the pass; none where it ran eagerly.
        calls: The calls of layers that yield a spatial feature map, in the order of the pass.
        sizes: The lengths of the spatial axes of each of these maps.
    """

    outputs: Tensors
    activations: list[str | None]
    operations: list[tf.Operation]
    calls: list[Call]
    sizes: list[list[int | None]]


class Forward(NamedTuple):
    """A forward pass as it was traced."""

    results: Tensors  # what the model returned
    outputs: Tensors  # explained outputs, after the modifiers, float32
    scored: Tensors  # the same as the scores want to see them
    parts: list[scores.Score]  # one for each output
    calls: list[Call]


class Probe:
    """Scores, activations and gradients of one model in one pass; reads the live variables.

    Its methods take and return tensors and may be used eagerly or inside a `tf.function`;
    `Compiled` makes one.

    Args:
        model: A built model of any kind. It is neither copied nor changed.
        layer: The layer to watch; None watches the inputs, `targets.LAST_SPATIAL` the last
            feature map that the score depends on.
        modifiers: What to change about the model during the pass.
        call_index: Which call of a layer that the model calls more than once; the last by
            default. The calls that a TimeDistributed makes, one per time step, are one call,
            whose output is `(batch, time, ...)`.
        reshape: Applied to the activations of the watched layer before they are used, for
            instance tokens to a grid; gradients get the same shape.
        pre_activation: Watch what enters the activation that is fused into the layer.
        packing: The structure of the inputs of a model that declares none.
    """

    def __init__(
        self,
        model: keras.Model,
        layer: LayerReference | None = None,
        modifiers: Sequence[Modifier] = (),
        *,
        call_index: int = -1,
        reshape: Callable[[tf.Tensor], tf.Tensor] | None = None,
        pre_activation: bool = False,
        packing: Any = 0,
    ) -> None:
        self.model = model
        self.modifiers = tuple(modifiers)
        self.call_index = call_index
        self.reshape = reshape
        self.pre_activation = pre_activation
        self.packing = packing
        searches = layer is None or layer == models.LAST_SPATIAL
        self.layer = None if searches else models.find_layer(model, layer)
        self._searches_layer = layer == models.LAST_SPATIAL
        self.output_shapes: list[tf.TensorShape] = []
        self.gradient_scale = _FLOAT16_SCALE if _has_float16(model) else 1.0
        _check_layout(model)

    def __call__(self, score: Any, inputs: Tensors) -> Trace:
        """One forward pass, and one backward pass as far as the watched layer.

        Args:
            score: A `Score`, or a list or dict of them, with one field per sample.
            inputs: The flat inputs, `(batch, ...)` each.
        """
        if tf.executing_eagerly():
            return self._eager_trace(score, inputs)
        forward = self._forward(score, inputs)
        total = self._total(forward)
        watched = self._watched(forward, inputs, total)
        gradients = self._gradients(total, tensors_of(watched), inputs)
        return self._trace(inputs, forward, total, watched, gradients)

    def scores(self, score: Any, inputs: Tensors) -> tf.Tensor:
        """The scores alone, `(batch,)`: one forward pass."""
        return self._total(self._forward(score, inputs))

    def fixed(self, score: Any, inputs: Tensors) -> Any:
        """`score` with the predicted classes of `inputs` made definite: one forward pass.

        Costs nothing where no part of the score depends on the output.
        """
        if not any(isinstance(each, scores.PredictedScore) for each in scores.flat(score)):
            return score
        forward = self._forward(score, inputs)
        pairs = zip(forward.parts, forward.scored, strict=True)
        fixed = [part.fixed(output) for part, output in pairs]
        return fixed if len(fixed) > 1 else fixed[0]

    def activations(self, score: Any, inputs: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        """Activations of the watched layer and the scores: one forward pass."""
        forward = self._forward(score, inputs)
        total = self._total(forward)
        return self._channels_last(self._watched(forward, inputs, total)), total

    def scores_with(
        self, score: Any, inputs: Tensors, replaced: Callable[[tf.Tensor], tf.Tensor]
    ) -> tf.Tensor:
        """The scores with another output of the watched layer: one forward pass.

        Args:
            score: The score, made definite by `fixed`.
            inputs: The flat inputs.
            replaced: The layer's own output, in its own layout, -> what to go on with.
        """
        assert self.layer is not None, "a pass that finds the layer comes first"
        if self._is_repeated:
            path = models.layer_path(self.model, self.layer)
            raise ValueError(
                "Expected a layer outside of a TimeDistributed, to go on with another output. "
                f"Received: '{path}', which is called once for every time step. Use a method with "
                "gradients, such as GradCAM, or name the TimeDistributed layer itself."
            )
        override = replacing(self.layer, self._call_number, replaced, self.pre_activation)
        return self._total(self._forward(score, inputs, further=[override]))

    def gradients_at(
        self, score: Any, inputs: Tensors, taps: Callable[..., Sequence[Override]]
    ) -> tuple[list[tf.Tensor | None], list[tuple[Call, tf.Tensor]]]:
        """Gradients of the scores by the inputs and by many tensors in between, in one pass.

        Args:
            score: The score.
            inputs: The flat inputs.
            taps: `(calls, tape) -> overrides` that append to `calls`, such as `tap`. A call
                whose output the score does not depend on is left out.

        Returns:
            The gradients by the inputs, and pairs (call, gradient by its output).
        """
        calls: list[Call] = []
        eager = tf.executing_eagerly()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            if eager:
                tape.watch([each for each in inputs if each.dtype.is_floating])
            forward = self._forward(score, inputs, further=taps(calls, tape))
            total = self._total(forward)
            scaled = total * self.gradient_scale
        sources = [*inputs, *(call.output for call in calls)]
        if eager:
            gradients = tape.gradient(scaled, sources)
        else:
            gradients = self._gradients(total, sources, inputs)
        exact = [None if each is None else self._unscaled(each) for each in gradients]
        found = zip(calls, exact[len(inputs) :], strict=True)
        return exact[: len(inputs)], [(call, each) for call, each in found if each is not None]

    def on_inputs(self, *modifiers: Modifier) -> Probe:
        """A probe of the same model that watches the inputs, with further modifiers."""
        other = copy.copy(self)
        other.layer, other._searches_layer = None, False
        other.modifiers = (*self.modifiers, *modifiers)
        return other

    def on_layer(self, layer: LayerReference) -> Probe:
        """A probe of the same model that watches another layer."""
        other = copy.copy(self)
        other.layer, other._searches_layer = models.find_layer(self.model, layer), False
        return other

    def survey(self, score: Any, inputs: Tensors) -> Survey:
        """What the model computes, for those who want to know it: one forward pass."""
        start = _operation_count()
        forward = self._forward(score, inputs)
        operations = _operations_since(start)
        calls = self._spatial_calls(forward, inputs, self._total(forward))
        activations = [final_activation(each)[0] for each in forward.results]
        sizes = [spatial_sizes(call, self.model) for call in calls]
        return Survey(forward.results, activations, operations, calls, sizes)

    def output(self, inputs: Tensors) -> tf.Tensor:
        """Output of the watched layer in its own layout and dtype: one forward pass."""
        own = [call for call in self._called(inputs)[1] if call.layer is self.layer]
        # A layer that was searched for is tapped among all others; its call is known by now.
        call = own[self._call_number] if self._searches_layer else self._chosen_call(own)
        output = call.output
        return tf.stack(output, axis=1) if isinstance(output, Steps) else output

    def features(
        self, inputs: Tensors, seen: Callable[[tf.Tensor], tf.Tensor] = tf.identity
    ) -> tf.Tensor:
        """Output of the watched layer, of any rank, float32, channels last: one forward pass.

        Args:
            inputs: The flat inputs.
            seen: Applied to the output in the layer's own layout.
        """
        output = tf.cast(seen(self.output(inputs)), tf.float32)
        return self.grid(output) if output.shape.rank > 2 else output

    def gradients(
        self, function: Callable[[Tensors], tuple[tf.Tensor, Any]], sources: Tensors
    ) -> tuple[Any, list[Any]]:
        """What `function` computes besides its total, and the gradient of the total.

        Args:
            function: `sources -> (total, anything)`, the total a number, by calls of this probe.
            sources: What to differentiate by, float32.
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            if tf.executing_eagerly():
                tape.watch(sources)
            total, values = function(sources)
            scaled = total * self.gradient_scale
        if tf.executing_eagerly():
            gradients = tape.gradient(scaled, sources)
        else:  # `tf.gradients` sees the ReLU gradients of the modifiers, a tape does not.
            gradients = tf.gradients(scaled, sources)
        return values, [None if g is None else self._unscaled(g) for g in gradients]

    def _called(
        self,
        inputs: Tensors,
        tape: tf.GradientTape | None = None,
        further: Sequence[Override] = (),
    ) -> tuple[Any, Any]:
        """The model's result, and the calls of the watched layers."""
        calls: list[Call] = []
        start = _operation_count()
        with ExitStack() as stack:
            # What is replaced is replaced inside; the taps see the result.
            stack.enter_context(overriding([*further, *self._overrides(calls, tape)]))
            stack.enter_context(self._gradient_map())
            # No variable of the model is assigned and no loss is added, whatever a layer does.
            stack.enter_context(keras.StatelessScope())
            result = self.model(self._packed(inputs), training=False)
        for modifier in self.modifiers:
            modifier.check(_operations_since(start))
        return result, calls

    def _forward(
        self,
        score: Any,
        inputs: Tensors,
        tape: tf.GradientTape | None = None,
        further: Sequence[Override] = (),
    ) -> Forward:
        hidden = _HiddenOutput(self.model, score)
        result, calls = self._called(inputs, tape, [*further, *hidden.overrides()])
        result = hidden.instead_of(result)
        parts = scores.by_output(score, result, models.output_names(self.model))
        results, outputs, scored = _flat(result), [], []
        for part, output in zip(parts, results, strict=True):
            activation = final_activation(output)[0]
            explained = output
            for modifier in () if hidden.is_scored else self.modifiers:
                explained = modifier.output(explained)
            outputs.append(tf.cast(explained, tf.float32))
            scored.append(_as_classes(outputs[-1], activation, explained is not output, part))
        self.output_shapes = [output.shape for output in scored]
        return Forward(results, outputs, scored, parts, calls)

    def _gradients(self, total: tf.Tensor, sources: Tensors, inputs: Tensors) -> list[Any]:
        """Scaled gradients of the scores, which are not computed if nothing else asks for them."""
        known = total.shape.is_fully_defined()  # One score for all samples, or a fixed batch.
        shape = total.shape if known else tf.shape(inputs[0])[:1]
        return tf.gradients(total, sources, grad_ys=tf.fill(shape, self.gradient_scale))

    def _total(self, forward: Forward) -> tf.Tensor:
        pairs = zip(forward.parts, forward.scored, strict=True)
        return tf.add_n([tf.cast(part(output), tf.float32) for part, output in pairs])

    def _overrides(self, calls: list[Call], tape: tf.GradientTape | None) -> list[Override]:
        inside = [layer for _, layer in models.walk(self.model)]
        found = [inlined(each) for each in [self.model, *inside] if is_function(each.call)]
        found += [each for modifier in self.modifiers for each in modifier.overrides(self.model)]
        # A call marks a layer as called and clears the losses that the last one left in it.
        found += [
            Override(layer, name, empty)
            for layer in (self.model, *inside)
            for name, empty in _LEFT_BY_A_CALL.items()
            if name in vars(layer)
        ]
        repeats = [each for each in inside if isinstance(each, keras.layers.TimeDistributed)]
        found += [joined(each, calls) for each in repeats]
        if self._searches_layer:
            return found + [tap(layer, calls, tape) for layer in inside]
        watched = [] if self.layer is None else [self.layer]
        early = self.pre_activation
        return found + [tap(layer, calls, tape, separate=True, early=early) for layer in watched]

    def _gradient_map(self) -> Any:
        replaced = {k: v for each in self.modifiers for k, v in each.gradients().items()}
        if not replaced:
            return ExitStack()
        if tf.executing_eagerly():
            raise ValueError(
                "Expected a model that can be traced into a graph, to change the gradient of its "
                f"ReLUs. Received: '{self.model.name}', which runs eagerly only. Use a method "
                "without GuidedReLU or DeconvReLU."
            )
        return tf.compat.v1.get_default_graph().gradient_override_map(replaced)

    def _packed(self, inputs: Tensors) -> Any:
        structure = models.input_structure(self.model)
        return keras.tree.pack_sequence_as(self.packing if structure is None else structure, inputs)

    def _watched(self, forward: Forward, inputs: Tensors, total: tf.Tensor) -> Any:
        """What to differentiate by: a tensor or `Steps` of the layer, or the list of inputs."""
        if self.layer is None and not self._searches_layer:
            return inputs
        calls = forward.calls
        if self._searches_layer:
            calls = self._spatial_calls(forward, inputs, total)
            if not calls:
                raise ValueError(
                    "Expected a model with a spatial feature map, such as a convolution before "
                    f"pooling. Received: '{self.model.name}', in which none was found on the way "
                    "to the score. Name one with `layer=` (and `reshape=` for tokens)."
                )
            self.layer = calls[-1].layer
            calls = [call for call in calls if call.layer is self.layer]
        chosen = self._chosen_call(calls)
        own = [call for call in forward.calls if call.layer is self.layer]
        self._call_number = next(i for i, call in enumerate(own) if call is chosen)
        self._is_repeated = isinstance(chosen.output, Steps)
        return chosen.output

    def _spatial_calls(self, forward: Forward, inputs: Tensors, total: tf.Tensor) -> list[Call]:
        outputs = [*forward.results, *forward.outputs, *forward.scored]
        return spatial_calls(self.model, forward.calls, inputs, outputs, total)

    _call_number = 0
    """Which call of the watched layer was chosen, once it is known."""
    _is_repeated = False
    """Whether that was a call for every time step."""

    def _chosen_call(self, calls: Sequence[Call]) -> Call:
        assert self.layer is not None
        return chosen(self.model, self.layer, calls, self.call_index)

    def _trace(
        self,
        inputs: Tensors,
        forward: Forward,
        total: tf.Tensor,
        watched: Any,
        gradients: list[Any],
    ) -> Trace:
        if self.layer is None:
            exact = [self._unscaled(g) if g is not None else None for g in gradients]
            return Trace(inputs, forward.outputs, total, watched, exact)
        if all(each is None for each in gradients):
            path = models.layer_path(self.model, self.layer)
            raise ValueError(
                "Expected a layer that the score depends on. Received: "
                f"'{path}', whose output the score does not depend on (or only through steps "
                "without a gradient). Choose a layer between the input and the explained output, "
                "which is before the final softmax."
            )
        sources = tensors_of(watched)
        pairs = zip(gradients, sources, strict=True)
        found = [tf.zeros_like(x) if g is None else self._unscaled(g) for g, x in pairs]
        return Trace(
            inputs,
            forward.outputs,
            total,
            self._channels_last(watched),
            self._channels_last(packed_like(watched, iter(found))),
        )

    def _eager_trace(self, score: Any, inputs: Tensors) -> Trace:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            if self.layer is None and not self._searches_layer:
                tape.watch([each for each in inputs if each.dtype.is_floating])
            forward = self._forward(score, inputs, tape)
            total = self._total(forward)
            scaled = total * self.gradient_scale
        watched = self._watched(forward, inputs, total)
        gradients = tape.gradient(scaled, tensors_of(watched))
        return self._trace(inputs, forward, total, watched, gradients)

    def _unscaled(self, gradient: Any) -> tf.Tensor:
        return tf.cast(tf.convert_to_tensor(gradient), tf.float32) / self.gradient_scale

    def _channels_last(self, activations: Any) -> tf.Tensor:
        if isinstance(activations, Steps):
            return tf.stack([self._channels_last(each) for each in activations], axis=1)
        activations = tf.cast(activations, tf.float32)
        return self.grid(activations)

    def grid(self, activations: tf.Tensor) -> tf.Tensor:
        """Activations of any layout as (batch, *spatial, channels)."""
        if self.reshape is not None:
            return self.reshape(activations)
        rank = activations.shape.rank
        if rank < 3:
            path = models.layer_path(self.model, self.layer)
            raise ValueError(
                "Expected a layer with an output of shape (batch, ≥1 spatial axis, channels). "
                f"Received: '{path}' with shape {tuple(activations.shape)}. Choose a layer before "
                "the spatial axes are pooled or flattened, or give `reshape=`."
            )
        if models.data_format(self.model, self.layer) == "channels_first":
            return tf.transpose(activations, [0, *range(2, rank), 1])
        return activations


class _HiddenOutput:
    """The output of a hidden layer, which a `LayerScore` scores in the place of the model's."""

    def __init__(self, model: keras.Model, score: Any) -> None:
        self._model = model
        self._score = score
        self._calls: list[Call] = []
        self.is_scored = isinstance(score, scores.LayerScore)

    def overrides(self) -> list[Override]:
        if not self.is_scored:
            return []
        self._layer = models.find_layer(self._model, self._score.layer)
        return [tap(self._layer, self._calls, early=self._score.pre_activation)]

    def instead_of(self, result: Any) -> Any:
        if not self.is_scored:
            return result
        output = chosen(self._model, self._layer, self._calls, self._score.call_index).output
        rank = output.shape.rank
        if rank > 2 and models.data_format(self._model, self._layer) == "channels_first":
            return tf.transpose(output, [0, *range(2, rank), 1])
        return output


def _check_layout(model: keras.Model) -> None:
    """Raise for the one layout whose axes cannot be told apart."""
    if models.data_format(model) != "channels_first":
        return
    for path, layer in models.walk(model):
        if isinstance(layer, keras.layers.TimeDistributed):
            raise ValueError(
                "Expected a model with channels last around a TimeDistributed layer. Received: "
                f"'{path}' in a channels_first model. Build the model with channels last."
            )


def _as_classes(
    output: tf.Tensor, activation: str | None, linear: bool, score: scores.Score
) -> tf.Tensor:
    """A one-unit sigmoid as two classes, for a score that selects a class."""
    if not (activation == "sigmoid" and score.selects_class and output.shape[-1] == 1):
        return output
    opposite = -output if linear else 1.0 - output
    return tf.concat([opposite, output], axis=-1)


def _flat(outputs: Any) -> Tensors:
    if isinstance(outputs, dict):
        return [outputs[name] for name in sorted(outputs)]
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _has_float16(model: keras.Model) -> bool:
    layers = [model, *(layer for _, layer in models.walk(model))]
    return any(getattr(layer, "compute_dtype", None) == "float16" for layer in layers)


def _operation_count() -> int:
    if tf.executing_eagerly():
        return 0
    return len(tf.compat.v1.get_default_graph().get_operations())


def _operations_since(start: int) -> list[tf.Operation]:
    if tf.executing_eagerly():
        return []
    return tf.compat.v1.get_default_graph().get_operations()[start:]
