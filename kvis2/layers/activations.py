"""ReLUs whose gradients are those of guided backpropagation and of deconvolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

Gradient = tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]


@keras.saving.register_keras_serializable(package="kvis2")
class GuidedReLU(keras.layers.Layer):
    """A ReLU that lets only positive gradients back: `dx = [x > 0] [dy > 0] dy`.

    A model that is built with it predicts as with `keras.layers.ReLU`, and its plain gradients are
    guided: also where nothing of kvis2 runs. `kvis2.GuidedReLU` changes the ReLUs of a model that
    is there, for one pass. Training with it follows the guided gradients, which are not those of
    the loss.

    Args:
        **options: `name` and `dtype`, as for every Keras layer.

    References:
        Springenberg et al. (2015), Striving for Simplicity: The All Convolutional Net.
        https://arxiv.org/abs/1412.6806

    Example:
        >>> GuidedReLU()(np.float32([[-1.0, 2.0]])).numpy()
        array([[0., 2.]], dtype=float32)
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.supports_masking = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """`max(0, x)`, its gradient as the class says."""
        return _guided(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape


@keras.saving.register_keras_serializable(package="kvis2")
class DeconvReLU(GuidedReLU):
    """A ReLU whose gradient is a ReLU of the gradient: `dx = [dy > 0] dy`, wherever x was.

    Args:
        **options: `name` and `dtype`, as for every Keras layer.

    References:
        Zeiler and Fergus (2014), Visualizing and Understanding Convolutional Networks.
        https://arxiv.org/abs/1311.2901

    Example:
        >>> DeconvReLU()(np.float32([[-1.0, 2.0]])).numpy()
        array([[0., 2.]], dtype=float32)
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """`max(0, x)`, its gradient as the class says."""
        return _deconvolved(inputs)


@tf.custom_gradient
def _guided(inputs: tf.Tensor) -> Gradient:
    outputs = tf.nn.relu(inputs)
    return outputs, lambda up: tf.where((outputs > 0) & (up > 0), up, tf.zeros_like(up))


@tf.custom_gradient
def _deconvolved(inputs: tf.Tensor) -> Gradient:
    return tf.nn.relu(inputs), tf.nn.relu
