"""Does a map point at the object? Numbers per image, from a heatmap and the object's place.

The place is given by boxes or by a mask. A box is `[x0, y0, x1, y1]` in input pixels: columns `x0`
up to `x1`, rows `y0` up to `y1`, ends excluded, so that `[0, 0, width, height]` is the whole image.
A pixel belongs to a box when the box covers any part of it. A mask has the value True (or 1) where
the object is; `(height, width)` is one mask for all images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
Boxes: TypeAlias = Sequence[Any] | npt.NDArray[Any]
"""One entry per image: a box `[x0, y0, x1, y1]`, or a list of boxes; or masks."""


def pointing_game(maps: npt.ArrayLike, boxes: Boxes, tolerance: float = 0) -> FloatArray:
    """Whether the hottest pixel of each map lies on the object.

    `hit = |{p on the object : map(p) = max(map)}| / |{p : map(p) = max(map)}|`, which is 1 or 0
    when one pixel alone is the hottest; pixels that tie for it share the hit. A map without any
    positive value points nowhere and scores 0.

    Args:
        maps: Heatmaps, `(batch, height, width)`. Negative values count as no evidence.
        boxes: For each image a box `[x0, y0, x1, y1]` in pixels, or a list of boxes; or masks, bool
            `(batch, height, width)` or `(height, width)`.
        tolerance: How far from the object the hottest pixel may lie, in pixels between centres.

    Returns:
        float32 `(batch,)`, each in 0..1; the mean over a data set is the accuracy of the game.

    Raises:
        ValueError: If the shapes do not fit, a box lies outside its image, or a mask is empty.

    References:
        Zhang et al., Top-down neural attention by excitation backprop, 2016,
        https://arxiv.org/abs/1608.00507

    Example:
        >>> heatmap = np.zeros((1, 4, 4))
        >>> heatmap[0, 1, 2] = 1.0
        >>> pointing_game(heatmap, [[2, 0, 4, 2]])
        array([1.], dtype=float32)
    """
    evidence = np.maximum(_checked_maps(maps), 0)
    if not tolerance >= 0:
        raise ValueError(
            f"Expected `tolerance` in pixels, from 0. Received: {tolerance!r}. Give for example 15."
        )
    inside = _grown(object_masks(boxes, *evidence.shape), tolerance)
    peak = evidence.max(axis=(1, 2), keepdims=True)
    hottest = (evidence == peak) & (peak > 0)
    hits = (hottest & inside).sum(axis=(1, 2))
    return (hits / np.maximum(hottest.sum(axis=(1, 2)), 1)).astype(np.float32)


def energy_in_box(maps: npt.ArrayLike, boxes: Boxes) -> FloatArray:
    """Which share of each map's heat lies on the object.

    `share = sum of max(map, 0) over the object / sum of max(map, 0) over the image`. A pixel in
    two boxes counts once. A map without any positive value scores 0. Compare it with the share of
    the area, which is what a map that knows nothing reaches.

    Args:
        maps: Heatmaps, `(batch, height, width)`. Negative values count as no evidence; give
            `np.abs(maps)` to count them as evidence.
        boxes: For each image a box `[x0, y0, x1, y1]` in pixels, or a list of boxes; or masks, bool
            `(batch, height, width)` or `(height, width)`.

    Returns:
        float32 `(batch,)`, each in 0..1.

    Raises:
        ValueError: If the shapes do not fit, a box lies outside its image, or a mask is empty.

    References:
        Wang et al., Score-CAM, 2020 (the energy-based pointing game),
        https://arxiv.org/abs/1910.01279

    Example:
        >>> energy_in_box(np.ones((1, 4, 4)), [[0, 0, 2, 2]])
        array([0.25], dtype=float32)
    """
    evidence = np.maximum(_checked_maps(maps), 0)
    inside = object_masks(boxes, *evidence.shape)
    total = evidence.sum(axis=(1, 2))
    share = (evidence * inside).sum(axis=(1, 2)) / np.where(total > 0, total, 1)
    return share.astype(np.float32)


def relevance_rank(maps: npt.ArrayLike, boxes: Boxes) -> FloatArray:
    """Which share of the object's K pixels is among the K hottest of the map.

    `share = |{the K highest pixels} on the object| / K`, with K the number of pixels of the
    object. Where pixels tie for the last places, each counts with the share of them that fit. A
    map of one value ranks nothing and scores 0.

    Args:
        maps: Heatmaps, `(batch, height, width)`. Only the order of the values counts.
        boxes: For each image a box `[x0, y0, x1, y1]` in pixels, or a list of boxes; or masks, bool
            `(batch, height, width)` or `(height, width)`.

    Returns:
        float32 `(batch,)`, each in 0..1. A map in random order reaches the share of the area.

    Raises:
        ValueError: If the shapes do not fit, a box lies outside its image, or a mask is empty.

    References:
        Arras et al., CLEVR-XAI, 2022 (relevance rank accuracy), https://arxiv.org/abs/2003.07258

    Example:
        >>> relevance_rank([[[0.9, 0.1], [0.8, 0.2]]], [[0, 0, 1, 2]])
        array([1.], dtype=float32)
    """
    flat, inside = _flattened(maps, boxes)
    shares = np.zeros(len(flat))
    for index in np.flatnonzero(np.ptp(flat, axis=1)):
        values, on_object = flat[index], inside[index]
        size = on_object.sum()
        last = np.partition(values, len(values) - size)[len(values) - size]
        above, tied = values > last, values == last
        fitting = (size - above.sum()) / tied.sum()
        shares[index] = (on_object & above).sum() + fitting * (on_object & tied).sum()
    return (shares / inside.sum(axis=1)).astype(np.float32)


def localization_auc(maps: npt.ArrayLike, boxes: Boxes) -> FloatArray:
    """How surely a pixel of the object is hotter than one beside it.

    `auc = P(map(p) > map(q)) + P(map(p) = map(q)) / 2` for p on the object and q off it: the area
    under the ROC curve with the object as truth. A map in random order reaches 0.5; a map of one
    value ranks nothing and scores 0.

    Args:
        maps: Heatmaps, `(batch, height, width)`. Only the order of the values counts.
        boxes: For each image a box `[x0, y0, x1, y1]` in pixels, or a list of boxes; or masks, bool
            `(batch, height, width)` or `(height, width)`.

    Returns:
        float32 `(batch,)`, each in 0..1.

    Raises:
        ValueError: If the shapes do not fit, a box lies outside its image, a mask is empty, or an
            object fills its whole image.

    References:
        Fawcett, An introduction to ROC analysis, 2006,
        https://doi.org/10.1016/j.patrec.2005.10.010

    Example:
        >>> localization_auc([[[0.9, 0.1], [0.8, 0.2]]], [[0, 0, 1, 2]])
        array([1.], dtype=float32)
    """
    flat, inside = _flattened(maps, boxes)
    on, off = inside.sum(axis=1), (~inside).sum(axis=1)
    if not off.all():
        raise ValueError(
            "Expected an object that leaves pixels beside it, to compare with. Received: one that "
            f"fills image {np.flatnonzero(off == 0).tolist()}. Leave these images out."
        )
    sums = np.array([mean_ranks(v)[m].sum() for v, m in zip(flat, inside, strict=True)])
    area = (sums - on * (on + 1) / 2) / (on * off)
    return np.where(np.ptp(flat, axis=1) > 0, area, 0).astype(np.float32)


def mean_ranks(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The ranks 1 .. n of a vector, lowest first; values that tie share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def object_masks(boxes: Boxes, batch: int, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Mark the pixels of each image's object, given by boxes or by masks.

    Args:
        boxes: For each image a box `[x0, y0, x1, y1]` in pixels, or a list of boxes; or masks:
            bools, or an array of zeros and ones, `(batch, height, width)` or `(height, width)`.
        batch: How many images there are.
        height: Height of the images in pixels.
        width: Width of the images in pixels.

    Returns:
        bool `(batch, height, width)`.

    Raises:
        ValueError: If there is not one entry per image, a box lies outside, or a mask is empty.
    """
    masks = as_masks(boxes, (height, width))
    if masks is None:
        return box_masks(boxes, batch, height, width)
    if masks.shape[-2:] != (height, width) or masks.ndim not in (2, 3):
        raise ValueError(
            f"Expected masks of shape (batch, {height}, {width}), the size of the maps. Received: "
            f"shape {masks.shape}. Resize the masks to the maps."
        )
    if masks.ndim == 2:
        masks = np.broadcast_to(masks, (batch, height, width))
    if len(masks) != batch:
        raise ValueError(
            f"Expected one mask for each of the {batch} images. Received: {len(masks)} masks. Give "
            "as many as there are images, or one of shape (height, width) for all."
        )
    empty = np.flatnonzero(~masks.any(axis=(1, 2)))
    if empty.size:
        raise ValueError(
            "Expected masks that mark at least one pixel. Received: an empty mask for image "
            f"{empty.tolist()}. Leave images without the object out."
        )
    return masks


