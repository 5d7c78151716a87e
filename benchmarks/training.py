"""What CamLogger costs: the part of an epoch that 8 images, logged once, take."""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks import models
from benchmarks.workers import REPOSITORY
from kvis2.callbacks import CamLogger

EPOCHS = 3


class _Clock(keras.callbacks.Callback):
    """Seconds of every epoch, all callbacks before it included."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def measured(folder: Path, quick: bool) -> dict[str, Any]:
    """The demo; and one large network at 224 x 224, unless `quick`."""
    found = {"demo 48 x 48": _demo()}
    if not quick:
        found["mobilenetv2 224 x 224"] = _large(folder)
    return found


def _demo() -> dict[str, float]:
    path = REPOSITORY / "examples" / "digits_in_the_wild.py"
    spec = importlib.util.spec_from_file_location("digits_in_the_wild", path)
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    training, _ = demo.make_data(6000, 8, seed=0)  # As many as the demo takes by default.
    return _share(demo.make_model(), training.images, training.labels, batch_size=32)


def _large(folder: Path) -> dict[str, float]:
    model = models.load(models.write("mobilenetv2", folder))
    images = np.concatenate([models.smooth_images(32, 224)] * 5)
    return _share(model, images, np.arange(len(images)) % 1000, batch_size=16)


def _share(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, batch_size: int
) -> dict[str, float]:
    """Medians over the epochs after the first, in which everything is traced."""
    model.compile("sgd", "sparse_categorical_crossentropy")
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        logger = CamLogger(folder, images[:8], labels[:8], every=1, on_error="raise")
        model.fit(
            images,
            labels,
            batch_size=batch_size,
            epochs=EPOCHS,
            verbose=0,
            callbacks=[logger, clock],
        )
    logging = statistics.median(logger.history["seconds"][1:])
    epoch = statistics.median(clock.seconds[1:]) - logging
    return {
        "images": len(images),
        "epoch_seconds": epoch,
        "logging_seconds": logging,
        "first_logging_seconds": logger.history["seconds"][0],
        "share": logging / epoch,
    }


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]), quick="quick" in sys.argv[2:])))
