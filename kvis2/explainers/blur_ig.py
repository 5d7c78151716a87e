"""Blur integrated gradients: a path from the blurred image to the image itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2 import scores
from kvis2.explainers.explainer import without_layer
from kvis2.explainers.integrated_gradients import checked_steps, relative_gap
from kvis2.explainers.saliency import Attribution, gradients_of
from kvis2.passes import Probe, Report, added_up, along, as_rows, repeated, row_indices, total
from kvis2.types import Tensors

_STEP = 0.01
"""By how much the deviation is raised to see how the blurred image changes, as the authors do."""


class BlurIG(Attribution):
    r"""Blur integrated gradients: the path to the image sharpens it step by step.

    `a = - sum over i of (s_(i+1) - s_i) * d blur(x, s_i) / d s * g(blur(x, s_i))`, with `s_i = i
    max_deviation / steps` the standard deviation of a Gaussian blur with zeros around the image,
    and `g` the gradient; `map = sum over channels of a`. No baseline adds features of its own, as
    black does; the attributions add up to `score(x) - score(blur(x, max_deviation))`, up to the
    steps. Inputs without space are left as they are.

    Args:
        model: Any built Keras model.
        max_deviation: The largest standard deviation, in pixels; the paper takes 50 at 224 pixels.
            None is 50/224 of the longest side.
        steps: How many steps the path has; the authors' code takes 100.
        reduce: How the channels become one map; "signed" (sum) keeps the total.
        keepdims: Keep the channels.
        **options: As for `kvis2.Explainer`.

    Attributes:
        completeness_gap: After a call, by how much the sum over steps misses the change of the
            score from the blurred image on, relative to it, of every sample.

    References:
        Xu et al. (2020), Attribution in Scale and Space. https://arxiv.org/abs/2004.03383

    Example:
        >>> maps = BlurIG(model)(243, images)
    """

    completeness_gap = Report()

    def __init__(
        self,
        model: Any,
        *,
        max_deviation: float | None = None,
        steps: int = 100,
        reduce: str = "signed",
        keepdims: bool = False,
        **options: Any,
    ) -> None:
        options = without_layer(type(self).__name__, options)
        super().__init__(model, reduce=reduce, keepdims=keepdims, **options)
        if max_deviation is not None and not max_deviation > 0:
            raise ValueError(
                f"Expected `max_deviation` above 0 or None. Received: {max_deviation!r}. "
                "The paper takes 50 at 224 pixels."
            )
        self.relative = max_deviation is None
        self.max_deviation = np.asarray(max_deviation or 0.0, np.float64)
        self.steps = checked_steps(steps, 1)

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The maps, and the completeness gap."""
        score = probe.fixed(score, inputs)
        attributions = self.attributions(probe, score, inputs)
        largest = self._largest(probe, inputs)
        start = [x[0] for x in self._blurred(probe, inputs, largest[None])[0]]
        change = probe.scores(score, inputs) - probe.scores(score, start)
        gap = relative_gap(attributions, change)
        return [*self.reduced(attributions, probe, inputs), gap]

    def attributions(self, probe: Probe, score: Any, inputs: Tensors) -> Sequence[tf.Tensor | None]:
        """The sum over the path, for every value of every input that is blurred."""
        score = probe.fixed(score, inputs)
        largest = self._largest(probe, inputs)

        def chunk_total(indices: tf.Tensor) -> list[tf.Tensor | None]:
            copies = tf.shape(indices)[0]
            deviations = tf.cast(indices, tf.float64) * largest / self.steps
            points, slopes = self._blurred(probe, inputs, deviations)
            taken = scores.take(score, row_indices(inputs[0], copies))
            gradients = gradients_of(probe, taken, [as_rows(each) for each in points])
            width = tf.cast(largest / self.steps, tf.float32)
            return [
                None if g is None or d is None else added_up(-width * as_rows(d) * g, copies)
                for g, d in zip(gradients, slopes, strict=True)
            ]

        return total(self.steps, self.rows, inputs[0], chunk_total, self.settings.verbose)

    def _largest(self, probe: Probe, inputs: Tensors) -> tf.Tensor:
        """The largest standard deviation, float64."""
        axes = [probe.input_space(inputs, i) if _is_image(x) else [] for i, x in enumerate(inputs)]
        if not any(axes):
            raise ValueError(
                "Expected an image or a signal to blur, of floats. Received: inputs of "
                f"{[tuple(each.shape) for each in inputs]} without space. Use IntegratedGradients."
            )
        if not self.relative:
            return tf.cast(self.max_deviation, tf.float64)
        sides = [tf.gather(tf.shape(x), each) for x, each in zip(inputs, axes, strict=True) if each]
        return tf.cast(tf.reduce_max(tf.concat(sides, axis=0)), tf.float64) * (50.0 / 224.0)

    def _blurred(
        self, probe: Probe, inputs: Tensors, deviations: tf.Tensor
    ) -> tuple[Tensors, list[tf.Tensor | None]]:
        """Copies `(copies, batch, ...)` blurred by each deviation, and how they change with it."""
        points: Tensors = []
        slopes: list[tf.Tensor | None] = []
        for index, each in enumerate(inputs):
            axes = probe.input_space(inputs, index) if _is_image(each) else []
            if not axes:
                copies = tf.shape(deviations)[0]
                whole = tf.concat([[copies], tf.shape(each)], axis=0)
                points.append(tf.reshape(repeated(each, copies), whole))
                slopes.append(None)
                continue
            exact = tf.cast(each, tf.float64)
            here = _blurred_by(exact, axes, deviations)
            further = _blurred_by(exact, axes, deviations + _STEP)
            shape = [None, *each.shape]
            slope = tf.cast((further - here) / _STEP, tf.float32)
            points.append(tf.ensure_shape(tf.cast(here, each.dtype), shape))
            slopes.append(tf.ensure_shape(slope, shape))
        return points, slopes


def _is_image(inputs: tf.Tensor) -> bool:
    return inputs.dtype.is_floating


def _blurred_by(images: tf.Tensor, axes: Sequence[int], deviations: tf.Tensor) -> tf.Tensor:
    """`(deviations, *images)`: each blurred by a Gaussian cut at 4 deviations, zeros around."""

    def blurred(deviation: tf.Tensor) -> tf.Tensor:
        found = images
        for axis in axes:
            place = tf.cast(tf.range(tf.shape(images)[axis]), tf.float64)
            weights = _gaussian(tf.abs(place[:, None] - place[None, :]), deviation)
            found = along(found, axis, weights)
        return found

    return tf.map_fn(blurred, deviations, fn_output_signature=tf.float64)


def _gaussian(distance: tf.Tensor, deviation: tf.Tensor) -> tf.Tensor:
    """The weights at these distances of a kernel whose whole sum, also outside, is 1."""
    radius = tf.floor(4.0 * deviation + 0.5)
    safe = tf.maximum(deviation, 1e-6)

    def weights(values: tf.Tensor) -> tf.Tensor:
        return tf.where(values <= radius, tf.exp(-0.5 * tf.square(values / safe)), 0.0)

    return weights(distance) / tf.reduce_sum(weights(tf.abs(tf.range(-radius, radius + 1.0))))
