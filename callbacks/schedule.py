"""When a logger logs."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

TENSORBOARD_STEPS = 10
"""Pictures that TensorBoard keeps of one tag, unless started with --samples_per_plugin."""


class Schedule:
    """Which steps of one training are logged: `due(step)` at every step, in order.

    Steps count from 0. `every=n` is due at 0, n, 2n, ...; `every="auto"` at most ten times,
    evenly spread, the first and the last step included. Where steps are skipped, as the batches
    within `steps_per_execution`, the first one at or after a due step is logged.

    Args:
        every: A whole number of at least 1, or "auto".
        first: The first step of this training.
        last: The last planned step; None if unknown, which "auto" cannot do with.

    Raises:
        ValueError: If `every` is neither, or "auto" does not know the last step.

    Example:
        >>> schedule = Schedule(4, first=0, last=9)
        >>> [step for step in range(10) if schedule.due(step)]
        [0, 4, 8]
    """

    def __init__(self, every: int | str, first: int, last: int | None) -> None:
        check_every(every)
        if every == "auto" and last is None:
            raise ValueError(
                "Expected a training whose number of batches is known, for every='auto' with "
                "unit='batch'. Received: a dataset of unknown size. Give every= a whole number, "
                "or fit() steps_per_epoch=."
            )
        self._first, self._last = first, last
        self._previous = first - 1
        self._every = None if isinstance(every, str) else every
        self._planned = spread(first, last, TENSORBOARD_STEPS) if self._every is None else []

    @property
    def is_spread(self) -> bool:
        """Whether the steps are spread over the training, so that its end is one of them."""
        return self._every is None

    def due(self, step: int) -> bool:
        """Whether a planned step has been reached since the step asked for before."""
        reached = self._count(step) > self._count(self._previous)
        self._previous = step
        return reached

    def total(self) -> int | None:
        """How many steps will be logged, or None where that is not known."""
        if self._last is None:
            return None
        return self._count(self._last) - self._count(self._first - 1)

    def _count(self, step: int) -> int:
        """How many planned steps there are up to this one."""
        if self._every is None:
            return bisect_right(self._planned, step)
        return step // self._every + 1


def check_every(every: int | str) -> None:
    """Raise unless `every` is "auto" or a whole number of at least 1."""
    whole = isinstance(every, int) and not isinstance(every, bool) and every >= 1
    if every != "auto" and not whole:
        raise ValueError(
            "Expected every to be 'auto' or a whole number of at least 1. "
            f"Received: {every!r}. every=5 logs each fifth epoch, or batch with unit='batch'."
        )


def spread(first: int, last: int | None, count: int) -> list[int]:
    """Spread at most `count` whole numbers evenly over `first..last`, both included.

    Example:
        >>> spread(0, 9, 4)
        [0, 3, 6, 9]
    """
    if last is None or last < first:
        return [first]
    numbers = np.rint(np.linspace(first, last, min(count, last - first + 1)))
    return [int(number) for number in numbers]
