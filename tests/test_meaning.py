"""What an output unit means: the compiled loss first, then the graph, then what is said."""

import tempfile
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from sampled import rest_slow

import kvis2
from kvis2.models import meaning_of

LOSSES = keras.losses


def head(units=1, activation=None, loss=None, after=None):
    """conv -> GAP -> dense(units), compiled with `loss`."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu", name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(units, activation=activation, name="out")(x)
    model = keras.Model(inputs, x if after is None else after(x))
    if loss is not None:
        model.compile("sgd", loss)
    return model


def like(model, **options):
    other = head(**options)
    other.set_weights(model.get_weights())
    return other


@pytest.mark.parametrize(
    ("loss", "units", "activation", "kind", "logits"),
    [
        (LOSSES.BinaryCrossentropy(from_logits=True), 1, None, "two classes", True),
        (LOSSES.BinaryFocalCrossentropy(from_logits=True), 1, None, "two classes", True),
        ("binary_crossentropy", 1, "sigmoid", "two classes", False),
        (LOSSES.BinaryCrossentropy(), 5, None, "labels", False),
        ("hinge", 1, None, "two classes", True),
        (LOSSES.SparseCategoricalCrossentropy(from_logits=True), 5, None, "classes", True),
        ("categorical_crossentropy", 5, "softmax", "classes", False),
        ("mse", 1, "sigmoid", "numbers", None),
        (LOSSES.Huber(), 3, None, "numbers", None),
        ("mean_absolute_error", 1, None, "numbers", None),
        ([LOSSES.BinaryCrossentropy(from_logits=True)], 1, None, "two classes", True),
        ({"out": "mse"}, 1, None, "numbers", None),
        (None, 1, "sigmoid", "two classes", False),
        (None, 4, "sigmoid", "labels", False),
        (None, 4, "softmax", "classes", False),
        (None, 1, None, "numbers", None),
        (None, 4, None, "classes", None),
        (lambda y, p: keras.ops.mean(p), 1, "sigmoid", "two classes", False),
    ],
)
def test_what_a_unit_means(loss, units, activation, kind, logits):
    model = head(units, loss=loss)
    found = meaning_of(model, 0, tf.TensorShape([None, units]), activation)
    assert (found.kind, found.logits) == (kind, logits)


@pytest.mark.parametrize(
    "method", rest_slow([kvis2.GradCAM, kvis2.LRP, kvis2.HiResCAM, kvis2.Saliency])
)
def test_a_logit_head_is_two_classes_as_its_sigmoid_twin_is(images, method):
    sigmoid = head(activation="sigmoid")
    logits = like(sigmoid, loss=LOSSES.BinaryCrossentropy(from_logits=True))
    for score in (0, 1, [0, 1, 0, 1, 1], None, kvis2.BinaryScore([True, False, True, True, False])):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*no evidence")
            expected = method(sigmoid, normalize=False)(score, images)
            found = method(logits, normalize=False)(score, images)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_the_probability_of_class_0_is_one_minus_the_unit(images):
    class Clipped(keras.layers.Layer):
        def call(self, x):
            return keras.ops.clip(keras.ops.sigmoid(x), 0.0, 1.0)

    model = head(after=Clipped(), loss="binary_crossentropy")
    with pytest.warns(UserWarning, match="a sigmoid followed by"):
        second = kvis2.InputXGradient(model, normalize=False)(1, images)
    probability = model(images).numpy()[:, 0]
    shown = kvis2.Occlusion(model, window=(16, 12), normalize=False)  # One window: all is hidden.
    hidden = model(np.zeros_like(images)).numpy()[:, 0]
    np.testing.assert_allclose(
        shown(0, images)[:, 0, 0], (1 - probability) - (1 - hidden), rtol=1e-4, atol=1e-6
    )
    assert second.any()


def test_an_average_of_sigmoid_models_is_two_classes(images):
    one, two = head(activation="sigmoid"), head(activation="sigmoid")
    two.set_weights([w * 0.5 for w in two.get_weights()])
    inputs = keras.Input((16, 12, 3))
    model = keras.Model(inputs, keras.layers.Average()([one(inputs), two(inputs)]))
    exact = kvis2.Saliency(model, model_modifier=None, reduce="signed", normalize=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_allclose(exact(0, images), -exact(1, images), rtol=1e-5, atol=1e-8)


def test_a_softmax_in_a_function_or_a_saved_model_is_told(images):
    model = head(3, activation="softmax")
    folder = tempfile.mkdtemp()
    model.export(folder)
    inputs = keras.Input((16, 12, 3))
    saved = keras.Model(inputs, keras.layers.TFSMLayer(folder, call_endpoint="serve")(inputs))
    with pytest.warns(UserWarning, match=r"a softmax followed by .*the end of a tf.function"):
        kvis2.Saliency(saved)(1, images)


def test_a_regression_has_no_classes(images):
    model = head(loss="mse")
    kvis2.Saliency(model)(None, images)
    up = kvis2.Saliency(model, reduce="signed", normalize=False)
    np.testing.assert_allclose(
        up(kvis2.RegressionScore("decrease"), images), -up(0, images), rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"Expected class 0, of an output with one unit"):
        kvis2.Saliency(model)(1, images)


def test_a_class_of_one_unit_of_unknown_meaning_is_told(images):
    model = head()
    with pytest.warns(UserWarning, match=r"taken for a number, .* give BinaryScore\(True\)"):
        kvis2.Saliency(model)(0, images)
    signed = kvis2.Saliency(model, reduce="signed", normalize=False)
    negative = signed(kvis2.BinaryScore(False), images)
    np.testing.assert_allclose(negative, -signed(kvis2.BinaryScore(True), images), rtol=1e-6)


def test_describe_says_what_was_assumed(capsys):
    kvis2.describe(head(loss=LOSSES.BinaryCrossentropy(from_logits=True)))
    assert "  two classes, by the loss binary_crossentropy" in capsys.readouterr().out
    kvis2.describe(head())
    assert "  numbers, by its one unit without a sigmoid" in capsys.readouterr().out


class Returned(keras.Model):
    """Two heads in a structure of its own."""

    def __init__(self, packed):
        super().__init__()
        self.pooled = keras.layers.GlobalAveragePooling2D()
        self.logit, self.kinds = keras.layers.Dense(1), keras.layers.Dense(3)
        self.packed = packed

    def call(self, x):
        x = self.pooled(x)
        return self.packed(self.kinds(x), self.logit(x))


LOGIT = LOSSES.BinaryCrossentropy(from_logits=True)


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(
    ("packed", "loss", "score"),
    [
        (lambda kinds, logit: {"a": kinds, "z": logit}, {"z": LOGIT}, lambda c: {"z": c}),
        (
            lambda kinds, logit: {"a": kinds, "z": logit},
            {"a": LOSSES.SparseCategoricalCrossentropy(from_logits=True), "z": LOGIT},
            lambda c: {"z": c},
        ),
        (lambda kinds, logit: {"z": [kinds, logit]}, {"z": [None, LOGIT]}, lambda c: {"z/1": c}),
        (
            lambda kinds, logit: [kinds, logit],
            [None, LOGIT],
            lambda c: [kvis2.scores.InactiveScore(), c],
        ),
    ],
    ids=["one of a dict", "all of a dict", "nested", "list"],
)
def test_the_loss_is_found_by_where_the_output_stands(declared, packed, loss, score):
    keras.utils.set_random_seed(0)
    model = Returned(packed)
    images = np.random.default_rng(0).random((2, 6, 5, 3), dtype="float32")
    model(images)
    kernel = model.logit.kernel.numpy()
    if declared:
        inputs = keras.Input((6, 5, 3))
        outputs = model.call(inputs)
        old = tuple(map(int, keras.__version__.split(".")[:2])) < (3, 6)
        if old and isinstance(outputs, dict) and "a" not in outputs:
            pytest.skip(f"Keras {keras.__version__} takes no lists in a dict of outputs")
        model = keras.Model(inputs, outputs)
    model.compile("sgd", loss)
    for kind, sign in ((0, -1.0), (1, 1.0)):
        found = kvis2.Saliency(model, reduce="signed", normalize=False)(score(kind), images)
        np.testing.assert_allclose(found, np.full((2, 6, 5), sign * kernel.sum() / 30), rtol=1e-4)


def test_the_second_class_of_a_number_is_refused_with_what_to_do():
    model = head(loss=lambda y, p: keras.ops.mean(p - y, axis=-1))
    with pytest.raises(ValueError, match=r"one unit.*Received: 1\. .*BinaryScore\(True\)"):
        kvis2.Saliency(model)(1, np.ones((1, 16, 12, 3), "float32"))
