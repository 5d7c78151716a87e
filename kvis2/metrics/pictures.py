"""The figure of a comparison."""

from __future__ import annotations

from typing import Any

import numpy as np

from kvis2.images import color_ends, displayable, normalize, notebook_figure, overlay
from kvis2.metrics.comparison import RANDOM, Comparison


def comparison_figure(comparison: Comparison, most: int) -> Any:
    """Images in rows, explainers in columns, and a bar chart for each measure below."""
    pictures = displayable(comparison.images[:most])
    maps = comparison.maps
    if any(not isinstance(each, np.ndarray) or each.ndim != 3 for each in maps.values()):
        raise ValueError(
            "Expected the maps of one input of images, (batch, height, width). Received: other "
            "maps. Use `to_markdown()` or `to_csv(path)`."
        )
    columns = 1 + len(maps)
    rows = len(pictures)
    measures = comparison.measures
    side = 1.7  # inches
    extra = 2.2 + 0.1 * max(map(len, maps))
    figure = notebook_figure(side * columns, side * rows + extra)
    parts = figure.subfigures(2, 1, height_ratios=[side * rows, extra], squeeze=False)
    above, below = parts[:, 0]
    axes = above.subplots(rows, columns, squeeze=False)
    for row, picture in enumerate(pictures):
        axes[row, 0].imshow(picture)
        for column, each in enumerate(maps.values(), start=1):
            # 0 has the same colour in all maps of a method.
            heat = normalize(each)[row]
            ends = color_ends(heat, signed=bool((each < 0).any()))
            axes[row, column].imshow(overlay(picture, heat, limits=ends))
    for ax, name in zip(axes[0], ["image", *maps], strict=True):
        ax.set_title(name, fontsize=8)
    for ax in axes.flat:
        ax.set_axis_off()
    charts = below.subplots(1, len(measures), squeeze=False)[0]
    for ax, measure in zip(charts, measures, strict=True):
        _bars(ax, comparison, measure)
    return figure


def _bars(ax: Any, comparison: Comparison, measure: str) -> None:
    """The means with their intervals, and a line for random maps."""
    names = comparison.explainers
    cells = [comparison.cell(measure, name) for name in names]
    means = [cell.mean for cell in cells]
    spans = [[c.mean - c.low for c in cells], [c.high - c.mean for c in cells]]
    ax.bar(range(len(names)), means, yerr=spans, color="tab:blue", error_kw={"linewidth": 0.8})
    found = comparison.values[measure]
    if RANDOM in found:
        level = float(np.mean(np.asarray(found[RANDOM])))
        ax.axhline(level, color="tab:gray", linestyle="--", linewidth=1)
    ax.set_title(f"{measure}\n({found[names[0]].better} is better)", fontsize=8)
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    ax.tick_params(axis="y", labelsize=7)
