"""LRP on whole models: axioms, folding, branches, and the live model left as it was."""

import gc
import weakref

import keras
import numpy as np
import pytest
from references import assert_same

import kvis2
from kvis2 import lrp

layers = keras.layers

LRP_0 = lrp.Composite(lrp.Epsilon(0))


def randomized(model, seed=0, scale=0.6):
    """The model with random weights, biases and moving averages among them."""
    draw = np.random.default_rng(seed)
    for variable in model.weights:
        values = scale * draw.normal(size=variable.shape)
        if "variance" in variable.path:
            values = np.abs(values) + 0.3
        variable.assign(values)
    return model


def batch_of(shape, samples=3, seed=1):
    return np.random.default_rng(seed).normal(size=(samples, *shape)).astype(np.float32)


def functional(shape, build):
    inputs = keras.Input(shape)
    return keras.Model(inputs, build(inputs))


# -- small nets of every well-known kind ----------------------------------------------------------


def vgg_like(x, bias):
    x = layers.Conv2D(4, 3, padding="same", activation="relu", use_bias=bias)(x)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", use_bias=bias)(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", use_bias=bias)(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    x = layers.Dense(8, activation="relu", use_bias=bias)(x)
    return layers.Dense(3, use_bias=bias, name="head")(x)


def normalized(x, bias):
    return layers.BatchNormalization(center=bias)(x)


def resnet_like(x, bias):
    x = layers.ZeroPadding2D()(x)
    x = layers.Conv2D(4, 3, use_bias=bias)(x)
    x = layers.ReLU()(normalized(x, bias))
    shortcut = normalized(layers.Conv2D(6, 1, strides=2, use_bias=bias)(x), bias)
    x = normalized(layers.Conv2D(6, 3, strides=2, padding="same", use_bias=bias)(x), bias)
    x = layers.ReLU()(layers.Add()([shortcut, x]))
    x = layers.Concatenate()([x, layers.AveragePooling2D(3, 1, padding="same")(x)])
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(3, use_bias=bias, name="head")(x)


def mobilenet_like(x, bias):
    x = layers.Rescaling(2.0)(x)
    x = layers.Conv2D(4, 3, strides=2, padding="same", use_bias=bias)(x)
    x = layers.ReLU(6.0)(normalized(x, bias))
    y = normalized(layers.DepthwiseConv2D(3, padding="same", use_bias=bias)(x), bias)
    y = layers.Activation("silu")(y)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
    gate = layers.Conv2D(2, 1, activation="relu", use_bias=bias)(gate)
    gate = layers.Conv2D(4, 1, activation="sigmoid", use_bias=bias)(gate)
    y = layers.Multiply()([gate, y])
    y = normalized(layers.Conv2D(4, 1, use_bias=bias)(y), bias)
    x = layers.Add()([x, y])
    x = layers.SeparableConv2D(5, 3, padding="same", activation="relu", use_bias=bias)(x)
    x = layers.UpSampling2D()(layers.Cropping2D(1)(x))
    x = layers.GlobalMaxPooling2D()(x)
    return layers.Dense(3, use_bias=bias, name="head")(x)


def transformer_like(x, bias):
    x = layers.Conv2D(4, 4, strides=4, use_bias=bias)(x)
    x = layers.Reshape((-1, 4))(x)
    y = layers.LayerNormalization(center=bias)(x)
    y = layers.MultiHeadAttention(2, 3, use_bias=bias)(y, y)
    x = layers.Add()([x, y])
    y = layers.LayerNormalization(center=bias)(x)
    y = layers.Dense(6, activation="gelu", use_bias=bias)(y)
    x = x + layers.Dense(4, use_bias=bias)(y)
    x = layers.GlobalAveragePooling1D()(x)
    return layers.Dense(3, use_bias=bias, name="head")(x)


NETS = [vgg_like, resnet_like, mobilenet_like, transformer_like]
SHAPE = (12, 8, 3)


def net(build, bias, softmax=True):
    model = randomized(functional(SHAPE, lambda x: build(x, bias)))
    if softmax:
        model.get_layer("head").activation = keras.activations.softmax
    if not bias:
        for variable in model.weights:  # A moving mean is a bias.
            if "moving_mean" in variable.path:
                variable.assign(np.zeros(variable.shape))
    return model


@pytest.mark.parametrize("build", NETS)
def test_without_biases_relevance_is_conserved(build):
    model, images = net(build, bias=False), batch_of(SHAPE)
    # Flat gives explicit zero padding its share, which is lost there.
    first = lrp.Gamma(0.5) if build is resnet_like else lrp.Flat()
    composite = lrp.Composite(lrp.Epsilon(1e-9), lrp.Gamma(0.5), first=first, attention="detached")
    explainer = lrp.LRP(model, composite, normalize=False)

    maps = explainer([0, 1, 2], images)

    logits = net(build, bias=False, softmax=False)(images).numpy()[np.arange(3), [0, 1, 2]]
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), logits, rtol=1e-4)
    assert explainer.conservation_error.max() < 1e-4
    np.testing.assert_allclose(explainer.bias_share, 0, atol=1e-6)


