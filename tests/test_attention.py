"""Attention rollout against a transformer whose attention is written out in NumPy."""

import functools

import keras
import numpy as np
import pytest
import references
from references import assert_same
from scipy.special import erf

from kvis2.explainers import AttentionRollout, GradientAttentionRollout, LeGrad
from kvis2.models import token_grid

TOKENS, WIDTH, HEADS, LAYERS = 6, 4, 2, 2
RAW = {"normalize": False, "resize": False}


def transformer(**options):
    """tokens -> two layers of attention with residuals -> first and mean token -> dense."""
    inputs = x = keras.Input((TOKENS, WIDTH))
    for _ in range(LAYERS):
        x = x + keras.layers.MultiHeadAttention(HEADS, 3, **options)(x, x)
    x = keras.layers.Concatenate()([x[:, 0], keras.ops.mean(keras.ops.tanh(x), axis=1)])
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.8, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def model():
    return transformer()


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(1).normal(size=(3, TOKENS, WIDTH)).astype(np.float32)


def attend(x, weights, change):
    """What a layer of attention returns, and its matrices, to which `change` is added."""
    wq, bq, wk, bk, wv, bv, wo, bo = weights
    q, k, v = (np.einsum("ntc,chd->nhtd", x, w) + b[:, None] for w, b in
               ((wq, bq), (wk, bk), (wv, bv)))  # fmt: skip
    attention = references.softmax(np.einsum("nhtd,nhsd->nhts", q, k) / np.sqrt(wq.shape[-1]))
    return np.einsum("nhts,nhsd,hdc->ntc", attention + change, v, wo) + bo, attention


def forward(model, tokens, change=None):
    """Logits and attention matrices; `change` is added to the matrix of one (layer, head)."""
    x, matrices = tokens.astype(np.float64), []
    weights = [w.astype(np.float64) for w in model.get_weights()]
    for layer in range(LAYERS):
        changed = change[1] if change is not None and change[0] == layer else 0.0
        attended, attention = attend(x, weights[8 * layer : 8 * layer + 8], changed)
        matrices.append(attention)
        x = x + attended
    kernel, bias = weights[-2:]
    features = np.concatenate([x[:, 0], np.tanh(x).mean(axis=1)], axis=-1)
    return features @ kernel + bias, matrices


def gradients(model, inputs, classes, forward=forward):
    """Central differences of each logit by each entry of each attention matrix."""
    found = []
    for layer, attention in enumerate(forward(model, inputs)[1]):
        entries = attention[0].size
        steps = 1e-5 * np.eye(entries).reshape(entries, *attention.shape[1:])
        steps = np.tile(steps, (len(inputs), 1, 1, 1))
        copies = np.repeat(inputs, entries, axis=0)
        up, down = (forward(model, copies, (layer, sign * steps))[0] for sign in (1, -1))
        slopes = (up - down)[np.arange(len(copies)), np.repeat(classes, entries)] / 2e-5
        found.append(slopes.reshape(attention.shape))
    return found


def rollout(matrices):
    """Abnar and Zuidema 2020."""
    identity = rolled = np.eye(matrices[0].shape[-1])
    for attention in matrices:
        rolled = (0.5 * identity + 0.5 * attention.mean(axis=1)) @ rolled
    return rolled


def gradient_rollout(matrices, slopes):
    """Chefer et al. 2021, equations 5 and 6, for self-attention."""
    identity = rolled = np.eye(matrices[0].shape[-1])
    for attention, slope in zip(matrices, slopes, strict=True):
        rolled = rolled + references.relu(slope * attention).mean(axis=1) @ rolled
    return rolled - identity


def test_the_transformer_by_hand_is_the_keras_model(model, tokens):
    probabilities = references.softmax(forward(model, tokens)[0])
    np.testing.assert_allclose(model(tokens).numpy(), probabilities, rtol=1e-4)


@pytest.mark.parametrize("leading", [0, 1])
def test_rollout_multiplies_the_attention_of_all_layers(model, tokens, leading):
    expected = rollout(forward(model, tokens)[1])
    expected = expected[:, 0, 1:] if leading else expected.mean(axis=1)
    maps = AttentionRollout(model, leading=leading, **RAW)(None, tokens)
    assert_same(maps, expected)


@pytest.mark.parametrize("leading", [0, 1])
def test_gradients_weigh_the_attention(model, tokens, leading):
    classes = [0, 2, 1]
    expected = gradient_rollout(forward(model, tokens)[1], gradients(model, tokens, classes))
    expected = expected[:, 0, 1:] if leading else expected.mean(axis=1)
    maps = GradientAttentionRollout(model, leading=leading, **RAW)(classes, tokens)
    assert_same(maps, expected, relative=1e-3)


