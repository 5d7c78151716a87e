"""Gradients of convolutions and pooling, written in forward operations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf


def refused(operation: tf.Operation, what: str) -> ValueError:
    """The sentence for an operation whose gradient has no forward operations."""
    return ValueError(
        f"Expected operations whose gradients can be written in forward operations. Received: "
        f"{operation.type} {what}, at '{operation.name}'. Export a SavedModel, which has all "
        "gradients, or explain at a layer after it."
    )


def known_sizes(operation: tf.Operation, tensor: tf.Tensor, axes: Sequence[int]) -> list[int]:
    """The lengths of some axes; refuses those that are open."""
    sizes = [tensor.shape[axis] for axis in axes]
    if any(each is None for each in sizes):
        raise ValueError(
            f"Expected sizes that are known, for the gradient of {operation.type} at "
            f"'{operation.name}'. Received: shape {tuple(tensor.shape)}. Fix the size of the "
            "images: `export(..., size=(224, 224))`."
        )
    return sizes


class _Window(NamedTuple):
    """How an operation goes over one spatial axis."""

    length: int  # of the input
    places: int  # of the output
    size: int  # of the kernel
    stride: int
    dilation: int
    before: int  # how much is padded before the first value

    @property
    def reach(self) -> int:
        """How many values of the input one window spans."""
        return (self.size - 1) * self.dilation + 1


def _windows(operation: tf.Operation, sizes: Sequence[int]) -> list[_Window]:
    """The windows of all spatial axes; `sizes` are those of the kernel."""
    if operation.get_attr("data_format") not in (b"NHWC", b"NDHWC"):
        raise refused(operation, "with the channels first")
    axes = list(range(1, 1 + len(sizes)))
    lengths = known_sizes(operation, operation.inputs[0], axes)
    counts = known_sizes(operation, operation.outputs[0], axes)
    strides = operation.get_attr("strides")[1:-1]
    dilations = [1] * len(sizes)
    if operation.type not in ("MaxPool", "AvgPool"):
        dilations = operation.get_attr("dilations")[1:-1]
    padding = operation.get_attr("padding")
    explicit = operation.get_attr("explicit_paddings")[2:-2:2] if padding == b"EXPLICIT" else []
    found = []
    for axis, (length, count, size, stride, dilation) in enumerate(
        zip(lengths, counts, sizes, strides, dilations, strict=True)
    ):
        spare = max(0, (count - 1) * stride + (size - 1) * dilation + 1 - length)
        before = {b"SAME": spare // 2, b"VALID": 0}.get(padding)
        before = explicit[axis] if before is None else before
        found.append(_Window(length, count, size, stride, dilation, before))
    return found


def convolution_gradient(operation: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    """The gradient of a convolution by its input, grouped ones included.

    `dx = conv(upstream with zeros between, kernel turned around, inputs and outputs exchanged)`.
    """
    kernel = operation.inputs[1]
    *sizes, inputs, outputs = kernel.shape
    space = list(range(len(sizes)))
    windows = _windows(operation, sizes)
    channels = operation.inputs[0].shape[-1]
    groups = channels // inputs
    if groups > 1:
        kernel = tf.reshape(kernel, [*sizes, inputs, groups, outputs // groups])
        kernel = tf.transpose(kernel, [*space, len(sizes) + 2, len(sizes) + 1, len(sizes)])
        kernel = tf.reshape(kernel, [*sizes, outputs // groups, channels])
    else:
        kernel = tf.transpose(kernel, [*space, len(sizes) + 1, len(sizes)])
    kernel = _turned(kernel, sizes)
    spread = _opposite(upstream, windows)
    dilations = [each.dilation for each in windows]
    convolve = tf.nn.conv2d if len(sizes) == 2 else tf.nn.conv3d
    strides = [1] * (len(sizes) + 2)
    return convolve(spread, kernel, strides, "VALID", dilations=[1, *dilations, 1])


def _turned(kernel: tf.Tensor, sizes: Sequence[int]) -> tf.Tensor:
    """A kernel turned around, axis by axis, as OpenVINO wants it."""
    for axis, size in enumerate(sizes):
        kernel = tf.reverse(kernel, [axis]) if size > 1 else kernel
    return kernel


def depthwise_gradient(operation: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    """The gradient of a depthwise convolution by its input, over all of its multipliers."""
    kernel = operation.inputs[1]
    *sizes, channels, multiplier = kernel.shape
    windows = _windows(operation, sizes)
    kernel = _turned(tf.reshape(kernel, [*sizes, channels * multiplier, 1]), sizes)
    spread = _opposite(upstream, windows)
    dilations = [each.dilation for each in windows]
    found = tf.raw_ops.DepthwiseConv2dNative(
        input=spread,
        filter=kernel,
        strides=[1, 1, 1, 1],
        padding="VALID",
        dilations=[1, *dilations, 1],
    )
    if multiplier == 1:
        return found
    lengths = [each.length for each in windows]
    return tf.reduce_sum(tf.reshape(found, [-1, *lengths, channels, multiplier]), -1)


def average_pool_gradient(operation: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    """The gradient of average pooling: every value in a window gets its share of it."""
    sizes = operation.get_attr("ksize")[1:-1]
    windows = _windows(operation, sizes)
    covered = np.ones([], np.float32)  # What lies over the padding is not counted.
    for each in windows:
        starts = np.arange(each.places) * each.stride - each.before
        inside = np.minimum(starts + each.size, each.length) - np.maximum(starts, 0)
        covered = covered[..., None] * inside.astype(np.float32)
    spread = _opposite(upstream / covered[..., None], windows)
    return tf.nn.avg_pool2d(spread, sizes, 1, "VALID") * float(np.prod(sizes))


def max_pool_gradient(operation: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    """The gradient of maximum pooling: the first of the largest values of a window gets it."""
    x, best = operation.inputs[0], operation.outputs[0]
    windows = _windows(operation, operation.get_attr("ksize")[1:-1])
    ends = [[each.before, _after(each)] for each in windows]
    padded = tf.pad(x, [[0, 0], *ends, [0, 0]], constant_values=x.dtype.min)
    total = None
    left = upstream
    for offsets in itertools.product(*(range(each.size) for each in windows)):
        stops = [o + (w.places - 1) * w.stride + 1 for o, w in zip(offsets, windows, strict=True)]
        starts = [0, *offsets, 0]
        steps = [1, *(each.stride for each in windows), 1]
        seen = tf.strided_slice(padded, starts, [0, *stops, 0], steps, begin_mask=9, end_mask=9)
        is_best = seen == best
        share = tf.where(is_best, left, tf.zeros_like(left))
        left = tf.where(is_best, tf.zeros_like(left), left)
        placed = _placed(share, windows, offsets)
        total = placed if total is None else total + placed
    return _cropped(total, windows)


def _after(window: _Window) -> int:
    """How much is padded after the last value, at least none."""
    last = (window.places - 1) * window.stride + window.reach - window.before
    return max(0, last - window.length)


def _placed(share: tf.Tensor, windows: Sequence[_Window], offsets: Sequence[int]) -> tf.Tensor:
    """Values of windows at the places of the padded input that they come from."""
    spread = _spread(share, windows)
    amounts = [
        [o, w.before + w.length + _after(w) - o - (w.places - 1) * w.stride - 1]
        for o, w in zip(offsets, windows, strict=True)
    ]
    return tf.pad(spread, [[0, 0], *amounts, [0, 0]])


def _cropped(total: tf.Tensor, windows: Sequence[_Window]) -> tf.Tensor:
    (top, height), (left, width) = ((each.before, each.length) for each in windows)
    return total[:, top : top + height, left : left + width]


def _opposite(upstream: tf.Tensor, windows: Sequence[_Window]) -> tf.Tensor:
    """The upstream, spread and padded so that windows over it, one by one, give the input's size.

    Padding below zero, where windows reached into padding, or not as far as the end, is a cut.
    """
    spread = _spread(upstream, windows)
    amounts, cuts = [], [slice(None)]
    for each in windows:
        length = (each.places - 1) * each.stride + 1
        before = each.reach - 1 - each.before
        after = each.length + each.reach - 1 - before - length
        amounts.append([max(0, before), max(0, after)])
        cuts.append(slice(max(0, -before), length - max(0, -after)))
    if any(
        each != slice(0, (w.places - 1) * w.stride + 1)
        for each, w in zip(cuts[1:], windows, strict=True)
    ):
        spread = spread[tuple(cuts)]
    if np.any(amounts):
        spread = tf.pad(spread, [[0, 0], *amounts, [0, 0]])
    return spread


def _spread(upstream: tf.Tensor, windows: Sequence[_Window]) -> tf.Tensor:
    """The upstream with `stride - 1` zeros between its values, along every spatial axis."""
    sizes = [each.places for each in windows]
    channels = upstream.shape[-1]
    for axis, each in enumerate(windows):
        if each.stride == 1:
            continue
        inner = channels * int(np.prod(sizes[axis + 1 :]))
        rows = tf.reshape(upstream, [-1, each.places, 1, inner])
        rows = tf.pad(rows, [[0, 0], [0, 0], [0, each.stride - 1], [0, 0]])
        sizes[axis] = each.places * each.stride
        upstream = tf.reshape(rows, [-1, *sizes, channels])
        length = (each.places - 1) * each.stride + 1
        upstream = upstream[(slice(None),) * (axis + 1) + (slice(0, length),)]
        sizes[axis] = length
    return upstream
