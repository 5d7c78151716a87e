"""Where the pictures of a logger go: TensorBoard event files, and a folder of PNG and GIF files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from kvis2.callbacks.png_files import of_one_size, png, read_png
from kvis2.callbacks.schedule import spread
from kvis2.callbacks.sentences import one_line
from kvis2.callbacks.tab import TabSummary, write_summaries
from kvis2.images import comparable, file_name, save_gif, strip, written_aside
from kvis2.shown import Shown

_OWN_SUFFIX = ".kvis2"
_STRIP_PICTURES = 10
_STRIP_WIDTH = 96  # pixels, so that a caption fits below a small picture
_GIF_PICTURES = 200  # which are in memory together, and shown for more than a minute


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

    def write(
        self,
        step: int,
        pictures: Sequence[Picture],
        scalars: Mapping[str, float],
        summaries: Sequence[TabSummary] = (),
    ) -> None:
        """Store what was seen at one step, so that it is safe when this returns."""

    def close(self) -> None:
        """Finish; nothing is written afterwards."""


class TensorBoardWriter(Shown):
    """Write pictures and scalars into a run directory of their own below `log_dir`.

    A second event file in a run that another writer has open, or smaller steps after larger ones,
    make TensorBoard drop data. So a run that holds event files already is left alone, and
    `run_2`, `run_3`, ... is used instead.

    Every step is flushed. TensorFlow does not report a full disk, so the growth of the event file
    is compared with what was written.

    Args:
        log_dir: The directory that TensorBoard is started with.
        run: Name of the run directory, as for `check_run`.

    Raises:
        ValueError: If the run would lie elsewhere.
        OSError: If the run directory cannot be written to.

    Example:
        >>> writer = TensorBoardWriter("/tmp/logs", "kvis2")
        >>> writer.write(0, [Picture("GradCAM/00", np.zeros((8, 8, 3), np.uint8))], {})
        >>> writer.close()
    """

    def __init__(self, log_dir: str | os.PathLike[str], run: str) -> None:
        root = os.fspath(log_dir)
        check_run(run)
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

    def write(
        self,
        step: int,
        pictures: Sequence[Picture],
        scalars: Mapping[str, float],
        summaries: Sequence[TabSummary] = (),
    ) -> None:
        """Append one step and flush it.

        Args:
            step: The step on TensorBoard's axis.
            pictures: One image summary each.
            scalars: Values by tag.
            summaries: Records for the Explanations tab.

        Raises:
            OSError: If the event file cannot be written to, or did not grow by what was written.
        """
        before = self._size()
        try:
            payload = self._append(step, pictures, scalars, summaries)
        except tf.errors.OpError as error:
            raise OSError(self._lost(step, _reason(error))) from None
        grown = self._size() - before
        if grown < payload:
            raise OSError(self._lost(step, f"it grew by {max(grown, 0)} of {payload} bytes"))

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()

    def _append(
        self,
        step: int,
        pictures: Sequence[Picture],
        scalars: Mapping[str, float],
        summaries: Sequence[TabSummary],
    ) -> int:
        """Append one step, and return how many bytes it holds at least."""
        payload = 0
        # keras.callbacks.TensorBoard(update_freq=n) leaves recording switched off at most steps;
        # leaving the block flushes.
        with self._writer.as_default(step), tf.summary.record_if(True):
            for picture, encoded in zip(pictures, encode(pictures), strict=True):
                height, width = picture.image.shape[:2]
                content = tf.constant([str(width).encode(), str(height).encode(), encoded])
                tf.summary.write(_text(picture.tag), content, step, _IMAGE_METADATA)
                payload += len(encoded)
            for tag, value in scalars.items():
                content = tf.constant(value, tf.float32)
                tf.summary.write(_text(tag), content, step, _SCALAR_METADATA)
                payload += 4
            named = [summary._replace(tag=_text(summary.tag)) for summary in summaries]
            payload += write_summaries(step, named)
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


class FolderWriter(Shown):
    """Write pictures as PNG files by step, and at the end a GIF and a strip for each tag.

    `GradCAM/00 cat` at step 3 becomes `GradCAM/00 cat/epoch 003.png`; at the end come
    `GradCAM/00 cat.gif`, all steps in turn (at most 200, evenly spread), and
    `GradCAM/00 cat strip.png`, at most ten thumbnails side by side, the first and the last among
    them. A training that is resumed goes on in both: they begin with the files of the steps before
    its first one. What a tag holds that no file system takes is replaced in the file's name.

    No picture stays in memory: a PNG file holds its thumbnail in a chunk of its own. Files are
    written aside and renamed, so that each of them is whole at any time.

    Args:
        directory: Made where missing; files of the same name are replaced.
        unit: What a step is: "epoch" or "batch".

    Raises:
        OSError: If the directory cannot be made.
    """

    def __init__(self, directory: str | os.PathLike[str], unit: str = "epoch") -> None:
        self.directory = Path(directory)
        self.unit = unit
        self._steps: dict[str, list[int]] = {}
        self._places: dict[str, Path] = {}
        self._taken: dict[str, set[str]] = {}
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

    def write(
        self,
        step: int,
        pictures: Sequence[Picture],
        scalars: Mapping[str, float],
        summaries: Sequence[TabSummary] = (),
    ) -> None:
        """Write one PNG file for each picture; scalars and summaries are TensorBoard's.

        Raises:
            OSError: If a file cannot be written.
        """
        for picture, encoded in zip(pictures, encode(pictures, thumbnails=True), strict=True):
            _save(self._path(picture.tag, step), encoded)
            self._steps.setdefault(picture.tag, []).append(step)

    def close(self) -> None:
        """Write the GIF and the strip of each tag.

        Raises:
            OSError: If a file cannot be read or written; those of the other tags are there.
        """
        failures: list[OSError] = []
        steps, self._steps = self._steps, {}
        for tag, written in steps.items():
            try:
                self._sum_up(tag, [*self._before(tag, min(written)), *sorted(set(written))])
            except OSError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _sum_up(self, tag: str, steps: Sequence[int]) -> None:
        """Write the GIF and the strip of a tag, of the files of its steps."""
        shown = [steps[index] for index in spread(0, len(steps) - 1, _GIF_PICTURES)]
        frames = of_one_size([read_png(self._path(tag, step))[0] for step in shown])
        place = self._place(tag)
        captions = [f"{self.unit} {step}" for step in shown]
        save_gif(place.with_name(f"{place.name}.gif"), frames, captions=captions)
        chosen = [steps[index] for index in spread(0, len(steps) - 1, _STRIP_PICTURES)]
        thumbnails = [read_png(self._path(tag, step))[1] for step in chosen]
        evolution = strip(
            thumbnails,
            [f"{self.unit} {step}" for step in chosen],
            width=max(_STRIP_WIDTH, thumbnails[0].shape[1]),
        )
        _save(place.with_name(f"{place.name} strip.png"), png(evolution))

    def _before(self, tag: str, first: int) -> list[int]:
        """The steps before the first one written, of which there are files from a fit before."""
        pattern = re.compile(rf"{self.unit} (\d+)\.png")
        found = [pattern.fullmatch(path.name) for path in self._place(tag).iterdir()]
        return sorted(step for each in found if each and (step := int(each[1])) < first)

    def _path(self, tag: str, step: int) -> Path:
        return self._place(tag) / f"{self.unit} {step:03d}.png"

    def _place(self, tag: str) -> Path:
        """The folder of a tag's steps; no other tag's, and no other tag's GIF or strip."""
        if tag not in self._places:
            group, _, name = tag.rpartition("/")
            folder = file_name(group)
            taken = self._taken.setdefault(comparable(folder), set())
            name = _free_name(name, taken)
            taken.update(map(comparable, _names_of(name)))
            self._places[tag] = self.directory / folder / name
        return self._places[tag]


