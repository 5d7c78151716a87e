"""What a mask leaves of the score: average drop, confidence gain; and the gap of completeness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2.images import normalize
from kvis2.metrics.baselines import baselines
from kvis2.metrics.maps import completeness_gap
from kvis2.metrics.measure import Copies, Found, Measure, Placed, only, over_inputs
from kvis2.models import Batch
from kvis2.passes import LINEAR
from kvis2.types import Tensors


class Blended(Copies):
    """Copies between the input, where a mask is 1, and the baseline, where it is 0.

    Args:
        measure: Looks at the model.
        masks: The masks of all samples, bool or float32 `(copies, *spatial)` or with channels;
            None where each sample has its own, which follow the baseline in `further`,
            `(batch, copies, ...)`.
        count: How many masks there are. One more copy comes first: the input.
        inputs: How many flat inputs the model has.
        index: Which of them has the map.
        axes: The axes of its positions.
    """

    def __init__(
        self,
        measure: Measure,
        masks: NDArray[Any] | None,
        count: int,
        inputs: int,
        index: int,
        axes: Sequence[int],
    ) -> None:
        super().__init__(measure, count + 1, inputs)
        self.masks = masks
        self.index = index
        self.axes = tuple(axes)

    def changed(
        self, inputs: Tensors, further: Tensors, sample: tf.Tensor, copy: tf.Tensor
    ) -> Tensors:
        """The copies."""
        rows = [tf.gather(each, sample) for each in inputs]
        number = tf.maximum(copy - 1, 0)
        if self.masks is None:
            mask = tf.gather_nd(further[1], tf.stack([sample, number], axis=1))
        else:
            mask = tf.gather(self.masks, number)
        image = rows[self.index]
        own = tf.cast(over_inputs(mask, inputs[self.index], self.axes), tf.float32)
        whole = tf.reshape(copy, [-1, *[1] * (image.shape.rank - 1)])
        share = tf.where(whole == 0, 1.0, own)
        hidden = tf.cast(tf.gather(further[0], sample), tf.float32)
        blended = hidden + share * (tf.cast(image, tf.float32) - hidden)
        exact = tf.where(share == 1.0, tf.cast(image, tf.float32), blended)
        if image.dtype.is_integer:
            exact = tf.round(exact)
        rows[self.index] = tf.cast(exact, image.dtype)
        return rows


def blended_scores(
    measure: Measure,
    score: Any,
    batch: Batch,
    place: Placed,
    masks: NDArray[Any],
    baseline: Any,
    shared: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scores of the inputs, `(batch,)`, and under each mask, `(batch, copies)`.

    Args:
        measure: Runs the model.
        score: One score per sample.
        batch: The inputs.
        place: Which input is changed.
        masks: `(copies, ...)` for all samples, or `(copies, batch, ...)`.
        baseline: What is seen where a mask is 0.
        shared: Whether the masks are for all samples.
    """
    further = [baselines(measure.model, baseline, batch)[place.input_index]]
    if not shared:
        further.append(np.swapaxes(masks, 0, 1))
    copies = Blended(
        measure,
        masks if shared else None,
        len(masks),
        len(batch.shapes),
        place.input_index,
        place.axes,
    )
    found = measure.scored(copies, score, batch, further).astype(np.float64)
    return found[:, 0], found[:, 1:]


