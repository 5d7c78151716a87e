"""The sheet of all methods: it can be made of any model, and shows what the explainers return."""

import sys

import example_scripts
import keras
import numpy as np
import pytest
from explainers import OF_TRANSFORMERS, public_explainers
from PIL import Image

import kvis2


@pytest.fixture(scope="module")
def script():
    return example_scripts.example("explain_photo")


def run(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["explain_photo.py", *map(str, arguments)])
    script.main()


def read(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_every_method_that_fits_a_convolutional_network_is_offered(script, small_model):
    offered = script.methods(small_model, 127.0, quick=True)
    assert {type(each.explainer).__name__ for each in offered} == (
        public_explainers() - OF_TRANSFORMERS
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras
def test_sheet_of_ones_own_model_and_photograph(script, small_model, monkeypatch, tmp_path, capsys):
    small_model.save(tmp_path / "mine.keras")
    pixels = np.random.default_rng(0).integers(0, 255, (20, 15, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    run(
        script, monkeypatch, "--model", tmp_path / "mine.keras", "--image", tmp_path / "mine.png",
        "--scale", 1 / 255, "--quick", "--output", tmp_path / "sheet.png",
    )  # fmt: skip
    said = capsys.readouterr().out
    offered = script.methods(small_model, 0.5, quick=True)
    assert all(each.caption in said for each in offered)
    rows = -(-(len(offered) + 1) // script.COLUMNS)
    blank = (read(tmp_path / "sheet.png") == 255).all(axis=(1, 2))
    pictures = np.flatnonzero(np.diff(blank.astype(int)) == -1)
    assert len(pictures) >= rows  # A picture and a caption each.


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras
def test_panels_are_what_the_explainers_return(script, shared_data, monkeypatch, tmp_path, capsys):
    only = ["Grad-CAM", "LRP"]
    given = ["--model", shared_data / "efficientnet_lite0.keras"]
    given += ["--image", shared_data / "images" / "bulldog_cat.jpg"]
    run(script, monkeypatch, *given, "--only", *only, "--output", tmp_path / "sheet.png")
    assert "class 243, probability 0.35" in capsys.readouterr().out

    model = keras.saving.load_model(shared_data / "efficientnet_lite0.keras", compile=False)
    photo = script.load_photo(shared_data / "images" / "bulldog_cat.jpg", model)
    batch = photo[None].astype(np.float32)
    cam, relevance = (each(model)(243, batch)[0] for each in (kvis2.GradCAM, kvis2.LRP))
    pictures = [photo, script.painted(photo, cam, False), script.painted(photo, relevance, True)]
    expected = script.sheet(pictures, ["class 243, p = 0.35", *only])
    assert np.abs(read(tmp_path / "sheet.png") - expected).max() <= 2


def test_unknown_captions_are_answered_in_a_sentence(script, small_model):
    offered = script.methods(small_model, 127.0, quick=True)
    with pytest.raises(SystemExit, match=r"Received: Grad-CAMERA. There are: CAM, Grad-CAM"):
        script.chosen(offered, ["Grad-CAMERA"])
