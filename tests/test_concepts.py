"""CRAFT: its factorisation, its importance and its maps, by closed forms and scikit-learn."""

import keras
import numpy as np
import pytest
import references
from references import assert_same
from scipy.optimize import nnls
from sklearn.decomposition import NMF

from kvis2.inspection import craft
from kvis2.inspection.concepts import _designs, factorized, total_indices


def test_planted_factors_are_found():
    """Each channel belongs to one concept: the factorisation is unique up to order and length."""
    draw = np.random.default_rng(0)
    vectors = np.kron(np.eye(3), draw.uniform(0.5, 1, (1, 4)))
    shares = draw.uniform(0, 1, (60, 3)) * (draw.uniform(size=(60, 3)) > 0.4)
    found, rows = factorized(shares @ vectors, 3, draw, updates=2000)
    np.testing.assert_allclose(found @ rows, shares @ vectors, atol=1e-3)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    likeness = rows @ unit.T
    assert sorted(likeness.argmax(axis=1)) == [0, 1, 2]
    assert likeness.max(axis=1).min() > 0.999


def test_the_factorisation_is_as_close_as_that_of_scikit_learn():
    values = np.random.default_rng(1).gamma(1.0, size=(50, 12))
    shares, vectors = factorized(values, 4, np.random.default_rng(2))
    peer = NMF(4, init="random", random_state=0, max_iter=2000, tol=1e-8).fit(values)
    assert np.linalg.norm(values - shares @ vectors) < 1.02 * peer.reconstruction_err_
    assert min(shares.min(), vectors.min()) >= 0
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda m: m @ [3.0, 1.0, 2.0], np.array([9, 1, 4]) / 14),  # Additive: shares of variance.
        (lambda m: m[:, 0] * m[:, 1], np.array([4, 4, 0]) / 7),  # By hand, over the unit cube.
    ],
)
def test_total_sobol_indices_in_closed_form(function, expected):
    points = _designs(3, 20000, np.random.default_rng(0))
    found = total_indices(function(points.astype(float)), 3)
    np.testing.assert_allclose(found, expected, atol=0.02)


def linear_head():
    """A convolution, its mean over space, a dense layer: the score is linear in the concepts."""
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.Conv2D(5, 3, activation="relu", name="features")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="head")(x))
    draw = np.random.default_rng(3)
    model.set_weights([draw.normal(0.1, 0.5, w.shape) for w in model.get_weights()])
    return model, draw.uniform(size=(3, 12, 10, 3)).astype(np.float32)


def of_images(model, images, vectors):
    """`U` of every position by SciPy's non-negative least squares, and the activations."""
    values = model.get_layer("features")(images).numpy().astype(float)
    rows = values.reshape(-1, values.shape[-1])
    shares = np.array([nnls(vectors.T.astype(float), row)[0] for row in rows])
    return shares.reshape(*values.shape[:-1], -1), values


@pytest.fixture(scope="module")
def found():
    model, images = linear_head()
    options = {"concepts": 3, "patch": 5, "designs": 2000, "crops": 4}
    return model, images, craft(model, "features", images, 1, **options)


def test_importance_of_concepts_before_a_linear_head(found):
    """f(m) = b + sum_i m_i c_i, c_i = mean of U_i times W_i . w: total indices c_i^2 / sum c^2."""
    model, images, concepts = found
    shares, _ = of_images(model, images, concepts.vectors)
    column = model.get_layer("head").get_weights()[0][:, 1]
    parts = shares.mean(axis=(1, 2)) * (concepts.vectors @ column)
    expected = (parts**2 / (parts**2).sum(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(concepts.importance, expected, atol=0.05)
    assert (np.diff(concepts.importance) <= 0).all()


@pytest.mark.slow
def test_maps_are_the_shares_of_the_concepts_at_the_size_of_the_images(found):
    model, images, concepts = found
    shares, _ = of_images(model, images, concepts.vectors)
    maps = concepts.maps(images)
    assert maps.shape == (3, 12, 10, 3)
    for k in range(3):
        expected = references.resize(shares[..., k], (12, 10))
        assert_same(maps[..., k], expected, relative=1e-2)


@pytest.mark.slow
def test_crops_are_the_patches_with_most_of_a_concept(found):
    """Each crop is a patch of its image, and no other of the 5-pixel patches has more."""
    model, images, concepts = found
    windows = [(n, y, x) for n in range(3) for y in range(0, 8, 4) for x in range(0, 6, 4)]
    means = []
    for n, y, x in windows:
        patch = images[n : n + 1, y : y + 5, x : x + 5]
        large = np.stack(
            [references.resize(patch[..., c], (12, 10)) for c in range(3)], axis=-1
        ).astype(np.float32)
        means.append(model.get_layer("features")(large).numpy().mean(axis=(0, 1, 2)))
    shares = np.array([nnls(concepts.vectors.T.astype(float), row)[0] for row in means])
    for k, crops in enumerate(concepts.crops):
        assert [each.value for each in crops] == sorted(
            [each.value for each in crops], reverse=True
        )
        for crop in crops:
            (y, _), (x, _) = crop.box
            np.testing.assert_array_equal(crop.pixels, images[crop.image, y : y + 5, x : x + 5])
        best = crops[0]
        place = windows.index((best.image, *best.position))
        assert shares[place, k] > 0.95 * shares[:, k].max()


@pytest.mark.slow
def test_the_same_seed_finds_the_same(found):
    model, images, _ = found
    options = {"concepts": 2, "patch": 6, "designs": 8}
    one, same = (craft(model, "features", images, 1, seed=7, **options) for _ in range(2))
    np.testing.assert_array_equal(one.vectors, same.vectors)
    np.testing.assert_array_equal(one.importance, same.importance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patch": 11}, "at least 11 pixels a side"),
        ({"concepts": 0}, "`concepts` to be a positive int"),
        ({"patch": 5, "layer": "linear"}, "not negative, to factorise it"),
    ],
)
def test_what_cannot_be_factorised(found, options, said):
    model, images, _ = found
    inputs = keras.Input((12, 10, 3))
    linear = keras.layers.Conv2D(3, 3, name="linear")(inputs)
    top = keras.layers.Dense(2)(keras.layers.Flatten()(linear))
    options = {"patch": 5, "layer": "features", **options}
    layer = options.pop("layer")
    model = keras.Model(inputs, top) if layer == "linear" else model
    with pytest.raises(ValueError, match=said):
        craft(model, layer, images, 1, **options)
