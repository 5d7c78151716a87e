"""Straight lines from baselines to the input, or between a layer's outputs for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from kvis2.explainers.saliency import gradients_of
from kvis2.models import Batch
from kvis2.passes import Probe, as_rows, blurred, repeated
from kvis2.traced import Traced
from kvis2.types import Tensors


class Baselines(Traced):
    """What attributions start from: for every image one or several inputs without evidence.

    Args:
        model: The model that the baselines are inputs of.
        given: None for zeros; a number; a list of numbers for several; "blur" for a blurred copy
            of the image itself; or arrays in the structure of the model's input, whose first axis
            counts the baselines.

    Raises:
        ValueError: If it is none of these.
    """

    def __init__(self, model: Any, given: Any) -> None:
        self.blurs = isinstance(given, str) and given == "blur"
        if isinstance(given, str) and not self.blurs:
            raise ValueError(
                "Expected a baseline: None, a number, several numbers, an array of inputs, or "
                f"'blur'. Received: {given!r}. Give for example None for zeros."
            )
        numbers = np.ndim(given) == 0 or _all_numbers(given)
        levels = 0.0 if given is None or self.blurs else given
        self.levels = np.atleast_1d(np.asarray(levels, np.float32)) if numbers else None
        self.arrays = None if numbers else Batch(model, given).arrays
        self.count = len(self.levels if self.levels is not None else self.arrays[0])  # type: ignore[index,arg-type]

    def of(self, index: int, flat: Tensors, probe: Probe) -> tf.Tensor:
        """All baselines of one flat input, float32 `(count or 1, batch or 1, ...)`."""
        inputs = flat[index]
        if self.blurs and inputs.dtype.is_integer and inputs.dtype != tf.uint8:
            raise ValueError(
                f"Expected an image to blur. Received: {inputs.dtype.name} tokens. Give the "
                "baseline as a token that says nothing, such as 0 for padding."
            )
        if self.blurs:
            return blurred(inputs, probe.input_space(flat, index))[None]
        if self.arrays is not None:
            return tf.cast(self.arrays[index], tf.float32)[:, None]
        assert self.levels is not None
        return tf.reshape(self.levels, [-1, *[1] * inputs.shape.rank])


def _all_numbers(given: Any) -> bool:
    return isinstance(given, list | tuple) and all(np.ndim(each) == 0 for each in given)


class Paths:
    """Straight lines from the baselines to the inputs, and what the model says on them.

    Args:
        baselines: Where the lines start.
        probe: Runs the model.
        score: The definite score of the inputs.
        inputs: The flat inputs: where the lines end.
    """

    def __init__(self, baselines: Baselines, probe: Probe, score: Any, inputs: Tensors) -> None:
        self.probe = probe
        self.inputs = inputs
        self.starts: list[tf.Tensor | None] = [
            baselines.of(i, inputs, probe) if self._has_line(each) else None
            for i, each in enumerate(inputs)
        ]

    def _has_line(self, inputs: tf.Tensor) -> bool:
        """Whether there is a line to an input; integers lie on none."""
        return inputs.dtype.is_floating

    def at(
        self, baseline_indices: tf.Tensor, places: tf.Tensor
    ) -> tuple[Tensors, list[tf.Tensor | None]]:
        """Copies of the inputs at `places` between baseline (0) and input (1), and `x - baseline`.

        Args:
            baseline_indices: Which baseline each copy starts from, `(copies,)`.
            places: Where on its path each copy is, `(copies,)`.

        Returns:
            Rows `(copies * batch, ...)` of the inputs and of the differences; integers, which
            have no path, stay as they are.
        """
        points: Tensors = []
        differences: list[tf.Tensor | None] = []
        for each, start in zip(self.inputs, self.starts, strict=True):
            if start is None:
                points.append(repeated(each, tf.shape(places)[0]))
                differences.append(None)
                continue
            chosen = _broadcast(tf.gather(start, baseline_indices), each)
            difference = tf.cast(each, tf.float32)[None] - chosen
            place = tf.reshape(places, [-1, *[1] * each.shape.rank])
            points.append(tf.cast(as_rows(chosen + place * difference), each.dtype))
            differences.append(as_rows(difference))
        return points, differences

    def gradients(self, score: Any, points: Tensors) -> list[tf.Tensor | None]:
        """The gradient of the score of every row by its point."""
        return gradients_of(self.probe, score, points)

    def scores(self, score: Any, points: Tensors) -> tf.Tensor:
        """The score of every row."""
        return self.probe.scores(score, points)

    def placed(self, attributions: list[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """The attributions as `Attribution.reduced` takes them."""
        return attributions


class LayerPaths(Paths):
    """Straight lines between the outputs of the watched layer for the baselines and the inputs."""

    def __init__(self, baselines: Baselines, probe: Probe, score: Any, inputs: Tensors) -> None:
        super().__init__(baselines, probe, score, inputs)
        probe(score, inputs)  # Finds which call of the layer is meant, and that it matters.
        self.end = probe.output(inputs)

    def _has_line(self, inputs: tf.Tensor) -> bool:
        """Integers too: the line lies between the layer's outputs."""
        return True

    def at(
        self, baseline_indices: tf.Tensor, places: tf.Tensor
    ) -> tuple[Tensors, list[tf.Tensor | None]]:
        """Copies of the layer's output at `places` on their lines, and the whole lines."""
        starts = [
            tf.cast(as_rows(_broadcast(tf.gather(start, baseline_indices), each)), each.dtype)
            for each, start in zip(self.inputs, self.starts, strict=True)
        ]
        copies = tf.shape(places)[0]
        start = tf.cast(self.probe.output(starts), tf.float32)
        difference = repeated(tf.cast(self.end, tf.float32), copies) - start
        place = tf.repeat(places, tf.shape(start)[0] // copies)
        place = tf.reshape(place, [-1, *[1] * (start.shape.rank - 1)])
        return [start + place * difference], [difference]

    def gradients(self, score: Any, points: Tensors) -> list[tf.Tensor | None]:
        """The gradient of the score of every row by the output of the layer."""

        def summed(points: Tensors) -> tuple[tf.Tensor, None]:
            return tf.reduce_sum(self.scores(score, points)), None

        return self.probe.gradients(summed, points)[1]

    def scores(self, score: Any, points: Tensors) -> tf.Tensor:
        """The score of every row when the layer's output is replaced."""
        copies = tf.shape(points[0])[0] // tf.shape(self.inputs[0])[0]
        rows = [repeated(each, copies) for each in self.inputs]
        return self.probe.scores_with(score, rows, lambda own: tf.cast(points[0], own.dtype))

    def placed(self, attributions: list[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """The attributions on the grid of the layer, channels last."""
        return [None if each is None else self.probe.grid(each) for each in attributions]


def _broadcast(starts: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
    """Baselines `(copies, batch or 1, ...)`, or numbers, in the shape of copies of the inputs."""
    whole = starts + tf.zeros_like(inputs, tf.float32)[None]
    return tf.ensure_shape(whole, [None, *inputs.shape])
