"""The same maps as tf-keras-vis where its formula is the paper's, and what differs elsewhere."""

import importlib
import warnings

import keras
import numpy as np
import pytest
import references
from references import assert_same
from tiny_net import Case, TinyNet

import kvis2

pytestmark = pytest.mark.parity

PEERS = {
    "GradCAM": "gradcam.Gradcam",
    "GradCAMPlusPlus": "gradcam_plus_plus.GradcamPlusPlus",
    "LayerCAM": "layercam.Layercam",
    "ScoreCAM": "scorecam.Scorecam",
    "Saliency": "saliency.Saliency",
}


@pytest.fixture(scope="module")
def case():
    return Case.of(TinyNet.random(64))


def replace_to_linear(model):
    model.get_layer("predictions").activation = keras.activations.linear


def peer(method, model, modifier=replace_to_linear, **options):
    """`(classes, images) -> maps` of tf-keras-vis, by default for the scores before the softmax.

    It is written for older versions of SciPy and Keras, which warn; that is not at issue here.
    """
    pytest.importorskip("tf_keras_vis", exc_type=ImportError)
    module, name = PEERS[method].split(".")

    def explain(classes, images):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explainer = getattr(importlib.import_module(f"tf_keras_vis.{module}"), name)
            scores = importlib.import_module("tf_keras_vis.utils.scores")
            explain = explainer(model, model_modifier=modifier)
            return np.asarray(explain(scores.CategoricalScore(classes), images, **options))

    return explain


def peer_cam(method, model, layer, modifier=replace_to_linear):
    return peer(
        method,
        model,
        modifier,
        penultimate_layer=layer,
        seek_penultimate_conv_layer=False,
        expand_cam=False,
        normalize_cam=False,
    )


def raw_cam(method, model, layer):
    return getattr(kvis2, method)(model, layer=layer, normalize=False, resize=False)


@pytest.mark.parametrize("layer", ["pre1", "conv1", "conv2"])
@pytest.mark.parametrize("method", ["GradCAM", "LayerCAM"])
def test_same_cam(case, method, layer):
    theirs = peer_cam(method, case.model, layer)(case.classes, case.images)
    assert_same(raw_cam(method, case.model, layer)(case.classes, case.images), theirs)


def test_same_saliency(case):
    theirs = peer("Saliency", case.model, normalize_map=False)(case.classes, case.images)
    ours = kvis2.Saliency(case.model, normalize=False)(case.classes, case.images)
    assert_same(ours, theirs)


def test_same_saliency_normalized_by_minimum_and_maximum(case):
    theirs = peer("Saliency", case.model)(case.classes, case.images)
    ours = kvis2.Saliency(case.model, normalize="minmax")(case.classes, case.images)
    assert_same(ours, theirs)


def test_grad_cam_plus_plus_of_tf_keras_vis_is_not_the_papers(case):
    """It divides each channel's alphas by their sum, as the authors' code does (eq. 19 does not).

    And it keeps the factor exp(score), which overflows float32 for scores above 88.
    """
    activations, gradients = case.values.conv1, case.gradients.conv1
    alpha, positive = references.grad_cam_plus_plus_weights(activations, gradients)
    alpha = references.ratio(alpha, alpha.sum(axis=(1, 2), keepdims=True))
    weights = (alpha * positive).sum(axis=(1, 2))
    variant = references.relu(references.weighted_sum(weights, activations))

    theirs = peer_cam("GradCAMPlusPlus", case.model, "conv1")(case.classes, case.images)
    ours = raw_cam("GradCAMPlusPlus", case.model, "conv1")(case.classes, case.images)

    assert_same(theirs, np.exp(case.logit(case.images))[:, None, None] * variant)
    difference = references.normalize(ours) - references.normalize(theirs)
    assert np.abs(difference).max() > 0.02


@pytest.fixture
def unresized():
    """A model whose feature map has the size of its input, with three images."""
    net, shape = TinyNet.random(64), (5, 6, 2)
    model = keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax", name="predictions"),
        ]
    )
    model.set_weights([net.kernel1, net.bias1, 3 * net.dense[:4], net.bias])
    return model, np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)


def test_same_score_cam_where_nothing_is_resized(unresized):
    model, images = unresized
    theirs = peer_cam("ScoreCAM", model, "conv")([0, 2, 1], images)
    assert_same(raw_cam("ScoreCAM", model, "conv")([0, 2, 1], images), theirs)


def test_score_cam_of_tf_keras_vis_takes_the_softmax_twice_of_a_model_that_ends_in_one(unresized):
    """It takes a softmax of any output, so that only models that end in scores come out right."""
    model, images = unresized

    def softmax_of_softmax(inputs):
        return references.softmax(np.asarray(model(inputs)))[[0, 1, 2], [0, 2, 1]]

    activations = np.asarray(model.get_layer("conv")(images))
    theirs = peer_cam("ScoreCAM", model, "conv", modifier=None)([0, 2, 1], images)
    ours = raw_cam("ScoreCAM", model, "conv")([0, 2, 1], images)

    assert_same(theirs, references.score_cam(images, activations, softmax_of_softmax))
    assert np.abs(ours - theirs).max() > 0.02 * ours.max()


def test_score_cam_of_tf_keras_vis_differs_where_masks_are_resized(case):
    """It resizes the masks with aligned corners (SciPy's zoom), kvis2 with half-pixel centres."""
    theirs = peer_cam("ScoreCAM", case.model, "conv2")(case.classes, case.images)
    ours = raw_cam("ScoreCAM", case.model, "conv2")(case.classes, case.images)
    difference = references.normalize(ours) - references.normalize(theirs)
    assert 0.002 < np.abs(difference).max() < 0.2  # the same method, another grid
