"""Whether two rivals computed the same, before it is asked who was faster."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Agreement(NamedTuple):
    """How far the maps of a rival are from those of the floor, each map divided by its maximum.

    Attributes:
        agrees: Whether that is close enough for a comparison of times to mean something.
        correlation: The lowest Pearson correlation of any map.
        error: The 99th percentile of the absolute difference.
        largest: The largest absolute difference.
    """

    agrees: bool
    correlation: float
    error: float
    largest: float


class Comparison(NamedTuple):
    """What is close enough."""

    correlation: float
    error: float
    largest: float


COMPARISONS = {
    # Batch normalisation folded into convolutions moves maps by up to 1e-4.
    "map": Comparison(0.9999, 3e-4, 1e-3),
    # On deep nets the input gradients of any two implementations differ at single pixels, where
    # a rounding error turns a ReLU on; so the largest difference says nothing.
    "gradient": Comparison(0.99, 0.05, np.inf),
    "score": Comparison(-1.0, 0.05, 0.05),
}

# What a peer computes on purpose in another way. Its time is taken, and the difference told.
KNOWN_DIFFERENCES = {
    ("scorecam", "tf-keras-vis"): (
        "upsamples its masks with aligned corners, and takes the channels of the whole batch "
        "where `max_channels` limits them"
    ),
    ("scorecam", "grad-cam"): "weighs by a softmax over channels, not by the probabilities",
    ("integrated", "xplique"): "trapezoidal rule",
    ("guided", "captum"): "leaves ReLU6 as it is",
    ("road", "grad-cam"): "its noise is 0.01 of a unit of the input, and cannot be left out",
}


def compare(kind: str, reference: np.ndarray, maps: np.ndarray) -> Agreement:
    """Compare the results of a rival with those of the floor.

    Args:
        kind: A key of `COMPARISONS`.
        reference: `(batch, height, width)`, or `(batch,)` for scores.
        maps: The same, or finished pictures: larger, and stretched to 0..1.
    """
    limits = COMPARISONS[kind]
    if maps.ndim == 3 and maps.shape[0] == reference.shape[0] and maps.size > reference.size:
        reference = _stretched(_resized(reference, maps.shape[1:]))
    if maps.shape != reference.shape or not np.isfinite(maps).all():
        return Agreement(False, 0.0, np.inf, np.inf)
    expected, found = _scaled(reference), _scaled(maps)
    if kind == "score":
        expected, found = np.ones_like(reference), maps / reference
    differences = np.abs(found - expected)
    correlation = min(map(_correlation, expected, found)) if kind != "score" else 1.0
    error, largest = float(np.percentile(differences, 99)), float(differences.max())
    agrees = (
        correlation >= limits.correlation and error <= limits.error and largest <= limits.largest
    )
    return Agreement(agrees, correlation, error, largest)


def _scaled(maps: np.ndarray) -> np.ndarray:
    flat = maps.reshape(len(maps), -1)
    peaks = np.abs(flat).max(axis=1, keepdims=True)
    return flat / np.where(peaks == 0, 1, peaks)


def _stretched(maps: np.ndarray) -> np.ndarray:
    low, high = (f(maps, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return (maps - low) / (high - low)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() == 0 or b.std() == 0:
        return float(np.allclose(a, b))
    return float(np.corrcoef(a, b)[0, 1])


def _resized(maps: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Linear, with half-pixel centres, as every package here but one resizes."""
    matrices = [_linear_weights(old, new) for old, new in zip(maps.shape[1:], size, strict=True)]
    return np.einsum("yh,bhw,xw->byx", matrices[0], maps, matrices[1])


def _linear_weights(old: int, new: int) -> np.ndarray:
    places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(old)))
