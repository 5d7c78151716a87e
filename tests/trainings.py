"""Small models to train with a logger, and what a training leaves in its event files."""

import io
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

SHAPE = (12, 10, 3)
X = np.random.default_rng(0).random((24, *SHAPE)).astype(np.float32)
Y = np.arange(24) % 3


def stack(*, built=True, noise=False):
    inputs = [keras.Input(SHAPE)] if built else []
    randomness = [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomTranslation(0.1, 0.1),
        keras.layers.GaussianNoise(0.1),
    ]
    return [
        *inputs,
        *(randomness if noise else []),
        keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
        keras.layers.BatchNormalization(),
        *([keras.layers.Dropout(0.3)] if noise else []),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3, activation="softmax"),
    ]


def dense():
    return [keras.Input(SHAPE), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]


def compiled(model, optimizer="sgd", **options):
    model.compile(optimizer, "sparse_categorical_crossentropy", **options)
    return model


def train(model, *callbacks, epochs=3, batch_size=8, **options):
    return model.fit(
        X, Y, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=list(callbacks), **options
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.parts = stack(built=False)

    def call(self, x, training=False):
        for layer in self.parts:
            x = layer(x, training=training) if "norm" in layer.name else layer(x)
        return x


def nested():
    backbone = keras.Sequential(stack()[:3], name="backbone")
    inputs = keras.Input(SHAPE)
    x = keras.layers.GlobalAveragePooling2D()(backbone(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))


def half_precision():
    layers = stack()
    for layer in layers[1:]:
        layer.dtype_policy = "mixed_float16"
    return keras.Sequential(layers)


def summaries(run):
    """Every (step, tag, value) in the event files of a run, in the order of writing.

    But for the records of the Explanations tab, which have tests of their own.
    """
    found = []
    for file in sorted(Path(run).glob("*tfevents*")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            found += [
                (event.step, each.tag, tf.make_ndarray(each.tensor))
                for each in event.summary.value
                if each.metadata.plugin_data.plugin_name != "kvis2"
            ]
    return found


def steps_by_tag(run):
    by_tag = {}
    for step, tag, _ in summaries(run):
        by_tag.setdefault(tag, []).append(step)
    return by_tag


def picture(value):
    return np.asarray(Image.open(io.BytesIO(value[2])))
