"""Gradients of the score with respect to the input, plain, smoothed or times the input."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kvis2 import models
from kvis2.explainers.explainer import Explainer
from kvis2.explainers.placement import channel_axis, placed
from kvis2.explainers.smooth_grad import Noise
from kvis2.passes import Probe
from kvis2.traced import Seed
from kvis2.types import LayerReference, Tensors


def _largest(values: tf.Tensor, axis: int) -> tf.Tensor:
    return _reduced_by(tf.maximum, tf.reduce_max, values, axis)


def _sum(values: tf.Tensor, axis: int) -> tf.Tensor:
    return _reduced_by(tf.add, tf.reduce_sum, values, axis)


def _reduced_by(
    of_two: Callable[..., tf.Tensor],
    of_all: Callable[..., tf.Tensor],
    values: tf.Tensor,
    axis: int,
) -> tf.Tensor:
    """Two by two, the three channels of colours take half the time of a reduction."""
    count = values.shape[axis]
    if count is None or count > 4:
        return of_all(values, axis)
    return functools.reduce(of_two, tf.unstack(values, axis=axis))


# How each value counts, and how the channels of one position become one number.
_REDUCTIONS: dict[str, tuple[Callable[..., tf.Tensor], Callable[..., tf.Tensor]]] = {
    "absolute": (tf.abs, _largest),
    "absolute_sum": (tf.abs, _sum),
    "signed": (tf.identity, _sum),
    "positive": (tf.nn.relu, _largest),
    "negative": (lambda x: tf.nn.relu(-x), _largest),
}


class Attribution(Explainer):
    """Base of the methods that find one number for every value of the input.

    A method says with `attributions` what these are; the channels are reduced to maps here.

    Args:
        model: Any built Keras model.
        layer: Attribute to the output of this layer instead of the input.
        reduce: How the channels become one map: "absolute" (largest magnitude), "absolute_sum"
            (sum of the magnitudes), "signed" (sum), "positive" or "negative" (largest such part).
        keepdims: Keep the channels: each value by itself, made absolute, positive or negative as
            `reduce` says.
        **options: As for `kvis2.Explainer`.
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        reduce: str = "signed",
        keepdims: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        if reduce not in _REDUCTIONS:
            raise ValueError(
                f"Expected `reduce` to be one of {', '.join(map(repr, _REDUCTIONS))}. "
                f"Received: {reduce!r}. `keepdims=True` keeps the channels."
            )
        self.reduce = reduce
        self.keepdims = keepdims

    def attributions(self, probe: Probe, score: Any, inputs: Tensors) -> Sequence[tf.Tensor | None]:
        """One number for every value of every input, or of the watched layer as a list of one.

        Args:
            probe: Runs the model.
            score: The score, its fields tensors.
            inputs: The flat inputs `(batch, ...)`.

        Returns:
            float32 in the shapes of the inputs; None where the score does not depend on one.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what to attribute.")

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The reduced attributions."""
        return self.reduced(self.attributions(probe, score, inputs), probe, inputs)

    def reduced(
        self, attributions: Sequence[tf.Tensor | None], probe: Probe, inputs: Tensors
    ) -> list[tf.Tensor | None]:
        """One map for each, without its channels unless `keepdims`."""
        if probe.layer is None:
            return [
                None if a is None else self._reduced(a, channel_axis(probe, inputs, i))
                for i, a in enumerate(attributions)
            ]
        (activations,) = attributions
        assert activations is not None
        maps = placed(
            tf.reduce_sum(activations, -1) if self.keepdims else self._reduced(activations, -1),
            probe,
            inputs,
            self.settings.resize and not self.keepdims,
        )
        if not self.keepdims:
            return maps
        return [None if each is None else self._reduced(activations, -1) for each in maps]

    def _reduced(self, attributions: tf.Tensor, axis: int | None) -> tf.Tensor:
        value, over_channels = _REDUCTIONS[self.reduce]
        # The features of a vector have no channels.
        if self.keepdims or axis is None or attributions.shape.rank <= 2:
            return value(attributions)
        return over_channels(value(attributions), axis)


