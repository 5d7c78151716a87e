"""Convolution and dense layers as affine maps, with the batch normalisation beside them folded in.

Relevance through `conv -> BatchNormalization` one after the other is not that through the one
convolution they amount to, and only the latter is a property of the function that the model
computes. So the rules see the folded layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kvis2 import models
from kvis2.lrp.operations import is_not_negative
from kvis2.lrp.rules import Affine
from kvis2.models import overriding, scale_and_shift
from kvis2.types import Override


class LinearPart(NamedTuple):
    """The part of a layer before its activation: `call(x)`, affine in x.

    Attributes:
        layer: The live layer.
        call: Computes the part from its input.
        kernel: The weights of the sum.
        bias: The weights added to it, if any.
    """

    layer: keras.Layer
    call: Callable[[tf.Tensor], tf.Tensor]
    kernel: keras.Variable
    bias: keras.Variable | None


def linear_parts(
    layer: keras.Layer, path: str, call: Callable[[tf.Tensor], tf.Tensor]
) -> list[LinearPart]:
    """The affine maps that a layer is made of: one, or two for a separable convolution.

    Args:
        layer: A layer for which `models.is_affine` holds.
        path: Where it is in the model.
        call: Computes the layer's output from its one input.

    Raises:
        ValueError: If the layer's kernel is not one variable.
    """
    quantized = models.entry_of(layer) != "call"
    if isinstance(layer, models.SEPARABLE) and not quantized:
        return _separable_parts(layer)
    if quantized or not hasattr(layer.kernel, "assign"):
        what, before = ("is quantized", "quantize") if quantized else ("has LoRA", "enable_lora")
        raise ValueError(
            f"Expected a layer whose kernel is one variable. Received: '{path}', which {what}. "
            f"Use IntegratedGradients, or explain the model as it was before `{before}`."
        )
    return [
        LinearPart(layer, functools.partial(_without_activation, layer, call), *_weights(layer))
    ]


def _weights(layer: keras.Layer) -> tuple[keras.Variable, keras.Variable | None]:
    return layer.kernel, layer.bias


def _without_activation(
    layer: keras.Layer, call: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor
) -> tf.Tensor:
    linear = Override(layer, "activation", lambda old: keras.activations.linear)
    with overriding([linear]):
        return call(inputs)


def _separable_parts(layer: keras.Layer) -> list[LinearPart]:
    def depthwise(inputs: tf.Tensor) -> tf.Tensor:
        return keras.ops.depthwise_conv(
            inputs,
            _in_dtype_of(inputs, layer.depthwise_kernel),
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )

    def pointwise(inputs: tf.Tensor) -> tf.Tensor:
        kernel = _in_dtype_of(inputs, layer.pointwise_kernel)
        output = keras.ops.conv(inputs, kernel, data_format=layer.data_format)
        if layer.bias is None:
            return output
        axis = 1 if layer.data_format == "channels_first" else -1
        shape = [1] * output.shape.rank
        shape[axis] = -1
        return output + tf.reshape(_in_dtype_of(inputs, layer.bias), shape)

    return [
        LinearPart(layer, depthwise, layer.depthwise_kernel, None),
        LinearPart(layer, pointwise, layer.pointwise_kernel, layer.bias),
    ]


def _in_dtype_of(inputs: tf.Tensor, variable: keras.Variable) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(variable), inputs.dtype)


def folded(
    part: LinearPart,
    inputs: tf.Tensor,
    output: tf.Tensor,
    before: keras.layers.BatchNormalization | None = None,
    after: keras.layers.BatchNormalization | None = None,
) -> tuple[Affine, Callable[[tf.Tensor], tf.Tensor]]:
    """`after(part(before(inputs)))` as one affine map, and as a function.

    Args:
        part: The linear part of a layer.
        inputs: float32, the input of `before` if there is one, else of the part.
        output: float32, what the forward pass made of it.
        before: The normalisation of the part's input, if any.
        after: The normalisation of its output, if any.
    """
    kernel = tf.cast(tf.convert_to_tensor(part.kernel), tf.float32)
    if before is not None:
        kernel = _scaled_inputs(part, kernel, scale_and_shift(before)[0])
    if after is not None:
        kernel = _scaled_outputs(part, kernel, scale_and_shift(after)[0])

    def function(values: tf.Tensor) -> tf.Tensor:
        if before is not None:
            values = tf.cast(before.call(values, training=False), tf.float32)
        values = part.call(values)
        if after is not None:
            values = tf.cast(after.call(values, training=False), tf.float32)
        return values

    def apply(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        replaced: list[tuple[keras.Variable, Any]] = [(part.kernel, weights)]
        if part.bias is not None:
            replaced.append((part.bias, tf.zeros(part.bias.shape)))
        with keras.StatelessScope(state_mapping=replaced):
            return part.call(values)

    if before is None:
        offset = _offset(part, after, output.shape.rank)
    else:  # On the rim, what padding adds does not get the shift of `before`.
        offset = function(tf.zeros_like(inputs[:1]))
    return Affine(inputs, kernel, offset, output, apply, is_not_negative(inputs)), function


def _offset(
    part: LinearPart, after: keras.layers.BatchNormalization | None, rank: int
) -> tf.Tensor | None:
    """What `after(part(0))` is, in a shape that broadcasts to the output; None for nothing."""
    offset = None if part.bias is None else tf.cast(tf.convert_to_tensor(part.bias), tf.float32)
    if after is not None:
        scale, shift = scale_and_shift(after)
        offset = shift if offset is None else scale * offset + shift
    if offset is None or getattr(part.layer, "data_format", None) != "channels_first":
        return offset
    return tf.reshape(offset, [-1, *[1] * (rank - 2)])


def normalizes_channels(batch_norm: keras.Layer, layer: keras.Layer, rank: int) -> bool:
    """Whether a BatchNormalization works on the axis that holds the channels of `layer`."""
    if isinstance(layer, keras.layers.EinsumDense):
        return False
    first = getattr(layer, "data_format", None) == "channels_first"
    return batch_norm.axis % rank == (1 if first else rank - 1)


def _is_depthwise(part: LinearPart) -> bool:
    separable = (
        isinstance(part.layer, models.SEPARABLE) and part.kernel is part.layer.depthwise_kernel
    )
    return separable or isinstance(part.layer, models.DEPTHWISE)


def _scaled_outputs(part: LinearPart, kernel: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """The kernel (..., in, out) with each output channel scaled; (..., out, in) if transposed."""
    if isinstance(part.layer, models.TRANSPOSED):
        return kernel * scale[:, None]
    if _is_depthwise(part):  # (..., in, multiplier): outputs are counted over both.
        return kernel * tf.reshape(scale, kernel.shape[-2:])
    return kernel * scale


def _scaled_inputs(part: LinearPart, kernel: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """The kernel (..., in, out) with each input channel scaled; (..., out, in) if transposed."""
    if isinstance(part.layer, models.TRANSPOSED):
        return kernel * scale
    groups = 1 if _is_depthwise(part) else getattr(part.layer, "groups", 1)
    by_group = tf.transpose(tf.reshape(scale, [groups, -1]))
    return kernel * tf.repeat(by_group, kernel.shape[-1] // groups if groups > 1 else 1, axis=1)
