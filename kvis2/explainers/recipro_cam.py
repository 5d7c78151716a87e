"""Recipro-CAM: a map without gradients, from one look at each position of a layer alone."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from kvis2 import models, scores
from kvis2.explainers.cam import ClassActivationMap
from kvis2.explainers.placement import placed
from kvis2.models import Batch
from kvis2.passes import Probe, scores_of_pairs
from kvis2.types import LayerReference, Tensors


class ReciproCAM(ClassActivationMap):
    r"""Recipro-CAM: what the classifier says of each position of the feature map alone.

    `map_ij = score(head(A * m_ij))`, `m_ij` a 3 x 3 Gaussian (1/4 at ij, 1/8 beside, 1/16 across)
    or ij alone, zero elsewhere; stretched to 0..1 by default, as the authors do. No gradients: one
    pass to the layer and one of what follows it for each position. The score is the probability of
    the class. With `reshape=token_grid()` it is ViT-Recipro-CAM: tokens that stand for no place,
    such as the class token, are kept as they are.

    Args:
        model: Any built Keras model.
        layer: The layer whose positions are tried; by default the last spatial one.
        gaussian: False shows the position by itself.
        model_modifier: None by default: probabilities, as the authors' code has it.
        normalize: "minmax" by default: what every position has in common is no evidence.
        **options: As for `kvis2.Explainer`. `batch_size` bounds the rows that are in memory at
            once.

    References:
        Byun and Lee (2024), ReciproCAM: Lightweight Gradient-free Class Activation Map for Post-hoc
        Explanations. https://arxiv.org/abs/2209.14074
        Byun and Lee (2023), ViT-ReciproCAM: Gradient and Attention-Free Visual Explanations for
        Vision Transformer. https://arxiv.org/abs/2310.02588

    Example:
        >>> heatmaps = ReciproCAM(model)(243, images)
        >>> heatmaps = ReciproCAM(vit, layer="block_10", reshape=token_grid())(243, images)
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        gaussian: bool = True,
        model_modifier: Any = None,
        normalize: str | bool | None = "minmax",
        **options: Any,
    ) -> None:
        options = {**options, "model_modifier": model_modifier, "normalize": normalize}
        super().__init__(model, layer, **options)
        self.gaussian = bool(gaussian)

    def maps(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The score of every position alone."""
        score = probe.fixed(score, inputs)
        activations, _ = probe.activations(score, inputs)  # Finds the layer.
        whole = probe.output(inputs)
        size = tf.shape(activations)[1:-1]
        masks = self._masks(probe, whole, size)
        count = [tf.shape(whole)[0], tf.reduce_prod(size)]
        grid = tf.meshgrid(tf.range(count[0]), tf.range(count[1]), indexing="ij")
        pairs = tf.stack([tf.reshape(each, [-1]) for each in grid], axis=1)

        def alone(chunk: tf.Tensor) -> tf.Tensor:
            image, position = chunk[:, 0], chunk[:, 1]

            def shown(output: tf.Tensor) -> tf.Tensor:
                # Nothing asks for the layer's own output here: what leads to it is not computed.
                mask = tf.cast(tf.gather(masks, position), output.dtype)
                return tf.ensure_shape(tf.gather(whole, image) * mask, output.shape)

            rows = [tf.gather(each, image) for each in inputs]
            return probe.scores_with(scores.take(score, image), rows, shown)

        found = scores_of_pairs(pairs, tf.stack(count), self.rows, alone, self.settings.verbose)
        maps = tf.reshape(found, tf.concat([count[:1], size], axis=0))
        maps = tf.ensure_shape(maps, activations.shape[:-1])
        # Where all positions alone have one score, none of them is evidence.
        axes = list(range(1, maps.shape.rank))
        still = tf.equal(tf.reduce_max(maps, axes, True), tf.reduce_min(maps, axes, True))
        maps = tf.where(still, 0.0, maps)
        return placed(maps, probe, inputs, self.settings.resize)

    def _masks(self, probe: Probe, whole: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """What the layer's own output is multiplied by, `(positions, ...)`, for every position."""
        rank = size.shape[0]
        places = tf.reshape(tf.range(tf.reduce_prod(size)), size)
        masks = _around(size, rank, self.gaussian)
        if probe.is_reshaped:
            # Which token a place of the grid is shows where the numbers of the tokens go.
            numbers = tf.range(tf.shape(whole)[1])
            tokens = probe.grid(tf.cast(numbers, tf.float32)[None, :, None])
            tokens = tf.reshape(tf.cast(tf.round(tokens), tf.int32), [-1, 1])
            flat = tf.reshape(masks, [tf.size(places), -1])
            kept = tf.ones([tf.shape(whole)[1], tf.size(places)])
            by_token = tf.tensor_scatter_nd_update(kept, tokens, tf.transpose(flat))
            return tf.transpose(by_token)[..., None]
        first = models.data_format(probe.model, probe.layer) == "channels_first"
        return masks[:, None] if first else masks[..., None]

    def _blank_cause(self, score: Any, batch: Batch, sample: int) -> str:
        return "the score of every position alone is zero (a saturated softmax)"


def _around(size: tf.Tensor, rank: int, gaussian: bool) -> tf.Tensor:
    """For every position `(positions, *size)`: what is shown of its surroundings."""
    masks = tf.ones([1] * 2 * rank)
    for axis in range(rank):
        line = tf.range(size[axis])
        distance = tf.abs(line[:, None] - line[None, :])
        near = (
            tf.where(distance == 1, 0.25, 0.0) if gaussian else tf.zeros_like(distance, tf.float32)
        )
        shares = tf.where(distance == 0, 0.5 if gaussian else 1.0, near)
        shape = [size[axis] if each in (axis, rank + axis) else 1 for each in range(2 * rank)]
        masks *= tf.reshape(shares, shape)
    return tf.reshape(masks, tf.concat([[-1], size], axis=0))