def _names_of(name: str) -> tuple[str, ...]:
    """What a tag writes side by side: the folder of its steps, its GIF and its strip."""
    return name, f"{name}.gif", f"{name} strip.png"


def _free_name(text: str, taken: set[str]) -> str:
    """A name of which neither folder nor GIF nor strip is there yet."""
    tried: set[str] = set()
    while True:
        name = file_name(text, taken=taken | tried)
        if not taken.intersection(map(comparable, _names_of(name))):
            return name
        tried.add(comparable(name))


def check_run(run: str) -> None:
    """Raise unless a run directory of this name lies below the `log_dir` it is for.

    Args:
        run: One or more names, with "/" between them.

    Raises:
        ValueError: If it leads elsewhere, or holds what no file system takes.
    """
    parts = re.split(r"[/\\]", run)
    if not all(_is_name(part) for part in parts) or re.match("[A-Za-z]:", run):
        raise ValueError(
            f"Expected run to name a directory below log_dir. Received: {run!r}. Give a name such "
            "as 'kvis2', or several with '/' between them."
        )


def _is_name(part: str) -> bool:
    # A colon, as in the time of day, is left to those whose system takes it.
    return part.strip(" .") != "" and file_name(part.replace(":", "")) == part.replace(":", "")


def encode(pictures: Sequence[Picture], thumbnails: bool = False) -> list[bytes]:
    """Encode pictures as PNG, side by side, since Pillow lets go of Python's lock meanwhile.

    Args:
        pictures: What is encoded.
        thumbnails: Whether each file holds its thumbnail as well.
    """

    def encoded(picture: Picture) -> bytes:
        return png(picture.image, picture.thumbnail if thumbnails else None)

    with ThreadPoolExecutor() as threads:
        return list(threads.map(encoded, pictures))


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


def _text(tag: str) -> str:
    """A tag as TensorBoard takes it: halves of surrogate pairs, which are no text, are spelled."""
    return tag.encode("utf-8", "backslashreplace").decode()


def _save(path: Path, content: bytes) -> None:
    with written_aside(path) as part:
        part.write_bytes(content)


def _reason(error: Exception) -> str:
    """Return what the system said, without TensorFlow's names of internal functions."""
    message = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    return one_line(message.strip().partition("\n")[0]).rstrip(".")
