"""Published architectures with random weights: Grad-CAM and the gradient, beside a GradientTape.

Marked `exhaustive`: with kimm installed, `UPDATE_DOCS=1 pytest -m exhaustive tests/test_zoo.py`
writes docs/model_zoo.md. What is not installed is skipped.
"""

import os
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvis2

PAGE = Path(__file__).parents[1] / "docs" / "model_zoo.md"
KIMM = [
    *("ConvNeXtAtto", "EfficientNetLiteB0", "GhostNetW100", "GhostNetV2W100", "HGNetV2B0"),
    *("LCNet035", "MobileNetV3W050Small", "MobileOneS0", "MobileViTXXS", "RegNetX002"),
    *("RegNetY002", "RepVGGA0", "ResNet18", "TinyNetE", "VisionTransformerTiny16"),
]
APPLICATIONS = [
    *("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionV3"),
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile", "ResNet50", "VGG16"),
    *("Xception",),
]
FOUND = {}


def kimm_model(name):
    kimm = pytest.importorskip("kimm", reason="kimm is not installed")
    maker = getattr(kimm.models, name, None)
    if maker is None:
        pytest.skip(f"this kimm has no {name}")
    size = 224 if "VisionTransformer" in name else 96
    options = {"classifier_activation": "linear", "weights": None, "classes": 7}
    return maker(input_shape=(size, size, 3), **options)


def application(name):
    maker = getattr(keras.applications, name)
    options = {"classifier_activation": None, "weights": None, "classes": 7}
    return maker(input_shape=(96, 96, 3), **options)


def by_tape(model, layer, index, images):
    """Grad-CAM at `layer`, and the gradient by the input, of one class."""
    inside = keras.Model(model.inputs, [layer.output, model.outputs[0]])

    @tf.function
    def run(x):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            maps, out = inside(x, training=False)
            total = tf.reduce_sum(out[:, index])
        return maps, tape.gradient(total, maps), tape.gradient(total, x)

    maps, gradients, by_input = (each.numpy() for each in run(tf.constant(images)))
    space = tuple(range(1, maps.ndim - 1))
    weights = gradients.mean(axis=space, keepdims=True)
    return np.maximum((weights * maps).sum(axis=-1), 0), np.abs(by_input).max(axis=-1)


def off(found, expected):
    """The largest difference, as a share of the largest value."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))


CASES = [("kimm", name, kimm_model) for name in KIMM]
CASES += [("keras.applications", name, application) for name in APPLICATIONS]


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("package", "name", "make"), CASES, ids=[case[1] for case in CASES])
def test_an_architecture_is_explained_as_a_tape_does(package, name, make):
    keras.utils.set_random_seed(0)
    model = make(name)
    images = np.random.default_rng(0).random((2, *model.inputs[0].shape[1:]), dtype="float32")
    cam = kvis2.GradCAM(model, normalize=False, resize=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, index = cam(0, images), 0
        while not found.any() and index < 6:
            index += 1
            found = cam(index, images)
        gradient = kvis2.Saliency(model, normalize=False)(index, images)
    expected, expected_gradient = by_tape(model, cam.layer, index, images)
    errors = off(found, expected), off(gradient, expected_gradient)
    path = kvis2.models.layer_path(model, cam.layer)
    grid = " x ".join(map(str, found.shape[1:]))
    FOUND[package, name] = f"| {package} | `{name}` | `{path}` {grid} | " + " | ".join(
        f"{each:.1e}" for each in errors
    )
    # Batch normalisation is folded for the map; gradients jump at kinks where rounding differs.
    assert errors[0] < 1e-3, errors
    assert errors[1] < 1e-3, errors


@pytest.mark.exhaustive
def test_the_page_holds_what_this_run_found():
    assert FOUND, "Run the whole file: no architecture was looked at."
    rows = "\n".join(f"{row} |" for row in FOUND.values())
    page = f"""# Architectures beside a GradientTape

Grad-CAM at the layer that kvis2 chooses, and the gradient by the input, of published architectures
with random weights: the largest difference to a `tf.GradientTape` over the plain Keras model, as a
share of the largest value. `tests/test_zoo.py` makes this table.

| Package | Architecture | Layer and its grid | Grad-CAM | Gradient |
|---|---|---|---|---|
{rows}
"""
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(page, encoding="utf-8")
    listed = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    assert all(f"`{name}`" in listed for _, name in FOUND)
