"""LRP's biases and concepts: against zennit 0.5.1 and zennit-crp 0.6.0, NumPy, and axioms."""

from pathlib import Path

import keras
import lrp_references
import numpy as np
import pytest
from references import assert_same
from test_attention import vit
from test_lrp import batch_of, functional, randomized, vgg_like
from tiny_net import Case, TinyNet

from kvis2.lrp import LRP, Composite, Epsilon, EpsilonAlpha2Beta1, EpsilonPlus, EpsilonPlusFlat

RAW = {"normalize": False}


@pytest.fixture(scope="module")
def case():
    return Case.of(TinyNet.random(64))


@pytest.fixture(scope="module")
def goldens():
    with np.load(Path(__file__).parent / "goldens" / "zennit.npz") as stored:
        return dict(stored)


# -- biases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("golden", "composite", "bias"),
    [
        ("plus_flat", EpsilonPlusFlat(), "ignore"),
        ("plus", EpsilonPlus(), "ignore"),
        ("alpha_beta", EpsilonAlpha2Beta1(), "ignore"),
        ("plus_flat_absorb", EpsilonPlusFlat(), "absorb"),
    ],
)
def test_biases_are_ignored_as_by_zero_params_of_zennit(case, goldens, golden, composite, bias):
    explainer = LRP(case.model, composite, bias=bias, keepdims=True, **RAW)
    assert_same(explainer(case.classes, goldens["images"]), goldens[golden], relative=2e-3)
    if bias == "ignore":
        assert (explainer.conservation_error < 5e-3).all()


def two_layers(bias="zeros"):
    model = keras.Sequential(
        [
            keras.Input((7,)),
            keras.layers.Dense(5, activation="relu", name="first"),
            keras.layers.Dense(3, name="second"),
        ]
    )
    return randomized(model, seed=3)


def by_hand(model, values, label, share):
    """Epsilon's rule with the bias gone, or spread evenly: `(a_j w_jk + b_k / N) / z_k`."""
    (W1, b1), (W2, b2) = (
        [w.astype(float) for w in model.get_layer(name).get_weights()]
        for name in ("first", "second")
    )
    found = []
    for x in values.astype(float):
        a = np.maximum(x @ W1 + b1, 0)
        z2 = a @ W2 + b2
        relevance = np.zeros(3)
        relevance[label] = z2[label]
        for inputs, W, b in ((a, W2, b2), (x, W1, b1)):
            contributions = inputs[:, None] * W
            if share:
                contributions = contributions + b / len(inputs)
            total = contributions.sum(axis=0)
            relevance = (contributions / total * relevance).sum(axis=1)
        found.append(relevance)
    return np.array(found)


@pytest.mark.parametrize("bias", ["ignore", "share"])
def test_biases_of_dense_layers_by_hand(bias):
    model, values = two_layers(), batch_of((7,))
    explainer = LRP(model, Composite(Epsilon(0), Epsilon(0)), bias=bias, **RAW)
    maps = explainer(1, values)
    assert_same(maps, by_hand(model, values, 1, bias == "share"), relative=1e-3)
    assert (explainer.conservation_error < 1e-3).all()


def test_a_shared_bias_stays_within_the_window_that_a_convolution_sees():
    """One filter at one position: padding leaves fewer inputs to share among."""
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(1, 3, padding="same", name="conv"),
            keras.layers.Flatten(),
        ]
    )
    randomized(model, seed=2)
    values = batch_of((4, 4, 1), samples=1)
    kernel, bias = (w.astype(float) for w in model.get_weights())
    matrix, _ = lrp_references.convolution_matrix((4, 4, 1), kernel, same=True)
    links, _ = lrp_references.convolution_matrix((4, 4, 1), np.ones_like(kernel), same=True)
    a = values.reshape(-1).astype(float)
    for position in (0, 5):
        z = a @ matrix[:, position] + bias[0]
        seen = links[:, position]
        assert seen.sum() == (4 if position == 0 else 9)
        expected = a * matrix[:, position] + bias[0] * seen / seen.sum()
        assert z == pytest.approx(expected.sum())
        explainer = LRP(model, Composite(Epsilon(0), Epsilon(0)), bias="share", **RAW)
        assert_same(explainer(position, values).reshape(-1), expected, relative=1e-3)


