"""Linear resizing of maps of any spatial rank: one small matrix product per axis, where faster."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

# Up to this side one operation, tf.image.resize, takes less time than two products of matrices.
_SMALL = 64


def resize(maps: tf.Tensor, size: Sequence[int | tf.Tensor]) -> tf.Tensor:
    """Resize linearly with half-pixel centres, the edges held.

    Along each axis `out[i] = sum_j max(0, 1 - |p_i - j|) * in[j]` with the position
    `p_i = (i + 1/2) * n_in / n_out - 1/2` clamped to `0 .. n_in - 1`. In two dimensions this is
    `tf.image.resize(..., "bilinear")`.

    Args:
        maps: float32 `(batch, *spatial)`.
        size: The new length of every spatial axis.

    Returns:
        float32 `(batch, *size)`.

    Example:
        >>> resize(tf.zeros([1, 7, 7]), [224, 224]).shape
        TensorShape([1, 224, 224])
    """
    if len(size) == 2 and all(_static(each) and each <= _SMALL for each in size):
        return tf.squeeze(tf.image.resize(tf.expand_dims(maps, -1), size), -1)
    for axis, length in enumerate(size, start=1):
        old, new = maps.shape[axis], _static(length)
        if old is None or new is None:
            maps = along(maps, axis, _interpolation(tf.shape(maps)[axis], length))
        elif old != new:
            with tf.init_scope():  # A constant of the graph, instead of thirty operations.
                matrix = _interpolation(old, new).numpy()
            maps = along(maps, axis, matrix)
    return maps


def normalized(maps: tf.Tensor, mode: str | bool | None) -> tf.Tensor:
    """`kvis2.images.normalize` of tensors: `m / max |m|`, or by "batch" or "minmax".

    Args:
        maps: float32 `(batch, *spatial)`.
        mode: "image", "batch", "minmax"; None or False leaves the values as they are.
    """
    if mode is None or mode is False:
        return maps
    axes = list(range(0 if mode == "batch" else 1, maps.shape.rank))
    if mode == "minmax":
        maps -= tf.reduce_min(maps, axes, keepdims=True)
    return tf.math.divide_no_nan(maps, tf.reduce_max(tf.abs(maps), axes, keepdims=True))


def _static(length: int | tf.Tensor | None) -> int | None:
    return length if isinstance(length, int) else None


def _interpolation(old: tf.Tensor, new: int | tf.Tensor) -> tf.Tensor:
    """The matrix `(new, old)` of linear interpolation along one axis."""
    old_length, new_length = tf.cast(old, tf.float32), tf.cast(new, tf.float32)
    centres = (tf.range(new_length) + 0.5) * old_length / new_length - 0.5
    positions = tf.clip_by_value(centres, 0.0, old_length - 1.0)
    return tf.maximum(0.0, 1.0 - tf.abs(positions[:, None] - tf.range(old_length)[None, :]))


def blur(images: tf.Tensor, deviation: float | tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """Gaussian blur along some axes.

    `out[i] = sum_j w_ij in[j] / sum_j w_ij`, `w_ij = exp(-(i - j)^2 / (2 deviation^2))`, along
    every axis in turn: at the edges only what is inside counts.

    Args:
        images: float32, any shape.
        deviation: Standard deviation in pixels, above 0.
        axes: The axes to blur.

    Returns:
        float32 in the shape of `images`.

    Example:
        >>> blur(tf.eye(5)[None, :, :, None], 1.0, [1, 2]).shape
        TensorShape([1, 5, 5, 1])
    """
    for axis in axes:
        positions = tf.cast(tf.range(tf.shape(images)[axis]), tf.float32)
        distance = positions[:, None] - positions[None, :]
        weights = tf.exp(-0.5 * tf.square(distance / deviation))
        weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
        images = along(images, axis, weights)
    return images


def blurred(inputs: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """A copy of inputs without evidence: blurred by 1/20 of their longest side, float32.

    Args:
        inputs: `(batch, ...)`, of any dtype.
        axes: The axes that are space.
    """
    longest = tf.reduce_max(tf.gather(tf.shape(inputs), list(axes)))
    return blur(tf.cast(inputs, tf.float32), tf.cast(longest, tf.float32) / 20.0, axes)


def along(maps: tf.Tensor, axis: int, matrix: tf.Tensor) -> tf.Tensor:
    """The product of `matrix` `(new, old)` with every line of `maps` along one axis."""
    last = maps.shape.rank - 1
    if axis == last:
        return tf.matmul(maps, matrix, transpose_b=True)
    if axis == last - 1:
        return tf.matmul(matrix, maps)
    order = [each for each in range(last + 1) if each != axis] + [axis]
    product = tf.matmul(tf.transpose(maps, order), matrix, transpose_b=True)
    return tf.transpose(product, [order.index(each) for each in range(last + 1)])
