"""Draw the pictures of the Explanations tab that the documentation shows: light and dark.

    python examples/tab_screenshots.py --out docs/images

A trained ImageNet classifier starts with noise in its weights, which is taken away step by step,
as if it learned; that takes a minute where a training would take a day. Grad-CAM and saliency of
ten photographs are logged at each step, as the loggers of kvis2.callbacks do, and a headless
Chromium takes the pictures of TensorBoard. --log DIR keeps the log, to look at it oneself.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import kvis2
from kvis2.callbacks.tab import Card, TabCards, write_summaries
from kvis2.localization import energy_in_box

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SIDE = 224
LARGEST = 320  # pixels of a photograph as it is shown
STEPS = 24
SHOWN_STEP = 17
SIZE = (1500, 940)


class Photographs(NamedTuple):
    """What the model looks at, with the first object of each that has boxes."""

    images: np.ndarray  # as the model takes them
    cards: list[Card]
    boxes: list[list[list[float]]]  # in pixels of `images`


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--log", type=Path, help="keep the log here, or take the one that is here")
    return parser.parse_args()


def photographs() -> Photographs:
    """Read the photographs and their boxes; the cards show them in their own proportions."""
    found = Photographs([], [], [])
    for entry in json.loads((DATA / "boxes.json").read_text())["images"]:
        if entry["split"] != "dev":
            continue
        target = entry["objects"][0]
        photograph = Image.open(DATA / entry["file"]).convert("RGB")
        boxes = np.array(target["boxes"]) / ([*photograph.size] * 2)
        found.images.append(np.asarray(photograph.resize((SIDE, SIDE), Image.BICUBIC)))
        found.boxes.append((boxes * SIDE).tolist())
        photograph.thumbnail((LARGEST, LARGEST))
        shown = boxes * ([*photograph.size] * 2)
        name = f"{len(found.cards):02d} {entry['id'].replace('_', ' ')}"
        size = photograph.height, photograph.width
        found.cards.append(Card(name, webp(photograph), size, target["class"], shown))
    return found._replace(images=np.stack(found.images))


def webp(photograph: Image.Image) -> bytes:
    """Encode a photograph."""
    buffer = io.BytesIO()
    photograph.save(buffer, "webp", quality=90)
    return buffer.getvalue()


def write_log(directory: Path) -> None:
    """Log two trainings, as it were, with two explainers each."""
    photos = photographs()
    classes = json.loads((DATA / "imagenet_class_index.json").read_text())
    names = [classes[str(index)][1].replace("_", " ") for index in range(len(classes))]
    for run, seed in [("adam", 1), ("sgd", 4)]:
        model = keras.models.load_model(DATA / "efficientnet_lite0.keras", compile=False)
        encoders = [
            TabCards("GradCAM", photos.cards, class_names=names, layer="top_relu"),
            TabCards("Saliency", photos.cards, class_names=names),
        ]
        with tf.summary.create_file_writer(str(directory / run)).as_default():
            for step in range(STEPS):
                for records in observed(model, photos, encoders, step, seed):
                    write_summaries(step, records)
        print(f"{run}: {STEPS} steps")


def observed(
    model: keras.Model, photos: Photographs, encoders: list[TabCards], step: int, seed: int
) -> Iterator[Any]:
    """Explain the photographs with the noise of a step in the weights."""
    images = photos.images.astype("float32")
    labels = [card.label for card in photos.cards]
    trained = model.get_weights()
    model.set_weights(noisy(trained, 0.5 * (1 - step / (STEPS - 1)) ** 2, seed))
    probabilities = np.asarray(model(images))
    cam = kvis2.GradCAM(model, "top_relu", resize=False, normalize=None)
    saliency = kvis2.Saliency(model, normalize=None)
    for encoder, explainer in zip(encoders, (cam, saliency), strict=True):
        maps = np.asarray(explainer(labels, images))
        shown = np.stack([resized(each) for each in maps])
        share = energy_in_box(shown, photos.boxes)
        yield encoder.summaries(
            maps, probabilities=probabilities, explained=labels, heat_in_box=share
        )
    model.set_weights(trained)


def resized(heatmap: np.ndarray) -> np.ndarray:
    """Spread a map over its photograph."""
    return np.asarray(Image.fromarray(heatmap).resize((SIDE, SIDE), Image.BILINEAR))


def noisy(weights: list[np.ndarray], share: float, seed: int) -> list[np.ndarray]:
    """Mix noise of their own spread into the kernels: `(1 - share) * kernel + share * noise`."""
    rng = np.random.default_rng(seed)
    return [
        (1 - share) * each + share * each.std() * rng.standard_normal(each.shape)
        if each.ndim > 1
        else each
        for each in weights
    ]


@contextlib.contextmanager
def tensorboard(directory: Path) -> Iterator[str]:
    """Serve a log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(directory)]
    server = subprocess.Popen([*command, "--port", str(port), "--host", "127.0.0.1"])
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 90
        while not has_series(address):
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("TensorBoard did not show the log.")
            time.sleep(0.3)
        yield address
    finally:
        server.terminate()
        server.wait()


