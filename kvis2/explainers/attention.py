"""What a transformer attends to: rollout of its attention, plain or weighted by gradients."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kvis2 import models
from kvis2.explainers.explainer import Explainer, without_layer
from kvis2.explainers.placement import moves, spatial_size
from kvis2.models import Call, TokenGrid
from kvis2.passes import Probe, resize
from kvis2.types import Override, Tensors


class AttentionMap(Explainer):
    """Base of the maps from attention matrices: a subclass with `rollout`.

    Args:
        model: A built model with `keras.layers.MultiHeadAttention` layers, at any depth.
        leading: How many leading tokens stand for no place: 1 for a class token, more with
            registers, 0 for none. With any, the row of the first token is read, which the
            classifier sees; without, the mean over all tokens.
        **options: As for `kvis2.Explainer`. `reshape`, such as
            `token_grid(shape=(12, 16))`, makes a grid of all tokens, leading ones included, that is
            not square.
    """

    def __init__(self, model: Any, *, leading: int = 1, **options: Any) -> None:
        super().__init__(model, **without_layer(type(self).__name__, options))
        if isinstance(leading, bool) or not isinstance(leading, int) or leading < 0:
            raise ValueError(
                "Expected `leading` to be a number of tokens, 0 or more. "
                f"Received: {leading!r}. Give 1 for a class token, 0 without."
            )
        if not attention_layers(self.model):
            raise ValueError(
                "Expected a model with keras.layers.MultiHeadAttention layers. Received: a model "
                "without any. Use GradCAM with `reshape=` for attention that is written otherwise."
            )
        self.leading = leading

    def rollout(self, attentions: Tensors, gradients: Tensors) -> tf.Tensor:
        """How much each token draws on each input token, `(batch, tokens, tokens)`.

        Args:
            attentions: Attention matrices in the order of the layers, `(batch, heads, tokens,
                tokens)` each: each row adds up to 1.
            gradients: d score / d attention in the same shapes.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to roll out.")

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The tokens that the class token (or the mean token) draws on, at the input's size."""
        layers = attention_layers(probe.model)

        def taps(calls: list[Call], tape: Any) -> list[Override]:
            return [each for layer in layers for each in caught(layer, calls, tape)]

        _, found = probe.gradients_at(score, inputs, taps)
        calls = [call for call, _ in found]
        check_self_attention(calls, probe)
        attentions = [tf.cast(call.output, tf.float32) for call in calls]
        rolled = self.rollout(attentions, [gradient for _, gradient in found])
        tokens = rolled[:, 0] if self.leading else tf.reduce_mean(rolled, axis=1)
        return [
            self._map(tokens, spatial_size(probe, inputs, i))
            if moves(each, calls[-1].output) and spatial_size(probe, inputs, i)
            else None
            for i, each in enumerate(inputs)
        ]

    def _map(self, tokens: tf.Tensor, size: Sequence[int | tf.Tensor]) -> tf.Tensor:
        if self.settings.reshape is not None:
            maps = self.settings.reshape(tokens[..., None])[..., 0]
        elif len(size) == 1:
            maps = tokens[:, self.leading :]
        else:
            maps = TokenGrid(self.leading)(tokens[..., None])[..., 0]
        if maps.shape.rank != len(size) + 1:
            raise ValueError(
                f"Expected a grid with {len(size)} axes, as the input has. Received: one of shape "
                f"{tuple(maps.shape[1:])}. Give a `reshape=` that makes such a grid of the tokens."
            )
        return resize(maps, size) if self.settings.resize else maps


