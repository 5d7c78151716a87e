"""The CAM family against slow versions of the papers' equations and closed forms."""

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from references import assert_same
from tiny_net import Case, TinyNet

import kvis2


@pytest.fixture(scope="module")
def case():
    return Case.of(TinyNet.random(64))


def raw(method, model, layer, **options):
    return getattr(kvis2, method)(model, layer=layer, normalize=False, resize=False, **options)


GRADIENT_METHODS = {
    "GradCAM": references.grad_cam,
    "GradCAMPlusPlus": references.grad_cam_plus_plus,
    "LayerCAM": references.layer_cam,
}


@pytest.mark.parametrize("layer", ["pre1", "conv1", "conv2"])
@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_raw_map_is_the_papers_equation(case, method, layer):
    activations, gradients = getattr(case.values, layer), getattr(case.gradients, layer)
    expected = GRADIENT_METHODS[method](activations, gradients)
    exchanged = GRADIENT_METHODS[method](gradients, activations)
    assert np.abs(expected - exchanged).max() > 0.1 * expected.max()  # mixing A and G up shows

    maps = raw(method, case.model, layer)(case.classes, case.images)

    assert maps.dtype == np.float32
    assert_same(maps, expected)


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_one_class_for_all_and_predicted_class(case, method):
    reference = GRADIENT_METHODS[method]
    explainer = raw(method, case.model, "conv1")
    for score, classes in [(0, [0, 0, 0]), (None, case.values.logits.argmax(axis=-1))]:
        gradients = case.net.gradients(case.images, classes).conv1
        assert_same(explainer(score, case.images), reference(case.values.conv1, gradients))


def test_without_linear_output_the_probability_is_explained(case):
    """dp_c = p_c (dz_c - sum_j p_j dz_j); the score before the softmax is the default."""
    p = references.softmax(case.values.logits)
    logits = [case.net.gradients(case.images, [j] * 3).conv1 for j in range(3)]
    mean = sum(p[:, j, None, None, None] * logits[j] for j in range(3))
    gradients = case.probability(case.images)[:, None, None, None] * (case.gradients.conv1 - mean)
    explainer = raw("LayerCAM", case.model, "conv1", model_modifier=None)

    maps = explainer(case.classes, case.images)

    assert_same(maps, references.layer_cam(case.values.conv1, gradients))


@pytest.mark.parametrize("scale", [1e-20, 1e10])
@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_very_small_and_very_large_scores_lose_nothing(method, scale):
    """Squares and cubes of the gradient, or exp(score), leave the range of float32 here."""
    net = TinyNet.random(64)
    case = Case.of(net._replace(dense=scale * net.dense))
    maps = raw(method, case.model, "conv1")(case.classes, case.images)
    assert_same(maps, GRADIENT_METHODS[method](case.values.conv1, case.gradients.conv1))


# -- closed forms ---------------------------------------------------------------------------------


def global_average_model(rank):
    """conv -> GAP -> dense on `rank` spatial axes, no softmax."""
    size = (9, 6, 5)[:rank]
    convolution = getattr(keras.layers, f"Conv{rank}D")(4, 2, activation="relu", name="conv")
    pooling = getattr(keras.layers, f"GlobalAveragePooling{rank}D")()
    dense = keras.layers.Dense(3, name="scores")
    model = keras.Sequential([keras.Input((*size, 2)), convolution, pooling, dense])
    rng = np.random.default_rng(rank)
    model.set_weights([rng.normal(size=weights.shape) for weights in model.get_weights()])
    return model, rng.normal(size=(2, *size, 2)).astype(np.float32)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_after_global_average_pooling_grad_cam_is_cam(rank):
    """G_k = w_k^c / positions, so Grad-CAM = ReLU(CAM) / positions: here A and G differ most."""
    model, inputs = global_average_model(rank)
    activations = np.asarray(model.get_layer("conv")(inputs), np.float64)
    column = model.get_layer("scores").get_weights()[0][:, 1]
    positions = np.prod(activations.shape[1:-1])

    maps = raw("GradCAM", model, "conv")(1, inputs)

    assert_same(maps, references.relu(references.cam(activations, column)) / positions)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_maps_are_resized_with_half_pixel_centres(rank):
    model, inputs = global_average_model(rank)
    small = raw("GradCAM", model, "conv")(1, inputs)

    maps = kvis2.GradCAM(model, layer="conv", normalize=False)(1, inputs)

    assert_same(maps, references.resize(small, inputs.shape[1:-1]))


