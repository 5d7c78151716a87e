"""What is in a folder of explanations: a table whose columns and maps are read when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2 import images
from kvis2.dataset.compact import CompactMap
from kvis2.dataset.manifest import read_manifest
from kvis2.dataset.reading import photograph_of
from kvis2.dataset.sources import Row
from kvis2.dataset.store import Store, as_array
from kvis2.extras import imported
from kvis2.images import Framing
from kvis2.passes import resize

_KEPT = 4  # chunks whose maps are kept in memory


class Table:
    """A row for each picture, by their order in the source; made by `kvis2.dataset.read`.

    Columns are `row`, `id`, `path`, `label_name`, `label`, `prediction`, `probability`, `target`,
    `height`, `width`, `boxes`, the measures, and `error`; `table["probability"]` is an array. Whole
    numbers are -1 and fractions NaN where there is none.

    Args:
        folder: The folder that was written.
        manifest: What it was made with.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._store = Store(folder, manifest["chunk_format"] == "parquet")
        self._chunks = self._store.finished()
        self._columns: dict[str, NDArray[Any]] = {}
        self._rows: list[Row] | None = None
        self._maps: dict[int, dict[str, NDArray[Any]]] = {}

    def __len__(self) -> int:
        return len(self["row"])

    def __repr__(self) -> str:
        method = self.manifest["method"]["name"]
        return f"<Table of {len(self):,} of {self.manifest['pictures']:,} pictures, {method}>"

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        before = ["row", "id", "path", "label_name", "label", "prediction", "probability"]
        after = ["target", "height", "width", "boxes", *self.manifest["measures"], "error"]
        return before + after

    @property
    def class_names(self) -> list[str]:
        """The names of the classes; empty where none are known."""
        return self.manifest["classes"]

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column, `(pictures,)`."""
        if name not in self.columns:
            raise KeyError(f"Expected one of {self.columns}. Received: {name!r}.")
        if name not in self._columns:
            parts = [self._store.read_chunk(each, [name])[name] for each in self._chunks]
            values = [value for part in parts for value in part]
            self._columns[name] = as_array(name, values)
        return self._columns[name]

    def row(self, index: int) -> dict[str, Any]:
        """One row, as a dict of plain values."""
        return {name: _plain(self[name][index]) for name in self.columns}

    def to_pandas(self) -> Any:
        """All columns as a `pandas.DataFrame`; needs pandas."""
        pandas = imported("pandas", "a DataFrame", "dataset")
        return pandas.DataFrame({name: self[name] for name in self.columns})

    def kept_map(self, index: int) -> CompactMap | None:
        """The map of a row as it is kept; None where there is none."""
        row, per_chunk = int(self["row"][index]), self.manifest["chunk_size"]
        chunk = self._of_chunk(row // per_chunk)
        place = row - row // per_chunk * per_chunk
        values = chunk["map"][place]
        if values is None:
            return None
        shape = (int(chunk["map_height"][place]), int(chunk["map_width"][place]))
        signed = bool(chunk["signed"][place])
        grid = np.frombuffer(values, np.uint8).reshape(shape)
        return CompactMap(grid, float(chunk["scale"][place]), signed)

    def map(
        self,
        index: int,
        size: Literal["grid", "input", "photograph"] | tuple[int, int] = "input",
        normalize: Any = "as explained",
    ) -> NDArray[np.float32] | None:
        """The map of a row, float32 `(height, width)`.

        Args:
            index: Which row.
            size: "grid" as it is kept; "input" as the explainer gives it; "photograph" where it
                lies on the photograph, NaN where the model did not look; or height and width, to
                which that of the input is brought.
            normalize: "image" divides by the largest magnitude, "minmax" stretches to 0..1, False
                leaves the values of the method; by default as the explainer does it, but for
                "batch", of which "image" is taken.

        Returns:
            The map; None where the picture failed.
        """
        kept = self.kept_map(index)
        if kept is None:
            return None
        heatmap = kept.heatmap
        if size != "grid":
            known = tuple(self.manifest["input"]["size"])
            target = list(known if isinstance(size, str) else size)
            heatmap = np.asarray(resize(tf.constant(heatmap[None]), target))[0]
        mode = self.manifest["normalize"] if normalize == "as explained" else normalize
        heatmap = images.normalize(heatmap[None], "image" if mode == "batch" else mode)[0]
        if size != "photograph":
            return heatmap
        photograph = (int(self["height"][index]), int(self["width"][index]))
        return self.framing.of_photograph(heatmap, photograph)

    def photograph(self, index: int) -> NDArray[np.uint8]:
        """The picture of a row in its own size, uint8 `(height, width, 3)`, from where it lies.

        Raises:
            ValueError: If it cannot be read any more.
        """
        if self._rows is None:
            self._rows = self._store.listing()
        return photograph_of(self._rows[int(self["row"][index])])[0]

    def named(self, number: int) -> str:
        """The name of a class; "class 7" where none are known."""
        names = self.manifest["classes"]
        return names[number] if number < len(names) else f"class {number}"

    def maps(self, indices: Sequence[int] | None = None, **options: Any) -> Iterator[Any]:
        """The maps of some rows, or all, one after the other: see `map`."""
        for index in range(len(self)) if indices is None else indices:
            yield self.map(int(index), **options)

    @property
    def framing(self) -> Framing:
        """How the photographs filled the input."""
        return Framing(self.manifest["input"]["mode"], self.manifest["input"]["fill"])

    def _of_chunk(self, number: int) -> dict[str, NDArray[Any]]:
        if number not in self._maps:
            names = ["map", "map_height", "map_width", "scale", "signed"]
            found = self._store.read_chunk(number, names)
            while len(self._maps) >= _KEPT:
                self._maps.pop(next(iter(self._maps)))
            self._maps[number] = {name: as_array(name, each) for name, each in found.items()}
        return self._maps[number]


def read(folder: str | PathLike[str]) -> Table:
    """What was explained into a folder, also while a run still writes to it.

    Args:
        folder: As given to `explain_dataset` or `kvis2 explain --out`.

    Returns:
        A table; columns and maps are read when they are asked for.

    Raises:
        ValueError: If there is no such folder.

    Example:
        >>> table = read("explained")
        >>> sure = np.flatnonzero(table["probability"] > 0.9)
        >>> table.map(sure[0], size="photograph").shape
        (1200, 1600)
    """
    manifest = read_manifest(Path(folder))
    if manifest is None:
        raise ValueError(
            f"Expected a folder written by `kvis2 explain`. Received: {folder}, without a "
            "manifest.json. Check the path."
        )
    return Table(Path(folder), manifest)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
