"""The folder of a data set of explanations: chunks that are there as a whole or not at all."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvis2 import images
from kvis2.dataset.sources import Row
from kvis2.extras import imported, is_installed

WHOLE_NUMBERS = ("row", "label", "prediction", "target", "height", "width", "map_height",
                 "map_width")  # fmt: skip
"""Columns of whole numbers; None where there is none."""

WORDS = ("id", "path", "label_name", "boxes", "error")
"""Columns of text."""

Columns = dict[str, list[Any]]
"""For each column of a chunk its values; `map` has bytes, `signed` bools, all others floats."""


class Store:
    """A folder with a manifest, the listing of the source, chunks, and the errors.

    Args:
        folder: Where it is, or will be.
        parquet: Whether chunks are Parquet files, which needs pyarrow; else each is a CSV file with
            the maps in an `.npz` beside it. None takes Parquet where pyarrow is installed.
    """

    def __init__(self, folder: Path, parquet: bool | None = None) -> None:
        self.folder = folder
        self.parquet = is_installed("pyarrow") if parquet is None else parquet

    def chunk_path(self, number: int) -> Path:
        """The file by which a chunk is finished."""
        suffix = "parquet" if self.parquet else "csv"
        return self.folder / "chunks" / f"chunk-{number:06d}.{suffix}"

    def finished(self) -> list[int]:
        """The numbers of the chunks that are there."""
        names = (path.stem for path in self.chunk_path(0).parent.glob(self._pattern))
        return sorted(int(name.removeprefix("chunk-")) for name in names)

    @property
    def _pattern(self) -> str:
        return f"chunk-*.{'parquet' if self.parquet else 'csv'}"

    def write_chunk(self, number: int, columns: Columns) -> None:
        """Write a chunk; it is on the disk when this returns, and no part of it if this raises.

        Raises:
            OSError: If the disk is full, or may not be written to.
        """
        path = self.chunk_path(number)
        if self.parquet:
            with durable(path) as part:
                _write_parquet(part, columns)
            return
        maps = {str(index): np.frombuffer(each, np.uint8)
                for index, each in enumerate(columns["map"]) if each is not None}  # fmt: skip
        with durable(path.with_suffix(".npz")) as part, part.open("wb") as file:
            np.savez_compressed(file, **maps)  # type: ignore[arg-type]
        with durable(path) as part:
            _write_csv(part, {name: each for name, each in columns.items() if name != "map"})

    def read_chunk(self, number: int, names: Sequence[str] | None = None) -> Columns:
        """Some columns of a chunk, or all."""
        path = self.chunk_path(number)
        if self.parquet:
            with _parquet().ParquetFile(path) as file:
                table = file.read(columns=None if names is None else list(names))
            return {name: table.column(name).to_pylist() for name in table.column_names}
        found = _read_csv(path)
        if names is None or "map" in names:
            with np.load(path.with_suffix(".npz")) as maps:
                count = len(found["id"])
                found["map"] = [
                    maps[str(index)].tobytes() if str(index) in maps.files else None
                    for index in range(count)
                ]
        return found if names is None else {name: found[name] for name in names}

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write what the folder is made with."""
        with durable(self.folder / "manifest.json") as part:
            part.write_text(json.dumps(manifest, indent=1), encoding="utf-8")

    def write_listing(self, rows: Sequence[Row]) -> None:
        """Keep which pictures there are, in their order, for a run that goes on."""
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        with durable(self.folder / "source.csv.gz") as part:
            encoded = text.getvalue().encode("utf-8", "surrogateescape")
            part.write_bytes(gzip.compress(encoded, mtime=0))

    def listing(self) -> list[Row]:
        """The pictures in their order."""
        with gzip.open(
            self.folder / "source.csv.gz",
            "rt",
            encoding="utf-8",
            errors="surrogateescape",
            newline="",
        ) as file:
            return [
                Row(name, path, int(offset), int(length), label, boxes)
                for name, path, offset, length, label, boxes in csv.reader(file)
            ]

    def write_errors(self) -> int:
        """List what could not be explained in `errors.csv`; returns how many there are."""
        count, names = 0, ["row", "id", "path", "error"]
        with (
            images.written_aside(self.folder / "errors.csv") as part,
            part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(names)
            for number in self.finished():
                chunk = self.read_chunk(number, names)
                failed = [row for row in zip(*(chunk[n] for n in names), strict=True) if row[3]]
                writer.writerows(failed)
                count += len(failed)
        return count


@contextmanager
def durable(path: Path) -> Iterator[Path]:
    """As `kvis2.images.written_aside`; and what is there after it survives a loss of power."""
    with images.written_aside(path) as part:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _write_parquet(path: Path, columns: Columns) -> None:
    import pyarrow as pa

    kinds = {"map": pa.binary(), "signed": pa.bool_(), "row": pa.int64()}
    kinds |= {name: pa.int32() for name in WHOLE_NUMBERS[1:]}
    kinds |= {name: pa.string() for name in WORDS}
    arrays = {
        name: pa.array([_text(each) for each in values] if name in WORDS else values,
                       kinds.get(name, pa.float32()), from_pandas=True)
        for name, values in columns.items()
    }  # fmt: skip
    _parquet().write_table(pa.table(arrays), path)


def _text(value: str | None) -> str | None:
    """Text that UTF-8 can hold: a path may have bytes that are none."""
    return None if value is None else value.encode("utf-8", "backslashreplace").decode()


def _write_csv(path: Path, columns: Columns) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow("" if each is None or each != each else each for each in row)


def _read_csv(path: Path) -> Columns:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        names = next(reader)
        rows = list(reader)
    return {
        name: [_value(name, text) for text in texts]
        for name, texts in zip(names, zip(*rows, strict=True), strict=True)
    }


def _value(name: str, text: str) -> Any:
    if name in WORDS:
        return text
    if text == "":
        return None
    if name == "signed":
        return text == "True"
    return int(text) if name in WHOLE_NUMBERS else float(np.float32(text))


def as_array(name: str, values: Sequence[Any]) -> NDArray[Any]:
    """A column as an array: text as objects, numbers as float32 or int64, -1 and NaN for none."""
    if name in WORDS or name == "map":
        found = np.empty(len(values), object)
        found[:] = values
        return found
    if name == "signed":
        return np.array([bool(each) for each in values], bool)
    if name in WHOLE_NUMBERS:
        return np.array([-1 if each is None else each for each in values], np.int64)
    return np.array([np.nan if each is None else each for each in values], np.float32)


def _parquet() -> Any:
    return imported("pyarrow.parquet", "chunks of Parquet", "dataset")
