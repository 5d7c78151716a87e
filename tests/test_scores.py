"""Scores on outputs written out by hand, and the sentences for those that do not fit."""

import copy
from pathlib import Path

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from tiny_net import TinyNet

from kvis2 import BinaryScore, CategoricalScore, GradCAM, Saliency, ScoreCAM
from kvis2.models import ancestors
from kvis2.scores import (
    ContrastScore,
    FinerScore,
    RegressionScore,
    SegmentationScore,
    Shows,
    as_scores,
)

CLASSES = tf.constant([[1.0, 5.0, 2.0], [7.0, 3.0, 4.0]])
MAPS = tf.reshape(tf.range(2 * 2 * 3 * 2, dtype=tf.float32), (2, 2, 3, 2))


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (CategoricalScore(1), [5, 3]),
        (CategoricalScore([2, 0]), [2, 7]),
        (ContrastScore(1, 0), [4, -4]),
        (ContrastScore([1, 2], [2, 1]), [3, 1]),
        (RegressionScore(), [1, 7]),
        (RegressionScore("decrease"), [-1, -7]),
        (RegressionScore(["increase", "decrease"], unit=[2, 1]), [2, -3]),
    ],
)
def test_score_of_a_vector(score, expected):
    np.testing.assert_array_equal(as_scores(score, 2)(CLASSES), expected)


def test_the_gradient_of_a_class_does_not_wait_for_its_score():
    """So that the forward pass of the last dense layer is left out where only maps are made."""

    @tf.function(autograph=False)
    def gradient(features, kernel, classes):
        logits = features @ kernel
        score = copy.copy(CategoricalScore(0))
        score.indices = classes
        found = tf.gradients(score(logits), features, grad_ys=tf.ones([2]))[0]
        assert logits.op not in ancestors(found)
        return found

    draw = np.random.default_rng(0)
    features, kernel = draw.normal(size=(2, 4)), draw.normal(size=(4, 3))

    found = gradient(*(tf.constant(each, tf.float32) for each in (features, kernel)), [2, 0])

    np.testing.assert_allclose(found, kernel[:, [2, 0]].T, rtol=1e-6)


def test_regression_of_a_model_that_returns_one_number():
    np.testing.assert_array_equal(RegressionScore("decrease")(tf.constant([2.0, 3.0])), [-2, -3])


def test_segmentation_is_the_mean_over_the_mask():
    mask = np.zeros((2, 2, 3))
    mask[0, 0, 1] = mask[0, 1, 2] = 1  # Of class 1: (0, 1) holds 3, (1, 2) holds 11.
    mask[1, 0, 0], mask[1, 1, 1] = 3, 1  # Weighted; of class 0: 12 and 20.
    np.testing.assert_allclose(SegmentationScore([1, 0], mask)(MAPS), [7, (3 * 12 + 20) / 4])


def test_segmentation_without_a_mask_is_the_mean_over_all_pixels():
    for score in SegmentationScore(1), SegmentationScore(1, np.ones((1, 2, 3), bool)):
        np.testing.assert_allclose(as_scores(score, 2)(MAPS), [6, 18])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: RegressionScore("up"), "'increase' or 'decrease'"),
        (lambda: RegressionScore([]), "'increase' or 'decrease'"),
        (lambda: RegressionScore(unit=1.5), "Expected class indices"),
        (lambda: ContrastScore(1, []), "Expected class indices"),
        (lambda: SegmentationScore(0, np.zeros((2, 3, 3))), r"empty mask for sample \[0, 1\]"),
        (lambda: SegmentationScore(0, np.ones(3)), r"shape \(batch, \*spatial\)"),
        (lambda: SegmentationScore(0, -np.ones((1, 3, 3))), "weights from 0 up"),
    ],
)
def test_wrong_argument(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("score", "shape", "said"),
    [
        (ContrastScore(1, 3), (None, 3), "from 0 to 2"),
        (RegressionScore(unit=1), (None, 1), "from 0 to 0"),
        (SegmentationScore(2), (None, 4, 4, 2), "from 0 to 1"),
        (
            SegmentationScore(0, np.ones((1, 3, 4))),
            (None, 4, 4, 2),
            r"\(batch, 4, 4\).*\(1, 3, 4\)",
        ),
        (BinaryScore(True), (None, 3), r"shape \(batch, 1\)"),
    ],
)
def test_score_that_does_not_fit_the_output(score, shape, said):
    with pytest.raises(ValueError, match=said):
        score.validate(tf.TensorShape(shape))


