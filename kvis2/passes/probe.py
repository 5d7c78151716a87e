"""One pass through a live model: scores, activations and gradients.

A `Probe` watches one layer, or the inputs, while a `Runner` runs the model. It taps layers by
overriding their `call` while the pass is traced, so a layer is reached at any depth of any kind of
model. Passes are compiled and kept by `kvis2.passes.compilation`. This file is longer than others:
watching, replacing and differentiating are ways of looking at one and the same forward pass.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
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
    joined,
    packed_like,
    replacing,
    spatial_calls,
    spatial_sizes,
    tap,
    tensors_of,
)
from kvis2.passes.runner import Runner, Values, operation_count, operations_since
from kvis2.scores import Score
from kvis2.types import LayerReference, Override, Tensors


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
        meanings: What the units of each output are taken for.
        operations: The operations of the pass; none where it ran eagerly.
        calls: The calls of layers that yield a spatial feature map, in the order of the pass.
        sizes: The lengths of the spatial axes of each of these maps.
    """

    outputs: Tensors
    activations: list[str | None]
    meanings: list[models.Meaning]
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


class _Seen:
    """What tracing shows of the watched layer; shared by probes that watch the same."""

    def __init__(self, layer: keras.Operation | None, searches: bool) -> None:
        self.layer = layer
        self.searches = searches
        self.call_number = 0  # which call of the layer was chosen
        self.is_repeated = False  # whether that was a call for every time step
        self.output_shapes: list[tf.TensorShape] = []
        self.watched: Any = None  # what the layer returned: a tensor, or `Steps` of them
        self.spaces: list[list[int]] | None = None  # the spatial axes of each input
        self.results: tuple[Tensors, Any] | None = None  # of the first pass: inputs and outputs
        self.paths: list[str] = []  # where each output stands in what the model returns
        self.gradients: Tensors = []  # of the last trace, by the tensors that the layer returned
        self.meanings: list[models.Meaning] = []


