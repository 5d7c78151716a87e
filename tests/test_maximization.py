"""Gradient ascent against loops written by hand, and what has to hold for every ascent."""

import gc
import os
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from sampled import rest_slow
from tiny_net import TinyNet, convolve_backward

from kvis2 import presets, scores
from kvis2.ascent import (
    ActivationMaximization,
    AscentCallback,
    GifWriter,
    History,
    KerasVisRMSProp,
    ProgressBar,
    Snapshots,
    automatic_transforms,
)
from kvis2.models import GuidedReLU
from kvis2.parametrizations import Fourier, Pixels
from kvis2.regularizers import BlurEvery, NormalizeGradient, TotalVariation
from kvis2.scores import DirectionScore, UnitsScore
from kvis2.transforms import Jitter, Rotate, Scale


@pytest.fixture(scope="module")
def net():
    return TinyNet.random(3, channels=3)


def identity_model():
    inputs = keras.Input((1,))
    return keras.Model(inputs, keras.layers.Dense(1, kernel_initializer="ones")(inputs))


def minus_square(output):
    return -tf.square(output[:, 0])


# -- the loops of the originals, by hand -----------------------------------------------------------


def test_the_best_image_is_the_one_that_was_measured():
    """Golden numbers of keras-vis, whose own answer was one step late."""
    history, snapshots = History(), Snapshots(every=1)
    ascent = ActivationMaximization(
        identity_model(),
        steps=4,
        parametrization=Pixels(),
        optimizer=KerasVisRMSProp(),
        gradient_modifier=NormalizeGradient(),
    )
    best = ascent(minus_square, np.ones((1, 1), np.float32), callbacks=[history, snapshots])

    measured = np.array(snapshots.images).ravel()
    np.testing.assert_allclose(
        history.losses["loss"].ravel(), [1, 12.0557, 0.0726680, 5.6565], rtol=1e-4
    )
    np.testing.assert_allclose(measured, [1, -3.4721317, -0.2695701, 2.3783326], rtol=1e-5)
    assert best.ravel() == pytest.approx([-0.2695701], rel=1e-5)


def keras_vis_by_hand(net, start, unit, steps, lp_weight, tv_weight):
    """The loop of keras-vis on a TinyNet in NumPy; every image it measured, and its losses."""
    x, cache = start.astype(float), 0.0
    count = x[0].size
    measured = []
    for _ in range(steps):
        probabilities = net.probabilities(x)[0]
        onehot = np.eye(len(probabilities))[unit]
        gradient = -sum(
            probabilities[unit] * (onehot[k] - probabilities[k]) * net.gradients(x, [k]).images
            for k in range(len(probabilities))
        )
        power = (np.abs(x) ** 6).sum()
        gradient = gradient + lp_weight / count * power ** (1 / 6 - 1) * np.abs(x) ** 5 * np.sign(x)
        down = x[:, 1:, :-1] - x[:, :-1, :-1]
        right = x[:, :-1, 1:] - x[:, :-1, :-1]
        variation = np.zeros_like(x)
        variation[:, 1:, :-1] += 2 * down
        variation[:, :-1, 1:] += 2 * right
        variation[:, :-1, :-1] -= 2 * (down + right)
        gradient = gradient + tv_weight / count * variation
        terms = [
            -probabilities[unit],
            lp_weight * power ** (1 / 6) / count,
            tv_weight * ((down**2).sum() + (right**2).sum()) / count,
        ]
        measured.append((x.copy(), [*terms, sum(terms)]))
        gradient = gradient / np.sqrt((gradient**2).sum())
        cache = 0.95 * cache + 0.05 * gradient**2
        x = x - gradient / np.sqrt(cache + 1e-7)
    return measured


