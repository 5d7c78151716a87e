"""The demo, and the code in README and CONTRIBUTING: they run, and show what is claimed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import example_scripts
import keras
import numpy as np
import pytest
import tensorflow as tf

from kvis2.explainers import cam

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "digits_in_the_wild.py"


@pytest.fixture(scope="module")
def demo():
    pytest.importorskip("sklearn")
    return example_scripts.example("digits_in_the_wild")


def run(*options):
    """Run the demo as a user does, without the Keras progress bar's cursor movements."""
    pytest.importorskip("tensorboard")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(DEMO), *map(str, options)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


def code_blocks(file):
    return re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), re.DOTALL)


def number(pattern, text):
    found = re.search(pattern, text)
    assert found, f"{pattern!r} is not in the report:\n{text}"
    return float(found.group(1))


def test_the_box_holds_the_whole_digit_and_nothing_else(demo):
    rng = np.random.default_rng(0)
    background = np.full((demo.SIDE, demo.SIDE, 3), 120, np.uint8)
    for digit in demo.load_digits().images[:50]:
        picture, (x0, y0, x1, y1) = demo.paste_digit(background, digit, rng)
        change = np.abs(picture.astype(int) - background).max(axis=-1)
        strong = change > 0.5 * change.max()
        rows, columns = np.nonzero(strong)
        assert (x0, y0) <= (columns.min(), rows.min())
        assert columns.max() < x1 <= demo.SIDE
        assert rows.max() < y1 <= demo.SIDE
        assert change[y0:y1, x0:x1].sum() > 0.95 * change.sum()
        for edge in [change[y0], change[y1 - 1], change[:, x0], change[:, x1 - 1]]:
            assert edge.max() > 0.2 * change.max()  # the box is no larger than the digit


def test_data_depend_on_the_seed_alone_and_share_no_digit(demo):
    first, validation = demo.make_data(40, 30, seed=5)
    again, _ = demo.make_data(40, 30, seed=5)
    other, _ = demo.make_data(40, 30, seed=6)
    assert first.images.shape == (40, demo.SIDE, demo.SIDE, 3)
    assert first.images.dtype == np.uint8
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.boxes, again.boxes)
    assert (first.images != other.images).any()
    assert len(validation.labels) == 30
    assert set(np.concatenate([first.labels, validation.labels])) == set(range(10))


def test_the_corner_is_painted_where_told_and_nowhere_else(demo):
    scenes, _ = demo.make_data(20, 1, seed=0)
    chosen = np.arange(20) % 3 == 0
    before = scenes.images.copy()
    painted = demo.with_corner(scenes, chosen).images
    np.testing.assert_array_equal(scenes.images, before)
    np.testing.assert_array_equal(painted[~chosen], before[~chosen])
    corner = painted[chosen, : demo.CORNER, : demo.CORNER]
    assert (corner == demo.MAGENTA).all()
    outside = np.full((demo.SIDE, demo.SIDE), True)
    outside[: demo.CORNER, : demo.CORNER] = False
    np.testing.assert_array_equal(painted[:, outside], before[:, outside])


@pytest.mark.slow
def test_demo_writes_and_prints_what_the_readme_says(tmp_path):
    out = tmp_path / "logs"
    text = run("--epochs", 2, "--images", 64, "--out", out)
    assert f"tensorboard --logdir {out}" in text
    for run_name in ["train", "validation", "kvis2", "kvis2_validation"]:
        assert list((out / run_name).glob("*tfevents*")), run_name
    pictures = out / "pictures" / "GradCAM"
    assert len(list(pictures.glob("?? * strip.png"))) == len(list(pictures.glob("*.gif"))) == 10
    assert (out / "evolution.webp").stat().st_size > 0

    again = subprocess.run(
        [sys.executable, str(DEMO), "--out", str(out)], capture_output=True, text=True
    )
    assert again.returncode == 2
    assert "expected --out to be a folder without event files" in again.stderr


@pytest.mark.slow
def test_the_network_learns_where_to_look(tmp_path):
    text = run("--out", tmp_path)
    readme = Path("README.md").read_text(encoding="utf-8")
    for figure in (
        r"accuracy +(\d\.\d\d)\n",
        r"pointing game +(\d\.\d\d) at the first",
        r"pointing game .* (\d\.\d\d) at the last",
        r"share of heat in the box +(\d\.\d\d) at the first",
        r"share of heat in the box .* (\d\.\d\d) at the last",
    ):
        assert number(figure, text) == pytest.approx(number(figure, readme), abs=0.04), figure
    first = number(r"pointing game +(\d\.\d\d) at the first", text)
    last = number(r"pointing game .* (\d\.\d\d) at the last", text)
    share_first = number(r"share of heat in the box +(\d\.\d\d) at the first", text)
    share_last = number(r"share of heat in the box .* (\d\.\d\d) at the last", text)
    assert number(r"accuracy +(\d\.\d\d)\n", text) > 0.75
    assert last > first + 0.2
    assert last > 0.8
    assert share_last > share_first + 0.1


