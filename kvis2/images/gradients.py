"""Pictures of signed gradients and of relevance, with the formulas of pytorch-cnn-visualizations.

Everything here takes arrays `(height, width, channels)` and returns uint8 RGB pictures. An array
without contrast becomes an even picture, never NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvis2.images.colors import PictureArray, finite, rgb
from kvis2.images.painting import colorize


def gray_saliency(gradients: ArrayLike) -> NDArray[np.float64]:
    """`clip((S - min S) / (P99(S) - min S), 0, 1)` with `S = sum over channels of |g|`.

    Args:
        gradients: `(height, width, channels)`, signed.

    Returns:
        `(height, width)`, 0..1; P99 is the 99th percentile over the pixels. A constant S gives
        zeros.

    Example:
        >>> gray_saliency([[[4.0], [-3.0]], [[5.0], [5.0]]]).tolist()
        [[0.5, 0.0], [1.0, 1.0]]
    """
    total = np.abs(_checked(gradients)).sum(axis=-1)
    low, high = total.min(), np.percentile(total, 99)
    return np.clip(_ratio(total - low, high - low), 0.0, 1.0)


def positive_saliency(gradients: ArrayLike) -> NDArray[np.float64]:
    """`max(0, g) / max(g)`: what raises the score, each channel by itself.

    Args:
        gradients: `(height, width, channels)`, signed.

    Returns:
        The same shape, 0..1; zeros where no gradient is positive.
    """
    positive = np.maximum(_checked(gradients), 0.0)
    return _ratio(positive, positive.max())


def negative_saliency(gradients: ArrayLike) -> NDArray[np.float64]:
    """`max(0, -g) / -min(g)`: what lowers the score, each channel by itself.

    Args:
        gradients: `(height, width, channels)`, signed.

    Returns:
        The same shape, 0..1; zeros where no gradient is negative.
    """
    return positive_saliency(-_checked(gradients))


def color_picture(gradients: ArrayLike) -> PictureArray:
    """`floor(255 (g - min g) / (max g - min g))`, minimum and maximum over all values.

    Args:
        gradients: `(height, width, channels)`, signed, 1 or 3 channels.

    Returns:
        uint8 RGB; black where the gradients are constant.

    Example:
        >>> color_picture([[[-1.0, 0.0, 1.0]]]).tolist()
        [[[0, 127, 255]]]
    """
    values = _checked(gradients)
    stretched = _ratio(values - values.min(), np.ptp(values))
    return rgb((255.0 * stretched).astype(np.uint8))


def gray_picture(gradients: ArrayLike) -> PictureArray:
    """`gray_saliency` as a picture."""
    return color_picture(gray_saliency(gradients)[..., None])


def positive_picture(gradients: ArrayLike) -> PictureArray:
    """`positive_saliency` as a picture in colour."""
    return color_picture(positive_saliency(gradients))


def negative_picture(gradients: ArrayLike) -> PictureArray:
    """`negative_saliency` as a picture in colour."""
    return color_picture(negative_saliency(gradients))


def relevance_limit(relevance: ArrayLike) -> float:
    """`10 (mean |R|^3)^(1/3)`: the value at the end of the colours of `relevance_picture`.

    Args:
        relevance: Any shape.

    Example:
        >>> round(relevance_limit([1.0, -2.0, 3.0]), 4)
        22.8943
    """
    magnitude = np.abs(finite(relevance, "relevance")).astype(np.float64)
    largest = magnitude.max()
    return float(10.0 * largest * np.cbrt(np.mean(_ratio(magnitude, largest) ** 3)))


def relevance_picture(relevance: ArrayLike) -> PictureArray:
    """Red for relevance in favour, blue against, white for none, a little darkened.

    The colormap is "seismic", its RGB times 0.85, from `-relevance_limit` to `relevance_limit`.

    Args:
        relevance: `(height, width)`, signed.

    Returns:
        uint8 RGB.
    """
    limit = relevance_limit(relevance) or 1.0
    values = np.asarray(relevance, np.float64) / limit
    return (0.85 * colorize(values, "seismic", (-1.0, 1.0))).astype(np.uint8)


def _checked(gradients: ArrayLike) -> NDArray[np.float64]:
    values = finite(gradients, "gradients").astype(np.float64)
    if values.ndim != 3:
        raise ValueError(
            "Expected gradients of one image, (height, width, channels). Received: shape "
            f"{values.shape}. Take one of the batch, made with keepdims=True."
        )
    return values


def _ratio(values: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """`values / scale`, and zeros where there is no scale."""
    return values / scale if scale > 0 else np.zeros_like(values)
