"""How time grows with the batch, the side of the images, the channels and the depth."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import kvis2
from benchmarks import models
from kvis2.explainers import IntegratedGradients

STEPS = 16
_AXES: dict[str, tuple[int, ...]] = {
    "batch": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "side": (32, 64, 128, 256, 512),
    "channels": (8, 16, 32, 64, 128),
    "depth": (4, 8, 16, 32),
}
_USUAL = {"batch": 8, "side": 32, "channels": 32, "depth": 5}


def measured() -> dict[str, Any]:
    """For each axis its values, and the seconds of each method there."""
    found: dict[str, Any] = {}
    for axis, values in _AXES.items():
        seconds: dict[str, list[float]] = {"GradCAM": [], f"IntegratedGradients {STEPS}": []}
        for value in values:
            setting = _USUAL | {axis: value}
            model = models.plain_cnn(setting["side"], setting["channels"], setting["depth"])
            models.randomize(model)
            images = models.smooth_images(setting["batch"], setting["side"])
            explainers = [kvis2.GradCAM(model), IntegratedGradients(model, steps=STEPS)]
            for times, explainer in zip(seconds.values(), explainers, strict=True):
                times.append(_median(lambda each=explainer, x=images: each(0, x)))  # type: ignore[misc]
        found[axis] = {"values": values, "seconds": seconds}
    return found


def _median(call: Callable[[], Any], budget: float = 1.0) -> float:
    """Median seconds of a call, after a first one; three calls at least."""
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < budget:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    print(json.dumps(measured()))