class Probe:
    """Scores, activations and gradients of one model in one pass; reads the live variables.

    Its methods take and return tensors and may be used eagerly or inside a `tf.function`;
    `Compiled` makes one. Nobody writes into a probe: `with_modifiers`, `with_values`, `reshaped`,
    `on_inputs` and `on_layer` derive another.

    Args:
        model: A built model of any kind. It is neither copied nor changed.
        layer: The layer to watch; None watches the inputs, `models.LAST_SPATIAL` the last
            feature map that the score depends on.
        modifiers: What to change about the model during the pass.
        call_index: Which call of a layer that the model calls more than once; the last by
            default. The calls that a TimeDistributed makes, one per time step, are one call,
            whose output is `(batch, time, ...)`.
        reshape: Applied to the activations of the watched layer before they are used, for
            instance tokens to a grid; gradients get the same shape.
        pre_activation: Watch what enters the activation of the layer.
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
        self._runner = Runner(model, modifiers, packing)
        self._call_index = call_index
        self._reshape = reshape
        self._pre_activation = pre_activation
        self._seen = _seen_of(model, layer)
        _check_layout(model)

    @property
    def model(self) -> keras.Model:
        """The model that is run."""
        return self._runner.model

    @property
    def layer(self) -> keras.Operation | None:
        """The watched layer, once it is known; None for the inputs."""
        return self._seen.layer

    @property
    def output_shapes(self) -> list[tf.TensorShape]:
        """The static shapes of what the scores of the last forward pass saw."""
        return self._seen.output_shapes

    def watched(self, inputs: Tensors) -> Any:
        """What the watched layer returns for `inputs`: a tensor, or `Steps` of them.

        To see what it is computed from; what has been looked at inside a loop is traced again
        outside of it, where nothing asks for its values.
        """
        found = self._seen.watched
        graphs = {each.graph for each in tensors_of(found) if tf.is_symbolic_tensor(each)}
        if not graphs or graphs == {inputs[0].graph}:
            return found
        return self._own_call(inputs).output

    def input_space(self, inputs: Tensors, index: int) -> list[int]:
        """The axes of one of the inputs that are space (or time), by what the model makes of it."""
        if self._seen.spaces is None:
            self._called(inputs)
        assert self._seen.spaces is not None
        return self._seen.spaces[index]

    @property
    def is_reshaped(self) -> bool:
        """Whether activations are reshaped to a grid that a user says."""
        return self._reshape is not None

    @property
    def gradient_scale(self) -> float:
        """What gradients are scaled by on their way: a power of two for half precision."""
        return self._runner.gradient_scale

    # -- derived probes ---------------------------------------------------------------------------

    def with_modifiers(self, *modifiers: Modifier) -> Probe:
        """A probe that watches the same with further modifiers."""
        other = copy.copy(self)
        other._runner = self._runner.with_modifiers(*modifiers)
        return other

    def with_values(self, values: Values) -> Probe:
        """A probe that watches the same, while variables of the model have other values."""
        other = copy.copy(self)
        other._runner = self._runner.with_values(values)
        return other

    def reshaped(self, reshape: Callable[[tf.Tensor], tf.Tensor]) -> Probe:
        """A probe that watches the same, its activations reshaped unless they are already."""
        other = copy.copy(self)
        other._reshape = self._reshape or reshape
        return other

    def on_inputs(self, *modifiers: Modifier) -> Probe:
        """A probe of the same model that watches the inputs, with further modifiers."""
        other = self.with_modifiers(*modifiers)
        other._seen = _Seen(None, False)
        return other

    def on_layer(self, layer: LayerReference) -> Probe:
        """A probe of the same model that watches another layer."""
        other = copy.copy(self)
        other._seen = _seen_of(self.model, layer)
        return other

    # -- scores -----------------------------------------------------------------------------------

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
        checked = any(isinstance(each, scores.FunctionScore) for each in forward.parts)
        gradients = self._runner.gradients(total, tensors_of(watched), inputs, checked)
        return self._trace(inputs, forward, total, watched, gradients)

    def scores(self, score: Any, inputs: Tensors) -> tf.Tensor:
        """The scores alone, `(batch,)`: one forward pass."""
        score, whole, count = self._filled(score, inputs)
        return self._total(self._forward(score, whole))[:count]

    def _filled(self, score: Any, inputs: Tensors) -> tuple[Any, Tensors, Any]:
        """The score and the inputs, and how many there are before the last one is repeated.

        That is done where a model declares how many samples it takes at once.
        """
        fixed = self._runner.batch
        if fixed is None or inputs[0].shape[0] == fixed:
            return score, inputs, None
        count = tf.shape(inputs[0])[0]
        with tf.control_dependencies([tf.debugging.assert_less_equal(count, fixed)]):
            indices = tf.minimum(tf.range(fixed), count - 1)
        whole = [
            tf.ensure_shape(tf.gather(each, indices), [fixed, *each.shape[1:]]) for each in inputs
        ]
        return scores.take(score, indices), whole, count

    def curvature(self) -> tf.Tensor:
        """The Hessian of the last trace's scores by the layer's output, times that output.

        Returns:
            float32 `(batch, *spatial, channels)`; zero where the score is linear in the layer.
        """
        if tf.executing_eagerly():
            raise ValueError(
                "Expected a model that can be traced into a graph, for second derivatives. "
                f"Received: '{self.model.name}', which runs eagerly only. Use GradCAM."
            )
        watched = self._seen.watched
        sources = tensors_of(watched)
        pairs = zip(self._seen.gradients, sources, strict=True)
        products = [
            tf.reduce_sum(tf.cast(g, tf.float32) * tf.stop_gradient(tf.cast(x, tf.float32)))
            for g, x in pairs
        ]
        found = tf.gradients(
            tf.add_n(products), sources, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return self._channels_last(packed_like(watched, iter(found)))

    def layer_scores(
        self, score: Score, inputs: Tensors, seen: Callable[[tf.Tensor], tf.Tensor]
    ) -> tf.Tensor:
        """The scores of the watched layer's output in the place of the model's.

        Args:
            score: What the output is scored by.
            inputs: The flat inputs.
            seen: Applied to the output in the layer's own layout.
        """
        features = self.features(inputs, seen)
        self._seen.output_shapes = [features.shape]
        return tf.cast(score(features), tf.float32)

    def seen_by(
        self, score: Any, inputs: Tensors, seen: Callable[[tf.Tensor], tf.Tensor] = tf.identity
    ) -> list[tuple[Score, tf.Tensor]]:
        """Each part of a score with what it scores: one forward pass.

        Args:
            score: A score of the watched layer's output, or of the outputs if none is watched.
            inputs: The flat inputs.
            seen: Applied to the layer's output in its own layout.
        """
        if self.layer is not None:
            return [(score, self.features(inputs, seen))]
        forward = self._forward(score, inputs)
        return list(zip(forward.parts, forward.scored, strict=True))

    def fixed(self, score: Any, inputs: Tensors) -> Any:
        """`score` with the predicted classes of `inputs` made definite: one forward pass.

        Costs nothing where no part of the score depends on the output.
        """
        if not any(each.choices for each in scores.flat(score)):
            return score
        fixed = self._forward(score, inputs).parts
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
        if self._seen.is_repeated:
            path = models.layer_path(self.model, self.layer)
            raise ValueError(
                "Expected a layer outside of a TimeDistributed, to go on with another output. "
                f"Received: '{path}', which is called once for every time step. Use a method with "
                "gradients, such as GradCAM, or name the TimeDistributed layer itself."
            )
        score, whole, count = self._filled(score, inputs)

        def substitute(output: tf.Tensor) -> tf.Tensor:
            if count is None:
                return replaced(output)
            indices = tf.minimum(tf.range(self._runner.batch), count - 1)
            return tf.ensure_shape(tf.gather(replaced(output[:count]), indices), output.shape)

        override = replacing(self.layer, self._seen.call_number, substitute, self._pre_activation)
        return self._total(self._forward(score, whole, further=[override]))[:count]

    def scores_under(self, score: Any, inputs: Tensors, overrides: Sequence[Override]) -> tf.Tensor:
        """The scores while further attributes are replaced, `(rows,)`: one forward pass."""
        fixed = self._runner.batch
        if fixed is not None and inputs[0].shape[0] != fixed:
            raise ValueError(
                f"Expected a model that takes any number of samples. Received: '{self.model.name}',"
                f" which takes {fixed} at once. Build it without a batch size, with its weights."
            )
        return self._total(self._forward(score, inputs, further=overrides))

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
            gradients = self._runner.gradients(total, sources, inputs)
        exact = [None if each is None else self._runner.unscaled(each) for each in gradients]
        found = zip(calls, exact[len(inputs) :], strict=True)
        return exact[: len(inputs)], [(call, each) for call, each in found if each is not None]

    def survey(self, score: Any, inputs: Tensors) -> Survey:
        """What the model computes, for those who want to know it: one forward pass."""
        start = operation_count()
        forward = self._forward(score, inputs)
        operations = operations_since(start)
        calls = self._spatial_calls(forward, inputs, self._total(forward))
        activations = [final_activation(each)[0] for each in forward.results]
        meanings = [self._meaning(i, each) for i, each in enumerate(forward.results)]
        sizes = [spatial_sizes(call, self.model) for call in calls]
        return Survey(forward.results, activations, meanings, operations, calls, sizes)

    def output(self, inputs: Tensors) -> tf.Tensor:
        """Output of the watched layer in its own layout and dtype: one forward pass."""
        output = self._own_call(inputs).output
        return tf.stack(output, axis=1) if isinstance(output, Steps) else output

    def _own_call(self, inputs: Tensors) -> Call:
        """The call of the watched layer in a pass of its own."""
        own = [call for call in self._called(inputs)[1] if call.layer is self.layer]
        # A layer that was searched for is tapped among all others; its call is known by now.
        return own[self._seen.call_number] if self._seen.searches else self._chosen_call(own)

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
        return values, [None if g is None else self._runner.unscaled(g) for g in gradients]

    def _called(
        self,
        inputs: Tensors,
        tape: tf.GradientTape | None = None,
        further: Sequence[Override] = (),
    ) -> tuple[Any, list[Call]]:
        """The model's result, and the calls of the watched layers."""
        calls: list[Call] = []
        result = self._runner(inputs, [*further, *self._taps(calls, tape)])
        # By the graph of this very pass, which may be the inside of a loop.
        self._seen.spaces = [models.input_space(self.model, each) for each in inputs]
        self._seen.paths = models.output_paths(result)
        if self._seen.results is None:
            self._seen.results = (list(inputs), result)
        return result, calls

    def predictions(self, inputs: Tensors) -> Tensors:
        """What the model returns, flat: that of the first pass if it was over the same inputs."""
        if self._seen.results is None or any(
            a is not b for a, b in zip(self._seen.results[0], inputs, strict=True)
        ):
            self._seen.results = (list(inputs), self._runner(inputs))
        outputs = models.flat_outputs(self._seen.results[1])
        self._seen.paths = models.output_paths(self._seen.results[1])
        self._seen.meanings = [self._meaning(i, each) for i, each in enumerate(outputs)]
        return [tf.identity(each) for each in outputs]

    @property
    def meanings(self) -> list[models.Meaning]:
        """What the units of the outputs are taken for, once there are `predictions`."""
        return self._seen.meanings

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
        results = models.flat_outputs(result)
        outputs: Tensors = []
        scored: Tensors = []
        shown: list[scores.Shows] = []
        for part, output in zip(parts, results, strict=True):
            explained = output if hidden.is_scored else self._runner.explained(output)
            outputs.append(tf.cast(explained, tf.float32))
            linear = explained is not output
            _check_last(self.model, output, part)
            meaning = self._meaning(len(scored), output)
            scored.append(_as_classes(outputs[-1], meaning, linear, part))
            probabilities = not linear and meaning.logits is False
            shown.append(scores.Shows(probabilities, meaning.kind != "labels"))
        self._seen.output_shapes = [output.shape for output in scored]
        if tf.executing_eagerly():  # In a graph, before the pass is run.
            for part, output in zip(parts, scored, strict=True):
                part.validate(output.shape)
        fixed = [p.fixed(*given) for p, *given in zip(parts, scored, shown, strict=True)]
        return Forward(results, outputs, scored, fixed, calls)

    def _meaning(self, index: int, output: tf.Tensor) -> models.Meaning:
        """What the units of one output mean."""
        path = self._seen.paths[index]
        return models.meaning_of(self.model, index, output.shape, _ends_in(output), path)

    def _total(self, forward: Forward) -> tf.Tensor:
        pairs = list(zip(forward.parts, forward.scored, strict=True))
        active = [(p, x) for p, x in pairs if not isinstance(p, scores.InactiveScore)]
        return tf.add_n([tf.cast(part(output), tf.float32) for part, output in active or pairs])

    def _taps(self, calls: list[Call], tape: tf.GradientTape | None) -> list[Override]:
        inside = [layer for _, layer in models.walk(self.model)]
        repeats = [each for each in inside if isinstance(each, keras.layers.TimeDistributed)]
        found = [joined(each, calls) for each in repeats]
        if self._seen.searches:
            return found + [tap(layer, calls, tape) for layer in inside]
        watched = [] if self.layer is None else [self.layer]
        early = self._pre_activation
        return found + [
            tap(each, calls, tape, separate=True, pre_activation=early) for each in watched
        ]

    def _watched(self, forward: Forward, inputs: Tensors, total: tf.Tensor) -> Any:
        """What to differentiate by: a tensor or `Steps` of the layer, or the list of inputs."""
        if self.layer is None and not self._seen.searches:
            return inputs
        calls = forward.calls
        if self._seen.searches:
            calls = self._spatial_calls(forward, inputs, total)
            if not calls:
                raise ValueError(
                    "Expected a model with a spatial feature map, such as a convolution before "
                    f"pooling. Received: '{self.model.name}', in which none was found on the way "
                    "to the score. Name one with `layer=` (and `reshape=` for tokens)."
                )
            self._seen.layer = calls[-1].layer
            _warn_of_tokens(self.model, forward.calls, calls[-1])
            calls = [call for call in calls if call.layer is self.layer]
        chosen = self._chosen_call(calls)
        if any(isinstance(part, scores.SegmentationScore) for part in forward.parts):
            _check_is_before(self.model, chosen, [*forward.outputs, *forward.results])
        own = [call for call in forward.calls if call.layer is self.layer]
        self._seen.call_number = next(i for i, call in enumerate(own) if call is chosen)
        self._seen.is_repeated = isinstance(chosen.output, Steps)
        self._seen.watched = chosen.output
        return chosen.output

    def _spatial_calls(self, forward: Forward, inputs: Tensors, total: tf.Tensor) -> list[Call]:
        outputs = [
            each
            for part, *own in zip(
                forward.parts, forward.results, forward.outputs, forward.scored, strict=True
            )
            if not isinstance(part, scores.InactiveScore)
            for each in own
        ]
        return spatial_calls(self.model, forward.calls, inputs, outputs, total)

    def _chosen_call(self, calls: Sequence[Call]) -> Call:
        assert self.layer is not None
        return chosen(self.model, self.layer, calls, self._call_index)

    def _trace(
        self,
        inputs: Tensors,
        forward: Forward,
        total: tf.Tensor,
        watched: Any,
        gradients: list[Any],
    ) -> Trace:
        if self.layer is None:
            exact = [self._runner.unscaled(g) if g is not None else None for g in gradients]
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
        found = [tf.zeros_like(x) if g is None else self._runner.unscaled(g) for g, x in pairs]
        self._seen.gradients = found
        return Trace(
            inputs,
            forward.outputs,
            total,
            self._channels_last(watched),
            self._channels_last(packed_like(watched, iter(found))),
        )

    def _eager_trace(self, score: Any, inputs: Tensors) -> Trace:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            if self.layer is None and not self._seen.searches:
                tape.watch([each for each in inputs if each.dtype.is_floating])
            forward = self._forward(score, inputs, tape)
            total = self._total(forward)
            scaled = total * self.gradient_scale
        watched = self._watched(forward, inputs, total)
        gradients = tape.gradient(scaled, tensors_of(watched))
        return self._trace(inputs, forward, total, watched, gradients)

    def _channels_last(self, activations: Any) -> tf.Tensor:
        if isinstance(activations, Steps):
            return tf.stack([self._channels_last(each) for each in activations], axis=1)
        activations = tf.cast(activations, tf.float32)
        return self.grid(activations)

    def grid(self, activations: tf.Tensor) -> tf.Tensor:
        """Activations of any layout as (batch, *spatial, channels)."""
        if self._reshape is not None:
            return self._reshape(activations)
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
        early = self._score.pre_activation
        return [tap(self._layer, self._calls, pre_activation=early)]

    def instead_of(self, result: Any) -> Any:
        if not self.is_scored:
            return result
        output = chosen(self._model, self._layer, self._calls, self._score.call_index).output
        rank = output.shape.rank
        if rank > 2 and models.data_format(self._model, self._layer) == "channels_first":
            return tf.transpose(output, [0, *range(2, rank), 1])
        return output