def residual(x, bias):
    """Convolutions with biases and batch normalisation, joined by a sum."""
    for step in range(2):
        y = keras.layers.Conv2D(4, 3, padding="same", use_bias=bias)(x)
        y = keras.layers.ReLU()(keras.layers.BatchNormalization(center=bias)(y))
        x = keras.layers.Add()([x, y]) if step else y
    return keras.layers.Dense(3, use_bias=bias)(keras.layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize("build", [vgg_like, residual])
@pytest.mark.parametrize("bias", ["ignore", "share"])
def test_relevance_is_conserved_with_biases_and_batch_normalisation(build, bias):
    model = randomized(functional((12, 10, 3), lambda x: build(x, True)), scale=0.4)
    images = batch_of((12, 10, 3))
    absorbing = LRP(model, Composite(Epsilon(0), Epsilon(0)), **RAW)
    absorbing(1, images)
    explainer = LRP(model, Composite(Epsilon(0), Epsilon(0)), bias=bias, **RAW)
    explainer(1, images)
    assert absorbing.conservation_error.max() > 0.2
    assert (explainer.conservation_error < 1e-2).all()


def test_shares_that_outgrow_their_numbers_are_refused_with_the_reason():
    """Eight layers whose sums are 1e-6 without their bias: shares of a million each."""
    dense = [keras.layers.Dense(2) for _ in range(8)]
    model = keras.Sequential([keras.Input((2,)), *dense])
    for layer in dense:
        layer.set_weights([np.array([[1.0, 1e-6 - 1.0], [1e-6 - 1.0, 1.0]]), np.ones(2)])
    rule = Epsilon(0)
    explainer = LRP(model, Composite(rule, rule), bias="ignore")
    with pytest.raises(ValueError, match="with bias='ignore': sums that are small"):
        explainer(0, np.ones((1, 2), np.float32))


# -- concepts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("golden", "channels"), [("crp_r1_2", {"conv1": 2}), ("crp_c2_13", {"pre2": [1, 3]})]
)
def test_relevance_of_channels_is_that_of_zennit_crp(case, goldens, golden, channels):
    explainer = LRP(case.model, EpsilonPlusFlat(), channels=channels, **RAW)
    assert_same(explainer(case.classes, goldens["images"]), goldens[golden], relative=2e-3)


def test_the_maps_of_all_channels_add_up_to_the_plain_map(case):
    each = [
        LRP(case.model, channels={"conv1": k}, **RAW)(case.classes, case.images) for k in range(4)
    ]
    whole = LRP(case.model, **RAW)(case.classes, case.images)
    assert_same(np.sum(each, axis=0), whole, relative=1e-3)
    pair = LRP(case.model, channels={"conv1": [0, 3]}, **RAW)(case.classes, case.images)
    assert_same(pair, each[0] + each[3], relative=1e-3)


@pytest.mark.slow
def test_two_layers_are_one_condition_after_the_other(case):
    """The sum over the lower layer's channels is the map of the upper one's."""
    parts = [
        LRP(case.model, channels={"conv1": k, "conv2": 1}, **RAW)(case.classes, case.images)
        for k in range(4)
    ]
    upper = LRP(case.model, channels={"conv2": 1}, **RAW)(case.classes, case.images)
    assert_same(np.sum(parts, axis=0), upper, relative=1e-3)


@pytest.mark.slow
def test_relevance_of_a_shortcut_is_not_of_the_channels_beside_it():
    def build(x):
        x = keras.layers.Conv2D(4, 3, padding="same", name="stem")(x)
        y = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="branch")(x)
        x = keras.layers.Add(name="sum")([x, y])
        return keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))

    model = randomized(functional((6, 5, 2), build))
    images = batch_of((6, 5, 2))
    options = {"composite": Composite(Epsilon(0), Epsilon(0)), **RAW}
    branch = LRP(model, channels={"branch": range(4)}, **options)(1, images)
    whole = LRP(model, **options)(1, images)
    # What is left is what the same network hands through the shortcut, the branch being constant.
    assert np.abs(whole - branch).max() > 0.1 * np.abs(whole).max()
    start = LRP(model, channels={"sum": range(4)}, **options)(1, images)
    assert_same(start, whole, relative=1e-3)


@pytest.mark.slow
def test_channels_of_a_batch_normalised_convolution():
    """Before and after the normalisation that is folded into it, channels are the same."""

    def build(x):
        x = keras.layers.Conv2D(4, 3, name="conv")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(x))
        return keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))

    model, images = randomized(functional((6, 5, 2), build)), batch_of((6, 5, 2))
    found = [LRP(model, channels={name: [0, 2]}, **RAW)(2, images) for name in ("conv", "norm")]
    assert_same(found[0], found[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bias": "drop"}, "'absorb', 'ignore', 'share'"),
        ({"channels": {"conv1": []}}, "the channels of 'conv1': an int"),
        ({"channels": {"conv1": 9}}, r"channels from 0 to 3 of the layer 'conv1'\. Received: 9"),
        ({"channels": {"conv1": 1}, "layer": "conv1"}, "`channels` without `layer`"),
    ],
)
def test_wrong_argument(case, options, said):
    with pytest.raises(ValueError, match=said):
        LRP(case.model, **options)(0, case.images)


# -- attention ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_attn_lrp_of_a_vision_transformer_is_that_of_lxt():
    """The same weights through the functions of lxt 2.1: every matrix product, softmax and sum."""
    with np.load(Path(__file__).parent / "goldens" / "lxt.npz") as stored:
        golden = dict(stored)
    model = vit((8, 8, 2), blocks=2)
    draw = np.random.default_rng(4)
    model.set_weights([draw.normal(0, 0.6, w.shape) for w in model.get_weights()])
    rule = Epsilon(1e-6)
    explainer = LRP(model, Composite(rule, rule), keepdims=True, **RAW)
    maps = explainer([int(each) for each in golden["classes"]], golden["images"])
    assert_same(maps, golden["relevance"], relative=2e-3)
