"""Guided integrated gradients: a path that changes first what the score hardly depends on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from kvis2.explainers.baselines import Baselines
from kvis2.explainers.explainer import without_layer
from kvis2.explainers.integrated_gradients import checked_steps, relative_gap
from kvis2.explainers.saliency import Attribution, gradients_of
from kvis2.passes import Probe, Report
from kvis2.types import Tensors


class GuidedIG(Attribution):
    r"""Guided integrated gradients: the values with the smallest gradients move first.

    `a = sum over steps of (x_(j+1) - x_j) * g(x_j)`, `map = sum over channels of a`. Every step
    makes the distance to the input `|x - x_j|_1` shorter by `1 / steps` of the whole: of the values
    that are not yet there, the `fraction` with the smallest gradients move, then the next, until it
    is short enough. No value strays further than `max_distance` of its way from the straight line.
    On a straight line gradients of saturated regions add noise; this path goes around them.

    Args:
        model: Any built Keras model.
        baseline: Where the path starts: None for zeros, a number, "blur", or one array in the
            structure of the model's input.
        steps: How many steps the path has; the authors' code takes 200.
        fraction: The share of values that moves at once, above 0 up to 1.
        max_distance: 0 is the straight line, 1 lets every value go at its own time.
        reduce: How the channels become one map; "signed" (sum) keeps the total.
        keepdims: Keep the channels.
        **options: As for `kvis2.Explainer`.

    Attributes:
        completeness_gap: After a call, `|sum a - (score(x) - score(b))| / |score(x) - score(b)|` of
            every sample.

    References:
        Kapishnikov et al. (2021), Guided Integrated Gradients: An Adaptive Path Method for Removing
        Noise. https://arxiv.org/abs/2106.09788

    Example:
        >>> maps = GuidedIG(model, baseline=0.0)(243, images)
    """

    completeness_gap = Report()

    def __init__(
        self,
        model: Any,
        *,
        baseline: Any = None,
        steps: int = 200,
        fraction: float = 0.25,
        max_distance: float = 0.02,
        reduce: str = "signed",
        keepdims: bool = False,
        **options: Any,
    ) -> None:
        options = without_layer(type(self).__name__, options)
        super().__init__(model, reduce=reduce, keepdims=keepdims, **options)
        if not 0 < fraction <= 1 or not 0 <= max_distance <= 1:
            raise ValueError(
                "Expected `fraction` above 0, up to 1, and `max_distance` from 0 to 1. Received: "
                f"{fraction!r} and {max_distance!r}. The authors take 0.25 and 0.02."
            )
        self.baselines = Baselines(self.model, baseline)
        if self.baselines.count != 1:
            raise ValueError(
                f"Expected one baseline for GuidedIG. Received: {self.baselines.count}. "
                "Explain once for each, and take the mean."
            )
        self.steps = checked_steps(steps, 1)
        self.fraction = float(fraction)
        self.max_distance = float(max_distance)

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The maps, and the completeness gap."""
        score = probe.fixed(score, inputs)
        attributions = self.attributions(probe, score, inputs)
        start = self._packed(inputs, self._flat(inputs, self._starts(probe, inputs)))
        change = probe.scores(score, inputs) - probe.scores(score, start)
        gap = relative_gap(attributions, change)
        return [*self.reduced(attributions, probe, inputs), gap]

    def attributions(self, probe: Probe, score: Any, inputs: Tensors) -> Sequence[tf.Tensor | None]:
        """What every value contributes on its path."""
        score = probe.fixed(score, inputs)
        gradients_of(probe, score, inputs)  # Says so where there is none.
        end = self._flat(inputs, [tf.cast(each, tf.float64) for each in inputs])
        start = self._flat(inputs, self._starts(probe, inputs))
        ways = _Ways(start, end, self.fraction, self.max_distance, self.steps)

        def step(number: tf.Tensor, place: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, ...]:
            slopes = gradients_of(probe, score, self._packed(inputs, place))
            flat = [
                tf.zeros_like(x, tf.float32) if g is None else g
                for x, g in zip(inputs, slopes, strict=True)
            ]
            gradient = self._flat(inputs, [tf.cast(each, tf.float64) for each in flat])
            place, found = ways.step(tf.cast(number, tf.float64), place, found, gradient)
            return number + 1, place, found

        state = (tf.constant(0), start, tf.zeros_like(start))
        found = tf.while_loop(
            lambda number, *_: number < self.steps, step, state, parallel_iterations=1
        )[2]
        moved = self._packed(inputs, found, tf.float32)
        return [a if x.dtype.is_floating else None for a, x in zip(moved, inputs, strict=True)]

    def _starts(self, probe: Probe, inputs: Tensors) -> Tensors:
        """The baseline of every input, float64, in its shape."""
        return [
            tf.cast(self.baselines.of(i, inputs, probe)[0], tf.float64)
            + tf.zeros_like(each, tf.float64)
            if each.dtype.is_floating
            else tf.cast(each, tf.float64)
            for i, each in enumerate(inputs)
        ]

    @staticmethod
    def _flat(inputs: Tensors, values: Tensors) -> tf.Tensor:
        """All values of a sample that can move in one row, `(batch, values)`."""
        pairs = zip(inputs, values, strict=True)
        moving = [v for x, v in pairs if x.dtype.is_floating]
        return tf.concat([tf.reshape(v, [tf.shape(v)[0], -1]) for v in moving], axis=1)

    @staticmethod
    def _packed(inputs: Tensors, flat: tf.Tensor, dtype: Any = None) -> Tensors:
        """Rows of values in the shapes of the inputs; integers as they are."""
        found: Tensors = []
        start = tf.constant(0)
        for each in inputs:
            if not each.dtype.is_floating:
                found.append(each)
                continue
            size = tf.reduce_prod(tf.shape(each)[1:])
            part = tf.reshape(flat[:, start : start + size], tf.shape(each))
            found.append(tf.ensure_shape(tf.cast(part, dtype or each.dtype), each.shape))
            start += size
        return found


