"""Gradients in forward operations: each against TensorFlow's, and none of its operations left."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvis2 import GradCAM, LayerCAM, LinearOutput, PortableGradients, Saliency

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*found no evidence"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras
]
L = keras.layers
DRAW = np.random.default_rng(0)


def weights(*shape):
    return tf.constant(DRAW.normal(size=shape), tf.float32)


def both(compute, x):
    """The gradient of a weighted sum of `compute(x)`: TensorFlow's, the portable, its operations.

    The batch is open, as in a file.
    """
    x = np.float32(x)
    found, names = [], PortableGradients().gradients()
    for replaced in ({}, names):

        @tf.function(input_signature=[tf.TensorSpec([None, *x.shape[1:]])], autograph=False)
        def gradient(x, replaced=replaced):
            with tf.compat.v1.get_default_graph().gradient_override_map(replaced):
                y = compute(x)
            upstream = tf.cos(tf.range(tf.cast(tf.size(y), tf.float32)))
            return tf.gradients(y, x, grad_ys=tf.reshape(upstream, tf.shape(y)))[0]

        concrete = gradient.get_concrete_function()
        found.append(concrete(tf.constant(x)).numpy())
    kinds = {each.type for each in concrete.graph.get_operations()}
    return found[0], found[1], kinds


def check(compute, x, atol=1e-5, transposed=False):
    expected, found, kinds = both(compute, x)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, atol=atol * np.abs(expected).max())
    marks = ("Grad", "BackpropInput", "BroadcastGradientArgs", "DynamicStitch", "InvertPermutation")
    # The backward operation of a convolution is the forward one of a transposed convolution.
    left = {each for each in kinds if any(mark in each for mark in marks)} - {"StopGradient"}
    assert left - ({"Conv2DBackpropInput"} if transposed else set()) == set()


ACTIVATIONS = [
    *("relu", "relu6", "leaky_relu", "elu", "selu", "softplus", "softsign", "sigmoid", "tanh"),
    *("softmax", "log_softmax", "silu", "hard_silu", "hard_sigmoid", "mish", "exponential"),
]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    x = DRAW.normal(0, 4, (3, 5, 6)).astype(np.float32)
    x[0, 0, :3] = 0  # Where a ReLU bends.
    check(keras.activations.get(name), x)


CONVOLUTIONS = [
    {"strides": 1, "padding": "SAME"},
    {"strides": 2, "padding": "SAME"},
    {"strides": 2, "padding": "VALID"},
    {"strides": [2, 3], "padding": "SAME"},
    {"strides": 3, "padding": "VALID"},
    {"strides": 1, "padding": "SAME", "dilations": 2},
    {"strides": 1, "padding": "VALID", "dilations": [2, 3]},
    {"strides": 2, "padding": [[0, 0], [2, 1], [0, 3], [0, 0]]},
]


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("sizes", [(3, 3), (2, 5), (1, 1)])
def test_convolutions(options, sizes):
    kernel = weights(*sizes, 4, 6)
    check(lambda x: tf.nn.conv2d(x, kernel, **options), DRAW.normal(size=(2, 11, 14, 4)))


@pytest.mark.parametrize("strides", [1, 2])
def test_grouped_convolutions(strides):
    kernel = weights(3, 3, 2, 9)
    x = DRAW.normal(size=(2, 8, 9, 6)).astype(np.float32)

    def compute(x):
        return tf.nn.conv2d(x, kernel, strides, "SAME")

    check(compute, x)


@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("options", [(1, "SAME"), (2, "SAME"), (2, "VALID"), (3, "SAME")])
def test_depthwise_convolutions(multiplier, options):
    stride, padding = options
    kernel = weights(3, 4, 5, multiplier)
    check(
        lambda x: tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], padding),
        DRAW.normal(size=(2, 9, 10, 5)),
    )


@pytest.mark.parametrize(
    "layer",
    [
        L.Conv2DTranspose(3, 3, strides=2, padding="same"),
        L.Conv2DTranspose(3, 3, strides=2, padding="valid"),
        L.Conv1D(3, 3, strides=2, padding="same"),
        L.Conv1D(3, 3, dilation_rate=2, padding="causal"),
        L.DepthwiseConv2D(3, dilation_rate=2),
        L.SeparableConv2D(3, 3, strides=2),
        L.Conv3D(3, 3, strides=2, padding="same"),
        L.UpSampling2D(2),
        L.UpSampling2D(2, interpolation="bilinear"),
        L.ZeroPadding2D(((1, 2), (0, 3))),
        L.Cropping2D(((1, 2), (0, 3))),
        L.GlobalAveragePooling2D(),
        L.GlobalMaxPooling2D(keepdims=True),
        L.BatchNormalization(),
        L.LayerNormalization(),
        L.Dense(3),
        L.Permute((2, 1, 3)),
        L.Reshape((8, 36)),
        L.Flatten(),
        L.AveragePooling1D(3, 2),
        L.PReLU(),
    ],
    ids=lambda layer: layer.name,
)
def test_layers(layer):
    size = {L.Conv1D: (8, 4), L.AveragePooling1D: (8, 4), L.Conv3D: (6, 7, 5, 2)}
    x = DRAW.normal(size=(2, *size.get(type(layer), (8, 9, 4)))).astype(np.float32)
    layer.build(x.shape)
    layer.set_weights([np.abs(DRAW.normal(size=w.shape)) + 0.1 for w in layer.get_weights()])
    check(lambda x: layer(x, training=False), x, transposed=isinstance(layer, L.Conv2DTranspose))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 1), (2, 3), ((2, 3), (1, 2))])
@pytest.mark.parametrize("pool", [tf.nn.max_pool2d, tf.nn.avg_pool2d])
def test_pooling_with_ties(pool, size, stride, padding):
    x = DRAW.integers(0, 3, (2, 9, 10, 3)).astype(np.float32)
    check(lambda x: pool(x, size, stride, padding), x)


def test_maximum_pooling_of_negative_values():
    x = -1.0 - DRAW.random((2, 7, 7, 2)).astype(np.float32)
    check(lambda x: tf.nn.max_pool2d(x, 3, 2, "SAME"), x)


W = weights(4, 4)
OPERATIONS = {
    "sum of two": lambda x: x + x * tf.reduce_mean(x, [1, 2], keepdims=True),
    "channels scaled": lambda x: (x - W[0]) * W[1] / (2.0 + tf.abs(W[2])),
    "quotient": lambda x: x / (3.0 + x[:, :, :1] * x[:, :, :1]),
    "difference": lambda x: W[0] - x - tf.reduce_max(x, -1, keepdims=True),
    "squared difference": lambda x: tf.math.squared_difference(x, tf.reduce_min(x, -1, True)),
    "select": lambda x: tf.where(x > 0.2, x * x, W[1] * x),
    "both roots": lambda x: tf.sqrt(x * x + 1.0) + tf.math.rsqrt(x * x + 1.0),
    "product with itself": lambda x: tf.matmul(x, x, transpose_b=True),
    "transposed products": lambda x: tf.matmul(W, x, transpose_a=True, transpose_b=True),
    "concatenation": lambda x: tf.concat([x, 2.0 * x, tf.square(x)], -1),
    "slices": lambda x: (
        x[:, 1:-1, 2] + tf.reduce_sum(x[:, 3:, :-1], [1, 2], keepdims=False)[:, None]
    ),
    "an ellipsis and axes that are new": lambda x: (
        x[..., 1:3, None] * x[:, :1, None, ..., -1, None]
    ),
    "padding": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1]], constant_values=3.0) ** 2,
    "sums": lambda x: tf.reduce_sum(tf.square(x), [1]) + tf.reduce_max(x, 1),
}


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_operations(name):
    check(OPERATIONS[name], DRAW.normal(size=(3, 6, 4)))


def test_larger_and_smaller_of_two():
    x = DRAW.normal(size=(3, 6, 4))
    check(lambda x: tf.maximum(x, 0.1) + tf.minimum(2.0 * x, W[0]), x)


def test_batch_normalisation_as_one_operation():
    statistics = [tf.abs(weights(4)) + 0.1 for _ in range(4)]

    def compute(x):
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=statistics[0], offset=statistics[1], mean=statistics[2],
            variance=statistics[3], is_training=False,
        )[0]  # fmt: skip

    check(compute, DRAW.normal(size=(2, 5, 6, 4)))


@pytest.mark.parametrize(
    ("compute", "said"),
    [
        (lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT"), "Received: MirrorPad"),
        (lambda x: x[:, ::2], "Received: StridedSlice with steps"),
        (
            lambda x: tf.nn.conv2d(x, tf.reshape(x[0, :1, :1, :] * 1.0, [1, 1, 2, 1]), 1, "SAME"),
            "Received: Conv2D whose weights",
        ),
    ],
)
def test_what_has_no_forward_operations_is_refused_by_its_name(compute, said):
    with pytest.raises(ValueError, match=said) as refusal:
        both(compute, DRAW.normal(size=(2, 6, 6, 2)))
    assert "Export a SavedModel" in str(refusal.value)


def network():
    keras.utils.set_random_seed(2)
    inputs = keras.Input((24, 24, 3))
    x = L.Conv2D(8, 3, strides=2, padding="same", name="first")(inputs)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.MaxPooling2D(3, 2, padding="same", name="pool")(x)
    y = L.DepthwiseConv2D(3, padding="same", activation="silu", name="depthwise")(x)
    x = L.Add()([x, y])
    x = L.Conv2D(10, 1, activation="relu", name="last")(x)
    return keras.Model(inputs, L.Dense(5, activation="softmax")(L.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    ("explainer", "options"),
    [(GradCAM, {}), (GradCAM, {"layer": "first"}), (LayerCAM, {"layer": "pool"}), (Saliency, {})],
)
def test_maps_are_those_of_tensorflows_gradients(explainer, options):
    model = network()
    x = DRAW.random((3, 24, 24, 3)).astype(np.float32)
    portable = explainer(model, model_modifier=[LinearOutput(), PortableGradients()], **options)
    np.testing.assert_allclose(
        portable([1, 0, 3], x), explainer(model, **options)([1, 0, 3], x), atol=2e-5
    )
