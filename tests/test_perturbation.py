"""Methods that hide parts of the input, against brute force in NumPy and closed forms."""

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from references import assert_same
from sampled import rest_slow
from tiny_net import Case, TinyNet

from kvis2.explainers import (
    RISE,
    AblationCAM,
    ExtremalMask,
    IntegratedGradients,
    Occlusion,
    Saliency,
    ScoreCAM,
    SmoothGrad,
)


@pytest.fixture(scope="module")
def case():
    return Case.of(TinyNet.random(64))


def linear_model(weights, activation=None, bias=0.0):
    """score = activation(sum(weights * x) + bias), one unit."""
    dense = keras.layers.Dense(1, activation=activation)
    model = keras.Sequential([keras.Input(weights.shape), keras.layers.Flatten(), dense])
    model.set_weights([weights.reshape(-1, 1), np.array([bias])])
    return model


def occluded(case, windows, value):
    """Occlusion by brute force: `windows` are pairs of slices."""
    own = case.probability(case.images)
    falls, covered = np.zeros((3, 7, 9)), np.zeros((7, 9))
    for rows, columns in windows:
        images = case.images.copy()
        images[:, rows, columns] = value
        falls[:, rows, columns] += (own - case.probability(images))[:, None, None]
        covered[rows, columns] += 1
    return references.ratio(falls, np.maximum(covered, 1))


@pytest.mark.parametrize("batch_size", [None, 2])
def test_occlusion_is_the_mean_fall_over_the_windows_that_cover(case, batch_size):
    # height 7, window 3, stride 2: 0, 2, 4; width 9, window 4, stride 3: 0, 3, then flush: 5
    windows = [(slice(r, r + 3), slice(c, c + 4)) for r in (0, 2, 4) for c in (0, 3, 5)]
    explainer = Occlusion(
        case.model, window=(3, 4), stride=(2, 3), value=0.3, normalize=False, batch_size=batch_size
    )
    maps = explainer(case.classes, case.images)
    assert maps.dtype == np.float32
    assert_same(maps, occluded(case, windows, 0.3))
    assert (maps < 0).any()


def test_positions_that_no_window_covers_are_zero(case):
    windows = [(slice(r, r + 1), slice(c, c + 1)) for r in (0, 3, 6) for c in (0, 3, 6, 8)]
    maps = Occlusion(case.model, window=1, stride=3, normalize=False)(case.classes, case.images)
    assert_same(maps, occluded(case, windows, 0.0))


@pytest.mark.parametrize("shape", [(6,), (5, 2), (4, 5, 2), (3, 4, 2, 2)])
def test_occlusion_of_a_linear_score_is_input_times_weight(shape):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=shape)
    inputs = rng.normal(size=(2, *shape)).astype(np.float32)
    maps = Occlusion(linear_model(weights), window=1, stride=1, normalize=False)(0, inputs)
    product = inputs * weights
    assert_same(maps, product if len(shape) == 1 else product.sum(axis=-1))


def test_occlusion_of_tokens_replaces_them():
    tokens = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(7, 3)(tokens)
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(x))
    model = keras.Model(tokens, outputs)
    model.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    sentence = np.array([[1, 2, 3, 4, 5]])
    expected = []
    for i in range(5):
        hidden = sentence.copy()
        hidden[0, i] = 6
        expected.append(model(sentence).numpy()[0, 0] - model(hidden).numpy()[0, 0])
    maps = Occlusion(model, window=1, stride=1, value=6, normalize=False)(0, sentence)
    assert_same(maps[0], np.array(expected))


@pytest.mark.filterwarnings("ignore:Occlusion found no evidence")
def test_occlusion_by_a_blurred_copy_leaves_a_constant_image_alone():
    weights = np.random.default_rng(0).normal(size=(20, 20, 1))
    explainer = Occlusion(linear_model(weights), value="blur", normalize=False)
    image = np.full((1, 20, 20, 1), 3.0)
    np.testing.assert_allclose(explainer(0, image), 0, atol=1e-6 * 3.0 * np.abs(weights).sum())
    image[0, 4, 7] = 100.0
    assert np.abs(explainer(0, image)).max() > 1.0


