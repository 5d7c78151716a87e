"""Any explainer over noisy copies of its input: SmoothGrad, SmoothGradSquared, VarGrad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2 import scores
from kvis2.explainers.explainer import Explainer
from kvis2.models import Batch
from kvis2.passes import Probe, added_up, as_rows, normal, repeated, row_indices, total
from kvis2.traced import Seed, Traced
from kvis2.types import Tensors


class Noise(Traced):
    """Noisy copies of a batch, and sums over them.

    Args:
        samples: How many copies of each image.
        deviation: Standard deviation as a fraction of each image's own range (maximum minus
            minimum).
        seed: Seed of the noise. Every image gets the same noise, so that it does not matter what
            it is batched with.

    Raises:
        ValueError: If there is no copy, or the deviation is negative.
    """

    def __init__(self, samples: int, deviation: float | np.ndarray) -> None:
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise ValueError(
                "Expected a positive number of noisy samples. "
                f"Received: {samples!r}. Give for example 50."
            )
        if not np.isfinite(deviation) or deviation < 0:
            raise ValueError(
                "Expected noise as a fraction of each image's range, not negative. "
                f"Received: {deviation!r}. Give for example 0.15."
            )
        self.samples = samples
        self.deviation = np.asarray(deviation, np.float32)

    def sums(
        self,
        function: Callable[[Any, Tensors], Sequence[tf.Tensor | None]],
        score: Any,
        inputs: Tensors,
        seed: Any,
        rows: int,
        verbose: int = 0,
    ) -> list[tf.Tensor | None]:
        """The sums over the copies of what `function(score, noisy inputs)` returns for each row.

        Args:
            function: Returns tensors with one row for each row of the inputs, or None.
            score: The score of the clean samples, made definite by `Probe.fixed`.
            inputs: The flat clean inputs. Integers (tokens) get no noise.
            seed: The seed, an int32 tensor.
            rows: How many rows one forward pass may hold.
            verbose: Whether the progress bar is told.
        """
        if not any(each.dtype.is_floating for each in inputs):
            raise ValueError(
                "Expected an input in floating point, to add noise to. Received: "
                f"{', '.join(each.dtype.name for each in inputs)}. Use the method without noise."
            )

        def chunk_total(indices: tf.Tensor) -> list[tf.Tensor | None]:
            copies = tf.shape(indices)[0]
            noisy = [
                self._copies(each, indices + i * self.samples, seed)
                if each.dtype.is_floating
                else repeated(each, copies)
                for i, each in enumerate(inputs)
            ]
            parts = function(scores.take(score, row_indices(inputs[0], copies)), noisy)
            return [None if each is None else added_up(each, copies) for each in parts]

        return total(self.samples, rows, inputs[0], chunk_total, verbose)

    def _copies(self, inputs: tf.Tensor, indices: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        axes = list(range(1, inputs.shape.rank))
        low = tf.reduce_min(inputs, axes, keepdims=True)
        high = tf.reduce_max(inputs, axes, keepdims=True)
        deviation = self.deviation * (tf.cast(high, tf.float32) - tf.cast(low, tf.float32))
        noise = normal(indices, tf.shape(inputs)[1:], seed)
        copies = tf.cast(inputs[None], tf.float32) + deviation[None] * noise[:, None]
        copies.set_shape([None, *inputs.shape])
        return tf.cast(as_rows(copies), inputs.dtype)


class NoisyExplainer(Explainer):
    """Base of the statistics over noisy inputs: a subclass with `statistic`.

    Args:
        explainer: Any explainer; model, layer, modifiers and options are its own.
        samples: How many noisy copies of each image.
        noise: Standard deviation as a fraction of each image's range (maximum minus minimum).
        seed: The same seed gives the same bytes on a CPU; None draws another at every call.
    """

    def __init__(
        self,
        explainer: Explainer,
        samples: int = 50,
        noise: float = 0.15,
        seed: int | None = 0,
    ) -> None:
        if not isinstance(explainer, Explainer):
            raise TypeError(
                f"Expected an explainer to add noise to, which makes one map per input. Received: "
                f"{explainer!r}. Give for example {type(self).__name__}(Saliency(model))."
            )
        self._look_as(explainer)  # Its modifiers fold batch normalisation, if it does.
        # There is one progress bar, for the outer loop.
        self.explainer = explainer.with_settings(verbose=0)
        self.noise = Noise(samples, noise)
        self.seed = Seed(seed)

    def statistic(
        self, attributions: Callable[[Any, Tensors], Any], score: Any, inputs: Tensors
    ) -> list[tf.Tensor | None]:
        """The statistic of `attributions(score, noisy inputs)` over the noisy copies.

        Args:
            attributions: What the explainer finds, before its channels are reduced.
            score: The definite score.
            inputs: The flat clean inputs.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what to compute.")

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The statistic, made into maps as the explainer makes its own."""
        score = probe.fixed(score, inputs)

        def attributions(score: Any, inputs: Tensors) -> Sequence[tf.Tensor | None]:
            return self.explainer.attributions(probe, score, inputs)

        return self.explainer.reduced(self.statistic(attributions, score, inputs), probe, inputs)

    def means(
        self, function: Callable[[Any, Tensors], Any], score: Any, inputs: Tensors
    ) -> list[tf.Tensor | None]:
        """The means over the noisy copies of what `function` returns."""
        sums = self.noise.sums(function, score, inputs, self.seed, self.rows, self.settings.verbose)
        return [None if each is None else each / self.noise.samples for each in sums]


class SmoothGrad(NoisyExplainer):
    """SmoothGrad: the mean of an explainer's raw maps over noisy inputs.

    `map = reduce(1/n sum_i a(x + noise_i))`, `noise_i ~ Normal(0, noise * range(x))`, with `a` the
    explainer's attributions, signed and before the channels are reduced.

    Args:
        explainer: Any explainer.
        samples: The number n of noisy copies of each image.
        noise: Standard deviation as a fraction of each image's range, 0.1 to 0.2 in the paper.
        seed: The same seed gives the same bytes on a CPU; None draws another at every call.

    References:
        Smilkov et al. (2017), SmoothGrad: removing noise by adding noise.
        https://arxiv.org/abs/1706.03825

    Example:
        >>> maps = SmoothGrad(IntegratedGradients(model), samples=20)(243, images)
    """

    def statistic(
        self, attributions: Callable[[Any, Tensors], Any], score: Any, inputs: Tensors
    ) -> list[tf.Tensor | None]:
        """The mean."""
        return self.means(attributions, score, inputs)


class SmoothGradSquared(NoisyExplainer):
    """SmoothGrad-Squared: the mean of the squares of an explainer's raw maps over noisy inputs.

    `map = reduce(1/n sum_i a(x + noise_i)^2)`. Where attributions of either sign are large; more
    faithful than SmoothGrad in the retraining test of its paper.

    Args:
        explainer: Any explainer.
        samples: The number n of noisy copies of each image.
        noise: Standard deviation as a fraction of each image's range.
        seed: The same seed gives the same bytes on a CPU; None draws another at every call.

    References:
        Hooker et al. (2019), A Benchmark for Interpretability Methods in Deep Neural Networks.
        https://arxiv.org/abs/1806.10758

    Example:
        >>> maps = SmoothGradSquared(Saliency(model))(243, images)
    """

    def statistic(
        self, attributions: Callable[[Any, Tensors], Any], score: Any, inputs: Tensors
    ) -> list[tf.Tensor | None]:
        """The mean of the squares."""

        def squares(score: Any, noisy: Tensors) -> list[tf.Tensor | None]:
            found = attributions(score, noisy)
            return [None if each is None else tf.square(each) for each in found]

        return self.means(squares, score, inputs)


class VarGrad(NoisyExplainer):
    """VarGrad: the variance of an explainer's raw maps over noisy inputs.

    `map = reduce(1/n sum_i (a(x + noise_i) - mean)^2)`. It does not depend on the attribution of
    the clean image, only on how it changes.

    Args:
        explainer: Any explainer.
        samples: The number n of noisy copies of each image.
        noise: Standard deviation as a fraction of each image's range.
        seed: The same seed gives the same bytes on a CPU; None draws another at every call.

    References:
        Adebayo et al. (2018), Local Explanation Methods for Deep Neural Networks Lack Sensitivity
        to Parameter Values. https://arxiv.org/abs/1810.03307

    Example:
        >>> maps = VarGrad(Saliency(model))(243, images)
    """

    def statistic(
        self, attributions: Callable[[Any, Tensors], Any], score: Any, inputs: Tensors
    ) -> list[tf.Tensor | None]:
        """The variance, from differences to the clean attributions, which keeps its digits."""
        clean = attributions(score, inputs)

        def moments(score: Any, noisy: Tensors) -> list[tf.Tensor | None]:
            found = zip(attributions(score, noisy), clean, strict=True)
            shifted = [None if a is None else a - _to_rows(c, a) for a, c in found]
            return shifted + [None if each is None else tf.square(each) for each in shifted]

        means = self.means(moments, score, inputs)
        pairs = zip(means[: len(clean)], means[len(clean) :], strict=True)
        return [
            None if shift is None or square is None else tf.nn.relu(square - tf.square(shift))
            for shift, square in pairs
        ]

    def _blank_cause(self, score: Any, batch: Batch, sample: int) -> str:
        return "what the explainer finds is the same for all noisy copies, as in a linear model"


def _to_rows(clean: tf.Tensor, noisy: tf.Tensor) -> tf.Tensor:
    """The clean attributions of the sample that each noisy row is a copy of."""
    return repeated(clean, tf.shape(noisy)[0] // tf.shape(clean)[0])
