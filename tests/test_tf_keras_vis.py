"""Scores, modifiers and visualizers of tf-keras-vis work in kvis2; plain modifier functions too."""

import importlib
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_net import TinyNet

from kvis2 import DeconvReLU, GradCAM, GuidedReLU, LinearOutput, Saliency, ScoreCAM
from kvis2.models import as_modifiers

NET = TinyNet.random(64)
IMAGES = np.random.default_rng(64).normal(size=(3, 7, 9, 2)).astype("float32")


@pytest.fixture
def model():
    return NET.as_keras(7, 9)


def peer(module, name):
    """A class of tf-keras-vis, whose import warns of what is old in it."""
    pytest.importorskip("tf_keras_vis", exc_type=ImportError)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(f"tf_keras_vis.{module}"), name)


def raw(model, score, **options):
    return Saliency(model, keepdims=True, normalize=False, **options)(score, IMAGES)


def logit_gradients(classes):
    return NET.gradients(IMAGES, classes).images


def replace_to_linear(model):
    """What a user of tf-keras-vis writes."""
    model.layers[-1].activation = keras.activations.linear


@pytest.mark.parity
class TestScores:
    def test_categorical(self, model):
        score = peer("utils.scores", "CategoricalScore")([0, 2, 1])
        np.testing.assert_allclose(raw(model, score), logit_gradients([0, 2, 1]), atol=1e-6)

    def test_one_index_for_all(self, model):
        score = peer("utils.scores", "CategoricalScore")(2)
        np.testing.assert_allclose(raw(model, score), logit_gradients([2, 2, 2]), atol=1e-6)

    def test_another_index_is_not_another_trace(self, model):
        make = peer("utils.scores", "CategoricalScore")
        explainer = GradCAM(model)
        for index in range(3):
            explainer(make(index), IMAGES)
        assert explainer.trace_count == 1

    def test_binary(self):
        net = TinyNet.random(64, classes=1)
        model = net.as_keras(7, 9)
        model.layers[-1].activation = keras.activations.sigmoid
        score = peer("utils.scores", "BinaryScore")([True, False, True])
        expected = net.gradients(IMAGES, [0, 0, 0]).images
        expected[1] *= -1
        np.testing.assert_allclose(raw(model, score), expected, atol=1e-6)

    def test_inactive(self):
        inputs = keras.Input((7, 9, 2))
        x = keras.layers.Flatten()(inputs)
        ends = [keras.layers.Dense(2)(x), keras.layers.Dense(3)(x)]
        model = keras.Model(inputs, ends)
        inactive, categorical = (
            peer("utils.scores", name) for name in ("InactiveScore", "CategoricalScore")
        )
        found = raw(model, [inactive(), categorical(1)])
        kernel = model.layers[-1].kernel.numpy()[:, 1].reshape(7, 9, 2)
        np.testing.assert_allclose(found, np.stack([kernel] * 3), atol=1e-6)

    def test_subclass_of_a_user(self, model):
        class Margin(peer("utils.scores", "Score")):
            def __call__(self, output):
                return output[:, 0] - output[:, 1]

        expected = logit_gradients([0] * 3) - logit_gradients([1] * 3)
        np.testing.assert_allclose(raw(model, Margin()), expected, atol=1e-6)

    def test_function_that_returns_a_tuple(self, model):
        def score(output):
            return output[0, 0], output[1, 2], output[2, 1]

        np.testing.assert_allclose(raw(model, score), logit_gradients([0, 2, 1]), atol=1e-6)