class _Ways(NamedTuple):
    """The ways of all values from their start to their end, `(batch, values)` float64 each."""

    start: tf.Tensor
    end: tf.Tensor
    fraction: float
    max_distance: float
    steps: int

    def step(
        self, number: tf.Tensor, place: tf.Tensor, found: tf.Tensor, gradient: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The places and the attributions after one step."""
        alpha = (number + 1.0) / self.steps
        lowest, far = tf.maximum(alpha - self.max_distance, 0.0), tf.constant(math.inf, tf.float64)
        low, high = self._at(lowest), self._at(tf.minimum(alpha + self.max_distance, 1.0))
        whole = self.end - self.start
        goal = tf.reduce_sum(tf.abs(whole), 1) * (1.0 - alpha)

        def move(
            place: tf.Tensor, found: tf.Tensor, ranked: tf.Tensor, done: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            gone = tf.math.divide_no_nan(place - self.start, whole)
            behind = (gone < lowest) & (whole != 0.0) & ~done[:, None]
            caught_up = tf.where(behind, low, place)
            distance = tf.reduce_sum(tf.abs(caught_up - self.end), 1)
            near = _close(goal, distance)
            ranked = tf.where(caught_up == high, far, ranked)
            chosen = self._smallest(ranked) & ~(done | near)[:, None]
            reach = tf.reduce_sum(tf.cast(chosen, tf.float64) * tf.abs(caught_up - high), 1)
            share = tf.where(reach > 0.0, (distance - goal) / tf.maximum(reach, 1e-300), far)
            way = tf.minimum(share, 1.0)[:, None]
            # All the way is the end itself, not a rounded one: what is there is not moved again.
            moved = tf.where(way == 1.0, high, caught_up + (high - caught_up) * way)
            following = tf.where(chosen, moved, caught_up)
            following = tf.where(done[:, None], place, following)
            found += (following - place) * gradient
            return following, found, ranked, done | near | (share <= 1.0)

        nothing = tf.reduce_sum(tf.abs(whole), 1) == 0.0
        rounds = math.ceil(1.0 / self.fraction) + 4  # Each takes that share, or what is left.
        place, found, *_ = tf.while_loop(
            lambda *state: ~tf.reduce_all(state[3]),
            move,
            (place, found, tf.abs(gradient), nothing),
            maximum_iterations=rounds,
            parallel_iterations=1,
        )
        return place, found

    def _at(self, alpha: tf.Tensor) -> tf.Tensor:
        return self.start + (self.end - self.start) * alpha

    def _smallest(self, ranked: tf.Tensor) -> tf.Tensor:
        """Whether a value is among the share with the smallest gradients, those there left out."""
        count = tf.cast(tf.shape(ranked)[1] - 1, tf.float64)
        last = tf.cast(tf.floor(count * np.float64(self.fraction)), tf.int32)
        threshold = tf.sort(ranked, axis=1)[:, last, None]
        return (ranked <= threshold) & (ranked != math.inf)


def _close(goal: tf.Tensor, distance: tf.Tensor) -> tf.Tensor:
    """Whether two numbers are the same up to 1e-9, relative or absolute."""
    relative = 1e-9 * tf.maximum(tf.abs(goal), tf.abs(distance))
    return tf.abs(goal - distance) <= tf.maximum(relative, 1e-9)
