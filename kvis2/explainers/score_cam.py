"""Class activation maps without gradients: each channel is tried by a forward pass of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kvis2 import models, scores
from kvis2.explainers.cam import ClassActivationMap
from kvis2.explainers.placement import channel_axis, feeds, in_place, place_in, placed
from kvis2.models import Batch
from kvis2.passes import Probe, scores_of_pairs
from kvis2.types import LayerReference, Tensors


class ChannelCAM(ClassActivationMap):
    """Base of the maps whose weights come from one forward pass per channel: `channel_weights`.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        max_channels: Use only so many channels of each image, those of the highest variance
            over space; None uses all.
        **options: As for `kvis2.Explainer`. `batch_size` bounds the rows that are in
            memory at once.
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        max_channels: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        if max_channels is not None and (not isinstance(max_channels, int) or max_channels < 1):
            raise ValueError(
                "Expected `max_channels` to be a positive int, or None for all channels. "
                f"Received: {max_channels!r}. Give for example 64."
            )
        self.max_channels = max_channels

    def channel_weights(
        self, probe: Probe, score: Any, inputs: Tensors, activations: tf.Tensor, own: tf.Tensor
    ) -> tf.Tensor:
        """The weight of each channel of each image, `(batch, channels)`.

        Args:
            probe: Runs the model.
            score: The definite score.
            inputs: The flat inputs.
            activations: Of the watched layer, `(batch, *spatial, channels)`.
            own: The scores of the inputs as they are, `(batch,)`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to weight.")

    def _blank_cause(self, score: Any, batch: Batch, sample: int) -> str:
        if self.layer is None:
            return "no channel that was tried speaks for this score"
        return self._cause_at_layer(score, batch, sample, gradients=False)

    def maps(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The map of activations weighted by channel."""
        score = probe.fixed(score, inputs)
        activations, own = probe.activations(score, inputs)
        weights = self.channel_weights(probe, score, inputs, activations, own)
        space = [1] * (activations.shape.rank - 2)
        shape = [tf.shape(weights)[0], *space, tf.shape(weights)[1]]
        maps = self.weighted(tf.reshape(weights, shape), activations)
        return placed(maps, probe, inputs, self.settings.resize)

    def pairs(self, activations: tf.Tensor, tried: tf.Tensor) -> tf.Tensor:
        """Pairs (image, channel) `(n, 2)` of the channels `tried`, at most `max_channels` each."""
        if self.max_channels is not None:
            space = list(range(1, activations.shape.rank - 1))
            variance = tf.math.reduce_variance(activations, space)
            most = tf.minimum(self.max_channels, tf.shape(variance)[1])
            best = tf.math.top_k(variance, most).indices
            one_hot = tf.one_hot(best, tf.shape(variance)[1], True, False)
            tried &= tf.reduce_any(one_hot, axis=1)
        return tf.cast(tf.where(tried), tf.int32)


