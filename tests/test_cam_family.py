"""The rest of the CAM family against slow NumPy versions of the papers' equations."""

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from references import assert_same
from sampled import rest_slow
from tiny_net import Case, TinyNet, convolve_backward

import kvis2
from kvis2.explainers import (
    CAM,
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    FullGrad,
    GuidedGradCAM,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    SmoothGradCAMPlusPlus,
    XGradCAM,
    first_projection,
)
from kvis2.scores import LayerScore

RAW = {"normalize": False, "resize": False}
METHODS = {
    XGradCAM: references.x_grad_cam,
    HiResCAM: references.hires_cam,
    EigenCAM: lambda activations, gradients: references.eigen_cam(activations),
    EigenGradCAM: references.eigen_grad_cam,
}


@pytest.fixture(scope="module")
def case():
    return Case.of(TinyNet.random(64))


@pytest.mark.parametrize(
    ("method", "layer"),
    [(method, layer) for method in METHODS for layer in ("conv1", "conv2")][:-1],
)  # The last one, Eigen-Grad-CAM of conv2, is zero: nothing there speaks for these classes.
def test_raw_map_is_the_papers_equation(case, method, layer):
    activations, gradients = getattr(case.values, layer), getattr(case.gradients, layer)
    maps = method(case.model, layer=layer, **RAW)(case.classes, case.images)
    assert maps.dtype == np.float32
    assert_same(maps, METHODS[method](activations, gradients))


# -- CAM ------------------------------------------------------------------------------------------


def test_cam_weighs_by_the_column_of_the_dense_kernel(case):
    for label in range(3):
        maps = CAM(case.model, **RAW)(label, case.images)
        expected = references.cam(case.values.conv2, case.net.dense[:, label])
        assert_same(maps, expected)
        assert (maps < 0).any()


def test_cam_says_that_it_needs_global_average_pooling(case):
    with pytest.raises(ValueError, match=r"only global average pooling.*'conv1'"):
        CAM(case.model, layer="conv1")(0, case.images)


# -- Eigen-CAM ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 9, 8, 3), (2, 2, 3, 30), (3, 12, 5), (2, 3, 2, 4, 7)])
def test_first_projection_is_that_of_the_singular_value_decomposition(shape):
    features = np.random.default_rng(0).normal(size=shape) + 0.4
    for scale in (1.0, 1e-12):  # gradients are small
        found = first_projection(tf.constant(scale * features, tf.float32))
        for one, sample in zip(found.numpy(), features, strict=True):
            matrix = sample.reshape(-1, shape[-1])
            u, s, _ = np.linalg.svd(matrix, full_matrices=False)
            projection = u[:, 0] * s[0]
            sign = np.sign(projection @ matrix.sum(axis=1))
            assert_same(one.ravel() / scale, sign * projection)


def test_eigen_cam_of_nonnegative_activations_is_not_negative(case):
    assert (EigenCAM(case.model, layer="conv1", **RAW)(0, case.images) >= 0).all()


# -- Ablation-CAM ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [None, 2])
def test_ablation_cam_weighs_by_the_fall_of_the_score(case, batch_size):
    def score(conv1):
        return case.net.head(conv1)[np.arange(3), case.classes]

    assert (score(case.values.conv1) < 0).any()
    explainer = AblationCAM(case.model, layer="conv1", batch_size=batch_size, **RAW)
    maps = explainer(case.classes, case.images)
    assert_same(maps, references.ablation_cam(case.values.conv1, score))


def test_ablation_before_the_activation_that_is_fused_into_the_layer(case):
    """A fused ReLU: zeroing the response is zeroing the activation, the map is of the response."""
    fused = keras.Sequential(
        [
            keras.Input(case.images.shape[1:]),
            keras.layers.Conv2D(4, 3, activation="relu", name="first"),
            *case.model.layers[2:],
        ]
    )
    fused.set_weights(case.model.get_weights())
    score = lambda pre1: case.net.head(references.relu(pre1))[np.arange(3), case.classes]  # noqa: E731
    expected = references.ablation_cam(case.values.pre1, score)
    explainer = AblationCAM(fused, layer="first", pre_activation=True, **RAW)
    assert_same(explainer(case.classes, case.images), expected)