def test_the_preset_of_keras_vis_walks_as_keras_vis_did(net):
    model = net.as_keras(7, 9)
    start = np.random.default_rng(0).normal(size=(1, 7, 9, 3)).astype(np.float32)
    expected = keras_vis_by_hand(net, start, 1, 6, 10.0, 10.0)

    history, snapshots = History(), Snapshots(every=1)
    ascent = ActivationMaximization(model, **presets.keras_vis(steps=6))
    best = ascent(1, start, callbacks=[history, snapshots])

    for image, (by_hand, _) in zip(snapshots.images, expected, strict=True):
        np.testing.assert_allclose(image, by_hand, rtol=1e-3, atol=2e-3)
    names = ["score", "L6", "TV(2)", "loss"]
    found = np.stack([history.losses[name][:, 0] for name in names], axis=1)
    np.testing.assert_allclose(found, [losses for _, losses in expected], rtol=1e-3)
    lowest = min(expected, key=lambda each: each[1][-1])[0]
    np.testing.assert_allclose(best, lowest, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(("decay", "clip"), [(None, None), ("l1", None), ("l2", 0.05)])
def test_the_class_image_preset_walks_as_the_second_original(net, decay, clip):
    """x <- x + 6 df/dx on standardised pixels, 8 bits at each step."""
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    model = net.as_keras(7, 9)
    weight = 0.02
    start = np.random.default_rng(1).integers(0, 256, (1, 7, 9, 3)).astype(np.float32)

    picture, measured = start.astype(float), []
    for _ in range(3):
        picture = np.round(np.clip(picture, 0, 255))
        measured.append(picture)
        z = (picture / 255 - mean) / deviation
        gradient = -net.gradients(picture / 255, [2]).images * deviation
        gradient = gradient + {None: 0, "l1": weight * np.sign(z), "l2": weight * z}[decay]
        if clip:
            gradient = gradient * min(1, clip / np.sqrt((gradient**2).sum()))
        picture = 255 * (mean + deviation * (z - 6 * gradient))

    inputs = keras.Input((7, 9, 3))
    scaled = keras.Model(inputs, model(keras.layers.Rescaling(1 / 255)(inputs)))
    snapshots = Snapshots(every=1)
    settings = presets.class_image(decay, weight, clip=clip, steps=3)
    ActivationMaximization(scaled, **settings)(2, start, callbacks=[snapshots])
    for image, by_hand in zip(snapshots.images, measured, strict=True):
        # A value halfway between two levels may be rounded either way.
        assert np.abs(image - by_hand).max() < 1.01
        assert (np.abs(image - by_hand) < 1e-2).mean() > 0.98


def test_the_filter_image_preset_is_adam_on_the_response_before_the_relu(net):
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    model = net.as_keras(7, 9)
    start = np.random.default_rng(1).uniform(0, 1, (1, 7, 9, 3)).astype(np.float32)
    z = (start.astype(float) - mean) / deviation
    first, second = 0.0, 0.0
    for step in range(4):
        kernel = np.zeros((1, 5, 7, 4))
        kernel[..., 2] = 1 / 35
        gradient = -convolve_backward(kernel, net.kernel1) * deviation + 1e-6 * z
        measured = mean + deviation * z
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        corrected = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        z = z - 0.1 * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)

    settings = presets.filter_image(steps=4)
    best = ActivationMaximization(model, "conv1", input_range=(0, 1), **settings)(2, start)
    np.testing.assert_allclose(best, measured, atol=1e-3)  # Keras adds epsilon elsewhere


# -- what is maximised -----------------------------------------------------------------------------


def means_of_units(net, images):
    values = net.forward(images)
    return {
        "pre1": values.pre1.mean(axis=(1, 2)),
        "conv1": values.conv1.mean(axis=(1, 2)),
        "leaky": np.where(values.pre1 > 0, values.pre1, 0.1 * values.pre1).mean(axis=(1, 2)),
        "pre2": values.pre2.mean(axis=(1, 2)),
        "conv2": values.conv2.mean(axis=(1, 2)),
        "predictions": values.logits,
    }


