"""Where the hottest points of a class lie, and whether that is more than chance and the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 200
_FLOOR = 0.02  # Of a share: a class of which nothing lies somewhere is not infinitely unlikely.


class Place(NamedTuple):
    """The place where a class has more hottest points than the other classes.

    Attributes:
        row, column: The cell in the middle of the place, which is three by three cells.
        own: Share of the class' pictures whose hottest cell lies there, 0..1.
        rest: Share of the other classes' pictures.
        excess: `own - rest`, the largest of all places.
        lift: `own * log2((own + .02) / (rest + .02))`.
        by_chance: The 99th percentile of the largest excess with labels in random order.
        of_others: The largest excess of any other class, at a place of its own.
    """

    row: int
    column: int
    own: float
    rest: float
    excess: float
    lift: float
    by_chance: float
    of_others: float


def hottest_cells(maps: NDArray[np.float32]) -> NDArray[np.int64]:
    """The flat index of the hottest cell of each map `(batch, rows, columns)`; -1 for a blank one.

    Example:
        >>> hottest_cells(np.array([[[0, 1], [0, 0]], [[0, 0], [0, 0]]], np.float32)).tolist()
        [1, -1]
    """
    flat = maps.reshape(len(maps), -1)
    return np.where(flat.max(axis=1) > 0, flat.argmax(axis=1), -1)


def place_of_each_class(
    cells: NDArray[np.int64],
    labels: NDArray[np.int64],
    grid: tuple[int, int],
    classes: NDArray[np.int64],
    seed: int = 0,
) -> dict[int, Place]:
    """The place that stands out most, for each class.

    `share_k(c)` = share of the pictures of class k whose hottest cell is c or one of its eight
    neighbours; the place is the c with the largest `share_k(c) - share_of_the_others(c)`.

    Args:
        cells: As `hottest_cells` returns them, `(pictures,)`.
        labels: The class of each picture.
        grid: Rows and columns.
        classes: Those that are asked for; all pictures are compared with.
        seed: For the labels in random order.

    Returns:
        A place for each class.

    References:
        Lapuschkin et al. (2019), Unmasking Clever Hans predictors and assessing what machines
        really learn: heat at one place in all pictures of a class. Their eigengap of a spectral
        clustering did not separate classes with a shortcut from classes without in our trials.
    """
    seen = cells >= 0
    cells, labels = cells[seen], labels[seen]
    rng = np.random.default_rng(seed)
    found = _shares(cells, labels, grid, classes)
    largest = {label: float((own - rest).max()) for label, (own, rest) in found.items()}
    chance = {label: np.empty(PERMUTATIONS) for label in found}
    for turn in range(PERMUTATIONS):
        shuffled = _shares(cells, rng.permutation(labels), grid, classes)
        for label, (own, rest) in shuffled.items():
            chance[label][turn] = (own - rest).max()
    return {
        label: _place(
            own,
            rest,
            float(np.quantile(chance[label], 0.99)),
            max((each for other, each in largest.items() if other != label), default=0.0),
        )
        for label, (own, rest) in found.items()
    }


def region(place: Place, grid: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels of a place: its three by three cells, `[x0, y0, x1, y1]` within `size`."""
    (rows, columns), (height, width) = grid, size
    top, bottom = max(place.row - 1, 0), min(place.row + 2, rows)
    left, right = max(place.column - 1, 0), min(place.column + 2, columns)
    return (
        left * width // columns,
        top * height // rows,
        -(-right * width // columns),
        -(-bottom * height // rows),
    )


def named(place: Place, grid: tuple[int, int]) -> str:
    """Where a place is, in words: "top left corner", "left edge", "middle"."""
    across = _third(place.column, grid[1], ("left", "", "right"))
    along = _third(place.row, grid[0], ("top", "", "bottom"))
    if across and along:
        return f"{along} {across} corner"
    return f"{along or across} edge" if across or along else "middle"


def _third(cell: int, count: int, words: tuple[str, str, str]) -> str:
    return words[min(3 * cell // max(count, 1), 2)] if count > 2 else ""


def _shares(
    cells: NDArray[np.int64],
    labels: NDArray[np.int64],
    grid: tuple[int, int],
    classes: NDArray[np.int64],
) -> dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For each class the share of its pictures near each cell, and that of all others."""
    total = _near(cells, grid)
    shares = {}
    for label in classes:
        own = _near(cells[labels == label], grid)
        count = int((labels == label).sum())
        rest = max(len(cells) - count, 1)
        shares[int(label)] = own / max(count, 1), (total - own) / rest
    return shares


def _near(cells: NDArray[np.int64], grid: tuple[int, int]) -> NDArray[np.float64]:
    """How many hottest cells are each cell or a neighbour of it."""
    counts = np.bincount(cells, minlength=grid[0] * grid[1]).reshape(grid).astype(np.float64)
    padded = np.pad(counts, 1)
    rows, columns = grid
    return sum(
        (padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)),
        start=np.zeros(grid),
    )


def _place(
    own: NDArray[np.float64], rest: NDArray[np.float64], by_chance: float, of_others: float
) -> Place:
    # Of equal places, the one with most of the class' pictures, then the first.
    excess = own - rest
    best = np.flatnonzero(excess.ravel() >= excess.max() - 1e-12)
    row, column = _central(best, excess.shape)
    mine, others = float(own[row, column]), float(rest[row, column])
    lift = mine * float(np.log2((mine + _FLOOR) / (others + _FLOOR)))
    return Place(row, column, mine, others, mine - others, lift, by_chance, of_others)


def _central(cells: NDArray[np.int64], grid: tuple[int, ...]) -> tuple[int, int]:
    """Of cells that are as good, the one in their middle."""
    rows, columns = np.unravel_index(cells, grid)
    distance = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
    first = int(distance.argmin())
    return int(rows[first]), int(columns[first])