def test_max_channels_of_ablation_cam(case):
    variances = case.values.conv1.var(axis=(1, 2))
    best = np.argsort(-variances, axis=-1)[:, :3]
    kept = np.zeros_like(variances)
    np.put_along_axis(kept, best, 1, axis=-1)

    def score(conv1):
        return case.net.head(conv1)[np.arange(3), case.classes]

    complete = score(case.values.conv1)
    weights = np.zeros_like(variances)
    for k in range(4):
        ablated = case.values.conv1.copy()
        ablated[..., k] = 0
        weights[:, k] = kept[:, k] * (complete - score(ablated)) / np.abs(complete)
    expected = references.relu(references.weighted_sum(weights, case.values.conv1))
    explainer = AblationCAM(case.model, layer="conv1", max_channels=3, **RAW)
    assert_same(explainer(case.classes, case.images), expected)


# -- Smooth Grad-CAM++ ----------------------------------------------------------------------------


def test_smooth_grad_cam_plus_plus_without_noise(case):
    explainer = SmoothGradCAMPlusPlus(case.model, layer="conv1", samples=2, noise=0.0, **RAW)
    expected = references.grad_cam_plus_plus(case.values.conv1, case.gradients.conv1)
    assert_same(explainer(case.classes, case.images), expected)


@pytest.mark.slow
def test_smooth_grad_cam_plus_plus_with_the_noise_that_kvis2_draws(case):
    from kvis2.passes import normal

    samples, seed = 4, 5
    draws = normal(tf.range(samples), case.images.shape[1:], tf.constant(seed)).numpy()
    deviation = 0.3 * np.ptp(case.images, axis=(1, 2, 3))[:, None, None, None]
    noisy = [case.images + deviation * draw for draw in draws]
    gradients = np.stack([case.net.gradients(each, case.classes).conv1 for each in noisy])
    expected = references.smooth_grad_cam_plus_plus(case.values.conv1, gradients)
    for batch_size in (None, 2):
        explainer = SmoothGradCAMPlusPlus(
            case.model, "conv1", samples=samples, noise=0.3, seed=seed, batch_size=batch_size, **RAW
        )
        assert_same(explainer(case.classes, case.images), expected)


# -- One weight for each time step ----------------------------------------------------------------


