"""Full-gradient representation: the gradients of the input and of every bias, in one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from kvis2 import models
from kvis2.explainers.explainer import Explainer, without_layer
from kvis2.explainers.placement import channel_axis, moves, spatial_size
from kvis2.explainers.saliency import no_gradient
from kvis2.models import Call, scale_and_shift, tap
from kvis2.passes import Probe, Report, resize
from kvis2.types import LayerReference, Override, Tensors


class FullGrad(Explainer):
    r"""FullGrad: input times gradient, and bias times gradient at every layer that has a bias.

    `map = sum_c psi(x_c * d score / d x_c) + sum over layers and their channels of
    psi(b * d score / d z)`, with `z` the layer's response before its activation, `b` its bias and
    `psi` = magnitude, stretched to 0..1 per channel, resized to the input. For a piecewise linear
    model the parts before psi add up to the score.

    Biases are those of convolutions, dense layers that keep the spatial axes, and batch
    normalisation (`beta - gamma mean / s`). Dense layers after pooling have no place in the
    image; they count for `completeness_gap` only.

    Args:
        model: Any built Keras model.
        layers: Which layers' biases to show; None for all that have one.
        **options: As for `kvis2.Explainer`.

    Attributes:
        completeness_gap: After a call, `|sum of all parts - score| / |score|` of every sample,
            `(batch,)`: near 0 for ReLU networks if `layers` is None, more for smooth activations.

    References:
        Srinivas and Fleuret (2019), Full-Gradient Representation for Neural Network
        Visualization. https://arxiv.org/abs/1905.00780

    Example:
        >>> heatmaps = FullGrad(model)(243, images)
    """

    completeness_gap = Report()

    def __init__(
        self, model: Any, *, layers: Sequence[LayerReference] | None = None, **options: Any
    ) -> None:
        super().__init__(model, **without_layer(type(self).__name__, options))
        if layers is None:
            found = [path for path, layer in models.walk(self.model) if _has_bias(layer)]
        else:
            chosen = [models.find_layer(self.model, each) for each in layers]
            found = [models.layer_path(self.model, each) for each in chosen]
        if not all(_has_bias(models.find_layer(self.model, each)) for each in found):
            raise ValueError(
                f"Expected layers with a bias, or batch normalisation. Received: {found}. "
                "Leave `layers` out for all that have one."
            )
        self.layers = found

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The sum of the parts of each input, and the completeness gap."""
        score = probe.fixed(score, inputs)
        layers = [models.find_layer(probe.model, each) for each in self.layers]

        def taps(calls: list[Call], tape: Any) -> list[Override]:
            return [tap(layer, calls, tape, pre_activation=_is_fused(layer)) for layer in layers]

        gradients, biased = probe.gradients_at(score, inputs, taps)
        if all(each is None for each in gradients):
            raise ValueError(no_gradient(probe, inputs))
        own = [
            None if g is None else tf.cast(x, tf.float32) * g
            for x, g in zip(inputs, gradients, strict=True)
        ]
        parts = [(call, _times_bias(call.layer, gradient)) for call, gradient in biased]
        maps = [self._map(i, inputs, own, parts, probe) for i in range(len(inputs))]
        added = [each for each in own if each is not None] + [part for _, part in parts]
        total = tf.add_n([tf.reduce_sum(x, list(range(1, x.shape.rank))) for x in added])
        value = probe.scores(score, inputs)
        return [*maps, tf.math.divide_no_nan(tf.abs(total - value), tf.abs(value))]

    def _map(
        self,
        index: int,
        inputs: Tensors,
        own: Sequence[tf.Tensor | None],
        parts: Sequence[tuple[Call, tf.Tensor]],
        probe: Probe,
    ) -> tf.Tensor | None:
        image, attribution = inputs[index], own[index]
        if attribution is None:
            return None
        size = spatial_size(probe, inputs, index)
        if not size:
            return tf.abs(attribution)
        axis = channel_axis(probe, inputs, index)
        if axis is None:
            attribution, axis = attribution[..., tf.newaxis], -1
        total = _rescaled(attribution, axis)
        for call, part in parts:
            if part.shape.rank == len(size) + 2 and moves(image, call.output):
                total += resize(_rescaled(part, _channel_axis(call.layer, part)), size)
        return total


def _has_bias(layer: keras.Operation) -> bool:
    if isinstance(layer, keras.layers.BatchNormalization):
        return True
    bias = getattr(layer, "bias", None)
    return bias is not None and len(bias.shape) == 1


def _is_fused(layer: keras.Operation) -> bool:
    return callable(getattr(layer, "activation", None))


def _channel_axis(layer: Any, output: tf.Tensor) -> int:
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.axis
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return 1 if first and output.shape.rank > 2 else -1


def _times_bias(layer: Any, gradient: tf.Tensor) -> tf.Tensor:
    """The bias of every channel times the gradient by the layer's response."""
    if isinstance(layer, keras.layers.BatchNormalization):
        bias = scale_and_shift(layer)[1]
    else:
        bias = tf.convert_to_tensor(layer.bias)
    shape = [1] * gradient.shape.rank
    shape[_channel_axis(layer, gradient)] = -1
    return gradient * tf.reshape(tf.cast(bias, tf.float32), shape)


def _rescaled(part: tf.Tensor, axis: int) -> tf.Tensor:
    """Magnitudes, stretched to 0..1 for every sample and channel, summed over the channels."""
    magnitude = tf.abs(part)
    space = [i for i in range(1, part.shape.rank) if i != axis % part.shape.rank]
    low = tf.reduce_min(magnitude, space, keepdims=True)
    high = tf.reduce_max(magnitude, space, keepdims=True)
    return tf.reduce_sum(tf.math.divide_no_nan(magnitude - low, high - low), axis)