def test_one_mask_for_each_sample_and_another_is_not_another_trace():
    inputs = keras.Input((6, 5, 1))
    x = keras.layers.Conv2D(3, 3, padding="same", activation="relu", name="features")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1, activation="softmax")(x))
    images = np.random.default_rng(0).random((2, 6, 5, 1), dtype="float32")
    saliency = Saliency(model, normalize=False)
    for column in range(5):
        mask = np.zeros((2, 6, 5), bool)
        mask[:, :, column] = True
        maps = saliency(SegmentationScore([0, 1], mask), images)
        seen = np.flatnonzero(maps.max(axis=(0, 1)))
        assert set(seen) <= {column - 1, column, column + 1}  # The kernel is 3 pixels wide.
        assert column in seen
    assert saliency.trace_count == 1
    with pytest.raises(ValueError, match=r"a score for every sample: 2 .*Received: 3 mask"):
        saliency(SegmentationScore(0, np.ones((3, 6, 5))), images)


def test_contrast_is_the_difference_of_the_gradients(small_model, images):
    saliency = Saliency(small_model, keepdims=True, normalize=False)
    found = saliency(ContrastScore(2, 1), images)
    np.testing.assert_allclose(found, saliency(2, images) - saliency(1, images), atol=1e-6)


class TestOneSigmoidUnit:
    """Class 0 is minus the logit, and one minus the probability."""

    @pytest.fixture
    def model(self):
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(3, 3, activation="relu", name="features")(inputs)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))

    @pytest.fixture
    def images(self):
        return np.random.default_rng(0).random((3, 8, 8, 1), dtype="float32")

    def test_binary_score_is_the_class(self, model, images):
        saliency = Saliency(model, keepdims=True, normalize=False)
        for target in (0, 1):
            found = saliency(BinaryScore(target), images)
            np.testing.assert_array_equal(found, saliency(target, images))

    def test_contrast_of_the_two_classes_is_twice_the_logit(self, model, images):
        saliency = Saliency(model, keepdims=True, normalize=False)
        found = saliency(ContrastScore(1, 0), images)
        np.testing.assert_allclose(found, 2 * saliency(1, images), atol=1e-6)

    def test_score_cam_weighs_by_the_probability_of_either_class(self, model, images):
        """Score-CAM of the two classes: the weights p and 1 - p, so the maps add up."""
        cam = ScoreCAM(model, normalize=False, resize=False)
        both = cam(BinaryScore(False), images) + cam(BinaryScore(True), images)
        features = keras.Model(model.inputs, model.get_layer("features").output)
        np.testing.assert_allclose(both, features.predict(images, verbose=0).sum(-1), atol=1e-5)

    def test_per_sample_targets(self, model, images):
        cam = GradCAM(model, normalize=False)
        with pytest.warns(UserWarning, match="no evidence"):
            maps = cam(BinaryScore([True, False, True]), images)
        positive = np.abs(maps).reshape(3, -1).max(1) > 0
        assert positive[0] != positive[1]
        assert positive[0] == positive[2]


