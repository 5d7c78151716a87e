"""Deletion and insertion: how the score changes as positions go, or come, in the map's order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from kvis2.metrics.baselines import baselines
from kvis2.metrics.measure import Copies, Found, Measure, Placed, over_inputs
from kvis2.metrics.ranking import ranks
from kvis2.models import Batch
from kvis2.types import Tensors


class Ranked(Copies):
    """Copies without, or with nothing but, the first positions of a ranking.

    Args:
        measure: Looks at the model.
        plan: For every copy the ranking it goes by, and how many positions of each explained
            input are first: int32 `(copies, 1 + explained inputs)`.
        inputs: How many flat inputs the model has.
        explained: For every explained input its index and the axes of its positions.
        shows_first: Whether the first positions are shown, instead of hidden.
    """

    def __init__(
        self,
        measure: Measure,
        plan: NDArray[np.int32],
        inputs: int,
        explained: Sequence[tuple[int, tuple[int, ...]]],
        shows_first: bool,
    ) -> None:
        super().__init__(measure, len(plan), inputs)
        self.plan = plan
        self.explained = tuple(explained)
        self.shows_first = shows_first

    def changed(
        self, inputs: Tensors, further: Tensors, sample: tf.Tensor, copy: tf.Tensor
    ) -> Tensors:
        """The copies; `further` holds a baseline and the ranks of every explained input."""
        plan = tf.gather(self.plan, copy)
        rows = [tf.gather(each, sample) for each in inputs]
        for number, (index, axes) in enumerate(self.explained):
            baseline, places = further[2 * number], further[2 * number + 1]
            own = tf.gather_nd(places, tf.stack([sample, plan[:, 0]], axis=1))
            count = tf.reshape(plan[:, 1 + number], [-1, *[1] * len(axes)])
            first = over_inputs(own < count, inputs[index], axes)
            hidden = tf.gather(baseline, sample)
            pair = (rows[index], hidden) if self.shows_first else (hidden, rows[index])
            rows[index] = tf.where(first, *pair)
        return rows


class _Curve(Measure):
    """Base of deletion and insertion.

    Args:
        model: Any built Keras model.
        steps: Into how many steps all positions are divided.
        baseline: What hidden positions look like.
        **options: As for `Measure`.
    """

    shows_first = False

    def __init__(
        self, model: Any, *, steps: int = 28, baseline: Any = "mean", **options: Any
    ) -> None:
        super().__init__(model, **options)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(
                f"Expected `steps` to be a positive int. Received: {steps!r}. Give for example 28."
            )
        self.steps = steps
        self.baseline = baseline

    def measured(self, score: Any, batch: Batch, maps: Sequence[Placed]) -> list[Found]:
        """The area under the curve of each ranking; all share their two ends."""
        rankings = len(maps[0].maps)
        sizes = [int(np.prod(each.maps.shape[2:])) for each in maps]
        counts = np.arange(self.steps + 1)[:, None] * sizes // self.steps
        ends = np.concatenate([counts[:1], counts[-1:]])
        within = counts[1:-1]
        plan = [np.insert(ends, 0, 0, axis=1)]
        plan += [np.insert(within, 0, ranking, axis=1) for ranking in range(rankings)]
        hidden = baselines(self.model, self.baseline, batch)
        further = []
        for each in maps:
            places = np.stack([ranks(one, self.seed) for one in each.maps], axis=1)
            further += [hidden[each.input_index], places]
        explained = [(each.input_index, tuple(each.axes)) for each in maps]
        copies = Ranked(
            self,
            np.concatenate(plan).astype(np.int32),
            len(batch.shapes),
            explained,
            self.shows_first,
        )
        found = self.scored(copies, score, batch, further)
        exact = counts[:, 0] / sizes[0]
        inner = found[:, 2:].reshape(batch.size, rankings, -1)
        curves = [np.hstack([found[:, :1], inner[:, r], found[:, 1:2]]) for r in range(rankings)]
        return [Found(area(each, exact), each, exact) for each in curves]


class Deletion(_Curve):
    r"""Deletion: how fast the score falls as the positions a map calls important are removed.

    `area = sum_k (c_k + c_(k+1)) / 2 * (q_(k+1) - q_k)`, `c_k` the score of the image whose first
    `floor(q_k n)` of n positions, highest map value first, are replaced by the baseline, `q_k =
    k / steps`. Low is good. Positions that tie, such as zeros behind a ReLU, go in a seeded order.

    Removed positions look like nothing the model has seen, so that a part of the fall is due to
    the holes themselves: compare with `random_control`, and not between models or epochs.

    Args:
        model: Any built Keras model, with any number of inputs and of spatial axes.
        steps: Into how many steps all positions are divided: one forward pass each.
        baseline: What removed positions look like, in the model's own input space: "mean" (each
            image's mean colour), "blur", a number, an array in the size of the input, or a
            function `images -> baseline`. 0 is black only where the model takes 0 for black.
        **options: `model_modifier` (None: probabilities), `batch_size`, `random_control`,
            `seed`, `fold_batch_norm`, `jit_compile` and `verbose`, as for `Measure`.

    Raises:
        ValueError: If `steps` or `baseline` is not one of these.

    References:
        Petsiuk et al. (2018), RISE: Randomized Input Sampling for Explanation of Black-box
        Models. https://arxiv.org/abs/1806.07421

    Example:
        >>> result = Deletion(model, random_control=3)(243, images, GradCAM(model)(243, images))
        >>> result.mean(), result.random_control.mean()
    """

    better = "lower"


class Insertion(_Curve):
    r"""Insertion: how fast the score rises as the positions a map calls important are shown.

    `area = sum_k (c_k + c_(k+1)) / 2 * (q_(k+1) - q_k)`, `c_k` the score of the baseline in which
    the first `floor(q_k n)` of n positions, highest map value first, are those of the image,
    `q_k = k / steps`. High is good. See `Deletion` for what it rewards wrongly.

    Args:
        model: Any built Keras model, with any number of inputs and of spatial axes.
        steps: Into how many steps all positions are divided: one forward pass each.
        baseline: What is shown first: "mean", "blur" (as in the paper), a number, an array or a
            function, as for `Deletion`.
        **options: As for `Deletion`.

    Raises:
        ValueError: If `steps` or `baseline` is not one of these.

    References:
        Petsiuk et al. (2018), RISE: Randomized Input Sampling for Explanation of Black-box
        Models. https://arxiv.org/abs/1806.07421

    Example:
        >>> result = Insertion(model, baseline="blur")(243, images, maps)
    """

    shows_first = True


def insertion_gain(
    model: Any,
    score: Any,
    images: Any,
    maps: Any,
    *,
    steps: int = 8,
    baseline: Any = "mean",
    **options: Any,
) -> NDArray[np.float32]:
    """`Insertion` in a few steps, minus the same for a random order: cheap enough for training.

    The two curves share their ends: `2 * steps` forward passes per image. The difference removes
    what the model makes of holes, so that it may be followed from epoch to epoch.

    Args:
        model: Any built Keras model.
        score: What the maps explain, as explainers take it.
        images: What the model takes.
        maps: Maps `(batch, *spatial)`.
        steps: Into how many steps all positions are divided.
        baseline: What is shown first, as for `Deletion`.
        **options: As for `Deletion`.

    Returns:
        float32 `(batch,)`; 0 is a map that knows nothing.
    """
    options = {"random_control": 1, **options}
    return Insertion(model, steps=steps, baseline=baseline, **options)(score, images, maps).gain


def area(curve: ArrayLike, fractions: ArrayLike) -> NDArray[np.float64]:
    """The area under each curve by the trapezoid rule, `(batch,)`."""
    heights, places = np.asarray(curve, np.float64), np.asarray(fractions, np.float64)
    return ((heights[:, 1:] + heights[:, :-1]) / 2) @ np.diff(places)
