"""The script that compares methods on photographs runs, and writes what it found between marks."""

import csv
import sys

import example_scripts
import keras
import pytest
from keras import layers


@pytest.fixture(scope="module")
def script():
    return example_scripts.example("which_method")


def small_classifier():
    stack = [layers.Rescaling(1 / 255), layers.Conv2D(4, 3, activation="relu")]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(1000, activation="softmax")]
    return keras.Sequential([layers.Input((64, 64, 3)), *stack, *head])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras
def test_pages_get_the_numbers_and_keep_what_was_written(
    script, shared_data, monkeypatch, tmp_path, capsys
):
    small_classifier().save(tmp_path / "small.keras")
    page = "# Mine\n\n<!-- checks made by examples/which_method.py -->\nold\n<!-- end -->\nkept\n"
    (tmp_path / "methods.md").write_text(page)
    options = [
        "--model",
        tmp_path / "small.keras",
        "--photographs",
        shared_data,
        "--output",
        tmp_path,
        "--quick",
    ]
    monkeypatch.setattr(sys, "argv", ["which_method.py", *map(str, options)])
    script.main()
    said = capsys.readouterr().out
    assert "random maps" in said
    methods = (tmp_path / "methods.md").read_text()
    assert methods.startswith("# Mine\n")
    assert methods.endswith("kept\n")
    assert "old" not in methods
    assert "| Grad-CAM | " in methods
    with open(tmp_path / "which_method.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = script.explainers(small_classifier(), quick=True)
    assert {row["explainer"] for row in rows} == set(names)
    assert (tmp_path / "images" / "which_method.webp").stat().st_size > 10000
    numbers = (tmp_path / "which_method.md").read_text()
    assert numbers.count("<!-- end -->") == 2
