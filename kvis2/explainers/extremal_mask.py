"""The smallest region that keeps the score: masks optimised by gradient descent."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2.explainers.occlusion import Perturbation, lengths, over, positions
from kvis2.passes import (
    Probe,
    blur,
    reported,
    resize,
)
from kvis2.types import Tensors


class ExtremalMask(Perturbation):
    r"""The smooth mask of a given area that keeps most of the score: a meaningful perturbation.

    `mask = argmax over m of score(m x + (1 - m) hidden(x)) / |score(x)| - weight * mean((sort(m) -
    r)^2)`, with `r` the sorted mask that shows exactly `area` of the image. The mask is a coarse
    grid, blurred and enlarged, found from 0.5 everywhere by Adam with one step size for all cells;
    nothing is drawn at random. Costs `steps` forward and backward passes.

    Args:
        model: Any built Keras model.
        area: The share of the image that the mask shows, between 0 and 1.
        steps: Number of steps.
        cells: Number of cells of the mask along each axis: fewer are smoother.
        smoothness: Standard deviation of the blur of the mask, in cells: a mask of scattered spots
            can raise a score that no object explains.
        weight: How strictly the area is kept at the end; it grows from 0, so that the score
            decides first which parts come before others.
        learning_rate: Size of the first steps, in units of the mask.
        value: What hidden parts are replaced by: "blur", or a number.
        model_modifier: None by default: the score is a probability.
        **options: As for `kvis2.Explainer`.

    References:
        Fong and Vedaldi (2017), Interpretable Explanations of Black Boxes by Meaningful
        Perturbation. https://arxiv.org/abs/1704.03296
        Fong et al. (2019), Understanding Deep Networks via Extremal Perturbations and Smooth
        Masks. https://arxiv.org/abs/1910.08485

    Example:
        >>> masks = ExtremalMask(model, area=0.1)(243, images)
    """

    def __init__(
        self,
        model: Any,
        *,
        area: float = 0.15,
        steps: int = 100,
        cells: int = 10,
        smoothness: float = 1.0,
        weight: float = 30.0,
        learning_rate: float = 0.05,
        value: float | str = "blur",
        model_modifier: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(model, value=value, model_modifier=model_modifier, **options)
        if not 0 < area < 1:
            raise ValueError(
                f"Expected `area` to be between 0 and 1. Received: {area!r}. "
                "It is the share of the image that the mask shows."
            )
        if not (isinstance(steps, int) and steps > 0 and isinstance(cells, int) and cells > 0):
            raise ValueError(
                "Expected `steps` and `cells` to be positive ints. "
                f"Received: {steps!r} and {cells!r}. Give for example 100 and 10."
            )
        if not smoothness > 0:
            raise ValueError(
                f"Expected `smoothness` to be above 0. Received: {smoothness!r}. "
                "It is measured in cells of the mask; 0.1 leaves it as it is."
            )
        self.area = np.asarray(area, np.float32)
        self.steps = steps
        self.cells = cells
        self.smoothness = np.asarray(smoothness, np.float32)
        self.weight = np.asarray(weight, np.float32)
        self.learning_rate = np.asarray(learning_rate, np.float32)

    def map_of(
        self, index: int, probe: Probe, score: Any, inputs: Tensors, own: tf.Tensor
    ) -> tf.Tensor:
        """The mask after the last step, at the size of the input."""
        image = inputs[index]
        _check_floating(image)
        axes = positions(probe, inputs, index)
        size, fill = lengths(image, axes), self.hidden(image, axes)
        shown = _sorted_target(self.cells ** len(axes), self.area)

        def smooth(grid: tf.Tensor) -> tf.Tensor:
            return blur(grid, self.smoothness, range(1, grid.shape.rank))

        def objective(sources: Tensors, weight: tf.Tensor) -> tuple[tf.Tensor, None]:
            mask = smooth(sources[0])
            share = tf.cast(over(resize(mask, size), image, axes), image.dtype)
            seen = list(inputs)
            seen[index] = tf.ensure_shape(image * share + fill * (1 - share), image.shape)
            kept = probe.scores(score, seen) / tf.maximum(tf.abs(own), 1e-6)
            ordered = tf.sort(tf.reshape(mask, [tf.shape(mask)[0], -1]), axis=-1)
            miss = tf.reduce_mean(tf.square(ordered - shown), axis=-1)
            return tf.reduce_sum(kept - weight * miss), None

        def step(number: tf.Tensor, grid: tf.Tensor, *moments: tf.Tensor) -> tuple[Any, ...]:
            progress = tf.cast(number, tf.float32) / self.steps
            weighted = functools.partial(objective, weight=self.weight * progress)
            _, (gradient,) = probe.gradients(weighted, [grid])
            move, *kept = _adam_move(gradient, number, moments)
            grid = tf.clip_by_value(grid + self.learning_rate * (1.0 - progress) * move, 0.0, 1.0)
            done = number + 1
            if self.settings.verbose:
                with tf.control_dependencies([grid]):
                    done = reported(done, self.steps)
            return done, grid, *kept

        shape = [tf.shape(image)[0], *[self.cells] * len(axes)]
        zeros = tf.ensure_shape(tf.zeros(shape), [None, *[self.cells] * len(axes)])
        start = (tf.constant(0), zeros + 0.5, zeros, tf.zeros([shape[0], *[1] * len(axes)]))
        shapes = (tf.TensorShape([]), *(each.shape for each in start[1:]))
        grid = tf.while_loop(
            lambda number, *_: number < self.steps, step, start, shapes, parallel_iterations=1
        )[1]
        return resize(smooth(grid), size)


def _check_floating(image: tf.Tensor) -> None:
    if not image.dtype.is_floating:
        raise ValueError(
            "Expected an input of floating numbers, to be mixed with what hides it. Received: "
            f"{image.dtype.name}. Use Occlusion or RISE."
        )


def _sorted_target(count: int, area: tf.Tensor) -> tf.Tensor:
    """`count` values in ascending order, zeros and then ones, of which `area` are ones."""
    return tf.cast(tf.range(count) >= count - tf.cast(tf.round(area * count), tf.int32), tf.float32)


def _adam_move(
    gradient: tf.Tensor, number: tf.Tensor, moments: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The direction of a step of Adam, and its two moments, with one magnitude for all cells.

    With one for each cell a corner that hardly matters would move as fast as the object.
    """
    first = 0.9 * moments[0] + 0.1 * gradient
    cells = list(range(1, gradient.shape.rank))
    second = 0.999 * moments[1] + 0.001 * tf.reduce_mean(tf.square(gradient), cells, keepdims=True)
    time = tf.cast(number + 1, tf.float32)
    move = first / (1.0 - 0.9**time) / (tf.sqrt(second / (1.0 - 0.999**time)) + 1e-8)
    return move, first, second