class TestFiner:
    """Finer-CAM against pytorch-grad-cam 1.5.7, and its score by hand."""

    @staticmethod
    def by_hand(logits, own, nearest, alpha):
        p = np.exp(logits) / np.exp(logits).sum()
        others = [c for c in np.argsort(np.abs(logits - logits[own])) if c != own][:nearest]
        mean = sum(p[c] * logits[c] for c in others) / sum(p[c] for c in others)
        return logits[own] - alpha * mean

    @pytest.mark.parametrize(("index", "nearest", "alpha"), [(4, 3, 1.0), (None, 2, 0.6)])
    def test_score(self, index, nearest, alpha):
        logits = np.random.default_rng(0).normal(size=(4, 6))
        own = logits.argmax(axis=1) if index is None else [index] * 4
        expected = [
            self.by_hand(row, t, nearest, alpha) for row, t in zip(logits, own, strict=True)
        ]
        score = FinerScore(index, nearest, alpha)
        np.testing.assert_allclose(score(tf.constant(logits, tf.float32)), expected, rtol=1e-5)

    def test_of_probabilities_the_weights_are_the_probabilities(self):
        p = np.array([[0.5, 0.3, 0.15, 0.05]])
        expected = 0.5 - (0.3 * 0.3 + 0.15 * 0.15) / 0.45
        score = FinerScore(0, nearest=2).fixed(tf.constant(p, tf.float32), Shows(True))
        np.testing.assert_allclose(score(tf.constant(p, tf.float32)), [expected], rtol=1e-5)

    @pytest.mark.parametrize(
        ("golden", "score"),
        [
            ("finer_predicted", FinerScore()),
            ("finer_class_4", FinerScore(4)),
            ("finer_alpha", FinerScore(1, nearest=2, alpha=0.6)),
        ],
    )
    def test_grad_cam_of_it_is_finer_cam(self, golden, score):
        goldens = np.load(Path(__file__).parent / "goldens" / "pytorch_grad_cam.npz")
        model = TinyNet.random(3, classes=6).as_keras(7, 9)
        found = GradCAM(model, "conv1", normalize=False, resize=False)(score, goldens["images"])
        # The peer stretches a map to 0..1 before it is enlarged, and again after.
        small = references.normalize(found, "minmax")
        large = references.normalize(references.resize(small, (7, 9)), "minmax")
        np.testing.assert_allclose(large, goldens[golden], atol=1e-4)

    def test_no_comparison_is_the_class(self, small_model, images):
        cam = GradCAM(small_model, normalize=False)
        np.testing.assert_allclose(cam(FinerScore(2, alpha=0), images), cam(2, images), atol=1e-6)

    def test_methods_without_gradients_keep_the_classes_of_the_input(self, small_model, images):
        """Score-CAM's masked inputs have other classes near: they are not looked at."""
        maps = ScoreCAM(small_model, "late", normalize=False)(FinerScore(1), images)
        explainer = ScoreCAM(small_model, "late", normalize=False, batch_size=3)
        np.testing.assert_allclose(maps, explainer(FinerScore(1), images), atol=1e-6)

        probabilities = small_model(images).numpy()
        compared = FinerScore(1).chosen(tf.constant(probabilities), Shows(True))["compared"]

        def as_on_the_input(output):
            values = tf.gather(output, compared[:1], axis=1, batch_dims=1)
            shares = values[:, 1:] / tf.reduce_sum(values[:, 1:], axis=1, keepdims=True)
            return values[:, 0] - tf.reduce_sum(shares * values[:, 1:], axis=1)

        by_function = ScoreCAM(small_model, "late", normalize=False, batch_size=1)
        np.testing.assert_allclose(maps[:1], by_function(as_on_the_input, images[:1]), atol=1e-5)

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda: FinerScore(1, nearest=0), "a positive int"),
            (lambda: FinerScore(9).validate(tf.TensorShape((None, 4))), "from 0 to 3"),
            (lambda: FinerScore(0).validate(tf.TensorShape((None, 1))), "several classes"),
        ],
    )
    def test_wrong_argument(self, make, said):
        with pytest.raises(ValueError, match=said):
            make()
