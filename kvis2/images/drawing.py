"""What panels are drawn with: text, boxes, and pictures brought to a size. Pillow alone."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from kvis2.images.colors import PictureArray, finite, rgb
from kvis2.images.fonts import drawable
from kvis2.images.fonts import font_for as _font
from kvis2.images.framing import Framing

Color: TypeAlias = tuple[int, int, int]

WHITE: Color = (255, 255, 255)
BLACK: Color = (0, 0, 0)
INK: Color = (33, 37, 41)
GREY: Color = (112, 120, 130)
TRACK: Color = (237, 240, 243)
BLUE: Color = (66, 110, 180)
GREEN: Color = (27, 128, 62)
RED: Color = (205, 40, 40)
AMBER: Color = (255, 213, 128)

LINE = 18  # height of a line of text, pixels
_BASELINE = 13  # of a line of text, pixels from its top
MARGIN = 4  # pixels
_BLOCKY = 16  # images of at most so many pixels a side grow as squares: smooth, they are a blur


def resize(images: ArrayLike, size: int | tuple[int, int]) -> NDArray[Any]:
    """Bring a picture to a width, its aspect kept, or heatmaps to a height and width.

    Args:
        images: With a width, one picture of any kind `displayable` takes: it stays smooth, but
            very small ones grow as squares. With a size, heatmaps `(batch, height, width)` or
            `(height, width)`, bilinear, whose values never leave their range.
        size: The width in pixels, or `(height, width)`.

    Returns:
        uint8 RGB `(height, width, 3)`, or float32 maps.

    Raises:
        ValueError: If maps have another rank, or are a uint8 picture.

    Example:
        >>> resize(np.array([[0.0, 1.0]]), (1, 4)).tolist()
        [[0.0, 0.25, 0.75, 1.0]]
    """
    if isinstance(size, int | np.integer):
        picture = rgb(images)
        height = max(1, round(picture.shape[0] * size / picture.shape[1]))
        return np.array(scaled(Image.fromarray(picture), (int(size), height)))
    maps = finite(images, "maps").astype(np.float32)
    colours = np.asarray(images).dtype == np.uint8 and maps.shape[-1] in (3, 4)
    if maps.ndim not in (2, 3) or 0 in maps.shape or (maps.ndim == 3 and colours):
        raise ValueError(
            "Expected maps (batch, height, width) or one (height, width). Received: shape "
            f"{maps.shape}{', uint8' * colours}. For a picture give the width alone, such as "
            "resize(photo, 300)."
        )
    if maps.ndim == 2:
        return Framing().of_photograph(maps, size)
    return np.stack([Framing().of_photograph(each, size) for each in maps])


def scaled(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize a picture (bicubic) or, in mode "F", a heatmap (bilinear, which never overshoots)."""
    if picture.size == size:
        return picture
    if max(picture.size) <= _BLOCKY and min(size) >= max(picture.size):
        return picture.resize(size, Image.Resampling.NEAREST)
    smooth = Image.Resampling.BILINEAR if picture.mode == "F" else Image.Resampling.BICUBIC
    return picture.resize(size, smooth)


def captioned(image: ArrayLike, caption: str) -> PictureArray:
    """Put a line of text, centred, on a white band below a picture."""
    picture = rgb(image)
    height, width = picture.shape[:2]
    canvas = Image.new("RGB", (width, height + LINE), WHITE)
    canvas.paste(Image.fromarray(picture))
    write(canvas, (width // 2, height), caption, width, align="center")
    return np.array(canvas)


def write(
    canvas: Image.Image,
    corner: tuple[int, int],
    text: str,
    width: int,
    fill: Color = INK,
    align: Literal["left", "center", "right"] = "left",
) -> int:
    """Write one line of text, cut to `width`, and return its length in pixels.

    `corner` is the upper end of the line: its left, its middle or its right as `align` says.
    """
    mask = _lettering(str(text), width)
    shift = {"left": 0, "center": mask.width // 2, "right": mask.width}[align]
    canvas.paste(fill, (corner[0] - shift, corner[1]), mask)
    return mask.width


@lru_cache(maxsize=1024)
def _lettering(text: str, width: int) -> Image.Image:
    """Draw a line of text as a mask; most words of a panel come again at the next step."""
    text = fitting(text, width)
    font = _font(text)
    mask = Image.new("L", (max(1, min(width, round(font.getlength(text)))), LINE), 0)
    ImageDraw.Draw(mask).text((0, _BASELINE), text, fill=255, font=font, anchor="ls")
    return mask


def fitting(text: str, width: int) -> str:
    """Make `text` one printable line of at most `width` pixels, its end cut with an ellipsis."""
    text = drawable(" ".join("".join(c if c.isprintable() else " " for c in text).split()))
    font = _font(text)
    if font.getlength(text) <= width:
        return text
    # The text grows with every character, so the longest start that fits is found by bisection.
    cut = bisect_right(
        range(1, len(text)),
        float(width),
        key=lambda end: float(font.getlength(text[:end].rstrip() + "…")),
    )
    return text[:cut].rstrip() + "…"


def checked_boxes(box: ArrayLike, width: int, height: int) -> NDArray[np.float64]:
    """Return boxes as `(boxes, 4)`; refuse those that are not inside the image."""
    boxes = np.asarray(box, dtype=np.float64)
    boxes = boxes[np.newaxis] if boxes.ndim == 1 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"Expected a box (x0, y0, x1, y1), or several of shape (boxes, 4). "
            f"Received: shape {np.shape(box)}."
        )
    x0, y0, x1, y1 = boxes.T
    inside = (x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1) & (y1 <= height)
    if not inside.all():
        raise ValueError(
            f"Expected boxes with 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}, the "
            f"image's size. Received: {boxes[~inside][0].tolist()}. Give x0, y0, x1, y1 in pixels."
        )
    return boxes


def draw_boxes(picture: Image.Image, boxes: NDArray[np.float64]) -> None:
    """White lines with a black edge on either side: seen on every image and every colormap."""
    draw = ImageDraw.Draw(picture)
    for x0, y0, x1, y1 in np.rint(boxes).astype(int).tolist():
        right, bottom = max(x1 - 1, x0), max(y1 - 1, y0)
        for inset, color in ((0, BLACK), (1, WHITE), (2, WHITE), (3, BLACK)):
            if right - inset >= x0 + inset and bottom - inset >= y0 + inset:
                draw.rectangle((x0 + inset, y0 + inset, right - inset, bottom - inset), None, color)
