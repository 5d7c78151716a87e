"""What keeps an optimised image natural: penalties, constraints and gradient modifiers.

All of them treat every image of a batch by itself. *Regularizers* are added to the loss,
*constraints* change the image before every step, *gradient modifiers* change its gradient. They
are frozen dataclasses: equal ones share a compiled loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

from kvis2.passes import blur

Bounds: TypeAlias = "tuple[tf.Tensor, tf.Tensor]"
"""Lowest and highest value of an input, each broadcastable to it."""
Constraint: TypeAlias = "Callable[[tf.Tensor, tf.Tensor, Bounds], tf.Tensor]"
"""`(images, step, bounds) -> images`, the step an int32 number from 0."""
GradientModifier: TypeAlias = "Callable[[tf.Tensor], tf.Tensor]"
"""`gradient (batch, ...) -> gradient` of the loss, which is minimised."""

# Keeps roots differentiable at zero; too small to be seen beside differences of pixel values.
_TINY = 1e-8


def _axes(values: tf.Tensor) -> list[int]:
    return list(range(1, values.shape.rank))


def _size(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.reduce_prod(tf.shape(images)[1:]), tf.float32)


def _norm(values: tf.Tensor) -> tf.Tensor:
    """Euclidean norm of each sample, with axes of length one, differentiable at zero."""
    squares = tf.reduce_sum(tf.square(values), _axes(values), keepdims=True)
    return tf.sqrt(tf.maximum(squares, 1e-12))


@dataclass(frozen=True)
class Regularizer:
    """Base of the penalties: `regularizer(images)` is one number per image, to be minimised.

    Args:
        weight: What the penalty is multiplied by; a term of weight 0 is left out.
    """

    weight: float = 1.0

    @property
    def name(self) -> str:
        """The name of the term in a history."""
        return type(self).__name__

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """The penalty of each image, not yet weighted.

        Args:
            images: float32 `(batch, *spatial, channels)`.

        Returns:
            float32 `(batch,)`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to penalise.")


@dataclass(frozen=True)
class Penalty(Regularizer):
    """A function of one's own as a penalty.

    Args:
        weight: What the penalty is multiplied by.
        function: `images (batch, *spatial, channels) -> (batch,)`.

    Example:
        >>> ActivationMaximization(model, regularizers=lambda x: tf.reduce_mean(x, [1, 2, 3]))(20)
    """

    function: Callable[[tf.Tensor], tf.Tensor] | None = None

    @property
    def name(self) -> str:
        """The name of the function."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """What the function says of each image."""
        assert self.function is not None
        values = tf.cast(self.function(images), tf.float32)
        if values.shape.rank != 1:
            raise ValueError(
                f"Expected '{self.name}' to return one penalty for each image, (batch,). Received: "
                f"shape {tuple(values.shape)}. Sum or average over all axes but the first."
            )
        return values


def as_regularizers(given: Any) -> tuple[Regularizer, ...]:
    """A regularizer or a sequence of them, functions wrapped; None is none.

    Raises:
        TypeError: If something is neither.
    """
    if given is None:
        return ()
    several = given if isinstance(given, list | tuple) else [given]
    for each in several:
        if not callable(each) or isinstance(each, type):
            raise TypeError(
                "Expected regularizers such as TotalVariation(10.0), or functions images -> "
                f"(batch,). Received: {each!r}. Give one, a list of them, or a dict by input."
            )
    return tuple(
        each if isinstance(each, Regularizer) else Penalty(function=each) for each in several
    )


@dataclass(frozen=True)
class TotalVariation(Regularizer):
    r"""Total variation: how much neighbouring pixels differ.

    `sum_p (sum_k (x(p + e_k) - x(p))^2)^(beta / 2)`, over channels and all positions p but the
    last of every spatial axis; divided by the number of values of an image if `mean`.

    Args:
        weight: What the penalty is multiplied by.
        beta: 2 blurs; towards 1 it keeps edges.
        mean: Whether the penalty is the same for large and small images.

    References:
        Mahendran and Vedaldi (2015), Understanding Deep Image Representations by Inverting Them.
        https://arxiv.org/abs/1412.0035

    Example:
        >>> ActivationMaximization(model, regularizers=[TotalVariation(10.0)])(20)
    """

    beta: float = 2.0
    mean: bool = True

    @property
    def name(self) -> str:
        """The name of the term in a history."""
        return f"TV({self.beta:g})"

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """The total variation of each image."""
        spatial = range(1, images.shape.rank - 1)
        if not spatial:
            raise ValueError(
                "Expected inputs of shape (batch, ≥1 spatial axis, channels) for TotalVariation. "
                f"Received: shape {tuple(images.shape)}. A vector has no neighbours: leave it out."
            )
        inner = _shortened(images, list(spatial), None)
        squares = tf.add_n(
            [tf.square(_shortened(images, list(spatial), axis) - inner) for axis in spatial]
        )
        terms = squares if self.beta == 2.0 else (squares + _TINY) ** (self.beta / 2.0)
        total = tf.reduce_sum(terms, _axes(images))
        return total / _size(images) if self.mean else total


def _shortened(images: tf.Tensor, axes: list[int], shifted: int | None) -> tf.Tensor:
    """All positions but the last of every axis; along `shifted` all but the first."""
    slices = [slice(None)] * images.shape.rank
    for axis in axes:
        slices[axis] = slice(1, None) if axis == shifted else slice(None, -1)
    return images[tuple(slices)]


@dataclass(frozen=True)
class LpNorm(Regularizer):
    """The norm `(sum |x|^p)^(1/p)` of an image, divided by the number of its values if `mean`.

    Args:
        weight: What the penalty is multiplied by.
        p: From 1 to infinity (`float("inf")`: the largest magnitude).
        mean: Whether to divide by the number of values, as keras-vis does.

    Raises:
        ValueError: If p is below 1.

    Example:
        >>> ActivationMaximization(model, regularizers=[LpNorm(10.0, p=6)])(20)
    """

    p: float = 6.0
    mean: bool = True

    def __post_init__(self) -> None:
        if not self.p >= 1:
            raise ValueError(
                f"Expected p from 1 to infinity. Received: {self.p}. Give for example 6."
            )

    @property
    def name(self) -> str:
        """The name of the term in a history."""
        return f"L{self.p:g}"

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """The norm of each image."""
        magnitude = tf.abs(images)
        largest = tf.reduce_max(magnitude, _axes(images), keepdims=True)
        norm = tf.reshape(largest, [-1])
        if self.p != float("inf"):
            # Divided by the largest value first: 255^6 and its sum leave float32 little room.
            scale = tf.stop_gradient(tf.maximum(largest, _TINY))
            powers = tf.reduce_sum((magnitude / scale) ** self.p, _axes(images))
            root = tf.maximum(powers, _TINY) ** (1.0 / self.p)
            norm = tf.reshape(scale, [-1]) * root
        return norm / _size(images) if self.mean else norm


@dataclass(frozen=True)
class AlphaNorm(Regularizer):
    """`sum |x|^alpha`, which keeps an image within a range (Mahendran and Vedaldi use 6).

    Args:
        weight: What the penalty is multiplied by.
        alpha: The power.
    """

    alpha: float = 6.0

    @property
    def name(self) -> str:
        """The name of the term in a history."""
        return f"alpha({self.alpha:g})"

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """The sum of powers of each image."""
        return tf.reduce_sum(tf.abs(images) ** self.alpha, _axes(images))


@dataclass(frozen=True)
class L1Decay(Regularizer):
    """`sum |x|`: its gradient pulls every value to zero by the weight.

    Args:
        weight: What is taken off each value by a step of unit size.
    """

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """The sum of magnitudes of each image."""
        return tf.reduce_sum(tf.abs(images), _axes(images))


@dataclass(frozen=True)
class L2Decay(Regularizer):
    """`sum x^2 / 2`: its gradient is the image times the weight, the weight decay of optimizers.

    Args:
        weight: The fraction that is taken off each value by a step of unit size.
    """

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Half the sum of squares of each image."""
        return tf.reduce_sum(tf.square(images), _axes(images)) / 2.0


