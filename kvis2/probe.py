"""One pass through a live model: scores, activations and gradients, compiled once.

A `Probe` is the only place that calls the model. It taps layers by overriding their `call` while
the pass is traced, so a layer is reached at any depth of any kind of model, and it reads the live
variables, so weights may change between calls. `Compiled` turns a function of a probe into one
`tf.function` whose batch axis is open and whose class indices are tensors; it is kept with the
model and dies with it.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kvis2 import scores, targets
from kvis2.fields import fields, with_fields
from kvis2.modifiers import Modifier, final_activation
from kvis2.overrides import overriding
from kvis2.types import LayerReference, Override, Tensors

# A power of two scales exactly; it lifts float16 gradients over the smallest float16.
_FLOAT16_SCALE = 1024.0


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


class Call(NamedTuple):
    """One call of one layer inside a pass."""

    layer: keras.Operation
    output: Any  # a tensor; `Steps` of them for a layer inside a TimeDistributed


class Steps(tuple):
    """What a layer inside a TimeDistributed yields: one output for every time step."""


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
    ) -> None:
        self.model = model
        self.modifiers = tuple(modifiers)
        self.call_index = call_index
        self.reshape = reshape
        self.pre_activation = pre_activation
        searches = layer is None or layer == targets.LAST_SPATIAL
        self.layer = None if searches else targets.find_layer(model, layer)
        self._searches_layer = layer == targets.LAST_SPATIAL
        self.output_shapes: list[tf.TensorShape] = []
        self._scale = _FLOAT16_SCALE if _has_float16(model) else 1.0
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
        gradients = tf.gradients(total * self._scale, keras.tree.flatten(watched))
        return self._trace(inputs, forward, total, watched, gradients)

    def scores(self, score: Any, inputs: Tensors) -> tf.Tensor:
        """The scores alone, `(batch,)`: one forward pass."""
        return self._total(self._forward(score, inputs))

    def fixed(self, score: Any, inputs: Tensors) -> Any:
        """`score` with the predicted classes of `inputs` made definite: one forward pass.

        Costs nothing where no part of the score depends on the output.
        """
        if not any(isinstance(each, scores.PredictedScore) for each in keras.tree.flatten(score)):
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

    def features(self, inputs: Tensors) -> tf.Tensor:
        """Output of the watched layer, of any rank, float32, channels last: one forward pass."""
        output = tf.cast(self._chosen_call(self._called(inputs)[1]).output, tf.float32)
        return self._grid(output) if output.shape.rank > 2 else output

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
            scaled = total * self._scale
        if tf.executing_eagerly():
            gradients = tape.gradient(scaled, sources)
        else:  # `tf.gradients` sees the ReLU gradients of the modifiers, a tape does not.
            gradients = tf.gradients(scaled, sources)
        return values, [None if g is None else self._unscaled(g) for g in gradients]

    def _called(self, inputs: Tensors, tape: tf.GradientTape | None = None) -> tuple[Any, Any]:
        """The model's result, and the calls of the watched layers."""
        calls: list[Call] = []
        start = _operation_count()
        with ExitStack() as stack:
            stack.enter_context(overriding(self._overrides(calls, tape)))
            stack.enter_context(self._gradient_map())
            # No variable of the model is assigned and no loss is added, whatever a layer does.
            stack.enter_context(keras.StatelessScope())
            result = self.model(self._packed(inputs), training=False)
        for modifier in self.modifiers:
            modifier.check(_operations_since(start))
        return result, calls

    def _forward(self, score: Any, inputs: Tensors, tape: tf.GradientTape | None = None) -> Forward:
        result, calls = self._called(inputs, tape)
        parts = scores.by_output(score, result, _output_names(self.model))
        results, outputs, scored = _flat(result), [], []
        for part, output in zip(parts, results, strict=True):
            activation = final_activation(output)[0]
            explained = output
            for modifier in self.modifiers:
                explained = modifier.output(explained)
            outputs.append(tf.cast(explained, tf.float32))
            scored.append(_as_classes(outputs[-1], activation, explained is not output, part))
        self.output_shapes = [output.shape for output in scored]
        return Forward(results, outputs, scored, parts, calls)

    def _total(self, forward: Forward) -> tf.Tensor:
        pairs = zip(forward.parts, forward.scored, strict=True)
        return tf.add_n([tf.cast(part(output), tf.float32) for part, output in pairs])

    def _overrides(self, calls: list[Call], tape: tf.GradientTape | None) -> list[Override]:
        found = [each for modifier in self.modifiers for each in modifier.overrides(self.model)]
        if self._searches_layer:
            taps = [tap(layer, calls, tape) for _, layer in targets.walk(self.model)]
        else:
            taps = [] if self.layer is None else [tap(self.layer, calls, tape, separate=True)]
        # A call clears the losses that the last one left in each layer; keep them for the user.
        kept = [
            Override(layer, name, empty)
            for layer in (self.model, *(each for _, each in targets.walk(self.model)))
            for name, empty in (("_losses", lambda _: []), ("_loss_ids", lambda _: set()))
            if name in vars(layer)
        ]
        return found + kept + taps

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
        structure = targets.input_structure(self.model)
        if structure is None:
            structure = self.packing
        return keras.tree.pack_sequence_as(structure, inputs)

    packing: Any = 0
    """The structure in which a model that declares none gets its inputs."""

    def _watched(self, forward: Forward, inputs: Tensors, total: tf.Tensor) -> Any:
        """What to differentiate by: a tensor or `Steps` of the layer, or the list of inputs."""
        if self.layer is None and not self._searches_layer:
            return inputs
        calls = forward.calls
        if self._searches_layer:
            calls = _spatial(forward, inputs, total, self.model)
            self.layer = calls[-1].layer
            calls = [call for call in calls if call.layer is self.layer]
        return self._chosen_call(calls, total).output

    def _chosen_call(self, calls: list[Call], total: tf.Tensor) -> Call:
        assert self.layer is not None
        path = targets.layer_path(self.model, self.layer)
        if not calls:
            raise ValueError(
                "Expected a layer that the model calls when it computes its outputs. Received: "
                f"'{path}', which was not reached. Choose a layer on the way to the output."
            )
        if not -len(calls) <= self.call_index < len(calls):
            raise ValueError(
                f"Expected a `call_index` below {len(calls)}, the number of calls of the layer "
                f"'{path}'. Received: {self.call_index}. The first call is 0, the last -1."
            )
        call = calls[self.call_index]
        tensors = keras.tree.flatten(call.output)
        if not (tf.is_tensor(call.output) or isinstance(call.output, Steps)):
            raise ValueError(
                f"Expected a layer with one output tensor. Received: '{path}', which returns "
                f"a {type(call.output).__name__}. Choose a layer inside or after it."
            )
        if not all(_is_beside(each, total) for each in tensors):
            raise ValueError(
                "Expected a layer that is called in the open. Received: "
                f"'{path}', which is called inside a loop (a TimeDistributed over an open number "
                "of time steps, the cell of an RNN) or a tf.function of its own. Choose the layer "
                "around it, or fix the number of time steps in the model's input."
            )
        return call

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
            path = targets.layer_path(self.model, self.layer)
            raise ValueError(
                "Expected a layer that the score depends on. Received: "
                f"'{path}', whose output the score does not depend on (or only through steps "
                "without a gradient). Choose a layer between the input and the explained output."
            )
        sources = keras.tree.flatten(watched)
        pairs = zip(gradients, sources, strict=True)
        found = [tf.zeros_like(x) if g is None else self._unscaled(g) for g, x in pairs]
        return Trace(
            inputs,
            forward.outputs,
            total,
            self._channels_last(watched),
            self._channels_last(keras.tree.pack_sequence_as(watched, found)),
        )

    def _eager_trace(self, score: Any, inputs: Tensors) -> Trace:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            if self.layer is None and not self._searches_layer:
                tape.watch([each for each in inputs if each.dtype.is_floating])
            forward = self._forward(score, inputs, tape)
            total = self._total(forward)
            scaled = total * self._scale
        watched = self._watched(forward, inputs, total)
        gradients = tape.gradient(scaled, keras.tree.flatten(watched))
        return self._trace(inputs, forward, total, watched, gradients)

    def _unscaled(self, gradient: Any) -> tf.Tensor:
        return tf.cast(tf.convert_to_tensor(gradient), tf.float32) / self._scale

    def _channels_last(self, activations: Any) -> tf.Tensor:
        if isinstance(activations, Steps):
            return tf.stack([self._channels_last(each) for each in activations], axis=1)
        activations = tf.cast(activations, tf.float32)
        if self.reshape is not None:
            return self.reshape(activations)
        rank = activations.shape.rank
        if rank < 3:
            path = targets.layer_path(self.model, self.layer)
            raise ValueError(
                "Expected a layer with an output of shape (batch, ≥1 spatial axis, channels). "
                f"Received: '{path}' with shape {tuple(activations.shape)}. Choose a layer before "
                "the spatial axes are pooled or flattened, or give `reshape=`."
            )
        if targets.data_format(self.model, self.layer) == "channels_first":
            return tf.transpose(activations, [0, *range(2, rank), 1])
        return activations


