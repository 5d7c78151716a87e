"""Small random functional graphs x explainers, against a slow, uncompiled reference.

A graph is drawn as a plan: blocks of layers with branches, strides, nested models and activations.
The plan is built twice: once for kvis2, with every softmax and nesting in it, and once flat and
without the final softmax. The reference runs the flat twin layer by layer under an eager
GradientTape and follows the papers' formulas in NumPy (`references`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

import kvis2

SIZE = (10, 8)
IMAGES = np.random.default_rng(9).random((3, *SIZE, 2), dtype="float32")
CLASSES = [0, 2, 1]


class Block(NamedTuple):
    """One step of a graph, and whether it is put into a model of its own."""

    kind: str
    activation: str
    stride: int
    nested: bool


class Plan(NamedTuple):
    """A random graph."""

    blocks: tuple[Block, ...]
    pooling: str
    end: str
    seed: int


BLOCKS = st.builds(
    Block,
    kind=st.sampled_from(["conv", "depthwise", "branch", "residual", "norm", "pool"]),
    activation=st.sampled_from(["relu", "elu", "swish", "linear", "relu6"]),
    stride=st.sampled_from([1, 1, 2]),
    nested=st.booleans(),
)
PLANS = st.builds(
    Plan,
    blocks=st.lists(BLOCKS, min_size=1, max_size=4).map(tuple),
    pooling=st.sampled_from(["average", "max", "flatten"]),
    end=st.sampled_from(["fused", "layer", "operation", "none", "nested"]),
    seed=st.integers(0, 99),
)


def convolution(block: Block, stride: int = 1) -> Any:
    return layers.Conv2D(3, 3, strides=stride, padding="same", activation=block.activation)


def steps(block: Block) -> Callable[[Any], Any]:
    """The function of symbolic tensors that a block stands for."""

    def apply(x: Any) -> Any:
        if block.kind == "conv":
            return convolution(block, block.stride)(x)
        if block.kind == "depthwise":
            return layers.DepthwiseConv2D(3, padding="same", activation=block.activation)(x)
        if block.kind == "branch":
            return layers.Concatenate()([convolution(block)(x), convolution(block)(x)])
        if block.kind == "residual":
            return layers.Add()([x, layers.Conv2D(x.shape[-1], 1, activation=block.activation)(x)])
        if block.kind == "norm":
            return keras.ops.relu(layers.BatchNormalization()(x))
        return layers.MaxPooling2D(2, strides=block.stride, padding="same")(x)

    return apply


def built(plan: Plan, flat: bool) -> keras.Model:
    """The model of a plan; flat: without nested models and without the softmax."""
    x = inputs = keras.Input((*SIZE, 2))
    for block in plan.blocks:
        if block.nested and not flat:
            inner = keras.Input(x.shape[1:])
            x = keras.Model(inner, steps(block)(inner))(x)
        else:
            x = steps(block)(x)
    pooling = {
        "average": layers.GlobalAveragePooling2D,
        "max": layers.GlobalMaxPooling2D,
        "flatten": layers.Flatten,
    }
    x = pooling[plan.pooling]()(x)
    end = "none" if flat else plan.end
    dense = layers.Dense(3, activation="softmax" if end == "fused" else None)
    if end == "nested":
        inner = keras.Input(x.shape[1:])
        head = keras.Model(inner, layers.Softmax()(dense(inner)))
        return keras.Model(inputs, head(x))
    x = dense(x)
    if end == "layer":
        x = layers.Activation("softmax")(x)
    if end == "operation":
        x = keras.ops.softmax(x)
    return keras.Model(inputs, x)


def pair(plan: Plan) -> tuple[keras.Model, keras.Model]:
    """The model and its flat twin, with the same random weights."""
    model, twin = built(plan, flat=False), built(plan, flat=True)
    draw = np.random.default_rng(plan.seed)
    weights = [
        draw.uniform(0.5, 1.5, w.shape) if "variance" in w.path else draw.normal(0, 0.5, w.shape)
        for w in twin.weights
    ]
    for each in (model, twin):
        each.set_weights(weights)
    return model, twin


def reference(twin: keras.Model) -> tuple[Any, Any, Any, Any]:
    """Activations of the last spatial map, gradients to them, the input, and gradients to it.

    One eager pass, layer by layer, in float64 afterwards.
    """
    images = tf.constant(IMAGES)
    values: dict[int, Any] = {id(twin.inputs[0]): images}
    last = None
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(images)
        for operation in twin.operations:
            if isinstance(operation, layers.InputLayer):
                continue
            sources = keras.tree.map_structure(lambda t: values[id(t)], operation.input)
            options = (
                {"training": False} if isinstance(operation, layers.BatchNormalization) else {}
            )
            result = operation(sources, **options)
            values[id(operation.output)] = result
            if len(result.shape) == 4 and min(result.shape[1:3]) > 1:
                last = result
        score = tf.reduce_sum(tf.gather(result, CLASSES, axis=1, batch_dims=1))
    gradients, of_inputs = tape.gradient(score, [last, images])
    found = last, gradients, images, of_inputs
    return tuple(each.numpy().astype(np.float64) for each in found)


# What each explainer must yield for one eager pass over the flat twin.
METHODS = {
    "GradCAM": lambda a, g, images, of_images: references.grad_cam(a, g),
    "GradCAMPlusPlus": lambda a, g, images, of_images: references.grad_cam_plus_plus(a, g),
    "LayerCAM": lambda a, g, images, of_images: references.layer_cam(a, g),
    "XGradCAM": lambda a, g, images, of_images: references.x_grad_cam(a, g),
    "HiResCAM": lambda a, g, images, of_images: references.hires_cam(a, g),
    "Saliency": lambda a, g, images, of_images: references.saliency(of_images),
    "InputXGradient": lambda a, g, images, of_images: references.input_times_gradient(
        images, of_images
    ),
}


@pytest.mark.filterwarnings("ignore:.* found no evidence")  # Of a random net that is no wonder.
@settings(
    max_examples=12,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=PLANS, method=st.sampled_from(list(METHODS)))
def test_random_graph(plan, method):
    model, twin = pair(plan)
    expected = METHODS[method](*reference(twin))
    found = getattr(kvis2, method)(model, normalize=False, resize=False)(CLASSES, IMAGES)
    scale = max(np.abs(expected).max(), 1e-3)
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-4)