def clip_model():
    """A convolution of every frame, and a dense layer that weighs every place of every frame."""
    frame = keras.Sequential(
        [
            keras.Input((5, 6, 2)),
            keras.layers.Conv2D(4, 3, activation="relu", name="frame_conv"),
        ]
    )
    inputs = keras.Input((3, 5, 6, 2))
    x = keras.layers.TimeDistributed(frame, name="every")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.layers.Flatten()(x)))
    draw = np.random.default_rng(0)
    model.set_weights([draw.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model, frame, draw.normal(size=(2, 3, 5, 6, 2)).astype(np.float32)


@pytest.mark.parametrize("layer", rest_slow(["every/sequential/frame_conv", "every"]))
@pytest.mark.parametrize(
    ("method", "reference"),
    [
        (kvis2.GradCAM, references.grad_cam),
        (XGradCAM, references.x_grad_cam),
        (EigenCAM, lambda activations, gradients: references.eigen_cam(activations)),
    ],
)
def test_per_step_every_frame_has_weights_of_its_own(method, reference, layer):
    model, frame, clips = clip_model()
    layer = layer.replace("sequential", frame.name)
    frames = clips.reshape(6, 5, 6, 2)
    activations = frame(frames).numpy().astype(float)
    column = model.get_layer("head").get_weights()[0][:, 1].reshape(3, 3, 4, 4)
    gradients = np.tile(column, (2, 1, 1, 1)).astype(float)
    expected = reference(activations, gradients).reshape(2, 3, 3, 4)
    maps = method(model, layer, per_step=True, **RAW)(1, clips)
    assert_same(maps, expected)
    if method is not EigenCAM:
        over_time = method(model, layer, **RAW)(1, clips)
        assert np.abs(over_time - expected).max() > 0.1 * expected.max()


def test_per_step_needs_time_and_one_trace(case):
    with pytest.raises(ValueError, match="weights come from one trace, for `per_step`"):
        ScoreCAM(case.model, per_step=True)
    inputs = keras.Input((9, 2))
    x = keras.layers.Conv1D(3, 3, name="conv")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    with pytest.raises(ValueError, match="an axis of time before those of space"):
        kvis2.GradCAM(model, "conv", per_step=True)(0, np.ones((1, 9, 2), np.float32))


# -- LayerCAM's scaling and fusion ----------------------------------------------------------------


@pytest.mark.slow
def test_layer_cam_is_scaled_by_a_hyperbolic_tangent(case):
    plain = references.layer_cam(case.values.conv1, case.gradients.conv1)
    expected = np.tanh(2 * references.normalize(plain))
    maps = LayerCAM(case.model, "conv1", scale=2, **RAW)(case.classes, case.images)
    assert_same(maps, expected)


@pytest.mark.slow
def test_layer_cam_at_the_pools_of_vgg16():
    """Where the published pictures are from, against the gradients of the layers above alone."""
    model = keras.applications.VGG16(
        weights=None, include_top=False, pooling="avg", input_shape=(32, 48, 3)
    )
    images = np.random.default_rng(0).uniform(-100, 100, (2, 32, 48, 3)).astype(np.float32)
    for name in ("block2_pool", "block3_pool", "block4_pool", "block5_pool"):
        output = model.get_layer(name).output
        activations = keras.Model(model.input, output)(images)
        with tf.GradientTape() as tape:
            tape.watch(activations)
            score = keras.Model(output, model.output)(activations)[:, 7]
        gradients = tape.gradient(score, activations)
        expected = references.layer_cam(activations.numpy(), gradients.numpy())
        assert expected.max() > 0
        found = LayerCAM(model, name, **RAW)(lambda output: output[:, 7], images)
        assert_same(found, expected, relative=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", rest_slow(["maximum", "mean"]))
@pytest.mark.parametrize(
    ("method", "reference"),
    [(LayerCAM, references.layer_cam), (kvis2.GradCAM, references.grad_cam)],
)
def test_fusion_of_the_maps_of_several_layers(case, method, reference, fusion):
    maps = [
        references.normalize(
            references.resize(
                reference(getattr(case.values, name), getattr(case.gradients, name)), (7, 9)
            )
        )
        for name in ("conv1", "conv2")
    ]
    expected = np.max(maps, axis=0) if fusion == "maximum" else np.mean(maps, axis=0)
    explainer = method(case.model, layers=["conv1", "conv2"], fusion=fusion, normalize=False)
    assert_same(explainer(case.classes, case.images), expected)
    assert_same(explainer(None, case.images[:1])[0].max(), 1.0 if fusion == "maximum" else
                explainer(None, case.images[:1]).max())  # fmt: skip


@pytest.mark.slow
def test_score_cam_fuses_layers_too(case):
    maps = [
        references.normalize(
            references.resize(
                references.score_cam(case.images, getattr(case.values, name), case.probability),
                (7, 9),
            )
        )
        for name in ("conv1", "conv2")
    ]
    explainer = ScoreCAM(case.model, layers=["conv1", "conv2"], normalize=False)
    assert_same(explainer(case.classes, case.images), np.max(maps, axis=0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": []}, "list of layers"),
        ({"layers": "conv1"}, "list of layers"),
        ({"layers": ["conv1"], "layer": "conv2"}, "no `layer` beside it"),
        ({"layers": ["conv1"], "fusion": "sum"}, "'maximum' or 'mean'"),
        ({"layers": ["conv1"], "resize": False}, "size of the input"),
        ({"scale": 0}, "positive number"),
        ({"pre_activation": True}, "`layer` to look at"),
    ],
)
def test_wrong_options_are_answered_in_a_sentence(case, options, message):
    with pytest.raises(ValueError, match=message):
        LayerCAM(case.model, **options)


# -- FullGrad -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_full_grad_is_the_sum_of_the_rescaled_parts(case):
    parts = [
        case.images * case.gradients.images,
        case.net.bias1 * case.gradients.pre1,
        case.net.bias2 * case.gradients.pre2,
    ]
    explainer = FullGrad(case.model, normalize=False)
    assert_same(explainer(case.classes, case.images), references.full_grad(parts, (7, 9)))
    assert explainer.completeness_gap.shape == (3,)
    assert explainer.completeness_gap.max() < 1e-4  # the bias of the dense layer is counted


@pytest.mark.slow
def test_full_grad_of_chosen_layers(case):
    parts = [case.images * case.gradients.images, case.net.bias2 * case.gradients.pre2]
    explainer = FullGrad(case.model, layers=["pre2"], normalize=False)
    assert_same(explainer(case.classes, case.images), references.full_grad(parts, (7, 9)))
    total = sum(part.sum(axis=(1, 2, 3)) for part in parts)
    logits = case.logit(case.images)
    expected = np.abs(total - logits) / np.abs(logits)
    np.testing.assert_allclose(explainer.completeness_gap, expected, rtol=1e-3)


@pytest.mark.slow
def test_full_grad_is_complete_with_batch_normalisation_and_fused_activations():
    layers = [
        keras.Input((8, 9, 2)),
        keras.layers.Conv2D(4, 3, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.DepthwiseConv2D(3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(5, activation="relu"),
        keras.layers.Dense(3),
    ]
    model, rng = keras.Sequential(layers), np.random.default_rng(0)
    model.set_weights([rng.normal(size=w.shape) ** 2 - 0.3 for w in model.get_weights()])
    model.layers[1].moving_variance.assign([0.5, 1, 2, 3])
    explainer = FullGrad(model)
    explainer([0, 1, 2], rng.normal(size=(3, 8, 9, 2)))
    assert explainer.completeness_gap.max() < 1e-4


# -- Guided Grad-CAM, saliency of a filter, pre-activation ----------------------------------------


def guided_gradient(case, top):
    """Guided backpropagation by hand, from the gradient at `conv2`."""
    pre2 = references.relu(top) * (case.values.pre2 > 0)
    pre1 = references.relu(convolve_backward(pre2, case.net.kernel2)) * (case.values.pre1 > 0)
    return convolve_backward(pre1, case.net.kernel1)


@pytest.mark.slow
def test_guided_grad_cam_is_the_product(case):
    cam = references.grad_cam(case.values.conv1, case.gradients.conv1)
    guided = guided_gradient(case, case.gradients.conv2)
    product = references.resize(cam, (7, 9))[..., None] * guided

    colour = GuidedGradCAM(case.model, layer="conv1", keepdims=True, normalize=False)
    assert_same(colour(case.classes, case.images), product)
    grey = GuidedGradCAM(case.model, layer="conv1", normalize=False)
    assert_same(grey(case.classes, case.images), np.abs(product).max(axis=-1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pre2", "conv2"])
def test_guided_saliency_of_one_filter(case, name):
    """cnn-visualizations, II.12: score = sum |A_{layer, filter}|, guided gradients."""
    filters = [1, 4, 2]
    one_hot = np.eye(5)[filters][:, None, None, :]
    values = getattr(case.values, name)
    top = one_hot * np.sign(values)
    if name == "conv2":
        expected = guided_gradient(case, top)
    else:
        pre1 = references.relu(convolve_backward(top, case.net.kernel2)) * (case.values.pre1 > 0)
        expected = convolve_backward(pre1, case.net.kernel1)
    explainer = kvis2.Saliency(
        case.model, model_modifier=kvis2.GuidedReLU(), keepdims=True, normalize=False
    )
    assert_same(explainer(LayerScore(name, filters), case.images), expected)


@pytest.mark.slow
def test_a_fused_activation_can_be_looked_behind(case):
    fused = keras.Sequential(
        [
            keras.Input(case.images.shape[1:]),
            keras.layers.Conv2D(4, 3, activation="relu", name="first"),
            keras.layers.Conv2D(5, 3, activation="relu", name="second"),
            *case.model.layers[-2:],
        ]
    )
    fused.set_weights(case.model.get_weights())

    maps = LayerCAM(fused, layer="first", pre_activation=True, **RAW)(case.classes, case.images)
    assert_same(maps, references.layer_cam(case.values.pre1, case.gradients.pre1))
    maps = LayerCAM(fused, layer="first", **RAW)(case.classes, case.images)
    assert_same(maps, references.layer_cam(case.values.conv1, case.gradients.conv1))

    score = LayerScore("second", [1, 4, 2], pre_activation=True)
    maps = kvis2.Saliency(fused, keepdims=True, normalize=False)(score, case.images)
    top = np.eye(5)[[1, 4, 2]][:, None, None, :] * np.sign(case.values.pre2)
    conv1 = convolve_backward(top, case.net.kernel2)
    assert_same(maps, convolve_backward(conv1 * (case.values.pre1 > 0), case.net.kernel1))
    assert fused.layers[0].activation is keras.activations.relu


@pytest.mark.slow
def test_a_filter_that_the_layer_does_not_have(case):
    with pytest.raises(ValueError, match="from 0 to 4"):
        kvis2.Saliency(case.model)(LayerScore("conv2", 5), case.images)


@pytest.mark.slow
def test_a_layer_without_a_fused_activation(case):
    with pytest.raises(ValueError, match="a layer with an activation"):
        LayerCAM(case.model, layer=4, pre_activation=True)(0, case.images)