@pytest.mark.parametrize(
    ("layer", "early", "measured"),
    [
        ("conv1", True, "pre1"),
        ("conv1", False, "conv1"),
        ("pre2", True, "pre2"),
        ("conv1", None, "leaky"),
        ("pre1", None, "leaky"),
        ("conv2", False, "conv2"),
        ("predictions", True, "predictions"),
        ("predictions", None, "predictions"),
        (None, True, "predictions"),
        (None, None, "predictions"),
    ],
)
def test_the_score_is_the_mean_over_space_of_the_unit(net, layer, early, measured):
    start = np.random.default_rng(0).normal(size=(3, 7, 9, 3)).astype(np.float32)
    history = History()
    ascent = ActivationMaximization(
        net.as_keras(7, 9),
        layer,
        steps=1,
        parametrization=Pixels(),
        transforms=None,
        pre_activation=early,
    )
    ascent([2, 0, 1], start, callbacks=[history])
    expected = means_of_units(net, start)[measured][range(3), [2, 0, 1]]
    np.testing.assert_allclose(-history.losses["score"][0], expected, rtol=1e-4, atol=1e-6)


def test_a_softmax_is_left_on_where_it_is_asked_for(net):
    start = np.random.default_rng(0).normal(size=(1, 7, 9, 3)).astype(np.float32)
    history = History()
    ActivationMaximization(
        net.as_keras(7, 9),
        steps=1,
        parametrization=Pixels(),
        transforms=None,
        pre_activation=False,
    )(1, start, callbacks=[history])
    expected = net.probabilities(start)[0, 1]
    assert -history.losses["score"][0, 0] == pytest.approx(expected, rel=1e-4)


def score_at(net, score, layer="pre2"):
    start = np.random.default_rng(0).normal(size=(1, 7, 9, 3)).astype(np.float32)
    history = History()
    ascent = ActivationMaximization(
        net.as_keras(7, 9), layer, steps=1, parametrization=Pixels(), transforms=None
    )
    ascent(score, start, callbacks=[history])
    return -history.losses["score"][0], net.forward(start)


def test_means_of_units_and_directions(net):
    found, values = score_at(net, [[1, 4], [2]])
    means = np.where(values.pre2 > 0, values.pre2, 0.1 * values.pre2)[0].mean(axis=(0, 1))
    np.testing.assert_allclose(found, [(means[1] + means[4]) / 2, means[2]], rtol=1e-4)

    directions = np.random.default_rng(5).normal(size=(2, 5))
    found, values = score_at(net, directions)
    np.testing.assert_allclose(found, directions @ values.pre2[0].mean(axis=(0, 1)), rtol=1e-4)

    found, values = score_at(net, DirectionScore(directions[0], cosine_power=2))
    dot = values.pre2[0] @ directions[0]
    cosine = dot / np.linalg.norm(values.pre2[0], axis=-1) / np.linalg.norm(directions[0])
    np.testing.assert_allclose(found, (dot * np.maximum(cosine, 0.1) ** 2).mean(), rtol=1e-4)

    found, values = score_at(net, lambda output: tf.reduce_max(output, axis=(1, 2, 3)))
    np.testing.assert_allclose(found, values.pre2.max(), rtol=1e-4)


def nested(net):
    inputs = keras.Input((7, 9, 3))
    return keras.Model(inputs, net.as_keras(7, 9)(inputs))


def subclassed(net):
    class Wrapped(keras.Model):
        def __init__(self):
            super().__init__()
            self.body = net.as_keras(7, 9)

        def call(self, images):
            return self.body(images)

    model = Wrapped()
    model(np.zeros((1, 7, 9, 3), np.float32))
    return model


@pytest.mark.parametrize(("make", "layer"), [(nested, "conv2"), (subclassed, None)])
def test_any_kind_of_model_gives_the_same_images(net, make, layer):
    settings = {"steps": 3, "input_range": (0, 1), "shape": (7, 9, 3), "transforms": [Jitter(2)]}
    expected = ActivationMaximization(net.as_keras(7, 9), layer, **settings)([0, 2])
    found = ActivationMaximization(make(net), layer, **settings)([0, 2])
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_a_modifier_of_the_gradient_is_in_force(net):
    model = net.as_keras(7, 9)
    start = np.random.default_rng(0).normal(size=(1, 7, 9, 3)).astype(np.float32)
    settings = {"steps": 2, "parametrization": Pixels(), "transforms": None}
    settings["optimizer"] = keras.optimizers.SGD(1.0)
    snapshots = Snapshots(every=1)
    guided = ActivationMaximization(model, model_modifier=GuidedReLU(), **settings)
    guided(0, start, callbacks=[snapshots])
    step = snapshots.images[1] - start
    values = net.forward(start)
    upstream = np.maximum(net.gradients(start, [0]).conv2, 0) * (values.pre2 > 0)
    lower = np.maximum(convolve_backward(upstream, net.kernel2), 0) * (values.pre1 > 0)
    by_hand = convolve_backward(lower, net.kernel1)
    np.testing.assert_allclose(step, by_hand, atol=1e-5)


