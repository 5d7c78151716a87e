"""Class activation maps from the first principal component of a layer."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from kvis2.explainers.cam import ClassActivationMap
from kvis2.passes import Trace


class EigenCAM(ClassActivationMap):
    r"""Eigen-CAM: the activations projected on their first principal component.

    `map = A v`, with `A` as a matrix (positions, channels), not centred, and `v` its first right
    singular vector, of the sign in which the map agrees with the sum over the channels. It does
    not depend on the score: it shows what the layer responds to, whatever the class.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are projected; by default the last spatial one.
        **options: As for `kvis2.Explainer`.

    References:
        Muhammad and Yeasin (2020), Eigen-CAM: Class Activation Map using Principal Components.
        https://arxiv.org/abs/2008.00299

    Example:
        >>> heatmaps = EigenCAM(model)(None, images)
    """

    signed = True

    def combine(self, trace: Trace) -> tf.Tensor:
        """The projection of the activations."""
        return first_projection(trace.activations)


class EigenGradCAM(ClassActivationMap):
    r"""Eigen-CAM of the activations times their gradients, which makes it depend on the class.

    `map = max(0, B v)`, `B = A * d score / d A`, with `v` the first right singular vector of `B` as
    a matrix (positions, channels).

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are projected; by default the last spatial one.
        **options: As for `kvis2.Explainer`.

    References:
        Gildenblat et al. (2021), PyTorch library for CAM methods, where it was introduced.
        https://github.com/jacobgil/pytorch-grad-cam

    Example:
        >>> heatmaps = EigenGradCAM(model)(243, images)
    """

    def combine(self, trace: Trace) -> tf.Tensor:
        """The positive part of the projection."""
        return tf.nn.relu(first_projection(trace.activations * trace.gradients))


def first_projection(features: tf.Tensor) -> tf.Tensor:
    """Every sample's `(positions, channels)` matrix times its first right singular vector.

    The vector comes from whichever Gram matrix is smaller, that of the positions or that of the
    channels, in float64: squaring a matrix halves the digits of its singular vectors.

    Args:
        features: float32 `(batch, *spatial, channels)`.

    Returns:
        float32 `(batch, *spatial)`, of the sign in which it agrees with the sum over channels.
    """
    shape = tf.shape(features)
    matrix = tf.reshape(features, [shape[0], -1, shape[-1]])
    # The scale of gradients is far below one: their squares would be lost.
    peak = tf.reduce_max(tf.abs(matrix), [1, 2], keepdims=True)
    matrix = tf.cast(tf.math.divide_no_nan(matrix, peak), tf.float64)
    # No matrix with NaN is decomposed: it is told from the map.
    known = tf.reduce_all(tf.math.is_finite(matrix), [1, 2], keepdims=True)
    matrix = tf.where(known, matrix, tf.zeros_like(matrix))

    def by_position() -> tf.Tensor:
        values, vectors = tf.linalg.eigh(tf.matmul(matrix, matrix, transpose_b=True))
        return vectors[..., -1] * tf.sqrt(tf.nn.relu(values[..., -1:]))

    def by_channel() -> tf.Tensor:
        _, vectors = tf.linalg.eigh(tf.matmul(matrix, matrix, transpose_a=True))
        return tf.matmul(matrix, vectors[..., -1:])[..., 0]

    projection = tf.cond(tf.shape(matrix)[1] < tf.shape(matrix)[2], by_position, by_channel)
    agreement = tf.reduce_sum(projection * tf.reduce_sum(matrix, axis=-1), axis=1, keepdims=True)
    signed = tf.where(agreement >= 0.0, projection, -projection)
    maps = tf.where(known[..., 0], tf.cast(signed, tf.float32) * peak[..., 0], np.nan)
    return tf.ensure_shape(tf.reshape(maps, shape[:-1]), features.shape[:-1])