class ScoreCAM(ChannelCAM):
    r"""Score-CAM: every channel weighted by the score of the input seen through it alone.

    `map = max(0, sum_k w_k A_k)`, `w_k = score(x * minmax(upsampled A_k))`. No gradients are
    used. The score is the probability of the class, so there is no `LinearOutput` by default.
    A channel that is constant for an image weighs nothing there; its forward pass is skipped.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        max_channels: Use only so many channels of each image, those of the highest variance
            over space; None uses all.
        model_modifier: None by default: the paper weighs by probabilities.
        **options: As for `kvis2.Explainer`. `batch_size` bounds the masked inputs
            that are in memory at once.

    References:
        Wang et al. (2020), Score-CAM: Score-Weighted Visual Explanations for Convolutional
        Neural Networks. https://arxiv.org/abs/1910.01279

    Example:
        >>> heatmaps = ScoreCAM(model, max_channels=64)(None, images)
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        max_channels: int | None = None,
        model_modifier: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(
            model, layer, max_channels=max_channels, model_modifier=model_modifier, **options
        )

    def channel_weights(
        self, probe: Probe, score: Any, inputs: Tensors, activations: tf.Tensor, own: tf.Tensor
    ) -> tf.Tensor:
        """The score of each image through each of its channels, `(batch, channels)`."""
        space = list(range(1, activations.shape.rank - 1))
        varies = tf.reduce_max(activations, space) > tf.reduce_min(activations, space)
        channels = tf.experimental.numpy.moveaxis(activations, -1, 1)
        masks = [
            mask_of(activations.shape.rank - 2, probe, inputs, i)
            if feeds(x, probe, inputs)
            else None
            for i, x in enumerate(inputs)
        ]

        def through(chunk: tf.Tensor) -> tf.Tensor:
            maps = tf.gather_nd(channels, chunk)
            rows = [tf.gather(each, chunk[:, 0]) for each in inputs]
            seen = [
                each if mask is None else seen_through(mask(maps), each)
                for each, mask in zip(rows, masks, strict=True)
            ]
            return probe.scores(scores.take(score, chunk[:, 0]), seen)

        return scores_of_pairs(
            self.pairs(activations, varies),
            tf.shape(varies),
            self.rows,
            through,
            self.settings.verbose,
        )


def mask_of(
    rank: int, probe: Probe, inputs: Tensors, index: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """What makes masks of one of the inputs from maps of the layer, stretched to 0..1."""
    place, axis = place_in(rank, probe, inputs, index), channel_axis(probe, inputs, index)
    if place is None:
        assert probe.layer is not None
        raise ValueError(
            "Expected a layer whose space is that of the input, to mask the input by its maps. "
            f"Received: '{models.layer_path(probe.model, probe.layer)}', whose axes are its "
            "own. Use GradCAM or LayerCAM, or name a layer before the axes change."
        )
    if inputs[index].dtype.is_integer and inputs[index].dtype != tf.uint8 and axis is None:
        raise ValueError(
            "Expected an input that can be masked: images or signals with channels. Received: "
            f"tokens of type {inputs[index].dtype.name}. Use GradCAM or LayerCAM for tokens."
        )

    def mask(maps: tf.Tensor) -> tf.Tensor:
        large = in_place(maps, place)
        space = list(range(1, large.shape.rank))
        low = tf.reduce_min(large, space, keepdims=True)
        high = tf.reduce_max(large, space, keepdims=True)
        stretched = tf.math.divide_no_nan(large - low, high - low)
        return stretched if axis is None else tf.expand_dims(stretched, axis)

    return mask


def seen_through(mask: tf.Tensor, inputs: tf.Tensor) -> tf.Tensor:
    """The inputs multiplied by their masks."""
    if inputs.dtype.is_integer:
        return tf.cast(tf.round(tf.cast(inputs, tf.float32) * mask), inputs.dtype)
    return inputs * tf.cast(mask, inputs.dtype)


class AblationCAM(ChannelCAM):
    r"""Ablation-CAM: every channel weighted by how far the score falls without it.

    `map = max(0, sum_k w_k A_k)`, `w_k = (y - y_k) / |y|`, with `y` the score and `y_k` the score
    when channel k of the layer is set to zero. No gradients are used. The paper divides by `y`,
    which would turn the map around where a score before the softmax is negative. A channel that
    is zero for an image weighs nothing there; its forward pass is skipped.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        max_channels: Use only so many channels of each image, those of the highest variance
            over space; None uses all.
        **options: As for `kvis2.Explainer`. `batch_size` bounds the rows that are in
            memory at once.

    References:
        Desai and Ramaswamy (2020), Ablation-CAM: Visual Explanations for Deep Convolutional
        Network via Gradient-free Localization. https://doi.org/10.1109/WACV45572.2020.9093360

    Example:
        >>> heatmaps = AblationCAM(model, max_channels=64)(243, images)
    """

    def channel_weights(
        self, probe: Probe, score: Any, inputs: Tensors, activations: tf.Tensor, own: tf.Tensor
    ) -> tf.Tensor:
        """The relative fall of the score of each image without each of its channels."""
        space = list(range(1, activations.shape.rank - 1))
        pairs = self.pairs(activations, tf.reduce_any(activations != 0.0, space))
        whole = probe.output(inputs)
        first = models.data_format(probe.model, probe.layer) == "channels_first"
        rank = whole.shape.rank
        axis = 1 if first and rank > 2 else rank - 1

        def fall(chunk: tf.Tensor) -> tf.Tensor:
            image, channel = chunk[:, 0], chunk[:, 1]

            def ablated(output: tf.Tensor) -> tf.Tensor:
                # Nothing asks for the layer's own output here, so what leads to it is not computed.
                count = tf.shape(whole)[axis]
                kept = 1.0 - tf.one_hot(channel, count, dtype=tf.float32)
                shape = [count if each == axis else 1 for each in range(1, rank)]
                kept = tf.cast(tf.reshape(kept, [-1, *shape]), output.dtype)
                return tf.ensure_shape(tf.gather(whole, image) * kept, output.shape)

            rows = [tf.gather(each, image) for each in inputs]
            without = probe.scores_with(scores.take(score, image), rows, ablated)
            return tf.gather(own, image) - without

        count = [tf.shape(activations)[0], tf.shape(activations)[-1]]
        falls = scores_of_pairs(pairs, tf.stack(count), self.rows, fall, self.settings.verbose)
        return tf.math.divide_no_nan(falls, tf.abs(own)[:, None])
