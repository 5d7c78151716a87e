"""500 calls in a loop: how many traces, and how much memory stays."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kvis2
from benchmarks import models
from benchmarks.workers.protocol import resident_mib

CALLS = 500
_WARM = 50  # TensorFlow's own pools and caches fill up in the first calls.


def measured(folder: Path) -> dict[str, Any]:
    """Traces and grown memory, with one explainer for all calls and with a new one for each."""
    target = models.write("small", folder)
    images = models.smooth_images(8, 32)

    def loop(new: bool) -> dict[str, Any]:
        model = models.load(target)
        explainers = [kvis2.LayerCAM(model)]
        traces = 0

        def call(index: int) -> None:
            nonlocal traces
            if new:
                explainers[0] = kvis2.LayerCAM(model)
            before = explainers[0].trace_count
            explainers[0]([(index + i) % 10 for i in range(8)], images)
            traces += explainers[0].trace_count - before

        return {"calls": CALLS, "grown_mib": _grown_mib(call), "traces": traces}

    return {"one explainer": loop(False), "a new explainer for each call": loop(True)}


def _grown_mib(call: Callable[[int], None]) -> float:
    for index in range(_WARM):
        call(index)
    start = resident_mib()
    for index in range(CALLS):
        call(index)
    return resident_mib() - start


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]))))
