"""Bad input gets one sentence: what was expected, what was received, what to do."""

import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest

from kvis2 import RISE, FullGrad, GradCAM, LinearOutput, Occlusion, Saliency, ScoreCAM
from kvis2.scores import BinaryScore, CategoricalScore


def sentence(call):
    """The message of the error that `call` raises; it must say what was received."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    message = str(caught.value)
    assert "Expected" in message
    assert "Received: " in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ("lat", "Close names: 'late'"),
        ("predictons", "Close names: 'predictions'"),
        (17, "between -6 and 5"),
        ("gap", "(batch, ≥1 spatial axis, channels)"),
        ("predictions", "before the final softmax"),
    ],
)
def test_wrong_layer(small_model, images, layer, said):
    assert said in sentence(lambda: GradCAM(small_model, layer=layer)(0, images))


def test_layer_of_another_model(small_model, images):
    other = keras.models.clone_model(small_model)
    assert "not in it" in sentence(lambda: GradCAM(small_model, layer=other.get_layer("late")))


def test_layer_that_the_score_does_not_depend_on(images):
    inputs = keras.Input((16, 12, 3))
    used = keras.layers.Conv2D(4, 3, name="used")(inputs)
    unused = keras.layers.Conv2D(4, 3, name="unused")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()
    outputs = [keras.layers.Dense(2, name=n)(pooled(x)) for n, x in [("a", used), ("b", unused)]]
    model = keras.Model(inputs, outputs)
    cam = GradCAM(model, layer="unused")
    assert "'unused'" in sentence(lambda: cam({"a": 0}, images))
    assert "one score for each of the model's 2 outputs" in sentence(lambda: cam(0, images))
    assert "named ['a', 'b']" in sentence(lambda: cam({"c": 0}, images))


def test_layer_that_is_never_called(images):
    class Aside(keras.Model):
        def __init__(self):
            super().__init__()
            self.pool = keras.layers.GlobalAveragePooling2D()
            self.aside = keras.layers.ReLU(name="aside")

        def call(self, inputs):
            return self.pool(inputs)

    model = Aside()
    model(images)
    assert "not reached" in sentence(lambda: GradCAM(model, layer="aside")(0, images))


@pytest.mark.parametrize("index", [4, -1, [0, 1, 2, 3, 4]])
def test_class_index_out_of_range(small_model, images, index):
    assert "from 0 to 3 (the output has 4 classes)" in sentence(
        lambda: GradCAM(small_model)(index, images)
    )


@pytest.mark.parametrize("explainer", [GradCAM, ScoreCAM, Saliency])
def test_score_list_of_wrong_length(small_model, images, explainer):
    said = sentence(lambda: explainer(small_model)([1, 2], images))
    assert "5 of them" in said
    assert "2 indices" in said


def test_binary_score_of_many_classes(small_model, images):
    assert "(batch, 1)" in sentence(lambda: Saliency(small_model)(BinaryScore(True), images))


@pytest.mark.parametrize("score", ["cat", 1.5, True, object()])
def test_score_of_wrong_type(small_model, images, score):
    sentence(lambda: GradCAM(small_model)(score, images))


@pytest.mark.parametrize("indices", [[], [[1]], 1.5, "a"])
def test_class_indices_of_wrong_form(indices):
    assert "class indices" in sentence(lambda: CategoricalScore(indices))


def test_swapped_arguments(small_model, images):
    assert "explainer(score, images)" in sentence(lambda: GradCAM(small_model)(images, 3))


def test_score_without_batch_axis(small_model, images):
    said = sentence(lambda: GradCAM(small_model)(lambda output: output[0, 0], images))
    assert "one number per sample" in said


@pytest.mark.parametrize(
    "shape", [(5, 16, 12, 1), (5, 12, 16, 3), (16, 12), (1, 5, 16, 12, 3), (5, 16, 12, 4)]
)
def test_wrong_input_shape(small_model, shape):
    said = sentence(lambda: GradCAM(small_model)(0, np.zeros(shape, "float32")))
    assert "(batch, 16, 12, 3)" in said
    assert str(shape) in said


def test_empty_batch(small_model, images):
    assert "at least one sample" in sentence(lambda: GradCAM(small_model)(0, images[:0]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_input_that_is_not_finite(small_model, images, value):
    images[2, 0, 0, 0] = value
    assert "1 NaN or infinite" in sentence(lambda: GradCAM(small_model)(0, images))


def test_images_of_different_sizes(small_model, images):
    ragged = [images[0], images[1, :8]]
    assert "one size" in sentence(lambda: GradCAM(small_model)(0, ragged))


def test_model_that_is_not_built(images):
    model = keras.Sequential([keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
    assert "built model" in sentence(lambda: GradCAM(model))
    assert "keras.Model" in sentence(lambda: GradCAM(images))


def test_model_with_nan_weights(small_model, images):
    small_model.get_layer("predictions").kernel.assign(np.full((8, 4), np.nan))
    assert "diverged" in sentence(lambda: GradCAM(small_model)(0, images))


def test_model_without_spatial_map(images):
    model = keras.Sequential(
        [keras.Input((16, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    assert "spatial feature map" in sentence(lambda: GradCAM(model)(0, images))


@pytest.mark.parametrize(
    "options",
    [
        {"normalize": "max"},
        {"normalize": True},
        {"batch_size": 0},
        {"batch_size": 2.5},
        {"model_modifier": LinearOutput},
        {"model_modifier": "linear"},
    ],
)
def test_wrong_option(small_model, options):
    sentence(lambda: GradCAM(small_model, **options))


@pytest.mark.parametrize(
    "options", [{"reduce": "max"}, {"smooth_samples": -1}, {"smooth_noise": -0.1}]
)
def test_wrong_saliency_option(small_model, options):
    sentence(lambda: Saliency(small_model, **options))


@pytest.mark.parametrize("method", [Occlusion, RISE, FullGrad])
def test_layer_for_a_method_that_explains_the_input(small_model, method):
    assert f"no `layer` for {method.__name__}" in sentence(
        lambda: method(small_model, layer="late")
    )


@pytest.mark.parametrize("most", [0, -3, 2.5])
def test_wrong_max_channels(small_model, most):
    assert "max_channels" in sentence(lambda: ScoreCAM(small_model, max_channels=most))


def test_map_that_is_zero_everywhere_warns_with_the_cause(small_model, images):
    late = small_model.get_layer("late")
    late.bias.assign(np.full(8, -100.0))
    with pytest.warns(UserWarning, match="activations of 'late' are all zero"):
        maps = GradCAM(small_model)(0, images)
    np.testing.assert_array_equal(maps, np.zeros((5, 16, 12)))


def test_map_without_gradient_warns_with_the_cause(small_model, images):
    small_model.get_layer("predictions").kernel.assign(np.zeros((8, 4)))
    with pytest.warns(UserWarning, match="the gradient at 'late' is zero"):
        GradCAM(small_model)(0, images)
    with pytest.warns(UserWarning, match="gradient of the score is zero"):
        Saliency(small_model)(0, images)


def test_map_of_negative_evidence_warns_with_the_cause(small_model, images):
    kernel = -np.abs(small_model.get_layer("predictions").kernel.numpy())
    small_model.get_layer("predictions").kernel.assign(kernel)
    with pytest.warns(UserWarning, match="against this score"):
        GradCAM(small_model)(0, images)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_map_of_a_constant_image_is_never_nan(small_model, value):
    images = np.full((2, 16, 12, 3), value, "float32")
    for explainer in (GradCAM, ScoreCAM, Saliency):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            maps = explainer(small_model)(1, images)
        assert maps.shape == (2, 16, 12)
        assert np.isfinite(maps).all()
        blank = not np.abs(maps).max(axis=(1, 2)).all()
        assert [("zero everywhere" in str(each.message)) for each in said] == [True] * blank


def test_integer_images_are_cast(small_model):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 16, 12, 3)).astype("uint8")
    expected = Saliency(small_model)(0, pixels.astype("float32"))
    np.testing.assert_array_equal(Saliency(small_model)(0, pixels), expected)


@pytest.mark.slow
def test_other_backend_is_refused_at_import():
    code = "import os; os.environ['KERAS_BACKEND'] = 'numpy'; import kvis2"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "ImportError: kvis2 expected Keras to run on TensorFlow" in result.stderr


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (lambda output: None, "Received: None"),
        (lambda output: output[:2, 0], "Received: another number of them"),
        (np.eye(5, dtype=int), "Received: array([[1, 0, 0, 0, 0], [0, 1,"),
        (CategoricalScore, "Received: <class"),
    ],
)
def test_wrong_scores_are_said_in_one_sentence(small_model, images, score, said):
    found = sentence(lambda: Saliency(small_model)(score, images))
    assert said in found
    assert "Condition" not in found
