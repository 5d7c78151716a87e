"""The examples after the documentation of keras-vis: each scenario runs and shows what it says."""

import keras
import numpy as np
import pytest
from example_scripts import example
from PIL import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scenarios():
    pytest.importorskip("sklearn")
    return example("keras_vis_scenarios")


@pytest.fixture(scope="module")
def networks(scenarios):
    return scenarios.make_networks(epochs=6)


def sheet(folder, name, scenario, networks):
    """The picture that a scenario writes."""
    scenario(networks, folder)
    with Image.open(folder / f"{name}.png") as written:
        return np.asarray(written).astype(int)


def test_the_networks_have_learned(scenarios, networks):
    pictures, linear = networks.digits, networks.linear
    assert (
        networks.classifier.predict(pictures, verbose=0).argmax(1) == np.arange(10)
    ).mean() > 0.7
    logits = linear.predict(pictures, verbose=0)
    np.testing.assert_allclose(
        keras.ops.softmax(logits), networks.classifier.predict(pictures, verbose=0), atol=1e-5
    )
    places = networks.steering.predict(networks.roads, verbose=0)[:, 0]
    np.testing.assert_allclose(places, [-0.9, -0.3, 0.3, 0.9], atol=0.25)


def test_images_are_of_the_classes_they_are_made_for(scenarios, networks):
    wanted = [[1], [3], [7], [1, 7], [3, 8]]
    found = [scenarios.ideal(networks.linear, -1, each, tv_weight=100) for each in wanted]
    logits = networks.linear.predict(np.stack(found), verbose=0)
    for classes, outputs in zip(wanted, logits, strict=True):
        assert outputs.argmax() in classes
    # One image for two classes raises both above what the image of either does for the other.
    assert logits[3, 1] > logits[2, 1]
    assert logits[3, 7] > logits[0, 7]


@pytest.mark.parametrize(
    ("name", "rows"),
    [("class_images", 3), ("two_classes", 1), ("filters", 2), ("saliency", 4), ("softmax", 2)],
)
def test_sheets(scenarios, networks, tmp_path, name, rows):
    picture = sheet(tmp_path, name, getattr(scenarios, name), networks)
    height = len(picture) // rows
    for row in range(rows):
        assert picture[row * height : (row + 1) * height].std() > 30


def test_what_maintains_the_steering_is_where_the_digit_is(scenarios, networks, tmp_path):
    picture = sheet(tmp_path, "regression", scenarios.regression, networks)
    assert picture.std() > 30
    for road in networks.roads:
        cam = scenarios.visualize_cam(networks.steering, -1, 0, road, grad_modifier="small_values")
        columns = np.arange(scenarios.ROAD)
        place = np.average(columns, weights=cam.sum(axis=0))
        digit = np.average(columns, weights=np.maximum(road[..., 0] - 0.3, 0).sum(axis=0))
        assert abs(place - digit) < scenarios.SIDE / 2
    # Where the output rises and where it falls are two places.
    up, down = (
        scenarios.visualize_cam(networks.steering, -1, 0, networks.roads[0], grad_modifier=modifier)
        for modifier in (None, "negate")
    )
    assert (up * down).sum() < 0.5 * np.sqrt((up**2).sum() * (down**2).sum())


def test_the_animation_has_all_steps_of_an_optimisation_that_succeeds(
    scenarios, networks, tmp_path
):
    sheet(tmp_path, "optimisation", scenarios.optimisation, networks)
    with Image.open(tmp_path / "optimisation.gif") as gif:
        duration = 0
        for frame in range(gif.n_frames):
            gif.seek(frame)
            duration += gif.info["duration"]
        assert gif.n_frames > 400
        assert gif.size == (scenarios.CELL, scenarios.CELL)
    assert duration == 500 * 40  # equal frames are stored once, and stay as long


def test_a_loss_of_ones_own_turns_one_digit_into_another(
    scenarios, networks, tmp_path, monkeypatch
):
    made = []

    def kept(*arguments, **options):
        made.append(original(*arguments, **options))
        return made[-1]

    original = scenarios.visualize_activation_with_losses
    monkeypatch.setattr(scenarios, "visualize_activation_with_losses", kept)
    sheet(tmp_path, "custom_loss", scenarios.custom_loss, networks)
    predicted = networks.classifier.predict(np.stack(made), verbose=0).argmax(1)
    assert predicted.tolist() == [8, 7, 5]
    # The digit that it started from is still to be seen.
    for start, found in zip((3, 1, 6), made, strict=True):
        shown = networks.digits[start]
        assert np.corrcoef(found.ravel(), shown.ravel())[0, 1] > 0.6


def test_a_model_of_imagenet_and_photographs(shared_data, tmp_path, capsys):
    photographs = [shared_data / "images" / f"{name}.jpg" for name in ("elephant", "tabby_grey")]
    example("keras_vis_scenarios_imagenet").main(
        [
            *(str(shared_data / "efficientnet_lite0.keras"), *map(str, photographs)),
            *(
                "--out",
                str(tmp_path),
                "--penultimate",
                "top_relu",
                "--steps",
                "2",
                "--filters",
                "2",
            ),
        ]
    )
    sizes = {"attention": (500, 1140), "class_images": (250, 684), "filters": (750, 456)}
    for name, (height, width) in sizes.items():
        with Image.open(tmp_path / f"{name}.png") as written:
            picture = np.asarray(written)
        assert abs(picture.shape[0] - height) < 30, name
        assert abs(picture.shape[1] - width) < 30, name
        assert picture.std() > 10
