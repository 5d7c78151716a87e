"""The base of all that runs a model: a model, settings, and one compiled pass.

`Explainer` makes maps of it, gradient ascent images, inspection feature maps. What a method
computes is its `compute`; everything about passes, chunks, memory and threads is here.

This file is longer than others: what a method is, and how it is called, stand in one place.
"""

from __future__ import annotations

import copy
import functools
import re
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models, scores
from kvis2.models import Batch, FoldBatchNorm, LinearOutput, Modifier, as_modifiers, modified
from kvis2.passes.compilation import Compiled, Traits, compiled
from kvis2.passes.probe import Probe
from kvis2.passes.progress import running
from kvis2.passes.rows import automatic_rows
from kvis2.passes.runner import other_than_fixed, refused_by_tensorflow
from kvis2.traced import Traced, detached, fields, with_fields
from kvis2.types import LayerReference, Tensors

LINEAR = LinearOutput()
_ROWS_IN_GRAPH = 32  # of a forward pass, where the batch is not known
M = TypeVar("M", bound="Method")


@dataclass(frozen=True)
class Settings:
    """How a method looks at its model. One object, so that a method around another copies it whole.

    Attributes:
        reference: The layer that is watched; None for the inputs, `models.LAST_SPATIAL` for the
            last feature map.
        modifiers: What is changed about the model during the pass.
        call_index: Which call of a layer that the model calls more than once.
        reshape: Makes a grid of the layer's activations.
        pre_activation: Whether the layer is watched before its fused activation.
        jit_compile: Whether the pass is compiled with XLA.
        verbose: Whether a progress bar is shown.
        resize: Whether a layer's map is brought to the size of the input.
        normalize: What maps are divided by; no pass depends on it.
        batch_size: How many rows one forward pass holds at most; no pass depends on it. A model
            that declares how many samples it takes at once (`batch_shape`) gets as many.
    """

    reference: LayerReference | None = None
    modifiers: tuple[Modifier, ...] = ()
    call_index: int = -1
    reshape: Callable[[tf.Tensor], tf.Tensor] | None = None
    pre_activation: bool = False
    jit_compile: bool = False
    verbose: int = 0
    resize: bool = True
    normalize: str | bool | None = field(default="image", compare=False)
    batch_size: int | None = field(default=None, compare=False)


