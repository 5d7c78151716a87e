"""The arguments of gradient ascent: one for all inputs or by input, and what is refused."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from sampled import rest_slow

import kvis2
from kvis2.ascent import AscentCallback, History
from kvis2.regularizers import L1Decay, L2Decay
from kvis2.scores import CategoricalScore, DirectionScore
from kvis2.transforms import Blur, Jitter, Pad, RandomCrop, Scale
from kvis2.visualization import losses
from kvis2.visualization.optimizer import Optimizer

PLAIN = {"steps": 3, "input_range": (0, 1), "transforms": None}


def ascent(model, *arguments, **options):
    return kvis2.ActivationMaximization(model, *arguments, **{**PLAIN, **options})


@pytest.fixture
def two_inputs():
    """An image "a" and a vector "b"."""
    a, b = keras.Input((8, 8, 3), name="a"), keras.Input((6,), name="b")
    h = keras.layers.Conv2D(4, 3, activation="relu")(a)
    h = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(h), b])
    return keras.Model([a, b], keras.layers.Dense(2)(h))


@pytest.mark.parametrize("given", [{"b": L2Decay()}, [None, [L2Decay()]], [[], [L2Decay()]]])
def test_a_penalty_by_input_is_that_of_the_input_alone(two_inputs, given):
    history = History()
    start = [np.full((1, 8, 8, 3), 0.4, np.float32), np.full((1, 6), 0.3, np.float32)]
    chart = kvis2.parametrizations.Pixels()
    ascent(two_inputs, regularizers=given, steps=1, parametrization=chart)(
        0, start, callbacks=[history]
    )
    np.testing.assert_allclose(history.losses["L2Decay"], [[6 * 0.09 / 2]], rtol=1e-5)


def test_transforms_and_constraints_by_input(two_inputs):
    def shifted(images, seed):
        return images + 1.0

    def halved(images, step, bounds):
        return images / 2.0

    start = [np.full((1, 8, 8, 3), 0.4, np.float32), np.full((1, 6), 0.3, np.float32)]
    history, settings = History(), {"steps": 1, "parametrization": kvis2.parametrizations.Pixels()}
    made = ascent(two_inputs, transforms={"b": shifted}, constraints={"a": [halved]}, **settings)(
        1, start, callbacks=[history]
    )
    expected = two_inputs([start[0] / 2, start[1] + 1])[0, 1]
    np.testing.assert_allclose(-history.losses["score"][0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(made[0], start[0] / 2)
    np.testing.assert_allclose(made[1], start[1])


def test_one_part_alone_and_functions_are_lists_of_one(small_model):
    def decay(images):
        return tf.reduce_sum(tf.abs(images), [1, 2, 3])

    expected = ascent(small_model, regularizers=[L1Decay()])(0)
    for given in (L1Decay(), decay, {"image": L1Decay()}):
        np.testing.assert_allclose(ascent(small_model, regularizers=given)(0), expected, atol=1e-6)
    plain = ascent(small_model, regularizers=None, constraints=None)(0)
    np.testing.assert_array_equal(plain, ascent(small_model)(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regularizers": [None]}, "Expected regularizers .* Received: None"),
        ({"regularizers": [L1Decay]}, "Expected regularizers .* Received: <class"),
        ({"regularizers": {"picture": L1Decay()}}, "for inputs among .'image'.. Received: .'pict"),
        ({"regularizers": tf.reduce_mean}, r"one penalty for each image, \(batch,\)"),
        ({"constraints": [None]}, "Expected constraints to be functions .* Received: None"),
        ({"constraints": {"x": None}}, "for inputs among"),
        ({"gradient_modifier": "clip"}, "Expected gradient_modifier to be functions"),
        ({"transforms": [3]}, "Expected transforms .* Received: 3"),
        ({"input_range": None}, r"to be \(low, high\).* Received: None"),
        ({"input_range": (None, None)}, r"to be \(low, high\)"),
        ({"input_range": (0, None)}, r"to be \(low, high\)"),
        ({"input_range": (0, np.inf)}, "both finite"),
        ({"input_range": (1, 0)}, "low below high"),
        ({"input_range": 255}, r"to be \(low, high\)"),
        ({"shape": (0, 8, 3)}, r"images with pixels. Received: shape \(0, 8, 3\)"),
    ],
)
def test_wrong_arguments_get_a_sentence(small_model, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ascent(small_model, **options)(0)


@pytest.mark.parametrize(
    "transform", rest_slow([Jitter(2), Scale(), RandomCrop(), Pad(2), Blur(1.0)])
)
def test_a_vector_has_no_neighbours_to_be_moved_to(two_inputs, transform):
    with pytest.raises(ValueError, match="A vector has no neighbours"):
        ascent(two_inputs, transforms=[transform])(0)
    ascent(two_inputs, transforms={"a": [transform]})(0)


def test_images_without_pixels_are_refused(small_model):
    with pytest.raises(ValueError, match=r"Expected at least one sample|seed_input with pixels"):
        ascent(small_model)(0, np.zeros((0, 16, 12, 3), np.float32))
    with pytest.raises(ValueError, match="with pixels"):
        kvis2.DeepDream(small_model, "late")(None, np.zeros((0, 8, 3), np.float32))


def test_a_list_of_one_score_is_that_score(small_model):
    expected = ascent(small_model)(CategoricalScore(1))
    np.testing.assert_array_equal(ascent(small_model)([CategoricalScore(1)]), expected)
    np.testing.assert_array_equal(ascent(small_model)([lambda output: output[:, 1]]), expected)


@pytest.mark.parametrize("factor", rest_slow([1e-6, 1.0]))  # of the whole layer: it does not matter
def test_a_filter_that_is_nearly_dead_is_said_whatever_the_scale_of_the_layer(small_model, factor):
    kernel, bias = small_model.get_layer("late").get_weights()
    kernel[..., 3] *= 1e-9
    small_model.get_layer("late").set_weights([factor * kernel, bias])
    with pytest.warns(UserWarning, match=r"reached image \[1\]:") as caught:
        ascent(small_model, "late", steps=30)([0, 3, 4])
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ascent(small_model, "late", steps=30)([0, 4])


@pytest.mark.parametrize("factor", rest_slow([1e-6, 1.0]))  # of the score: it does not matter
def test_a_score_of_ones_own_tells_a_dead_filter_too(small_model, factor):
    kernel, bias = small_model.get_layer("late").get_weights()
    kernel[..., 3] *= 1e-9
    small_model.get_layer("late").set_weights([kernel, bias])

    def response(filters):
        return lambda output: factor * tf.reduce_mean(output[..., filters], [1, 2])

    for score in (response(3), DirectionScore(np.eye(8)[3])):
        with pytest.warns(UserWarning, match=r"reached image \[0\]:") as caught:
            ascent(small_model, "late", steps=30)(score)
        assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ascent(small_model, "late", steps=30)(response(0))
        ascent(small_model, "late", steps=30)(lambda y: tf.reduce_mean(tf.square(y), [1, 2, 3]))


@pytest.mark.parametrize("score", [1, lambda output: output[:, 1]])
def test_a_dead_class_is_told_too(small_model, score):
    kernel, bias = small_model.get_layer("predictions").get_weights()
    kernel[:, 1] *= 1e-9
    small_model.get_layer("predictions").set_weights([kernel, 0 * bias])
    with pytest.warns(UserWarning, match=r"reached image \[0\]:"):
        ascent(small_model, steps=30)(score)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ascent(small_model, steps=30)(0)
        ascent(small_model, steps=30)(lambda output: output[:, 0])


class Noted(AscentCallback):
    def __init__(self, name, notes, failing=()):
        super().__init__()
        self.name, self.notes, self.failing = name, notes, failing

    def on_begin(self, steps):
        self._note("begin")

    def on_end(self):
        self._note("end")

    def _note(self, what):
        self.notes.append(f"{self.name} {what}")
        if what in self.failing:
            raise ArithmeticError(what)


def test_callbacks_that_began_are_ended_though_others_fail(small_model):
    notes = []
    callbacks = [Noted("a", notes), Noted("b", notes, ["begin"]), Noted("c", notes)]
    with pytest.raises(ArithmeticError, match="begin"):
        ascent(small_model)(0, callbacks=callbacks)
    assert notes == ["a begin", "b begin", "a end"]
    notes.clear()
    callbacks = [Noted("a", notes), Noted("b", notes, ["end"])]
    with pytest.raises(ArithmeticError, match="end"):
        ascent(small_model)(0, callbacks=callbacks)
    assert notes == ["a begin", "b begin", "b end", "a end"]


def test_the_optimizer_says_what_it_differentiates_by(small_model):
    loss = [(losses.ActivationMaximization(small_model.layers[-1], 0), 1)]
    own = Optimizer(small_model.inputs[0], loss)
    assert own.wrt_tensor_is_input_tensor
    assert own.wrt_tensor is own.input_tensor
    late = small_model.get_layer("late").output
    other = Optimizer(small_model.inputs[0], loss, wrt_tensor=late)
    assert not other.wrt_tensor_is_input_tensor
    assert other.wrt_tensor is late


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": 3}, r"Expected an optimizer of Keras.*Received: 3\."),
        ({"optimizer": "fast"}, r"Expected an optimizer of Keras.*Received: 'fast'\."),
        ({"shape": (3,)}, r"Expected images of shape \(16, 12, 3\).*Received: `shape=\(3,\)`"),
        ({"shape": "a"}, r"Expected images of shape \(16, 12, 3\).*Received: `shape='a'`"),
        ({"shape": (8, 8, 3)}, r"Expected images of shape \(16, 12, 3\).*\(8, 8, 3\)"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(small_model, options, said):
    with pytest.raises((TypeError, ValueError), match=said):
        ascent(small_model, **options)(0)


def test_one_callback_that_is_no_list_is_refused(small_model):
    with pytest.raises(TypeError, match=r"Expected a list of callbacks\. Received: .*History"):
        ascent(small_model)(0, callbacks=History())
