"""Maps made smaller by means over areas, which keep the sum of heat in its place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def area_means(maps: NDArray[np.float32], places: tuple[int, int]) -> NDArray[np.float32]:
    """Maps with at most so many places along each axis: each the mean over its area.

    `out[i, j] = mean of map over [i H/h, (i+1) H/h] x [j W/w, (j+1) W/w]`, a place that lies in
    two areas divided between them. The sum of heat keeps its place; maps that are small enough
    stay as they are.

    Args:
        maps: float32 `(batch, height, width)`.
        places: The most places along each of the two axes, from 1.

    Example:
        >>> area_means(np.array([[[0.0, 4.0], [0.0, 4.0]]], np.float32), (1, 1)).tolist()
        [[[2.0]]]
    """
    for axis, most in zip((1, 2), places, strict=True):
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
