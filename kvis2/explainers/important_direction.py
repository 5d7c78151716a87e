"""IDGI: the change of the score along a path, shared out by the squared gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kvis2 import scores
from kvis2.explainers.integrated_gradients import SteppedAttribution
from kvis2.passes import Probe, added_up, row_indices, total
from kvis2.types import Tensors


class IDGI(SteppedAttribution):
    r"""Important direction gradient integration: only the part of a step that changes the score.

    `a = sum over steps j of g_j^2 / |g_j|^2 * (score(x_(j+1)) - score(x_j))`, on the straight line
    `x_j = b + j / steps (x - b)`, `g_j` the gradient at `x_j`; `map = sum over channels of a`; with
    several baselines the mean. Integrated gradients multiply the gradient by the step, most of
    which goes where the score does not change; here each change of the score is shared out along
    the gradient. The attributions add up to `score(x) - score(b)` exactly, whatever the number of
    steps, but where a gradient is zero. Within a step all values share its sign.

    Args:
        model: Any built Keras model.
        layer: Attribute to the output of this layer instead of the input.
        baseline: As for `IntegratedGradients`: None for zeros, a number, several, "blur", or
            arrays.
        steps: Number of steps on each path, 1 or more.
        reduce: How the channels become one map; "signed" (sum) keeps the total.
        keepdims: Keep the channels.
        **options: As for `kvis2.Explainer`.

    Attributes:
        completeness_gap: After a call, `|sum a - (score(x) - score(b))| / |score(x) - score(b)|` of
            every sample: what steps without a gradient lost.

    References:
        Yang et al. (2023), IDGI: A Framework to Eliminate Explanation Noise from Integrated
        Gradients. https://arxiv.org/abs/2303.14242

    Example:
        >>> maps = IDGI(model, baseline="blur")(243, images)
    """

    def attributions(self, probe: Probe, score: Any, inputs: Tensors) -> Sequence[tf.Tensor | None]:
        """The changes of the score on all paths, shared out."""
        score = probe.fixed(score, inputs)
        paths = self._paths(probe, score, inputs)
        baselines = self.baselines.count

        def chunk_total(indices: tf.Tensor) -> list[tf.Tensor | None]:
            chosen, step = indices // self.steps, tf.cast(indices % self.steps, tf.float32)
            here, differences = paths.at(chosen, step / self.steps)
            there, _ = paths.at(chosen, (step + 1.0) / self.steps)
            taken = scores.take(score, row_indices(inputs[0], tf.shape(indices)[0]))
            gradients = [
                None if d is None else g
                for g, d in zip(paths.gradients(taken, here), differences, strict=True)
            ]
            change = (paths.scores(taken, there) - paths.scores(taken, here)) / baselines
            copies = tf.shape(indices)[0]
            return [
                None if each is None else added_up(_by_row(change, each) * each, copies)
                for each in _shares(gradients)
            ]

        count = self.steps * baselines
        return paths.placed(total(count, self.rows, inputs[0], chunk_total, self.settings.verbose))


def _by_row(numbers: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(numbers, [-1, *[1] * (values.shape.rank - 1)])


def _shares(gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """The square of every gradient by the sum of all squares of its row, in all inputs."""
    found = [each for each in gradients if each is not None]

    def over_row(reduce: Any, values: tf.Tensor) -> tf.Tensor:
        return reduce(values, list(range(1, values.shape.rank)))

    # Divided by the largest first: the squares of small gradients would be lost.
    peaks = [over_row(tf.reduce_max, tf.abs(each)) for each in found]
    peak = tf.reduce_max(tf.stack(peaks), axis=0)
    squares = [
        None if g is None else tf.square(tf.math.divide_no_nan(g, _by_row(peak, g)))
        for g in gradients
    ]
    sums = tf.add_n([over_row(tf.reduce_sum, each) for each in squares if each is not None])
    return [
        None if each is None else tf.math.divide_no_nan(each, _by_row(sums, each))
        for each in squares
    ]
