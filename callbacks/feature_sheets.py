"""Sheets of kernels and feature maps, above the bar of their colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from kvis2.images import (
    LINE,
    WHITE,
    captioned,
    colorize,
    columns_of,
    grid,
    resize,
    write,
)

_WIDTH = 350  # pixels, as wide as TensorBoard shows a picture


_MARGIN = 2  # pixels around a tile


_FRAME = 150  # grey level


_LEAST_SIDE = 16  # pixels of a tile, where there are so many that the picture must be wider


_NUMBER = 72  # pixels for the number at either end of the colours


_BAR = 10  # pixels, height of the colours


def color_bar(low: float, high: float, colormap: str, width: int = _WIDTH) -> np.ndarray:
    """Draw the colours from `low` to `high` with the two numbers beside them.

    Args:
        low: The value at the lower end of the colormap.
        high: The value at its upper end.
        colormap: Name of a matplotlib colormap.
        width: Pixels.

    Returns:
        uint8 RGB `(18, width, 3)`.
    """
    canvas = Image.new("RGB", (width, LINE), WHITE)
    colors = colorize(np.linspace(0, 1, width - 2 * _NUMBER), colormap, (0.0, 1.0))
    bar = Image.fromarray(np.repeat(colors[np.newaxis], _BAR, axis=0))
    canvas.paste(bar, (_NUMBER, (LINE - _BAR) // 2))
    write(canvas, (_NUMBER - 6, 0), f"{low:.3g}", _NUMBER - 6, align="right")
    write(canvas, (width - _NUMBER + 6, 0), f"{high:.3g}", _NUMBER - 6)
    return np.array(canvas)


def feature_sheet(
    tiles: Sequence[np.ndarray] | np.ndarray,
    columns: int | None = None,
    *,
    captions: Sequence[str] | None = None,
    bar: np.ndarray | None = None,
) -> np.ndarray:
    """Lay tiles out in a picture of `_WIDTH` pixels, with captions, above a bar of colours."""
    columns = columns_of(len(tiles), columns)
    side = (_WIDTH - _MARGIN) // columns - _MARGIN
    side = max(side, 2 + min(tiles[0].shape[1], _LEAST_SIDE))
    drawn = [_framed(resize(tile, side - 2)) for tile in tiles]
    if captions is not None:
        drawn = [captioned(tile, text) for tile, text in zip(drawn, captions, strict=True)]
    sheet = grid(drawn, columns, _MARGIN)
    parts = [sheet] if bar is None else [sheet, bar]
    width = max(part.shape[1] for part in [*parts, np.empty((0, _WIDTH))])
    return np.concatenate([_centred(part, width) for part in parts])


def _framed(tile: np.ndarray) -> np.ndarray:
    """A tile with a grey line around it: where colours are near white its end is not seen."""
    return np.pad(tile, ((1, 1), (1, 1), (0, 0)), constant_values=_FRAME)


def _centred(picture: np.ndarray, width: int) -> np.ndarray:
    """A picture in the middle of white of a greater width."""
    free = width - picture.shape[1]
    return np.pad(picture, ((0, 0), (free // 2, free - free // 2), (0, 0)), constant_values=255)


def color_limits(values: np.ndarray, signed: bool) -> tuple[float, float]:
    """The values at the ends of the colours; all zero is drawn as the 0 of -1..1."""
    scale = float(np.abs(values).max()) or 1.0
    return (-scale if signed else 0.0), scale
