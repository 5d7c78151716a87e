"""A method's pass over a model, compiled once and kept with the model.

`Compiled` turns a function of a probe into one `tf.function` whose batch axis is open and whose
class indices are tensors. Passes are kept with the model and die with it, or with what the model
computed when they were traced.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kvis2 import scores
from kvis2.models import Computation, Meaning
from kvis2.passes.probe import Probe
from kvis2.traced import batch_signature, fields, signature, with_fields


class Traits(NamedTuple):
    """What two calls must have in common to share a compiled pass."""

    method: Hashable
    structure: str
    parts: tuple[Hashable, ...]
    inputs: tuple[Hashable, ...]
    packing: str

    @classmethod
    def of(
        cls,
        method: Any,
        score: Any,
        inputs: Sequence[Any],
        open_axes: Sequence[Sequence[int]],
        packing: Any,
    ) -> Traits:
        """The traits of one call: its method, score and inputs, but for the values of fields."""
        several = isinstance(score, list | dict)
        structure = repr(keras.tree.map_structure(lambda part: 0, score)) if several else ""
        parts = tuple(map(batch_signature, scores.flat(score)))
        shapes = tuple(
            (
                tf.as_dtype(each.dtype).name,
                *(None if axis in free else size for axis, size in enumerate(each.shape)),
            )
            for each, free in zip(inputs, open_axes, strict=True)
        )
        return cls(
            signature(method), structure, parts, shapes, f"{type(packing).__name__} {packing!r}"
        )


class Compiled:
    """One traced pass of a method, with what was learned in tracing it.

    Args:
        method: An object with `compute(probe, score, inputs) -> tensors`. Its fields and those
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
        self.meanings: list[Meaning] = []
        specs = [_spec(each, axes) for each, axes in zip(inputs, open_axes, strict=True)]
        specs += [_spec(each, ()) for each in fields(method).values()]
        specs += [_spec(each, (0,)) for each in _score_fields(score)]
        self._call = self._traced(specs, jit_compile)

    def __call__(self, method: Any, score: Any, inputs: Sequence[np.ndarray]) -> Any:
        """Run the pass with the fields of `method` and `score`."""
        return self._call(*map(tf.constant, self._arguments(method, score, inputs)))

    def validate(self, score: Any) -> None:
        """Raise if `score` does not fit the outputs that were seen in tracing."""
        parts = scores.flat(score)
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
        except UNTRACEABLE as error:
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
        result = method.compute(probe, score, inputs)
        self.layer = probe.layer
        self.output_shapes = probe.output_shapes
        self.meanings = probe.meanings
        return result


def _score_fields(score: Any) -> list[Any]:
    return [value for part in scores.flat(score) for value in fields(part).values()]


def _spec(value: Any, open_axes: Sequence[int]) -> tf.TensorSpec:
    shape = [None if axis in open_axes else size for axis, size in enumerate(value.shape)]
    return tf.TensorSpec(shape, tf.as_dtype(value.dtype))


# What TensorFlow and NumPy raise when Python or NumPy code meets a symbolic tensor.
UNTRACEABLE = (NotImplementedError, tf.errors.OperatorNotAllowedInGraphError, AttributeError)


def _runs_eagerly(model: keras.Model) -> bool:
    return bool(getattr(model, "run_eagerly", False) or tf.config.functions_run_eagerly())


class _Passes:
    """The passes of one model, and what it computed when they were traced."""

    def __init__(self, model: keras.Model) -> None:
        self.traces = 0
        self._lock = threading.Lock()
        self._computation = Computation(model)
        self._unsteady: frozenset[tuple[str, str]] = frozenset()
        self._kept: OrderedDict[Any, Compiled] = OrderedDict()

    def get(self, model: keras.Model, key: Any) -> Compiled | None:
        """The kept pass; none of them if the model computes something else by now."""
        with self._lock:
            if not self._computation.holds(model):
                self._kept.clear()
                self._computation = Computation(model, self._unsteady)
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, model: keras.Model, key: Any, make: Callable[[], Compiled]) -> Compiled:
        """Make a pass and keep it; the oldest gives way where score functions have no end.

        No lock is held meanwhile: a layer that waits for another thread must not stop it. Two
        threads that ask for the same pass at once make it twice.
        """
        made = make()
        with self._lock:
            self.traces += 1
            after = Computation(model, self._unsteady)
            # What tracing itself changes is bookkeeping of the model's own.
            self._unsteady |= self._computation.differences(after)
            self._computation = Computation(model, self._unsteady)
            self._kept[key] = made
            if len(self._kept) > _MOST_PASSES:
                self._kept.popitem(last=False)
        return made


_MOST_PASSES = 64
# Passes live with their model: they hold it weakly, so they go when it goes.
_PASSES: weakref.WeakKeyDictionary[keras.Model, _Passes] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


def _passes_of(model: keras.Model) -> _Passes:
    with _LOCK:
        found = _PASSES.get(model)
        if found is None:
            found = _PASSES[model] = _Passes(model)
        return found


def trace_count(model: keras.Model) -> int:
    """How many passes have been traced for `model` so far."""
    return _passes_of(model).traces


def compiled(model: keras.Model, key: Hashable, make: Callable[[], Compiled]) -> Compiled:
    """The compiled pass of `model` for `key`, made by `make` the first time.

    Nothing that `make` leaves in the pass may hold the model.
    """
    passes = _passes_of(model)
    return passes.get(model, key) or passes.put(model, key, make)