@pytest.mark.parity
class TestModifiers:
    def test_replace_to_linear(self, model):
        modifier = peer("utils.model_modifiers", "ReplaceToLinear")()
        found = raw(model, [0, 2, 1], model_modifier=modifier)
        np.testing.assert_allclose(found, logit_gradients([0, 2, 1]), atol=1e-6)
        assert model.layers[-1].activation is keras.activations.softmax

    def test_replace_to_linear_where_tf_keras_vis_does_nothing(self):
        """A softmax that is a layer of its own: tf-keras-vis sets an attribute nobody reads."""
        net = TinyNet.random(64)
        plain = net.as_keras(7, 9)
        model = keras.Sequential([*plain.layers[:-1], keras.layers.Dense(3)])
        model = keras.Sequential([keras.Input((7, 9, 2)), model, keras.layers.Softmax()])
        model.set_weights(list(net))
        modifier = peer("utils.model_modifiers", "ReplaceToLinear")()
        found = raw(model, [0, 2, 1], model_modifier=modifier)
        np.testing.assert_allclose(found, logit_gradients([0, 2, 1]), atol=1e-6)

    def test_guided_backpropagation(self):
        """Theirs changes fused activations of a clone; ours is the same gradient."""
        inputs = keras.Input((7, 9, 2))
        x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
        x = keras.layers.Conv2D(4, 3, activation="relu")(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, keras.layers.Dense(3)(x))
        modifier = peer("utils.model_modifiers", "GuidedBackpropagation")()
        theirs = peer("saliency", "Saliency")(model, model_modifier=modifier)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = theirs(
                lambda output: output[:, 1],
                IMAGES,
                keepdims=True,
                normalize_map=False,
                gradient_modifier=None,
            )
        found = raw(model, 1, model_modifier=modifier)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_array_equal(found, raw(model, 1, model_modifier=GuidedReLU()))
        assert np.abs(found - raw(model, 1)).max() > 1e-3

    def test_guided_backpropagation_of_other_activations(self):
        """What kvis2 has no modifier for is applied to a clone, as tf-keras-vis does."""
        inputs = keras.Input((7, 9, 2))
        x = keras.layers.Conv2D(4, 3, activation="elu")(inputs)
        x = keras.layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, keras.layers.Dense(3)(x))
        modifier = peer("utils.model_modifiers", "GuidedBackpropagation")([keras.activations.elu])
        found = raw(model, 1, model_modifier=modifier)
        assert np.abs(found - raw(model, 1)).max() > 1e-4
        assert model.layers[1].activation is keras.activations.elu

    def test_extract_intermediate_layer(self, model):
        modifier = peer("utils.model_modifiers", "ExtractIntermediateLayer")("conv1")
        found = raw(model, 2, model_modifier=modifier)
        images = tf.constant(IMAGES)
        with tf.GradientTape() as tape:
            tape.watch(images)
            x = model.layers[1](model.layers[0](images))
            score = tf.reduce_mean(x[..., 2], [1, 2])
        np.testing.assert_allclose(found, tape.gradient(score, images), atol=1e-6)

    def test_list_of_both_kinds(self, model):
        theirs = peer("utils.model_modifiers", "ReplaceToLinear")()
        found = raw(model, 1, model_modifier=[theirs, GuidedReLU()])
        expected = raw(model, 1, model_modifier=[LinearOutput(), GuidedReLU()])
        np.testing.assert_array_equal(found, expected)


