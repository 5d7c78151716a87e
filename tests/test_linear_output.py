"""LinearOutput: the gradient of the explained score is that of the logit, wherever the softmax is.

The logits' gradient is computed by hand, layer by layer in NumPy, for conv -> ReLU -> mean ->
dense; no automatic differentiation and no kvis2 is used for the expected value.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sampled import rest_slow
from tiny_net import TinyNet

from kvis2 import LinearOutput, Saliency
from kvis2.models import final_activation

NET = TinyNet.random(7)
CLASSES = [0, 2, 1]
IMAGES = np.random.default_rng(7).normal(size=(3, 7, 9, 2)).astype("float32")


def body(x):
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = layers.Conv2D(5, 3, activation="relu")(x)
    return layers.GlobalAveragePooling2D()(x)


def functional(end):
    inputs = keras.Input((7, 9, 2))
    return keras.Model(inputs, end(body(inputs)))


def fused():
    return functional(layers.Dense(3, activation="softmax"))


def fused_tensorflow_function():
    return functional(layers.Dense(3, activation=tf.nn.softmax))


def activation_layer():
    return functional(lambda x: layers.Activation("softmax")(layers.Dense(3)(x)))


def softmax_layer():
    return functional(lambda x: layers.Softmax()(layers.Dense(3)(x)))


def operation():
    return functional(lambda x: keras.ops.softmax(layers.Dense(3)(x)))


def log_softmax():
    return functional(lambda x: keras.ops.log_softmax(layers.Dense(3)(x)))


def nested_head():
    x = keras.Input((5,))
    top = keras.Model(x, layers.Dense(3, activation="softmax")(x), name="top")
    return functional(keras.Sequential([keras.Input((5,)), top]))


def whole_model_nested():
    inputs = keras.Input((7, 9, 2))
    return keras.Model(inputs, fused()(inputs))


def sequential():
    stack = [layers.Conv2D(4, 3, activation="relu"), layers.Conv2D(5, 3, activation="relu")]
    stack += [layers.GlobalAveragePooling2D(), layers.Dense(3), layers.Softmax()]
    return keras.Sequential([keras.Input((7, 9, 2)), *stack])


class Inside(keras.Model):
    def __init__(self):
        super().__init__()
        self.stack = [
            layers.Conv2D(4, 3, activation="relu"),
            layers.Conv2D(5, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return tf.nn.softmax(x)


def subclassed():
    model = Inside()
    model(IMAGES)
    return model


def subclassed_traced():
    class Traced(Inside):
        @tf.function
        def call(self, x):
            return super().call(x)

    model = Traced()
    model(IMAGES)
    return model


def then_reshape():
    end = layers.Reshape((3,))
    return functional(lambda x: end(keras.ops.reshape(fused_head(x), (-1, 3, 1))))


def fused_head(x):
    return layers.Dense(3, activation="softmax")(x)


def then_identity():
    return functional(lambda x: layers.Activation("linear")(layers.Identity()(fused_head(x))))


def then_dropout():
    return functional(lambda x: layers.Dropout(0.5)(fused_head(x)))


def then_cast():
    return functional(lambda x: keras.ops.cast(fused_head(x), "float64"))


def sigmoid():
    return functional(layers.Dense(3, activation="sigmoid"))


def sigmoid_layer():
    return functional(lambda x: layers.Activation("sigmoid")(layers.Dense(3)(x)))


def no_activation():
    return functional(layers.Dense(3))


def float16():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return functional(lambda x: layers.Softmax(dtype="float32")(layers.Dense(3)(x)))
    finally:
        keras.config.set_dtype_policy("float32")


def float16_throughout():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return fused()
    finally:
        keras.config.set_dtype_policy("float32")


PLACES = [
    fused,
    fused_tensorflow_function,
    activation_layer,
    softmax_layer,
    operation,
    log_softmax,
    nested_head,
    whole_model_nested,
    sequential,
    subclassed,
    subclassed_traced,
    then_reshape,
    then_identity,
    then_dropout,
    then_cast,
    sigmoid,
    sigmoid_layer,
    no_activation,
    float16,
    float16_throughout,
]


SURE = 40  # So sure that the softmax has no gradient left: p = 1.0 in float32.
CELLS = [(place, SURE) for place in PLACES] + [(place, 1) for place in PLACES[:3]]


@pytest.mark.parametrize(
    ("place", "scale"), rest_slow(CELLS, 8), ids=lambda each: getattr(each, "__name__", "")
)
def test_gradient_is_that_of_the_logit(place, scale):
    net = NET._replace(dense=NET.dense * scale)
    model = place()
    model.set_weights(list(net))
    explainer = Saliency(model, keepdims=True, normalize=False)
    found = explainer(CLASSES, IMAGES).astype("float64")
    expected = net.gradients(IMAGES, CLASSES).images
    cosine = (found * expected).sum() / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.9999
    tolerance = 0.01 if "16" in place.__name__ else 1e-4
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(expected), rel=tolerance)


def test_none_explains_the_probability():
    """d softmax_c = p_c (d z_c - sum_k p_k d z_k)."""
    model = fused()
    model.set_weights(list(NET))
    found = Saliency(model, model_modifier=None, keepdims=True, normalize=False)(0, IMAGES)
    logits = np.stack([NET.gradients(IMAGES, [k] * 3).images for k in range(3)])
    p = NET.probabilities(IMAGES).T[:, :, None, None, None]
    np.testing.assert_allclose(found, p[0] * (logits[0] - (p * logits).sum(0)), atol=1e-5)


@pytest.mark.parametrize("axis", [1, 2, -1])
def test_softmax_over_any_axis_of_a_map(axis):
    """A softmax over another axis is computed on transposed logits; they come back in place."""
    x = keras.Input((4, 5, 3))
    logits = layers.Conv2D(3, 1, name="logits")(x)
    model = keras.Model(x, layers.Softmax(axis=axis)(logits))
    both = keras.Model(x, logits)
    images = np.random.default_rng(0).random((2, 4, 5, 3), dtype="float32")

    @tf.function(autograph=False)
    def explained():
        return final_activation(model(images))[1]

    np.testing.assert_allclose(explained(), both(images), atol=1e-6)


@pytest.mark.parametrize(
    ("end", "steps"),
    [
        (lambda p: p * 2.0, "Mul"),
        (lambda p: keras.ops.log(p), "Log"),
        (lambda p: keras.ops.clip(p, 1e-7, 1.0), "Minimum|Maximum|ClipByValue"),
    ],
    ids=["scaled", "log", "clipped"],
)
def test_softmax_that_is_not_the_last_step_is_named(end, steps):
    model = functional(lambda x: end(fused_head(x)))
    with pytest.warns(UserWarning, match=f"a softmax followed by .*({steps}).*as it is"):
        Saliency(model)(1, IMAGES)


def test_softmax_in_the_middle_is_not_the_output():
    """Attention weights are a softmax too, and none of LinearOutput's business."""
    model = functional(lambda x: layers.Dense(3)(fused_head(x)))
    found = Saliency(model, keepdims=True, normalize=False)(1, IMAGES)
    plain = Saliency(model, keepdims=True, normalize=False, model_modifier=None)(1, IMAGES)
    np.testing.assert_array_equal(found, plain)


