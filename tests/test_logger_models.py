"""Loggers of models that people train: logits, regressions, several inputs and outputs, parts."""

import io
import json
import random
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kvis2
from kvis2 import GradCAM, Saliency
from kvis2.callbacks import CamLogger, ExplanationLogger, SaliencyLogger
from kvis2.localization import energy_in_box

L = keras.layers
SHAPE = (16, 12, 3)
X = np.random.default_rng(0).random((16, *SHAPE), dtype="float32")
RECORD = np.random.default_rng(1).random((16, 5), dtype="float32")

pytestmark = pytest.mark.filterwarnings("ignore:.*found no evidence")


def features():
    keras.utils.set_random_seed(3)
    inputs = keras.Input(SHAPE, name="scan")
    x = L.Conv2D(6, 3, activation="relu", name="conv")(inputs)
    return inputs, L.GlobalAveragePooling2D()(x)


def looked(logger):
    return logger._look()[:3]


def test_a_logit_head_is_logged_as_two_classes(tmp_path):
    inputs, x = features()
    model = keras.Model(inputs, L.Dense(1)(x))
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    labels = np.arange(16) % 2
    logger = CamLogger(tmp_path, X[:4], labels[:4], class_names=["cat", "dog"], on_error="raise")
    model.fit(X, labels, epochs=2, verbose=0, callbacks=[logger])
    assert logger.history["step"] == [0, 1]
    np.testing.assert_allclose(logger.predict(), tf.sigmoid(model(X[:4])), rtol=1e-4)
    np.testing.assert_allclose(
        logger.explain(), GradCAM(model)(labels[:4].tolist(), X[:4]), atol=1e-5
    )


@pytest.mark.parametrize("targets", [np.arange(16) + 20, np.linspace(0, 1, 16)])
def test_a_regression_has_no_classes_whatever_its_targets(tmp_path, targets):
    inputs, x = features()
    model = keras.Model(inputs, L.Dense(1)(x))
    model.compile("sgd", "mse")
    with_labels = {"labels": targets[:4]} if targets.dtype.kind == "i" else {}
    logger = CamLogger(tmp_path, X[:4], **with_labels, on_error="raise")
    model.fit(X, targets, epochs=1, verbose=0, callbacks=[logger])
    maps, probabilities, explained = looked(logger)
    assert probabilities is None
    assert explained.labels is None
    np.testing.assert_allclose(maps[0], GradCAM(model)(None, X[:4]), atol=1e-5)


@pytest.mark.parametrize("names", [True, False])
def test_inputs_that_can_be_drawn_get_a_picture_each(tmp_path, names):
    inputs, x = features()
    table = keras.Input((5,), name="record")
    outputs = L.Dense(3, activation="softmax")(L.Concatenate()([x, table]))
    structure = {"scan": inputs, "record": table} if names else [inputs, table]
    model = keras.Model(structure, outputs)
    model.compile("sgd", "sparse_categorical_crossentropy")
    data = {"scan": X, "record": RECORD} if names else [X, RECORD]
    labels = np.arange(16) % 3
    probes = {k: v[:3] for k, v in data.items()} if names else [each[:3] for each in data]
    logger = CamLogger(tmp_path, probes, labels[:3], on_error="raise")
    model.fit(data if names else tuple(data), labels, epochs=2, verbose=0, callbacks=[logger])
    assert logger.history["step"] == [0, 1]
    found = GradCAM(model)(labels[:3].tolist(), probes)
    expected = found["scan"] if names else found[0]
    np.testing.assert_allclose(logger.explain(), expected, atol=1e-5)
    tags = [picture.tag for picture in logger.observe(2).pictures]
    assert tags == ["GradCAM/00 class 0", "GradCAM/01 class 1", "GradCAM/02 class 2"]


def two_outputs(age="mse"):
    inputs, x = features()
    kind = L.Dense(3, activation="softmax", name="kind")(x)
    other = L.Dense(1 if age == "mse" else 4, name="age")(x)
    model = keras.Model(inputs, {"kind": kind, "age": other})
    model.compile("sgd", {"kind": "sparse_categorical_crossentropy", "age": age})
    return model


def test_labels_are_those_of_the_one_output_that_has_classes(tmp_path):
    model, labels = two_outputs(), np.arange(16) % 3
    logger = CamLogger(tmp_path, X[:4], labels[:4], on_error="raise")
    targets = {"kind": labels, "age": labels.astype("float32")}
    model.fit(X, targets, epochs=1, verbose=0, callbacks=[logger])
    maps, probabilities, _ = looked(logger)
    np.testing.assert_allclose(
        maps[0], GradCAM(model)({"kind": labels[:4].tolist()}, X[:4]), atol=1e-5
    )
    np.testing.assert_allclose(probabilities, model(X[:4])["kind"], rtol=1e-4)


def test_labels_of_one_of_several_outputs_with_classes_are_asked_for(tmp_path):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model, labels = two_outputs(loss), np.arange(16) % 3
    with pytest.raises(ValueError, match=r"which output the labels are of.* score=\{'age': label"):
        model.fit(
            X,
            {"kind": labels, "age": labels},
            verbose=0,
            callbacks=[CamLogger(tmp_path, X[:3], labels[:3], on_error="raise")],
        )
    chosen = CamLogger(tmp_path, X[:3], score={"kind": [0, 1, 2]}, on_error="raise")
    model.fit(X, {"kind": labels, "age": labels}, verbose=0, callbacks=[chosen])
    np.testing.assert_allclose(
        chosen.explain(), GradCAM(model)({"kind": [0, 1, 2]}, X[:3]), atol=1e-5
    )