class TestFunctions:
    """Plain functions `model -> model or None`, as tf-keras-vis users write them."""

    def test_clone_is_changed_and_the_model_is_not(self, model):
        found = raw(model, [0, 2, 1], model_modifier=replace_to_linear)
        np.testing.assert_allclose(found, logit_gradients([0, 2, 1]), atol=1e-6)
        assert model.layers[-1].activation is keras.activations.softmax

    def test_weights_of_the_clone_follow_the_model(self, model):
        """As in a training callback: the explainer is built once, the weights move on."""
        explainer = Saliency(
            model, model_modifier=replace_to_linear, keepdims=True, normalize=False
        )
        explainer(0, IMAGES)
        later = TinyNet.random(65)
        model.set_weights(list(later))
        expected = later.gradients(IMAGES, [1, 1, 1]).images
        np.testing.assert_allclose(explainer(1, IMAGES), expected, atol=1e-6)
        assert explainer.trace_count == 1

    def test_weights_that_the_function_changed_do_not_follow(self, model):
        def without_bias(model):
            model.layers[0].bias.assign(tf.zeros(4))

        found = raw(model, 0, model_modifier=[replace_to_linear, without_bias])
        expected = NET._replace(bias1=np.zeros(4)).gradients(IMAGES, [0] * 3).images
        np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(model.layers[0].bias.numpy(), NET.bias1, rtol=1e-6)

    def test_another_model_is_returned(self, model):
        def until_conv1(model):
            return keras.Model(model.inputs, model.get_layer("conv1").output)

        explainer = GradCAM(model, layer="pre1", model_modifier=until_conv1)
        assert explainer(2, IMAGES).shape == (3, 7, 9)
        assert explainer.layer is not model.get_layer("pre1")
        assert explainer.layer.name == "pre1"

    def test_clone_false_changes_the_model_itself(self, model):
        explainer = Saliency(model, model_modifier=replace_to_linear, clone=False)
        assert explainer.model is model
        assert model.layers[-1].activation is keras.activations.linear

    def test_model_that_cannot_be_cloned(self):
        class Secret(keras.layers.Layer):
            def __init__(self, secret):
                super().__init__()

            def call(self, x):
                return x

        inputs = keras.Input((4,))
        model = keras.Model(inputs, keras.layers.Dense(2)(Secret(object())(inputs)))
        with pytest.raises(ValueError, match=r"that Keras can clone.*`clone=False`"):
            Saliency(model, model_modifier=replace_to_linear)

    @pytest.mark.parametrize("result", [3, "model"])
    def test_function_that_returns_something_else(self, model, result):
        with pytest.raises(TypeError, match="to return a model or None"):
            Saliency(model, model_modifier=lambda model: result)

    @pytest.mark.parametrize("given", ["guided", 3, [LinearOutput(), 5]])
    def test_something_that_is_no_modifier(self, given):
        with pytest.raises(TypeError, match=r"Expected a modifier such as LinearOutput\(\)"):
            as_modifiers(given)

    def test_class_in_the_place_of_a_modifier(self):
        with pytest.raises(TypeError, match=r"Make an instance of it: `DeconvReLU\(\)`"):
            as_modifiers(DeconvReLU)

    def test_score_cam_of_a_modified_model(self, model):
        """A method without LinearOutput by default takes the function as well."""
        twin = NET.as_keras(7, 9)
        replace_to_linear(twin)

        def score(output):
            return output[:, 1] + 5.0

        found = ScoreCAM(model, model_modifier=replace_to_linear, normalize=False)(score, IMAGES)
        np.testing.assert_allclose(found, ScoreCAM(twin, normalize=False)(score, IMAGES), atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["gradcam.Gradcam", "saliency.Saliency"])
def test_visualizer_is_logged_while_a_model_trains(name, tmp_path):
    """Any tf-keras-vis visualizer can be handed to ExplanationLogger."""
    from kvis2.callbacks import ExplanationLogger

    visualizer = peer(*name.split("."))
    inputs = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy")
    images = np.random.default_rng(0).random((4, 16, 12, 3), dtype="float32")
    labels = np.array([0, 1, 2, 0])
    logger = ExplanationLogger(
        tmp_path,
        (images, labels),
        explainer=lambda model: visualizer(model, model_modifier=replace_to_linear),
        every=1,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(images, labels, epochs=2, callbacks=[logger], verbose=0)
    assert pictures(tmp_path) == {1: 4, 2: 4} or pictures(tmp_path) == {0: 4, 1: 4}


def pictures(folder):
    """How many pictures were logged at each step."""
    found = {}
    for path in folder.rglob("*tfevents*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "images":
                    count = tf.make_ndarray(value.tensor).size - 2
                    found[event.step] = found.get(event.step, 0) + count
    return found


PAGE = Path(__file__).parents[1] / "docs" / "from_tf_keras_vis.md"


def test_every_name_of_kvis2_in_the_docs_exists():
    for path in sorted(set(re.findall(r"`kvis2\.([\w.]+)", PAGE.read_text(encoding="utf-8")))):
        module, _, name = f"kvis2.{path}".rpartition(".")
        assert hasattr(importlib.import_module(module), name), path


@pytest.mark.parity
def test_every_public_name_of_tf_keras_vis_is_in_the_docs():
    package = pytest.importorskip("tf_keras_vis", exc_type=ImportError)
    page = PAGE.read_text(encoding="utf-8")
    folder = Path(package.__file__).parent
    for file in folder.rglob("*.py"):
        if file.name == "test.py":  # Models and mocks for its own tests.
            continue
        names = re.findall(r"^(?:class|def) ([A-Za-z]\w*)", file.read_text("utf-8"), re.MULTILINE)
        missing = [name for name in names if not re.search(rf"\b{name}\b", page)]
        assert missing == [], file.name