def test_softmax_in_a_function_of_its_own_is_named():
    @tf.function
    def probabilities(x):
        return tf.nn.softmax(x)

    model = functional(lambda x: layers.Lambda(probabilities)(layers.Dense(3)(x)))
    with pytest.warns(UserWarning, match="a tf.function"):
        Saliency(model)(1, IMAGES)


def test_one_sigmoid_unit_is_two_classes():
    """Class 1 is the logit, class 0 minus the logit, and the predicted class the likelier one."""
    model = functional(layers.Dense(1, activation="sigmoid"))
    saliency = Saliency(model, keepdims=True, normalize=False)
    yes, no = saliency(1, IMAGES), saliency(0, IMAGES)
    np.testing.assert_allclose(no, -yes, atol=1e-7)
    probabilities = model.predict(IMAGES, verbose=0)[:, 0]
    predicted = np.where(probabilities[:, None, None, None] > 0.5, yes, no)
    np.testing.assert_allclose(saliency(None, IMAGES), predicted, atol=1e-7)


def test_several_outputs_are_all_made_linear():
    inputs = keras.Input((7, 9, 2))
    x = body(inputs)
    ends = [fused_head(x), layers.Dense(2, activation="sigmoid")(x)]
    twin_x = [layers.Dense(3)(x), layers.Dense(2)(x)]
    model, twin = keras.Model(inputs, ends), keras.Model(inputs, twin_x)
    twin.set_weights(model.get_weights())
    found = Saliency(model, normalize=False)([1, 0], IMAGES)
    np.testing.assert_allclose(found, Saliency(twin, normalize=False)([1, 0], IMAGES), atol=1e-6)


def test_linear_output_leaves_the_model_as_it_is():
    model = fused()
    before = model.predict(IMAGES, verbose=0)
    Saliency(model, model_modifier=LinearOutput())(1, IMAGES)
    np.testing.assert_array_equal(model.predict(IMAGES, verbose=0), before)
    assert model.layers[-1].activation is keras.activations.softmax
