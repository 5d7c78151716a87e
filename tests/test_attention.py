"""Attention rollout against a transformer whose attention is written out in NumPy."""

import keras
import numpy as np
import pytest
import references
from references import assert_same

from kvis2.attention import AttentionRollout, GradientAttentionRollout
from kvis2.tokens import token_grid

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


def forward(model, tokens, change=None):
    """Logits and attention matrices; `change` is added to the matrix of one (layer, head)."""
    x, matrices = tokens.astype(np.float64), []
    weights = [w.astype(np.float64) for w in model.get_weights()]
    for layer in range(LAYERS):
        wq, bq, wk, bk, wv, bv, wo, bo = weights[8 * layer : 8 * layer + 8]
        q, k, v = (np.einsum("ntc,chd->nhtd", x, w) + b[:, None] for w, b in
                   ((wq, bq), (wk, bk), (wv, bv)))  # fmt: skip
        attention = references.softmax(np.einsum("nhtd,nhsd->nhts", q, k) / np.sqrt(3))
        matrices.append(attention)
        if change is not None and change[0] == layer:
            attention = attention + change[1]
        x = x + np.einsum("nhts,nhsd,hdc->ntc", attention, v, wo) + bo
    kernel, bias = weights[-2:]
    features = np.concatenate([x[:, 0], np.tanh(x).mean(axis=1)], axis=-1)
    return features @ kernel + bias, matrices


def gradients(model, tokens, classes):
    """Central differences of each logit by each entry of each attention matrix."""
    found = []
    for layer in range(LAYERS):
        gradient = np.zeros((len(tokens), HEADS, TOKENS, TOKENS))
        for place in np.ndindex(HEADS, TOKENS, TOKENS):
            step = np.zeros((1, HEADS, TOKENS, TOKENS))
            step[(0, *place)] = 1e-5
            up, down = (forward(model, tokens, (layer, sign * step))[0] for sign in (1, -1))
            rows = np.arange(len(tokens))
            gradient[(slice(None), *place)] = (up - down)[rows, classes] / 2e-5
        found.append(gradient)
    return found


def rollout(matrices):
    rolled = np.eye(TOKENS)
    for attention in matrices:
        rolled = (0.5 * np.eye(TOKENS) + 0.5 * attention.mean(axis=1)) @ rolled
    return rolled


def gradient_rollout(matrices, slopes):
    rolled = np.eye(TOKENS)
    for attention, slope in zip(matrices, slopes, strict=True):
        rolled = rolled + references.relu(slope * attention).mean(axis=1) @ rolled
    return rolled - np.eye(TOKENS)


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


def vision_transformer():
    """4 x 6 pixels in patches of 2 x 2: a grid of 2 x 3 tokens."""
    inputs = keras.Input((4, 6, 3))
    x = keras.layers.Conv2D(WIDTH, 2, strides=2)(inputs)
    x = keras.layers.Reshape((TOKENS, WIDTH))(x)
    outputs = transformer()(x)
    return keras.Model(inputs, outputs)


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


def test_a_grid_that_is_not_square_must_be_given():
    with pytest.raises(ValueError, match="square number of tokens"):
        AttentionRollout(vision_transformer(), leading=0)(None, np.zeros((1, 4, 6, 3)))


def test_models_without_attention_are_answered_in_a_sentence(small_model):
    with pytest.raises(ValueError, match="MultiHeadAttention"):
        AttentionRollout(small_model)


def test_cross_attention_is_answered_in_a_sentence():
    inputs = keras.Input((6, 4))
    x = keras.layers.MultiHeadAttention(2, 3)(inputs[:, :2], inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    with pytest.raises(ValueError, match="self-attention"):
        AttentionRollout(model)(0, np.zeros((1, 6, 4)))


@pytest.mark.filterwarnings("ignore:AttentionRollout found no evidence")
def test_causal_masks_hold(tokens):
    """The first token sees only itself, so nothing reaches it from the others."""
    inputs = keras.Input((TOKENS, WIDTH))
    x = keras.layers.MultiHeadAttention(2, 3)(inputs, inputs, use_causal_mask=True)
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    assert not AttentionRollout(model, **RAW)(0, tokens).any()
    assert AttentionRollout(model, leading=0, **RAW)(0, tokens).min() > 0