@pytest.mark.parametrize("options", [{"dropout": 0.3}, {"flash_attention": True}])
def test_dropout_and_flash_attention_do_not_matter(model, tokens, options):
    other = transformer(**{k: v for k, v in options.items() if k != "flash_attention"})
    for layer in other.layers:
        if "flash_attention" in options and isinstance(layer, keras.layers.MultiHeadAttention):
            layer._flash_attention = True
    expected = GradientAttentionRollout(model, **RAW)(0, tokens)
    assert_same(GradientAttentionRollout(other, **RAW)(0, tokens), expected)
    for layer in other.layers:
        if isinstance(layer, keras.layers.MultiHeadAttention):
            assert "_compute_attention" not in vars(layer)


class Prepended(keras.layers.Layer):
    """A learned class token before the patches, and learned positions on all."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.positions = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="positions")

    def call(self, x):
        first = keras.ops.repeat(self.token, keras.ops.shape(x)[0], axis=0)
        return keras.ops.concatenate([first, x], axis=1) + self.positions


def vit(size=(12, 12, 3), patch=4, width=8, heads=4, blocks=3):
    """Patches, a class token, pre-norm blocks of attention and an MLP, a norm, a classifier."""
    inputs = keras.Input(size)
    x = keras.layers.Conv2D(width, patch, strides=patch, name="patches")(inputs)
    x = Prepended(name="prepended")(keras.layers.Reshape((-1, width))(x))
    for n in range(blocks):
        y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"before_attention{n}")(x)
        attention = keras.layers.MultiHeadAttention(heads, width // heads, name=f"attention{n}")
        x = x + attention(y, y)
        y = keras.layers.LayerNormalization(epsilon=1e-6, name=f"before_mlp{n}")(x)
        y = keras.layers.Dense(2 * width, activation="gelu", name=f"wide{n}")(y)
        x = x + keras.layers.Dense(width, name=f"narrow{n}")(y)
    x = keras.layers.LayerNormalization(epsilon=1e-6, name="last_norm")(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="head")(x[:, 0]))


def vit_by_hand(model, images, change=None, blocks=None):
    """`forward` for `vit`: logits (after the first `blocks` alone) and matrices in NumPy."""

    def weights(name):
        return [w.astype(np.float64) for w in model.get_layer(name).get_weights()]

    def dense(x, name):
        kernel, bias = weights(name)
        return x @ kernel + bias

    def norm(x, name):
        gamma, beta = weights(name)
        centred = x - x.mean(axis=-1, keepdims=True)
        return gamma * centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) + beta

    kernel, bias = weights("patches")
    side = len(kernel)
    samples, height, width, channels = images.shape
    grid = images.reshape(samples, height // side, side, width // side, side, channels)
    x = np.einsum("nyixjc,ijcd->nyxd", grid, kernel) + bias
    token, positions = weights("prepended")
    x = x.reshape(samples, -1, x.shape[-1])
    x = np.concatenate([np.repeat(token, samples, axis=0), x], axis=1) + positions
    matrices = []
    layers = [each for each in model.layers if isinstance(each, keras.layers.MultiHeadAttention)]
    for n in range(blocks or len(layers)):
        changed = change[1] if change is not None and change[0] == n else 0.0
        attended, attention = attend(
            norm(x, f"before_attention{n}"), weights(f"attention{n}"), changed
        )
        matrices.append(attention)
        x = x + attended
        wide = dense(norm(x, f"before_mlp{n}"), f"wide{n}")
        x = x + dense(wide * 0.5 * (1 + erf(wide / np.sqrt(2))), f"narrow{n}")
    return dense(norm(x, "last_norm")[:, 0], "head"), matrices


@pytest.fixture(scope="module")
def realistic():
    model = vit()
    rng = np.random.default_rng(4)
    model.set_weights([rng.normal(0, 0.6, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(5).normal(size=(2, 12, 12, 3)).astype(np.float32)


def test_the_vision_transformer_by_hand_is_the_keras_model(realistic, pictures):
    probabilities = references.softmax(vit_by_hand(realistic, pictures)[0])
    np.testing.assert_allclose(realistic(pictures).numpy(), probabilities, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_rollout_of_a_vision_transformer(realistic, pictures):
    expected = rollout(vit_by_hand(realistic, pictures)[1])[:, 0, 1:].reshape(2, 3, 3)
    assert_same(AttentionRollout(realistic, **RAW)(None, pictures), expected)
    large = AttentionRollout(realistic, normalize=False)(None, pictures)
    assert_same(large, references.resize(expected, (12, 12)))


@pytest.mark.slow
def test_gradients_weigh_the_attention_of_a_vision_transformer(realistic, pictures):
    classes = [2, 0]
    slopes = gradients(realistic, pictures, classes, vit_by_hand)
    matrices = vit_by_hand(realistic, pictures)[1]
    expected = gradient_rollout(matrices, slopes)[:, 0, 1:].reshape(2, 3, 3)
    assert expected.max() > 1e-3
    maps = GradientAttentionRollout(realistic, **RAW)(classes, pictures)
    assert_same(maps, expected, relative=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [None, 2])
def test_legrad_is_the_papers_equation(realistic, pictures, blocks):
    """Central differences of what the head says after each block, by its attention's entries."""
    classes = [2, 0]
    layers = []
    for block in range(3)[-(blocks or 3) :]:
        after = functools.partial(vit_by_hand, blocks=block + 1)
        slopes = gradients(realistic, pictures, classes, after)[block]
        layers.append(references.relu(slopes).mean(axis=(1, 2)))
    expected = np.mean(layers, axis=0)[:, 1:].reshape(2, 3, 3)
    for batch_size in (None, 1):
        maps = LeGrad(realistic, blocks=blocks, batch_size=batch_size, **RAW)(classes, pictures)
        assert_same(maps, expected, relative=2e-3)


