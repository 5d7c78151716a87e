"""Every LRP rule against its equation, written out on the matrix of the layer."""

import keras
import lrp_references as reference
import numpy as np
import pytest

from kvis2 import lrp

LAYERS = {
    "dense": (
        (5,),
        lambda: keras.layers.Dense(4),
        lambda shape, w: (w, w.shape[1:]),
    ),
    "einsum_dense": (
        (3, 2),
        lambda: keras.layers.EinsumDense("bij,ijk->bk", 4, bias_axes="k"),
        lambda shape, w: (w.reshape(6, 4), (4,)),
    ),
    "conv1d_causal": (
        (6, 2),
        lambda: keras.layers.Conv1D(3, 2, padding="causal"),
        lambda shape, w: causal_matrix(shape, w),
    ),
    "conv2d": (
        (4, 5, 2),
        lambda: keras.layers.Conv2D(3, 3, strides=2, padding="same"),
        lambda shape, w: reference.convolution_matrix(shape, w, 2, True),
    ),
    "conv2d_groups": (
        (4, 3, 4),
        lambda: keras.layers.Conv2D(4, (2, 1), groups=2),
        lambda shape, w: reference.convolution_matrix(shape, w, groups=2),
    ),
    "conv2d_dilated": (
        (4, 4, 1),
        lambda: keras.layers.Conv2D(2, 2, dilation_rate=2),
        lambda shape, w: reference.convolution_matrix(shape, w, dilation=2),
    ),
    "conv3d": (
        (3, 2, 3, 1),
        lambda: keras.layers.Conv3D(2, 2),
        lambda shape, w: reference.convolution_matrix(shape, w),
    ),
    "depthwise1d": (
        (5, 2),
        lambda: keras.layers.DepthwiseConv1D(2, depth_multiplier=2),
        lambda shape, w: reference.depthwise_matrix(shape, w),
    ),
    "depthwise2d": (
        (4, 3, 2),
        lambda: keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
        lambda shape, w: reference.depthwise_matrix(shape, w, same=True),
    ),
    "transposed": (
        (2, 3, 2),
        lambda: keras.layers.Conv2DTranspose(3, 2, strides=2),
        lambda shape, w: reference.transposed_matrix(shape, w, 2),
    ),
}

RULES = {
    "lrp_0": (lrp.Epsilon(0), reference.epsilon, {"epsilon": 0}),
    "epsilon": (lrp.Epsilon(0.3), reference.epsilon, {"epsilon": 0.3}),
    "norm": (lrp.Norm(), reference.epsilon, {"epsilon": 0}),
    "gamma": (lrp.Gamma(0.4), reference.gamma, {"gamma": 0.4}),
    "z_plus": (lrp.ZPlus(), reference.z_plus, {}),
    "alpha_beta": (lrp.AlphaBeta(3, 2), reference.alpha_beta, {"alpha": 3, "beta": 2}),
    "flat": (lrp.Flat(), reference.flat, {}),
    "w_square": (lrp.WSquare(), reference.w_square, {}),
    "z_box": (lrp.ZBox(-2.5, 3.0), reference.z_box, {"low": -2.5, "high": 3.0}),
}

# The other layers go through the same rules by another kernel layout, so a few rules will do.
CORE = ("dense", "conv1d_causal", "conv2d", "conv3d", "depthwise2d")
CASES = [
    (kind, rule)
    for kind in LAYERS
    for rule in (RULES if kind in CORE else ("gamma", "alpha_beta", "flat"))
]


def causal_matrix(shape, kernel):
    """A causal convolution is a valid one with zeros put before the sequence."""
    before = kernel.shape[0] - 1
    matrix, out_shape = reference.convolution_matrix((shape[0] + before, shape[1]), kernel)
    return matrix[before * shape[1] :], out_shape


def randomized(model, seed=0, scale=0.7):
    """The model with random weights: biases too, and positive variances."""
    draw = np.random.default_rng(seed)
    for variable in model.weights:
        values = scale * draw.normal(size=variable.shape)
        if "variance" in variable.path:
            values = np.abs(values) + 0.3
        variable.assign(values)
    return model


def weighted_output(weights):
    """A score that looks at all outputs, so that relevance starts everywhere."""
    return lambda output: keras.ops.sum(output * weights, axis=tuple(range(1, output.ndim)))


