"""Any small model, any method, any score: the map of the slow reference, or a sentence.

Models are drawn at random: functional, nested or subclassed; one input or two; of one to three
spatial axes; with heads, layouts and precisions that Keras users write. Whatever is drawn, a method
gives what a `GradientTape` over the plain layers gives, or refuses in a sentence that begins with
"Expected"; every other outcome fails.
"""

import warnings
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kvis2

L = keras.layers
CONVOLUTIONS = {1: L.Conv1D, 2: L.Conv2D, 3: L.Conv3D}
POOLS = {1: L.GlobalAveragePooling1D, 2: L.GlobalAveragePooling2D, 3: L.GlobalAveragePooling3D}


class Recipe(NamedTuple):
    """What is drawn of a model."""

    rank: int
    style: str
    head: str
    two_inputs: bool
    channels_are_missing: bool
    permuted: bool
    normalized: bool
    half: bool
    seed: int


RECIPES = st.builds(
    Recipe,
    rank=st.integers(1, 3),
    style=st.sampled_from(["functional", "nested", "subclassed", "arguments"]),
    head=st.sampled_from(["softmax", "softmax layer", "logits", "sigmoid", "binary logits", "mse"]),
    two_inputs=st.booleans(),
    channels_are_missing=st.booleans(),
    permuted=st.booleans(),
    normalized=st.booleans(),
    half=st.booleans(),
    seed=st.integers(0, 3),
)


class Built(NamedTuple):
    """A model with its plain parts, for the reference."""

    model: keras.Model
    data: list[np.ndarray]
    features: callable  # image -> feature maps, channels last
    logits: callable  # feature maps, record -> scores before the final activation
    units: int