@pytest.mark.parametrize("build", NETS)
def test_with_biases_the_error_is_what_the_biases_absorb(build):
    model, images = net(build, bias=True), batch_of(SHAPE)
    composite = lrp.Composite(lrp.Epsilon(1e-9), lrp.Gamma(0.5), attention="detached")
    explainer = lrp.LRP(model, composite)

    explainer([0, 1, 2], images)

    assert explainer.conservation_error.min() > 1e-2
    np.testing.assert_allclose(
        explainer.conservation_error, np.abs(explainer.bias_share), rtol=1e-3, atol=1e-3
    )


def test_the_bias_share_of_one_layer_is_its_bias_over_its_output():
    model = randomized(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    images = batch_of((4,))
    explainer = lrp.LRP(model, LRP_0)
    explainer(2, images)
    expected = model.layers[0].bias.numpy()[2] / model(images).numpy()[:, 2]
    np.testing.assert_allclose(explainer.bias_share, expected, rtol=1e-4)
    np.testing.assert_allclose(explainer.conservation_error, np.abs(expected), rtol=1e-4)


@pytest.mark.parametrize("build", [vgg_like, resnet_like])
def test_lrp_0_without_biases_is_input_times_gradient(build):
    model, images = net(build, bias=False), batch_of(SHAPE)
    relevance = lrp.LRP(model, LRP_0, keepdims=True, normalize=False)([2, 0, 1], images)
    gradient = kvis2.Saliency(model, keepdims=True, normalize=False)([2, 0, 1], images)
    expected = images * gradient
    np.testing.assert_allclose(relevance, expected, atol=2e-3 * np.abs(expected).max())


def test_the_golden_vector_of_the_second_original():
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(2, activation="relu", name="hidden"),
            layers.Dropout(0.5),
            layers.Dense(2),
        ]
    )
    weights = [[[1, 0.5], [-1, 2]], [0.1, -0.2], [[1, 0.5], [-2, 1]], [0.2, -0.1]]
    model.set_weights([np.array(each) for each in weights])
    images = np.array([[1.0, 2.0]], np.float32)
    composite = lrp.GammaEverywhere()

    pixels = lrp.LRP(model, composite, normalize=False)(1, images)
    hidden = lrp.LRP(model, composite, "hidden", keepdims=True, normalize=False)(1, images)

    np.testing.assert_allclose(hidden, [[0, 4.2951302]], rtol=1e-6)
    np.testing.assert_allclose(pixels, [[0.49833, 3.9866402]], rtol=1e-5)


def test_relevance_starts_with_the_score_or_with_one():
    model, images = net(vgg_like, bias=True), batch_of(SHAPE)
    logits = net(vgg_like, bias=True, softmax=False)(images).numpy()[:, 1]
    score, one = (
        lrp.LRP(model, start=start, normalize=False)(1, images) for start in ("score", "one")
    )
    np.testing.assert_allclose(score, one * logits[:, None, None], rtol=1e-4, atol=1e-6)


# -- batch normalisation --------------------------------------------------------------------------


def explicitly_folded(weights, batch_norm, before, depthwise=False, transposed=False):
    """Kernel and bias of a convolution or dense layer together with its normalisation."""
    kernel, bias = weights
    gamma, beta, mean, variance = (each.numpy() for each in batch_norm.weights)
    factor = gamma / np.sqrt(variance + batch_norm.epsilon)
    if before:
        shift = beta - mean * factor
        spread = kernel * shift[:, None]
        return kernel * factor[:, None], bias + spread.sum(axis=tuple(range(kernel.ndim - 1)))
    if depthwise:
        kernel = kernel * factor.reshape(kernel.shape[-2:])
    else:
        kernel = kernel * (factor[:, None] if transposed else factor)
    return kernel, factor * (bias - mean) + beta