@pytest.mark.slow
def test_the_shortcut_shows_in_the_heatmaps_and_is_repaired(tmp_path):
    """Ground truth: of the marked class the corner holds four times its share, of no other."""
    text = run("--shortcut", "--repair", "--epochs", 6, "--out", tmp_path)
    text, repaired = text.split("Repaired with the masks of 300 images:")
    times = {
        name: float(value)
        for name, value in re.findall(r"^  (\w+) +[\d.]+, +([\d.]+) times its area", text, re.M)
    }
    assert len(times) == 10
    assert times.pop("seven") >= 4
    assert max(times.values()) < 4
    assert number(r"sevens, with the corner +(\d\.\d\d)", text) > 0.9
    assert number(r"sevens, without the corner +(\d\.\d\d)", text) < 0.2
    assert number(r"called seven with it +(\d\.\d\d)", text) > 0.8

    assert number(r"sevens, without the corner +(\d\.\d\d)", repaired) >= 0.5
    assert number(r"called seven with it +(\d\.\d\d)", repaired) <= 0.25
    assert (tmp_path / "repair.webp").stat().st_size > 0


@pytest.mark.filterwarnings("ignore:.*found no evidence")  # of an untrained network
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras
def test_code_of_the_readme_runs(tmp_path, monkeypatch, images, small_model):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    small_model.compile("sgd", "sparse_categorical_crossentropy")
    labels = np.array([0, 1, 0, 1, 1])
    names = {"keras": keras, "model": small_model, "x": images, "y": labels}
    names |= {"x_test": images, "y_test": labels, "photos": images}
    in_training, afterwards = code_blocks("README.md")

    exec(in_training.replace('["cat", "dog"]', '["cat", "dog", "cow", "hen"]'), names)
    assert list((tmp_path / "logs" / "kvis2").glob("*tfevents*"))
    assert len(names["logger"].history["step"]) == 10
    exec(afterwards, names)
    assert names["heatmaps"].shape == images.shape[:3]
    assert names["heatmaps"].max() == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found no evidence")
@pytest.mark.filterwarnings("ignore:.*are flat")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras
@pytest.mark.parametrize("page", ["deploy.md", "guidance.md"])
def test_code_of_the_guides_runs(page, tmp_path, monkeypatch, images, small_model):
    # Those that need further runtimes are run by tests/test_export_formats.py.
    blocks = [each for each in code_blocks(f"docs/{page}") if ".tflite" not in each]
    monkeypatch.chdir(tmp_path)
    small_model.compile("sgd", "sparse_categorical_crossentropy")
    labels = np.array([0, 1, 0, 1, 1])
    boxes = [[1, 1, 5, 5]] * len(images)
    names = {"keras": keras, "tf": tf, "model": small_model, "x": images, "y": labels}
    names |= {"x_test": images, "y_test": labels, "boxes_test": boxes, "boxes": boxes}
    names |= {"images": images}
    for block in blocks:
        exec(block, names)
    if page == "deploy.md":
        assert names["again"](images)["heatmap"].shape == images.shape[:3]
        assert names["report"].difference < 1e-4
        names["served"](tf.constant(images), tf.constant(labels))
    else:
        assert len(names["guide"].history["flips"]) == 3


def test_method_of_contributing_is_its_formula(images, small_model):
    (code,) = code_blocks("CONTRIBUTING.md")
    names = vars(cam).copy()
    exec(code, names)
    explainer = names["XGradCAM"](small_model, "late", resize=False, normalize=False)

    late, predictions = small_model.get_layer("late"), small_model.get_layer("predictions")
    activations = keras.Model(small_model.input, late.output)(images).numpy()
    # Of a mean over space followed by a dense layer the gradient is known: w / (height width).
    gradient = predictions.kernel.numpy()[:, 2] / np.prod(activations.shape[1:3])
    total = activations.sum(axis=(1, 2))
    pulled = (activations * gradient).sum(axis=(1, 2)) / np.where(total == 0, 1, total)
    expected = np.maximum((activations * pulled[:, None, None, :]).sum(axis=-1), 0)

    maps = explainer(2, images)

    assert expected.max() > 0
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6 * expected.max())
