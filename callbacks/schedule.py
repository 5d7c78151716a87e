"""When a logger logs."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import keras
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


class BatchNumbers:
    """The numbers of the batches of one training, from 0 and on over its epochs.

    Keras calls a hook once for the batches of one execution (`steps_per_execution`), and counts
    those it would have taken beyond the end of the epoch. Where the length of the data is known,
    that is the end; where it is not, the steps of the optimizer tell how many there were.
    """

    def __init__(self) -> None:
        self._first = self._next = 0
        self._steps: int | None = None
        self._model: Any = None
        self._applied: int | None = None  # steps of the optimizer before the epoch

    def begin_epoch(self, model: keras.Model, epoch: int, steps: int | None) -> None:
        """Start an epoch of `steps` batches, None if nobody knows.

        Raises:
            ValueError: If the batches of this training cannot be counted.
        """
        self._first = self._next if steps is None else epoch * steps
        self._model, self._steps, self._applied = model, steps, None
        if steps is None and getattr(model, "steps_per_execution", 1) != 1:
            self._applied = _applied(model)
            if self._applied is None:
                raise self._uncountable("no optimizer that counts every one of them")

    def number(self, batch: int) -> int:
        """The number of the batch that `on_train_batch_end(batch)` is called after.

        Raises:
            ValueError: If the optimizer has made other steps than one for each batch.
        """
        if self._steps is not None:
            batch = min(batch, self._steps - 1)
        elif self._applied is not None:
            now = _applied(self._model)
            last = -1 if now is None else now - self._applied - 1
            if not batch - self._model.steps_per_execution < last <= batch:
                raise self._uncountable(f"{last + 1} steps of the optimizer after batch {batch}")
            batch = last
        self._next = self._first + batch + 1
        return self._next - 1

    def _uncountable(self, received: str) -> ValueError:
        return ValueError(
            "Expected batches that can be counted, for unit='batch'. Received: a dataset of "
            f"unknown size with steps_per_execution={self._model.steps_per_execution}, and "
            f"{received}. Give fit() steps_per_epoch=, or compile without steps_per_execution."
        )


def _applied(model: keras.Model) -> int | None:
    """How many gradients the optimizer of a model has applied; None where it leaves some out."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return None
    # `iterations` counts once for all gradients that are accumulated.
    return int(getattr(optimizer, "_iterations", optimizer.iterations))


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
