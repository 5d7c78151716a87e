"""Small logs for the Explanations tab, a TensorBoard that serves them, and what it should paint."""

import contextlib
import importlib.metadata
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import matplotlib
import numpy as np
import tensorflow as tf
from PIL import Image

from kvis2.callbacks.tab import Card, TabCards, write_summaries

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 48, 64
STEPS = (0, 5, 9)
NAMES = ["cat", "dog", "owl"]
EVIL = "<img src=x onerror=window.hacked=1>"
EVIL_CLASS = '"><script>window.hacked=2</script>'


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def photographs(count):
    """Smooth pictures, uint8 `(count, HEIGHT, WIDTH, 3)`."""
    y, x = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    waves = [np.stack([x, y, np.sin(3 * (x + row) + y) ** 2], axis=-1) for row in range(count)]
    return np.rint(255 * np.stack(waves)).astype(np.uint8)


def maps_of(step, count, grid=(3, 4), signed=False):
    """Maps that grow with the steps, float32 `(count, *grid)`."""
    values = np.random.default_rng(step + 1).random((count, *grid), dtype=np.float32)
    values = (2 * values - 1) if signed else values
    return values * np.float32(0.5 + step / 10)


def write_run(directory, tags=("GradCAM",), names=None, class_names=NAMES, count=3):
    """Write a run: at step 5 the first card flips from right to wrong."""
    names = names or [f"{row:02d} {NAMES[row % 3]}" for row in range(count)]
    files = [png(image) for image in photographs(count)]
    cards = [
        Card(name, file, (HEIGHT, WIDTH), row % 3, [4, 6, 32, 40])
        for row, (name, file) in enumerate(zip(names, files, strict=True))
    ]
    encoders = [
        TabCards(tag, cards, class_names=class_names, layer="late", top_k=2) for tag in tags
    ]
    with tf.summary.create_file_writer(str(directory)).as_default():
        for step in STEPS:
            for number, encoder in enumerate(encoders):
                maps = maps_of(step, count, signed=number == 1)
                write_summaries(step, encoder.summaries(maps, **answers(step, count)))


def answers(step, count):
    probabilities = np.full((count, 3), 0.1)
    probabilities[np.arange(count), np.arange(count) % 3] = 0.8
    if step == 5:
        probabilities[0] = [0.1, 0.7, 0.2]
    share = np.linspace(0.2, 0.9, count)
    return {"probabilities": probabilities, "explained": np.arange(count) % 3, "heat_in_box": share}


def write_series_and_volume(directory):
    """Write a run with signals, and one with volumes of five slices."""
    time_axis = np.linspace(0, 9, 50)
    signals = TabCards("Signals", [Card("00 wave", np.sin(time_axis))])
    slices = [png(image) for image in photographs(5)]
    volumes = TabCards("Volumes", [Card("00 scan", slices, (HEIGHT, WIDTH))])
    with tf.summary.create_file_writer(str(directory)).as_default():
        for step in STEPS:
            write_summaries(step, signals.summaries(maps_of(step, 1, (10,))))
            write_summaries(step, volumes.summaries(maps_of(step, 1, (5, 3, 4))))


def write_pictures_only(directory):
    """Write a run as kvis2 did before it had a tab."""
    metadata = tf.compat.v1.SummaryMetadata(
        plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="images"), data_class=3
    )
    content = tf.constant([b"64", b"48", png(photographs(1)[0])])
    with tf.summary.create_file_writer(str(directory)).as_default():
        tf.summary.write("GradCAM/00 cat", content, 0, metadata)


def expected_overlay(photograph, heatmap, limit, opacity=0.7, fade=True, colormap="inferno"):
    """What the tab should paint, in float64 and by matplotlib."""
    points = np.stack([interpolated(row, WIDTH) for row in heatmap.astype(np.float64)])
    points = np.stack([interpolated(column, HEIGHT) for column in points.T], axis=1)
    signed = colormap == "RdBu_r"
    share = np.clip(points / limit, -1 if signed else 0, 1)
    colors = matplotlib.colormaps[colormap]((share + 1) / 2 if signed else share)[..., :3] * 255
    weight = opacity * (np.abs(share) if fade else np.ones_like(share))
    return (1 - weight[..., None]) * photograph + weight[..., None] * colors


def interpolated(cells, count):
    """Linear between the centres of the cells, constant beyond the outer ones."""
    centres = (np.arange(len(cells)) + 0.5) / len(cells)
    return np.interp((np.arange(count) + 0.5) / count, centres, cells)


def environment(folder):
    """The variables of a process in which TensorBoard finds the tab, installed or not."""
    paths = [str(ROOT)]
    found = importlib.metadata.distributions(path=[*sys.path, str(ROOT)])
    points = [point for each in found for point in each.entry_points]
    if not any(each.value.startswith("tensorboard_plugin_kvis2") for each in points):
        metadata = Path(folder) / "entry_points" / "kvis2_tab-0.dist-info"
        metadata.mkdir(parents=True, exist_ok=True)
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: kvis2-tab\nVersion: 0\n")
        (metadata / "entry_points.txt").write_text(
            "[tensorboard_plugins]\nkvis2 = tensorboard_plugin_kvis2:ExplanationsLoader\n"
        )
        paths.append(str(metadata.parent))
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*paths, *([inherited] if inherited else [])])
    return {**os.environ, "PYTHONPATH": path}


@contextlib.contextmanager
def served(log_dir, folder, *options, prefix="", **variables):
    """A TensorBoard server on a log; yields the address below which its routes are."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(log_dir)]
    command += ["--port", str(port), "--host", "127.0.0.1", *options]
    output = Path(folder) / "server.txt"
    with output.open("w") as file:
        server = subprocess.Popen(
            [*command, *([f"--path_prefix={prefix}"] if prefix else [])],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**environment(folder), **variables},
            cwd=folder,
        )
    address = f"http://127.0.0.1:{port}{prefix}"
    try:
        wait_until_read(server, address, output)
        yield address
    finally:
        server.terminate()
        server.wait()


def wait_until_read(server, address, output):
    """Wait until all that is in the log is served: the server answers before it has read it."""
    deadline = time.monotonic() + 90
    before = None
    while True:
        assert server.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        with contextlib.suppress(OSError):
            now = get_json(address, "log")
            if now == before and (now["series"] or now["without"]):
                return
            before = now
        time.sleep(0.4)


def get(address, path, **query):
    url = f"{address}/data/plugin/kvis2/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=20) as response:
        return response.read()


def get_json(address, path, **query):
    return json.loads(get(address, path, **query))