# -- RISE -----------------------------------------------------------------------------------------


def masks_of(explainer, size):
    """The masks that an explainer uses, as NumPy arrays."""
    method = explainer.for_pass(1)
    return method.masks(tf.range(explainer.samples), list(size)).numpy().astype(np.float64)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_rise_is_the_papers_sum_over_its_masks(case, batch_size):
    options = {"samples": 12, "cells": 3, "probability": 0.4, "seed": 5, "batch_size": batch_size}
    explainer = RISE(case.model, centred=False, normalize=False, **options)
    masks = masks_of(explainer, (7, 9))
    values = np.array([case.probability(case.images * mask[..., None]) for mask in masks])
    expected = np.tensordot(values, masks, [[0], [0]]) / (12 * 0.4)
    assert_same(explainer(case.classes, case.images), expected)

    centred = RISE(case.model, normalize=False, **options)
    expected -= values.mean(axis=0)[:, None, None]
    assert_same(centred(case.classes, case.images), expected)


def test_masks_of_rise_are_enlarged_grids_of_the_asked_probability(case):
    explainer = RISE(case.model, samples=600, cells=4, probability=0.3, seed=1)
    masks = masks_of(explainer, (40, 30))
    assert masks.shape == (600, 40, 30)
    assert masks.min() == 0
    assert masks.max() == 1
    # 600 masks of about 20 free cells: the mean of one position has a standard error of 0.017
    assert np.abs(masks.mean(axis=0) - 0.3).max() < 0.08
    assert masks.mean() == pytest.approx(0.3, abs=0.01)
    steps = np.abs(np.diff(masks, axis=1)).max()
    assert steps <= 1 / 10 + 1e-6  # cells of ten rows


def test_rise_finds_the_pixels_that_count():
    weights = np.zeros((12, 12, 1))
    weights[2:5, 7:10] = 1.0
    maps = RISE(linear_model(weights), samples=400, cells=6)(0, np.ones((1, 12, 12, 1)))
    assert np.unravel_index(maps[0].argmax(), (12, 12)) in {
        (r, c) for r in range(2, 5) for c in range(7, 10)
    }
    outside = np.abs(maps[0][6:, :6]).max()
    assert outside < 0.5


# -- extremal mask --------------------------------------------------------------------------------


def test_the_extremal_mask_shows_what_counts_and_keeps_its_area():
    weights = np.zeros((12, 12, 1))
    weights[0:4, 8:12] = 1.0
    explainer = ExtremalMask(
        linear_model(weights),
        area=1 / 9,
        cells=12,
        smoothness=0.1,
        value=0.0,
        steps=150,
        normalize=False,
    )
    mask = explainer(0, np.ones((1, 12, 12, 1)))[0]
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert mask[0:4, 8:12].min() > 0.9
    mask[0:4, 8:12] = 0
    assert mask.max() < 0.1


def test_the_extremal_mask_leaves_out_a_corner_that_hardly_matters():
    """The score saturates before the mask is full: what matters more must have come first."""
    weights = np.full((40, 40, 1), -0.0002)
    weights[10:28, 14:32] = 0.02
    weights[13:25, 17:29] = 0.1
    weights[:12, :12] = 0.002
    model = linear_model(weights, "sigmoid", bias=-3.0)
    mask = ExtremalMask(model, area=18 * 18 / 40**2, value=0.0)(1, np.ones((1, 40, 40, 1)))[0]
    assert mask[10:28, 14:32].mean() > 0.6
    assert mask[:12, :12].mean() < 0.05
    assert mask[:6, :6].max() < 0.05


# -- all of them ----------------------------------------------------------------------------------


