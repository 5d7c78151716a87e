"""How alike two maps are: rank correlation, correlation, structural similarity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvis2.localization import mean_ranks

FloatArray = NDArray[np.float32]


def pearson(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """The correlation of two maps of each image.

    `r = sum (a - mean a)(b - mean b) / (|a - mean a| |b - mean b|)`. Of two maps that are each
    of one value, r is 1; with one such map alone it is 0.

    Args:
        a: Maps `(batch, *spatial)`.
        b: Maps of the same shape.

    Returns:
        float32 `(batch,)`, -1..1.
    """
    return _correlations(*_pair(a, b))


def spearman(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """The rank correlation of two maps of each image: `pearson` of their mean ranks.

    Args:
        a: Maps `(batch, *spatial)`.
        b: Maps of the same shape.

    Returns:
        float32 `(batch,)`, -1..1. Where a map is of one value, as for `pearson`.

    References:
        Adebayo et al. (2018), Sanity Checks for Saliency Maps. https://arxiv.org/abs/1810.03292

    Example:
        >>> spearman([[1.0, 2.0, 4.0]], [[1.0, 4.0, 16.0]])
        array([1.], dtype=float32)
    """
    first, second = _pair(a, b)
    return _correlations(*(np.array([mean_ranks(each) for each in x]) for x in (first, second)))


def ssim(a: ArrayLike, b: ArrayLike) -> FloatArray:
    """The structural similarity of two maps of each image, each divided by its maximum.

    `mean over windows of (2 m_a m_b + C1)(2 s_ab + C2) / ((m_a^2 + m_b^2 + C1)(s_a^2 + s_b^2 +
    C2))` with the means m, sample variances s^2 and covariance of every 7 x 7 window that lies
    inside, `C1 = (0.01 L)^2`, `C2 = (0.03 L)^2` and L the range of both maps. A blank map stays
    zeros.

    Args:
        a: Maps `(batch, height, width)`, at least 7 x 7.
        b: Maps of the same shape.

    Returns:
        float32 `(batch,)`, at most 1.

    Raises:
        ValueError: If the maps are not two-dimensional, or too small.

    References:
        Wang et al. (2004), Image quality assessment: from error visibility to structural
        similarity. https://doi.org/10.1109/TIP.2003.819861
    """
    first, second = (np.asarray(each, np.float64) for each in (a, b))
    _check_shapes(first, second)
    if first.ndim != 3 or min(first.shape[1:]) < _WINDOW:
        raise ValueError(
            f"Expected maps of shape (batch, height, width), at least {_WINDOW} x {_WINDOW}. "
            f"Received: shape {first.shape}. Use `similarity='spearman'`."
        )
    return np.array(
        [_ssim(_scaled(x), _scaled(y)) for x, y in zip(first, second, strict=True)], np.float32
    )


SIMILARITIES: dict[str, Callable[[ArrayLike, ArrayLike], FloatArray]] = {
    "spearman": spearman,
    "pearson": pearson,
    "ssim": ssim,
}


def as_similarity(similarity: Any) -> Callable[[ArrayLike, ArrayLike], FloatArray]:
    """A similarity by its name, or a user's function of two maps; else a sentence."""
    if callable(similarity):
        return similarity
    if similarity not in SIMILARITIES:
        raise ValueError(
            f"Expected `similarity` to be one of {', '.join(map(repr, SIMILARITIES))}, or a "
            f"function of two maps. Received: {similarity!r}. The usual one is 'spearman'."
        )
    return SIMILARITIES[similarity]


def _pair(a: ArrayLike, b: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = (np.asarray(each, np.float64) for each in (a, b))
    _check_shapes(first, second)
    return first.reshape(len(first), -1), second.reshape(len(second), -1)


def _check_shapes(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(
            "Expected two batches of maps of one shape, (batch, *spatial). Received: shapes "
            f"{a.shape} and {b.shape}. Give the maps of the same images."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(
            "Expected finite maps. Received: NaN or infinity. Look for the pass that made them."
        )


def _correlations(a: NDArray[np.float64], b: NDArray[np.float64]) -> FloatArray:
    """The correlation of each pair of rows."""
    flat_a, flat_b = np.ptp(a, axis=1) == 0, np.ptp(b, axis=1) == 0
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    norms = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    found = (a * b).sum(axis=1) / np.where(norms > 0, norms, 1)
    return np.where(flat_a | flat_b, flat_a & flat_b, found).astype(np.float32)


_WINDOW = 7


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    peak = np.abs(values).max()
    return values / peak if peak else values


def _ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    spread = max(a.max(), b.max()) - min(a.min(), b.min())
    if spread == 0:
        return 1.0
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    number = _WINDOW**2
    mean_a, mean_b = _window_means(a), _window_means(b)
    sample = number / (number - 1)
    variance_a = sample * (_window_means(a * a) - mean_a**2)
    variance_b = sample * (_window_means(b * b) - mean_b**2)
    covariance = sample * (_window_means(a * b) - mean_a * mean_b)
    alike = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    most = (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return float((alike / most).mean())


def _window_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of every window that lies inside."""
    windows = np.lib.stride_tricks.sliding_window_view(values, _WINDOW, axis=0).mean(axis=-1)
    return np.lib.stride_tricks.sliding_window_view(windows, _WINDOW, axis=1).mean(axis=-1)
