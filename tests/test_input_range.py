"""Which range of images a model expects, and the warning where images do not keep to it."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers as L

from kvis2 import GradCAM, describe
from kvis2.inspection import Description
from kvis2.models import input_range

SHAPE = (16, 12, 3)
MEANS, DEVIATIONS = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def network(*first, inputs=None, name="net"):
    """A small classifier that does these things to its input first."""
    inputs = keras.Input(SHAPE) if inputs is None else inputs
    x = inputs
    for each in first:
        x = each(x)
    x = L.Conv2D(6, 3, activation="relu")(x)
    outputs = L.Dense(3, activation="softmax")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name=name)


def nested():
    body = network(L.Rescaling(1 / 255), name="body")
    return keras.Sequential([keras.Input(SHAPE), L.RandomFlip(), body])


def scaled_before():
    """Pixels are divided before a backbone that normalises 0..1."""
    inputs = keras.Input(SHAPE)
    body = network(L.Normalization(mean=MEANS, variance=DEVIATIONS**2), name="body")
    return keras.Model(inputs, body(L.Rescaling(1 / 255)(inputs)))


def augmented():
    flips = keras.Sequential([keras.Input(SHAPE), L.RandomFlip(), L.RandomRotation(0.1)])
    return network(flips, L.Rescaling(1 / 127.5, -1))


def branched():
    """Pixels go to a convolution as they are, and scaled to another."""
    inputs = keras.Input(SHAPE)
    both = [L.Conv2D(2, 3)(inputs), L.Conv2D(2, 3)(L.Rescaling(1 / 255)(inputs))]
    return keras.Model(inputs, L.GlobalAveragePooling2D()(L.Concatenate()(both)))


RANGES = {
    "Rescaling(1 / 255)": (lambda: network(L.Rescaling(1 / 255)), 255),
    "Rescaling to -1..1": (lambda: network(L.Rescaling(1 / 127.5, -1)), 255),
    "x / 127.5 - 1": (lambda: network(lambda x: x / 127.5 - 1), 255),
    "the mean, then the deviation": (lambda: network(lambda x: (x - 127.5) / 64), 255),
    "0.5 - x * 0.01": (lambda: network(lambda x: 0.5 - x * 0.01), None),
    "means of ImageNet in pixels": (lambda: network(lambda x: x - 255 * MEANS), 255),
    "statistics of pixels": (
        lambda: network(L.Normalization(mean=255 * MEANS, variance=(255 * DEVIATIONS) ** 2)),
        255,
    ),
    "statistics of 0..1": (lambda: network(L.Normalization(mean=MEANS, variance=DEVIATIONS**2)), 1),
    "0..1 to -1..1": (lambda: network(L.Rescaling(2.0, -1.0)), 1),
    "Rescaling, then Normalization": (scaled_before, 255),
    "augmentation first": (augmented, 255),
    "nested": (nested, 255),
    "sequential": (
        lambda: keras.Sequential([keras.Input(SHAPE), L.Rescaling(1 / 255), L.Conv2D(3, 3)]),
        255,
    ),
    "nothing": (network, None),
    "identity": (lambda: network(L.Rescaling(1.0)), None),
    "batch normalisation": (lambda: network(L.BatchNormalization()), None),
    "a sum of two tensors": (lambda: network(lambda x: x + x), None),
    "branches": (branched, None),
}


@pytest.mark.parametrize("kind", RANGES)
def test_range_is_that_from_which_the_network_gets_its_contrast(kind):
    make, high = RANGES[kind]
    found = input_range(make())
    assert (None if found is None else (found.low, found.high)) == (high and (0, high))


@pytest.mark.parametrize(
    "model", [MEANS[0] * 255, 0.5], ids=["adapted to pixels", "adapted to 0..1"]
)
def test_an_adapted_normalisation_tells_what_it_was_adapted_to(model, images):
    high = 255 if model > 1 else 1
    layer = L.Normalization()
    layer.adapt(high * images)
    assert input_range(network(layer)).high == high


def test_describe_says_the_range_and_where_it_is_from(capsys):
    describe(network(L.Rescaling(1 / 255)))
    assert "expects values in 0..255, by Rescaling\n" in capsys.readouterr().out
    assert "expects" not in str(Description.of(network()))


def warned(model, images):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        GradCAM(model)(None, images)
    return [str(each.message) for each in caught if "Expected images in" in str(each.message)]


def test_images_in_0_to_1_for_a_model_that_scales_are_warned_of(images):
    model = network(L.Rescaling(1 / 255))
    (said,) = warned(model, images)
    assert said.startswith("Expected images in 0..255 for 'net', which scales them itself (Rescal")
    assert "give pixels in 0..255" in said
    assert warned(model, 2 * images - 1)  # Scaled to -1..1.
    assert not warned(model, 255 * images)
    assert not warned(model, (255 * images).astype("uint8"))
    assert not warned(model, np.ones_like(images))  # Of one value: a baseline.


def test_pixels_for_a_model_that_normalises_0_to_1_are_warned_of(images):
    model = network(L.Normalization(mean=MEANS, variance=DEVIATIONS**2))
    (said,) = warned(model, 255 * images)
    assert "divide them by 255" in said
    assert not warned(model, images)
    assert not warned(network(), 255 * images)  # Nothing is known of this one.


def test_one_grey_image_is_taken_without_its_axes(images):
    model = network(inputs=keras.Input((16, 12, 1)))
    grey = images[0, ..., 0]
    found = GradCAM(model)(0, grey)
    np.testing.assert_array_equal(found, GradCAM(model)(0, grey[None, ..., None]))
    assert found.shape == (1, 16, 12)
    with pytest.raises(ValueError, match=r"Received: \(12, 16\)"):
        GradCAM(model)(0, grey.T)
