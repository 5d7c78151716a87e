"""Where pictures come from: folders, globs, files, tables, archives; one row for each picture."""

from __future__ import annotations

import csv
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from PIL import Image

from kvis2.dataset.archives import ARCHIVES, Member, members
from kvis2.extras import imported

Source: TypeAlias = "str | PathLike[str] | Sequence[str | PathLike[str]]"
"""A folder, a glob, a file or several of these: see `rows_of`."""

_TABLES = (".csv", ".parquet")


class Row(NamedTuple):
    """One picture of a source.

    Attributes:
        id: Its name, unique in the source.
        path: The file that it is, or that holds it.
        offset: Where it begins in an archive; -1 for a file of its own.
        length: How many bytes it has there.
        label: The name or number of its class, as it was found; "" where none is known.
        boxes: JSON of the boxes `[x0, y0, x1, y1]` of its object in pixels of the picture as it
            stands upright; "" where none is known.
    """

    id: str
    path: str
    offset: int = -1
    length: int = 0
    label: str = ""
    boxes: str = ""


def rows_of(source: Source) -> list[Row]:
    """The pictures of a source, in an order that is the same every time.

    Args:
        source: One of these, or a list of them:

            * a folder: all pictures in it, by name; the folder right below it that holds a picture
              is its label;
            * a glob (`"photos/**/*.jpg"`), or a picture;
            * a CSV or Parquet file with the columns `path`, and where known `label` and `boxes`
              (one box `[x0, y0, x1, y1]` or a list of them, as JSON); paths count from its folder;
            * a TFRecord file of `tf.train.Example` (`image/encoded`, `image/class/label`), or a
              WebDataset tar (`name.jpg`, `name.cls`).

    Raises:
        ValueError: If there is no such source, or no picture in it.

    Example:
        >>> rows_of(["cat.jpg"])
        [Row(id='cat.jpg', path='cat.jpg', offset=-1, length=0, label='', boxes='')]
    """
    several = not isinstance(source, str | PathLike)
    given = [os.fspath(each) for each in source] if several else [os.fspath(source)]  # type: ignore
    found = list(_unique(row for each in given for row in _rows(each, must_exist=not several)))
    if not found:
        raise ValueError(
            f"Expected a source with pictures. Received: {source!r}, which has none. Give a folder,"
            " a glob in quotes, files, a CSV or Parquet file, a TFRecord or a tar."
        )
    return found


def _rows(given: str, must_exist: bool) -> Iterator[Row]:
    path = Path(given)
    if path.is_dir():
        yield from _of_folder(path)
    elif path.exists() or not glob.has_magic(given):
        if must_exist and not path.exists():
            raise ValueError(
                f"Expected a folder, a glob or a file. Received: {given!r}, which is not there. "
                "Check the path; a glob stands in quotes."
            )
        yield from _of_file(path)
    else:
        for match in sorted(glob.glob(given, recursive=True)):
            if os.path.isfile(match):
                yield from _of_file(Path(match))


def _of_file(path: Path) -> Iterator[Row]:
    kind = path.suffix.lower()
    if kind in _TABLES:
        yield from _of_table(path)
    elif kind in ARCHIVES:
        yield from (_of_member(path, each) for each in members(path))
    else:
        yield Row(path.as_posix(), str(path))


def _of_member(path: Path, member: Member) -> Row:
    name = f"{path.name}/{member.name}"
    return Row(name, str(path), member.offset, member.length, member.label)


def _of_folder(folder: Path) -> Iterator[Row]:
    """The pictures in a folder, by name; links are followed, but not in circles."""
    known, seen, found = Image.registered_extensions(), set(), []
    for where, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        found += [Path(where, name) for name in files if Path(name).suffix.lower() in known]
    for path in sorted(found):
        inside = path.relative_to(folder)
        label = inside.parts[0] if len(inside.parts) > 1 else ""
        yield Row(inside.as_posix(), str(path), label=label)


def _of_table(path: Path) -> Iterator[Row]:
    """The rows of a CSV or Parquet file; what else stands in it is left alone."""
    for number, row in enumerate(records(path)):
        if not row.get("path"):
            raise ValueError(
                f"Expected a column `path` with a picture in every row. Received: {path}, row "
                f"{number} of which has {dict(row)!r}. Other columns: `label`, `boxes`."
            )
        boxes = row.get("boxes")
        text = boxes if isinstance(boxes, str) else "" if boxes is None else json.dumps(boxes)
        label = row.get("label")
        place = path.parent / str(row["path"])
        yield Row(str(row["path"]), str(place), label="" if label is None else str(label),
                  boxes=checked_boxes(text, str(row["path"])))  # fmt: skip


def records(file: str | PathLike[str]) -> Iterator[dict[str, Any]]:
    """The rows of a CSV or Parquet file: `path`, and `label` and `boxes` where they are there.

    Raises:
        ValueError: If the file is not there.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"Expected a CSV or Parquet file. Received: {path}, which is not there.")
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as text:
            yield from csv.DictReader(text)
        return
    table = imported("pyarrow.parquet", "a Parquet source", "dataset").ParquetFile(path)
    wanted = [name for name in ("path", "label", "boxes") if name in table.schema_arrow.names]
    for batch in table.iter_batches(columns=wanted):
        yield from batch.to_pylist()


def checked_boxes(text: str, name: str) -> str:
    """JSON of boxes as a list of lists; "" for none.

    Raises:
        ValueError: If it is something else.
    """
    if not text.strip():
        return ""
    try:
        boxes = json.loads(text)
        boxes = [boxes] if boxes and not isinstance(boxes[0], list) else boxes
        found = [[float(value) for value in box] for box in boxes]
        if any(len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]) for box in found):
            raise ValueError(text)
    except (ValueError, TypeError):
        raise ValueError(
            "Expected boxes [x0, y0, x1, y1] in pixels, x0 < x1 and y0 < y1, as JSON. Received: "
            f"{text!r} for '{name}'. For example [[0, 0, 120, 80]]."
        ) from None
    return json.dumps(found) if found else ""


def _unique(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, those whose name was there before with its number behind it."""
    count: dict[str, int] = {}
    for row in rows:
        number = count[row.id] = count.get(row.id, 0) + 1
        yield row if number == 1 else row._replace(id=f"{row.id}#{number}")
