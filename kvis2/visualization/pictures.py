"""PictureArray files and text on pictures, with Pillow, as keras-vis reads and writes them."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Sequence
from importlib import resources
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kvis2.images import Color


def load_img(
    path: str | PathLike[str], grayscale: bool = False, target_size: tuple[int, int] | None = None
) -> np.ndarray:
    """Read a picture file.

    Args:
        path: A PNG, JPEG or other file that Pillow reads.
        grayscale: Whether to return grey levels instead of colours.
        target_size: `(height, width)` to resize to, bilinearly.

    Returns:
        uint8 `(height, width, 3)`, or `(height, width)` if `grayscale`.

    Example:
        >>> load_img("dog.jpg", target_size=(224, 224)).shape
        (224, 224, 3)
    """
    with Image.open(path) as file:
        picture = file.convert("L" if grayscale else "RGB")
    if target_size is not None:
        height, width = target_size
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(picture)


def draw_text(
    img: Any,
    text: str,
    position: tuple[int, int] = (10, 10),
    font: str | None = "FreeSans.ttf",
    font_size: int = 14,
    color: Color = (0, 0, 0),
    *,
    outline: Color | None = None,
) -> np.ndarray:
    """Write text on a copy of a picture.

    Args:
        img: uint8 `(height, width)`, `(height, width, 1)` or `(height, width, 3)`.
        text: What to write.
        position: `(x, y)` of its upper left corner, in pixels.
        font: A TrueType font file; where it is not found Pillow's own font is taken, with a
            warning. None takes that at once.
        font_size: In pixels.
        color: RGB of the letters.
        outline: RGB of an edge around the letters, so that they are seen on dark and light.

    Returns:
        A new uint8 array of the shape of `img`.

    Example:
        >>> draw_text(np.zeros((40, 90, 3), np.uint8), "Step 1", font=None, color=(255, 255, 255))
    """
    array = np.asarray(img)
    has_axis = array.ndim == 3 and array.shape[-1] == 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3):
        raise ValueError(
            "Expected a uint8 picture of shape (height, width[, channels]). Received: dtype "
            f"{array.dtype}, shape {array.shape}. `kvis2.images.displayable` makes one."
        )
    picture = Image.fromarray(array[..., 0] if has_axis else array)
    is_grey = picture.mode == "L"
    ImageDraw.Draw(picture).text(
        position,
        text,
        fill=_ink(color, is_grey),
        font=_font(font, font_size),
        stroke_width=0 if outline is None else 1,
        stroke_fill=None if outline is None else _ink(outline, is_grey),
    )
    drawn = np.array(picture)
    return drawn[..., None] if has_axis else drawn


def _ink(color: Color, is_grey: bool) -> Color | int:
    return round(sum(color) / 3) if is_grey else color


@functools.lru_cache(maxsize=8)
def _font(name: str | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if name is not None:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            warnings.warn(
                f"Expected a font file. Received: {name!r}, which was not found: Pillow's own font "
                "is used. Pass `font=None` to ask for it, or the path of a .ttf file.",
                stacklevel=3,
            )
    return ImageFont.load_default(size=size)


def lookup_imagenet_labels(indices: int | Sequence[int]) -> list[str]:
    """Names of ImageNet classes, from a file that comes with kvis2.

    Args:
        indices: A class from 0 to 999, or several.

    Returns:
        One name for each.

    Raises:
        ValueError: If there is no such class.

    Example:
        >>> lookup_imagenet_labels([2, 20])
        ['great_white_shark', 'water_ouzel']
    """
    names = _imagenet_names()
    wanted = [int(index) for index in np.atleast_1d(indices)]
    wrong = [index for index in wanted if not 0 <= index < len(names)]
    if wrong:
        raise ValueError(
            f"Expected ImageNet classes from 0 to {len(names) - 1}. Received: {wrong}. "
            "Classes of other data sets have other names."
        )
    return [names[index] for index in wanted]


@functools.lru_cache(maxsize=1)
def _imagenet_names() -> list[str]:
    file = resources.files("kvis2.visualization").joinpath("imagenet_class_index.json")
    classes = json.loads(file.read_text(encoding="utf-8"))
    return [classes[str(index)][1] for index in range(len(classes))]
