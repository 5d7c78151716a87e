"""What is measured of every map: by itself, and against the boxes of its object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2 import metrics
from kvis2.dataset.reading import Entry, Reader
from kvis2.passes import resize

OF_MAPS = {
    "complexity": metrics.complexity,
    "sparseness": metrics.sparseness,
    "effective_complexity": metrics.effective_complexity,
}
"""Measures of a map on its own grid."""

OF_BOXES = {
    "energy_in_box": metrics.energy_in_box,
    "pointing_game": metrics.pointing_game,
    "relevance_rank": metrics.relevance_rank,
    "localization_auc": metrics.localization_auc,
}
"""Measures of a map at the size of the input, against boxes; NaN where none is known."""

BY_DEFAULT = ("complexity", "energy_in_box")


def check_measures(names: Sequence[str]) -> None:
    """Raise for a measure that is not known."""
    unknown = sorted(set(names) - set(OF_MAPS) - set(OF_BOXES))
    if unknown:
        raise ValueError(
            f"Expected measures among {', '.join([*OF_MAPS, *OF_BOXES])}. Received: "
            f"{', '.join(unknown)}. Measures that run the model are in `kvis2 compare`."
        )


def measured(
    names: Sequence[str], maps: NDArray[np.float32], entries: Sequence[Entry], reader: Reader
) -> dict[str, NDArray[np.float32]]:
    """The measures of a batch.

    Args:
        names: Keys of `OF_MAPS` and `OF_BOXES`.
        maps: float32 `(batch, height, width)`, finite.
        entries: Whose maps they are.
        reader: How the pictures were read.

    Returns:
        For each name float32 `(batch,)`, NaN where a measure needs boxes and none lies in what the
        model saw.
    """
    found = {name: OF_MAPS[name](maps) for name in names if name in OF_MAPS}
    by_box = [name for name in names if name in OF_BOXES]
    if by_box:
        boxes = [boxes_in_input(entry, reader) for entry in entries]
        where = [index for index, each in enumerate(boxes) if each]
        for name in by_box:
            found[name] = np.full(len(maps), np.nan, np.float32)
        if where:
            seen = np.asarray(resize(tf.constant(maps[where]), list(reader.size)))
            for name in by_box:
                found[name][where] = OF_BOXES[name](seen, [boxes[index] for index in where])
    return {name: found[name] for name in names}


def boxes_in_input(entry: Entry, reader: Reader) -> list[list[float]]:
    """The boxes of a picture in pixels of the input; without those that were cut off."""
    if not entry.row.boxes or entry.error:
        return []
    given: list[Any] = json.loads(entry.row.boxes)
    boxes = [reader.framing.box_in_input(each, entry.size, reader.size) for each in given]
    return [box.tolist() for box in boxes if box[2] - box[0] > 1e-6 and box[3] - box[1] > 1e-6]
