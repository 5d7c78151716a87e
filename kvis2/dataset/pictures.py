"""Small pictures for the page, and overlays, of a batch that has been explained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from kvis2 import images
from kvis2.dataset.explaining import Explained
from kvis2.passes import resize

SIDE = 72  # pixels of a thumbnail; the photograph and its overlay stand side by side
CHUNK_DIGITS = 6


def thumbnail_name(row: int) -> str:
    """Where the thumbnail of a row is in the folder: at most a thousand in each folder."""
    return f"thumbnails/{row // 1000:0{CHUNK_DIGITS}d}/{row % 1000:03d}.jpg"


def overlay_name(row: int, name: str) -> str:
    """Where the overlay of a row is in the folder."""
    return f"overlays/{row:08d}_{images.file_name(Path(name).stem, '.jpg', longest=100)}"


def write_thumbnails(folder: Path, explained: Explained, first: int, most: int) -> None:
    """Write the photograph beside its overlay for the rows below `most`.

    What is written twice is the same: a run that was killed needs no record of these.
    """
    rows = _there(explained, first, most)
    for index, heatmap in zip(rows, _sized(explained, rows, (SIDE, SIDE)), strict=True):
        picture = Image.fromarray(_color(explained.read.pictures[index]))
        small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))
        pair = np.concatenate([small, _heated(small, heatmap)], axis=1)
        _save(folder / thumbnail_name(first + index), pair, 80)


def write_overlays(folder: Path, explained: Explained, first: int, most: int) -> None:
    """Write overlays as the model saw the pictures for the rows below `most`."""
    rows = _there(explained, first, most)
    size = (explained.read.pictures.shape[1], explained.read.pictures.shape[2])
    for index, heatmap in zip(rows, _sized(explained, rows, size), strict=True):
        heated = _heated(_color(explained.read.pictures[index]), heatmap)
        name = overlay_name(first + index, explained.read.entries[index].row.id)
        _save(folder / name, heated, 90)


def _there(explained: Explained, first: int, most: int) -> list[int]:
    count = min(len(explained.errors), most - first)
    return [index for index in range(count) if not explained.errors[index]]


def _color(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture


def _sized(explained: Explained, rows: list[int], size: tuple[int, int]) -> NDArray[np.float32]:
    """The maps of some rows within -1..1 at another size, all at once: one by one takes longer."""
    if not rows:
        return np.zeros((0, *size), np.float32)
    return images.normalize(np.asarray(resize(tf.constant(explained.maps[rows]), list(size))))


def _heated(picture: NDArray[np.uint8], heatmap: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A picture under its map; as it is, if the map shows nothing."""
    return picture if images.is_flat(heatmap) else images.overlay(picture, heatmap)


def _save(path: Path, picture: NDArray[np.uint8], quality: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with images.written_aside(path) as part:
        Image.fromarray(picture).save(part, "JPEG", quality=quality)
