"""The references themselves, against difference quotients, axioms and closed forms."""

import numpy as np
import pytest
import references
import tensorflow as tf
from references import assert_same
from tiny_net import Case, TinyNet


@pytest.fixture(scope="module")
def case():
    return Case.of(TinyNet.random(64))


def test_the_keras_twin_is_the_same_function(case):
    assert_same(np.asarray(case.model(case.images)), case.net.probabilities(case.images))


@pytest.mark.parametrize("place", ["images", "conv1"])
def test_the_backward_pass_is_the_slope_of_the_forward_pass(case, place):
    """Central differences along random directions."""
    point, gradient = getattr(case.values, place), getattr(case.gradients, place)
    rng, rows = np.random.default_rng(1), np.arange(len(case.classes))
    function = case.net.head if place == "conv1" else lambda x: case.net.forward(x).logits
    for _ in range(5):
        step = 1e-6 * rng.normal(size=point.shape)
        difference = (function(point + step) - function(point - step))[rows, case.classes]
        slope = 2 * (gradient * step).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(difference, slope, rtol=1e-4, atol=1e-10)


def test_at_the_last_map_the_linear_methods_agree(case):
    """After global average pooling: CAM = positions * Grad-CAM = positions * HiResCAM, unclipped.

    And HiResCAM adds up to the score without its bias.
    """
    activations, gradients = case.values.conv2, case.gradients.conv2
    hires = references.hires_cam(activations, gradients)
    positions = np.prod(activations.shape[1:3])
    for n, index in enumerate(case.classes):
        zhou = references.cam(activations[n : n + 1], case.net.dense[:, index])
        assert_same(zhou, positions * hires[n : n + 1])
    assert_same(references.grad_cam(activations, gradients), references.relu(hires))
    assert_same(references.x_grad_cam(activations, gradients), references.relu(hires))
    bias = case.net.bias[case.classes]
    assert_same(hires.sum(axis=(1, 2)), case.logit(case.images) - bias)


def test_x_grad_cam_keeps_the_sum_of_gradient_times_activation():
    """The sensitivity axiom of Fu 2020, on positive values where nothing is clipped."""
    activations, gradients = np.random.default_rng(0).random((2, 3, 4, 5, 6))
    cam = references.x_grad_cam(activations, gradients)
    assert_same(cam.sum(axis=(1, 2)), (activations * gradients).sum(axis=(1, 2, 3)))


def test_grad_cam_plus_plus_of_a_constant_gradient():
    """alpha = 1 / (2 + g sum(A)) at every position, for g > 0; a negative g weighs nothing."""
    activations = np.random.default_rng(0).random((1, 3, 4, 2))
    gradients = np.ones_like(activations) * [0.5, -0.5]
    first = activations[..., 0]
    weight = 12 * 0.5 / (2 + 0.5 * first.sum())
    assert_same(references.grad_cam_plus_plus(activations, gradients), weight * first)


def test_smooth_grad_cam_plus_plus_of_one_draw_is_grad_cam_plus_plus(case):
    activations, gradients = case.values.conv1, case.gradients.conv1
    smooth = references.smooth_grad_cam_plus_plus(activations, np.stack([gradients] * 3))
    assert_same(smooth, references.grad_cam_plus_plus(activations, gradients))


def test_ablation_weights_of_a_linear_head_are_its_shares(case):
    """y - y_k = w_k mean(A_k), over |y|, where only average pooling and a dense layer follow."""
    activations = case.values.conv2
    columns = case.net.dense[:, case.classes].T
    bias = case.net.bias[case.classes]

    def score(values):
        return (values.mean(axis=(1, 2)) * columns).sum(axis=-1) + bias

    weights = columns * activations.mean(axis=(1, 2)) / np.abs(score(activations))[:, None]
    expected = references.relu(references.weighted_sum(weights, activations))
    assert_same(references.ablation_cam(activations, score), expected)


def test_eigen_cam_recovers_the_shape_of_a_map_of_rank_one():
    """A = u v^T gives A V_1 = u |v|, and for positive values the positive sign."""
    rng = np.random.default_rng(0)
    shape, channels = rng.random((1, 3, 4)), rng.random(5)
    features = shape[..., None] * channels
    expected = shape * np.linalg.norm(channels)
    assert_same(references.eigen_cam(features), expected)
    assert_same(references.first_projection(-features), -expected)


def test_full_gradients_add_up_to_the_score(case):
    net, gradients = case.net, case.gradients
    parts = (case.images * gradients.images, net.bias1 * gradients.pre1, net.bias2 * gradients.pre2)
    total = sum(part.sum(axis=(1, 2, 3)) for part in parts) + net.bias[case.classes]
    assert_same(total, case.logit(case.images))
    maps = references.full_grad(parts, (7, 9))
    assert maps.shape == (3, 7, 9)
    assert (maps >= 0).all()
    assert (maps <= 2 + 4 + 5).all()  # each channel adds at most 1


def test_integrated_gradients_are_complete(case):
    baseline = np.zeros_like(case.images)
    attribution = references.integrated_gradients(
        case.images, baseline, lambda x: case.net.gradients(x, case.classes).images, steps=100
    )
    difference = case.logit(case.images) - case.logit(baseline)
    assert_same(attribution.sum(axis=(1, 2, 3)), difference, relative=2e-2)


def test_input_times_gradient_of_a_net_without_biases_adds_up_to_the_score():
    net = TinyNet.random(64)
    case = Case.of(net._replace(bias1=0 * net.bias1, bias2=0 * net.bias2, bias=0 * net.bias))
    maps = references.input_times_gradient(case.images, case.gradients.images)
    assert_same(maps.sum(axis=(1, 2)), case.logit(case.images))


def test_resize_has_half_pixel_centres():
    assert_same(references.resize(np.array([[0.0, 4.0]]), [4]), np.array([[0.0, 1.0, 3.0, 4.0]]))
    maps = np.random.default_rng(0).random((2, 3, 5))
    for size in [(7, 11), (2, 4), (3, 5)]:
        theirs = tf.image.resize(maps[..., None], size)[..., 0]
        assert_same(theirs.numpy(), references.resize(maps, size))
    stacked = np.repeat(maps[:, None], 4, axis=1)  # the same at every depth
    assert_same(references.resize(stacked, (6, 7, 11))[:, 2], references.resize(maps, (7, 11)))


def test_normalize_keeps_zero_and_never_divides_by_it():
    maps = np.array([[[0.0, 2.0]], [[-4.0, 1.0]], [[0.0, 0.0]]])
    assert references.normalize(maps).tolist() == [[[0, 1]], [[-1, 0.25]], [[0, 0]]]
    assert references.normalize(maps, "batch").tolist() == [[[0, 0.5]], [[-1, 0.25]], [[0, 0]]]
    assert references.normalize(maps, "minmax").tolist() == [[[0, 1]], [[0, 1]], [[0, 0]]]
