"""Regions of a mask: which pixels hang together, and their box, run lengths and outline."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def regions(mask: Mask) -> list[Mask]:
    """The parts of a mask whose pixels share edges, the largest first.

    Args:
        mask: bool `(height, width)`.

    Returns:
        A mask of the same shape for each part.

    Example:
        >>> [int(part.sum()) for part in regions(np.array([[1, 0, 1], [0, 0, 1]], bool))]
        [2, 1]
    """
    runs = _runs(mask)
    parents: dict[int, int] = {}

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    above: list[int] = []
    here: list[int] = []
    line = -1
    for number, (row, start, stop) in enumerate(runs):
        if row != line:
            above, here, line = here if row == line + 1 else [], [], row
        parents[number] = number
        for other in above:
            if runs[other][1] < stop and start < runs[other][2]:
                parents[root(other)] = root(number)
        here.append(number)
    found: dict[int, Mask] = {}
    for number, (row, start, stop) in enumerate(runs):
        part = found.setdefault(root(number), np.zeros(mask.shape, bool))
        part[row, start:stop] = True
    return sorted(found.values(), key=lambda part: -int(part.sum()))


def _runs(mask: Mask) -> list[tuple[int, int, int]]:
    """The runs of True of every row, `(row, start, stop)`, from the top left on."""
    padded = np.pad(mask.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(padded, axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, stops = np.nonzero(steps == -1)
    return list(zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True))


def box_of(mask: Mask) -> list[int]:
    """The smallest box `[x0, y0, x1, y1]` around a mask that marks something, ends excluded."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def run_lengths(mask: Mask) -> dict[str, list[int]]:
    """A mask as COCO has it: down the columns, how many False, then True, then False, ...

    Example:
        >>> run_lengths(np.array([[1, 0], [1, 1]], bool))
        {'size': [2, 2], 'counts': [0, 2, 1, 1]}
    """
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends.tolist(), len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def outline(part: Mask) -> list[tuple[int, int]]:
    """The outer outline of one region, along the edges of its pixels, clockwise.

    Holes are filled, but for those that touch what is outside by a corner.

    Args:
        part: One of `regions`.

    Returns:
        The corners `(x, y)`, from the one that is leftmost in the top row.

    Example:
        >>> outline(np.array([[1, 1], [0, 0]], bool))
        [(0, 0), (2, 0), (2, 1), (0, 1)]
    """
    ahead = _edges(part)
    row = int(np.flatnonzero(part.any(axis=1))[0])
    start = (int(np.flatnonzero(part[row])[0]), row)
    place, way, corners = start, (1, 0), []
    while True:
        # Clockwise with the region on the right hand. Where two of its pixels touch by a corner,
        # the turn to the right stays on the pixel that was followed.
        right = (-way[1], way[0])
        for turn in (right, way, (-right[0], -right[1])):
            if (place, turn) in ahead:
                if turn != way or place == start:
                    corners.append(place)
                way = turn
                break
        place = (place[0] + way[0], place[1] + way[1])
        if place == start:
            return corners


def _edges(part: Mask) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    """The edges between the region and the rest: where each begins, and which way it goes."""
    padded = np.pad(part, 1)
    inside = padded[1:-1, 1:-1]
    sides = {  # A pixel's free side, as a step around it: from which corner, which way.
        (1, 0): (inside & ~padded[:-2, 1:-1], (0, 0)),
        (0, 1): (inside & ~padded[1:-1, 2:], (1, 0)),
        (-1, 0): (inside & ~padded[2:, 1:-1], (1, 1)),
        (0, -1): (inside & ~padded[1:-1, :-2], (0, 1)),
    }
    return {
        ((int(x) + corner[0], int(y) + corner[1]), way)
        for way, (free, corner) in sides.items()
        for y, x in zip(*np.nonzero(free), strict=True)
    }
