"""TensorBoard itself serves what the loggers wrote, to its HTTP API and to a real browser."""

import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import keras
import numpy as np
import pytest
from PIL import Image

from kvis2.callbacks import CamLogger

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*found no evidence"),  # a class not yet learned
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras
]
pytest.importorskip("tensorboard", reason="TensorBoard is not installed")

EPOCHS = 4
PROBES = 3
NAMES = ["red", "green", "blue"]


def training_images(count=96):
    """Dark noise with one bright square in the colour of its class, and the squares' boxes."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 0.35, (count, 32, 32, 3)).astype(np.float32)
    labels = np.arange(count) % 3
    corners = rng.integers(2, 20, (count, 2))
    for image, label, (row, column) in zip(images, labels, corners, strict=True):
        image[row : row + 10, column : column + 10, label] += 0.6
    boxes = [[column, row, column + 10, row + 10] for row, column in corners]
    return images, labels, boxes


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory):
    """The logs of a short training with TensorBoard and CamLogger."""
    folder = tmp_path_factory.mktemp("tensorboard")
    keras.utils.set_random_seed(2)
    images, labels, boxes = training_images()
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(12, 3, padding="same", activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    adam = keras.optimizers.Adam(0.02)
    model.compile(adam, "sparse_categorical_crossentropy", metrics=["accuracy"])
    logger = CamLogger(
        folder / "logs",
        images[:PROBES],
        labels[:PROBES],
        class_names=NAMES,
        boxes=boxes[:PROBES],
        save_dir=folder / "pictures",
        on_error="raise",
    )
    board = keras.callbacks.TensorBoard(folder / "logs", update_freq=3)
    model.fit(
        images,
        labels,
        validation_split=0.25,
        batch_size=8,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[board, logger],
    )
    return folder


@pytest.fixture(scope="module")
def address(log_dir):
    """A TensorBoard server on these logs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir / "logs")]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--host", "127.0.0.1", "--load_fast=false"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        # The server answers before it has read the logs.
        while "kvis2" not in tags(address):
            assert server.poll() is None, "TensorBoard ended by itself"
            assert time.monotonic() < deadline, "TensorBoard did not show the run"
            time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait()


def get(address, path, **query):
    url = f"{address}/data/plugin/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=20) as response:
        return response.read()


def tags(address, plugin="images"):
    with contextlib.suppress(OSError):
        return json.loads(get(address, f"{plugin}/tags"))
    return {}


def test_the_panels_are_served_with_their_tags_and_steps(address, log_dir):
    names = [f"GradCAM/{index:02d} {name}" for index, name in enumerate(NAMES)]
    assert sorted(tags(address)["kvis2"]) == names
    for name in names:
        samples = json.loads(get(address, "images/images", run="kvis2", tag=name, sample=0))
        assert [sample["step"] for sample in samples] == list(range(EPOCHS))
        for sample in samples:
            served = get(address, f"images/individualImage?{sample['query']}&x")
            shown = np.asarray(Image.open(io.BytesIO(served)))
            saved = log_dir / "pictures" / name / f"epoch {sample['step']:03d}.png"
            np.testing.assert_array_equal(shown, np.asarray(Image.open(saved)))
            assert shown.shape == (215, 350, 3)


def test_the_numbers_are_served_beside_the_curves_of_keras(address):
    scalars = tags(address, "scalars")
    names = ("pointing_game", "energy_in_box", "sparseness", "drift", "untrained_similarity")
    assert {f"GradCAM/{name}" for name in names} <= set(scalars["kvis2"])
    query = {"run": "kvis2", "tag": "GradCAM/energy_in_box"}
    series = json.loads(get(address, "scalars/scalars", **query))
    assert [step for _, step, _ in series] == list(range(EPOCHS))
    assert all(0 < value <= 1 for *_, value in series)


@pytest.mark.browser
@pytest.mark.parametrize("tab", ["images", "timeseries"])
def test_a_browser_shows_the_panels_pixel_by_pixel(address, tmp_path, log_dir, tab):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is not installed")
    screenshot = tmp_path / "tensorboard.png"
    subprocess.run(
        [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1500,1600",
            "--virtual-time-budget=30000",
            f"--screenshot={screenshot}",
            f"{address}/#{tab}",
        ],
        check=True,
        timeout=150,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    page = np.asarray(Image.open(screenshot).convert("RGB"))
    for index, name in enumerate(NAMES):
        last = log_dir / "pictures" / f"GradCAM/{index:02d} {name}" / f"epoch {EPOCHS - 1:03d}.png"
        panel = np.asarray(Image.open(last))
        assert shows(page, panel), f"the panel of {name} is not on the page, see {screenshot}"


def shows(page, panel):
    """Whether the middle of the panel is on the page somewhere, pixel by pixel."""
    height, width = panel.shape[:2]
    patch = panel[height // 2 - 12 : height // 2 + 12, 20 : width - 20].astype(np.int16)
    # Candidates are the places of the patch's rarest pixel.
    colors, counts = np.unique(patch.reshape(-1, 3), axis=0, return_counts=True)
    rarest = colors[counts.argmin()]
    row, column = np.argwhere((patch == rarest).all(axis=-1))[0]
    for y, x in np.argwhere((np.abs(page.astype(np.int16) - rarest) <= 2).all(axis=-1)):
        top, left = y - row, x - column
        window = page[max(top, 0) : top + patch.shape[0], max(left, 0) : left + patch.shape[1]]
        if window.shape == patch.shape and np.abs(window - patch).max() <= 8:
            return True
    return False
