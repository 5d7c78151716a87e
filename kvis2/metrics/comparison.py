"""What `compare` returns: numbers of several explainers by several measures, and their maps."""

from __future__ import annotations

import csv
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvis2.metrics.result import Measurement

RANDOM = "random maps"
"""The name under which a comparison holds the control."""
_RESAMPLES = 2000
_LEVEL = 0.95


class Cell(NamedTuple):
    """One number of a comparison.

    Attributes:
        mean: Over the images.
        low: Lower end of the 95 % bootstrap interval of the mean, over images.
        high: Its upper end.
        rank: 1 is the best explainer by this measure; ties share the mean of their ranks. NaN for
            random maps.
    """

    mean: float
    low: float
    high: float
    rank: float


class Comparison:
    """Explainers by measures: means, intervals, ranks, time, and the maps themselves.

    There is no total: measures reward different things, some of them wrongly.

    Args:
        values: By measure and explainer what was found; random maps are under `"random maps"`.
        maps: The maps of each explainer.
        images: The images, as the model takes them.
        seconds: How long the maps of each explainer took per image, a share of shared passes.
        measure_seconds: How long each measure took per image and explainer.
        seed: Seed of the bootstrap.
    """

    def __init__(
        self,
        values: Mapping[str, Mapping[str, Measurement]],
        *,
        maps: Mapping[str, Any],
        images: NDArray[Any],
        seconds: Mapping[str, float],
        measure_seconds: Mapping[str, float],
        seed: int = 0,
    ) -> None:
        self.values = {name: dict(each) for name, each in values.items()}
        self.maps = dict(maps)
        self.images = images
        self.seconds = dict(seconds)
        self.measure_seconds = dict(measure_seconds)
        self.seed = seed

    @property
    def measures(self) -> list[str]:
        """The names of the measures."""
        return list(self.values)

    @property
    def explainers(self) -> list[str]:
        """The names of the explainers."""
        return list(self.maps)

    def cell(self, measure: str, explainer: str) -> Cell:
        """The mean, its interval and the rank of one explainer by one measure."""
        found = np.asarray(self.values[measure][explainer], np.float64)
        draw = np.random.default_rng(self.seed)
        chosen = draw.integers(0, len(found), (_RESAMPLES, len(found)))
        tails = [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)]
        low, high = np.percentile(found[chosen].mean(axis=1), tails)
        rank = self.ranks(measure).get(explainer, float("nan"))
        return Cell(float(found.mean()), float(low), float(high), rank)

    def ranks(self, measure: str) -> dict[str, float]:
        """The rank of every explainer by one measure, 1 the best by the mean over the images."""
        better = self.values[measure][self.explainers[0]].better
        means = {name: float(np.mean(np.asarray(self.values[measure][name]))) for name in self.maps}
        signed = {name: mean if better == "lower" else -mean for name, mean in means.items()}
        return {
            name: sum(other < own for other in signed.values())
            + (sum(other == own for other in signed.values()) + 1) / 2
            for name, own in signed.items()
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The head and the rows that are shown: a row for each explainer, one for random maps."""
        signs = {"higher": "↑", "lower": "↓"}
        head = ["explainer"]
        for measure in self.measures:
            better = self.values[measure][self.explainers[0]].better
            head.append(f"{measure} {signs[better]}")
        head.append("ms per image")
        rows = []
        for name in [*self.explainers, RANDOM]:
            row = [name]
            for measure in self.measures:
                known = name in self.values[measure]
                row.append(_written(self.cell(measure, name)) if known else "")
            row.append(f"{1000 * self.seconds[name]:.1f}" if name in self.seconds else "")
            rows.append(row)
        costs = [f"{1000 * self.measure_seconds[measure]:.1f}" for measure in self.measures]
        rows.append(["ms per image and explainer", *costs, ""])
        return head, rows

    def __str__(self) -> str:
        """A table for a terminal."""
        head, rows = self.table()
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [head, ["-" * width for width in widths], *rows]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([*text, "", _NOTE.format(count=len(self.images))])

    __repr__ = __str__

    def to_markdown(self) -> str:
        """The table in Markdown."""
        head, rows = self.table()
        lines = [head, ["---"] * len(head), *rows]
        text = ["| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines]
        return "\n".join([*text, "", _NOTE.format(count=len(self.images)), ""])

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        head, rows = self.table()
        titles = "".join(f"<th>{html.escape(each)}</th>" for each in head)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        note = html.escape(_NOTE.format(count=len(self.images)))
        return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table><p>{note}</p>"

    def to_csv(self, path: str | Path) -> None:
        """Write one line for each explainer and measure.

        Args:
            path: The file. Its columns are measure, better, explainer, mean, low, high, rank,
                random (the mean of random maps), seconds_of_maps and seconds_of_measure.
        """
        columns = ["measure", "better", "explainer", *Cell._fields]
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*columns, "random", "seconds_of_maps", "seconds_of_measure"])
            for measure, found in self.values.items():
                control = found.get(RANDOM)
                random = "" if control is None else float(np.mean(np.asarray(control)))
                for name in self.explainers:
                    cell = self.cell(measure, name)
                    line = [measure, found[name].better, name, *cell, random]
                    writer.writerow([*line, self.seconds[name], self.measure_seconds[measure]])

    def plot(self, images: int = 6) -> Any:
        """Draw the maps, images in rows and explainers in columns, with the measures below.

        Args:
            images: How many of the images are shown at most.

        Returns:
            A matplotlib figure, which a notebook shows.

        Raises:
            ValueError: If the maps are not those of one input of images.
        """
        from kvis2.metrics.pictures import comparison_figure

        return comparison_figure(self, images)


_NOTE = (
    "Mean over {count} images [95 % bootstrap interval] (rank). Arrows point to what is better. No "
    "measure alone decides; each has to be seen beside that of random maps."
)


def _written(cell: Cell) -> str:
    rank = "" if np.isnan(cell.rank) else f" ({cell.rank:g})"
    return f"{cell.mean:.3g} [{cell.low:.3g}, {cell.high:.3g}]{rank}"


def _plain(text: str) -> str:
    """Text that does not end a cell of a table in Markdown, nor begin anything else."""
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
