"""One run of gradient ascent: its state on the device, its chunks of images, its callbacks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models, scores
from kvis2.ascent.callbacks import AscentCallback, AscentState
from kvis2.ascent.loop import AscentLoop
from kvis2.ascent.scale import ScoreScale
from kvis2.models import Batch
from kvis2.types import Tensors

_HARDLY = 1e-5  # change of a score beside the largest magnitude in its layer
_LITTLE = 1e-2  # change of a score that makes one look


class Ascent:
    """One call of an `ActivationMaximization`: its state, on the device, in chunks of images.

    Args:
        caller: What is called, which keeps the compiled loop.
        method: The loop as it looks at the score.
        steps: How many steps are taken.
        score: What is maximised, with one field per image.
        batch: The images to start from, or None for noise.
        count: How many images are made.
    """

    def __init__(
        self,
        caller: AscentLoop,
        method: AscentLoop,
        steps: int,
        score: Any,
        batch: Batch | None,
        count: int,
    ) -> None:
        self._caller = caller
        self._steps = steps
        starts = _starts(caller, batch)
        rows = caller.rows_of([each.shape for each in starts])
        self._method = method.for_pass(rows)
        self._method.shapes = [each.shape[1:] for each in starts]
        self._batch = batch
        self._count = count
        parts = _parts(count, rows, models.fixed_batch(caller.model))
        self._scores = [
            scores.filled(scores.rows(score, part[0], part[-1] + 1), len(part)) for part in parts
        ]
        parameters = self._parameters(starts, count)
        self._states = [self._first_state([p[part] for p in parameters]) for part in parts]
        self._lasts: list[Tensors] = []
        self._lowest = np.full(count, np.inf, np.float32)
        self._highest = -self._lowest

    def run(self, callbacks: Sequence[AscentCallback]) -> Any:
        """Take all steps, stopping where a callback wants to see them."""
        steps = self._steps
        if not isinstance(callbacks, list | tuple):
            raise TypeError(
                f"Expected a list of callbacks. Received: {callbacks!r}. Put it in brackets: "
                "`callbacks=[History()]`."
            )
        stops = sorted({s for c in callbacks for s in range(c.every, steps, c.every)} | {steps})
        unseen: dict[int, list[Mapping[str, np.ndarray]]] = {i: [] for i in range(len(callbacks))}
        with ExitStack() as stack:
            for callback in callbacks:
                callback.on_begin(steps)
                stack.callback(callback.on_end)
            start = 0
            for stop in stops:
                losses = self._advance(start, stop)
                for index, callback in enumerate(callbacks):
                    unseen[index].append(losses)
                    if stop % callback.every == 0 or stop == steps:
                        callback.on_step(self._seen(stop, steps, unseen[index]))
                        unseen[index] = []
                start = stop
        self._warn_of_dead_units()
        count = len(self._method.shapes)
        return self._restored([state[-1 - count : -1] for state in self._states])

    def _warn_of_dead_units(self) -> None:
        """Say so if nothing has moved an image: it is still the noise it started from."""
        count = len(self._method.shapes)
        moved = [
            np.any([np.any(each, axis=tuple(range(1, each.ndim))) for each in gradients], axis=0)
            for gradients in ([each.numpy() for each in last[count:]] for last in self._lasts)
        ]
        moving = np.concatenate(moved)[: self._count]
        still = np.flatnonzero(~moving | self._hardly_changed())
        if still.size:
            warnings.warn(
                f"No gradient reached image {still.tolist()}: the score does not change with it, "
                f"or by less than {_HARDLY:g} of what it differs by from unit to unit. Likely "
                "cause: the unit is dead (its weights are zero or nearly so, or its ReLUs are off "
                "everywhere). Start from other images with `seed_input`.",
                stacklevel=4,
            )

    def _hardly_changed(self) -> np.ndarray:
        """Whether the score of each image stayed the same over the ascent.

        The same beside how it differs between the units that it sees, so that it does not matter
        in which measure it counts; pruned filters have weights of 1e-9 beside others of 1.
        """
        spans = self._highest - self._lowest
        parts = [each for score in self._scores for each in keras.tree.flatten(score)]
        units = all(isinstance(x, scores.CategoricalScore | scores.UnitsScore) for x in parts)
        at_target = any(isinstance(x, scores.FeatureScore) for x in parts)
        # A pass is made only where the score of a unit has changed so little.
        if self._steps == 1 or at_target or (units and (spans > _LITTLE).all()):
            return np.zeros(len(spans), bool)
        scale = ScoreScale(self._method)
        count = len(self._method.shapes)
        found = []
        for score, last in zip(self._scores, self._lasts, strict=True):
            inputs = last[:count]
            packing = 0 if self._batch is None else self._batch.packing
            chosen = self._caller.compiled(scale, score, inputs, [()] * count, packing)
            found.append(self._caller.run(chosen, scale, score, inputs)[0].numpy())
        return spans <= _HARDLY * np.concatenate(found)[: self._count]

    def _advance(self, start: int, stop: int) -> Mapping[str, np.ndarray]:
        """From step `start` to step `stop`, all chunks of images; the losses measured there."""
        histories, self._lasts = [], []
        for index, (score, state) in enumerate(zip(self._scores, self._states, strict=True)):
            inputs = [*state, np.int32(start), np.int32(stop)]
            packing = 0 if self._batch is None else self._batch.packing
            axes: list[tuple[int, ...]] = [()] * len(inputs)
            stretch = self._caller.compiled(self._method, score, inputs, axes, packing)
            *results, history = self._caller.run(stretch, self._method, score, inputs)
            self._states[index] = results[: len(state)]
            self._lasts.append(results[len(state) :])
            histories.append(history.numpy())
        losses = np.concatenate(histories, axis=2)[:, :, : self._count]
        self._check(losses, start)
        measured = losses[:, self._method.terms.index("score")]
        self._lowest = np.minimum(self._lowest, measured.min(axis=0))
        self._highest = np.maximum(self._highest, measured.max(axis=0))
        return dict(zip(self._method.terms, np.moveaxis(losses, 1, 0), strict=True))

    def _check(self, losses: np.ndarray, start: int) -> None:
        if np.isfinite(losses).all():
            return
        models.check_finite(self._caller.model)
        step, term, image = np.argwhere(~np.isfinite(losses))[0]
        raise ValueError(
            f"Expected a finite loss. Received: {losses[step, term, image]} in the term "
            f"'{self._method.terms[term]}' of image {image} at step {start + step}. Take a smaller "
            "learning rate, or check the weights of the model and the input range."
        )

    def _seen(
        self, stop: int, steps: int, losses: Sequence[Mapping[str, np.ndarray]]
    ) -> AscentState:
        count = len(self._method.shapes)
        lasts = self._lasts
        joined = {name: np.concatenate([each[name] for each in losses]) for name in losses[0]}
        gradients = zip(*(last[count:] for last in lasts), strict=True)
        return AscentState(
            stop,
            steps,
            joined,
            lambda: self._restored([last[:count] for last in lasts]),
            [
                np.concatenate([each.numpy() for each in parts])[: self._count]
                for parts in gradients
            ],
        )

    def _restored(self, parameters: Sequence[Tensors]) -> Any:
        chunks = [self._method.images(each) for each in parameters]
        images = [
            np.concatenate([tf.convert_to_tensor(each).numpy() for each in parts])[: self._count]
            for parts in zip(*chunks, strict=True)
        ]
        if self._batch is not None:
            return self._batch.restored(images)
        structure = models.input_structure(self._caller.model)
        return images[0] if structure is None else keras.tree.pack_sequence_as(structure, images)

    def _parameters(self, starts: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
        parameters = []
        for index, start in enumerate(starts):
            chart, bounds = self._method.chart(index), self._method.bounds(index)
            if self._batch is None:
                seed = int(self._method.seed) + index  # type: ignore[arg-type]
                values = chart.start(start.shape[1:], bounds, seed)[None]
            else:
                values = np.asarray(chart.encode(tf.constant(start, tf.float32), bounds))
            if len(values) not in (1, count):
                raise ValueError(
                    f"Expected one seed, or one for each of the {count} images that the score "
                    f"asks for. Received: {len(values)} seeds. Give as many of both."
                )
            parameters.append(np.array(np.broadcast_to(values, (count, *values.shape[1:]))))
        return parameters

    def _first_state(self, parameters: list[np.ndarray]) -> list[Any]:
        slots = self._method.optimizer.slots(parameters)
        lowest = np.full(len(parameters[0]), np.inf, np.float32)
        return [*parameters, *slots, *parameters, lowest]


def _parts(count: int, rows: int, fixed: int | None) -> list[np.ndarray]:
    """Which images each pass makes; the last one again where the model takes a fixed number."""
    if fixed is None:
        return np.array_split(np.arange(count), -(-count // rows))
    starts = range(0, count, fixed)
    return [np.minimum(np.arange(start, start + fixed), count - 1) for start in starts]


def _starts(method: AscentLoop, batch: Batch | None) -> list[np.ndarray]:
    """The seeds, channels last, or placeholders of their shapes."""
    if batch is None:
        shapes = method.shapes
        if shapes is None or any(size is None for shape in shapes for size in shape):
            raise ValueError(
                "Expected the size of the image, which the model leaves open. Received: "
                f"{shapes if shapes else 'no declared input'}. Give `shape=(224, 224, 3)`, or "
                "a seed_input."
            )
        return [np.broadcast_to(np.float32(0), (1, *shape)) for shape in shapes]
    arrays = batch.arrays
    if any(each.size == 0 for each in arrays):
        raise ValueError(
            "Expected a seed_input with pixels. Received: shapes "
            f"{[tuple(each.shape) for each in arrays]}. Leave it out for noise."
        )
    if any(each.dtype.kind != "f" for each in arrays):
        raise ValueError(
            "Expected inputs of floating point numbers, which have a gradient. Received: "
            f"{[each.dtype.name for each in arrays]}. Start at an embedding instead."
        )
    if models.data_format(method.model) == "channels_first":
        return [np.moveaxis(x, 1, -1) if x.ndim > 2 else x for x in arrays]
    return arrays
