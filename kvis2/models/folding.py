"""Batch normalisation folded into the layer before it, for one pass: same numbers, less time.

Keras runs batch normalisation at inference as a multiplication and an addition over the whole
feature map. Folded, both happen to the kernel, which is far smaller. The kernel is folded inside
the traced pass from the live variables, so weights may change and the trace stays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kvis2.models import layers
from kvis2.models.modifiers import Modifier
from kvis2.types import Override


class _LinearCall(NamedTuple):
    """One call of a layer that batch normalisation can be folded into."""

    layer: keras.Layer
    inputs: tf.Tensor
    output: tf.Tensor


@dataclass(frozen=True)
class FoldBatchNorm(Modifier):
    """Fold every batch normalisation that follows a linear convolution or dense layer.

    `gamma (W x + b - mean) / s + beta = (gamma / s) W x + (gamma (b - mean) / s + beta)`, with
    `s = sqrt(variance + epsilon)`. Logits move by about 1e-6. The unfolded layer is left in the
    graph for whoever else reads it; TensorFlow drops it if nobody does. A layer whose own output
    is watched is not folded into.

    Example:
        >>> Saliency(model, model_modifier=[LinearOutput(), FoldBatchNorm()])(243, images)
    """

    def overrides(self, model: keras.Model) -> Sequence[Override]:
        """Remember the calls of linear layers; fold where a batch normalisation follows one."""
        calls: dict[int, _LinearCall] = {}
        found = []
        for _, layer in layers.walk(model):
            if _is_linear(layer):
                found.append(Override(layer, "call", functools.partial(_remembered, layer, calls)))
            elif _is_plain_batch_norm(layer):
                found.append(Override(layer, "call", functools.partial(_folded, layer, calls)))
        return found


def _is_linear(layer: Any) -> bool:
    kind = (*layers.PLAIN_CONVOLUTIONS, *layers.DEPTHWISE, keras.layers.Dense)
    return (
        type(layer) in kind
        and layer.activation is keras.activations.linear
        and layer.compute_dtype == "float32"
        and layers.entry_of(layer) == "call"
    )


def _is_plain_batch_norm(layer: Any) -> bool:
    return type(layer) is keras.layers.BatchNormalization and layer.compute_dtype == "float32"


def _remembered(
    layer: keras.Layer, calls: dict[int, _LinearCall], call: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(call)
    def remembered(inputs: tf.Tensor, *args: Any, **kwargs: Any) -> Any:
        output = call(inputs, *args, **kwargs)
        # The call is kept with its output, whose id therefore stays its own.
        calls[id(output)] = _LinearCall(layer, inputs, output)
        return output

    return remembered


def _folded(
    norm: Any, calls: dict[int, _LinearCall], call: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(call)
    def folded(inputs: tf.Tensor, *args: Any, **kwargs: Any) -> Any:
        before = calls.get(id(inputs))
        if before is None or not tf.is_symbolic_tensor(inputs) or kwargs.get("mask") is not None:
            return call(inputs, *args, **kwargs)
        axis = norm.axis % inputs.shape.rank
        if axis != _channel_axis(before.layer, inputs.shape.rank):
            return call(inputs, *args, **kwargs)
        scale, shift = scale_and_shift(norm)
        return _linear(before.layer, before.inputs, scale, shift)

    return folded


def scale_and_shift(norm: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch normalisation at inference as `scale * x + shift`, each `(channels,)`."""
    mean, variance = (tf.convert_to_tensor(v) for v in (norm.moving_mean, norm.moving_variance))
    scale = tf.math.rsqrt(variance + norm.epsilon)
    if norm.scale:
        scale *= tf.convert_to_tensor(norm.gamma)
    shift = -mean * scale
    if norm.center:
        shift += tf.convert_to_tensor(norm.beta)
    return scale, shift


def _channel_axis(layer: Any, rank: int) -> int:
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    return 1 if first else rank - 1


def _linear(layer: Any, inputs: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """What `scale * layer(inputs) + shift` is, computed by one linear operation."""
    kernel = tf.convert_to_tensor(layer.kernel)
    if layer.use_bias:
        shift += scale * tf.convert_to_tensor(layer.bias)
    if isinstance(layer, keras.layers.Dense):
        return tf.add(keras.ops.matmul(inputs, kernel * scale), shift)
    depthwise = isinstance(layer, layers.DEPTHWISE)
    convolve = keras.ops.depthwise_conv if depthwise else keras.ops.conv
    if depthwise:
        scale = tf.reshape(scale, kernel.shape[-2:])
    padding, inputs = _padded(layer, inputs)
    output = convolve(
        inputs,
        kernel * scale,
        strides=layer.strides,
        padding=padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )
    if layer.data_format == "channels_first":
        return output + tf.reshape(shift, [1, -1, *[1] * (output.shape.rank - 2)])
    return tf.nn.bias_add(output, shift) if output.shape.rank == 4 else output + shift


def _padded(layer: Any, inputs: tf.Tensor) -> tuple[str, tf.Tensor]:
    """Causal padding, which only one-dimensional convolutions have, is padded by hand."""
    if layer.padding != "causal":
        return layer.padding, inputs
    left = layer.dilation_rate[0] * (layer.kernel_size[0] - 1)
    axes = [[0, 0], [left, 0], [0, 0]]
    if layer.data_format == "channels_first":
        axes = [[0, 0], [0, 0], [left, 0]]
    return "valid", tf.pad(inputs, axes)
