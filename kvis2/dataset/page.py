"""The page of a data set: classes, failures, and every picture with its map, in any order."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvis2 import images
from kvis2.dataset.drift import drifts
from kvis2.dataset.pictures import CHUNK_DIGITS, SIDE
from kvis2.dataset.table import Table, read
from kvis2.pages import rendered

_ERRORS = 20  # shown on the page; errors.csv has all
_WORDS = {
    "complexity": "complexity is the entropy of a map, in nats: the lower, the more it is in one "
    "place.",
    "energy_in_box": "energy_in_box is the share of the heat that lies in the box.",
    "drift": "drift is 1 minus the rank correlation of the two maps.",
}


def report(
    folder: str | PathLike[str],
    other: str | PathLike[str] | None = None,
    *,
    most: int = 100_000,
) -> Path:
    """Write the page of a folder of explanations, from what is on disk.

    It opens from disk, without a server, and draws only the pictures in view. With a second folder
    it shows how far the maps of the same pictures are apart, as of two models or two methods.

    Args:
        folder: Written by `explain_dataset` or `kvis2 explain`.
        other: Another one, whose pictures have the same names.
        most: How many pictures the page has at most, from the first.

    Returns:
        The path of the page: `index.html`, or `drift.html` for two folders, in `folder`.

    Raises:
        ValueError: If a folder has no rows, or two have no picture in common.

    Example:
        >>> report("explained").name
        'index.html'
    """
    table = read(folder)
    if not len(table):
        raise ValueError(
            f"Expected a folder with explanations. Received: {folder}, where no chunk is finished. "
            "Run `kvis2 explain` again, with --resume."
        )
    second = None if other is None else read(other)
    found = _Rows(table, second, most)
    page = table.folder / ("index.html" if second is None else "drift.html")
    data = page.with_suffix(".js")
    with images.written_aside(data) as part:
        part.write_text(f"window.kvis2Rows = {json.dumps(found.data())};\n", encoding="ascii")
    with images.written_aside(page) as part:
        part.write_text(_rendered(found, data.name), encoding="utf-8", errors="backslashreplace")
    return page


class _Rows:
    """What the page shows of one table, or of two."""

    def __init__(self, table: Table, other: Table | None, most: int) -> None:
        self.table = table
        self.other = other
        self.pairs = _pairs(table, other)[:most]
        self.here = np.array([pair[0] for pair in self.pairs], np.int64)
        self.there = np.array([pair[1] for pair in self.pairs], np.int64)
        self.left_out = len(table) - len(self.pairs)
        self.columns = {"probability": table["probability"][self.here]}
        self.columns |= {name: table[name][self.here] for name in table.manifest["measures"]}
        if other is not None:
            self.columns = {"drift": drifts(table, other, self.pairs), **self.columns}
        self.columns = {n: each for n, each in self.columns.items() if np.isfinite(each).any()}
        self.labels = table["label"][self.here]
        self.predictions = table["prediction"][self.here]
        self.labelled = bool((self.labels >= 0).any())
        words = table["label_name"][self.here]
        self.by_label = bool((words != "").any())
        self.group_names, self.groups = self._grouped(words)

    def _grouped(self, words: NDArray[Any]) -> tuple[list[str], NDArray[np.int64]]:
        """The labels as they were found, or else the predicted classes; -1 for none."""
        if not self.by_label:
            known = sorted(set(self.predictions.tolist()) - {-1})
            places = {number: place for place, number in enumerate(known)}
            found = [places.get(each, -1) for each in self.predictions.tolist()]
            return [self.named(each) for each in known], np.array(found, np.int64)
        numbers = dict(zip(words.tolist(), self.labels.tolist(), strict=True))
        names = sorted(set(words.tolist()) - {""}, key=lambda each: (numbers[each], each))
        places = {name: place for place, name in enumerate(names)}
        shown = [each if numbers[each] < 0 else self.named(numbers[each]) for each in names]
        return shown, np.array([places.get(each, -1) for each in words], np.int64)

    def named(self, number: int) -> str:
        """The name of a class."""
        return self.table.named(number)

    def data(self) -> dict[str, Any]:
        """What the script of the page sorts and draws."""
        orders = [("row", "as in the source")]
        if self.labelled:
            orders.append(("wrong and confident", "wrong and confident"))
        orders += [(name, name) for name in self.columns]
        if self.other is not None:
            orders = [each for each in orders if each[0] == "drift"] + [
                each for each in orders if each[0] != "drift"
            ]
        numbers = sorted({*self.labels.tolist(), *self.predictions.tolist()} - {-1})
        names = {number: self.named(number) for number in numbers}
        folders, rows = [""], [self.table["row"][self.here].tolist()]
        other: list[Any] = [None] * len(self.here)
        if self.other is not None:
            numbers = self.other["prediction"][self.there].tolist()
            other = [None if each < 0 else each for each in numbers]
            names |= {n: names.get(n, self.named(n)) for n in set(numbers) - {-1}}
            folders.append(os.path.relpath(self.other.folder, self.table.folder) + "/")
            rows.append(self.other["row"][self.there].tolist())
        return {
            "orders": orders,
            "names": names,
            "folders": folders,
            "rows": rows,
            "id": self.table["id"][self.here].tolist(),
            "label": _numbers(self.labels),
            "prediction": _numbers(self.predictions),
            "other": other,
            "group": _numbers(self.groups),
            "probability": _fractions(self.columns.get("probability")) or [None] * len(self.here),
            "columns": {name: _fractions(each) for name, each in self.columns.items()},
        }

    def classes(self) -> tuple[list[str], list[dict[str, Any]]]:
        """The heads of the table of classes, and a row for each class."""
        heads = ["pictures", *(["right"] if self.labelled else []), *self.columns]
        rows = []
        for number, name in enumerate(self.group_names):
            inside = self.groups == number
            cells = [f"{inside.sum():,}"]
            if self.labelled:
                known = inside & (self.predictions >= 0) & (self.labels >= 0)
                right = self.predictions[known] == self.labels[known]
                right = right.mean() if known.any() else np.nan
                cells.append("" if np.isnan(right) else f"{100 * right:.1f}%")
            for values in self.columns.values():
                finite = values[inside][np.isfinite(values[inside])]
                cells.append(f"{finite.mean():.3f}" if finite.size else "")
            rows.append({"number": number, "name": name, "cells": cells})
        return heads, rows

    def sentences(self) -> list[str]:
        """What there is to say about all of them."""
        said = []
        if self.labelled:
            known = (self.labels >= 0) & (self.predictions >= 0)
            right = (self.labels[known] == self.predictions[known]).sum()
            said.append(f"{right:,} of {known.sum():,} pictures with a label are predicted right.")
        if self.other is not None:
            moved = self.predictions != self.other["prediction"][self.there]
            said.append(
                f"{len(self.here):,} pictures are in both; of {moved.sum():,} another class is "
                "predicted. Above is the first model, below the second."
            )
        if self.left_out and self.other is None:
            said.append(f"{self.left_out:,} more pictures are in the table and not on this page.")
        return said


def _rendered(found: _Rows, data_file: str) -> str:
    table = found.table
    heads, rows = found.classes()
    failed = [index for index, error in enumerate(table["error"]) if error]
    return rendered(
        "report.html",
        title=_title(table, found.other),
        subtitle=_subtitle(table),
        sentences=found.sentences(),
        classes=rows,
        class_columns=heads,
        labelled=found.labelled,
        by_label=found.by_label,
        explained_columns=" ".join(_WORDS[name] for name in found.columns if name in _WORDS),
        errors=[
            {"id": table["id"][index], "sentence": table["error"][index]}
            for index in failed[:_ERRORS]
        ],
        failed=len(failed),
        side=SIDE,
        sheets=1 if found.other is None else 2,
        lines=3 if found.other is None else 4,
        digits=CHUNK_DIGITS,
        data_file=data_file,
    )


def _title(table: Table, other: Table | None) -> str:
    name = f"{table.manifest['model']['name']}, {table.manifest['method']['name']}"
    if other is None:
        return name
    return f"{name}, and {other.manifest['model']['name']}, {other.manifest['method']['name']}"


def _subtitle(table: Table) -> str:
    known = table.manifest
    layer = known["method"]["layer"]
    parts = [
        f"{len(table):,} of {known['pictures']:,} pictures of {known['source']}",
        f"score: {known['score']}",
        f"layer: {layer}" if layer else "",
        f"kvis2 {known['kvis2']}, TensorFlow {known['versions']['tensorflow']}",
    ]
    return "; ".join(filter(None, parts))


def _pairs(table: Table, other: Table | None) -> list[tuple[int, int]]:
    """The rows with the same picture in both tables; of one table each with itself."""
    if other is None:
        return [(index, index) for index in range(len(table))]
    places = {name: index for index, name in enumerate(other["id"])}
    found = [(i, places[name]) for i, name in enumerate(table["id"]) if name in places]
    if not found:
        raise ValueError(
            f"Expected two folders of the same pictures. Received: {table.folder} and "
            f"{other.folder}, which have no `id` in common. Explain the same source twice."
        )
    return found


def _numbers(values: NDArray[Any]) -> list[int | None]:
    return [None if each < 0 else each for each in values.tolist()]


def _fractions(values: NDArray[Any] | None) -> list[float | None]:
    listed: Sequence[float] = [] if values is None else values.tolist()
    return [round(each, 4) if np.isfinite(each) else None for each in listed]
