"""Feature inversion: the loss by hand, and that depth loses."""

import keras
import numpy as np
import pytest
from PIL import Image
from tiny_net import TinyNet, convolve_backward

from kvis2 import presets
from kvis2.ascent import FeatureInversion, History, Snapshots
from kvis2.inspection import activations


@pytest.fixture(scope="module")
def net():
    return TinyNet.random(3, channels=3)


def test_the_schedule_of_the_second_original():
    settings = presets.mahendran_vedaldi()
    optimizer = keras.optimizers.get(keras.optimizers.serialize(settings["optimizer"]))
    rates = [float(optimizer._learning_rate(step)) for step in range(201)]
    expected = [1e4] + [1e3] * 40 + [100] * 40 + [10] * 40 + [1] * 40 + [0.1] * 40
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert settings["optimizer"].momentum == 0.9


def test_the_preset_walks_as_the_second_original(net):
    """0.1 |phi - phi0|^2 / |phi0|^2 + 1e-7 sum z^6 + 1e-8 TV(z) by momentum, in NumPy."""
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rng = np.random.default_rng(1)
    target, start = (rng.uniform(0, 1, (1, 7, 9, 3)).astype(np.float32) for _ in range(2))
    wanted = net.forward(target).pre1
    z, velocity, measured = (start.astype(float) - mean) / deviation, 0.0, []
    for step in range(4):
        reached = net.forward(mean + deviation * z).pre1
        measured.append(mean + deviation * z)
        upstream = 0.2 * (reached - wanted) / (wanted**2).sum()
        gradient = convolve_backward(upstream, net.kernel1) * deviation + 6e-7 * z**5
        down, right = z[:, 1:, :-1] - z[:, :-1, :-1], z[:, :-1, 1:] - z[:, :-1, :-1]
        gradient[:, 1:, :-1] += 2e-8 * down
        gradient[:, :-1, 1:] += 2e-8 * right
        gradient[:, :-1, :-1] -= 2e-8 * (down + right)
        velocity = 0.9 * velocity - (1.0 if step == 0 else 0.1) * gradient
        z = z + velocity
    snapshots = Snapshots(every=1)
    settings = presets.mahendran_vedaldi(first_rate=1.0, steps=4)
    FeatureInversion(net.as_keras(7, 9), "pre1", input_range=(0, 1), **settings)(
        target, start, callbacks=[snapshots]
    )
    for image, by_hand in zip(snapshots.images, measured, strict=True):
        np.testing.assert_allclose(image, by_hand, atol=1e-5)


def test_the_error_is_that_of_the_features_and_small(net):
    images = np.random.default_rng(0).uniform(0, 1, (3, 7, 9, 3)).astype(np.float32)
    model, history = net.as_keras(7, 9), History()
    inversion = FeatureInversion(model, "conv1", steps=200, input_range=(0, 1))
    pictures = inversion(images, callbacks=[history])
    wanted, reached = (
        activations(model, "conv1", each, pre_activation=True) for each in (images, pictures)
    )
    pairs = zip(wanted, reached, strict=True)
    by_hand = [np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in pairs]
    np.testing.assert_allclose(inversion.errors, by_hand, rtol=1e-4)
    np.testing.assert_allclose(np.sqrt(history.losses["loss"].min(axis=0)), by_hand, rtol=1e-3)
    assert (inversion.errors < 0.15).all()  # of noise, the hardest picture
    np.testing.assert_allclose(inversion(images[1:2])[0], pictures[1], atol=2e-2)


@pytest.mark.slow
def test_deeper_layers_bring_back_less_of_a_photograph(shared_data):
    model = keras.models.load_model(shared_data / "efficientnet_lite0.keras")
    picture = Image.open(shared_data / "images" / "cat_chelsea.jpg").convert("RGB")
    image = np.asarray(picture.resize((224, 224)), np.float32)[None]
    feature_errors, pixel_errors = [], []
    for layer in ("stem_relu", "block2b_add", "block4b_add", "block7a_project_bn"):
        inversion = FeatureInversion(model, layer, steps=128)
        found = inversion(image)
        feature_errors.append(float(inversion.errors[0]))
        centred = [each - each.mean() for each in (found, image)]
        pixel_errors.append(1 - np.corrcoef(centred[0].ravel(), centred[1].ravel())[0, 1])
    assert max(feature_errors[:2]) < 0.3, feature_errors
    assert max(feature_errors) < 0.7, feature_errors
    assert pixel_errors == sorted(pixel_errors), pixel_errors
