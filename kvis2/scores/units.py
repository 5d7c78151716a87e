"""Scores of a layer's output that gradient ascent maximises, besides those of `kvis2.scores`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2.scores.outputs import CategoricalScore, Score


class DirectionScore(Score):
    r"""How far activations point in a direction of activation space.

    `score_n = mean over space of (a . d_n) cos(a, d_n)^p`, `a` the activations at a position.
    With p = 0 it is linear: a direction with one entry of 1 is a unit, with several it is their
    sum. p > 0 asks for nothing but the direction (Olah et al. use 1 or 2); the cosine is not
    taken below 0.1, so that an image that does not point there yet has a gradient.

    Args:
        direction: float `(units,)` for all images, or `(images, units)`.
        cosine_power: p.

    References:
        Olah et al. (2018), The Building Blocks of Interpretability.
        https://distill.pub/2018/building-blocks

    Example:
        >>> concept = activations(model, "top_relu", cats).mean(axis=(0, 1, 2))
        >>> ActivationMaximization(model, "top_relu")(DirectionScore(concept, cosine_power=1))
    """

    def __init__(self, direction: Any, cosine_power: float = 0.0) -> None:
        array = np.asarray(direction, np.float32)
        self.direction = array[None] if array.ndim == 1 else array
        if self.direction.ndim != 2 or not self.direction.any(axis=-1).all():
            raise ValueError(
                "Expected a direction of shape (units,) or (images, units), not all zero. "
                f"Received: shape {array.shape}. Average activations over space first."
            )
        self.cosine_power = cosine_power

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The mean over space."""
        self.validate(output.shape)
        shape = [-1, *[1] * (output.shape.rank - 2), output.shape[-1]]
        direction = tf.reshape(self.direction, shape)
        dot = tf.reduce_sum(output * direction, axis=-1)
        if self.cosine_power:
            lengths = tf.norm(direction, axis=-1) * tf.sqrt(
                tf.reduce_sum(tf.square(output), axis=-1) + 1e-12
            )
            dot *= tf.maximum(dot / lengths, 0.1) ** self.cosine_power
        return tf.reduce_mean(dot, list(range(1, dot.shape.rank))) if dot.shape.rank > 1 else dot

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if the direction has not as many entries as the output has units."""
        if shape.rank is not None and shape[-1] not in (None, self.direction.shape[-1]):
            raise ValueError(
                f"Expected a direction with {shape[-1]} entries, one for each unit of the layer. "
                f"Received: {self.direction.shape[-1]}. Take it from the same layer's activations."
            )


class UnitsScore(Score):
    """The mean of several units: `score_n = mean over i in units_n of mean over space of y_i`.

    Args:
        units: For each image the indices of its units.

    Example:
        >>> ActivationMaximization(model)(UnitsScore([[281, 282], [207]]))  # 2 images
    """

    def __init__(self, units: Sequence[Sequence[int]]) -> None:
        if not len(units) or not all(len(each) for each in units):
            raise ValueError(
                f"Expected the units of each image. Received: {units!r}. Give for example [[1, 7]]."
            )
        longest = max(map(len, units))
        self.units = np.array([[*each, *[each[0]] * (longest - len(each))] for each in units])
        self.units = self.units.astype(np.int32)
        self.shares = np.array(
            [[1 / len(each)] * len(each) + [0.0] * (longest - len(each)) for each in units],
            np.float32,
        )

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The mean over the units of each image."""
        spatial = list(range(1, output.shape.rank - 1))
        means = tf.reduce_mean(output, spatial) if spatial else output
        chosen = tf.gather(means, self.units, axis=1, batch_dims=1)
        return tf.reduce_sum(chosen * self.shares, axis=1)

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if there is no such unit."""
        CategoricalScore(self.units.reshape(-1).tolist()).validate(shape)


class FeatureScore(Score):
    """Minus the squared distance to given features: `-weight ||a - target||^2 / ||target||^2`.

    Args:
        target: Features of the layer, `(images, ...)`.
        weight: What it is multiplied by.
    """

    def __init__(self, target: Any, weight: float = 1.0) -> None:
        self.target = np.asarray(target, np.float32)
        self.weight = weight

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """Minus the relative squared error."""
        axes = list(range(1, output.shape.rank))
        distance = tf.reduce_sum(tf.square(output - self.target), axes)
        lengths = tf.reduce_sum(tf.square(self.target), axes)
        return -self.weight * distance / tf.maximum(lengths, 1e-12)