def _seen_of(model: keras.Model, layer: LayerReference | None) -> _Seen:
    if layer is None or layer == models.LAST_SPATIAL:
        return _Seen(None, searches=layer is not None)
    return _Seen(models.find_layer(model, layer), searches=False)


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


def _check_last(model: keras.Model, output: tf.Tensor, score: scores.Score) -> None:
    """Raise for a segmentation whose classes are not on the last axis."""
    if isinstance(score, scores.SegmentationScore) and (
        models.data_format(model) == "channels_first"
    ):
        raise ValueError(
            "Expected a segmentation whose classes are the last axis. Received: an output of shape "
            f"{tuple(output.shape)} of '{model.name}', which is channels_first. Explain a function "
            "of the output instead: `lambda output: output[:, 3]`."
        )


def _ends_in(output: tf.Tensor) -> str | None:
    """The softmax or sigmoid that an output is made of: its last step, or buried in it."""
    name = final_activation(output)[0]
    if name is None and tf.is_symbolic_tensor(output):
        buried = models.buried_activation(output)
        name = None if buried is None else buried[0]
    return name


def _as_classes(
    output: tf.Tensor, meaning: models.Meaning, linear: bool, score: scores.Score
) -> tf.Tensor:
    """One unit that means two classes as two, for a score that selects a class."""
    if not isinstance(score, scores.ClassScore) or output.shape.rank is None:
        return output
    if output.shape.rank < 2 or output.shape[-1] != 1:
        return output
    if meaning.kind != "two classes":
        if meaning.logits is None and isinstance(
            score, scores.CategoricalScore | scores.ContrastScore | scores.SegmentationScore
        ):
            _warn_of_number(meaning)
        return output
    opposite = -output if linear or meaning.logits else 1.0 - output
    return tf.concat([opposite, output], axis=-1)


