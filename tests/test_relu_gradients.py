"""GuidedReLU and DeconvReLU: the gradients of the papers, at every ReLU, however it is written."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tiny_net import TinyNet, convolve_backward

from kvis2 import DeconvReLU, GuidedReLU, LinearOutput, Saliency
from kvis2.inspection import describe
from kvis2.passes import Probe
from kvis2.scores import FunctionScore


def gradient(model, images, modifier):
    """The signed gradient of the first unit to the input."""
    modifiers = [LinearOutput(), modifier] if modifier else LinearOutput()
    return Saliency(model, model_modifier=modifiers, keepdims=True, normalize=False)(
        lambda output: output[:, 0], images
    )


# Dense 2 -> 2 with kernel [[-1, 1], [-1, 1]], ReLU, Dense 2 -> 1 with kernel [-1, 1], no biases:
# the hidden units are -s and s with s = x1 + x2, so the output is -max(-s, 0) + max(s, 0) = s.
KERNELS = [np.array([[-1.0, 1.0], [-1.0, 1.0]]), np.array([[-1.0], [1.0]])]
POINTS = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [-1, 0], [0, -1], [-1, -1]], "float32")
GOLDEN = {
    # At s > 0 only the second unit is on, at s < 0 only the first, which gets upstream -1.
    None: [0, 1, 1, 1, 1, 1, 1],
    GuidedReLU: [0, 1, 1, 1, 0, 0, 0],
    # Upstream max(-1, 0) = 0 for the first unit and 1 for the second, on or off.
    DeconvReLU: [1, 1, 1, 1, 1, 1, 1],
}


class TensorFlowReLU(layers.Layer):
    def call(self, x):
        return tf.nn.relu(x)


WRITINGS = {
    "fused": lambda: ([layers.Dense(2, activation="relu", use_bias=False)]),
    "fused tf.nn.relu": lambda: ([layers.Dense(2, activation=tf.nn.relu, use_bias=False)]),
    "Activation layer": lambda: ([layers.Dense(2, use_bias=False), layers.Activation("relu")]),
    "ReLU layer": lambda: ([layers.Dense(2, use_bias=False), layers.ReLU()]),
    "ReLU layer with a maximum of 6": lambda: (
        [layers.Dense(2, use_bias=False), layers.ReLU(max_value=6)]
    ),
    "custom layer": lambda: ([layers.Dense(2, use_bias=False), TensorFlowReLU()]),
    "nested": lambda: [
        keras.Sequential(
            [
                keras.Input((2,)),
                keras.Sequential(
                    [keras.Input((2,)), layers.Dense(2, activation="relu", use_bias=False)]
                ),
            ]
        )
    ],
}


def two_neurons(writing):
    x = inputs = keras.Input((2,))
    if writing == "keras.ops.relu":
        x = keras.ops.relu(layers.Dense(2, use_bias=False)(x))
    else:
        for layer in WRITINGS[writing]():
            x = layer(x)
    model = keras.Model(inputs, layers.Dense(1, use_bias=False)(x))
    model.set_weights(KERNELS)
    return model


@pytest.mark.filterwarnings("ignore:Saliency found no evidence")  # Some gradients are zero.
@pytest.mark.parametrize("modifier", GOLDEN, ids=lambda each: each.__name__ if each else "plain")
@pytest.mark.parametrize("writing", [*WRITINGS, "keras.ops.relu"])
def test_two_neurons(writing, modifier):
    found = gradient(two_neurons(writing), POINTS, modifier and modifier())
    np.testing.assert_array_equal(found, np.repeat(np.array(GOLDEN[modifier])[:, None], 2, 1))


@pytest.mark.parametrize("modifier", [GuidedReLU, DeconvReLU])
def test_convolutions(modifier):
    """Against the backward pass of the tiny net, by hand."""
    net = TinyNet.random(5)
    images = np.random.default_rng(5).normal(size=(2, 7, 9, 2)).astype("float32")
    values, plain = net.forward(images), net.gradients(images, [0, 0])
    gates = {GuidedReLU: lambda pre: pre > 0, DeconvReLU: lambda pre: True}
    pre2 = np.maximum(plain.conv2, 0) * gates[modifier](values.pre2)
    pre1 = np.maximum(convolve_backward(pre2, net.kernel2), 0) * gates[modifier](values.pre1)
    expected = convolve_backward(pre1, net.kernel1)
    found = gradient(net.as_keras(7, 9), images, modifier())
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_leaky_relu_on_request():
    """`grad = max(upstream, 0)` times the slope, which is 0.1 where the unit is negative."""
    inputs = keras.Input((2,))
    x = layers.LeakyReLU(negative_slope=0.1)(layers.Dense(2, use_bias=False)(inputs))
    model = keras.Model(inputs, layers.Dense(1, use_bias=False)(x))
    model.set_weights(KERNELS)
    found = gradient(model, POINTS[[1, 4]], GuidedReLU(("leaky_relu",)))
    np.testing.assert_allclose(found[:, 0], [1.0, 0.1], rtol=1e-6)
    with pytest.raises(ValueError, match=r"at least one relu or relu6.*1 leaky_relu"):
        gradient(model, POINTS, GuidedReLU())


@pytest.mark.parametrize("modifier", [GuidedReLU(), DeconvReLU()])
def test_forward_values_do_not_change(modifier):
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU(max_value=6)(layers.Conv2D(4, 3)(inputs))
    x = layers.Conv2D(4, 3, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    images = 20 * np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")

    @tf.function(autograph=False)
    def outputs():
        probe = Probe(model, modifiers=[modifier])
        return probe(FunctionScore(lambda output: output[:, 0]), [tf.constant(images)]).outputs[0]

    np.testing.assert_allclose(outputs(), model.predict(images, verbose=0), rtol=1e-5, atol=1e-5)


def test_what_was_not_replaced_is_named_with_counts():
    inputs = keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 1, activation="relu")(inputs)
    x = layers.Conv2D(2, 1, activation="elu")(layers.Conv2D(2, 1, activation="elu")(x))
    x = layers.Conv2D(2, 1, activation="swish")(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    images = np.ones((1, 4, 4, 1))
    message = "replaced the gradient of 1 relu and left 2 elu, 1 swish as they are"
    with pytest.warns(UserWarning, match=message):
        gradient(model, images, GuidedReLU())


def test_model_without_relu_is_an_error_that_says_so():
    inputs = keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 1, activation="gelu")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match=r"at least one relu.*1 gelu.*would change nothing"):
        gradient(model, np.ones((1, 4, 4, 1)), GuidedReLU())


def test_the_gate_of_a_hard_swish_is_no_relu():
    inputs = keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 1, activation="hard_silu")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match="at least one relu"):
        gradient(model, np.ones((1, 4, 4, 1)), GuidedReLU())


@pytest.mark.parametrize("activations", [(), ("elu",), ("relu", "gelu")])
def test_activations_that_cannot_be_changed(activations):
    with pytest.raises(ValueError, match="Expected `activations` to be some of"):
        GuidedReLU(activations)


APPLICATIONS = {
    # What is replaced; what is left, which is warned of; None: there is nothing to replace.
    "VGG16": ({"relu": 15}, {}),  # 13 convolutions and 2 dense layers, fused.
    "ResNet50V2": ({"relu": 49}, {}),  # Activation layers: 3 for each of 16 blocks, and the last.
    "MobileNetV2": ({"relu6": 35}, {}),
    "MobileNetV3Small": ({"relu": 14}, {"hard_sigmoid": 28}),
    "EfficientNetB0": (None, {"swish": 49}),
    "ConvNeXtTiny": (None, {"gelu": 18}),
}


@pytest.mark.slow
@pytest.mark.parametrize("nested", [False, True], ids=["itself", "as a backbone"])
@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications(name, nested):
    replaced, left = APPLICATIONS[name]
    images = np.random.default_rng(0).random((1, 64, 64, 3), dtype="float32")
    model = getattr(keras.applications, name)(
        weights=None,
        input_shape=(64, 64, 3),
        include_top=not nested,
        **({} if nested else {"classes": 5}),
    )
    if nested:
        inputs = keras.Input((64, 64, 3))
        x = layers.GlobalAveragePooling2D()(model(inputs))
        model = keras.Model(inputs, layers.Dense(5, activation="softmax")(x))
        replaced = {"relu": 13} if name == "VGG16" else replaced
        # The head that is left out has one more.
        left = {"hard_sigmoid": 27} if name == "MobileNetV3Small" else left
    found = describe(model).activations
    if replaced is None:
        assert found == left
        with pytest.raises(ValueError, match="at least one relu or relu6"):
            gradient(model, images, GuidedReLU())
        return
    assert found == replaced | left
    for activation, count in left.items():
        with pytest.warns(UserWarning, match=f"left {count} {activation} as they are"):
            guided = gradient(model, images, GuidedReLU())
    if not left:
        guided = gradient(model, images, GuidedReLU())
    plain = gradient(model, images, None)
    assert np.isfinite(guided).all()
    assert np.abs(guided - plain).max() > 0
