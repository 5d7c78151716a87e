"""Cubic spline resizing on a corner-aligned grid, as keras-vis enlarges its maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def zoomed(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Interpolate by cubic B-splines; the first and last samples of every axis stay in place.

    `out(p) = sum_j c_j B(p - j)`, `p_i = i (n_in - 1) / (n_out - 1)`, with the coefficients c that
    make `out(j) = in_j` at the samples, mirrored at the edges. It overshoots between them.

    Args:
        values: Any rank.
        size: The new length of every axis.

    Returns:
        float64 of that size.

    Example:
        >>> zoomed(np.eye(2), (3, 3)).round(2).tolist()
        [[1.0, 0.5, 0.0], [0.5, 0.5, 0.5], [0.0, 0.5, 1.0]]
    """
    for axis, length in enumerate(size):
        matrix = _spline(values.shape[axis], length)
        values = np.moveaxis(np.tensordot(matrix, values, (1, axis)), 0, axis)
    return values


def _spline(old: int, new: int) -> np.ndarray:
    """The matrix `(new, old)` of spline interpolation along one axis."""
    if old == 1:
        return np.ones((new, 1))
    positions = np.linspace(0.0, old - 1.0, new) if new > 1 else np.zeros(1)
    return _basis(positions, old) @ np.linalg.inv(_basis(np.arange(old, dtype=float), old))


def _basis(positions: np.ndarray, count: int) -> np.ndarray:
    """The B-spline of every coefficient at every position, `(positions, count)`."""
    basis = np.zeros((len(positions), count))
    period = 2 * (count - 1)
    for offset in range(-1, count + 1):
        mirrored = abs(offset) if offset < count else period - offset
        basis[:, mirrored] += _cubic(np.abs(positions - offset))
    return basis


def _cubic(distance: np.ndarray) -> np.ndarray:
    """The cubic B-spline, which is zero from a distance of 2 on."""
    near = 2.0 / 3.0 - distance**2 + distance**3 / 2.0
    far = np.maximum(2.0 - distance, 0.0) ** 3 / 6.0
    return np.where(distance < 1.0, near, far)