def _check_is_before(model: keras.Model, call: Call, outputs: Tensors) -> None:
    """Raise where the watched layer is the segmentation that is scored."""
    logits = [final_activation(each)[1] for each in outputs]
    if models.is_output(call, [*outputs, *logits]):
        raise ValueError(
            "Expected a layer before the segmentation. Received: "
            f"'{models.layer_path(model, call.layer)}', whose output is the segmentation itself: "
            "its map would be the prediction within the mask. Name an earlier layer, such as the "
            "bottleneck."
        )


def _warn_of_tokens(model: keras.Model, calls: Sequence[Call], chosen: Call) -> None:
    """Say so where a transformer goes on with tokens after its last map, as patches of an image."""
    after = calls[next(i for i, call in enumerate(calls) if call is chosen) + 1 :]
    attention = [each for each in after if isinstance(each.layer, models.ATTENTION)]
    if attention:
        path = models.layer_path(model, chosen.layer)
        last = models.layer_path(model, attention[-1].layer)
        warnings.warn(
            f"'{path}' is the last feature map of '{model.name}', which goes on with tokens after "
            f"it (as far as '{last}'). For what they see, name a later layer and give a grid of "
            "its tokens: `layer=..., reshape=kvis2.token_grid()`.",
            stacklevel=2,
        )


def _warn_of_number(meaning: models.Meaning) -> None:
    """Say what a class of one unit is taken for, where nothing says that it is one."""
    if "known loss" in meaning.because:
        warnings.warn(
            "A class was asked for, of an output with one unit that has no sigmoid, in a model "
            "that is not compiled with a known loss. It is taken for a number, and class 0 for "
            "what raises it. If it is the logit of two classes, give BinaryScore(True) or "
            "BinaryScore(False), or compile the model with its loss.",
            stacklevel=2,
        )
