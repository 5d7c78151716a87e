"""From rows to batches: pictures are read, framed and encoded while others are explained."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from kvis2 import images
from kvis2.dataset.archives import picture_in
from kvis2.dataset.sources import Row
from kvis2.gallery import InputSpace
from kvis2.images import Framing


class Entry(NamedTuple):
    """What is known of a picture once it has been read.

    Attributes:
        row: Which picture it is; its label is that of the archive where only this names one.
        size: Height and width of the photograph as it stands upright; (0, 0) if it was not read.
        error: Why it could not be read, or "".
    """

    row: Row
    size: tuple[int, int]
    error: str = ""


class Read(NamedTuple):
    """One batch of pictures.

    Attributes:
        entries: Whose pictures they are.
        pictures: uint8 `(batch, height, width, channels)`, as the model sees them; black where a
            picture could not be read, so that the others are computed as ever.
        inputs: float32, the same as the model takes them.
    """

    entries: list[Entry]
    pictures: NDArray[np.uint8]
    inputs: NDArray[np.float32]


class Reader(NamedTuple):
    """How a picture becomes what a model takes.

    Attributes:
        size: Height and width of the model's input.
        space: Its values and channels.
        framing: The geometry between the photograph and the input.
    """

    size: tuple[int, int]
    space: InputSpace
    framing: Framing = Framing()

    def read(self, row: Row) -> tuple[Entry, NDArray[np.uint8]]:
        """A picture, uint8 `(height, width, channels)`; black, with the reason, if there is none.

        It is read as `kvis2.images.read` does and resized as the gallery does: the whole by
        Lanczos; or, framed by "pad" or "crop", as `Framing.input_of` does, rounded.
        """
        blank = np.zeros((*self.size, self.space.channels), np.uint8)
        try:
            photograph, label = photograph_of(row, self.space.channels)
            row = row._replace(label=row.label or label)
        except (ValueError, OSError) as error:
            return Entry(row, (0, 0), _sentence(error)), blank
        size = (photograph.shape[0], photograph.shape[1])
        return Entry(row, size), self._framed(photograph)

    def _framed(self, photograph: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.framing.mode != "stretch":
            return np.rint(self.framing.input_of(photograph, self.size)).astype(np.uint8)
        if photograph.shape[:2] == self.size:
            return photograph
        grey = photograph.shape[2] == 1
        picture = Image.fromarray(photograph[..., 0] if grey else photograph)
        resized = picture.resize(self.size[::-1], Image.Resampling.LANCZOS)
        return np.array(resized).reshape(*self.size, self.space.channels)


def photograph_of(row: Row, channels: int = 3) -> tuple[NDArray[np.uint8], str]:
    """The picture of a row in its own size, uint8, and its label where an archive names one.

    Raises:
        ValueError: If it cannot be read.
        OSError: If its file cannot.
    """
    if row.offset < 0:
        return images.read(row.path, channels=channels), ""
    found, label = picture_in(row.path, row.offset, row.length)
    file = io.BytesIO(found)
    file.name = row.id
    return images.read(file, channels=channels), label


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def batches(rows: Sequence[Row], reader: Reader, batch_size: int, ahead: int = 2) -> Iterator[Read]:
    """Read pictures, in their order, some batches ahead of the one that is asked for.

    Args:
        rows: The pictures.
        reader: How they are read.
        batch_size: How many there are in a batch; the last may have fewer.
        ahead: How many batches are read ahead.
    """
    entries: dict[int, Entry] = {}
    for numbers, pictures, inputs in pipeline(rows, reader, batch_size, entries, ahead):
        found = [entries.pop(int(number)) for number in numbers.numpy()]
        yield Read(found, pictures.numpy(), inputs.numpy())


def pipeline(
    rows: Sequence[Row],
    reader: Reader,
    batch_size: int,
    entries: dict[int, Entry],
    ahead: int = 2,
) -> tf.data.Dataset:
    """The numbers of rows, their pictures and inputs, as a `tf.data.Dataset` of batches.

    Args:
        rows: The pictures.
        reader: How they are read.
        batch_size: How many there are in a batch.
        entries: Gets for the number of each row what is known of its picture.
        ahead: How many batches are read ahead.
    """
    shape = (*reader.size, reader.space.channels)

    def read(number: Any) -> NDArray[np.uint8]:
        entries[int(number)], picture = reader.read(rows[int(number)])
        return picture

    def with_picture(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        picture = tf.numpy_function(read, [number], tf.uint8)
        return number, tf.ensure_shape(picture, shape)

    def with_inputs(numbers: tf.Tensor, pictures: tf.Tensor) -> tuple[tf.Tensor, ...]:
        inputs = tf.numpy_function(reader.space.encode, [pictures], tf.float32)
        return numbers, pictures, tf.ensure_shape(inputs, (None, *shape))

    numbers = tf.data.Dataset.range(len(rows))
    pictures = numbers.map(with_picture, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return pictures.batch(batch_size).map(with_inputs, num_parallel_calls=2).prefetch(ahead)
