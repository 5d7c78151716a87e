"""Penalties of the input as losses: those of `kvis2.regularizers` on a symbolic tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kvis2 import regularizers
from kvis2.visualization.graphs import single_input
from kvis2.visualization.losses import Loss


class TotalVariation(Loss):
    """`sum_p (sum_k (x(p + e_k) - x(p))^2)^(beta / 2) / values`, summed over the batch.

    The number of values is that of one sample. See `kvis2.regularizers.TotalVariation`.

    Args:
        img_input: The symbolic input, with at least one spatial axis.
        beta: 2 blurs; towards 1 it keeps edges.

    Example:
        >>> Optimizer(model.inputs[0], [(loss, 1), (TotalVariation(model.inputs[0]), 10)])
    """

    def __init__(self, img_input: Any, beta: float = 2.0) -> None:
        super().__init__()
        self.name = f"TV({beta}) Loss"
        self.img = single_input(img_input)
        self.beta = beta

    def build_loss(self) -> keras.KerasTensor:
        """The total variation, summed over the batch."""
        variation = regularizers.TotalVariation(beta=self.beta)
        return _Penalty(lambda images: tf.reduce_sum(variation(images)))(self.img)


class LPNorm(Loss):
    """`(sum |x|^p)^(1/p) / values`: one norm over the batch, the number of values of one sample.

    Args:
        img_input: The symbolic input.
        p: From 1 to infinity (`float("inf")`: the largest magnitude).

    Raises:
        ValueError: If p is below 1.

    Example:
        >>> Optimizer(model.inputs[0], [(loss, 1), (LPNorm(model.inputs[0], p=6), 10)])
    """

    def __init__(self, img_input: Any, p: float = 6.0) -> None:
        super().__init__()
        self._norm = regularizers.LpNorm(p=p, mean=False)
        self.name = f"L-{p} Norm Loss"
        self.img = single_input(img_input)
        self.p = p

    def build_loss(self) -> keras.KerasTensor:
        """The norm of the whole batch as one vector."""

        def norm(images: tf.Tensor) -> tf.Tensor:
            values = tf.cast(tf.reduce_prod(tf.shape(images)[1:]), tf.float32)
            return self._norm(tf.reshape(images, [1, -1]))[0] / values

        return _Penalty(norm)(self.img)


class _Penalty(keras.Operation):
    """A function of the images, channels last, as an operation of a Keras graph."""

    def __init__(self, function: Callable[[tf.Tensor], tf.Tensor]) -> None:
        super().__init__()
        self._function = function

    def call(self, images: tf.Tensor) -> tf.Tensor:
        rank = images.shape.rank
        if keras.config.image_data_format() == "channels_first" and rank > 2:
            images = tf.transpose(images, [0, *range(2, rank), 1])
        return self._function(tf.cast(images, tf.float32))

    def compute_output_spec(self, images: keras.KerasTensor) -> keras.KerasTensor:
        return keras.KerasTensor((), "float32")
