"""How far the maps of two models lie apart, picture by picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2 import metrics
from kvis2.dataset.table import Table
from kvis2.passes import resize


def drifts(table: Table, other: Table, pairs: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """`1 - spearman` of the maps of the same picture in two tables.

    Maps of two grids are compared on the finer one.

    Args:
        table: One table.
        other: The other.
        pairs: For each picture its row in the one and in the other.

    Returns:
        float32 `(pictures,)`: 0 where the order of the places is the same, 1 where nothing of it is
        left, 2 where it is reversed; NaN where a picture has no map, or one of a single value.
    """
    found = np.full(len(pairs), np.nan, np.float32)
    for index, (here, there) in enumerate(pairs):
        kept, kept_there = table.kept_map(here), other.kept_map(there)
        if kept is None or kept_there is None:
            continue
        first, second = kept.heatmap, kept_there.heatmap
        if not np.ptp(first) or not np.ptp(second):
            continue
        size = [max(pair) for pair in zip(first.shape, second.shape, strict=True)]
        maps = [_sized(each, size) for each in (first, second)]
        found[index] = metrics.drift(maps[1][None], maps[0][None])[0]
    return found


def _sized(heatmap: NDArray[np.float32], size: list[int]) -> NDArray[np.float32]:
    if list(heatmap.shape) == size:
        return heatmap
    return np.asarray(resize(tf.constant(heatmap[None]), size))[0]