# What is not looked at is left out: it is traced in a third of the time.
PLAIN = {"parametrization": Pixels(), "transforms": None}


# -- what holds for every ascent -------------------------------------------------------------------

WAYS = {
    "default": {},
    "keras-vis": presets.keras_vis(),
    "class image": presets.class_image("l2", blur_every=2, clip=0.1),
    "phases": presets.magnitude_constrained(),
    "keras layer": {"transforms": [keras.layers.RandomTranslation(0.2, 0.2)]},
    "penalised": {"regularizers": [TotalVariation(0.1)], "constraints": [BlurEvery(2)]},
}


@pytest.mark.parametrize("way", rest_slow(WAYS, 2))
def test_a_batch_is_the_units_alone_and_the_same_seed_the_same_bytes(net, way):
    model = net.as_keras(12, 13)
    settings = {**WAYS[way], "steps": 6}
    ascent = ActivationMaximization(model, "conv2", **settings)
    together = ascent(range(3))
    assert together.dtype == np.float32
    again = ActivationMaximization(model, "conv2", seed=0, **settings)
    other = ActivationMaximization(model, "conv2", seed=6, **settings)
    assert again(range(3)).tobytes() == together.tobytes()
    assert not np.allclose(other(range(3)), together)
    for unit in range(3):
        np.testing.assert_allclose(together[unit], ascent(unit)[0], rtol=1e-4, atol=2e-2)
    assert np.ptp(together[0] - together[1]) > 0.1


def test_sixteen_units_are_the_sixteen_alone_and_in_chunks():
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((12, 10, 3)), keras.layers.Conv2D(16, 3, activation="relu", name="filters")]
    )
    settings = {"steps": 8, "transforms": [Jitter(2)]}
    ascent = ActivationMaximization(model, "filters", **settings)
    together = ascent(range(16))
    chunked = ActivationMaximization(model, "filters", batch_size=8, **settings)(range(16))
    np.testing.assert_allclose(chunked, together, atol=1e-2)
    alone = np.concatenate([ascent(unit) for unit in range(16)])
    np.testing.assert_allclose(alone, together, atol=1e-2)


def test_the_score_rises_and_beats_noise(small_model):
    history = History()
    ascent = ActivationMaximization(small_model, steps=100, input_range=(0, 1))
    images = ascent(range(4), callbacks=[history])
    found = scores_of(small_model, images)
    noise = np.random.default_rng(0).random((200, 16, 12, 3), dtype="float32")
    best_noise = scores_of(small_model, noise)
    for unit in range(4):
        assert found[unit, unit] > best_noise[:, unit].max() + 2 * best_noise[:, unit].std()
    losses = history.losses["loss"]
    assert (losses[-10:].mean(axis=0) < losses[:10].mean(axis=0)).all()
    assert images.min() >= 0
    assert images.max() <= 1


def scores_of(model, images):
    """What is maximised: the logits."""
    weights, bias = model.get_layer("predictions").get_weights()
    pooled = keras.Model(model.input, model.get_layer("gap").output)
    return pooled.predict(images, verbose=0) @ weights + bias