class Report:
    """A number per sample that a call leaves behind, as an attribute of its method.

    Where threads share a method, each reads that of its own last call; a thread without one reads
    that of the last call of all. `compute` returns the reports of its class after its results, in
    the order in which the class defines them.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, method: Method | None, owner: type | None = None) -> Any:
        if method is None:
            return self
        return method._calls.report(self._name)


class _Calls:
    """What is remembered of the calls of one method."""

    def __init__(self) -> None:
        self.traces = 0
        self.layer: keras.Operation | None = None
        self.meanings: list[models.Meaning] = []
        self._last: dict[str, Any] = {}
        self._of_thread = threading.local()

    def __reduce__(self) -> tuple[type[_Calls], tuple[()]]:
        return _Calls, ()  # Sent to another process, or saved, a method has not been called yet.

    def remember(self, reports: dict[str, Any]) -> None:
        self._of_thread.reports = self._last = reports

    def report(self, name: str) -> Any:
        reports = getattr(self._of_thread, "reports", self._last)
        if name not in reports:
            raise AttributeError(f"'{name}' is known once the explainer has been called.")
        return reports[name]


class Method(Traced):
    """A model, settings, and one compiled pass: the base of all that runs a model.

    Args:
        model: Any built Keras model. It is neither copied nor changed, but by a plain modifier
            function: that works on a clone, or with `clone=False` on the model itself.
        layer: The layer that the method looks at: an object, unique name, path or index; None
            is `default_layer`.
        model_modifier: A modifier, a plain function `model -> model or None`, a list, or None.
        clone: Whether plain functions are applied to a clone, whose weights follow the
            model's, or to the model itself.
        fold_batch_norm: Whether batch normalisation is folded into the layer before it.
        **settings: The other fields of `Settings`.
    """

    untraced = frozenset({"model", "_followed", "_calls"})
    default_layer: LayerReference | None = None
    """What is watched if no layer is named: None for the inputs."""
    settings: Settings
    rows: int
    """How many rows one forward pass may hold: `batch_size`, once the input is known."""

    def __init__(
        self,
        model: keras.Model,
        layer: LayerReference | None = None,
        *,
        model_modifier: Any = LINEAR,
        clone: bool = True,
        fold_batch_norm: bool = False,
        **settings: Any,
    ) -> None:
        models.check_built(model)
        known = set(Settings.__dataclass_fields__) - {"reference", "modifiers"}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise TypeError(
                f"Expected options of {type(self).__name__}. Received: "
                f"{', '.join(map(repr, unknown))}. All methods take {', '.join(sorted(known))}."
            )
        modifiers, functions = as_modifiers(model_modifier)
        if fold_batch_norm:
            modifiers.append(FoldBatchNorm())
        self.model, self._followed = modified(model, functions, clone)
        reference = self.default_layer if layer is None else self._found(model, layer)
        self.settings = Settings(reference, tuple(modifiers), **settings)
        _check(self.settings, layer)
        self._calls = _Calls()

    def _found(self, model: keras.Model, layer: LayerReference) -> LayerReference:
        """A user's reference to a layer of `model` as one to a layer of `self.model`."""
        found = models.find_layer(model, layer)
        if self.model is model:
            return found  # type: ignore[return-value]
        path = models.layer_path(model, found)
        models.find_layer(self.model, path)
        return path

    def _look_as(self, other: Method, **changed: Any) -> None:
        """Look at the model of `other` in its way: the constructor of methods around another."""
        self.model, self._followed = other.model, other._followed
        self.settings = replace(other.settings, **changed)
        self._calls = _Calls()

    def with_settings(self: M, **changed: Any) -> M:
        """A copy of this method with other settings, whose calls are remembered here as well."""
        copied = copy.copy(self)
        copied.settings = replace(self.settings, **changed)
        return copied

    def unfolded(self: M) -> M:
        """A copy whose pass does not fold batch normalisation: it predicts what the model does."""
        kept = [each for each in self.settings.modifiers if not isinstance(each, FoldBatchNorm)]
        return self.with_settings(modifiers=tuple(kept))

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> Sequence[Any]:
        """The results of one chunk, as a graph: what a method is.

        Args:
            probe: Runs the model.
            score: The score, its fields tensors.
            inputs: The flat inputs `(batch, ...)`.

        Returns:
            Tensors, `(batch, ...)` each, or None; then the reports, `(batch,)` each.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what to compute.")

    @property
    def layer(self) -> keras.Operation | None:
        """The layer that is watched; None if the inputs are, or before the first call."""
        reference = self.settings.reference
        if self._calls.layer is None and reference not in (None, models.LAST_SPATIAL):
            return models.find_layer(self.model, reference)  # type: ignore[arg-type]
        return self._calls.layer

    @property
    def meanings(self) -> list[models.Meaning]:
        """What the units of the outputs are taken for; after a call that predicts."""
        return self._calls.meanings

    @property
    def trace_count(self) -> int:
        """How many passes this method has traced: one for all classes, batches and weights."""
        return self._calls.traces

    @classmethod
    def reports(cls) -> tuple[str, ...]:
        """The names of the reports, in the order in which `compute` returns them."""
        return _reports_of(cls)  # type: ignore[arg-type]

    def rows_of(self, shapes: Sequence[Sequence[int]]) -> int:
        """How many rows a pass holds: what the model declares, `batch_size`, or what suits.

        Args:
            shapes: Of the flat inputs, `(batch, ...)` each.
        """
        fixed = models.fixed_batch(self.model)
        return fixed or self.settings.batch_size or automatic_rows(shapes)

    def results(self, score: Any, batch: Batch) -> list[np.ndarray | None]:
        """What `compute` yields for a whole batch, chunk by chunk, without the reports.

        A pass that does not fit into memory is tried again with half the rows, unless
        `batch_size` says how many.
        """
        rows = self.rows_of(batch.shapes)
        too_many: MemoryError | None = None
        while True:
            try:
                found = list(self.chunks(score, batch, rows))
            except MemoryError as error:
                if self.settings.batch_size or rows == 1 or batch.fixed:
                    raise
                too_many = too_many or error
                rows //= 2
                continue
            break
        if too_many is not None:
            warnings.warn(
                f"{too_many} {rows} went through: `batch_size={rows}` saves the attempts.",
                stacklevel=4,
            )
        values = [_joined(each) for each in zip(*found, strict=True)]
        count = len(values) - len(self.reports())
        self._calls.remember(dict(zip(self.reports(), values[count:], strict=True)))
        return values[:count]

    def chunks(self, score: Any, batch: Batch, rows: int) -> Iterator[list[np.ndarray | None]]:
        """What `compute` yields, for at most `rows` samples at a time.

        Where the model takes a fixed number, the last chunk is filled up, and what is found for
        the repeated sample left out.
        """
        starts = range(0, batch.size, rows)
        with running(len(starts), self.settings.verbose) as bar:
            for start in starts:
                stop = min(start + rows, batch.size)
                part = score if rows >= batch.size else scores.rows(score, start, stop)
                yield self._chunk(part, batch, start, stop, rows)
                if bar is not None:
                    bar.chunk_done()

    def for_pass(self: M, rows: int) -> M:
        """This method as a compiled pass keeps it: without the model, its seeds drawn."""
        method = detached(self)
        method.rows = rows
        for each in vars(method).values():
            if isinstance(each, Method):
                each.rows = rows
        return method

    def compiled(
        self,
        method: Method,
        score: Any,
        inputs: Sequence[Any],
        open_axes: Sequence[Sequence[int]],
        packing: Any = 0,
    ) -> Compiled:
        """The one place where a pass of a method is made, compiled and kept with its model.

        Args:
            method: What `for_pass` returned.
            score: The score of this call.
            inputs: The tensors or arrays of this call.
            open_axes: For each of them the axes whose length may change from call to call.
            packing: The structure of the inputs of a model that declares none.
        """
        traits = Traits.of(method, score, inputs, open_axes, packing)

        def make() -> Compiled:
            models.refuse_stateful(self.model)
            self._calls.traces += 1
            probe = functools.partial(_probe_of, weakref.ref(self.model), method.settings, packing)
            jit = method.settings.jit_compile
            return Compiled(method, probe, score, inputs, open_axes, jit)

        found = compiled(self.model, traits, make)
        self._calls.layer = found.layer
        found.validate(score)
        return found

    def in_graph(self, score: Any, inputs: Sequence[tf.Tensor]) -> list[Any]:
        """What `compute` yields inside the graph that is being traced.

        Args:
            score: What `scores.as_tensors` returned.
            inputs: The flat inputs.
        """
        models.refuse_stateful(self.model)
        method = self.for_pass(self.settings.batch_size or _ROWS_IN_GRAPH)
        bound = {name: tf.convert_to_tensor(value) for name, value in fields(method).items()}
        probe = _probe_of(weakref.ref(self.model), method.settings, 0)
        found = with_fields(method, bound).compute(probe, score, list(inputs))
        for part, shape in zip(scores.flat(score), probe.output_shapes, strict=False):
            if not any(tf.is_symbolic_tensor(each) for each in fields(part).values()):
                part.validate(shape)
        self._calls.layer = probe.layer
        return list(found)

    def run(self, chosen: Compiled, method: Method, score: Any, inputs: Sequence[Any]) -> Any:
        """What a compiled pass yields; a sentence where XLA or the memory cannot take it."""
        try:
            results = chosen(method, score, inputs)
            self._calls.layer = chosen.layer  # Where it runs eagerly, it is known only now.
            self._calls.meanings = chosen.meanings
            return results
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            said = re.search(r"Expected a (?:score function .*?`\.|class that .*)", str(error))
            if said is not None:
                raise ValueError(said.group(0)) from None
            if not self.settings.jit_compile:
                if models.fixed_batch(self.model) and "ensure_shape" in str(error).lower():
                    raise other_than_fixed(self.model, "one of another number") from error
                raise refused_by_tensorflow(self.model, error) from error
            raise ValueError(
                f"Expected a pass that XLA can compile. Received: {type(self).__name__} on "
                f"'{self.model.name}', which it cannot. Leave `jit_compile` out."
            ) from error
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(
                f"Expected a pass of {len(inputs[0])} rows to fit into memory. Received: "
                f"{str(error).splitlines()[0]} Make `batch_size` smaller (it is {method.rows})."
            ) from error

    def _follow(self) -> None:
        """Give the clone that a plain modifier function works on the weights of the model."""
        for copied, live in self._followed:
            copied.assign(live)

    def _chunk(
        self, score: Any, batch: Batch, start: int, stop: int, rows: int
    ) -> list[np.ndarray | None]:
        method, inputs = self.for_pass(rows), batch.rows(start, stop)
        score = score if batch.fixed is None else scores.filled(score, batch.fixed)
        chosen = self.compiled(method, score, inputs, batch.open_axes, batch.packing)
        results = self.run(chosen, method, score, inputs)
        count = stop - start
        cut = batch.fixed is not None and count < batch.fixed
        found = [None if each is None else each.numpy() for each in results]
        if not all(map(_is_finite, found[: len(found) - len(self.reports())])):
            models.check_finite(self.model)
        return [each if each is None or not cut else each[:count] for each in found]


@functools.cache  # Asked for at every call, and the same for good.
def _reports_of(cls: type[Method]) -> tuple[str, ...]:
    owners = reversed(cls.__mro__)
    return tuple(k for each in owners for k, v in vars(each).items() if isinstance(v, Report))


def _check(settings: Settings, layer: Any) -> None:
    """Raise for settings that mean nothing."""
    size = settings.batch_size
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ValueError(
            f"Expected `batch_size` to be a positive int or None. Received: {size!r}. "
            "It bounds the rows of every forward pass."
        )
    if settings.pre_activation and layer is None:
        raise ValueError(
            "Expected a `layer` to look at before its activation. Received: "
            "`pre_activation=True` without one. Name the layer, such as a convolution."
        )
    if settings.reshape is not None and settings.reference == models.LAST_SPATIAL:
        raise ValueError(
            "Expected `layer=` together with `reshape=`. Received: no layer. Name the layer "
            "whose tokens make the grid, such as the first normalization of the last block."
        )


def _probe_of(
    reference: Callable[[], keras.Model | None], settings: Settings, packing: Any
) -> Probe:
    """The probe of a compiled pass, which holds its model weakly."""
    model = reference()
    assert model is not None
    return Probe(
        model,
        settings.reference,
        settings.modifiers,
        call_index=settings.call_index,
        reshape=settings.reshape,
        pre_activation=settings.pre_activation,
        packing=packing,
    )


def _is_finite(array: np.ndarray | None) -> bool:
    return array is None or array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _joined(chunks: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The results of all chunks, one after the other; None where the method has none."""
    if len(chunks) == 1 or chunks[0] is None:
        return chunks[0]
    return np.concatenate(chunks)  # type: ignore[arg-type]
