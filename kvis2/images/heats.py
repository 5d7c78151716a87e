"""The pictures of a panel: the image, and one or two heatmaps over it, at their final size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from kvis2.images.colors import Display, Limits, finite, rgb
from kvis2.images.drawing import (
    GREY,
    INK,
    LINE,
    MARGIN,
    TRACK,
    WHITE,
    checked_boxes,
    draw_boxes,
    scaled,
    write,
)
from kvis2.images.painting import (
    Opacity,
    blend,
    chosen_colormap,
    colorize,
    is_flat,
    opacities,
)
from kvis2.images.sequences import montage, signal

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

_LEGEND = 24  # pixels: a bar of 8 and the numbers beside it
_WIDE = 2.5  # width by height, from which on pictures stand above each other


class HeatStyle(NamedTuple):
    """How heat is painted: see `kvis2.images.overlay`."""

    alpha: float
    colormap: str | Colormap | None
    opacity: Opacity
    limits: Limits


def draw_pictures(
    image: ArrayLike,
    heatmaps: Sequence[ArrayLike | None],
    room: tuple[int, int],
    box: ArrayLike | None,
    style: HeatStyle,
    display: Display | None,
) -> Image.Image:
    """Draw the image and its overlays with a legend, `room[0]` pixels wide.

    Args:
        image: As for `panel`.
        heatmaps: One for each place; None leaves a place empty, but not the first.
        room: Width, and the height that the pictures should not exceed, in pixels.
        box: As for `panel`.
        style: How heat is painted.
        display: As for `panel`.
    """
    maps = [None if each is None else finite(each, "a heatmap") for each in heatmaps]
    image = np.asarray(image)
    for each in maps:
        if each is not None:
            _check_shapes(image, each, box)
    given = [each for each in maps if each is not None]
    if given[0].ndim == 1:
        return _signals(image, maps, room, style)
    if given[0].ndim == 3:
        image = montage(image)
        maps = [None if each is None else montage(each) for each in maps]
    return _laid_out(rgb(image, display), maps, room, box, style)


def _check_shapes(image: NDArray, heatmap: NDArray, box: ArrayLike | None) -> None:
    if image.shape[: heatmap.ndim] != heatmap.shape or image.ndim - heatmap.ndim not in (0, 1):
        raise ValueError(
            f"Expected a heatmap of the image's shape without channels. Received: image "
            f"{image.shape} and heatmap {heatmap.shape}. Resize the map to the image, or pick "
            f"one map of the batch."
        )
    if heatmap.ndim != 2 and box is not None:
        raise ValueError(
            f"Expected no box for a sequence or a volume. Received: box={box!r} and a heatmap of "
            f"shape {heatmap.shape}. Leave box out."
        )


def _signals(
    values: NDArray, maps: Sequence[NDArray | None], room: tuple[int, int], style: HeatStyle
) -> Image.Image:
    """A sequence over its heat, once for each map, one below the other."""
    width, height = room[0] - 2 * MARGIN - _LEGEND, max(24, min(120, room[1]) // len(maps) - 2)
    canvas = Image.new("RGB", (room[0], len(maps) * (height + MARGIN)), WHITE)
    for row, heat in enumerate(maps):
        top = row * (height + MARGIN)
        if heat is not None:
            flat = is_flat(heat)
            drawn = signal(
                values,
                np.full_like(heat, 0.5) if flat else heat,
                width=width,
                height=height,
                alpha=style.alpha,
                colormap="gray" if flat else style.colormap,
                opacity="even" if flat else style.opacity,
                limits=None if flat else style.limits,
            )
            canvas.paste(Image.fromarray(drawn), (MARGIN, top))
            if flat:
                _say_flat(canvas, (MARGIN, top, width, height), heat)
    _legend(canvas, (room[0] - _LEGEND, 0, height), style)
    return canvas


def _laid_out(
    picture: NDArray[np.uint8],
    maps: Sequence[NDArray | None],
    room: tuple[int, int],
    box: ArrayLike | None,
    style: HeatStyle,
) -> Image.Image:
    """Image and overlays side by side, or above each other where they are wide."""
    tall, wide = picture.shape[:2]
    count = 1 + len(maps)
    stacked = wide >= _WIDE * tall
    columns, rows = (1, count) if stacked else (count, 1)
    cell_width = (room[0] - _LEGEND - (columns + 1) * MARGIN) // columns
    least = 24 if stacked else cell_width // 2
    cell_height = max(least, room[1] // rows - MARGIN)
    scale = min(cell_width / wide, cell_height / tall)
    size = max(1, round(wide * scale)), max(1, round(tall * scale))
    boxes = None if box is None else checked_boxes(box, wide, tall)
    shown = scaled(Image.fromarray(picture), size)
    flat = [heat is not None and is_flat(heat) for heat in maps]
    heated = [_heated(shown, heat, each, style) for heat, each in zip(maps, flat, strict=True)]
    pictures = [shown.copy(), *heated]
    canvas = Image.new("RGB", (room[0], rows * (size[1] + MARGIN)), WHITE)
    for index, drawn in enumerate(pictures):
        if boxes is not None:
            draw_boxes(drawn, boxes * (np.array(size * 2) / (wide, tall, wide, tall)))
        column, row = (0, index) if stacked else (index, 0)
        left = MARGIN + column * (cell_width + MARGIN) + (cell_width - size[0]) // 2
        top = row * (size[1] + MARGIN)
        canvas.paste(drawn, (left, top))
        heat = maps[index - 1] if index else None
        if heat is not None and flat[index - 1]:
            _say_flat(canvas, (left, top, *size), heat)
    _legend(canvas, (room[0] - _LEGEND, 0, size[1]), style)
    return canvas


def _heated(shown: Image.Image, heat: NDArray | None, flat: bool, style: HeatStyle) -> Image.Image:
    """The overlay of one map; grey where it is flat, plain where there is none."""
    if heat is None:
        return Image.new("RGB", shown.size, TRACK)
    if flat:
        return shown.convert("L").convert("RGB")
    values = np.asarray(scaled(Image.fromarray(heat.astype(np.float32)), shown.size))
    weight = opacities(values, style.limits, style.alpha, style.opacity)
    colors = colorize(values, style.colormap, style.limits)
    return Image.fromarray(blend(np.asarray(shown), colors, weight))


def _say_flat(canvas: Image.Image, place: tuple[int, int, int, int], heat: NDArray) -> None:
    """Write on the lower edge of a flat map that it shows no region."""
    left, top, width, height = place
    band = min(LINE, height)
    canvas.paste(INK, (left, top + height - band, left + width, top + height))
    said = "no heat" if not np.any(heat) else "flat: no region"
    write(canvas, (left + width // 2, top + height - band), said, width, WHITE, align="center")


def _legend(canvas: Image.Image, place: tuple[int, int, int], style: HeatStyle) -> None:
    """A thin bar of the colours as they lie over white, the values of its ends beside it."""
    left, top, height = place
    low, high = style.limits
    values = np.linspace(high, low, max(height, 1), dtype=np.float32)[:, np.newaxis]
    colors = colorize(values, chosen_colormap(style.colormap, style.limits), style.limits)
    weight = opacities(values, style.limits, style.alpha, style.opacity)
    bar = np.repeat(blend(np.full_like(colors, 255), colors, weight), 8, axis=1)
    canvas.paste(Image.fromarray(bar), (left, top))
    if height >= 2 * LINE:
        corner = (left + 8, top - 2)
        for end, line in ((high, corner[1]), (low, top + height - LINE + 2)):
            text = f"{end:.1g}".replace("0.", ".")  # The line above has the number in full.
            write(canvas, (corner[0], line), text, _LEGEND - 8, GREY)