def has_series(address: str) -> bool:
    """Whether the tab of a server has something to show."""
    try:
        with urllib.request.urlopen(f"{address}/data/plugin/kvis2/log", timeout=20) as answer:
            return len(json.load(answer)["series"]) == 4
    except OSError:
        return False


def take_pictures(address: str, out: Path) -> None:
    """Photograph the tab in both themes, and one card at full size."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    options = webdriver.ChromeOptions()
    for option in ["--headless=new", "--no-sandbox", "--hide-scrollbars"]:
        options.add_argument(option)
    options.add_argument(f"--window-size={SIZE[0]},{SIZE[1]}")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        for theme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": theme}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            driver.get(f"{address}/?darkMode={str(theme == 'dark').lower()}#kvis2")
            driver.refresh()
            wait(driver, By.TAG_NAME, "iframe")
            driver.switch_to.frame(driver.find_element(By.TAG_NAME, "iframe"))
            wait(driver, By.CSS_SELECTOR, ".card .right, .card .wrong")
            step = driver.find_element(By.CSS_SELECTOR, ".bar input[type=number]")
            step.send_keys(str(SHOWN_STEP), Keys.ENTER)
            driver.execute_script("document.activeElement.blur()")
            wait_until_drawn(driver)
            save(driver, out / f"tab_{theme}.webp")
        driver.find_elements(By.CSS_SELECTOR, ".card-head")[1].click()
        driver.find_element(By.CSS_SELECTOR, "dialog[open] h2").click()
        driver.switch_to.active_element.send_keys("w")
        time.sleep(1)
        wait_until_drawn(driver)
        save(driver, out / "tab_card.webp")
    finally:
        driver.quit()


def wait(driver: Any, how: str, what: str) -> None:
    """Wait for an element."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 60).until(lambda browser: browser.find_elements(how, what))


def wait_until_drawn(driver: Any) -> None:
    """Wait until no canvas waits for its data."""
    from selenium.webdriver.support.ui import WebDriverWait

    busy = "return document.querySelectorAll('[aria-busy=true]').length"
    WebDriverWait(driver, 60).until(lambda browser: browser.execute_script(busy) == 0)
    time.sleep(0.3)


def save(driver: Any, path: Path) -> None:
    """Save what the browser shows."""
    shown = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    shown.save(path, quality=88, method=6)
    print(path, f"{path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Write the log where there is none, and take the pictures."""
    options = arguments()
    if options.log is None and not (DATA / "boxes.json").exists():
        raise SystemExit(
            f"Expected photographs with boxes and a classifier in {DATA}. Received: no such "
            "folder. This script draws the pictures of the documentation; digits_in_the_wild.py "
            "makes a log of the Explanations tab from a plain clone."
        )
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        directory = options.log or Path(folder)
        if not directory.is_dir() or not any(directory.iterdir()):
            write_log(directory)
        with tensorboard(directory) as address:
            take_pictures(address, options.out)


if __name__ == "__main__":
    main()