class Rows(keras.layers.Layer):
    """Identity that notes how many rows each forward pass has."""

    def __init__(self):
        super().__init__()
        self.noted = []

    def call(self, inputs):
        tf.py_function(lambda n: self.noted.append(int(n)), [tf.shape(inputs)[0]], [])
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape


LONG = {
    "Occlusion": (lambda m, **o: Occlusion(m, window=3, stride=2, **o), 3 * 4 * 3),
    "RISE": (lambda m, **o: RISE(m, samples=20, cells=3, **o), 20 * 3),
    "ExtremalMask": (lambda m, **o: ExtremalMask(m, steps=4, cells=3, **o), 4 * 3),
    "ScoreCAM": (lambda m, **o: ScoreCAM(m, layer="conv2", **o), 5),
    "AblationCAM": (lambda m, **o: AblationCAM(m, layer="conv1", **o), 3 * 3),
    "IntegratedGradients": (lambda m, **o: IntegratedGradients(m, steps=9, **o), 9 * 3),
    "SmoothGrad": (lambda m, **o: SmoothGrad(Saliency(m, **o), 9), 9 * 3),
}


@pytest.mark.filterwarnings("ignore:.*found no evidence")
@pytest.mark.parametrize("batch_size", rest_slow([2, 1, 5]))
@pytest.mark.parametrize("name", LONG)
def test_batch_size_bounds_the_rows_of_every_forward_pass(case, name, batch_size):
    rows = Rows()
    model = keras.Sequential([keras.Input((7, 9, 2)), rows, *case.model.layers])
    make, least = LONG[name]
    rows.noted.clear()
    make(model, batch_size=batch_size)(case.classes, case.images)
    assert max(rows.noted) <= batch_size
    assert sum(rows.noted) >= least


@pytest.mark.parametrize("name", rest_slow(["RISE", "Occlusion", "ExtremalMask"]))
def test_seeds_repeat_and_chunks_do_not_matter(case, name):
    def explain(batch_size, images):
        options = {"normalize": False, "batch_size": batch_size}
        return LONG[name][0](case.model, **options)(0, images)

    first = explain(None, case.images)
    np.testing.assert_array_equal(first, explain(None, case.images))
    assert_same(explain(2, case.images), first)
    assert_same(explain(None, case.images[1:2]), first[1:2])


@pytest.mark.filterwarnings("ignore:.*found no evidence")
@pytest.mark.parametrize("name", rest_slow(LONG, 2))
def test_progress_is_shown_once_and_reaches_its_end(case, name, capfd):
    make, _ = LONG[name]
    quiet = make(case.model, batch_size=2)(case.classes, case.images)
    assert capfd.readouterr().out == ""
    shown = make(case.model, batch_size=2, verbose=1)(case.classes, case.images)
    last = capfd.readouterr().out.replace("\r", "\n").replace("\x08", "").split("\n")
    ends = [line for line in last if "/" in line]
    done, count = ends[-1].split("━")[0].replace("\x1b[1m", "").replace("\x1b[0m", "").split("/")
    assert int(done) == int(count.split()[0])
    np.testing.assert_allclose(shown, quiet, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Occlusion(m, window=0), "positive int"),
        (lambda m: Occlusion(m, value="mean"), "a number or 'blur'"),
        (lambda m: Occlusion(m, window=(2, 2, 2))(0, np.ones((1, 7, 9, 2))), "each of the 2 axes"),
        (lambda m: RISE(m, samples=0), "positive ints"),
        (lambda m: RISE(m, probability=1.0), "between 0 and 1"),
        (lambda m: ExtremalMask(m, area=0), "between 0 and 1"),
        (lambda m: ExtremalMask(m, cells=0), "positive ints"),
        (lambda m: ExtremalMask(m, smoothness=0), "above 0"),
    ],
)
def test_wrong_options_are_answered_in_a_sentence(case, make, message):
    with pytest.raises(ValueError, match=message):
        make(case.model)
