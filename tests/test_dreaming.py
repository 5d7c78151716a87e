"""Deep dream: plain ascent by hand, tiles that do not show, any size of picture."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_net import TinyNet, convolve_backward

from kvis2.ascent import DeepDream
from kvis2.ascent.dreaming import _starts


@pytest.fixture(scope="module")
def net():
    return TinyNet.random(3, channels=3)


PLAIN = {"octaves": 1, "jitter": False, "normalize": False, "clip": False, "input_range": (0, 1)}


def test_plain_ascent_by_hand(net):
    """x <- x + rate dmean(filter)/dx - decay (x - grey), as the second original."""
    image = np.random.default_rng(0).random((7, 9, 3)).astype(np.float32)
    expected = image[None].astype(float)
    for _ in range(3):
        values = net.forward(expected)
        upstream = np.zeros_like(values.pre2)
        upstream[..., 3] = 1 / upstream[0, ..., 3].size
        lower = convolve_backward(upstream, net.kernel2) * (values.pre1 > 0)
        gradient = convolve_backward(lower, net.kernel1)
        expected = expected + 0.5 * gradient - 0.01 * (expected - 0.5)
    dream = DeepDream(net.as_keras(7, 9), "pre2", steps=3, step_size=0.5, decay=0.01, **PLAIN)
    np.testing.assert_allclose(dream(3, image), expected[0], atol=1e-5)


def test_steps_have_the_mean_size_asked_for(net):
    image = np.full((1, 30, 20, 3), 100, np.float32)
    image += np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    dream = DeepDream(net.as_keras(7, 9), "conv2", steps=1, step_size=0.02, octaves=1)(None, image)
    assert np.abs(dream - image).mean() == pytest.approx(0.02 * 255, rel=1e-3)


@pytest.mark.parametrize(("length", "tile"), [(7, 7), (20, 7), (21, 7), (22, 7), (500, 224)])
def test_tiles_cover_an_axis(length, tile):
    starts = _starts(tf.constant(length), tile).numpy()
    covered = np.zeros(length)
    for start in starts:
        assert 0 <= start <= length - tile
        covered[start : start + tile] += 1
    assert covered.min() >= 1
    assert len(starts) == -(-length // tile)


@pytest.mark.slow
def test_the_gradient_over_tiles_is_the_mean_over_those_that_cover(net):
    image = np.random.default_rng(0).random((1, 10, 15, 3)).astype(np.float32)
    settings = {**PLAIN, "steps": 1, "step_size": 1.0}
    found = DeepDream(net.as_keras(7, 9), "conv2", **settings)(1, image) - image
    alone = DeepDream(net.as_keras(7, 9), "conv2", **settings)
    total, cover = np.zeros(image.shape), np.zeros((1, 10, 15, 1))
    for top in (0, 3):
        for left in (0, 6):
            part = image[:, top : top + 7, left : left + 9]
            total[:, top : top + 7, left : left + 9] += alone(1, part) - part
            cover[:, top : top + 7, left : left + 9] += 1
    np.testing.assert_allclose(found, total / cover, atol=1e-5)


@pytest.mark.slow
def test_a_dream_excites_the_layer_and_stays_in_the_range(net):
    model = net.as_keras(7, 9)
    image = np.random.default_rng(0).uniform(0, 255, (2, 31, 26, 3)).astype(np.float32)
    kept, octaves = image.copy(), []
    explainer = DeepDream(model, "conv2", steps=10, octaves=3, seed=1)
    dream = explainer(None, image, snapshots=octaves)

    def excitement(images):
        windows = np.lib.stride_tricks.sliding_window_view(images, (7, 9), (1, 2))
        parts = np.moveaxis(windows, 3, -1)[:, ::5, ::5].reshape(-1, 7, 9, 3)
        return (net.forward(parts).conv2 ** 2).mean()

    assert excitement(dream) > 1.5 * excitement(image)
    assert dream.min() >= 0
    assert dream.max() <= 255
    assert [each.shape[1:3] for each in octaves] == [(16, 13), (22, 19), (31, 26)]
    np.testing.assert_array_equal(image, kept)
    assert explainer.trace_count == 1  # for all octaves and images
    np.testing.assert_array_equal(explainer(None, image), dream)
    np.testing.assert_allclose(explainer(None, image[1]), dream[1], atol=1e-3)
    assert not np.allclose(
        DeepDream(model, "conv2", steps=10, octaves=3, seed=2)(None, image), dream
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "sizes"),
    [((7, 9), [(7, 9), (14, 18), (28, 36)]), ((5, 20), [(7, 28), (14, 56), (28, 112)])],
)
def test_a_picture_no_larger_than_the_model_takes_has_all_its_octaves(net, size, sizes):
    image = np.random.default_rng(0).uniform(0, 255, (*size, 3)).astype(np.float32)
    octaves = []
    dream = DeepDream(net.as_keras(7, 9), "conv2", steps=4, octaves=3, octave_scale=2)
    found = dream(None, image, snapshots=octaves)
    assert [each.shape[:2] for each in octaves] == sizes
    if sizes[-1] == (4 * size[0], 4 * size[1]):  # what a pixel of the photograph covers
        blocks = octaves[-1].reshape(size[0], 4, size[1], 4, 3)
        np.testing.assert_allclose(found, blocks.mean(axis=(1, 3)), atol=1e-3)
    assert found.shape == image.shape
    assert np.abs(found - image).mean() > 5


@pytest.mark.slow
def test_a_model_of_open_size_dreams_in_tiles_of_any_size():
    keras.utils.set_random_seed(2)
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 3, padding="same", name="f")(inputs))
    image = np.random.default_rng(0).uniform(0, 255, (60, 70, 3)).astype(np.float32)
    for tile in (None, 40):
        dream = DeepDream(model, "f", steps=2, octaves=2, tile=tile)(None, image)
        assert dream.shape == image.shape
        assert np.abs(dream - image).max() > 1


@pytest.mark.slow
def test_mistakes_are_answered_in_one_sentence(net):
    model = net.as_keras(7, 9)
    vectors = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")])
    with pytest.raises(ValueError, match=r"one input \(batch, height, width, channels\)"):
        DeepDream(vectors, "dense")(None, np.zeros((5, 20, 3)))
    with pytest.raises(ValueError, match="octave scale above 1"):
        DeepDream(model, "conv2", octave_scale=1.0)
