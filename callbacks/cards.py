"""Cards of the Explanations tab for what a logger shows: photographs once, classes each step."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from kvis2.callbacks.predictions import Explained, two_classes
from kvis2.callbacks.probe_sets import outlines
from kvis2.callbacks.tab import Card
from kvis2.images import displayable

_QUALITY = 90


def cards_of(
    names: Sequence[str],
    shown: np.ndarray,
    maps: np.ndarray,
    labels: np.ndarray | None,
    boxes: Any,
) -> list[Card]:
    """One card for each probe.

    Args:
        names: Their names.
        shown: What is drawn of them, `(batch, ...)`: pictures, signals or volumes.
        maps: Their maps, `(batch, *spatial)`, whose rank tells grey pictures from signals.
        labels: The true classes, or None.
        boxes: For each a box or several, or None.
    """
    rank = maps.ndim - 1
    if rank == 2 and shown.ndim == 3:
        shown = displayable(shown[..., np.newaxis])
    cards = []
    for row, name in enumerate(names):
        own = () if boxes is None else outlines(boxes[row])
        label = None if labels is None else int(labels[row])
        if rank == 2 and shown.ndim == 4:
            size = (int(shown.shape[1]), int(shown.shape[2]))
            cards.append(Card(name, _photograph(shown[row]), size, label, own))
        elif rank == 1:
            cards.append(Card(name, np.asarray(shown[row], np.float32), None, label))
        else:  # A volume: its heat stands alone.
            cards.append(Card(name, None, None, label))
    return cards


def explained_classes(
    explained: Explained, probabilities: np.ndarray | None, count: int
) -> np.ndarray:
    """The class that each map explains, int `(batch,)`; -1 where a score is of no class."""
    score = explained.score
    if isinstance(score, list) and not all(isinstance(each, int) for each in score):
        score = score[explained.output] if explained.output < len(score) else -1
    if isinstance(score, int | np.integer):
        return np.full(count, int(score))
    if isinstance(score, list) and len(score) == count:
        return np.asarray(score, int)
    if score is None and probabilities is not None:
        return np.argmax(two_classes(probabilities), axis=1)
    return np.full(count, -1)


def _photograph(picture: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="webp", quality=_QUALITY)
    return buffer.getvalue()
