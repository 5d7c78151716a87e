"""The base of all explainers: `explainer(score, seed_input)` -> maps in the user's structure."""

from __future__ import annotations

import copy
import functools
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models, passes, scores
from kvis2.images import normalize as normalized
from kvis2.models import Batch, FoldBatchNorm, LinearOutput, as_modifiers, modified, open_axes
from kvis2.passes import Compiled, Probe, automatic_rows, compiled
from kvis2.traced import batch_signature, signature
from kvis2.types import LayerReference, Tensors

LINEAR = LinearOutput()
_NOT_TRACED = ("model", "_followed", "_used_layer", "_traces", "normalize", "batch_size")
_NORMALIZATIONS = ("image", "batch", "minmax", False, None)


class Explainer:
    """Base of all explainers. A method is a subclass with `explain`.

    Args:
        model: Any built Keras model. It is neither copied nor changed.
        layer: The layer that the method looks at: an object, unique name, path
            (`"backbone/block5_conv3"`) or index.
        model_modifier: `LinearOutput()`, `GuidedReLU()`, a list of modifiers, None, or a plain
            function `model -> model or None`. It replaces the method's default.
        clone: Whether plain functions are applied to a clone, whose weights follow the
            model's, or to the model itself.
        call_index: Which call of a layer that the model calls more than once (siamese nets): 0
            is the first, -1 the last, which is the default. A layer inside a TimeDistributed is
            called once: its maps are `(batch, time, *spatial)`.
        reshape: Makes a grid of the layer's activations: `(batch, tokens, channels) ->
            (batch, height, width, channels)`, for instance `kvis2.token_grid()`. Needs `layer`.
        resize: Whether a layer's map is brought to the size of the input.
        normalize: "image" divides every map by its largest magnitude, "batch" all maps by
            that of the batch, "minmax" stretches every map to 0..1, False leaves them raw.
        batch_size: How many rows one forward pass holds at most. None chooses by their size, and
            takes fewer where memory is short.
        fold_batch_norm: Whether batch normalisation is folded into the layer before it during the
            pass, which is faster and moves maps by less than 1e-4. On by default for methods
            that watch a layer; input gradients can jump at single pixels, so they opt in.
        jit_compile: Compile the pass with XLA (slower on a CPU; try it on a GPU).
        pre_activation: Look at the layer before the activation that is fused into it, such as
            a convolution before its ReLU.
        verbose: 1 shows a progress bar, 0 is silent.
    """

    traced_by_value = True
    """Explainers that hold equal attributes share a pass, also inside another explainer."""
    reports: tuple[str, ...] = ()
    """Attributes that a call sets: `explain` returns them after the maps, `(batch,)` each."""
    folds_batch_norm = False
    """Whether `fold_batch_norm=None` means True: where maps stay within 1e-4 of the exact ones."""
    takes_layer = True
    """Whether `layer=` means anything to the method."""
    rows: int
    """How many rows one forward pass may hold: `batch_size`, once the input is known."""
    seed: int | np.ndarray | None
    """The seed of a method that has one; a field, and so a tensor, inside its pass."""
    watches_layer = False
    """Whether `layer=None` means the last spatial feature map (True) or the inputs (False)."""

    def __init__(
        self,
        model: keras.Model,
        layer: LayerReference | None = None,
        *,
        model_modifier: Any = LINEAR,
        clone: bool = True,
        call_index: int = -1,
        reshape: Callable[[tf.Tensor], tf.Tensor] | None = None,
        resize: bool = True,
        normalize: str | bool | None = "image",
        batch_size: int | None = None,
        fold_batch_norm: bool | None = None,
        jit_compile: bool = False,
        pre_activation: bool = False,
        verbose: int = 0,
    ) -> None:
        models.check_built(model)
        if layer is not None and not self.takes_layer:
            raise ValueError(
                f"Expected no `layer` for {type(self).__name__}, which explains the input. "
                f"Received: {layer!r}. Leave it out, or take a method that looks at a layer, "
                "such as GradCAM or Saliency."
            )
        if normalize is True or normalize not in _NORMALIZATIONS:
            raise ValueError(
                f"Expected `normalize` to be one of {_NORMALIZATIONS}. Received: {normalize!r}. "
                "Use False for the raw map."
            )
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
            raise ValueError(
                f"Expected `batch_size` to be a positive int or None. Received: {batch_size!r}. "
                "It bounds the rows of every forward pass."
            )
        if pre_activation and layer is None:
            raise ValueError(
                "Expected a `layer` to look at before its activation. Received: "
                "`pre_activation=True` without one. Name the layer, such as a convolution."
            )
        self.modifiers, functions = as_modifiers(model_modifier)
        self.model, self._followed = modified(model, functions, clone)
        if layer is None and self.watches_layer:
            self._reference: LayerReference | None = models.LAST_SPATIAL
        elif layer is None:
            self._reference = None
        else:
            found = models.find_layer(model, layer)
            same = self.model is model
            self._reference = found if same else models.layer_path(model, found)
            models.find_layer(self.model, self._reference)
        if self.folds_batch_norm if fold_batch_norm is None else fold_batch_norm:
            self.modifiers.append(FoldBatchNorm())
        if reshape is not None and self._reference == models.LAST_SPATIAL:
            raise ValueError(
                "Expected `layer=` together with `reshape=`. Received: no layer. Name the layer "
                "whose tokens make the grid, such as the first normalization of the last block."
            )
        self.call_index = call_index
        self.reshape = reshape
        self.resize = resize
        self.normalize = normalize
        self.batch_size = batch_size
        self.jit_compile = jit_compile
        self.pre_activation = pre_activation
        self.verbose = verbose
        self._used_layer: keras.Operation | None = None
        self._traces = 0

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """Raw maps of one chunk, as a graph: what a method is.

        Args:
            probe: Runs the model.
            score: The score, its fields tensors.
            inputs: The flat inputs `(batch, ...)`.

        Returns:
            For each flat input a map `(batch, *spatial)`, or None where the method has none.
            The numbers per sample that `reports` names may follow.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to explain.")

    def attributions(self, probe: Probe, score: Any, inputs: Tensors) -> Sequence[tf.Tensor | None]:
        """What SmoothGrad averages: the raw maps, or what they are `reduced` from."""
        return self.explain(probe, score, inputs)[: len(inputs)]

    def reduced(
        self, attributions: Sequence[tf.Tensor | None], probe: Probe, inputs: Tensors
    ) -> list[tf.Tensor | None]:
        """The maps that `explain` makes of `attributions`."""
        return list(attributions)

    @property
    def layer(self) -> keras.Operation | None:
        """The layer whose map is made; None if the inputs are, or before the first call."""
        if self._used_layer is None and self._reference not in (None, models.LAST_SPATIAL):
            return models.find_layer(self.model, self._reference)  # type: ignore[arg-type]
        return self._used_layer

    @property
    def trace_count(self) -> int:
        """How many passes this explainer has traced: one for all classes, batches and weights."""
        return self._traces

    def __call__(self, score: Any, seed_input: Any) -> Any:
        """Explain `score` for every sample of `seed_input`.

        Args:
            score: A class index, one per sample, None (each sample's predicted class), a
                `kvis2.scores.Score`, any function `output -> (batch,)`, or a list or dict of
                these for several outputs.
            seed_input: What the model takes: an array `(batch, ...)` (a missing batch axis is
                added), or a list or dict of arrays for several inputs.

        Returns:
            float32 maps `(batch, *spatial)` in the structure of `seed_input`: an array for an
            array, a list for a list, a dict for a dict; None for an input without a map.

        Raises:
            ValueError: If the score, the input or the layer do not fit the model.
        """
        for copied, live in self._followed:
            copied.assign(live)
        batch = Batch(self.model, seed_input)
        score = scores.as_scores(score, batch.size, models.output_count(self.model))
        maps = self._maps(score, batch)
        self._check(maps, score, batch)
        return batch.restored([None if m is None else self._finished(m) for m in maps])

    def _maps(self, score: Any, batch: Batch) -> list[np.ndarray | None]:
        rows = self.batch_size or automatic_rows(batch.arrays)
        too_many: MemoryError | None = None
        while True:
            try:
                maps = self._maps_by(rows, score, batch)
            except MemoryError as error:
                if self.batch_size or rows == 1:
                    raise
                too_many = too_many or error
                rows //= 2
                continue
            if too_many is not None:
                warnings.warn(
                    f"{too_many} {rows} went through: `batch_size={rows}` saves the attempts.",
                    stacklevel=3,
                )
            return maps

    def _maps_by(self, rows: int, score: Any, batch: Batch) -> list[np.ndarray | None]:
        starts = range(0, batch.size, rows)
        chunks = []
        with passes.running(len(starts), self.verbose) as bar:
            for start in starts:
                stop = min(start + rows, batch.size)
                part = score if rows >= batch.size else scores.rows(score, start, stop)
                chunks.append(self._run(part, batch, start, stop, rows))
                if bar is not None:
                    bar.chunk_done()
        joined = zip(*chunks, strict=True)
        values = [_joined(each) for each in joined]
        count = len(values) - len(self.reports)
        vars(self).update(zip(self.reports, values[count:], strict=True))
        return values[:count]

    def _run(
        self, score: Any, batch: Batch, start: int, stop: int, rows: int
    ) -> list[np.ndarray | None]:
        method = self._detached(rows)
        inputs = batch.rows(start, stop)
        chosen = self._compiled(method, score, batch, inputs)
        chosen.validate(score)
        self._used_layer = chosen.layer
        try:
            results = chosen(method, score, inputs)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not self.jit_compile:
                raise
            raise ValueError(
                f"Expected a pass that XLA can compile. Received: {type(self).__name__} on "
                f"'{self.model.name}', which it cannot. Leave `jit_compile` out."
            ) from error
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(
                f"Expected a pass of {stop - start} samples to fit into memory. Received: "
                f"{str(error).splitlines()[0]} Make `batch_size` smaller (it is {rows})."
            ) from error
        return [None if each is None else each.numpy() for each in results]

    def _compiled(
        self, method: Explainer, score: Any, batch: Batch, inputs: Sequence[np.ndarray]
    ) -> Compiled:
        axes = open_axes(self.model, batch)
        shapes = tuple(
            (each.dtype, *(None if i in free else n for i, n in enumerate(each.shape)))
            for each, free in zip(inputs, axes, strict=True)
        )
        parts = scores.flat(score)
        several = isinstance(score, list | dict)
        form = repr(keras.tree.map_structure(lambda part: 0, score)) if several else None
        key = (signature(method), form, tuple(map(batch_signature, parts)), shapes)

        def make() -> Compiled:
            self._traces += 1
            reference = weakref.ref(self.model)
            make_probe = functools.partial(probe_of, reference, method, batch.packing)
            return Compiled(method, make_probe, score, inputs, axes, self.jit_compile)

        return compiled(self.model, key, make)

    def _detached(self, rows: int) -> Explainer:
        """This method without the model, for a compiled pass that must not keep it alive."""
        method = copy.copy(self)
        for name in _NOT_TRACED + self.reports:
            vars(method).pop(name, None)
        method.rows = rows
        if "seed" in vars(method):
            method.seed = seed_field(method.seed)
        return method

    def _finished(self, maps: np.ndarray) -> np.ndarray:
        return normalized(maps, self.normalize)  # type: ignore[arg-type]

    def _check(self, maps: Sequence[np.ndarray | None], score: Any, batch: Batch) -> None:
        """Raise if a map is not finite; warn, with the likely cause, if one is zero everywhere."""
        for each in maps:
            if each is None:
                continue
            peaks = np.abs(each).reshape(len(each), -1).max(axis=1)
            finite = np.isfinite(peaks)
            if finite.all() and peaks.all():
                continue
            if not finite.all():
                wrong = np.flatnonzero(~finite).tolist()
                raise ValueError(
                    "Expected a model whose outputs and gradients are finite. Received: NaN or "
                    f"infinity in the map of sample {wrong}. Check the weights of "
                    f"'{self.model.name}' (a diverged training?) and the range of the input."
                )
            blank = np.flatnonzero(peaks == 0).tolist()
            sample = blank[0]
            cause = self._blank_cause(scores.rows(score, sample, sample + 1), batch, sample)
            warnings.warn(
                f"{type(self).__name__} found no evidence: the map of sample {blank} is zero "
                f"everywhere. Likely cause: {cause}.",
                stacklevel=4,
            )
            return

    def _blank_cause(self, score: Any, batch: Batch, sample: int) -> str:
        """Why the map of one sample may be zero."""
        return (
            "the gradient of the score is zero, because every ReLU on the way is off, or because "
            "a softmax is saturated (LinearOutput() explains the score before it)"
        )


def seed_field(seed: Any) -> np.ndarray:
    """The seed as a field; fresh entropy, from no global generator, for None."""
    if seed is None:
        return np.random.default_rng().integers(2**31 - 1, size=(), dtype=np.int32)
    if not 0 <= seed < 2**31:
        raise ValueError(
            f"Expected `seed` from 0 to {2**31 - 1}, or None. Received: {seed!r}. "
            "The same seed gives the same noise."
        )
    return np.asarray(seed, np.int32)


def probe_of(reference: Callable[[], keras.Model | None], method: Explainer, packing: Any) -> Probe:
    """The probe of a compiled pass, which holds its model weakly."""
    model = reference()
    assert model is not None
    return Probe(
        model,
        method._reference,
        method.modifiers,
        call_index=method.call_index,
        reshape=method.reshape,
        pre_activation=method.pre_activation,
        packing=packing,
    )


def _joined(chunks: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The results of all chunks, one after the other; None where the method has none."""
    if len(chunks) == 1 or chunks[0] is None:
        return chunks[0]
    return np.concatenate(chunks)  # type: ignore[arg-type]
