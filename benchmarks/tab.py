"""What the Explanations tab costs: bytes, seconds and memory.

    python -m benchmarks.tab
    python -m benchmarks.tab --json docs/performance.json --markdown docs/performance.md

Prints Markdown, and puts the numbers beside those of `make bench`. kvis2 has to be installed with
its tab (`pip install -e .[tensorboard]`); the browser's part needs Chromium, chromedriver and
selenium.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks import report
from benchmarks.machine import about
from kvis2.callbacks.tab import Card, TabCards, write_summaries
from kvis2.callbacks.writers import Picture, encode
from kvis2.images import panel

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "images"
IMAGES = 16
STEPS = 10
ROUNDS = 7
CARDS, MANY_STEPS = 10_000, 200
START = """
import sys
from tensorboard import default, main
if sys.argv.pop(1) == "without":
    default.get_dynamic_plugins = lambda: []
sys.exit(main.run_main())
"""
FRAMES = """
const done = arguments[arguments.length - 1];
const grid = document.querySelector(".grid");
const times = [];
let last = performance.now();
function next(now) {
  times.push(now - last);
  last = now;
  grid.scrollTop += 600;
  times.length < 240 ? requestAnimationFrame(next) : done(times.slice(5));
}
requestAnimationFrame(next);
"""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["bytes", "start", "browser"])
    parser.add_argument("--json", type=Path, help="the numbers of `make bench`")
    parser.add_argument("--markdown", type=Path, help="the page of them")
    given = parser.parse_args()
    print(", ".join(about().values()), "\n\n| what | measured |\n| --- | --- |")
    found = []
    for part in given.parts:
        for name, value in {"bytes": sizes, "start": starts, "browser": browser}[part]():
            print(f"| {name} | {value} |", flush=True)
            found.append([name, value])
    if given.json:
        document = json.loads(given.json.read_text())
        document["extras"]["tab"] = {"date": about()["date"], "rows": found}
        given.json.write_text(json.dumps(document, indent=1))
        if given.markdown:
            given.markdown.write_text(report.markdown(document))


def sizes():
    """Bytes of a step, of the data of the tab and of the pictures of the Images tab."""
    photos = photographs()
    maps = np.random.default_rng(0).random((STEPS, IMAGES, 7, 7)).astype("float32") ** 3
    shares = np.random.default_rng(1).dirichlet(np.ones(1000), (STEPS, IMAGES))
    names = [f"class {index}" for index in range(1000)]
    files = [webp(photo) for photo in photos]
    cards = [Card(f"{row:02d}", file, (224, 224), row) for row, file in enumerate(files)]
    encoder = TabCards("GradCAM", cards, class_names=names, layer="top_relu")
    first, *rest = (
        encoder.summaries(
            maps[step],
            probabilities=shares[step],
            explained=range(IMAGES),
            heat_in_box=np.full(IMAGES, 0.5),
        )
        for step in range(STEPS)
    )
    once = sum(map(len, first[0].blobs))
    each = statistics.median(sum(map(len, summaries[0].blobs)) for summaries in rest)
    seconds, panels = timed_panels(photos, maps[-1], shares[-1])
    encoding = timed(lambda: encoder.summaries(maps[0], probabilities=shares[0]))
    yield "data of the tab: bytes of a step, 16 images of 224 px, 7x7 maps", f"{each:,.0f}"
    yield "data of the tab: bytes once, with the photographs as WebP", f"{once:,}"
    yield "panels of the Images tab: bytes of a step", f"{panels:,}"
    yield "panels / data, a step", f"{panels / each:,.0f}"
    yield "milliseconds of a step: data of the tab", f"{1e3 * encoding:.2f}"
    yield "milliseconds of a step: panels, drawn and encoded", f"{1e3 * seconds:.0f}"
    smooth = np.random.default_rng(0).random((IMAGES, 224, 224))
    large = sum(map(len, TabCards("Saliency", cards).summaries(smooth)[1].blobs))
    yield "data of the tab: bytes of a step, 16 maps of 224 px averaged to 64 x 64", f"{large:,}"


def timed_panels(photos, maps, shares):
    """Seconds and bytes of the panels of one step."""

    def draw():
        heats = [
            np.asarray(Image.fromarray(heat).resize((224, 224), Image.BILINEAR)) for heat in maps
        ]
        drawn = [
            panel(photo, heat, probabilities=share, label=row)
            for row, (photo, heat, share) in enumerate(zip(photos, heats, shares, strict=True))
        ]
        return sum(map(len, encode([Picture("", image) for image in drawn])))

    return timed(draw), draw()


def timed(call):
    """Median seconds of a call."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def photographs():
    """Sixteen photographs of 224 px; noise where there are none beside the repository."""
    files = sorted(DATA.glob("*"))[:IMAGES]
    if len(files) < IMAGES:
        return np.random.default_rng(0).integers(0, 255, (IMAGES, 224, 224, 3), np.uint8)
    return np.stack([np.asarray(Image.open(f).convert("RGB").resize((224, 224))) for f in files])


def webp(photo):
    """Encode a photograph."""
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "webp", quality=90)
    return buffer.getvalue()