class AttentionRollout(AttentionMap):
    r"""Attention rollout: attention multiplied through all layers.

    `R = A_L ... A_1`, `A_l = 1/2 I + 1/2 mean over heads of attention_l`; the map is the row of the
    class token. The half of the identity stands for the residual connection. It does not depend
    on the score: it shows where information flows from, whatever the class.

    Args:
        model: A built model with `keras.layers.MultiHeadAttention` layers, at any depth.
        leading: How many leading tokens stand for no place: 1 for a class token, 0 for none.
        **options: As for `kvis2.Explainer`.

    References:
        Abnar and Zuidema (2020), Quantifying Attention Flow in Transformers.
        https://arxiv.org/abs/2005.00928

    Example:
        >>> maps = AttentionRollout(vit)(None, images)
    """

    def rollout(self, attentions: Tensors, gradients: Tensors) -> tf.Tensor:
        """The product of all layers."""
        identity = tf.eye(tf.shape(attentions[0])[-1])
        layers = [0.5 * identity + 0.5 * tf.reduce_mean(a, axis=1) for a in attentions]
        return functools.reduce(lambda below, layer: tf.matmul(layer, below), layers)


class GradientAttentionRollout(AttentionMap):
    r"""Gradient-weighted attention rollout: only attention that raises the score counts.

    `R_l = R_(l-1) + A_l R_(l-1)`, `A_l = mean over heads of max(0, G_l * attention_l)`, with `G` =
    d score / d attention and `R_0 = I`; the map is the row of the class token in `R_L - I`.

    Args:
        model: A built model with `keras.layers.MultiHeadAttention` layers, at any depth.
        leading: How many leading tokens stand for no place: 1 for a class token, 0 for none.
        **options: As for `kvis2.Explainer`.

    References:
        Chefer et al. (2021), Generic Attention-model Explainability for Interpreting Bi-Modal and
        Encoder-Decoder Transformers. https://arxiv.org/abs/2103.15679

    Example:
        >>> maps = GradientAttentionRollout(vit)(243, images)
    """

    def rollout(self, attentions: Tensors, gradients: Tensors) -> tf.Tensor:
        """The sum over all ways through the layers, less the one that attends to nothing."""
        rolled = tf.zeros_like(attentions[0][:, 0])  # R - I
        for attention, gradient in zip(attentions, gradients, strict=True):
            layer = tf.reduce_mean(tf.nn.relu(gradient * attention), axis=1)
            rolled += layer + tf.matmul(layer, rolled)
        return rolled


def attention_layers(model: keras.Model) -> list[Any]:
    """The attention layers of a model, at any depth."""
    kind = keras.layers.MultiHeadAttention
    return [layer for _, layer in models.walk(model) if isinstance(layer, kind)]


def caught(layer: Any, calls: list[Call], tape: Any) -> list[Override]:
    """Overrides that make `layer` compute its attention matrix in the open, and note it."""

    def in_the_open(compute: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(compute)

        @functools.wraps(compute)
        def computed(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            if "return_attention_scores" in signature.parameters:  # Else they always are.
                bound.arguments["return_attention_scores"] = True
            return compute(*bound.args, **bound.kwargs)

        return computed

    def noting(softmax: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(softmax)
        def noted(*args: Any, **kwargs: Any) -> Any:
            attention = softmax(*args, **kwargs)
            if tape is not None:
                tape.watch(attention)
            calls.append(Call(layer, attention))
            return attention

        return noted

    return [
        Override(layer, "_flash_attention", lambda _: False),
        Override(layer, "_compute_attention", in_the_open),
        Override(layer, "_masked_softmax", noting),
    ]


def check_self_attention(calls: Sequence[Call], probe: Probe) -> None:
    """Raise unless all attention matrices are over the same tokens."""
    if not calls:
        raise ValueError(
            "Expected a score that depends on an attention layer. Received: a score of "
            f"'{probe.model.name}' that depends on none. Choose another score."
        )
    shapes = [tuple(call.output.shape[2:]) for call in calls]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2 or shapes[0][0] != shapes[0][1]:
        paths = [models.layer_path(probe.model, call.layer) for call in calls]
        raise ValueError(
            "Expected self-attention over one sequence of tokens. Received: matrices "
            f"{dict(zip(paths, shapes, strict=True))}. Cross-attention, windows and axial "
            "attention cannot be multiplied; use GradCAM with `reshape=` for such a model."
        )