# -- constraints ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClipColors:
    """Keeps every value inside the input range."""

    def __call__(self, images: tf.Tensor, step: tf.Tensor, bounds: Bounds) -> tf.Tensor:
        """The images, clipped."""
        return tf.clip_by_value(images, *bounds)


@dataclass(frozen=True)
class Quantize:
    """Rounds every value to one of `levels` over the input range, and clips it: an 8-bit image.

    Args:
        levels: How many values there are; 256 in a picture file.
    """

    levels: int = 256

    def __call__(self, images: tf.Tensor, step: tf.Tensor, bounds: Bounds) -> tf.Tensor:
        """The images as a picture file would hold them."""
        low, high = bounds
        unit = tf.clip_by_value((images - low) / (high - low), 0.0, 1.0)
        return low + tf.round(unit * (self.levels - 1)) / (self.levels - 1) * (high - low)


@dataclass(frozen=True)
class BlurEvery:
    """Blurs the image before every n-th step: high frequencies have to earn their place.

    Args:
        every: n; 1 blurs before each step.
        deviation: Standard deviation of the Gaussian, in pixels.

    References:
        Yosinski et al. (2015), Understanding Neural Networks Through Deep Visualization.
        https://arxiv.org/abs/1506.06579
    """

    every: int = 4
    deviation: float = 1.0

    def __post_init__(self) -> None:
        if self.every < 1 or self.deviation <= 0:
            raise ValueError(
                "Expected `every` of at least 1 and a `deviation` above 0. Received: "
                f"{self.every} and {self.deviation}. Give for example 4 and 1.0."
            )

    def __call__(self, images: tf.Tensor, step: tf.Tensor, bounds: Bounds) -> tf.Tensor:
        """The images, blurred if it is their turn."""
        due = tf.equal((step + 1) % self.every, 0)
        spatial = range(1, images.shape.rank - 1)
        return tf.cond(due, lambda: blur(images, self.deviation, spatial), lambda: images)


# -- gradient modifiers ---------------------------------------------------------------------------


@dataclass(frozen=True)
class NormalizeGradient:
    """`g / ||g||`, the Euclidean norm of each image's own gradient."""

    def __call__(self, gradient: tf.Tensor) -> tf.Tensor:
        """The gradients, of length one each."""
        return gradient / _norm(gradient)


@dataclass(frozen=True)
class ClipGradient:
    """`g min(1, clip / ||g||)`: no image's gradient is longer than `clip`.

    Args:
        clip: The largest Euclidean norm.
    """

    clip: float = 0.1

    def __call__(self, gradient: tf.Tensor) -> tf.Tensor:
        """The gradients, shortened where they are too long."""
        return gradient * tf.minimum(1.0, self.clip / _norm(gradient))