@pytest.mark.parametrize(("kind", "rule"), CASES)
def test_a_rule_is_its_equation(kind, rule):
    shape, make_layer, as_matrix = LAYERS[kind]
    ours, theirs, arguments = RULES[rule]
    model = randomized(keras.Sequential([keras.Input(shape), make_layer()]))
    draw = np.random.default_rng(1)
    images = draw.uniform(-2, 2.5, size=(2, *shape)).astype(np.float32)
    images[0].flat[1] = 0.0
    kernel, bias = (each.numpy().astype(np.float64) for each in model.weights)
    matrix, out_shape = as_matrix(shape, kernel)
    links, _ = as_matrix(shape, np.ones_like(kernel))
    biases = np.broadcast_to(bias, out_shape).ravel()
    weights = draw.normal(size=out_shape).astype(np.float32)

    explainer = lrp.LRP(model, lrp.Composite(ours, ours), keepdims=True, normalize=False)
    relevance = explainer(weighted_output(weights), images)

    for image, found in zip(images, relevance, strict=True):
        a = image.ravel().astype(np.float64)
        outputs = a @ matrix + biases
        start = outputs * weights.ravel()
        expected = theirs(a, matrix, biases, start, links, **arguments)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found.ravel() / scale, expected / scale, atol=5e-5)


def test_the_matrix_of_a_convolution_computes_the_convolution():
    """Guards the reference: its matrices give the layers' own outputs."""
    for shape, make_layer, as_matrix in LAYERS.values():
        model = randomized(keras.Sequential([keras.Input(shape), make_layer()]))
        images = np.random.default_rng(2).normal(size=(2, *shape)).astype(np.float32)
        kernel, bias = (each.numpy() for each in model.weights)
        matrix, out_shape = as_matrix(shape, kernel)
        outputs = (images.reshape(2, -1) @ matrix).reshape(2, *out_shape) + bias
        np.testing.assert_allclose(outputs, model(images).numpy(), rtol=1e-4, atol=1e-5)


def test_the_box_of_a_sample_is_its_own_range_by_default():
    model = randomized(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]))
    images = np.array([[0, 1, 2, 3], [-1, 5, 2, 0]], np.float32)
    by_default = lrp.LRP(model, lrp.Composite(lrp.ZBox()), normalize=False)(1, images)
    for image, found, low, high in zip(images, by_default, [0, -1], [3, 5], strict=True):
        rule = lrp.ZBox([low] * 4, float(high))
        given = lrp.LRP(model, lrp.Composite(rule), normalize=False)(1, image[None])
        np.testing.assert_allclose(found, given[0], rtol=1e-5)


def test_an_epsilon_follows_the_sign_of_the_output():
    """Added to a negative output, it would make the relevance larger instead of smaller."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, use_bias=False)])
    model.set_weights([np.array([[2.0, -2.0]])])
    composite = lrp.Composite(lrp.Epsilon(1.0))
    explainer = lrp.LRP(model, composite, normalize=False)
    np.testing.assert_allclose(explainer(0, [[1.0]]), [[4 / 3]], rtol=1e-6)
    np.testing.assert_allclose(explainer(1, [[1.0]]), [[-4 / 3]], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: lrp.AlphaBeta(2, 0), "alpha - beta = 1"),
        (lambda: lrp.Epsilon(-1), "not to be negative"),
        (lambda: lrp.Gamma(-0.1), "not to be negative"),
    ],
)
def test_impossible_parameters_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- layers that are not affine -------------------------------------------------------------------


def test_layer_normalization_with_detached_variance_conserves_relevance():
    layer = keras.layers.LayerNormalization(center=False)
    model = randomized(keras.Sequential([keras.Input((3, 5)), layer]))
    images = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)
    composite = lrp.Composite(layers={keras.layers.LayerNormalization: lrp.DetachedVariance()})
    explainer = lrp.LRP(model, composite, keepdims=True, normalize=False)

    relevance = explainer(weighted_output(weights), images)

    a = images.astype(np.float64)
    sigma = np.sqrt(a.var(axis=-1, keepdims=True) + layer.epsilon)
    centring = (np.eye(5) - 1 / 5) / sigma[..., None] * layer.gamma.numpy()
    outputs = np.einsum("nti,ntij->ntj", a, centring)
    expected = np.einsum("nti,ntij,tj->nti", a, centring, weights.astype(np.float64))
    np.testing.assert_allclose(outputs, model(images).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(relevance, expected, rtol=1e-3, atol=1e-4)
    assert explainer.conservation_error.max() < 1e-4


def test_a_rule_that_needs_a_kernel_says_so():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.AveragePooling2D(2, name="pool")]
    )
    composite = lrp.Composite(layers={"pool": lrp.ZPlus()})
    with pytest.raises(ValueError, match=r"convolution or dense layer for the rule ZPlus.*'pool'"):
        lrp.LRP(model, composite)(0, np.ones((1, 4, 4, 1)))


def test_relevance_passes_only_layers_that_keep_the_shape():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="head")])
    with pytest.raises(ValueError, match=r"shape of its one input.*'head', .*Norm"):
        lrp.LRP(model, lrp.Composite(layers={"head": lrp.Pass()}))(0, np.ones((1, 4)))
