"""LibraGrad: gates count as constants. Against a transformer in NumPy, and by completeness."""

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from references import assert_same
from scipy.special import erf
from test_attention import vit

import kvis2
from kvis2 import InputXGradient, LibraGrad, LinearOutput, Saliency
from kvis2.models import Modifier

BALANCED = [LinearOutput(), LibraGrad()]


@pytest.fixture(scope="module")
def model():
    model = vit((8, 8, 2), blocks=2)
    draw = np.random.default_rng(4)
    model.set_weights([draw.normal(0, 0.6, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).normal(size=(2, 8, 8, 2)).astype(np.float32)


def by_hand(model, images, gates=None):
    """The logits of `vit` and all its gates: attention, deviations, the gates of GELU.

    With `gates` these are taken for what they were: the network is then linear.
    """
    taken, found = iter(gates or ()), []

    def gate(value):
        found.append(value)
        return value if gates is None else next(taken)

    def weights(name):
        return [w.astype(np.float64) for w in model.get_layer(name).get_weights()]

    def dense(x, name):
        kernel, bias = weights(name)
        return x @ kernel + bias

    def norm(x, name):
        gamma, beta = weights(name)
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = gate(np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6))
        return gamma * centred / deviation + beta

    def attend(x, name):
        wq, bq, wk, bk, wv, bv, wo, bo = weights(name)
        q, k, v = (
            np.einsum("ntc,chd->nhtd", x, w) + b[:, None] for w, b in ((wq, bq), (wk, bk), (wv, bv))
        )
        scores = np.einsum("nhtd,nhsd->nhts", q, k) / np.sqrt(wq.shape[-1])
        return np.einsum("nhts,nhsd,hdc->ntc", gate(references.softmax(scores)), v, wo) + bo

    kernel, bias = weights("patches")
    side, samples = len(kernel), len(images)
    grid = images.reshape(samples, 8 // side, side, 8 // side, side, 2)
    x = np.einsum("nyixjc,ijcd->nyxd", grid, kernel) + bias
    token, positions = weights("prepended")
    x = np.concatenate([np.repeat(token, samples, 0), x.reshape(samples, 4, -1)], 1) + positions
    for n in range(2):
        x = x + attend(norm(x, f"before_attention{n}"), f"attention{n}")
        wide = dense(norm(x, f"before_mlp{n}"), f"wide{n}")
        x = x + dense(wide * gate(0.5 * (1 + erf(wide / np.sqrt(2)))), f"narrow{n}")
    return dense(norm(x, "last_norm")[:, 0], "head"), found


@pytest.mark.slow
def test_the_gradient_is_that_of_the_network_with_its_gates_held(model, images):
    classes = [2, 0]
    logits, gates = by_hand(model, images.astype(float))
    probabilities = references.softmax(logits)
    np.testing.assert_allclose(model(images).numpy(), probabilities, rtol=1e-4, atol=1e-6)
    expected = np.zeros(images.shape)
    for place in np.ndindex(images.shape[1:]):
        step = np.zeros(images.shape)
        step[(slice(None), *place)] = 1.0  # The network is linear: any step is exact.
        up = by_hand(model, images + step, gates)[0]
        expected[(slice(None), *place)] = (up - logits)[[0, 1], classes]

    found = Saliency(model, model_modifier=BALANCED, keepdims=True, normalize=False)
    assert_same(found(classes, images), expected)
    plain = Saliency(model, keepdims=True, normalize=False)(classes, images)
    assert np.abs(plain - expected).max() > 0.1 * np.abs(expected).max()


@pytest.mark.slow
def test_input_times_gradient_of_a_transformer_adds_up(model, images):
    """Every bias's share and the input's add up to the logit: the paper's axiom."""
    linear = without_biases(model)
    explainer = InputXGradient(linear, model_modifier=BALANCED, normalize=False)
    total = explainer([2, 0], images).sum(axis=(1, 2))
    logits = by_hand(linear, images.astype(float))[0][[0, 1], [2, 0]]
    np.testing.assert_allclose(total, logits, rtol=1e-4)
    plain = InputXGradient(linear, normalize=False)([2, 0], images).sum(axis=(1, 2))
    assert (np.abs(plain - logits) > 0.05 * np.abs(logits)).all()


def without_biases(model):
    """The same weights, all biases, the class token and the positions zero."""
    copied = keras.models.clone_model(model)
    zero = ("bias", "beta", "token", "positions")
    values = [0 * w.numpy() if w.path.split("/")[-1] in zero else w.numpy() for w in model.weights]
    copied.set_weights(values)
    return copied


class GatedHead(keras.layers.Layer):
    """SwiGLU, RMS norm by division, a squeeze and excitation, written with plain operations."""

    def build(self, shape):
        width = shape[-1]
        self.one = self.add_weight(shape=(width, width), name="one")
        self.two = self.add_weight(shape=(width, width), name="two")
        self.gate = self.add_weight(shape=(width, width), name="gate")

    def call(self, x):
        x = x / tf.sqrt(tf.reduce_mean(x * x, axis=-1, keepdims=True) + 1e-6)
        x = tf.nn.silu(x @ self.one) * (x @ self.two)
        return x * tf.sigmoid(tf.reduce_mean(x, axis=1, keepdims=True) @ self.gate)


_MORE = ("silu", "mish", "hard_silu", "relu")


@pytest.mark.parametrize(
    "kind", ["operations", "gelu", *(pytest.param(each, marks=pytest.mark.slow) for each in _MORE)]
)
def test_input_times_gradient_adds_up_without_biases(kind):
    """Completeness needs no equation: every gate must be found, and every product halved."""
    inputs = keras.Input((6, 5))
    x = keras.layers.Dense(4, use_bias=False)(inputs)
    if kind == "operations":
        x = GatedHead()(x)
    elif kind == "gelu":
        x = keras.ops.gelu(x)  # With a tanh.
    else:
        x = keras.layers.Activation(kind)(x)
    x = keras.layers.UnitNormalization()(x) if kind != "relu" else keras.layers.ReLU(6.0)(x)
    x = keras.layers.LayerNormalization(center=False)(x)
    outputs = keras.layers.Dense(3, use_bias=False)(x[:, 1] + keras.ops.mean(x, axis=1))
    model = keras.Model(inputs, outputs)
    draw = np.random.default_rng(2)
    model.set_weights([draw.normal(0, 0.9, w.shape) for w in model.get_weights()])
    tokens = draw.normal(size=(3, 6, 5)).astype(np.float32)
    explainer = InputXGradient(model, model_modifier=LibraGrad(), keepdims=True, normalize=False)
    total = explainer(1, tokens).sum(axis=(1, 2))
    np.testing.assert_allclose(total, model(tokens).numpy()[:, 1], rtol=2e-3, atol=1e-4)
    plain = InputXGradient(model, keepdims=True, normalize=False)(1, tokens).sum(axis=(1, 2))
    assert np.abs(plain - total).max() > 0.05


def test_activations_that_are_no_gates_keep_their_gradient():
    """A tanh, a sigmoid and a softmax in line are not touched; the layer norm is."""
    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, activation="tanh")(inputs)
    x = keras.layers.Dense(4, activation="sigmoid")(x)
    normed = keras.layers.LayerNormalization()(x)
    outputs = keras.layers.Dense(3, activation="softmax")(x), keras.layers.Dense(2)(normed)
    model = keras.Model(inputs, list(outputs))
    values = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    score = [kvis2.CategoricalScore(1), kvis2.InactiveScore()]
    for modifier in (LibraGrad(), Modifier()):
        found = InputXGradient(model, model_modifier=modifier, normalize=False)(score, values)
        with tf.GradientTape() as tape:
            x = tf.constant(values)
            tape.watch(x)
            probability = model(x)[0][:, 1]
        expected = values * tape.gradient(probability, x).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_a_model_without_gates_is_answered_in_a_sentence(small_model, images):
    with pytest.raises(ValueError, match="a model with gates: attention"):
        Saliency(small_model, model_modifier=BALANCED)(1, np.ones((1, 16, 12, 3), np.float32))
