"""In which order the positions of a map are removed or shown, and how many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ranks(maps: ArrayLike, seed: int = 0, *, lowest_first: bool = False) -> NDArray[np.int32]:
    """The place of every position in the order of the map's values, 0 the first.

    Every place is taken once: `{p : rank(p) < k}` has exactly k positions for each k. Positions
    that tie, such as the zeros behind a ReLU, follow in an order that is drawn from `seed` alone,
    the same for every map, so that it does not matter what a map is batched with.

    Args:
        maps: `(batch, *spatial)`.
        seed: The seed of the order of ties.
        lowest_first: Whether the lowest value has the place 0, instead of the highest.

    Returns:
        int32 `(batch, *spatial)`.

    Example:
        >>> ranks([[0.5, 2.0, 1.0]]).tolist()
        [[2, 0, 1]]
    """
    values = np.asarray(maps)
    flat = values.reshape(len(values), -1)
    drawn = np.random.default_rng(seed).permutation(flat.shape[1])
    shuffled = flat[:, drawn]
    order = drawn[np.argsort(shuffled if lowest_first else -shuffled, axis=1, kind="stable")]
    places = np.empty(flat.shape, np.int32)
    np.put_along_axis(places, order, np.arange(flat.shape[1], dtype=np.int32)[None], axis=1)
    return places.reshape(values.shape)


def random_maps(shape: Sequence[int], number: int, seed: int = 0) -> NDArray[np.float32]:
    """Maps of independent uniform noise, `(number, *shape)`: what a map that knows nothing is.

    Args:
        shape: `(batch, *spatial)`. Every image gets the same noise.
        number: How many maps each image gets.
        seed: The seed.
    """
    draw = np.random.default_rng([seed, 1])
    noise = draw.random((number, 1, *shape[1:]), dtype=np.float32)
    return np.broadcast_to(noise, (number, *shape))


def counts(fractions: ArrayLike, positions: int) -> NDArray[np.int32]:
    """How many of `positions` each fraction takes, rounded down."""
    # The smallest float above a fraction such as 0.3 of ten must not make it two.
    return np.floor(np.asarray(fractions, float) * positions + 1e-6).astype(np.int32)


def checked_fractions(fractions: Any) -> NDArray[np.float64]:
    """Fractions as an ascending vector strictly between 0 and 1; else a sentence."""
    found = np.asarray(fractions, float)
    if found.ndim != 1 or not found.size or (np.diff(found) <= 0).any() or not _inside(found):
        raise ValueError(
            "Expected ascending fractions between 0 and 1. "
            f"Received: {fractions!r}. Give for example (0.2, 0.4, 0.6, 0.8)."
        )
    return found


def _inside(values: NDArray[np.float64]) -> bool:
    return bool((values > 0).all() and (values < 1).all())
