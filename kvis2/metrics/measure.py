"""The base of the measures that run a model: `measure(score, images, maps)` -> one number each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2 import models, scores
from kvis2.metrics.baselines import in_order, positions
from kvis2.metrics.ranking import random_maps
from kvis2.metrics.result import Measurement
from kvis2.models import Batch
from kvis2.passes import Method, Probe, scores_of_pairs
from kvis2.types import Tensors


class Copies(Method):
    """A method that scores changed copies of every sample: a subclass with `changed`.

    Args:
        measure: Looks at the model.
        count: How many copies each sample has.
        inputs: How many flat inputs the model has; further arrays by sample follow them.
    """

    def __init__(self, measure: Method, count: int, inputs: int) -> None:
        self._look_as(measure)
        self.count = count
        self.inputs = inputs

    def changed(
        self, inputs: Tensors, further: Tensors, sample: tf.Tensor, copy: tf.Tensor
    ) -> Tensors:
        """The inputs of some copies, one row for each.

        Args:
            inputs: The flat inputs `(batch, ...)`.
            further: The further arrays `(batch, ...)`.
            sample: Which sample each row is a copy of, int32 `(rows,)`.
            copy: Which copy of it, int32 `(rows,)`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it changes.")

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor]:
        """The score of every copy, `(batch, count)`."""
        own, further = inputs[: self.inputs], inputs[self.inputs :]
        score = probe.fixed(score, own)
        size = tf.shape(own[0])[0]
        grid = tf.meshgrid(tf.range(size), tf.range(self.count), indexing="ij")
        pairs = tf.stack([tf.reshape(each, [-1]) for each in grid], axis=1)

        def score_pairs(chunk: tf.Tensor) -> tf.Tensor:
            sample, copy = chunk[:, 0], chunk[:, 1]
            rows = self.changed(own, further, sample, copy)
            rows = [
                tf.ensure_shape(a, [None, *b.shape[1:]]) for a, b in zip(rows, own, strict=True)
            ]
            return probe.scores(scores.take(score, sample), rows)

        shape = tf.stack([size, self.count])
        verbose = self.settings.verbose
        return [scores_of_pairs(pairs, shape, self.rows, score_pairs, verbose)]


class Extended(Batch):
    """A batch with further arrays by sample behind the inputs, which the model does not take.

    Args:
        batch: The inputs.
        further: Arrays `(batch, ...)`.
    """

    def __init__(self, batch: Batch, further: Sequence[np.ndarray]) -> None:
        vars(self).update(vars(batch))
        self._further = list(further)

    @property
    def open_axes(self) -> list[tuple[int, ...]]:
        """Only the number of samples is open: what is done to positions needs their number."""
        samples: tuple[int, ...] = (0,) if self.fixed is None else ()
        return [samples] * (len(self.shapes) + len(self._further))

    def rows(self, start: int, stop: int) -> list[np.ndarray]:
        """The inputs and the further arrays of the samples from `start` to `stop`."""
        further = [self.whole(each[start:stop]) for each in self._further]
        return [*super().rows(start, stop), *further]


class Placed(NamedTuple):
    """The maps of one input: those of the user, and random ones.

    Attributes:
        input_index: Which of the flat inputs.
        axes: The axes of the input that are the positions of the maps.
        maps: float32 `(1 + controls, batch, *spatial)`, or with channels.
    """

    input_index: int
    axes: list[int]
    maps: NDArray[np.float32]


class Found(NamedTuple):
    """What was measured of one set of maps, `(batch,)`, and what it was made of."""

    values: NDArray[Any]
    curve: NDArray[Any] | None = None
    fractions: NDArray[Any] | None = None
    details: dict[str, Any] | None = None