class Generator(keras.Model):
    """Trained by `train_step`, without a call."""

    def __init__(self):
        super().__init__()
        inputs, x = features()
        self.part = keras.Model(inputs, L.Dense(2)(x))

    def train_step(self, data):
        return {"mean": keras.ops.mean(self.part(data))}


def test_an_explainer_of_a_part_needs_no_call_of_the_whole(tmp_path):
    model = Generator()
    model.compile()
    loggers = [
        CamLogger(tmp_path, X[:2], explainer=lambda m: GradCAM(m.part), score=0, on_error="raise"),
        SaliencyLogger(
            tmp_path,
            X[:2],
            explainer=lambda m: Saliency(m.part),
            score=kvis2.RegressionScore(unit=1),
            on_error="raise",
        ),
    ]
    model.fit(X, epochs=2, verbose=0, callbacks=loggers)
    assert all(logger.history["step"] == [0, 1] for logger in loggers)
    np.testing.assert_allclose(loggers[0].explain(), GradCAM(model.part)(0, X[:2]), atol=1e-5)


@pytest.mark.slow
def test_the_batch_size_of_a_logger_reaches_its_explainer(tmp_path):
    inputs, x = features()
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    logger = CamLogger(tmp_path, X[:4], batch_size=2, on_error="raise")
    model.fit(X, np.arange(16) % 3, verbose=0, callbacks=[logger])
    assert logger.explainer.settings.batch_size == 2


@pytest.mark.slow
def test_prediction_and_explanation_are_one_pass(tmp_path):
    keras.utils.set_random_seed(3)
    inputs = keras.Input(SHAPE)
    x = L.Conv2D(6, 3, activation="relu")(inputs)
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(L.GlobalAveragePooling2D()(x)))
    model.compile("sgd", "sparse_categorical_crossentropy")
    logger = ExplanationLogger(tmp_path, X[:4], np.arange(4) % 3, metrics=[], on_error="raise")
    model.fit(X, np.arange(16) % 3, verbose=0, callbacks=[logger])
    traces = kvis2.passes.trace_count(model)
    logger.observe(1)
    assert kvis2.passes.trace_count(model) == traces == 1
    maps, predicted = GradCAM(model).with_predictions([0, 1, 2, 0], X[:4])
    np.testing.assert_allclose(predicted.outputs[0], model(X[:4]), atol=1e-6)
    np.testing.assert_allclose(maps, GradCAM(model)([0, 1, 2, 0], X[:4]), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("draws", [False, True])
def test_the_global_random_generators_are_left_as_they_were(tmp_path, draws):
    inputs, x = features()
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")

    def explainer(model):
        def explain(score, images):
            if draws:
                np.random.rand(3)  # noqa: NPY002 (what a user's own explainer may do)
                random.random()
            return np.ones(images.shape[:3]) * np.linspace(0, 1, images.shape[2])

        return explain

    logger = ExplanationLogger(tmp_path, X[:4], explainer=explainer, tag="own", on_error="raise")
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    expected = np.random.rand(2), random.random()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    random.seed(7)
    model.fit(X, np.arange(16) % 3, shuffle=False, verbose=0, callbacks=[logger])
    np.testing.assert_array_equal(np.random.rand(2), expected[0])  # noqa: NPY002
    assert random.random() == expected[1]


def tab_records(folder):
    """The records of the Explanations tab by tag: lists of (step, blobs)."""
    found = {}
    for file in Path(folder).rglob("*tfevents*"):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for each in event.summary.value:
                if each.metadata.plugin_data.plugin_name == "kvis2":
                    blobs = list(tf.make_ndarray(each.tensor))
                    found.setdefault(each.tag, []).append((event.step, blobs))
    return found


@pytest.mark.slow
def test_the_tab_gets_each_photograph_once_and_the_maps_of_the_layer_at_every_step(tmp_path):
    inputs, x = features()
    model = keras.Model(inputs, L.Dense(3, activation="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    labels = np.arange(4) % 3
    boxes = [[2, 2, 8, 8]] * 4
    logger = CamLogger(tmp_path, X[:4], labels, boxes=boxes, every=1, on_error="raise")
    model.fit(X, np.arange(16) % 3, epochs=3, verbose=0, callbacks=[logger])
    records = tab_records(tmp_path)
    assert [step for step, _ in records["GradCAM/maps"]] == [0, 1, 2]
    ((_, probes),) = records["GradCAM/probes"]
    said = json.loads(probes[0])
    assert [card["label"] for card in said["cards"]] == labels.tolist()
    assert [card["size"] for card in said["cards"]] == [[16, 12]] * 4
    drawn = np.asarray(Image.open(io.BytesIO(probes[1])), np.float32)
    grey = drawn.mean(axis=2).ravel(), X[0].mean(axis=2).ravel()
    assert np.corrcoef(*grey)[0, 1] > 0.8  # Lossy, and of noise.

    _, (header, numbers, quantized) = records["GradCAM/maps"][-1]
    header = json.loads(header)
    assert header["layer"] == "conv"
    raw = GradCAM(model, resize=False, normalize=False)(labels.tolist(), X[:4])
    assert tuple(header["grid"]) == raw.shape[1:] == (14, 10)
    columns = {
        name: np.frombuffer(numbers, f"<{kind}4", 4, offset=16 * place)
        for place, (name, kind) in enumerate(header["columns"])
    }
    cells = np.frombuffer(quantized, np.uint8).reshape(raw.shape).astype(np.float32)
    low, high = columns["low"][:, None, None], columns["high"][:, None, None]
    np.testing.assert_allclose(low + (high - low) * cells / 255, raw, atol=float(raw.max()) / 250)
    np.testing.assert_array_equal(columns["explained"], labels)
    heat = energy_in_box(logger.explain(), boxes)
    np.testing.assert_allclose(columns["heat_in_box"], heat, atol=1e-5)