def tap(layer: keras.Operation, calls: list[Call], tape: tf.GradientTape | None = None) -> Override:
    """An override that appends every call of `layer` to `calls` and changes nothing."""

    def watch(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def watched(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            if tape is not None and tf.is_tensor(output) and output.dtype.is_floating:
                tape.watch(output)
            calls.append(Call(layer, output))
            return output

        return watched

    return Override(layer, "call", watch)


def joined(layer: keras.layers.TimeDistributed, calls: list[Call]) -> Override:
    """An override that makes one call of the calls that `layer` makes, one per time step."""

    def watch(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def watched(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            start = len(calls)
            output = call(inputs, *args, **kwargs)
            steps = inputs.shape[1]
            if steps is not None:  # Else Keras loops in a graph of its own.
                inside = calls[start:]
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


def _is_function(call: Any) -> bool:
    return hasattr(call, "python_function") and hasattr(call, "get_concrete_function")


def _spatial(
    forward: Forward, inputs: Tensors, total: tf.Tensor, model: keras.Model
) -> list[Call]:
    """The calls whose output still has the spatial rank of an input and moves the score."""
    ranks = {len(targets.spatial_axes(model, each.shape, each.dtype)) for each in inputs} - {0}
    reached = None if tf.executing_eagerly() else ancestors(total)
    final = _sources([*forward.results, *forward.outputs, *forward.scored])
    found: list[Call] = []
    for call in forward.calls:
        tensors = keras.tree.flatten(call.output)
        if not all(tf.is_tensor(each) and _is_beside(each, total) for each in tensors):
            continue
        if not (tf.is_tensor(call.output) or isinstance(call.output, Steps)):
            continue
        sizes = _sizes(call, model)
        if len(sizes) not in ranks or not all(size is None or size > 1 for size in sizes):
            continue
        if any(_source(each) in final for each in tensors):
            continue
        if reached is not None and not all(each.op in reached for each in tensors):
            continue
        # A container, or a dropout at inference, passes the tensor of another layer on.
        if not found or call.output is not found[-1].output:
            found.append(call)
    if not found:
        raise ValueError(
            f"Expected a model with a spatial feature map, such as a convolution before pooling. "
            f"Received: '{model.name}', in which none was found on the way to the score. Name "
            "one with `layer=` (and `reshape=` for tokens)."
        )
    return found


def _sizes(call: Call, model: keras.Model) -> list[int | None]:
    """The lengths of the spatial axes of what a layer returned in one call."""
    output, times = call.output, []
    while isinstance(output, Steps):
        times.append(len(output))
        output = output[0]
    if output.shape.rank is None or output.shape.rank < 2:
        return []
    first = targets.data_format(model, call.layer) == "channels_first"
    return [*times, *(output.shape[2:] if first else output.shape[1:-1])]


def _is_beside(tensor: tf.Tensor, total: tf.Tensor) -> bool:
    """Whether both tensors are eager, or in the same graph."""
    if not (tf.is_symbolic_tensor(tensor) and tf.is_symbolic_tensor(total)):
        return True
    return tensor.graph is total.graph


def _source(tensor: tf.Tensor) -> Any:
    """What stands for a tensor and its copies in another precision."""
    if not tf.is_symbolic_tensor(tensor):
        return id(tensor)
    operation = tensor.op
    while operation.type in ("Identity", "Cast"):
        operation = operation.inputs[0].op
    return operation


def _sources(tensors: Tensors) -> set[Any]:
    return {_source(each) for each in tensors}


def _check_layout(model: keras.Model) -> None:
    """Raise for the one layout whose axes cannot be told apart."""
    if targets.data_format(model) != "channels_first":
        return
    for path, layer in targets.walk(model):
        if isinstance(layer, keras.layers.TimeDistributed):
            raise ValueError(
                "Expected a model with channels last around a TimeDistributed layer. Received: "
                f"'{path}' in a channels_first model. Build the model with channels last."
            )


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


def _output_names(model: keras.Model) -> list[str] | None:
    if isinstance(model, keras.Sequential) or not hasattr(model, "_outputs_struct"):
        return None
    return list(model.output_names)


def _has_float16(model: keras.Model) -> bool:
    layers = [model, *(layer for _, layer in targets.walk(model))]
    return any(getattr(layer, "compute_dtype", None) == "float16" for layer in layers)


def _operation_count() -> int:
    if tf.executing_eagerly():
        return 0
    return len(tf.compat.v1.get_default_graph().get_operations())


def _operations_since(start: int) -> list[tf.Operation]:
    if tf.executing_eagerly():
        return []
    return tf.compat.v1.get_default_graph().get_operations()[start:]


class Compiled:
    """One traced pass of a method, with what was learned in tracing it.

    Args:
        method: An object with `explain(probe, score, inputs) -> tensors`. Its fields and those
            of the score are arguments of the pass; the rest of both is fixed by the trace.
        make_probe: Makes the probe when the trace is made. Must not hold the model.
        score: A score of the type and structure that all later calls have.
        inputs: The flat inputs of the first call.
        open_axes: For each input the axes whose length may change from call to call.
        jit_compile: Compile with XLA.
    """

    def __init__(
        self,
        method: Any,
        make_probe: Callable[[], Probe],
        score: Any,
        inputs: Sequence[np.ndarray],
        open_axes: Sequence[Sequence[int]],
        jit_compile: bool = False,
    ) -> None:
        self._method = method
        self._make_probe = make_probe
        self._score = score
        self.layer: keras.Operation | None = None
        self.output_shapes: list[tf.TensorShape] = []
        specs = [_spec(each, axes) for each, axes in zip(inputs, open_axes, strict=True)]
        specs += [_spec(each, ()) for each in fields(method).values()]
        specs += [_spec(each, (0,)) for each in _score_fields(score)]
        self._call = self._traced(specs, jit_compile)

    def __call__(self, method: Any, score: Any, inputs: Sequence[np.ndarray]) -> Any:
        """Run the pass with the fields of `method` and `score`."""
        return self._call(*map(tf.constant, self._arguments(method, score, inputs)))

    def validate(self, score: Any) -> None:
        """Raise if `score` does not fit the outputs that were seen in tracing."""
        parts = keras.tree.flatten(score)
        if len(parts) == len(self.output_shapes):
            for part, shape in zip(parts, self.output_shapes, strict=True):
                part.validate(shape)

    @staticmethod
    def _arguments(method: Any, score: Any, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [*inputs, *fields(method).values(), *_score_fields(score)]

    def _traced(self, specs: list[tf.TensorSpec], jit_compile: bool) -> Callable[..., Any]:
        function = tf.function(
            self._run, input_signature=specs, autograph=False, jit_compile=jit_compile or None
        )
        try:
            return function.get_concrete_function()
        except _UNTRACEABLE as error:
            if not _runs_eagerly(self._make_probe().model):
                warnings.warn(
                    "The model could not be traced into a graph and is explained eagerly, which "
                    f"is slower ({type(error).__name__}: {str(error).splitlines()[0]}).",
                    stacklevel=2,
                )
            return self._run

    def _run(self, *tensors: tf.Tensor) -> Any:
        remaining = list(tensors)

        def bind(owner: Any) -> Any:
            names = list(fields(owner))
            values = [remaining.pop(0) for _ in names]
            return with_fields(owner, dict(zip(names, values, strict=True)))

        count = len(tensors) - len(self._arguments(self._method, self._score, []))
        inputs = [remaining.pop(0) for _ in range(count)]
        method = bind(self._method)
        score = keras.tree.map_structure(bind, self._score)
        probe = self._make_probe()
        result = method.explain(probe, score, inputs)
        self.layer = probe.layer
        self.output_shapes = probe.output_shapes
        return result


def _score_fields(score: Any) -> list[Any]:
    return [value for part in keras.tree.flatten(score) for value in fields(part).values()]


def _spec(value: np.ndarray, open_axes: Sequence[int]) -> tf.TensorSpec:
    shape = [None if axis in open_axes else size for axis, size in enumerate(value.shape)]
    return tf.TensorSpec(shape, tf.as_dtype(value.dtype))


# What TensorFlow and NumPy raise when Python or NumPy code meets a symbolic tensor.
_UNTRACEABLE = (NotImplementedError, tf.errors.OperatorNotAllowedInGraphError, AttributeError)


def _runs_eagerly(model: keras.Model) -> bool:
    return bool(getattr(model, "run_eagerly", False) or tf.config.functions_run_eagerly())


# Passes live with their model: they hold it weakly, so they go when it goes. The oldest give way
# where a program makes new score functions without end.
_PASSES: weakref.WeakKeyDictionary[keras.Model, OrderedDict[Any, Compiled]] = (
    weakref.WeakKeyDictionary()
)
_MOST_PASSES = 64
_TRACES: weakref.WeakKeyDictionary[keras.Model, int] = weakref.WeakKeyDictionary()


def trace_count(model: keras.Model) -> int:
    """How many passes have been traced for `model` so far."""
    return _TRACES.get(model, 0)


def compiled(model: keras.Model, key: Any, make: Callable[[], Compiled]) -> Compiled:
    """The compiled pass of `model` for `key`, made by `make` the first time.

    Nothing that `make` leaves in the pass may hold the model.
    """
    passes = _PASSES.setdefault(model, OrderedDict())
    if key not in passes:
        passes[key] = make()
        _TRACES[model] = _TRACES.get(model, 0) + 1
        if len(passes) > _MOST_PASSES:
            passes.popitem(last=False)
    passes.move_to_end(key)
    return passes[key]