class Measure(Method):
    """Base of the measures of maps that run a model. See a subclass.

    Args:
        model: Any built Keras model. It is neither copied nor changed.
        model_modifier: None measures what the model returns, such as a probability;
            `LinearOutput()` the score before the softmax or sigmoid.
        batch_size: How many rows one forward pass holds at most. None chooses by their size.
        random_control: How many random maps of each image are measured beside the given one:
            their mean is `result.random_control`.
        seed: Seed of the random maps, and of what else is drawn.
        fold_batch_norm: Whether batch normalisation is folded into the layer before it during
            the pass, which is faster and moves scores by about 1e-6.
        jit_compile: Compile the pass with XLA.
        verbose: 1 shows a progress bar, 0 is silent.
    """

    better = "higher"
    """Whether a high or a low number speaks for a map."""
    takes_channels = False
    """Whether maps may have a value for every channel of a position."""

    def __init__(
        self,
        model: keras.Model,
        *,
        model_modifier: Any = None,
        batch_size: int | None = None,
        random_control: int = 0,
        seed: int = 0,
        fold_batch_norm: bool = True,
        jit_compile: bool = False,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            model,
            model_modifier=model_modifier,
            fold_batch_norm=fold_batch_norm,
            batch_size=batch_size,
            jit_compile=jit_compile,
            verbose=verbose,
        )
        if not isinstance(random_control, int | bool) or random_control < 0:
            raise ValueError(
                "Expected `random_control` to be a number of random maps, from 0. Received: "
                f"{random_control!r}. Give for example 3."
            )
        self.model_modifier = model_modifier
        self.random_control = int(random_control)
        self.seed = seed

    def measured(self, score: Any, batch: Batch, maps: Sequence[Placed]) -> list[Found]:
        """What is found for the user's maps, then for each of the random ones.

        Args:
            score: One score per sample, as `as_scores` returns it.
            batch: The inputs.
            maps: For every input that has a map.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to measure.")

    def __call__(self, score: Any, images: Any, maps: Any) -> Measurement:
        """Measure the map of every image.

        Args:
            score: What the maps explain, as explainers take it: a class index, one per sample,
                None (each sample's predicted class), a `Score`, a function, or a list or dict of
                these for several outputs.
            images: What the model takes.
            maps: Maps at the size of the images, `(batch, *spatial)`, in the structure of
                `images`; None for an input that stays as it is.

        Returns:
            float32 `(batch,)`, a `Measurement`.

        Raises:
            ValueError: If score, images and maps do not fit the model and each other.
        """
        self._follow()
        batch = Batch(self.model, images)
        parts = scores.as_scores(score, batch.size, models.output_count(self.model))
        found = self.measured(parts, batch, self._placed(batch, maps))
        return self._result(score, found)

    def _result(self, score: Any, found: list[Found]) -> Measurement:
        hidden = {"random_control", "model", "settings"}
        shown = {k: v for k, v in vars(self).items() if not k.startswith("_") and k not in hidden}
        shown["batch_size"] = self.settings.batch_size
        plain = score is None or isinstance(score, int)
        shown["score"] = score if plain else type(score).__name__
        name = type(self).__name__

        def made(each: Found, control: Measurement | None = None) -> Measurement:
            return Measurement(
                each.values,
                name,
                settings=shown,
                better=self.better,
                curve=each.curve,
                fractions=each.fractions,
                random_control=control,
                details=each.details,
            )

        if len(found) == 1:
            return made(found[0])
        others = found[1:]
        curves = [each.curve for each in others if each.curve is not None]
        mean = Found(
            np.mean([each.values for each in others], axis=0),
            np.mean(curves, axis=0) if curves else None,
            found[0].fractions,
        )
        return made(found[0], made(mean))

    def _placed(self, batch: Batch, maps: Any) -> list[Placed]:
        given = in_order(batch, maps, "maps")
        placed = []
        for index, (each, array) in enumerate(zip(given, batch.arrays, strict=True)):
            if each is None:
                continue
            axes = positions(self.model, array)
            checked = self._checked(each, array, axes)
            noise = random_maps(checked.shape, self.random_control, self.seed + index)
            placed.append(Placed(index, axes, np.concatenate([checked[None], noise])))
        if not placed:
            raise ValueError(
                "Expected a map for at least one input. Received: None for all of them. Give "
                "what an explainer returned."
            )
        return placed

    def _checked(self, maps: Any, array: np.ndarray, axes: list[int]) -> NDArray[np.float32]:
        values = np.asarray(maps, np.float32)
        size = tuple(array.shape[axis] for axis in axes)
        if values.shape == size and len(array) == 1:
            values = values[None]
        allowed = [(len(array), *size), *([array.shape] if self.takes_channels else [])]
        if values.shape not in allowed:
            raise ValueError(
                f"Expected maps of shape {' or '.join(map(str, allowed))} for images of shape "
                f"{array.shape}. Received: {values.shape}. Explain with `resize=True` and without "
                "`keepdims`, one map for each image."
            )
        if not np.isfinite(values).all():
            raise ValueError(
                "Expected finite maps. Received: NaN or infinity. Look for the pass that made them."
            )
        return values

    def scored(
        self, copies: Copies, score: Any, batch: Batch, further: Sequence[np.ndarray] = ()
    ) -> NDArray[np.float32]:
        """The scores of all copies, `(batch, count)`, in chunks of samples."""
        (found,) = copies.results(score, Extended(batch, further))
        assert found is not None
        return found


def over_inputs(mask: tf.Tensor, inputs: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """Masks `(n, *spatial)` with axes of length one where the inputs have channels.

    Masks that have the channels already stay as they are.
    """
    if mask.shape.rank == inputs.shape.rank:
        return mask
    for axis in range(1, inputs.shape.rank):
        if axis not in axes:
            mask = tf.expand_dims(mask, axis)
    return mask


def only(maps: Sequence[Placed]) -> Placed:
    """The one input that has a map, for the measures that change one input."""
    if len(maps) != 1:
        raise ValueError(
            f"Expected the map of one input. Received: maps of {len(maps)} inputs. Give None "
            "for the others, which then stay as they are."
        )
    return maps[0]
