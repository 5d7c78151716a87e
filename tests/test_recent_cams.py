"""Class activation maps of recent years, against slow NumPy versions, peers and closed forms."""

import functools
from pathlib import Path

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from references import assert_same
from sampled import rest_slow
from test_attention import vit
from tiny_net import Case, TinyNet

import kvis2
from kvis2 import FEM, GradCAM, OptiCAM, ReciproCAM, ReSTScore, ShapleyCAM, token_grid

RAW = {"normalize": False, "resize": False}
GOLDENS = Path(__file__).parent / "goldens"


@pytest.fixture(scope="module")
def case():
    return Case.of(TinyNet.random(64))


# -- Recipro-CAM ----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("gaussian", [True, False])
def test_recipro_cam_is_the_probability_of_each_position_alone(case, gaussian, batch_size):
    def probability(conv1):
        return references.softmax(case.net.head(conv1))[np.arange(3), case.classes]

    expected = references.recipro_cam(case.values.conv1, probability, gaussian)
    assert (np.ptp(expected, axis=(1, 2)) > 0.02).all()
    explainer = ReciproCAM(case.model, "conv1", gaussian=gaussian, batch_size=batch_size, **RAW)
    assert_same(explainer(case.classes, case.images), expected)


def test_recipro_cam_is_stretched_to_0_and_1_as_the_authors_do(case):
    maps = ReciproCAM(case.model, "conv1")(case.classes, case.images)
    np.testing.assert_allclose(maps.min(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(maps.max(axis=(1, 2)), 1, atol=1e-6)


def test_recipro_cam_of_signals():
    inputs = keras.Input((9, 2))
    x = keras.layers.Conv1D(4, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.Dense(5, activation="tanh")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    signals = np.random.default_rng(0).normal(size=(2, 9, 2)).astype(np.float32)
    features = model.get_layer("conv")(signals).numpy()
    head = keras.Model(model.get_layer("conv").output, model.output)
    expected = np.zeros((2, 7))
    for place in range(7):
        mask = [{0: 0.5, 1: 0.25}.get(abs(other - place), 0) for other in range(7)]
        expected[:, place] = head(features * np.array(mask)[:, None]).numpy()[:, 1]
    assert_same(ReciproCAM(model, "conv", **RAW)(1, signals), expected)


@pytest.mark.parametrize("gaussian", rest_slow([True, False]))
def test_vit_recipro_cam_keeps_the_class_token(gaussian):
    """Against the head as a Keras model of its own, the tokens masked in NumPy."""
    model = vit((12, 16, 3), blocks=2)
    draw = np.random.default_rng(4)
    model.set_weights([draw.normal(0, 0.6, w.shape) for w in model.get_weights()])
    images = draw.normal(size=(2, 12, 16, 3)).astype(np.float32)
    layer = model.get_layer("prepended")
    tokens = keras.Model(model.input, layer.output)(images).numpy()
    head = keras.Model(layer.output, model.output)

    def probability(grid):
        masked = np.concatenate([tokens[:, :1], grid.reshape(2, 12, -1)], axis=1)
        return head(masked.astype(np.float32)).numpy()[:, 2]

    grid = tokens[:, 1:].reshape(2, 3, 4, -1)
    expected = references.recipro_cam(grid, probability, gaussian)
    reshape = token_grid(shape=(3, 4))
    explainer = ReciproCAM(model, "prepended", reshape=reshape, gaussian=gaussian, **RAW)
    assert_same(explainer(2, images), expected)


# -- ShapleyCAM -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def goldens():
    with np.load(GOLDENS / "pytorch_grad_cam.npz") as stored:
        return dict(stored)


def as_the_peer_scales(maps):
    """pytorch-grad-cam stretches a map to 0..1 before it is enlarged, and again after."""
    small = references.normalize(maps, "minmax")
    return references.normalize(references.resize(small, (7, 9)), "minmax")


def softplus_net():
    net = TinyNet.random(3, classes=6)
    model = net.as_keras(7, 9)
    layers = [
        keras.layers.Activation("softplus", name=each.name)
        if isinstance(each, keras.layers.ReLU)
        else each
        for each in model.layers
    ]
    return keras.Sequential([model.inputs[0], *layers])


@pytest.mark.parametrize("kind", ["softplus", "probability", "rest"])
def test_shapley_cam_is_that_of_pytorch_grad_cam(goldens, kind):
    """A smooth network; the probability, and the authors' score, of one of ReLUs."""
    model = softplus_net() if kind == "softplus" else TinyNet.random(3, classes=6).as_keras(7, 9)
    options = {"model_modifier": None} if kind == "probability" else {}
    classes = [int(each) for each in goldens["shapley_classes"]]
    score = ReSTScore(classes) if kind == "rest" else classes
    maps = ShapleyCAM(model, "conv1", **options, **RAW)(score, goldens["images"])
    np.testing.assert_allclose(as_the_peer_scales(maps), goldens[f"shapley_{kind}"], atol=1e-4)
    plain = GradCAM(model, "conv1", **options, **RAW)(score, goldens["images"])
    assert np.abs(as_the_peer_scales(plain) - goldens[f"shapley_{kind}"]).max() > 1e-3


@pytest.mark.slow
def test_curvature_by_central_differences_of_the_gradient():
    """`H A` of the softplus net, at every position and channel."""
    model = softplus_net()
    images = np.random.default_rng(1).normal(size=(2, 7, 9, 2)).astype(np.float32)
    features = model.layers[1](model.layers[0](images))

    def slopes(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            logit = tf.math.log(functools.reduce(lambda x, f: f(x), model.layers[2:], values))[:, 4]
        return tape.gradient(logit, values).numpy()

    step = 1e-2
    up, down = slopes(features * (1 + step)), slopes(features * (1 - step))
    curvature = (up - down) / (2 * step)
    weights = (slopes(features) - 0.5 * curvature).mean(axis=(1, 2), keepdims=True)
    expected = np.maximum((weights * features.numpy()).sum(axis=-1), 0)

    def log_probability(output):
        return tf.math.log(output[:, 4])

    found = ShapleyCAM(model, "conv1", model_modifier=None, **RAW)(log_probability, images)
    assert_same(found, expected, relative=2e-3)


def test_shapley_cam_of_a_piecewise_linear_score_is_grad_cam(case):
    maps = ShapleyCAM(case.model, "conv1", **RAW)(case.classes, case.images)
    assert_same(maps, references.grad_cam(case.values.conv1, case.gradients.conv1))


def test_rest_score_needs_the_score_before_the_softmax(case):
    with pytest.raises(ValueError, match="before its softmax, for ReSTScore"):
        kvis2.ScoreCAM(case.model, "conv1")(ReSTScore(1), case.images)


# -- Opti-CAM -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "objective"),
    [
        ("conv1", "maximum"),
        pytest.param("conv2", "maximum", marks=pytest.mark.slow),
        ("conv1", "match"),
    ],
)
def test_opti_cam_is_the_papers_equation(case, layer, objective):
    activations = getattr(case.values, layer)
    images = case.images.astype(float)
    few = {"steps": 4, "learning_rate": 0.3}
    expected = references.opti_cam(
        images, activations, case.logit, match=objective == "match", **few
    )
    start = references.opti_cam(images, activations, case.logit, steps=0, learning_rate=0.3)
    assert np.abs(expected - start).max() > 0.1 * expected.max()
    explainer = OptiCAM(case.model, layer, objective=objective, batch_size=2, **few, **RAW)
    assert_same(explainer(case.classes, case.images), expected, relative=5e-3)


@pytest.mark.slow
def test_opti_cam_raises_the_score_of_what_it_shows(case):
    def shown(steps):
        explainer = OptiCAM(
            case.model, "conv1", steps=steps, objective="maximum", normalize="minmax"
        )
        maps = explainer(case.classes, case.images)
        return case.logit(case.images * maps[..., None])

    assert (shown(60) > shown(1)).all()


def test_opti_cam_of_no_steps_is_refused(case):
    with pytest.raises(ValueError, match="`steps` to be a positive int"):
        OptiCAM(case.model, steps=0)
    with pytest.raises(ValueError, match="`learning_rate` above 0"):
        OptiCAM(case.model, learning_rate=0)
    with pytest.raises(ValueError, match="'match' or 'maximum'"):
        OptiCAM(case.model, objective="most")


# -- FEM ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deviations", [2.0, 1.0])
def test_fem_is_the_papers_equation(case, deviations):
    expected = references.fem(case.values.conv1, deviations)
    maps = FEM(case.model, "conv1", deviations=deviations, **RAW)(None, case.images)
    assert_same(maps, expected)


@pytest.mark.parametrize("deviations", [2.0, 1.0])
def test_fem_is_that_of_xplique(deviations):
    with np.load(GOLDENS / "xplique.npz") as stored:
        images, golden = stored["images"], stored[f"fem_{deviations:.0f}"]
    net = TinyNet.random(3, classes=6)
    convolution = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")
    pooling = keras.layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input((7, 9, 2)), convolution, pooling, keras.layers.Dense(3)])
    convolution.set_weights([net.kernel1, net.bias1])
    assert_same(FEM(model, "conv", deviations=deviations, **RAW)(0, images), golden)


def test_fem_of_negative_deviations_is_refused(case):
    with pytest.raises(ValueError, match="`deviations` of 0 or more"):
        FEM(case.model, deviations=-1)
