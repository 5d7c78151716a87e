"""LeGrad: the gradient of what each block of a transformer knows, by its own attention."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kvis2 import models, scores
from kvis2.explainers.attention import AttentionMap, attention_layers, caught, check_self_attention
from kvis2.explainers.placement import moves, spatial_size
from kvis2.models import Call
from kvis2.passes import Probe, row_indices
from kvis2.types import LayerReference, Override, Tensors

_NORMALIZATIONS = ("LayerNormalization", "RMSNormalization", "GroupNormalization")


class _NormCall(NamedTuple):
    """One call of a normalisation layer."""

    layer: keras.Layer
    inputs: tf.Tensor
    output: tf.Tensor


class LeGrad(AttentionMap):
    r"""LeGrad: which tokens the attention of each block should look at more, for the score.

    `map = mean over blocks l, heads, queries of max(0, d s_l / d attention_l)`, with
    `s_l = head(norm(tokens_l))`: the score that the model's last normalisation and its classifier
    give to the tokens after block l. Every gradient goes back through one block alone, so all of
    them cost one backward pass together.

    Args:
        model: A built model with `keras.layers.MultiHeadAttention` layers and a normalisation after
            its last block.
        norm: The normalisation that all tokens pass after the last block; by default the last that
            is called.
        blocks: How many blocks are looked at, the last ones; None for all.
        leading: How many leading tokens stand for no place: 1 for a class token, 0 for none.
        **options: As for `kvis2.Explainer`.

    Raises:
        ValueError: If the tokens of a block reach the score around the normalisation.

    References:
        Bousselham et al. (2025), LeGrad: An Explainability Method for Vision Transformers via
        Feature Formation Sensitivity. https://arxiv.org/abs/2404.03214

    Example:
        >>> maps = LeGrad(vit)(243, images)
    """

    def __init__(
        self,
        model: Any,
        *,
        norm: LayerReference | None = None,
        blocks: int | None = None,
        leading: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(model, leading=leading, **options)
        if blocks is not None and (
            isinstance(blocks, bool) or not isinstance(blocks, int) or blocks < 1
        ):
            raise ValueError(
                f"Expected `blocks` to be a positive int or None. Received: {blocks!r}. "
                "None looks at all blocks."
            )
        self.blocks = blocks
        found = None if norm is None else models.find_layer(self.model, norm)
        self.norm = None if found is None else models.layer_path(self.model, found)

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The mean positive gradient by the attention to each token, at the input's size."""
        if tf.executing_eagerly():
            raise ValueError(
                "Expected a model that can be traced into a graph, for LeGrad. Received: "
                f"'{probe.model.name}', which runs eagerly only. Use AttentionRollout."
            )
        score = probe.fixed(score, inputs)
        calls: list[Call] = []
        norms: list[_NormCall] = []
        overrides = [
            each for layer in attention_layers(probe.model) for each in caught(layer, calls, None)
        ]
        overrides += [_noting(layer, norms) for layer in _normalizations(probe.model)]
        total = probe.scores_under(score, inputs, overrides)
        check_self_attention(calls, probe)
        last = self._last_norm(probe, norms)
        tokens = _after_each_block(probe, calls, norms, last, total)
        slopes = self._slopes(probe, score, inputs, calls, norms, tokens, last)
        relevance = tf.add_n([tf.reduce_mean(tf.nn.relu(each), [1, 2]) for each in slopes])
        relevance /= float(len(slopes))
        return [
            self._map(relevance, spatial_size(probe, inputs, i))
            if moves(each, calls[-1].output) and spatial_size(probe, inputs, i)
            else None
            for i, each in enumerate(inputs)
        ]

    def _last_norm(self, probe: Probe, norms: Sequence[_NormCall]) -> int:
        """Which call of a normalisation is the one after the last block."""
        wanted = None if self.norm is None else models.find_layer(probe.model, self.norm)
        found = [i for i, each in enumerate(norms) if wanted is None or each.layer is wanted]
        if not found:
            raise ValueError(
                "Expected a model with a normalisation after its last block. Received: "
                f"'{probe.model.name}' with {len(norms)} calls of normalisations, none of "
                f"{'any' if wanted is None else repr(wanted.name)}. Use GradientAttentionRollout."
            )
        return found[-1]

    def _slopes(
        self,
        probe: Probe,
        score: Any,
        inputs: Tensors,
        calls: Sequence[Call],
        norms: Sequence[_NormCall],
        tokens: Tensors,
        last: int,
    ) -> list[tf.Tensor]:
        """The gradient of each block's own score by its attention, `(batch, heads, q, k)` each."""
        chosen = range(len(calls))[-(self.blocks or len(calls)) :]
        layer = norms[last].layer
        number = sum(each.layer is layer for each in norms[:last])
        together = tf.concat([tokens[i] for i in chosen], axis=0)
        together = tf.ensure_shape(together, [None, *tokens[-1].shape[1:]])
        rows = row_indices(inputs[0], tf.constant(len(chosen)))
        override = _with_inputs(layer, number, together)
        found = probe.scores_under(scores.take(score, rows), inputs, [override])
        scale = probe.gradient_scale
        (upstream,) = tf.gradients(found * scale, together)
        parts = tf.split(upstream, len(chosen), axis=0)
        slopes = [
            tf.gradients(tokens[i], calls[i].output, grad_ys=each)[0]
            for i, each in zip(chosen, parts, strict=True)
        ]
        return [tf.cast(each, tf.float32) / scale for each in slopes]