class Saliency(Attribution):
    r"""The gradient of the score with respect to the input, by itself or smoothed.

    `map = max over channels of |g|`, `g = d score / d x`; with smoothing
    `g = 1/n sum_i d score(x + noise_i) / d x`, `noise_i ~ Normal(0, smooth_noise * range(x))`,
    which is `SmoothGrad(Saliency(model))`.

    Args:
        model: Any built Keras model.
        layer: Differentiate by the output of this layer instead of the input.
        reduce: How the channels become one map: "absolute" (largest magnitude), "absolute_sum"
            (sum of the magnitudes), "signed" (sum), "positive" or "negative" (largest such part).
            None is "absolute" for maps and "signed" with `keepdims`.
        keepdims: Keep the channels: each gradient by itself, signed, or made absolute, positive
            or negative as `reduce` says.
        smooth_samples: Number n of noisy copies of each image; 0 for the plain gradient.
        smooth_noise: Standard deviation of the noise as a fraction of each image's own range
            (maximum minus minimum), 0.1 to 0.2 in the paper.
        seed: Seed of the noise: the same seed gives the same bytes on a CPU. Every image gets
            the same noise, so that it does not matter what it is batched with. None draws
            another seed at every call.
        **options: As for `kvis2.Explainer`.

    References:
        Simonyan et al. (2014), Deep Inside Convolutional Networks. https://arxiv.org/abs/1312.6034
        Smilkov et al. (2017), SmoothGrad: removing noise by adding noise.
        https://arxiv.org/abs/1706.03825

    Example:
        >>> maps = Saliency(model, smooth_samples=50, smooth_noise=0.15)(243, images)
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        reduce: str | None = None,
        keepdims: bool = False,
        smooth_samples: int = 0,
        smooth_noise: float = 0.15,
        seed: int | None = 0,
        **options: Any,
    ) -> None:
        reduce = reduce or ("signed" if keepdims else "absolute")
        super().__init__(model, layer, reduce=reduce, keepdims=keepdims, **options)
        if smooth_samples < 0 or smooth_noise < 0:
            raise ValueError(
                "Expected `smooth_samples` and `smooth_noise` not to be negative. Received: "
                f"{smooth_samples} and {smooth_noise}. Give for example 50 and 0.15."
            )
        self.noise = Noise(smooth_samples, smooth_noise) if smooth_samples else None
        self.seed = Seed(seed)

    def attributions(self, probe: Probe, score: Any, inputs: Tensors) -> Sequence[tf.Tensor | None]:
        """The gradient, or its mean over noisy copies."""

        def gradients(score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
            return gradients_of(probe, score, inputs)

        if self.noise is None:
            return gradients(score, inputs)
        score = probe.fixed(score, inputs)
        sums = self.noise.sums(
            gradients, score, inputs, self.seed, self.rows, self.settings.verbose
        )
        return [None if each is None else each / self.noise.samples for each in sums]


class InputXGradient(Attribution):
    r"""The input times its gradient.

    `map = sum over channels of x * d score / d x`: the first-order Taylor term. For a piecewise
    linear model without biases the sum over the image is the score. It sees edges that the
    weights hardly matter for, and fails the sanity checks of Adebayo et al. (2018).

    Args:
        model: Any built Keras model.
        layer: Attribute to the output of this layer instead of the input.
        reduce: How the channels become one map; "signed" (sum) keeps the total.
        keepdims: Keep the channels.
        **options: As for `kvis2.Explainer`.

    References:
        Shrikumar et al. (2016), Not Just a Black Box. https://arxiv.org/abs/1605.01713
        Adebayo et al. (2018), Sanity Checks for Saliency Maps. https://arxiv.org/abs/1810.03292

    Example:
        >>> maps = InputXGradient(model)(243, images)
    """

    def attributions(self, probe: Probe, score: Any, inputs: Tensors) -> Sequence[tf.Tensor | None]:
        """The product of every value and its gradient."""
        if probe.layer is not None:
            trace = probe(score, inputs)
            return [trace.activations * trace.gradients]
        gradients = gradients_of(probe, score, inputs)
        pairs = zip(inputs, gradients, strict=True)
        return [None if g is None else tf.cast(x, tf.float32) * g for x, g in pairs]


def gradients_of(probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
    """Gradients by every input, or by the watched layer as a list of one."""
    trace = probe(score, inputs)
    if probe.layer is not None:
        return [trace.gradients]
    if all(each is None for each in trace.gradients):
        raise ValueError(no_gradient(probe, inputs))
    return trace.gradients


def no_gradient(probe: Probe, inputs: Tensors) -> str:
    """The sentence for inputs that the score has no gradient by."""
    inside = list(models.walk(probe.model))
    first = [path for path, layer in inside if isinstance(layer, keras.layers.Embedding)]
    if not first and all(each.dtype.is_integer for each in inputs):
        first = [path for path, _ in inside]
    advice = (
        "Saliency, IntegratedGradients and GradCAM explain at the first layer after it: "
        f"`layer={first[0]!r}`."
        if first
        else "Look for a step without a gradient (rounding, argmax, a cast to integers)."
    )
    kinds = ", ".join(each.dtype.name for each in inputs)
    return (
        "Expected a score with a gradient with respect to the input. Received: none, for inputs "
        f"of type {kinds} to '{probe.model.name}'. {advice}"
    )
