"""What an installed wheel must be able to do, without the extras: import, explain, log."""

import importlib.util
import tempfile
from pathlib import Path

import keras
import numpy as np

import kvis2
from kvis2.callbacks import CamLogger

assert "site-packages" in kvis2.__file__, f"not the installed package: {kvis2.__file__}"
assert importlib.util.find_spec("callbacks") is None, "callbacks lies beside kvis2, not in it"

keras.utils.set_random_seed(0)
x, y = np.random.default_rng(0).random((16, 12, 12, 3), dtype="float32"), np.arange(16) % 2
model = keras.Sequential(
    [
        keras.Input((12, 12, 3)),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(2, activation="softmax"),
    ]
)
model.compile("sgd", "sparse_categorical_crossentropy")

with tempfile.TemporaryDirectory() as folder:
    logger = CamLogger(folder, x[:2], y[:2], on_error="raise")
    model.fit(x, y, epochs=2, verbose=0, callbacks=[logger])
    assert list(Path(folder).rglob("*tfevents*")), "no event file was written"

heatmaps = kvis2.GradCAM(model)(None, x)
assert heatmaps.shape == (16, 12, 12), heatmaps.shape
assert heatmaps.min() >= 0, heatmaps.min()
assert heatmaps.max() == 1, heatmaps.max()
print(f"kvis2 {kvis2.__version__} from its wheel explains and logs")
