"""Sequences and volumes, which have one and three spatial axes, as pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from kvis2.images.colors import Limits, PictureArray, finite
from kvis2.images.drawing import INK
from kvis2.images.painting import Opacity, blend, colorize, heat_limits, opacities

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


def montage(volume: ArrayLike, slices: int = 9, columns: int | None = None) -> NDArray[Any]:
    """Lay slices of a volume side by side: `(depth, height, width)` -> `(rows, columns)` of them.

    The slices are spread evenly over the depth, first and last included; free cells are 0. A
    volume and its heatmap, laid out alike, are an image and its heatmap.

    Args:
        volume: `(depth, height, width)` or `(depth, height, width, channels)`.
        slices: how many are shown at most.
        columns: default: as square as it goes.

    Returns:
        Array `(rows * height, columns * width)`, with channels if given; dtype of `volume`.

    Raises:
        ValueError: `volume` has another rank or no slice, `slices` or `columns` is below 1.

    Example:
        >>> montage(np.arange(4).reshape(4, 1, 1)).tolist()
        [[0, 1], [2, 3]]
    """
    volume = np.asarray(volume)
    if volume.ndim not in (3, 4) or 0 in volume.shape:
        raise ValueError(
            f"Expected a volume (depth, height, width) or (depth, height, width, channels). "
            f"Received: shape {volume.shape}. Pick one volume of the batch."
        )
    count = min(at_least_one(slices, "slices"), len(volume))
    shown = volume[np.rint(np.linspace(0, len(volume) - 1, count)).astype(int)]
    columns = columns_of(count, columns)
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, *volume.shape[1:]), volume.dtype)
    cells[:count] = shown
    cells = cells.reshape(rows, columns, *volume.shape[1:]).swapaxes(1, 2)
    return cells.reshape(rows * volume.shape[1], columns * volume.shape[2], *volume.shape[3:])


def signal(
    values: ArrayLike,
    heatmap: ArrayLike,
    *,
    width: int = 342,
    height: int = 120,
    alpha: float = 0.8,
    colormap: str | Colormap | None = None,
    opacity: Opacity = "heat",
    limits: Limits | None = None,
) -> PictureArray:
    """Draw a sequence as a dark line over its heatmap, which colours the ground from left to right.

    Step i of n is at x = (i + 1/2) * width / n; the line spans the values' minimum to maximum.

    Args:
        values: `(length,)` or `(length, channels)`; the first three channels get a line.
        heatmap: `(length,)`, 0..1 or, signed, -1..1.
        width: pixels.
        height: pixels.
        alpha: largest weight of the heatmap's colour over white, 0..1.
        colormap: as for `colorize`.
        opacity: as for `overlay`.
        limits: as for `colorize`.

    Returns:
        uint8 RGB array `(height, width, 3)`.

    Raises:
        ValueError: lengths differ, a wrong rank, NaN or infinity.

    Example:
        >>> signal(np.sin(np.arange(50)), np.linspace(0, 1, 50)).shape
        (120, 342, 3)
    """
    values = finite(values, "values")
    heatmap = finite(heatmap, "a heatmap")
    if values.ndim not in (1, 2) or 0 in values.shape or heatmap.shape != values.shape[:1]:
        raise ValueError(
            f"Expected values (length,) or (length, channels) and a heatmap (length,). Received: "
            f"shapes {values.shape} and {heatmap.shape}. Pick one sample of the batch."
        )
    length = len(values)
    column_step = ((np.arange(width) + 0.5) * length / width).astype(int)
    limits = heat_limits(heatmap, colormap) if limits is None else limits
    ground = colorize(heatmap, colormap, limits)
    weight = opacities(heatmap, limits, alpha, opacity)
    ground = blend(np.full_like(ground, 255), ground, weight)[column_step]
    canvas = Image.fromarray(np.repeat(ground[np.newaxis], height, axis=0))
    low, span = values.min(), np.ptp(values)
    lines = values.reshape(length, -1).T[:3]
    fine = 3  # drawn three times as large, then reduced: smooth lines
    x = (np.arange(length) + 0.5) * (width * fine / length)
    for line, ink in zip(lines, (INK, (120, 20, 90), (10, 90, 90)), strict=False):
        share = (line - low) / span if span > 0 else np.full(length, 0.5)
        y = (height - 8 - share * (height - 16)) * fine
        mask = Image.new("L", (width * fine, height * fine), 0)
        points = np.stack([x, y], axis=-1).ravel().tolist()
        # One step alone has no line: a short level stroke stands for it.
        points = points if length > 1 else [0, points[1], width * fine, points[1]]
        ImageDraw.Draw(mask).line(points, fill=255, width=2 * fine - 1, joint="curve")
        canvas.paste(ink, (0, 0), mask.resize((width, height), Image.Resampling.BOX))
    return np.array(canvas)


def columns_of(count: int, columns: int | None) -> int:
    """Return the number of columns for `count` cells: as given, else as square as it goes."""
    if columns is None:
        return int(np.ceil(np.sqrt(count)))
    return min(at_least_one(columns, "columns"), count)


def at_least_one(number: int, name: str) -> int:
    """Return `number`; refuse less than 1."""
    if number < 1:
        raise ValueError(f"Expected {name} to be at least 1. Received: {number}.")
    return number
