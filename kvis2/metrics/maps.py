"""Measures of maps alone: how concentrated, how complete, how steady."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvis2.metrics.similarity import spearman

FloatArray = NDArray[np.float32]


def sparseness(maps: ArrayLike) -> FloatArray:
    """How unevenly the magnitude of each map is spread over its positions: the Gini index.

    `gini = sum_i (2 i - n - 1) a_(i) / (n sum_i a_i)`, with `a_(1) <= ... <= a_(n)` the sorted
    magnitudes `|map|`. 0 where all are equal, close to 1 where one position has everything. It
    says how easily a map is read, not whether it is right. A blank map scores 0.

    Args:
        maps: `(batch, *spatial)`.

    Returns:
        float32 `(batch,)`, 0 to below 1.

    Raises:
        ValueError: If the maps have no spatial axis, or are not finite.

    References:
        Chalasani et al. (2020), Concise Explanations of Neural Networks using Adversarial
        Training. https://arxiv.org/abs/1810.06583

    Example:
        >>> sparseness([[0.0, 0.0, 0.0, 1.0]])
        array([0.75], dtype=float32)
    """
    magnitudes = np.sort(_magnitudes(maps), axis=1)
    number = magnitudes.shape[1]
    places = 2.0 * np.arange(1, number + 1) - number - 1
    return _share(magnitudes @ places, number * magnitudes.sum(axis=1))


def complexity(maps: ArrayLike) -> FloatArray:
    """Over how many positions each map is spread: the entropy of its magnitudes, in nats.

    `H = - sum_i p_i ln p_i`, `p_i = |map_i| / sum |map|`: between 0, where one position has
    everything, and `ln n`. A blank map, which has no entropy, scores 0.

    Args:
        maps: `(batch, *spatial)`.

    Returns:
        float32 `(batch,)`, nats.

    Raises:
        ValueError: If the maps have no spatial axis, or are not finite.

    References:
        Bhatt et al. (2020), Evaluating and Aggregating Feature-based Model Explanations.
        https://arxiv.org/abs/2005.00631

    Example:
        >>> complexity([[1.0, 1.0, 0.0, 0.0]])
        array([0.6931472], dtype=float32)
    """
    magnitudes = _magnitudes(maps)
    total = magnitudes.sum(axis=1, keepdims=True)
    shares = magnitudes / np.where(total > 0, total, 1)
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1).astype(np.float32) + 0


def effective_complexity(maps: ArrayLike, threshold: float = 1e-5) -> FloatArray:
    """How many positions of each map matter: `|{i : |map_i| > threshold * max |map|}|`.

    Args:
        maps: `(batch, *spatial)`.
        threshold: The share of the map's own largest magnitude that matters, from 0 up.

    Returns:
        float32 `(batch,)`, a number of positions; 0 for a blank map.

    Raises:
        ValueError: If the maps have no spatial axis, or are not finite.

    References:
        Nguyen and Martinez (2020), On quantitative aspects of model interpretability.
        https://arxiv.org/abs/2007.07584

    Example:
        >>> effective_complexity([[4.0, 2.0, 0.0, 0.0]], threshold=0.6)
        array([1.], dtype=float32)
    """
    magnitudes = _magnitudes(maps)
    peak = magnitudes.max(axis=1, keepdims=True)
    shares = magnitudes / np.where(peak > 0, peak, 1)
    return (shares > threshold).sum(axis=1).astype(np.float32)


def completeness_gap(
    maps: ArrayLike,
    scores: ArrayLike,
    baseline_scores: ArrayLike = 0.0,
    *,
    relative: bool = True,
) -> FloatArray:
    """How far the sum of each map is from what it should explain.

    `gap = |sum map - (f(x) - f(baseline))| / |f(x) - f(baseline)|`. Integrated gradients and LRP
    promise 0. The maps must be raw and signed (`normalize=False`, `reduce="signed"`); several
    inputs' maps are added up first. `CompletenessGap` runs the model for the scores itself.

    Args:
        maps: Raw maps, `(batch, ...)`.
        scores: `f(x)`, the score that was explained, `(batch,)`.
        baseline_scores: `f(baseline)`, `(batch,)` or a number. 0 for LRP, which shares out the
            score itself.
        relative: Whether the gap is divided by the difference of the scores.

    Returns:
        float32 `(batch,)`, 0 at best. Infinite where there is a gap and nothing to explain.

    Raises:
        ValueError: If there is not one score per map.

    References:
        Sundararajan et al. (2017), Axiomatic Attribution for Deep Networks (completeness).
        https://arxiv.org/abs/1703.01365

    Example:
        >>> completeness_gap([[1.0, 2.0]], [4.0])
        array([0.25], dtype=float32)
    """
    values = np.asarray(maps, np.float64)
    difference = np.asarray(scores, np.float64) - np.asarray(baseline_scores, np.float64)
    if difference.shape != values.shape[:1]:
        raise ValueError(
            f"Expected one score for each of the {len(values)} maps. Received: scores of shape "
            f"{difference.shape}. Give what was explained, shape (batch,)."
        )
    gaps = np.abs(values.reshape(len(values), -1).sum(axis=1) - difference)
    if not relative:
        return gaps.astype(np.float32)
    with np.errstate(divide="ignore"):
        ratios = np.divide(gaps, np.abs(difference), out=np.zeros_like(gaps), where=gaps > 0)
    return ratios.astype(np.float32)


def drift(maps: ArrayLike, previous: ArrayLike) -> FloatArray:
    """How far looking has moved: `1 - spearman(map, the map before)`.

    Args:
        maps: The maps of some images, `(batch, *spatial)`.
        previous: Those of the same images at an earlier step of the training.

    Returns:
        float32 `(batch,)`: 0 where the order of the positions stayed, 1 where nothing of it is
        left, 2 where it is reversed.
    """
    return 1 - spearman(maps, previous)


def untrained_similarity(maps: ArrayLike, untrained: ArrayLike) -> FloatArray:
    """How much of a map was there before the training: `spearman(|map|, |untrained map|)`.

    For a net that is trained from scratch this is the far end of `ParameterRandomization`: a
    method whose maps stay alike shows the image rather than what was learned.

    Args:
        maps: The maps of some images, `(batch, *spatial)`.
        untrained: Those of the same images before the first batch.

    Returns:
        float32 `(batch,)`, -1..1.
    """
    return spearman(np.abs(np.asarray(maps)), np.abs(np.asarray(untrained)))


def _magnitudes(maps: ArrayLike) -> NDArray[np.float64]:
    values = np.abs(np.asarray(maps, np.float64))
    if values.ndim < 2 or not values.size:
        raise ValueError(
            f"Expected maps of shape (batch, *spatial). Received: shape {values.shape}. "
            "Add the batch axis with maps[np.newaxis]."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            "Expected finite maps. Received: NaN or infinity. Look for the pass that made them."
        )
    return values.reshape(len(values), -1)


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> FloatArray:
    """`part / whole`, and 0 where there is nothing."""
    return (part / np.where(whole > 0, whole, 1)).astype(np.float32)