def test_the_model_and_the_random_generators_are_untouched(small_model):
    before = {layer.name: dict(vars(layer)) for layer in small_model.layers}
    weights = small_model.get_weights()
    keras.utils.set_random_seed(4)
    expected = (np.random.random(3), keras.random.uniform([3]).numpy())  # noqa: NPY002
    keras.utils.set_random_seed(4)
    ActivationMaximization(small_model, "late", steps=3)([0, 1])
    np.testing.assert_array_equal(np.random.random(3), expected[0])  # noqa: NPY002
    np.testing.assert_array_equal(keras.random.uniform([3]).numpy(), expected[1])
    for layer in small_model.layers:
        assert vars(layer).keys() == before[layer.name].keys()
    for old, new in zip(weights, small_model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_one_trace_serves_all_units_seeds_and_weights(small_model):
    ascent = ActivationMaximization(small_model, "late", steps=6)
    first = ascent([0, 1])
    ascent([3, 5], callbacks=[History(2), Snapshots(4)])
    small_model.set_weights([2 * each for each in small_model.get_weights()])
    assert not np.allclose(ascent([0, 1]), first)
    assert ascent.trace_count == 1
    again = ActivationMaximization(small_model, "late", steps=9, seed=8)
    again([2, 4])
    assert again.trace_count == 0  # shares the pass of the first


@pytest.mark.slow
def test_the_ascent_goes_when_its_model_goes(net):
    import weakref

    model = net.as_keras(7, 9)
    ActivationMaximization(model, steps=2, **PLAIN)(0)
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


@pytest.mark.slow
def test_callbacks_see_every_step_once_whatever_their_interval(small_model):
    histories = [History(every) for every in (1, 3, 4, 100)]
    steps = []

    class Note(AscentCallback):
        def on_step(self, state):
            steps.append((state.step, state.steps, len(state.losses["loss"])))

    ascent = ActivationMaximization(
        small_model, steps=10, input_range=(0, 1), regularizers=[TotalVariation(0.5)]
    )
    ascent([0, 2], callbacks=[*histories, Note(4)])
    assert steps == [(4, 10, 4), (8, 10, 4), (10, 10, 2)]
    for history in histories:
        assert set(history.losses) == {"score", "TV(2)", "loss"}
        assert history.losses["loss"].shape == (10, 2)
        np.testing.assert_array_equal(history.losses["loss"], histories[0].losses["loss"])
    terms = histories[0].losses
    np.testing.assert_allclose(terms["score"] + terms["TV(2)"], terms["loss"], rtol=1e-5)


@pytest.mark.slow
def test_callbacks_end_even_by_an_error(small_model, tmp_path):
    class Failing(AscentCallback):
        def on_step(self, state):
            raise KeyError("stop here")

    gif = GifWriter(tmp_path / "ascent", every=2, display=(0, 1))
    with pytest.raises(KeyError, match="stop here"):
        ActivationMaximization(small_model, steps=6, input_range=(0, 1), **PLAIN)(
            [0, 1], callbacks=[gif, Failing(4)]
        )
    from PIL import Image

    with Image.open(tmp_path / "ascent.gif") as picture:
        assert picture.n_frames == 2


@pytest.mark.slow
def test_the_progress_bar_shows_every_term(small_model, capsys):
    ActivationMaximization(small_model, steps=4, **PLAIN)(0, callbacks=[ProgressBar(2)])
    shown = capsys.readouterr().out
    assert "4/4" in shown
    assert "score" in shown
    assert "loss" in shown


@pytest.mark.slow
def test_objects_are_shown_at_more_sizes_than_textures_where_there_is_room():
    texture = (Jitter(0.04), Scale(0.9, 1.1), Rotate(8.0), Jitter(0.02))
    assert automatic_transforms((224, 224, 3)) == texture
    assert automatic_transforms((224, 63, 3), whole=True) == texture
    assert Scale(0.7, 1.2) in automatic_transforms((64, 64, 1), whole=True)
    assert automatic_transforms((5,)) == ()


# -- inputs of other kinds -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(20, 2), (6, 7, 8, 1), (5,)])
def test_inputs_of_one_three_and_no_axes(shape):
    inputs = keras.Input(shape)
    flat = keras.layers.Flatten()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="units")(flat))
    images = ActivationMaximization(model, steps=40, input_range=(-1, 1))(range(3))
    assert images.shape == (3, *shape)
    values = model.predict(images, verbose=0)
    start = model.predict(np.zeros((1, *shape), np.float32), verbose=0)
    assert (np.diag(values) > start[0] + 0.3).all()