def called(model, *data):
    """A subclassed model, built by its first call, of which Keras warns needlessly."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*was called on layer")
        model(*data)
    return model


def build(recipe):
    """The model of a recipe, and the two halves that it is made of."""
    keras.utils.set_random_seed(recipe.seed)
    policy = "mixed_float16" if recipe.half else "float32"
    size = (9, 8, 7)[: recipe.rank]
    missing = recipe.channels_are_missing and recipe.rank == 2
    one = recipe.head in ("sigmoid", "binary logits", "mse")
    units = 1 if one else 3
    kernel = 3
    convolution = CONVOLUTIONS[recipe.rank](
        5, kernel, activation=None if recipe.normalized else "relu", dtype=policy, name="conv"
    )
    norm = L.BatchNormalization(dtype=policy) if recipe.normalized else None
    relu = L.ReLU(dtype=policy) if recipe.normalized else None
    channels = L.Reshape((*size, 1)) if missing else None
    order = (*range(recipe.rank, 0, -1), recipe.rank + 1)
    permute = L.Permute(order, name="permuted") if recipe.permuted else None
    pool = POOLS[recipe.rank](dtype=policy)
    join = L.Concatenate(dtype=policy)
    dense = L.Dense(units, dtype="float32", name="out")
    final = {"softmax": "softmax", "softmax layer": "softmax", "sigmoid": "sigmoid"}
    end = L.Activation(final[recipe.head], dtype="float32") if recipe.head in final else None

    def features(image):
        x = image if channels is None else channels(image)
        x = convolution(x)
        return x if norm is None else relu(norm(x, training=False))

    def logits(maps, record):
        x = maps if permute is None else permute(maps)
        x = pool(x)
        return dense(x if record is None else join([x, record]))

    def whole(image, record=None):
        x = logits(features(image), record)
        return x if end is None else end(x)

    shape = size if missing else (*size, 2)
    inputs = [keras.Input(shape, name="image")]
    if recipe.two_inputs:
        inputs.append(keras.Input((4,), name="record"))
    rng = np.random.default_rng(recipe.seed)
    data = [rng.normal(size=(3, *each.shape[1:])).astype("float32") for each in inputs]
    functional = keras.Model(inputs if len(inputs) > 1 else inputs[0], whole(*inputs))
    model = functional
    if recipe.style == "nested":
        again = [keras.Input(each.shape[1:], name=each.name) for each in inputs]
        given = again if len(again) > 1 else again[0]
        model = keras.Model(given, functional(given))
    elif recipe.style == "arguments" and recipe.two_inputs:

        class TwoArguments(keras.Model):
            def __init__(self):
                super().__init__()
                self.parts = [convolution, norm, relu, channels, permute, pool, join, dense, end]
                self.parts = [each for each in self.parts if each is not None]

            def call(self, image, record, training=False):
                return whole(image, record)

        model = called(TwoArguments(), *data)
    elif recipe.style != "functional":

        class Subclassed(keras.Model):
            def __init__(self):
                super().__init__()
                self.parts = [convolution, norm, relu, channels, permute, pool, join, dense, end]
                self.parts = [each for each in self.parts if each is not None]

            def call(self, inputs, training=False):
                return whole(*inputs) if isinstance(inputs, list | tuple) else whole(inputs)

        model = called(Subclassed(), data if len(data) > 1 else data[0])
    losses = {
        "binary logits": keras.losses.BinaryCrossentropy(from_logits=True),
        "mse": "mse",
        "sigmoid": "binary_crossentropy",
    }
    if recipe.head in losses:
        model.compile("sgd", losses[recipe.head])
    if norm is not None:
        norm.gamma.assign(rng.uniform(0.5, 2, 5))
        norm.moving_mean.assign(rng.normal(size=5))
        norm.moving_variance.assign(rng.uniform(0.5, 2, 5))
    return Built(model, data, features, logits, units)


def reference(recipe, built, method, index):
    """Grad-CAM, LayerCAM or the gradient, with a tape over the plain layers."""
    image = tf.constant(built.data[0])
    record = tf.constant(built.data[1]) if recipe.two_inputs else None
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(image)
        maps = built.features(image)
        tape.watch(maps)
        out = tf.cast(built.logits(maps, record), tf.float32)
        if built.units == 1:
            score = out[:, 0] if index == 1 or recipe.head == "mse" else -out[:, 0]
        else:
            score = out[:, index]
        total = tf.reduce_sum(score) * 64.0
    if method == "Saliency":
        gradient = np.abs(tf.cast(tape.gradient(total, image), tf.float32).numpy())
        return gradient.max(axis=-1) if gradient.ndim == recipe.rank + 2 else gradient
    gradients = np.asarray(tf.cast(tape.gradient(total, maps), tf.float32))
    activations = np.asarray(tf.cast(maps, tf.float32))
    space = tuple(range(1, recipe.rank + 1))
    if method == "GradCAM":
        weights = gradients.mean(axis=space, keepdims=True)
    else:
        weights = np.maximum(gradients, 0)
    return np.maximum((weights * activations).sum(axis=-1), 0)


def scaled(maps):
    peak = np.abs(maps).reshape(len(maps), -1).max(axis=1)
    return maps / np.where(peak > 0, peak, 1).reshape(-1, *[1] * (maps.ndim - 1))


@pytest.mark.parametrize(
    "examples", [12, pytest.param(120, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_map_is_right_or_refused_with_a_sentence(examples):
    outcomes = {"right": 0, "refused": 0}

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(RECIPES, st.sampled_from(["GradCAM", "LayerCAM", "Saliency"]), st.integers(0, 2))
    def check(recipe, method, index):
        keras.utils.clear_session(free_memory=False)
        built = build(recipe)
        options = {"normalize": False} if method == "Saliency" else {"resize": False}
        given = built.data if len(built.data) > 1 else built.data[0]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", ".*found no evidence")
            try:
                maps = getattr(kvis2, method)(built.model, **options)(index, given)
            except (ValueError, TypeError) as error:
                said = str(error)
                maps = None
        if maps is None:
            assert said.startswith("Expected"), f"{recipe}: {said}"
            assert index >= max(2 if recipe.head != "mse" else 1, built.units), recipe
            outcomes["refused"] += 1
            return
        maps = maps[0] if isinstance(maps, list) else maps
        expected = reference(recipe, built, method, index)
        tolerance = 0.03 if recipe.half else 1e-4
        np.testing.assert_allclose(
            scaled(maps), scaled(expected), atol=tolerance, err_msg=str((recipe, method, index))
        )
        outcomes["right"] += 1

    check()
    assert outcomes["right"] > examples // 3
    assert outcomes["refused"] > 0