@pytest.mark.parametrize(
    ("make", "shape", "before"),
    [
        (lambda: layers.Conv2D(4, 2), (5, 4, 3), False),
        (lambda: layers.Conv2D(4, 2), (5, 4, 3), True),
        (lambda: layers.Conv1D(4, 2), (5, 3), False),
        (lambda: layers.DepthwiseConv2D(2, depth_multiplier=2), (5, 4, 3), False),
        (lambda: layers.Conv2DTranspose(4, 2), (3, 3, 2), False),
        (lambda: layers.Dense(4), (3,), False),
        (lambda: layers.Dense(4), (3,), True),
    ],
)
def test_batch_normalization_is_folded_into_the_layer_beside_it(make, shape, before):
    norm, layer, folded = layers.BatchNormalization(), make(), make()
    pair = [norm, layer] if before else [layer, norm]
    model = randomized(keras.Sequential([keras.Input(shape), *pair]))
    twin = keras.Sequential([keras.Input(shape), folded])
    folded.set_weights(
        explicitly_folded(
            layer.get_weights(),
            norm,
            before,
            isinstance(layer, layers.DepthwiseConv2D),
            isinstance(layer, layers.Conv2DTranspose),
        )
    )
    images = batch_of(shape)
    np.testing.assert_allclose(model(images), twin(images), rtol=1e-3, atol=1e-4)

    composite = lrp.Composite(lrp.Gamma(0.5), lrp.AlphaBeta(2, 1))
    found, expected = (
        lrp.LRP(each, composite, keepdims=True, normalize=False)(1, images)
        for each in (model, twin)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_separable_convolution_is_a_depthwise_and_a_pointwise_one():
    separable, norm = layers.SeparableConv2D(4, 2, depth_multiplier=2), layers.BatchNormalization()
    depthwise = layers.DepthwiseConv2D(2, depth_multiplier=2, use_bias=False)
    pointwise, other_norm = layers.Conv2D(4, 1), layers.BatchNormalization()
    model = randomized(keras.Sequential([keras.Input((5, 4, 3)), separable, norm]))
    twin = keras.Sequential([keras.Input((5, 4, 3)), depthwise, pointwise, other_norm])
    twin.set_weights(model.get_weights())
    images = batch_of((5, 4, 3))
    composite = lrp.EpsilonPlusFlat()
    found, expected = (
        lrp.LRP(each, composite, keepdims=True, normalize=False)(1, images)
        for each in (model, twin)
    )
    assert_same(found, expected)


def test_a_normalization_with_a_rule_of_its_own_is_not_folded():
    """Norm: `x * scale / (x * scale + shift)` of the relevance stays, the shift keeps the rest."""
    norm, dense = layers.BatchNormalization(), layers.Dense(3)
    model = randomized(keras.Sequential([keras.Input((4,)), dense, norm]))
    images = batch_of((4,))
    composite = lrp.Composite(lrp.Epsilon(0), layers={layers.BatchNormalization: lrp.Norm()})
    found = lrp.LRP(model, composite, normalize=False)(1, images)
    gamma, _, _, variance = (each.numpy() for each in norm.weights)
    kernel, bias = dense.get_weights()
    factor = gamma / np.sqrt(variance + norm.epsilon)
    z = images @ kernel + bias
    relevance = (z * factor)[:, 1]  # of the output `z * factor + shift`, which starts with itself
    expected = images * kernel[:, 1] / z[:, 1:2] * relevance[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_normalization_is_not_folded_where_its_input_is_used_elsewhere():
    """`z + norm(z)`: folding would give the first branch the wrong weights."""

    def build(x):
        z = layers.Dense(3, name="linear")(x)
        return layers.Add()([z, layers.BatchNormalization(name="norm")(z)])

    model = randomized(functional((4,), build))
    images = batch_of((4,))
    found = lrp.LRP(model, lrp.Composite(lrp.Epsilon(0)), normalize=False)(1, images)
    kernel, bias = model.get_layer("linear").get_weights()
    z = images @ kernel + bias
    expected = images * kernel[:, 1] / z[:, 1:2] * model(images).numpy()[:, 1:2]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


# -- branches and single operations ---------------------------------------------------------------


def relevance_of_two(combine, first, second, score=0):
    """Relevance of two inputs of one number each per unit."""
    inputs = [keras.Input((len(each[0]),)) for each in (first, second)]
    model = keras.Model(inputs, combine(*inputs))
    arrays = [np.asarray(each, np.float32) for each in (first, second)]
    explainer = lrp.LRP(model, model_modifier=None, normalize=False)
    return explainer(score, arrays)


@pytest.mark.parametrize(
    "add", [lambda a, b: layers.Add()([a, b]), lambda a, b: a + b, keras.ops.add]
)
def test_a_sum_shares_by_its_terms(add):
    first, second = relevance_of_two(add, [[3.0, 1.0]], [[-1.0, 5.0]])
    np.testing.assert_allclose(first, [[3, 0]], rtol=1e-6)
    np.testing.assert_allclose(second, [[-1, 0]], rtol=1e-6)


def test_an_average_shares_by_its_terms():
    first, second = relevance_of_two(
        lambda a, b: layers.Average()([a, b]), [[3.0, 1.0]], [[-1.0, 5.0]]
    )
    np.testing.assert_allclose(first, [[1.5, 0]], rtol=1e-6)
    np.testing.assert_allclose(second, [[-0.5, 0]], rtol=1e-6)


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid", "relu6"])
def test_a_gate_gets_nothing(gate):
    def scaled(a, b):
        if gate == "relu6":
            return a * (layers.ReLU(6.0)(b + 3.0) * (1 / 6))
        return layers.Multiply()([layers.Activation(gate)(b), a])

    signal, other = relevance_of_two(scaled, [[2.0, 1.0]], [[1.0, 1.0]])
    weight = {"sigmoid": 1 / (1 + np.exp(-1)), "hard_sigmoid": 4 / 6, "relu6": 4 / 6}[gate]
    np.testing.assert_allclose(signal, [[2 * weight, 0]], rtol=1e-6)
    assert other is None


def test_the_factors_of_a_product_get_half_each():
    first, second = relevance_of_two(lambda a, b: a * b, [[3.0, 1.0]], [[4.0, 2.0]])
    np.testing.assert_allclose([first, second], [[[6, 0]]] * 2, rtol=1e-6)


def test_a_maximum_gives_all_to_the_winner():
    model = functional((4, 4, 1), lambda x: layers.Flatten()(layers.MaxPooling2D()(x)))
    images = np.random.default_rng(0).permutation(16).reshape(1, 4, 4, 1).astype(np.float32)
    explainer = lrp.LRP(model, normalize=False)
    relevance = explainer(lambda output: keras.ops.sum(output, axis=1), images)
    winners = images.reshape(2, 2, 2, 2).max(axis=(1, 3), keepdims=True)
    expected = np.where(images.reshape(2, 2, 2, 2) == winners, winners, 0).reshape(1, 4, 4)
    np.testing.assert_allclose(relevance, expected)


def test_preprocessing_inside_the_model_passes_relevance():
    """`x / 127.5 - 1` treats every pixel by itself, so black pixels keep their evidence."""
    dense = layers.Dense(2)
    raw = functional((3,), lambda x: dense(x / 127.5 - 1.0))
    layer = functional((3,), lambda x: dense(layers.Rescaling(1 / 127.5, -1.0)(x)))
    plain = functional((3,), dense)
    randomized(raw)
    images = np.array([[0.0, 100.0, 255.0]], np.float32)
    expected = lrp.LRP(plain, LRP_0, normalize=False)(0, images / 127.5 - 1)
    assert np.abs(expected).min() > 0
    for model in (layer, raw):
        found = lrp.LRP(model, LRP_0, normalize=False)(0, images)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    "activation",
    [
        *("relu", "relu6", "leaky_relu", "elu", "selu", "silu", "gelu", "tanh", "hard_silu"),
        pytest.param(
            "celu",
            marks=pytest.mark.skipif(
                not hasattr(keras.activations, "celu"), reason="this Keras has no celu"
            ),
        ),
    ],
)
def test_activations_pass_relevance(activation):
    """In a Dense, as a layer and as a raw operation: as if there were no activation at all."""
    hidden, head = layers.Dense(4), layers.Dense(2, use_bias=False)
    fused = layers.Dense(4, activation=activation)
    function = getattr(keras.ops, activation)

    def fixed(x):  # The relevance that reaches the activation is the same in all models.
        return head(x)

    models = [
        functional((3,), lambda x: fixed(fused(x))),
        functional((3,), lambda x: fixed(layers.Activation(activation)(hidden(x)))),
        functional((3,), lambda x: fixed(function(hidden(x)))),
    ]
    randomized(models[1])
    fused.set_weights(hidden.get_weights())
    images = batch_of((3,), 2)
    z = images @ hidden.get_weights()[0] + hidden.get_weights()[1]
    activated = keras.ops.convert_to_numpy(function(z))
    upper = activated * head.get_weights()[0][:, 1]
    expected = images * ((upper / z) @ hidden.get_weights()[0].T)
    for model in models:
        found = lrp.LRP(model, LRP_0, normalize=False)(1, images)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


class RawActivation(layers.Layer):
    """Calls a function that is no layer, and that has a gradient of its own or many steps."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


@pytest.mark.parametrize("name", ["silu", "gelu", "hard_silu", "relu", "softplus"])
def test_activations_inside_custom_layers_pass_relevance(name):
    hidden, head = layers.Dense(4), layers.Dense(2)
    raw = RawActivation(getattr(keras.ops, name))
    custom = functional((3,), lambda x: head(raw(hidden(x))))
    plain = functional((3,), lambda x: head(layers.Activation(name)(hidden(x))))
    randomized(plain)
    images = batch_of((3,), 2)
    found, expected = (
        lrp.LRP(model, LRP_0, normalize=False)(1, images) for model in (custom, plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


# -- attention ------------------------------------------------------------------------------------


def test_attention_follows_attn_lrp():
    """Achtibat et al. 2024: products in halves, `x_i (R_i - s_i sum R)` through the softmax."""
    inputs = keras.Input((4, 3))
    weights = layers.Softmax()(keras.ops.matmul(inputs, keras.ops.transpose(inputs, (0, 2, 1))))
    model = keras.Model(inputs, layers.Flatten()(keras.ops.matmul(weights, inputs)))
    images = batch_of((4, 3), 2)

    composite = lrp.Composite()
    found = lrp.LRP(model, composite, keepdims=True, normalize=False)(5, images)

    for x, relevance in zip(images.astype(np.float64), found, strict=True):
        logits = x @ x.T
        s = np.exp(logits - logits.max(axis=1, keepdims=True))
        s /= s.sum(axis=1, keepdims=True)
        query, channel = 5 // 3, 5 % 3
        shares = s[query] * x[:, channel] / 2  # of the weights, and of the values
        of_logits = logits[query] * (shares - s[query] * shares.sum())
        expected = np.zeros((4, 3))
        expected[:, channel] += shares
        for key in range(4):
            products = x[query] * x[key] / logits[query, key] * of_logits[key] / 2
            expected[query] += products
            expected[key] += products
        np.testing.assert_allclose(relevance, expected, rtol=1e-3, atol=1e-5)


def test_detached_attention_gives_all_relevance_to_the_values():
    inputs = keras.Input((4, 3))
    weights = layers.Softmax()(keras.ops.matmul(inputs, keras.ops.transpose(inputs, (0, 2, 1))))
    model = keras.Model(inputs, layers.Flatten()(keras.ops.matmul(weights, inputs)))
    images = batch_of((4, 3), 2)
    explainer = lrp.LRP(model, lrp.Composite(attention="detached"), keepdims=True, normalize=False)
    found = explainer(5, images)
    logits = images @ images.transpose(0, 2, 1)
    s = np.exp(logits - logits.max(axis=2, keepdims=True))
    s /= s.sum(axis=2, keepdims=True)
    expected = np.zeros_like(images)
    expected[:, :, 2] = s[:, 1] * images[:, :, 2]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


# -- models of every kind -------------------------------------------------------------------------


class Residual(keras.Model):
    """A subclassed model with a raw sum and a raw activation."""

    def __init__(self):
        super().__init__()
        self.stem = layers.Conv2D(4, 3, padding="same")
        self.norm = layers.BatchNormalization()
        self.body = layers.Conv2D(4, 3, padding="same", activation="relu")
        self.head = layers.Dense(3, activation="softmax")

    def call(self, x):
        x = keras.ops.relu(self.norm(self.stem(x)))
        x = x + self.body(x)
        return self.head(keras.ops.mean(x, axis=(1, 2)))


@pytest.fixture
def residual():
    """One set of layers as a subclassed, a functional and a nested model."""
    subclassed = Residual()
    subclassed(np.zeros((1, 6, 5, 3), np.float32))
    randomized(subclassed)
    inputs = keras.Input((6, 5, 3))
    x = layers.ReLU()(subclassed.norm(subclassed.stem(inputs)))
    x = layers.Add()([x, subclassed.body(x)])
    flat = keras.Model(inputs, subclassed.head(layers.GlobalAveragePooling2D()(x)))
    inside = keras.Input((6, 5, 3))
    y = layers.ReLU()(subclassed.norm(subclassed.stem(inside)))
    backbone = keras.Model(inside, layers.Add()([y, subclassed.body(y)]), name="backbone")
    outer = keras.Input((6, 5, 3))
    nested = keras.Model(outer, subclassed.head(layers.GlobalAveragePooling2D()(backbone(outer))))
    return {"subclassed": subclassed, "flat": flat, "nested": nested}


def test_subclassed_functional_and_nested_models_are_explained_alike(residual):
    images = batch_of((6, 5, 3))
    flat, nested, subclassed = (
        lrp.LRP(residual[kind], lrp.EpsilonGammaBox(-3.0, 3.0), normalize=False)(1, images)
        for kind in ("flat", "nested", "subclassed")
    )
    assert_same(nested, flat)
    assert_same(subclassed, flat)


def test_each_sample_is_explained_as_if_alone():
    model, images = net(mobilenet_like, bias=True), batch_of(SHAPE, 5)
    explainer = lrp.LRP(model, lrp.EpsilonGammaBox())
    together = explainer([0, 1, 2, 0, 1], images)
    error = explainer.conservation_error
    chunked = lrp.LRP(model, lrp.EpsilonGammaBox(), batch_size=2)
    np.testing.assert_allclose(chunked([0, 1, 2, 0, 1], images), together, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(chunked.conservation_error, error, rtol=1e-3, atol=1e-5)
    alone = explainer(2, images[2])
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-3, atol=1e-5)


def test_one_trace_serves_all_classes_batches_and_weights():
    model, images = net(vgg_like, bias=True), batch_of(SHAPE)
    explainer = lrp.LRP(model, normalize=False)
    for index in range(3):
        explainer(index, images[: index + 1])
    before = explainer([0, 1, 2], images)
    model.layers[1].kernel.assign(model.layers[1].kernel * 2)
    after = explainer([0, 1, 2], images)
    assert explainer.trace_count == 1
    assert np.abs(after - before).max() > 1e-3
    assert_same(after, lrp.LRP(model, normalize=False)([0, 1, 2], images))


@pytest.mark.slow
def test_mixed_precision_gives_nearly_the_same_map():
    model = net(resnet_like, bias=True)
    half = keras.models.clone_model(
        model,
        clone_function=lambda layer: layer.from_config(
            {**layer.get_config(), "dtype": "mixed_float16"}
        ),
    )
    half.set_weights(model.get_weights())
    images = batch_of(SHAPE)
    full_maps, half_maps = (
        lrp.LRP(each, lrp.EpsilonPlus())([0, 1, 2], images) for each in (model, half)
    )
    np.testing.assert_allclose(half_maps, full_maps, atol=0.05)


def test_a_hidden_layer_shows_where_it_got_its_relevance():
    """In a chain without biases every layer holds the whole score, at its own resolution."""
    model, images = net(vgg_like, bias=False), batch_of(SHAPE)
    composite = lrp.Composite(lrp.Epsilon(1e-9))
    totals = []
    for layer in (None, model.layers[1], model.layers[3].name, 4):
        explainer = lrp.LRP(model, composite, layer, resize=False, normalize=False)
        maps = explainer(1, images)
        totals.append(maps.sum(axis=(1, 2)))
        assert explainer.conservation_error.max() < 1e-4
    assert maps.shape == (3, 6, 4)
    for total in totals[1:]:
        np.testing.assert_allclose(total, totals[0], rtol=1e-4)


def test_before_its_activation_a_layer_has_the_same_relevance():
    model, images = net(vgg_like, bias=True), batch_of(SHAPE)
    after = lrp.LRP(model, layer=model.layers[1], normalize=False)(1, images)
    before = lrp.LRP(model, layer=model.layers[1], pre_activation=True, normalize=False)(1, images)
    assert_same(before, after)


def test_relevance_is_averaged_over_noisy_copies():
    model, images = net(vgg_like, bias=True), batch_of(SHAPE)
    explainer = lrp.LRP(model, lrp.EpsilonPlus(), normalize=False)
    smooth = kvis2.SmoothGrad(explainer, samples=3, noise=0.0)
    assert_same(smooth(1, images), explainer(1, images))


def test_maps_are_signed_and_as_large_as_the_input():
    model, images = net(resnet_like, bias=True), batch_of(SHAPE)
    maps = lrp.LRP(model, LRP_0, model.layers[2].name)([0, 1, 2], images)
    np.testing.assert_allclose(np.abs(maps).max(axis=(1, 2)), 1, rtol=1e-6)
    assert maps.shape == (3, 12, 8)
    assert maps.min() < 0 < maps.max()


# -- composites -----------------------------------------------------------------------------------


def chain():
    return randomized(
        keras.Sequential(
            [
                keras.Input((5,)),
                layers.Dense(4, activation="relu", name="a"),
                layers.Dense(4, activation="relu", name="b"),
                layers.Dense(4, activation="relu", name="c"),
                layers.Dense(2, name="d"),
            ]
        )
    )


@pytest.mark.parametrize(
    "composite",
    [
        lrp.Composite(
            layers={"a": lrp.Flat(), "b": lrp.WSquare(), "c": lrp.Gamma(), "d": lrp.Epsilon()}
        ),
        lrp.Composite(
            depths={0: lrp.Flat(), 1: lrp.WSquare(), range(2, 3): lrp.Gamma(), -1: lrp.Epsilon()}
        ),
        lrp.Composite(
            lrp.Gamma(),
            first=lrp.Flat(),
            layers={"[b]": lrp.WSquare()},
            depths={-1: lrp.Epsilon(), -3: lrp.Pass()},
        ),
        lrp.Composite(
            first=lrp.Flat(),
            layers={"b": lrp.WSquare(), "d": lrp.Epsilon(), layers.Dense: lrp.Gamma()},
        ),
    ],
)
def test_rules_go_by_name_depth_class_and_kind(composite):
    """The same four rules, given in four ways."""
    model, images = chain(), batch_of((5,))
    found = lrp.LRP(model, composite, normalize=False)(1, images)
    by_name = lrp.Composite(
        layers={"a": lrp.Flat(), "b": lrp.WSquare(), "c": lrp.Gamma(), "d": lrp.Epsilon()}
    )
    assert_same(found, lrp.LRP(model, by_name, normalize=False)(1, images))
    other = lrp.LRP(model, lrp.Composite(), normalize=False)(1, images)
    assert np.abs(found - other).max() > 1e-3


def test_depth_is_the_longest_way_from_the_input():
    """Two stems are both nearest the input; so is a shortcut, but not what follows either."""

    def build(x):
        left = layers.Dense(3, name="left")(x)
        right = layers.Dense(3, name="right")(x)
        return layers.Dense(2, name="head")(layers.Concatenate()([left, right]))

    model = randomized(functional((4,), build))
    images = batch_of((4,))
    found = lrp.LRP(model, lrp.Composite(first=lrp.Flat()), normalize=False)(0, images)
    named = lrp.Composite(layers={"left": lrp.Flat(), "right": lrp.Flat()})
    assert_same(found, lrp.LRP(model, named, normalize=False)(0, images))
    # Flat stems: all four inputs get the same.
    np.testing.assert_allclose(found, np.repeat(found[:, :1], 4, axis=1), rtol=1e-4)


@pytest.mark.slow
def test_the_presets_are_what_they_say():
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), layers.Conv2D(3, 2), layers.Conv2D(2, 2), layers.Flatten()]
    )
    model.add(layers.Dense(2))
    randomized(model)
    images = np.random.default_rng(0).random((2, 4, 4, 2), dtype="float32")
    spelled_out = {
        "EpsilonPlus": lrp.Composite(lrp.Epsilon(1e-6), lrp.ZPlus()),
        "EpsilonPlusFlat": lrp.Composite(lrp.Epsilon(), lrp.ZPlus(), first=lrp.Flat()),
        "EpsilonAlpha2Beta1": lrp.Composite(lrp.Epsilon(), lrp.AlphaBeta(2, 1)),
        "GammaEverywhere": lrp.Composite(lrp.Gamma(0.05), lrp.Gamma(0.05)),
    }
    pairs = [(getattr(lrp, name)(), composite) for name, composite in spelled_out.items()]
    box = lrp.Composite(lrp.Epsilon(), lrp.Gamma(0.25), first=lrp.ZBox(0, 1))
    for preset, composite in [*pairs, (lrp.EpsilonGammaBox(0, 1), box)]:
        assert_same(lrp.LRP(model, preset)(1, images), lrp.LRP(model, composite)(1, images))
    default = lrp.LRP(model)(1, images)
    assert_same(default, lrp.LRP(model, lrp.EpsilonPlusFlat())(1, images))


def test_equal_composites_share_a_trace(small_model, images):
    first = lrp.LRP(small_model, lrp.EpsilonGammaBox([0, 0, 0], 1))
    second = lrp.LRP(small_model, lrp.EpsilonGammaBox([0, 0, 0], 1))
    other = lrp.LRP(small_model, lrp.EpsilonGammaBox([0, 0, 0], 2))
    for explainer in (first, second, other):
        explainer(1, images)
    assert [each.trace_count for each in (first, second, other)] == [1, 0, 1]


# -- what LRP cannot do, and how to teach it ------------------------------------------------------


class Swirl(layers.Layer):
    """A layer that no rule is known for."""

    def call(self, x):
        return keras.ops.sin(x) * 2.0


class Halve(lrp.Rule):
    """Half of the relevance goes on."""

    def relevance(self, step, relevance):
        return [relevance / 2]


@pytest.fixture
def swirling():
    inside = keras.Input((4,))
    backbone = keras.Model(inside, Swirl(name="swirl")(inside), name="backbone")
    inputs = keras.Input((4,))
    return randomized(keras.Model(inputs, layers.Dense(2)(backbone(inputs))))


def test_an_unsupported_layer_is_named(swirling):
    with pytest.raises(ValueError, match=r"'backbone/swirl' \(Swirl\).*'Sin'.*register\(Swirl"):
        lrp.LRP(swirling)(0, batch_of((4,)))


def test_an_unsupported_layer_off_the_way_is_no_matter(swirling):
    explainer = lrp.LRP(swirling, LRP_0, "backbone", keepdims=True, normalize=False)
    images = batch_of((4,))
    kernel = swirling.layers[-1].kernel.numpy()
    np.testing.assert_allclose(
        explainer(0, images), 2 * np.sin(images) * kernel[:, 0], rtol=1e-4, atol=1e-5
    )


def test_a_layer_can_be_given_a_rule(swirling, monkeypatch):
    images = batch_of((4,))
    at_layer = lrp.LRP(swirling, LRP_0, "backbone", keepdims=True, normalize=False)(0, images)
    by_entry = lrp.Composite(lrp.Epsilon(0), layers={"backbone/swirl": Halve()})
    assert_same(lrp.LRP(swirling, by_entry, normalize=False)(0, images), at_layer / 2)

    from kvis2.lrp import composites

    monkeypatch.setattr(composites, "_REGISTERED", dict(composites._REGISTERED))
    lrp.register(Swirl, lrp.Pass())
    assert_same(lrp.LRP(swirling, LRP_0, normalize=False)(0, images), at_layer)
    lrp.register(Swirl, Halve())
    assert_same(lrp.LRP(swirling, LRP_0, normalize=False)(0, images), at_layer / 2)


def test_a_recurrent_layer_is_named():
    model = functional((4, 3), lambda x: layers.Dense(2)(layers.LSTM(3, name="memory")(x)))
    with pytest.raises(ValueError, match=r"'memory.*register"):
        lrp.LRP(model)(0, batch_of((4, 3)))


def contents(model):
    """Every attribute of every layer, by identity, and all weights."""
    parts = [model, *model._flatten_layers(include_self=False)]
    return (
        [{name: id(value) for name, value in vars(part).items()} for part in parts],
        [weight.numpy().tobytes() for weight in model.weights],
    )


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails):
    model, images = net(mobilenet_like, bias=True), batch_of(SHAPE)
    model(images)
    before = contents(model)
    if fails:
        name = model.layers[2].name
        with pytest.raises(ValueError, match="shape of its one input"):
            lrp.LRP(model, lrp.Composite(layers={name: lrp.Pass()}))(0, images)
    else:
        lrp.LRP(model)(0, images)
    assert contents(model) == before


def test_a_model_is_not_kept_alive(images):
    model = net(vgg_like, bias=True)
    explainer = lrp.LRP(model)
    explainer(0, batch_of(SHAPE))
    reference = weakref.ref(model)
    del model, explainer
    keras.utils.clear_session(free_memory=False)
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: lrp.LRP(model, "EpsilonPlus"), "Expected a composite"),
        (lambda model: lrp.LRP(model, start="two"), "Expected `start`"),
        (lambda model: lrp.LRP(model, model_modifier=kvis2.GuidedReLU()), "GuidedReLU"),
        (lambda model: lrp.Composite(lrp.Epsilon), "Expected a rule"),
        (lambda model: lrp.Composite(attention="none"), "Expected `attention`"),
        (lambda model: lrp.Composite(layers={3: lrp.Pass()}), "names, paths or layer classes"),
        (lambda model: lrp.register(model, lrp.Pass()), "Expected a class of Keras layers"),
    ],
)
def test_wrong_arguments_get_a_sentence(small_model, make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(small_model)


@pytest.mark.parametrize("depth", [4, -5, range(7, 9)])
def test_depths_that_the_model_has_not_are_refused(depth):
    with pytest.raises(ValueError, match="depths from 0 to 3, or -1 to -4"):
        lrp.LRP(chain(), lrp.Composite(depths={depth: lrp.Flat()}))(0, batch_of((5,)))


def test_names_that_fit_no_layer_are_refused(small_model, images):
    for name, message in [("lat", "Close names: 'late'"), ("block_*", "fits none of 'small'")]:
        with pytest.raises(ValueError, match=message):
            lrp.LRP(small_model, lrp.Composite(layers={name: lrp.Flat()}))(0, images)
