"""The gallery of features as a user makes it, from small models of three kinds."""

import example_scripts
import keras
import numpy as np
import pytest
from PIL import Image

from kvis2.gallery import InputSpace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def example():
    return example_scripts.example("feature_gallery")


@pytest.fixture
def photograph(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 14, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def five_convolutions(channels):
    """Five convolutions, of which the third has a dead filter."""
    inputs = keras.Input((16, 12, channels))
    x = inputs
    for depth in range(5):
        kind = keras.layers.SeparableConv2D if depth == 3 else keras.layers.Conv2D
        x = kind(4, 3, padding="same", activation="elu", name=f"conv{depth}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model([inputs], keras.layers.Dense(3, activation="softmax")(x))
    kernel, bias = model.get_layer("conv2").get_weights()
    kernel[..., 1] = 0
    model.get_layer("conv2").set_weights([kernel, bias])
    return model


@pytest.mark.filterwarnings("ignore:.*__array__ implementation:DeprecationWarning")  # Keras
@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_all_sheets_of_a_model_of_fixed_size(example, photograph, tmp_path, channels, capsys):
    five_convolutions(channels).save(tmp_path / "model.keras")
    out = tmp_path / "gallery"
    options = ["--out", out, "--units", "4", "--steps", "2", "--input-range", "-1", "1"]
    example.main([str(each) for each in (tmp_path / "model.keras", photograph, *options)])
    depths = [f"units_{depth}_conv{depth}.png" for depth in range(5)]
    of_photograph = [f"photo_{part}.png" for part in ("dream", "inversions", "activations")]
    expected = {"kernels.png", "classes.png", "phases.png", "features.jpg"}
    assert {each.name for each in out.iterdir()} == {*expected, *depths, *of_photograph}
    with Image.open(out / "features.jpg") as summary:
        assert summary.width == 4 + 3 * (128 + 4)  # three of each: there are three classes
    with Image.open(out / "photo_dream.png") as dream:
        assert dream.size == (14, 20)
    assert "No gradient" not in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*__array__ implementation:DeprecationWarning")  # Keras
def test_some_sheets(example, photograph, tmp_path):
    five_convolutions(3).save(tmp_path / "model.keras")
    options = ["--out", tmp_path, "--steps", "2", "--only", "kernels", "classes", "activations"]
    example.main([str(each) for each in (tmp_path / "model.keras", photograph, *options)])
    sheets = {each.name for each in tmp_path.iterdir()} - {"model.keras", "photo.png"}
    assert sheets == {"kernels.png", "classes.png", "photo_activations.png", "features.jpg"}
    with Image.open(tmp_path / "features.jpg") as summary:
        assert summary.size == (4 + 3 * 132, 4 + round(128 * 16 / 12) + 4)


def test_dead_filters_are_left_out(example):
    model = five_convolutions(3)
    assert example.living_filters(model.get_layer("conv2"), 12).tolist() == [0, 2, 3]
    assert example.living_filters(model.get_layer("conv3"), 2).tolist() == [0, 3]


def test_depths_run_from_the_first_convolution_to_the_last(example):
    model = five_convolutions(3)
    assert [each.name for each in example.five_depths(model)] == [f"conv{i}" for i in range(5)]


def test_a_close_up_is_the_middle_enlarged(example):
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[24:40, 24:40] = 200
    assert (example.close_up(picture, 1) == 200).all()
    np.testing.assert_array_equal(example.close_up(picture, 4), picture)


def test_the_preprocessing_is_the_input_space(example):
    model = five_convolutions(3)
    vgg = keras.applications.vgg16.preprocess_input
    assert example.input_space(model, vgg, None).blue_first
    assert example.input_space(model, vgg, (0.0, 1.0)) == InputSpace((0.0,) * 3, (1.0,) * 3)
    assert example.input_space(model, None, None) == InputSpace()
