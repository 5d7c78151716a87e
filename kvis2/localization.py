"""Does a map point at the object? Two numbers per image, from a heatmap and the object's boxes.

A box is `[x0, y0, x1, y1]` in input pixels: columns `x0` up to `x1`, rows `y0` up to `y1`, ends
excluded, so that `[0, 0, width, height]` is the whole image. A pixel belongs to a box when the
box covers any part of it. Negative values of a signed map count as no evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
Boxes: TypeAlias = Sequence[Any] | npt.NDArray[Any]
"""One entry per image: a box `[x0, y0, x1, y1]`, or a list of boxes."""


def pointing_game(maps: npt.ArrayLike, boxes: Boxes) -> FloatArray:
    """Whether the hottest pixel of each map lies in one of the image's boxes.

    `hit = |{p in boxes : map(p) = max(map)}| / |{p : map(p) = max(map)}|`, which is 1 or 0 when
    one pixel alone is the hottest; pixels that tie for it share the hit. A map without any
    positive value points nowhere and scores 0.

    Args:
        maps: Heatmaps, `(batch, height, width)`.
        boxes: For each image a box `[x0, y0, x1, y1]` in pixels, or a list of boxes.

    Returns:
        float32 `(batch,)`, each in 0..1; the mean over a data set is the accuracy of the game.

    Raises:
        ValueError: If the shapes do not fit, or a box lies outside its image.

    References:
        Zhang et al., Top-down neural attention by excitation backprop, 2016,
        https://arxiv.org/abs/1608.00507

    Example:
        >>> heatmap = np.zeros((1, 4, 4))
        >>> heatmap[0, 1, 2] = 1.0
        >>> pointing_game(heatmap, [[2, 0, 4, 2]])
        array([1.], dtype=float32)
    """
    evidence = _evidence(maps)
    inside = box_masks(boxes, *evidence.shape)
    peak = evidence.max(axis=(1, 2), keepdims=True)
    hottest = (evidence == peak) & (peak > 0)
    hits = (hottest & inside).sum(axis=(1, 2))
    return (hits / np.maximum(hottest.sum(axis=(1, 2)), 1)).astype(np.float32)


def energy_in_box(maps: npt.ArrayLike, boxes: Boxes) -> FloatArray:
    """Which share of each map's heat lies in the image's boxes.

    `share = sum of max(map, 0) over the boxes / sum of max(map, 0) over the image`. A pixel in
    two boxes counts once. A map without any positive value scores 0. Compare it with the share of
    the area, which is what a map that knows nothing reaches.

    Args:
        maps: Heatmaps, `(batch, height, width)`.
        boxes: For each image a box `[x0, y0, x1, y1]` in pixels, or a list of boxes.

    Returns:
        float32 `(batch,)`, each in 0..1.

    Raises:
        ValueError: If the shapes do not fit, or a box lies outside its image.

    References:
        Wang et al., Score-CAM, 2020 (the energy-based pointing game),
        https://arxiv.org/abs/1910.01279

    Example:
        >>> energy_in_box(np.ones((1, 4, 4)), [[0, 0, 2, 2]])
        array([0.25], dtype=float32)
    """
    evidence = _evidence(maps)
    inside = box_masks(boxes, *evidence.shape)
    total = evidence.sum(axis=(1, 2))
    share = (evidence * inside).sum(axis=(1, 2)) / np.where(total > 0, total, 1)
    return share.astype(np.float32)


def box_masks(boxes: Boxes, batch: int, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Mark the pixels that the boxes of each image cover.

    Args:
        boxes: For each image a box `[x0, y0, x1, y1]` in pixels, or a list of boxes.
        batch: How many images there are.
        height: Height of the images in pixels.
        width: Width of the images in pixels.

    Returns:
        bool `(batch, height, width)`.

    Raises:
        ValueError: If there is not one entry per image, or a box is not one, or lies outside.
    """
    if len(boxes) != batch:
        raise ValueError(
            f"Expected one box, or list of boxes, for each of the {batch} images. "
            f"Received: boxes for {len(boxes)} images. Give as many as there are images."
        )
    masks = np.zeros((batch, height, width), dtype=bool)
    for index, boxes_of_image in enumerate(boxes):
        for x0, y0, x1, y1 in _checked(boxes_of_image, index, height, width):
            rows = slice(int(np.floor(y0)), int(np.ceil(y1)))
            columns = slice(int(np.floor(x0)), int(np.ceil(x1)))
            masks[index, rows, columns] = True
    return masks


def _checked(boxes_of_image: Any, index: int, height: int, width: int) -> npt.NDArray[np.float64]:
    try:
        found = np.asarray(boxes_of_image, dtype=float)
    except (TypeError, ValueError):
        found = np.empty(0)
    if found.ndim == 1:
        found = found[np.newaxis]
    if found.ndim != 2 or found.shape[1] != 4 or not len(found):
        raise ValueError(
            f"Expected a box [x0, y0, x1, y1] or a list of boxes for image {index}. "
            f"Received: {boxes_of_image!r}. Give the corners in input pixels."
        )
    for x0, y0, x1, y1 in found:
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ValueError(
                f"Expected the box of image {index} to lie inside its image of width {width} and "
                f"height {height}. Received: {[float(x0), float(y0), float(x1), float(y1)]}. Give "
                "[x0, y0, x1, y1] in input pixels with x0 < x1 and y0 < y1."
            )
    return found


def _evidence(maps: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the positive part, in double precision so that the shares of a sum add up to one."""
    array = np.asarray(maps, dtype=np.float64)
    if array.ndim != 3:
        raise ValueError(
            f"Expected maps of shape (batch, height, width). Received: shape {array.shape}. "
            "Add the batch axis, or reduce channels to one map first."
        )
    if np.isnan(array).any():
        raise ValueError(
            "Expected maps without NaN. "
            f"Received: {int(np.isnan(array).sum())} NaN values. Look for the pass that made them."
        )
    return np.maximum(array, 0)
