"""Where the pictures of a logger go: TensorBoard event files, and a folder of PNG and GIF files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from PIL import Image

from kvis2.callbacks.schedule import spread
from kvis2.images import save_gif, strip

_OWN_SUFFIX = ".kvis2"
_PNG_OPTIONS = {
    "compress_level": 1,
    "compress_type": 3,
}  # run lengths: a third of the default's time
_STRIP_PICTURES = 10
_STRIP_WIDTH = 96  # pixels, so that a caption fits below a small picture


class Picture(NamedTuple):
    """One picture of one step.

    Attributes:
        tag: Its name, the same at every step; what stands before the "/" groups the tags.
        image: uint8 RGB, `(height, width, 3)`.
        thumbnail: A smaller picture of the same, for a strip of all steps; None: `image`.
    """

    tag: str
    image: np.ndarray
    thumbnail: np.ndarray | None = None


class Writer(Protocol):
    """A place for pictures and numbers."""

    def write(self, step: int, pictures: Sequence[Picture], scalars: Mapping[str, float]) -> None:
        """Store what was seen at one step, so that it is safe when this returns."""

    def close(self) -> None:
        """Finish; nothing is written afterwards."""


class TensorBoardWriter:
    """Write pictures and scalars into a run directory of their own below `log_dir`.

    A second event file in a run that another writer has open, or smaller steps after larger ones,
    make TensorBoard drop data. So a run that holds event files already is left alone, and
    `run_2`, `run_3`, ... is used instead.

    Every step is flushed. TensorFlow does not report a full disk, so the growth of the event file
    is compared with what was written.

    Args:
        log_dir: The directory that TensorBoard is started with.
        run: Name of the run directory.

    Raises:
        OSError: If the run directory cannot be written to.

    Example:
        >>> writer = TensorBoardWriter("/tmp/logs", "kvis2")
        >>> writer.write(0, [Picture("GradCAM/00", np.zeros((8, 8, 3), np.uint8))], {})
        >>> writer.close()
    """

    def __init__(self, log_dir: str | os.PathLike[str], run: str) -> None:
        root = os.fspath(log_dir)
        try:
            self.directory = _free_run(root, run)
            tf.io.gfile.makedirs(self.directory)
            self._writer = tf.summary.create_file_writer(
                self.directory, filename_suffix=_OWN_SUFFIX
            )
            self._writer.init()
            self._writer.flush()
            pattern = f"{_escaped(self.directory)}/*{_OWN_SUFFIX}"
            self.event_file: str = tf.io.gfile.glob(pattern)[0]
        except (tf.errors.OpError, OSError) as error:
            raise OSError(
                f"Expected a log_dir that can be written to. Received: log_dir={root!r}, where "
                f"{_reason(error)}. Choose a folder in which you may make files."
            ) from None

    def write(self, step: int, pictures: Sequence[Picture], scalars: Mapping[str, float]) -> None:
        """Append one step and flush it.

        Args:
            step: The step on TensorBoard's axis.
            pictures: One image summary each.
            scalars: Values by tag.

        Raises:
            OSError: If the event file cannot be written to, or did not grow by what was written.
        """
        before = self._size()
        try:
            payload = self._append(step, pictures, scalars)
        except tf.errors.OpError as error:
            raise OSError(self._lost(step, _reason(error))) from None
        grown = self._size() - before
        if grown < payload:
            raise OSError(self._lost(step, f"it grew by {max(grown, 0)} of {payload} bytes"))

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()

    def _append(self, step: int, pictures: Sequence[Picture], scalars: Mapping[str, float]) -> int:
        """Append one step, and return how many bytes it holds at least."""
        payload = 0
        # keras.callbacks.TensorBoard(update_freq=n) leaves recording switched off at most steps;
        # leaving the block flushes.
        with self._writer.as_default(step), tf.summary.record_if(True):
            for picture, encoded in zip(pictures, encode(pictures), strict=True):
                height, width = picture.image.shape[:2]
                content = tf.constant([str(width).encode(), str(height).encode(), encoded])
                tf.summary.write(picture.tag, content, step, _IMAGE_METADATA)
                payload += len(encoded)
            for tag, value in scalars.items():
                tf.summary.write(tag, tf.constant(value, tf.float32), step, _SCALAR_METADATA)
                payload += 4
        return payload

    def _lost(self, step: int, what: str) -> str:
        return (
            f"Expected the event file {self.event_file!r} to take step {step}. Received: {what}. "
            "Make room on the disk: it is full, or the file has reached its limit."
        )

    def _size(self) -> int:
        return tf.io.gfile.stat(self.event_file).length


def _metadata(plugin: str) -> tf.compat.v1.SummaryMetadata:
    """Return what tf.summary.image and tf.summary.scalar attach.

    They need the package tensorboard, which TensorFlow 2.21 no longer brings along, and encode
    pictures at half Pillow's speed.
    """
    data = tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin)
    return tf.compat.v1.SummaryMetadata(plugin_data=data)


_IMAGE_METADATA = _metadata("images")
_SCALAR_METADATA = _metadata("scalars")


class FolderWriter:
    """Write pictures as PNG files by step, and at the end a GIF and a strip for each tag.

    `GradCAM/00 cat` at step 3 becomes `GradCAM/00 cat/epoch 003.png`; at the end come
    `GradCAM/00 cat.gif`, all steps in turn, and `GradCAM/00 cat strip.png`, at most ten
    thumbnails side by side, the first and the last among them.

    Args:
        directory: Made where missing; files of the same name are replaced.
        unit: What a step is: "epoch" or "batch".

    Raises:
        OSError: If the directory cannot be made.
    """

    def __init__(self, directory: str | os.PathLike[str], unit: str = "epoch") -> None:
        self.directory = Path(directory)
        self.unit = unit
        self._steps: dict[str, list[tuple[int, np.ndarray]]] = {}
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            if not os.access(self.directory, os.W_OK | os.X_OK):
                raise PermissionError("permission is denied")
        except OSError as error:
            raise OSError(
                "Expected a save_dir that can be written to. Received: "
                f"save_dir={str(directory)!r}, where {_reason(error)}. Choose a folder in which "
                "you may make files."
            ) from None

    def write(self, step: int, pictures: Sequence[Picture], scalars: Mapping[str, float]) -> None:
        """Write one PNG file for each picture; the scalars are TensorBoard's.

        Raises:
            OSError: If a file cannot be written.
        """
        for picture, encoded in zip(pictures, encode(pictures), strict=True):
            _save(self._path(picture.tag, step), encoded)
            thumbnail = picture.image if picture.thumbnail is None else picture.thumbnail
            self._steps.setdefault(picture.tag, []).append((step, thumbnail))

    def close(self) -> None:
        """Write the GIF and the strip of each tag.

        Raises:
            OSError: If a file cannot be written.
        """
        for tag, thumbnails in self._steps.items():
            # The frames are read back, so that a long training does not hold them in memory.
            frames = [_read(self._path(tag, step)) for step, _ in thumbnails]
            captions = [f"{self.unit} {step}" for step, _ in thumbnails]
            save_gif(self._path(tag, suffix=".gif"), frames, captions=captions)
            chosen = spread(0, len(thumbnails) - 1, _STRIP_PICTURES)
            evolution = strip(
                [thumbnails[index][1] for index in chosen],
                [captions[index] for index in chosen],
                width=max(_STRIP_WIDTH, thumbnails[0][1].shape[1]),
            )
            _save(self._path(tag, suffix=" strip.png"), png(evolution))
        self._steps.clear()

    def _path(self, tag: str, step: int | None = None, suffix: str = ".png") -> Path:
        group, _, name = tag.rpartition("/")
        folder, name = self.directory / _file_name(group), _file_name(name)
        if step is None:
            return folder / f"{name}{suffix}"
        return folder / name / f"{self.unit} {step:03d}{suffix}"


def encode(pictures: Sequence[Picture]) -> list[bytes]:
    """Encode pictures as PNG, side by side, since Pillow lets go of Python's lock meanwhile."""
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda picture: png(picture.image), pictures))


def png(image: np.ndarray) -> bytes:
    """Encode a uint8 RGB picture as PNG, quickly rather than tightly."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, format="png", **_PNG_OPTIONS)
    return buffer.getvalue()


def _free_run(root: str, run: str) -> str:
    """Return the first of `run`, `run_2`, `run_3`, ... that holds no event file."""
    number = 1
    while True:
        directory = os.path.join(root, run if number == 1 else f"{run}_{number}")
        if not tf.io.gfile.glob(_escaped(directory) + "/*tfevents*"):
            return directory
        number += 1


def _escaped(directory: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", directory)


def _file_name(tag: str) -> str:
    """Replace what some file system does not take."""
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", tag).strip(" .") or "_"


def _save(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _reason(error: Exception) -> str:
    """Return what the system said, without TensorFlow's names of internal functions."""
    message = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    plain = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*?\]", "", message)
    return plain.strip().splitlines()[0].rstrip(".")
