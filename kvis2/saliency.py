"""Gradients of the score with respect to the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2 import scores, targets
from kvis2.explainer import Explainer, placed
from kvis2.probe import Probe
from kvis2.sampling import added_up, normal, repeated, row_indices, total
from kvis2.types import LayerReference, Tensors

_REDUCTIONS: dict[str, Callable[[tf.Tensor, int], tf.Tensor]] = {
    "absolute": lambda gradient, axis: tf.reduce_max(tf.abs(gradient), axis),
    "signed": lambda gradient, axis: tf.reduce_sum(gradient, axis),
    "positive": lambda gradient, axis: tf.reduce_max(tf.nn.relu(gradient), axis),
    "negative": lambda gradient, axis: tf.reduce_max(tf.nn.relu(-gradient), axis),
}


class Saliency(Explainer):
    r"""The gradient of the score with respect to the input, by itself or smoothed.

    `map = max over channels of |g|`, `g = d score / d x`; with smoothing
    `g = 1/n sum_i d score(x + noise_i) / d x`, `noise_i ~ Normal(0, smooth_noise * range(x))`.

    Args:
        model: Any built Keras model.
        layer: Differentiate by the output of this layer instead of the input.
        reduce: How the channels become one map: "absolute" (largest magnitude), "signed" (sum),
            "positive" or "negative" (largest such part).
        keepdims: Keep the channels: signed gradients in the shape of the input, not reduced.
        smooth_samples: Number n of noisy copies of each image; 0 for the plain gradient.
        smooth_noise: Standard deviation of the noise as a fraction of each image's own range
            (maximum minus minimum), 0.1 to 0.2 in the paper.
        seed: Seed of the noise: the same seed gives the same bytes on a CPU. Every image gets
            the same noise, so that it does not matter what it is batched with. None draws
            another seed at every call.
        **options: As for `kvis2.explainer.Explainer`.

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
        reduce: str = "absolute",
        keepdims: bool = False,
        smooth_samples: int = 0,
        smooth_noise: float = 0.15,
        seed: int | None = 0,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        if reduce not in _REDUCTIONS:
            raise ValueError(
                f"Expected `reduce` to be one of {', '.join(map(repr, _REDUCTIONS))}. "
                f"Received: {reduce!r}. `keepdims=True` keeps the channels."
            )
        if smooth_samples < 0 or smooth_noise < 0:
            raise ValueError(
                "Expected `smooth_samples` and `smooth_noise` not to be negative. Received: "
                f"{smooth_samples} and {smooth_noise}. Give for example 50 and 0.15."
            )
        self.reduce = reduce
        self.keepdims = keepdims
        self.smooth_samples = smooth_samples
        self.smooth_noise = np.asarray(smooth_noise, np.float32)
        self.seed = seed

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The reduced gradient for every input that the score depends on."""
        if self.smooth_samples:
            gradients = self._smoothed(probe, score, inputs)
        else:
            gradients = gradients_of(probe, score, inputs)
        return self.reduced(gradients, probe, inputs)

    def reduced(
        self, gradients: Sequence[tf.Tensor | None], probe: Probe, inputs: Tensors
    ) -> list[tf.Tensor | None]:
        """One map for every gradient, without its channels unless `keepdims`."""
        if probe.layer is not None:
            assert gradients[0] is not None
            reduced = _REDUCTIONS[self.reduce](gradients[0], -1)
            return placed(reduced, gradients[0], probe, inputs, self.resize)
        if self.keepdims:
            return list(gradients)
        axis = 1 if targets.data_format(probe.model) == "channels_first" else -1
        return [None if g is None else _without_channels(g, axis, self.reduce) for g in gradients]

    def _smoothed(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        score = probe.fixed(score, inputs)
        kept = [i for i, each in enumerate(inputs) if each.dtype.is_floating]
        found: list[int] = []

        def chunk_total(indices: tf.Tensor) -> Tensors:
            copies = tf.shape(indices)[0]
            noisy = [
                self._noisy(each, indices, i) if i in kept else repeated(each, copies)
                for i, each in enumerate(inputs)
            ]
            rows = row_indices(inputs[0], copies)
            gradients = gradients_of(probe, scores.take(score, rows), noisy)
            found[:] = [i for i, each in enumerate(gradients) if each is not None]
            return [
                zero if each is None else added_up(each, copies)
                for zero, each in zip(zeros, gradients, strict=True)
            ]

        zeros = _zeros(probe, score, inputs)
        sums = total(self.smooth_samples, self.rows, zeros, chunk_total)
        return [s / self.smooth_samples if i in found else None for i, s in enumerate(sums)]

    def _noisy(self, inputs: tf.Tensor, indices: tf.Tensor, stream: int) -> tf.Tensor:
        """Copies of the inputs, each with noise of a fraction of its image's range."""
        axes = list(range(1, inputs.shape.rank))
        low = tf.reduce_min(inputs, axes, keepdims=True)
        high = tf.reduce_max(inputs, axes, keepdims=True)
        deviation = self.smooth_noise * (tf.cast(high, tf.float32) - tf.cast(low, tf.float32))
        noise = normal(indices + stream * self.smooth_samples, tf.shape(inputs)[1:], self.seed)
        copies = tf.cast(inputs[None], tf.float32) + deviation[None] * noise[:, None]
        flat = tf.concat([[-1], tf.shape(inputs)[1:]], axis=0)
        return tf.ensure_shape(
            tf.cast(tf.reshape(copies, flat), inputs.dtype), [None, *inputs.shape[1:]]
        )


def gradients_of(probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
    """Gradients by every input, or by the watched layer as a list of one."""
    trace = probe(score, inputs)
    if probe.layer is not None:
        return [trace.gradients]
    if all(each is None for each in trace.gradients):
        raise ValueError(_no_gradient(probe, inputs))
    return trace.gradients


def _no_gradient(probe: Probe, inputs: Tensors) -> str:
    embeddings = [
        path
        for path, layer in targets.walk(probe.model)
        if isinstance(layer, keras.layers.Embedding)
    ]
    advice = (
        f"Explain at the embedding: `layer={embeddings[0]!r}`."
        if embeddings
        else ("Look for a step without a gradient (rounding, argmax, a cast to integers).")
    )
    kinds = ", ".join(each.dtype.name for each in inputs)
    return (
        "Expected a score with a gradient with respect to the input. Received: none, for inputs "
        f"of type {kinds} to '{probe.model.name}'. {advice}"
    )


def _zeros(probe: Probe, score: Any, inputs: Tensors) -> Tensors:
    """Zeros in the shape of what `gradients_of` returns."""
    if probe.layer is None:
        return [tf.zeros_like(each, tf.float32) for each in inputs]
    return [tf.zeros_like(probe.activations(score, inputs)[0])]


def _without_channels(gradient: tf.Tensor, axis: int, reduction: str) -> tf.Tensor:
    if gradient.shape.rank <= 2:  # Features of a vector have no channels.
        return _REDUCTIONS[reduction](gradient[..., None], -1)
    return _REDUCTIONS[reduction](gradient, axis)
