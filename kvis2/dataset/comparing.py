"""`kvis2 compare`: several methods on pictures of a source, as a page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kvis2 import images, metrics
from kvis2.dataset.annotations import annotated
from kvis2.dataset.command import (
    add_framing_argument,
    add_model_arguments,
    add_source_arguments,
    made_explainer,
    source_of,
)
from kvis2.dataset.measures import boxes_in_input
from kvis2.dataset.reading import Entry, Reader
from kvis2.dataset.sources import rows_of
from kvis2.gallery import evenly, image_shape, load_model, space_asked_for
from kvis2.images import Framing
from kvis2.metrics import Comparison
from kvis2.pages import rendered

_METHODS = ("GradCAM", "LayerCAM", "HiResCAM", "Saliency")


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `kvis2 compare`."""
    add_model_arguments(parser)
    add_source_arguments(parser)
    parser.add_argument("--methods", nargs="+", default=list(_METHODS), metavar="NAME",
                        help="explainers of kvis2; %(default)s")  # fmt: skip
    parser.add_argument("--pictures", type=int, default=32, metavar="N",
                        help="how many, evenly over the source; %(default)s")  # fmt: skip
    add_framing_argument(parser)


def run_compare(options: argparse.Namespace) -> int:
    """Compare methods.

    Args:
        options: As `add_compare_arguments` reads them.

    Returns:
        0, or 1 if pictures could not be read.

    Raises:
        ValueError: If model, methods and source do not fit, or no picture can be read.
    """
    if options.pictures < 1:
        raise ValueError(f"Expected --pictures from 1. Received: {options.pictures}.")
    model, preprocess = load_model(options.model, options.random_weights, trust=options.trust)
    height, width, channels = image_shape(model)
    space = space_asked_for(options, preprocess, channels)
    reader = Reader((height, width), space, Framing(options.framing))
    explainers = {name: made_explainer(model, name, None) for name in options.methods}
    rows = evenly(annotated(rows_of(source_of(options)), None, options.boxes), options.pictures)
    found = [reader.read(row) for row in rows]
    read = [(entry, picture) for entry, picture in found if not entry.error]
    if not read:
        raise ValueError(found[0][0].error)
    boxes = [boxes_in_input(entry, reader) for entry, _ in read]
    inputs = space.encode(np.stack([picture for _, picture in read]))
    comparison = metrics.compare(model, explainers, inputs, boxes=boxes if all(boxes) else None)
    failed = [entry for entry, _ in found if entry.error]
    _write(options.out, model, comparison, _sentences(failed, boxes))
    sys.stdout.write(f"{comparison}\n{options.out / 'index.html'}\n")
    return 1 if failed else 0


def _sentences(failed: Sequence[Entry], boxes: Sequence[Any]) -> list[str]:
    said = [entry.error for entry in failed]
    if any(boxes) and not all(boxes):
        said.append(
            f"{sum(map(bool, boxes))} of {len(boxes)} pictures have boxes, so nothing is measured "
            "by them: all must have one."
        )
    return said


def _write(
    folder: Path, model: keras.Model, comparison: Comparison, sentences: Sequence[str]
) -> None:
    """The page, the numbers, and the picture of the maps."""
    heads, rows = comparison.table()
    page = rendered(
        "compare.html",
        title=f"{model.name}: {', '.join(comparison.explainers)}",
        subtitle=f"{len(comparison.images)} pictures; the predicted class is explained",
        sentences=list(sentences),
        heads=heads,
        rows=rows,
        note=str(comparison).splitlines()[-1],
    )
    with images.written_aside(folder / "maps.png") as part:
        comparison.plot().savefig(part, format="png", bbox_inches="tight")
    with images.written_aside(folder / "comparison.csv") as part:
        comparison.to_csv(part)
    with images.written_aside(folder / "index.html") as part:
        part.write_text(page, encoding="utf-8", errors="backslashreplace")