class _Masked(Measure):
    """Base of the measures of what is left of the score behind the map as a mask.

    Args:
        model: Any built Keras model.
        baseline: What is seen where the mask is 0.
        **options: As for `Measure`.
    """

    def __init__(self, model: Any, *, baseline: Any = 0.0, **options: Any) -> None:
        super().__init__(model, **options)
        self.baseline = baseline

    def compared(
        self, before: NDArray[np.float64], after: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """What is measured, from the score of the image and that behind the mask."""
        raise NotImplementedError

    def measured(self, score: Any, batch: Batch, maps: Sequence[Placed]) -> list[Found]:
        """One forward pass for each map, and one for the image."""
        place = only(maps)
        masks = np.stack([normalize(each, "minmax") for each in place.maps])
        before, after = blended_scores(self, score, batch, place, masks, self.baseline, False)
        found = []
        for behind in after.T:
            details = {"before": before, "after": behind, "increase": behind > before}
            found.append(Found(self.compared(before, behind), details=details))
        return found


class AverageDrop(_Masked):
    r"""Average drop: which share of the score is lost behind the map as a mask.

    `drop = max(0, p - p') / p`, p the score of the image and p' that of `m x + (1 - m) baseline`,
    `m = (map - min map) / (max map - min map)`. 0 is best. A map of one value hides everything.

    A map that shows the whole image drops nothing. In a signed map the value 0 is shown in part,
    since its minimum becomes 0: give `np.abs(maps)` or the positive part for another convention.
    `details["increase"]` says where p' is above p.

    Args:
        model: A built Keras model whose score is a probability, or another number above 0.
        baseline: What is seen where the mask is 0, as for `Deletion`; 0 in the paper.
        relative: Whether the drop is divided by p.
        **options: `model_modifier` (None: probabilities), `batch_size`, `random_control`,
            `seed`, `fold_batch_norm`, `jit_compile` and `verbose`, as for `Measure`.

    Raises:
        ValueError: If a score of an image is not above 0.

    References:
        Chattopadhay et al. (2018), Grad-CAM++. https://arxiv.org/abs/1710.11063

    Example:
        >>> result = AverageDrop(model)(None, images, GradCAM(model)(None, images))
    """

    better = "lower"

    def __init__(
        self, model: Any, *, baseline: Any = 0.0, relative: bool = True, **options: Any
    ) -> None:
        super().__init__(model, baseline=baseline, **options)
        self.relative = relative

    def compared(
        self, before: NDArray[np.float64], after: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The drop."""
        drop = np.maximum(0, before - after)
        if not self.relative:
            return drop
        if (before <= 0).any():
            wrong = np.flatnonzero(before <= 0).tolist()
            raise ValueError(
                "Expected scores above 0, such as probabilities, to take a share of. Received: "
                f"{before[wrong[0]]:.4g} for sample {wrong}. Give a model or a score that ends in "
                "a softmax or sigmoid, or `relative=False`."
            )
        return drop / before


class ConfidenceGain(_Masked):
    r"""Average gain: which share of the missing probability is won behind the map as a mask.

    `gain = max(0, p' - p) / (1 - p)`, p and p' as for `AverageDrop`. 1 is best, and an image of
    which the model is sure scores 0. `details["increase"]` says where p' is above p.

    Args:
        model: A built Keras model whose score is a probability.
        baseline: What is seen where the mask is 0, as for `Deletion`; 0 in the paper.
        **options: As for `AverageDrop`.

    Raises:
        ValueError: If a score is not in 0..1.

    References:
        Zhang et al. (2024), Opti-CAM: Optimizing saliency maps for interpretability.
        https://arxiv.org/abs/2301.07002

    Example:
        >>> result = ConfidenceGain(model)(None, images, GradCAM(model)(None, images))
    """

    def compared(
        self, before: NDArray[np.float64], after: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The gain."""
        if ((before < 0) | (before > 1 + 1e-6)).any():
            wrong = np.flatnonzero((before < 0) | (before > 1 + 1e-6)).tolist()
            raise ValueError(
                "Expected probabilities, of which 1 is missing something. Received: the score "
                f"{before[wrong[0]]:.4g} for sample {wrong}. Give a model or a score that ends in "
                "a softmax or sigmoid."
            )
        missing = np.maximum(1 - before, 0)
        gain = np.maximum(0, after - before)
        return np.divide(gain, missing, out=np.zeros_like(gain), where=missing > 0)


class CompletenessGap(Measure):
    r"""Completeness: how far the sum of a map is from the difference that it shares out.

    `gap = |sum map - (f(x) - f(baseline))| / |f(x) - f(baseline)|`; see `completeness_gap`. Two
    forward passes. The maps must be raw and signed: `normalize=False`, `reduce="signed"`. The maps
    of several inputs are added up, and all of these inputs go to their baselines.

    Args:
        model: Any built Keras model.
        baseline: What the method started from, as for `Deletion`; 0 for IntegratedGradients.
        relative: Whether the gap is divided by the difference of the scores.
        model_modifier: `LinearOutput()`, as for the explainers; None for probabilities.
        **options: As for `Measure`.

    References:
        Sundararajan et al. (2017), Axiomatic Attribution for Deep Networks.
        https://arxiv.org/abs/1703.01365

    Example:
        >>> maps = IntegratedGradients(model, normalize=False)(243, images)
        >>> gaps = CompletenessGap(model)(243, images, maps)
    """

    better = "lower"
    takes_channels = True

    def __init__(
        self,
        model: Any,
        *,
        baseline: Any = 0.0,
        relative: bool = True,
        model_modifier: Any = LINEAR,
        **options: Any,
    ) -> None:
        super().__init__(model, model_modifier=model_modifier, **options)
        self.baseline = baseline
        self.relative = relative

    def measured(self, score: Any, batch: Batch, maps: Sequence[Placed]) -> list[Found]:
        """The gap of each map to the same difference."""
        explained = tuple(each.input_index for each in maps)
        hidden = baselines(self.model, self.baseline, batch)
        copies = Replaced(self, len(batch.shapes), explained)
        found = self.scored(copies, score, batch, [hidden[index] for index in explained])
        first, last = found.astype(np.float64).T
        details = {"scores": first, "baseline_scores": last}
        results = []
        for number in range(len(maps[0].maps)):
            total = sum(_sums(each.maps[number]) for each in maps)
            gaps = completeness_gap(np.reshape(total, (-1, 1)), first, last, relative=self.relative)
            results.append(Found(gaps, details={**details, "sums": total}))
        return results


class Replaced(Copies):
    """The input, and the baseline in the place of some inputs, which are the `further` arrays.

    Args:
        measure: Looks at the model.
        inputs: How many flat inputs the model has.
        explained: Which of them are replaced.
    """

    def __init__(self, measure: Measure, inputs: int, explained: tuple[int, ...]) -> None:
        super().__init__(measure, 2, inputs)
        self.explained = explained

    def changed(
        self, inputs: Tensors, further: Tensors, sample: tf.Tensor, copy: tf.Tensor
    ) -> Tensors:
        """The copies."""
        rows = [tf.gather(each, sample) for each in inputs]
        for index, baseline in zip(self.explained, further, strict=True):
            whole = tf.reshape(copy, [-1, *[1] * (inputs[index].shape.rank - 1)])
            rows[index] = tf.where(whole == 0, rows[index], tf.gather(baseline, sample))
        return rows


def _sums(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    return maps.reshape(len(maps), -1).sum(axis=1, dtype=np.float64)