@pytest.mark.parametrize("mode", ["image", "batch", "minmax"])
def test_maps_are_normalized_after_the_resize(case, mode):
    small = references.grad_cam(case.values.conv1, case.gradients.conv1)
    expected = references.normalize(references.resize(small, (7, 9)), mode)

    maps = kvis2.GradCAM(case.model, layer="conv1", normalize=mode)(case.classes, case.images)

    assert_same(maps, expected)


def test_the_default_is_normalized_by_image(case):
    maps = kvis2.GradCAM(case.model, layer="conv1")(case.classes, case.images)
    small = references.grad_cam(case.values.conv1, case.gradients.conv1)
    assert_same(maps, references.normalize(references.resize(small, (7, 9)), "image"))


# -- Score-CAM ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["pre1", "conv1", "conv2"])
def test_score_cam_weighs_by_the_probability_of_the_masked_image(case, layer):
    activations = getattr(case.values, layer)
    expected = references.score_cam(case.images, activations, case.probability)
    for batch_size in (None, 2):  # a chunk smaller than the batch and than the channels
        explainer = raw("ScoreCAM", case.model, layer, batch_size=batch_size)
        assert_same(explainer(case.classes, case.images), expected)


@pytest.mark.parametrize("max_channels", [1, 3])
def test_score_cam_takes_each_images_channels_of_highest_variance(case, max_channels):
    activations = case.values.conv1
    order = np.argsort(-activations.var(axis=(1, 2)), axis=-1)
    assert len({tuple(sorted(one)) for one in order[:, :max_channels]}) > 1  # images differ
    expected = references.score_cam(case.images, activations, case.probability, max_channels)

    explainer = raw("ScoreCAM", case.model, "conv1", max_channels=max_channels)

    assert_same(explainer(case.classes, case.images), expected)


def test_a_constant_channel_has_no_mask_and_no_weight():
    net = TinyNet.random(64)
    kernel, bias = net.kernel1 * [1, 0, 1, 1], net.bias1 * [1, 0, 1, 1] + [0, 1, 0, 0]
    case = Case.of(net._replace(kernel1=kernel, bias1=bias))
    assert (case.values.conv1[..., 1] == 1).all()
    expected = references.score_cam(case.images, case.values.conv1, case.probability)
    assert_same(raw("ScoreCAM", case.model, "conv1")(case.classes, case.images), expected)


class CountRows(keras.layers.Layer):
    """Identity that notes how many rows pass."""

    rows = 0

    def note(self, count):
        self.rows += int(count)

    def call(self, inputs):
        tf.py_function(self.note, [tf.shape(inputs)[0]], [])
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape


class CountComputedRows(CountRows):
    """The same, of the rows that are needed for a result: TensorFlow may leave the others out."""

    def call(self, inputs):
        def passed(rows):
            self.note(len(rows))
            return rows

        output = tf.numpy_function(passed, [inputs], tf.float32, stateful=False)
        return tf.ensure_shape(output, inputs.shape)


@pytest.mark.parametrize(("place", "expected"), [(0, "once"), (2, "for each channel")])
def test_ablation_cam_computes_only_what_lies_behind_the_layer(case, place, expected):
    layers = list(case.model.layers)
    counter = CountComputedRows()
    layers.insert(place, counter)
    counted = keras.Sequential([keras.Input((7, 9, 2)), *layers])
    counter.rows = 0
    maps = raw("AblationCAM", counted, "conv1")(case.classes, case.images)
    assert_same(maps, raw("AblationCAM", case.model, "conv1")(case.classes, case.images))
    alive = int(case.values.conv1.any(axis=(1, 2)).sum())
    assert alive > 2 * len(case.images)
    if expected == "once":
        assert counter.rows <= 2 * len(case.images)
    else:
        assert counter.rows >= alive


def test_score_cam_skips_channels_that_are_zero_everywhere(case):
    net = case.net
    dead = Case.of(net._replace(bias1=net.bias1 - [0, 1e3, 0, 0]))
    without = Case.of(
        net._replace(
            kernel1=np.delete(net.kernel1, 1, axis=3),
            bias1=np.delete(net.bias1, 1),
            kernel2=np.delete(net.kernel2, 1, axis=2),
        )
    )
    assert not dead.values.conv1[..., 1].any()
    expected = references.score_cam(dead.images, dead.values.conv1, dead.probability)
    rows = []
    for each in (dead, without):
        counter = CountRows()
        counted = keras.Sequential([keras.Input((7, 9, 2)), counter, *each.model.layers])
        counter.rows = 0
        maps = raw("ScoreCAM", counted, "conv1")(each.classes, each.images)
        assert_same(maps, expected)
        rows.append(counter.rows)

    assert rows[0] == rows[1]
    assert rows[0] >= 3 * len(case.images)  # three living channels
