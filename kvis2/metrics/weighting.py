"""What a map holds of sets of positions, and sets and noise on a coarse grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def enlarged(masks: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Masks of a grid at another size, each position taking the cell that it lies in."""
    for axis, length in enumerate(size, start=1):
        cell = np.arange(length) * masks.shape[axis] // length
        masks = np.take(masks, cell, axis=axis)
    return masks


def over_channels(values: NDArray[Any], array: np.ndarray, axes: Sequence[int]) -> NDArray[Any]:
    """`(..., *spatial)` with axes of length one for the channels; with channels, as it is."""
    shape = [array.shape[axis] if axis in axes else 1 for axis in range(1, array.ndim)]
    size = [array.shape[axis] for axis in axes]
    if values.ndim >= array.ndim and list(values.shape[1 - array.ndim :]) == list(array.shape[1:]):
        return values
    return values.reshape(*values.shape[: values.ndim - len(size)], *shape)


def sums_over(weights: NDArray[Any], shared: bool, maps: NDArray[Any]) -> NDArray[np.float64]:
    """What each weighting `(n, [batch,] ...)` finds in each map `(batch, ...)`: `(batch, n)`."""
    found = []
    for number, each in enumerate(maps.astype(np.float64)):
        own = weights if shared else weights[:, number]
        shape = np.broadcast_shapes(own.shape[1:], each.shape)
        whole = np.broadcast_to(each, shape)
        # Axes of length one in the weights stand for all channels of the map.
        summed = tuple(
            axis for axis, length in enumerate(own.shape[1:]) if length == 1 != shape[axis]
        )
        reduced = whole.sum(axis=summed, keepdims=True) if summed else whole
        found.append(own.reshape(len(own), -1).astype(np.float64) @ reduced.ravel())
    return np.array(found)


def is_shared(values: NDArray[Any], array: np.ndarray, axes: Sequence[int]) -> bool:
    """Whether `(copies, ...)` is the same for all samples, instead of `(copies, batch, ...)`."""
    size = tuple(array.shape[axis] for axis in axes)
    shapes = (size, array.shape[1:])
    shared = values.shape[1:] in shapes
    own = values.shape[1:2] == (len(array),) and values.shape[2:] in shapes
    if shared and own:
        raise ValueError(
            f"Expected arrays that are either the same for all {len(array)} images or one for "
            f"each. Received: shape {values.shape}, which may be either, as there are as many "
            "images as channels. Give (n, batch, *input), with batch and channels."
        )
    if shared or own:
        return shared
    raise ValueError(
        f"Expected arrays of shape (n, {', '.join(map(str, size))}), with or without the batch "
        f"after n and the channels at the end, for images of shape {array.shape}. Received: shape "
        f"{values.shape}. Give them in the size of the images."
    )
