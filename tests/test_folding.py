"""Folded batch normalisation is the same function, from live weights, and less work."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sampled import rest_slow

from kvis2 import GradCAM, LinearOutput, Saliency, ScoreCAM
from kvis2.models import FoldBatchNorm
from kvis2.passes import Probe
from kvis2.scores import CategoricalScore

L = keras.layers
LINEAR_LAYERS = {
    "conv": ((9, 8, 3), lambda: L.Conv2D(5, 3, strides=2, padding="same")),
    "dilated": ((9, 8, 3), lambda: L.Conv2D(5, 3, dilation_rate=2, use_bias=False)),
    "grouped": ((9, 8, 4), lambda: L.Conv2D(6, 3, groups=2)),
    "depthwise": ((9, 8, 3), lambda: L.DepthwiseConv2D(3, depth_multiplier=2)),
    "conv1d": ((9, 3), lambda: L.Conv1D(4, 3)),
    "causal": ((9, 3), lambda: L.Conv1D(4, 3, dilation_rate=2, padding="causal")),
    "depthwise1d": ((9, 3), lambda: L.DepthwiseConv1D(3)),
    "conv3d": ((5, 6, 4, 2), lambda: L.Conv3D(3, 2)),
    "dense": ((7,), lambda: L.Dense(5)),
    "dense over space": ((4, 4, 3), lambda: L.Dense(5)),
}


def randomized(model):
    """Give every weight a value of its own, variances positive."""
    numbers = np.random.default_rng(0)
    for weight in model.weights:
        positive = "variance" in weight.name or "gamma" in weight.name
        low = 0.5 if positive else -1.0
        weight.assign(numbers.uniform(low, 1.5, weight.shape))
    return model


def folded_outputs(model, inputs):
    """The model's outputs through a folded pass."""

    @tf.function(autograph=False)
    def run(inputs):
        probe = Probe(model, modifiers=[FoldBatchNorm()])
        forward = probe._forward(CategoricalScore(0), [inputs])
        return forward.outputs[0]

    return run(tf.constant(inputs)).numpy()


@pytest.mark.parametrize("name", LINEAR_LAYERS)
@pytest.mark.parametrize("scale_and_center", rest_slow([True, False]))
def test_folded_equals_unfolded(name, scale_and_center):
    shape, layer = LINEAR_LAYERS[name]
    norm = L.BatchNormalization(scale=scale_and_center, center=scale_and_center)
    model = randomized(keras.Sequential([keras.Input(shape), layer(), norm]))
    inputs = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    expected = model(inputs).numpy()
    np.testing.assert_allclose(folded_outputs(model, inputs), expected, rtol=1e-4, atol=1e-4)


def operations(model, modifiers):
    """The kinds of operations that a pass needs for its outputs."""
    from kvis2.models import ancestors

    @tf.function(autograph=False)
    def run(inputs):
        probe = Probe(model, modifiers=modifiers)
        output = probe._forward(CategoricalScore(0), [inputs]).outputs[0]
        kinds.extend(each.type for each in ancestors(output))
        return output

    kinds: list[str] = []
    run.get_concrete_function(tf.TensorSpec([None, *model.input_shape[1:]]))
    return kinds


def test_normalization_over_the_feature_map_is_gone():
    layers = [keras.Input((8, 8, 3)), L.Conv2D(4, 3, use_bias=False), L.BatchNormalization()]
    model = keras.Sequential([*layers, L.ReLU(), L.GlobalAveragePooling2D()])
    plain, folded = operations(model, []), operations(model, [FoldBatchNorm()])
    assert plain.count("Conv2D") == folded.count("Conv2D") == 1
    assert "BiasAdd" not in plain
    assert folded.count("BiasAdd") == 1


def residual():
    """A net with every way a batch normalisation can stand: after conv, shared, before, alone."""
    inputs = keras.Input((12, 12, 3))
    x = L.Conv2D(6, 3, padding="same", use_bias=False, name="stem")(inputs)
    y = L.ReLU()(L.BatchNormalization()(x))
    y = L.BatchNormalization()(L.Conv2D(6, 3, padding="same", name="inner")(y))
    x = L.ReLU(name="joined")(L.Add()([x, y]))
    x = L.BatchNormalization()(x)
    x = L.Conv2D(6, 3, activation="relu", name="fused")(x)
    x = L.GlobalAveragePooling2D()(L.BatchNormalization(name="last")(x))
    model = randomized(keras.Model(inputs, L.Dense(4, activation="softmax", name="answer")(x)))
    kernel = model.get_layer("answer").kernel
    kernel.assign(kernel * 0.02)  # So that the softmax is not saturated.
    return model


@pytest.mark.parametrize("explainer", rest_slow([GradCAM, ScoreCAM]))
@pytest.mark.parametrize("layer", rest_slow([None, "stem", "inner", "joined", "fused"], 2))
def test_maps_are_the_same_at_every_layer(explainer, layer):
    model = residual()
    inputs = np.random.default_rng(2).normal(size=(3, 12, 12, 3)).astype("float32")
    options = {"layer": layer, "normalize": "image"}

    def explain(fold):
        return explainer(model, fold_batch_norm=fold, **options)(lambda o: o[:, 1], inputs)

    np.testing.assert_allclose(explain(None), explain(False), atol=1e-4)


def test_input_gradients_opt_in():
    model = residual()
    inputs = np.random.default_rng(2).normal(size=(3, 12, 12, 3)).astype("float32")
    exact = Saliency(model)(1, inputs)
    folded = Saliency(model, fold_batch_norm=True)(1, inputs)
    assert FoldBatchNorm() not in Saliency(model).settings.modifiers
    assert np.corrcoef(exact.ravel(), folded.ravel())[0, 1] > 0.999


def test_weights_are_live():
    model = residual()
    inputs = np.random.default_rng(2).normal(size=(2, 12, 12, 3)).astype("float32")
    cam = GradCAM(model)
    cam(1, inputs)
    for norm in (each for each in model.layers if isinstance(each, L.BatchNormalization)):
        norm.moving_mean.assign(norm.moving_mean * 0.5)
        norm.gamma.assign(norm.gamma * 1.3)
    np.testing.assert_allclose(
        cam(1, inputs), GradCAM(model, fold_batch_norm=False)(1, inputs), atol=1e-4
    )
    assert cam.trace_count == 1


def test_half_precision_is_left_alone():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(4, 3, dtype="mixed_float16"),
            L.BatchNormalization(dtype="mixed_float16"),
            L.GlobalAveragePooling2D(),
        ]
    )
    modifiers = [LinearOutput(), FoldBatchNorm()]
    assert operations(model, modifiers).count("Conv2D") == 1
    plain = operations(model, [LinearOutput()])
    assert sorted(operations(model, modifiers)) == sorted(plain)
