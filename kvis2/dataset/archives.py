"""Pictures in archives: where each lies in a tar or a TFRecord file, and how to take it out."""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf
from PIL import Image

ARCHIVES = (".tar", ".tfrecord", ".tfrecords")
_IMAGE = ("image/encoded", "image", "image_raw", "jpeg", "png")
_LABEL = ("image/class/label", "label", "class")


class Member(NamedTuple):
    """A picture in an archive: its name, where it begins, how long it is, its label or ""."""

    name: str
    offset: int
    length: int
    label: str = ""


def members(path: Path) -> Iterator[Member]:
    """The pictures of an archive in their order, without reading them.

    Raises:
        ValueError: If the archive cannot be read, as one that is compressed as a whole.
    """
    try:
        found = list(_of_tar(path) if path.suffix.lower() == ".tar" else _of_records(path))
    except (tarfile.TarError, OSError, struct.error) as error:
        raise ValueError(
            f"Expected a tar or TFRecord file that is not compressed as a whole. Received: {path}, "
            f"of which is said: {error or type(error).__name__}. Unpack it first."
        ) from error
    yield from found


def picture_in(path: str, offset: int, length: int) -> tuple[bytes, str]:
    """The encoded picture at a place of an archive, and its label where it stands beside it.

    Raises:
        ValueError: If there is none.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        found = file.read(length)
    if len(found) < length:
        raise ValueError(
            f"Expected a whole archive. Received: {path}, which ends at byte {offset + len(found)}."
            " Download it anew."
        )
    return (found, "") if path.lower().endswith(".tar") else _of_example(found, path)


def _of_tar(path: Path) -> Iterator[Member]:
    """WebDataset: `name.jpg` is a picture, and `name.cls` its label."""
    known = Image.registered_extensions()
    with tarfile.open(path, "r:") as archive:
        files = [each for each in archive if each.isfile()]
        labels = {}
        for each in files:
            if each.name.endswith(".cls"):
                text = archive.extractfile(each)
                labels[each.name[:-4]] = "" if text is None else text.read().decode().strip()
    for each in files:
        stem, dot, suffix = each.name.rpartition(".")
        if (dot + suffix).lower() in known:
            yield Member(each.name, each.offset_data, each.size, labels.get(stem, ""))


def _of_records(path: Path) -> Iterator[Member]:
    """Each record: its length (8 bytes), a checksum (4), the record, a checksum (4)."""
    size, place, number = path.stat().st_size, 0, 0
    with path.open("rb") as file:
        while place < size:
            file.seek(place)
            (length,) = struct.unpack("<Q", file.read(8))
            if place + length + 16 > size:
                raise tarfile.TarError(f"record {number} would end behind the file")
            yield Member(f"{number:08d}", place + 12, length)
            place, number = place + length + 16, number + 1


def _of_example(record: bytes, path: str) -> tuple[bytes, str]:
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:  # Whatever the parser meets.
        raise ValueError(
            f"Expected records that are tf.train.Example. Received: {path}, with another. "
            "Write the pictures as Examples with `image/encoded`."
        ) from error
    pictures = [features[each].bytes_list.value for each in _IMAGE if each in features]
    if not pictures or not pictures[0]:
        raise ValueError(
            f"Expected a picture as one of {', '.join(_IMAGE)}. Received: {path}, with "
            f"{sorted(features)}. Rename the feature."
        )
    for name in _LABEL:
        if name in features:
            values = features[name].int64_list.value or features[name].bytes_list.value
            if values:
                first = values[0]
                return pictures[0][0], first.decode() if isinstance(first, bytes) else str(first)
    return pictures[0][0], ""