@pytest.mark.slow
def test_legrad_takes_the_norm_that_is_named(realistic, pictures):
    maps = LeGrad(realistic, norm="last_norm", **RAW)(1, pictures)
    assert_same(maps, LeGrad(realistic, **RAW)(1, pictures))
    with pytest.raises(ValueError, match=r"hand all tokens on through a normalisation"):
        LeGrad(realistic, norm="before_mlp2")(1, pictures)


@pytest.mark.slow
def test_legrad_needs_a_normalisation(model, tokens):
    with pytest.raises(ValueError, match="a normalisation after its last block"):
        LeGrad(model)(1, tokens)
    with pytest.raises(ValueError, match="`blocks` to be a positive int"):
        LeGrad(model, blocks=0)


def marked_patches(count, seed):
    """Patches of random colours; the class is the colour of the one that has a mark."""
    rng = np.random.default_rng(seed)
    colours, places = rng.integers(0, 3, (count, 9)), rng.integers(0, 9, count)
    values = np.eye(3)[colours]
    marks = np.eye(9)[places][..., None]
    patches = np.concatenate([values, marks], axis=-1).reshape(count, 3, 3, 4)
    pictures = patches.repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)
    return pictures, colours[np.arange(count), places], places


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras
def test_rollout_of_a_trained_transformer_points_at_the_patch_that_tells_the_class():
    model = vit((12, 12, 4), width=16, heads=2, blocks=2)
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    pictures, classes, _ = marked_patches(2048, seed=0)
    model.fit(pictures, classes, batch_size=64, epochs=12, verbose=0)
    pictures, classes, places = marked_patches(200, seed=1)
    assert model.evaluate(pictures, classes, verbose=0)[1] > 0.98
    # Fewer of the weighted one: a class may also be what is left if nothing speaks for others.
    for make, least in ((AttentionRollout, 0.95), (GradientAttentionRollout, 0.7)):
        maps = make(model, **RAW)(classes.tolist(), pictures).reshape(200, 9)
        assert (maps.argmax(axis=1) == places).mean() > least
        assert (maps[np.arange(200), places] / maps.sum(axis=1)).mean() > 3 / 9


def vision_transformer():
    """4 x 6 pixels in patches of 2 x 2: a grid of 2 x 3 tokens."""
    inputs = keras.Input((4, 6, 3))
    x = keras.layers.Conv2D(WIDTH, 2, strides=2)(inputs)
    x = keras.layers.Reshape((TOKENS, WIDTH))(x)
    outputs = transformer()(x)
    return keras.Model(inputs, outputs)


@pytest.mark.slow
def test_tokens_of_an_image_become_a_map_of_its_size():
    model = vision_transformer()
    images = np.random.default_rng(2).normal(size=(2, 4, 6, 3)).astype(np.float32)
    patches = model.layers[2](model.layers[1](images)).numpy()
    expected = rollout(forward(model.layers[3], patches)[1]).mean(axis=1).reshape(2, 2, 3)

    grid = token_grid(class_token=False, shape=(2, 3))
    raw = AttentionRollout(model, leading=0, reshape=grid, **RAW)(None, images)
    assert_same(raw, expected)
    large = AttentionRollout(model, leading=0, reshape=grid, normalize=False)(None, images)
    assert_same(large, references.resize(expected, (4, 6)))


@pytest.mark.slow
def test_a_grid_that_is_not_square_must_be_given():
    with pytest.raises(ValueError, match="square number of tokens"):
        AttentionRollout(vision_transformer(), leading=0)(None, np.zeros((1, 4, 6, 3)))


@pytest.mark.slow
def test_models_without_attention_are_answered_in_a_sentence(small_model):
    with pytest.raises(ValueError, match="MultiHeadAttention"):
        AttentionRollout(small_model)


@pytest.mark.slow
def test_cross_attention_is_answered_in_a_sentence():
    inputs = keras.Input((6, 4))
    x = keras.layers.MultiHeadAttention(2, 3)(inputs[:, :2], inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    with pytest.raises(ValueError, match="self-attention"):
        AttentionRollout(model)(0, np.zeros((1, 6, 4)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:AttentionRollout found no evidence")
def test_causal_masks_hold(tokens):
    """The first token sees only itself, so nothing reaches it from the others."""
    inputs = keras.Input((TOKENS, WIDTH))
    x = keras.layers.MultiHeadAttention(2, 3)(inputs, inputs, use_causal_mask=True)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    assert not AttentionRollout(model, **RAW)(0, tokens).any()
    assert AttentionRollout(model, leading=0, **RAW)(0, tokens).min() > 0