@pytest.mark.slow
def test_a_channels_first_model_gives_the_same_images_channels_last():
    def build(layout, shape):
        inputs = keras.Input(shape)
        pooled = keras.layers.AveragePooling2D(2, data_format=layout)(inputs)
        pooled = keras.layers.GlobalMaxPooling2D(data_format=layout)(pooled)
        return keras.Model(inputs, keras.layers.Dense(4, name="units")(pooled))

    first, last = build("channels_first", (3, 8, 6)), build("channels_last", (8, 6, 3))
    first.set_weights(last.get_weights())
    expected = ActivationMaximization(last, steps=4, transforms=[Jitter(2)])([0, 2])
    found = ActivationMaximization(first, steps=4, transforms=[Jitter(2)])([0, 2])
    assert found.shape == (2, 8, 6, 3)
    np.testing.assert_allclose(found, expected, atol=1e-2)


@pytest.mark.slow
def test_half_precision_climbs_as_well():
    def build(precision):
        policy = keras.DTypePolicy(precision)
        inputs = keras.Input((9, 8, 3))
        x = keras.layers.Conv2D(4, 3, activation="elu", dtype=policy)(inputs)
        x = keras.layers.GlobalAveragePooling2D(dtype=policy)(x)
        return keras.Model(inputs, keras.layers.Dense(3, dtype=policy)(x))

    half, full = build("mixed_float16"), build("float32")
    full.set_weights(half.get_weights())
    settings = {"steps": 20, "input_range": (0, 1), "transforms": None}
    found = ActivationMaximization(half, **settings)([0, 1])
    expected = ActivationMaximization(full, **settings)([0, 1])
    assert found.dtype == np.float32
    reached, wanted = (full.predict(each, verbose=0)[[0, 1], [0, 1]] for each in (found, expected))
    np.testing.assert_allclose(reached, wanted, rtol=0.02, atol=0.02)


def two_inputs():
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((5,), name="right")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(left))
    joined = keras.layers.Concatenate()([pooled, right])
    outputs = [keras.layers.Dense(2, name=name)(joined) for name in ("a", "b")]
    return keras.Model({"left": left, "right": right}, outputs)


@pytest.mark.slow
def test_several_inputs_and_outputs():
    model = two_inputs()
    ranges = {"left": (0, 1), "right": (-1, 1)}
    ascent = ActivationMaximization(model, steps=30, input_range=ranges)
    images = ascent([scores.CategoricalScore(0), scores.InactiveScore()])
    assert images["left"].shape == (1, 8, 8, 3)
    assert images["right"].shape == (1, 5)
    assert images["left"].min() >= 0
    kernel = model.get_layer("a").get_weights()[0][4:, 0]
    assert (np.sign(images["right"][0]) == np.sign(kernel)).all()
    first = model(images)[0][0, 0]
    zeros = {name: np.zeros_like(each) for name, each in images.items()}
    assert first > model(zeros)[0][0, 0] + 0.5


@pytest.mark.slow
def test_a_seed_is_where_the_ascent_starts(small_model, images):
    seeds = 255 * images
    kept = seeds.copy()
    snapshots = Snapshots(every=1)
    ascent = ActivationMaximization(small_model, steps=1, transforms=None)
    ascent(range(3), seeds[0], callbacks=[snapshots])
    for each in snapshots.images[0]:
        np.testing.assert_allclose(each, np.clip(seeds[0], 2.55, 252.45), atol=0.5)
    np.testing.assert_array_equal(seeds, kept)
    ascent(1, seeds, callbacks=[snapshots])
    np.testing.assert_allclose(snapshots.images[0], np.clip(seeds, 2.55, 252.45), atol=0.5)


