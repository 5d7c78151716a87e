"""Object detectors: the recipe of docs/methods.md, on a small one with three scales."""

import keras
import numpy as np
import pytest
import references
from references import assert_same

import kvis2
from kvis2 import LayerCAM, SegmentationScore

CLASSES = 3
SCALES = {"fine": (8, 12), "middle": (4, 6), "coarse": (2, 3)}


class Detector(keras.Model):
    """Returns boxes and class logits of all cells of three scales; `predict_step` decodes."""

    def predict_step(self, data):
        outputs = self(data, training=False)
        return keras.ops.argmax(outputs["classes"], axis=-1)


def detector():
    inputs = keras.Input((16, 24, 2))
    stem = keras.layers.Conv2D(3, 3, padding="same", activation="relu")(inputs)
    boxes, classes = [], []
    for step, name in zip((2, 4, 8), SCALES, strict=True):
        x = keras.layers.AveragePooling2D(step)(stem)
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name=name)(x)
        head = keras.layers.Conv2D(CLASSES, 1, name=f"{name}_classes")
        classes.append(keras.layers.Reshape((-1, CLASSES))(head(x)))
        boxes.append(keras.layers.Reshape((-1, 4))(keras.layers.Conv2D(4, 1)(x)))
    outputs = {
        "boxes": keras.layers.Concatenate(axis=1)(boxes),
        "classes": keras.layers.Concatenate(axis=1)(classes),
    }
    model = Detector(inputs, outputs)
    draw = np.random.default_rng(2)
    model.set_weights([draw.normal(0, 0.7, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def model():
    return detector()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(8).normal(size=(2, 16, 24, 2)).astype(np.float32)


def of_one_cell(model, images, box, label):
    """LayerCAM in closed form: the cell of the box alone has a gradient, the head's kernel."""
    starts = np.cumsum([0, 8 * 12, 4 * 6])
    scale = int(np.searchsorted(starts, box, side="right")) - 1
    name, (height, width) = list(SCALES.items())[scale]
    box -= starts[scale]
    features = keras.Model(model.input, model.get_layer(name).output)(images).numpy()
    column = model.get_layer(f"{name}_classes").get_weights()[0][0, 0, :, label]
    place = np.unravel_index(box, (height, width))
    small = np.zeros((1, height, width))
    small[0][place] = np.maximum(column, 0) @ features[0][place]
    return references.normalize(references.resize(small, (16, 24)))[0]


def test_layer_cam_of_the_best_box_of_a_class_over_three_scales(model, images):
    decoded = model.predict(images, verbose=0)
    assert decoded.shape == (2, 8 * 12 + 4 * 6 + 2 * 3)  # What `predict_step` makes of it.
    label = 1
    best = model(images)["classes"].numpy()[..., label].argmax(axis=1)

    explainer = LayerCAM(model, layers=list(SCALES), normalize=False)
    maps = explainer({"classes": SegmentationScore(label, "single")}, images)

    expected = [of_one_cell(model, images[n : n + 1], box, label) for n, box in enumerate(best)]
    assert_same(maps, np.array(expected))


@pytest.mark.slow
def test_layer_cam_of_a_box_of_ones_own_for_each_image(model, images):
    boxes, label = [5, 8 * 12 + 3], 2  # One of the fine scale, one of the middle.
    one_box = np.eye(8 * 12 + 4 * 6 + 2 * 3)[boxes]

    explainer = LayerCAM(model, layers=list(SCALES), normalize=False)
    maps = explainer({"classes": SegmentationScore(label, one_box)}, images)

    for n, box in enumerate(boxes):
        expected = of_one_cell(model, images[n : n + 1], box, label)
        assert_same(maps[n], expected)
    by_function = kvis2.GradCAM(model, "fine", normalize=False)
    alone = by_function({"classes": lambda classes: classes[:, 5, label]}, images[:1])
    same = by_function({"classes": SegmentationScore(label, one_box[:1])}, images[:1])
    np.testing.assert_allclose(alone, same, atol=1e-6)