def _normalizations(model: keras.Model) -> list[Any]:
    return [each for _, each in models.walk(model) if type(each).__name__ in _NORMALIZATIONS]


def _noting(layer: Any, norms: list[_NormCall]) -> Override:
    """An override that notes the tokens that enter and leave a normalisation."""

    def noting(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def noted(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            output = call(inputs, *args, **kwargs)
            if tf.is_tensor(inputs) and inputs.shape.rank == 3:
                norms.append(_NormCall(layer, inputs, output))
            return output

        return noted

    return Override(layer, "call", noting)


def _with_inputs(layer: Any, number: int, tokens: tf.Tensor) -> Override:
    """An override that gives one call of a layer other inputs."""
    count = 0

    def replacing(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def replaced(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal count
            if not tf.is_tensor(inputs) or inputs.shape.rank != 3:
                return call(inputs, *args, **kwargs)
            count += 1
            return call(tokens if count == number + 1 else inputs, *args, **kwargs)

        return replaced

    return Override(layer, "call", replacing)


def _after_each_block(
    probe: Probe, calls: Sequence[Call], norms: Sequence[_NormCall], last: int, total: tf.Tensor
) -> Tensors:
    """The tokens after every block: what the next block's normalisation, or attention, is given."""
    ends: Tensors = []
    for call in calls[1:]:
        reached = models.ancestors(call.output)
        before = [each.inputs for each in norms if each.output.op in reached]
        ends.append(before[-1] if before else call.output)  # Without, it is refused below.
    ends.append(norms[last].inputs)
    targets = [*(call.output for call in calls[1:]), total]
    for call, end, target in zip(calls, ends, targets, strict=True):
        between = models.ancestors(target)
        gates = (end, norms[last].output)  # The first is replaced; the second alone sees it.
        if end.op not in between or any(_bypasses(call.output, each, total) for each in gates):
            path = models.layer_path(probe.model, call.layer)
            raise ValueError(
                "Expected a transformer whose blocks hand all tokens on through a normalisation. "
                f"Received: '{probe.model.name}', in which what '{path}' attends to reaches the "
                f"score around '{end.op.name.split('/')[-1]}'. Name the normalisation after the "
                "last block with `norm=`, or use GradientAttentionRollout."
            )
    return ends


def _bypasses(start: tf.Tensor, gate: tf.Tensor, end: tf.Tensor) -> bool:
    """Whether there is a way from `start` to `end` that does not lead through `gate`."""
    pending, seen = [end.op], {gate.op}
    while pending:
        operation = pending.pop()
        if operation in seen:
            continue
        seen.add(operation)
        if operation is start.op:
            return True
        pending.extend(each.op for each in operation.inputs)
    return False