@pytest.mark.slow
def test_an_open_size_is_given_by_shape():
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 3, name="filters")(inputs))
    with pytest.raises(ValueError, match=r"Give `shape=\(224, 224, 3\)`"):
        ActivationMaximization(model, "filters")(0)
    images = ActivationMaximization(model, "filters", steps=2, shape=(11, 14, 3), **PLAIN)([0, 1])
    assert images.shape == (2, 11, 14, 3)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mistakes_are_answered_in_one_sentence(small_model):
    ascent = ActivationMaximization(small_model, "late", steps=2, **PLAIN)
    with pytest.raises(TypeError, match="Received: None"):
        ascent(None)
    with pytest.raises(ValueError, match="from 0 to 7"):
        ascent([0, 8])
    with pytest.raises(ValueError, match="with 8 entries"):
        ascent(np.ones(5))
    with pytest.raises(ValueError, match="Received: 2 seeds"):
        ascent([0, 1, 2], np.zeros((2, 16, 12, 3), np.float32))
    with pytest.raises(ValueError, match="not all zero"):
        ascent(np.zeros(8))
    with pytest.raises(ValueError, match="from 0 to 7"):
        ascent(UnitsScore([[1, 8]]))
    with pytest.raises(ValueError, match="positive int"):
        ActivationMaximization(small_model, steps=0)
    with pytest.raises(ValueError, match="low below high"):
        ActivationMaximization(small_model, input_range=(1, 0))
    with pytest.raises(ValueError, match="Close names"):
        ActivationMaximization(small_model, "lat")
    with pytest.raises(ValueError, match="through steps with a gradient"):
        ascent(lambda output: tf.round(output[:, 0, 0, 0]) * 0.0 + 1.0)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_said(small_model):
    ascent = ActivationMaximization(small_model, steps=4, **PLAIN)
    with pytest.raises(ValueError, match="at step 0"):
        ascent(lambda output: output[:, 0] * float("nan"))


@pytest.mark.slow
def test_a_dead_unit_is_said(net):
    model = net.as_keras(7, 9)
    kernel, bias = model.get_layer("pre2").get_weights()
    kernel[..., 3] = 0
    model.get_layer("pre2").set_weights([kernel, bias])
    with pytest.warns(UserWarning, match=r"No gradient reached image \[1\]"):
        ActivationMaximization(model, "pre2", steps=2, **PLAIN)([0, 3, 4])


# -- real models -----------------------------------------------------------------------------------

CLASSES = [130, 985, 207, 281, 973, 417, 951, 746, 340, 817]


@pytest.mark.slow
def test_class_images_are_classified_as_their_class(shared_data):
    model = keras.models.load_model(shared_data / "efficientnet_lite0.keras")
    images = ActivationMaximization(model, steps=96)(CLASSES)
    found = model.predict(images, verbose=0)[range(10), CLASSES]
    assert (found > 0.9).sum() >= 8, found
    noise = np.random.default_rng(0).uniform(0, 255, images.shape).astype(np.float32)
    assert model.predict(noise, verbose=0)[range(10), CLASSES].max() < 0.1


@pytest.mark.slow
def test_memory_stays_flat_over_a_thousand_steps(small_model):
    ascent = ActivationMaximization(small_model, "late", steps=1000)
    history = History(every=50)
    ascent(range(8))
    before = resident_megabytes()
    ascent(range(8), callbacks=[history])
    assert resident_megabytes() - before < 30
    assert history.losses["loss"].shape == (1000, 8)


def resident_megabytes():
    gc.collect()
    time.sleep(0.1)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
def test_fourier_images_are_smoother_than_pixels(small_model):
    """What the parametrization is for: less of the energy at the highest frequencies."""

    def roughness(chart):
        settings = {"steps": 60, "input_range": (0, 1), "transforms": None}
        (image,) = ActivationMaximization(
            small_model, parametrization=chart, constraints=[], **settings
        )(1)
        power = np.abs(np.fft.fft2(image - image.mean(axis=(0, 1)), axes=(0, 1))) ** 2
        radius = np.hypot.outer(np.fft.fftfreq(16), np.fft.fftfreq(12))
        return power[radius > 0.35].sum() / power.sum()

    assert roughness(Fourier()) < 0.5 * roughness(Pixels())
