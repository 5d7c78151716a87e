"""PNG files of the loggers, which hold a smaller picture of the same in a chunk of their own."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

_OPTIONS = {
    "compress_level": 1,
    "compress_type": 3,
}  # run lengths: a third of the default's time
_THUMBNAIL = b"kvTh"  # a private chunk, which other programs leave alone


def png(image: np.ndarray, thumbnail: np.ndarray | None = None) -> bytes:
    """Encode a uint8 RGB picture as PNG, quickly rather than tightly; its thumbnail within.

    Raises:
        ValueError: If a picture has no pixels.
    """
    if image.size == 0:
        raise ValueError(
            f"Expected a picture with pixels. Received: shape {image.shape}. Look at the images "
            "and maps that it is drawn from: one of them is empty."
        )
    chunks = PngInfo()
    if thumbnail is not None:
        chunks.add(_THUMBNAIL, png(thumbnail))
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="png", pnginfo=chunks, **_OPTIONS)
    return buffer.getvalue()


def read_png(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The picture of a PNG file, and its thumbnail; without one the picture itself."""
    with Image.open(path) as file:
        file.load()
        picture = np.asarray(file.convert("RGB"))
        chunks = getattr(file, "private_chunks", [])
    thumbnails = [content for kind, content, *_ in chunks if kind == _THUMBNAIL]
    if not thumbnails:
        return picture, picture
    with Image.open(BytesIO(thumbnails[0])) as file:
        return picture, np.asarray(file.convert("RGB"))


def of_one_size(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pictures with white at the right and below, where others are larger."""
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    return [
        np.pad(
            picture,
            ((0, height - picture.shape[0]), (0, width - picture.shape[1]), (0, 0)),
            constant_values=255,
        )
        for picture in pictures
    ]