def starts():
    """Seconds until TensorBoard answers, with the tab and without, in turn."""
    seconds = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            for how, measured in seconds.items():
                started = time.perf_counter()
                with server(folder, how, "data/environment"):
                    measured.append(time.perf_counter() - started)
    for how, measured in seconds.items():
        low, middle, high = statistics.quantiles(measured, n=4)
        yield f"TensorBoard answers, {how} the tab", f"{middle:.2f} s [{low:.2f} to {high:.2f}]"


@contextlib.contextmanager
def server(folder, how, path):
    """TensorBoard on a log, once it answers to `path`; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", START, how, "--logdir", str(folder), "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    process = subprocess.Popen([*command, "--host", "127.0.0.1"], **quiet, env=environment)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None, "TensorBoard ended by itself"
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/{path}"):
                break
            time.sleep(0.01)
        yield address
    finally:
        process.terminate()
        process.wait()


def write_many(folder):
    """A log of 10,000 cards and 200 steps."""
    rng = np.random.default_rng(0)
    names = [f"class {index}" for index in range(100)]
    tiny = [webp(rng.integers(0, 255, (6, 6, 3), np.uint8).repeat(16, 0).repeat(16, 1))] * 100
    cards = [
        Card(f"{row:05d}", tiny[row % 100], (96, 96), row % 100, [8, 8, 60, 60])
        for row in range(CARDS)
    ]
    encoder = TabCards("GradCAM", cards, class_names=names, layer="top_relu")
    with tf.summary.create_file_writer(str(folder / "run")).as_default():
        for step in range(MANY_STEPS):
            maps = rng.random((CARDS, 7, 7), dtype=np.float32)
            shares = rng.random((CARDS, 100), dtype=np.float32) / 100
            share = rng.random(CARDS)
            write_summaries(
                step,
                encoder.summaries(
                    maps,
                    probabilities=shares,
                    explained=np.arange(CARDS) % 100,
                    heat_in_box=share,
                ),
            )


def browser():
    """Seconds and memory of a page of 10,000 cards and 200 steps."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        write_many(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*tfevents*"))
        yield (
            f"log of {CARDS:,} cards x {MANY_STEPS} steps",
            f"{size / 1e6:.0f} MB, written in {time.perf_counter() - started:.0f} s",
        )
        with server(folder, "with", "data/environment") as address:
            while not all_read(address):
                time.sleep(0.1)
            yield from in_browser(address)


def all_read(address):
    """Whether all steps are there."""
    with urllib.request.urlopen(f"{address}/data/plugin/kvis2/log") as answer:
        series = json.load(answer)["series"]
    return bool(series) and len(series[0]["steps"]) == MANY_STEPS


def in_browser(address):
    """Open the page, scroll, sort, and go through the steps."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for option in ["--headless=new", "--no-sandbox", "--enable-precise-memory-info"]:
        options.add_argument(option)
    options.add_argument("--window-size=1400,900")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(120)
    try:
        driver.get(f"{address}/data/plugin_entry.html?name=kvis2")
        elapsed = until_drawn(driver)
        paint = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
        yield "first paint", f"{driver.execute_script(paint) / 1e3:.2f} s"
        yield "all cards of the window painted", f"{elapsed / 1e3:.2f} s"
        yield "JS heap then", heap(driver)
        frames = driver.execute_async_script(FRAMES)
        spread = f"{statistics.median(frames):.0f} ms, 95% within {np.percentile(frames, 95):.0f}"
        yield "a frame while scrolling 600 px a frame", f"{spread} ms"
        yield (
            "cards in the document then",
            driver.execute_script("return document.querySelectorAll('.card').length"),
        )
        yield "JS heap then", heap(driver)
        yield "sorted by drift, painted", act(driver, "select", "drift")
        yield "only the wrong ones, painted", act(driver, "select", "wrong")
        yield "another step, sorted and painted", act(driver, ".bar input[type=range]", "120")
        started = time.perf_counter()
        for step in range(0, MANY_STEPS, 2):
            act(driver, ".bar input[type=range]", str(step))
        yield "100 steps, each sorted and painted", f"{time.perf_counter() - started:.1f} s"
        yield "JS heap then", heap(driver)
    finally:
        driver.quit()


def act(driver, selector, value):
    """Set a control, and return how long it takes until all is painted."""
    driver.execute_script(
        "window.begun = performance.now();"
        "const [selector, value] = arguments;"
        "const all = [...document.querySelectorAll(selector)].filter((e) => !e.disabled);"
        "const one = all.find((e) => !e.options || [...e.options].some((o) => o.value === value));"
        "one.value = value;"
        "['input', 'change'].forEach((name) => one.dispatchEvent(new Event(name)));",
        selector,
        value,
    )
    return f"{(until_drawn(driver) - driver.execute_script('return window.begun')) / 1e3:.2f} s"


def until_drawn(driver):
    """Wait until nothing waits for its data; returns the page's clock in milliseconds."""
    return driver.execute_async_script("""
        const done = arguments[arguments.length - 1];
        let quiet = 0;
        function look() {
          const drawn = document.querySelectorAll(".card .answer span").length > 0;
          const busy = document.querySelectorAll("[aria-busy=true]").length > 0;
          if (quiet === 0) window.drawnAt = performance.now();
          quiet = drawn && !busy ? quiet + 1 : 0;
          quiet > 4 ? done(window.drawnAt) : requestAnimationFrame(look);
        }
        look();
    """)


def heap(driver):
    """JS heap after collecting garbage."""
    driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    used = driver.execute_script("return performance.memory.usedJSHeapSize")
    return f"{used / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
