"""How many rows one forward pass holds: by the size of the input and the memory that is free."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

# Fastest on two processors: 16 rows of 224 x 224 pixels, 128 of small ones. More only take memory.
_MOST_ROWS = 128
_MOST_VALUES = 16 * 224 * 224 * 3
# A pass there and back through ResNet50 or VGG16 takes 90 to 200 times the memory of its images.
_BYTES_PER_VALUE = 100 * 4
_LITTLE = 2**28  # What a pass may take without asking how much there is.

_SYSTEM = Path("/proc/meminfo")
_CONTAINER = Path("/sys/fs/cgroup")


def automatic_rows(shapes: Sequence[Sequence[int]]) -> int:
    """How many rows a pass takes best, or half of that, or a quarter, if memory is short.

    Args:
        shapes: Of the flat inputs, `(batch, ...)` each.
    """
    values = max(1, max(math.prod(each[1:]) for each in shapes))
    rows = max(1, min(_MOST_ROWS, _MOST_VALUES // values))
    if rows * values * _BYTES_PER_VALUE <= _LITTLE:
        return rows
    free = _asked(available, int(time.monotonic()))
    while free is not None and rows > 1 and rows * values * _BYTES_PER_VALUE > free / 2:
        rows //= 2
    return rows


@lru_cache(maxsize=1)
def _asked(ask: Callable[[], int | None], second: int) -> int | None:
    """What was said in this second: asking takes a third of a millisecond."""
    return ask()


def available() -> int | None:
    """Bytes of main memory that this process can still take; None where Linux does not say."""
    found = [each for each in (_of_system(), _of_container()) if each is not None]
    return min(found, default=None)


def _of_system() -> int | None:
    try:
        lines = _SYSTEM.read_text().splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return sizes[0] * 1024 if sizes else None


def _of_container() -> int | None:
    try:
        limit = (_CONTAINER / "memory.max").read_text().strip()
        used = int((_CONTAINER / "memory.current").read_text())
        statistics = (_CONTAINER / "memory.stat").read_text().splitlines()
    except OSError:
        return None
    if limit == "max":
        return None
    caches = [int(each.split()[1]) for each in statistics if each.startswith("inactive_file ")]
    return int(limit) - used + sum(caches)
