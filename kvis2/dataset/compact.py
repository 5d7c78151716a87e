"""Maps in one byte for each place: small enough to keep for a whole data set, and the way back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST, _ZERO = 255, 128  # of maps without and with a sign


class CompactMap(NamedTuple):
    """A map `(height, width)` in bytes.

    `map = scale * values`, or `scale * (values - 128)` if it is signed: off by half of `scale` at
    most, which is 1/510 of the largest magnitude, or 1/254 if it is signed.

    Attributes:
        values: uint8 `(height, width)`.
        scale: What one step is worth, in the units of the map; 0 for a map of zeros.
        signed: Whether a value is negative.
    """

    values: NDArray[np.uint8]
    scale: float
    signed: bool

    @classmethod
    def of(cls, heatmap: NDArray[np.float32]) -> CompactMap:
        """Keep a finite map `(height, width)`.

        Example:
            >>> CompactMap.of(np.array([[0.0, 1.0], [2.0, 4.0]], np.float32)).values.tolist()
            [[0, 64], [128, 255]]
        """
        values = np.asarray(heatmap, np.float64)
        signed = bool(values.min() < 0)
        steps = _MOST - _ZERO if signed else _MOST
        peak = float(np.abs(values).max())
        # The scale is a float32 where it is kept: maps come back the same before and after.
        scale = np.float32(peak / steps)
        if not scale:
            return cls(np.zeros(values.shape, np.uint8), 0.0, False)
        numbers = np.rint(np.clip(values / np.float64(scale), -steps, steps))
        return cls((numbers + (_ZERO if signed else 0)).astype(np.uint8), float(scale), signed)

    @property
    def heatmap(self) -> NDArray[np.float32]:
        """The map, float32 `(height, width)`."""
        numbers = self.values.astype(np.float32) - np.float32(_ZERO if self.signed else 0)
        return numbers * np.float32(self.scale)


def area_means(maps: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Maps with at most `most` places along each axis: each the mean over its area.

    `out[i, j] = mean of map over [i H/h, (i+1) H/h] x [j W/w, (j+1) W/w]`, a place that lies in
    two areas divided between them. The sum of heat keeps its place; maps that are small enough
    stay as they are.

    Args:
        maps: float32 `(batch, height, width)`.
        most: The most places along an axis, from 1.

    Example:
        >>> area_means(np.array([[[0.0, 4.0], [0.0, 4.0]]], np.float32), 1).tolist()
        [[[2.0]]]
    """
    for axis in (1, 2):
        length = maps.shape[axis]
        if length > most:
            weights = _areas(length, most)
            maps = np.moveaxis(np.moveaxis(maps, axis, -1) @ weights.T, -1, axis)
    return np.ascontiguousarray(maps, np.float32)


def _areas(length: int, places: int) -> NDArray[np.float32]:
    """`(places, length)`: which share of each of the new places an old one has."""
    edges = np.arange(places + 1) * (length / places)
    old = np.arange(length)
    shared = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    return (np.clip(shared, 0, None) * (places / length)).astype(np.float32)
