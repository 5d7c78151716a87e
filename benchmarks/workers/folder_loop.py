"""A loop over picture files, as one writes it around a rival: read, scale, explain, write."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.workers.protocol import Prepared, Task


def folder_loop(task: Task, explain: Callable[[np.ndarray], np.ndarray]) -> Prepared:
    """A loop of which each call explains the next part of the files.

    Args:
        task: Its options are `parts`, paths of files in lists of one turn each, and `batch`.
        explain: Float32 pictures in -1..1 `(batch, side, side, 3)` -> maps of the class that is
            predicted for each.
    """
    parts, side = iter(task.options["parts"]), task.images.shape[1]
    maps: list[np.ndarray] = []

    def run() -> None:
        paths, size = next(parts), task.options["batch"]
        maps.clear()
        for start in range(0, len(paths), size):
            pictures = [_read(path, side) for path in paths[start : start + size]]
            maps.append(explain(np.stack(pictures)))
        with tempfile.TemporaryDirectory() as folder:
            np.savez(Path(folder, "maps.npz"), np.concatenate(maps))

    return Prepared(run, lambda: np.concatenate(maps))


def _read(path: str, side: int) -> np.ndarray:
    with Image.open(path) as picture:
        scaled = picture.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(scaled, np.float32) / 127.5 - 1