def as_masks(boxes: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """What was given as bool masks; None where it is boxes."""
    try:
        array = np.asarray(boxes)
    except ValueError:  # Images with different numbers of boxes.
        return None
    if array.dtype == bool:
        return array
    zeros_and_ones = array.dtype.kind in "uif" and np.isin(array, (0, 1)).all()
    return array.astype(bool) if zeros_and_ones and array.shape[-2:] == size else None


def _grown(masks: npt.NDArray[np.bool_], radius: float) -> npt.NDArray[np.bool_]:
    """The pixels whose centre lies within `radius` of that of a marked one."""
    if radius < 1:
        return masks
    high, wide = (min(int(radius), size - 1) for size in masks.shape[1:])
    grown = masks.copy()
    for dy, dx in np.ndindex(2 * high + 1, 2 * wide + 1):
        dy, dx = dy - high, dx - wide
        if dy * dy + dx * dx <= radius * radius:
            grown[_moved(dy, dx)] |= masks[_moved(-dy, -dx)]
    return grown


def _moved(dy: int, dx: int) -> tuple[slice, ...]:
    """Where the pixels of an image land that stay inside when moved by `(dy, dx)`."""
    lengths = (slice(max(each, 0), min(each, 0) or None) for each in (dy, dx))
    return (slice(None), *lengths)


def _flattened(
    maps: npt.ArrayLike, boxes: Boxes
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Maps and the masks of their objects, `(batch, pixels)` each."""
    values = _checked_maps(maps)
    inside = object_masks(boxes, *values.shape)
    return values.reshape(len(values), -1), inside.reshape(len(values), -1)


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


def _checked_maps(maps: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The maps in double precision, so that the shares of a sum add up to one."""
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
    return array
