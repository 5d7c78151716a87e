"""Gradients along a path: integrated and expected gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2 import scores
from kvis2.explainers.baselines import Baselines, LayerPaths, Paths
from kvis2.explainers.saliency import Attribution
from kvis2.passes import Probe, Report, added_up, row_indices, total
from kvis2.traced import Seed
from kvis2.types import LayerReference, Tensors


class PathAttribution(Attribution):
    """Base of the methods that average gradients between baselines and the input.

    A method says with `path` where on the way the gradients are taken.

    Args:
        model: Any built Keras model.
        layer: Attribute to the output of this layer: the path leads from its output for the
            baseline to its output for the input.
        baseline: Where the path starts.
        multiply_by_inputs: Whether the mean gradient is multiplied by `x - baseline`.
        reduce: How the channels become one map; "signed" (sum) keeps the total.
        keepdims: Keep the channels.
        **options: As for `kvis2.Explainer`.
    """

    completeness_gap = Report()

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        baseline: Any = None,
        multiply_by_inputs: bool = True,
        reduce: str = "signed",
        keepdims: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, reduce=reduce, keepdims=keepdims, **options)
        self.baselines = Baselines(self.model, baseline)
        self.multiply_by_inputs = multiply_by_inputs

    def path(self) -> tuple[int, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Points on the paths: their number and, for each, baseline index, place and weight.

        A place is 0 at the baseline and 1 at the input; the weights add up to 1.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what path to take.")

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The reduced attributions, and the completeness gap."""
        score = probe.fixed(score, inputs)
        attributions = self.attributions(probe, score, inputs)
        gap = self._gap(probe, score, inputs, attributions)
        return [*self.reduced(attributions, probe, inputs), gap]

    def attributions(self, probe: Probe, score: Any, inputs: Tensors) -> Sequence[tf.Tensor | None]:
        """The weighted sum of the gradients on the paths, times `x - baseline` if so asked."""
        score = probe.fixed(score, inputs)
        paths = self._paths(probe, score, inputs)
        count, baseline_indices, places, weights = self.path()

        def chunk_total(indices: tf.Tensor) -> list[tf.Tensor | None]:
            chosen, place = tf.gather(baseline_indices, indices), tf.gather(places, indices)
            points, differences = paths.at(chosen, place)
            taken = scores.take(score, row_indices(inputs[0], tf.shape(indices)[0]))
            gradients = paths.gradients(taken, points)
            weight = tf.gather(weights, indices)
            return [
                None if g is None or d is None else self._weighted(g, d, weight)
                for g, d in zip(gradients, differences, strict=True)
            ]

        return paths.placed(total(count, self.rows, inputs[0], chunk_total, self.settings.verbose))

    def _paths(self, probe: Probe, score: Any, inputs: Tensors) -> Paths:
        kind = Paths if probe.layer is None else LayerPaths
        return kind(self.baselines, probe, score, inputs)

    def _weighted(self, gradient: tf.Tensor, difference: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        copies = tf.shape(weight)[0]
        weights = tf.repeat(weight, tf.shape(gradient)[0] // copies)
        product = gradient * tf.reshape(weights, [-1, *[1] * (gradient.shape.rank - 1)])
        return added_up(product * difference if self.multiply_by_inputs else product, copies)

    def _gap(
        self, probe: Probe, score: Any, inputs: Tensors, attributions: Sequence[tf.Tensor | None]
    ) -> tf.Tensor:
        """`|sum of attributions - (F(x) - mean F(baseline))| / |F(x) - mean F(baseline)|`."""
        if not self.multiply_by_inputs:
            return tf.fill([tf.shape(inputs[0])[0]], np.float32(np.nan))
        paths = self._paths(probe, score, inputs)
        count = self.baselines.count

        def chunk_total(indices: tf.Tensor) -> Tensors:
            """The scores of the baselines, subtracted, and of the end of the last path, added."""
            at_end = indices == count
            points, _ = paths.at(tf.minimum(indices, count - 1), tf.cast(at_end, tf.float32))
            copies = tf.shape(indices)[0]
            taken = scores.take(score, row_indices(inputs[0], copies))
            signs = tf.where(at_end, 1.0, -1 / tf.cast(count, tf.float32))
            rows = tf.repeat(signs, tf.shape(inputs[0])[0])
            return [added_up(rows * paths.scores(taken, points), copies)]

        (change,) = total(count + 1, self.rows, inputs[0], chunk_total)
        assert change is not None
        return relative_gap(attributions, change)


class SteppedAttribution(PathAttribution):
    """Base of the methods that ask every step of a path for the change of the score across it.

    What they share out adds up to that change, so that nothing is multiplied by the input.

    Args:
        model: Any built Keras model.
        layer: As the method says.
        baseline: Where the path starts.
        steps: Number of steps on each path, 1 or more.
        **options: As for `PathAttribution`.
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        baseline: Any = None,
        steps: int = 50,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, baseline=baseline, **options)
        self.steps = checked_steps(steps, 1)
        if not self.multiply_by_inputs:
            raise ValueError(
                f"Expected no `multiply_by_inputs` for {type(self).__name__}, which does not "
                "multiply by the input. Received: False. Leave it out."
            )


class IntegratedGradients(PathAttribution):
    r"""Integrated gradients: the gradients on the straight line from a baseline to the input.

    `a = (x - b) * integral over t in 0..1 of d score(b + t (x - b)) / d x`,
    `map = sum over channels of a`; with several baselines b the mean of their a. The attributions
    add up to `score(x) - score(b)`; by how much the sum over steps misses that is reported in
    `completeness_gap` after a call.

    With `layer` the line lies between the layer's outputs for the baseline and for the input, the
    way to explain a text: at its embedding, from a baseline of tokens that say nothing.

    Args:
        model: Any built Keras model.
        layer: Attribute to the output of this layer instead of the input.
        baseline: None for zeros; a number; a list of numbers for the mean over several; "blur" for
            the image itself, blurred (standard deviation 1/20 of its longer side); or arrays in
            the structure of the model's input, whose first axis counts the baselines.
        steps: Number of points on each path.
        method: Where the points lie: "gauss-legendre" (exact for polynomials of degree
            `2 steps - 1`) or "trapezoid" (evenly spaced, both ends included).
        multiply_by_inputs: False leaves out the factor `x - b`: a smoothed gradient.
        reduce: How the channels become one map; "signed" (sum) keeps the total.
        keepdims: Keep the channels.
        **options: As for `kvis2.Explainer`.

    Attributes:
        completeness_gap: After a call, `|sum a - (score(x) - score(b))| / |score(x) - score(b)|`
            of every sample, `(batch,)`; NaN without `multiply_by_inputs`. Below 0.05 is good;
            more steps make it smaller. With `layer`, `score(b)` is that of the input when the
            layer's output is replaced by its output for the baseline.

    References:
        Sundararajan et al. (2017), Axiomatic Attribution for Deep Networks.
        https://arxiv.org/abs/1703.01365

    Example:
        >>> explainer = IntegratedGradients(model, baseline="blur", steps=32)
        >>> maps = explainer(243, images)
        >>> bool((explainer.completeness_gap < 0.05).all())
        True
        >>> by_word = IntegratedGradients(text_model, "embedding", baseline=0)(1, token_ids)
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        steps: int = 50,
        method: str = "gauss-legendre",
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        self.method = method
        self.places, self.weights = _quadrature(method, steps)

    @property
    def steps(self) -> int:
        """Number of points on each path."""
        return len(self.places)

    def path(self) -> tuple[int, tf.Tensor, tf.Tensor, tf.Tensor]:
        """All points of the rule, for one baseline after the other."""
        steps, baselines = self.places.shape[0], self.baselines.count
        places = tf.tile(self.places, [baselines])
        weights = tf.tile(self.weights, [baselines]) / baselines
        indices = tf.repeat(tf.range(baselines), steps)
        return steps * baselines, indices, places, weights


def relative_gap(attributions: Sequence[tf.Tensor | None], change: tf.Tensor) -> tf.Tensor:
    """By how much all attributions of a sample miss the change of its score, relative to it."""
    found = [each for each in attributions if each is not None]
    added = tf.add_n([tf.reduce_sum(x, list(range(1, x.shape.rank))) for x in found])
    return tf.math.divide_no_nan(tf.abs(added - change), tf.abs(change))


def checked_steps(steps: int, least: int) -> int:
    """The number of steps of a path, which must be an int of `least` or more."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < least:
        raise ValueError(
            f"Expected `steps` to be an int of {least} or more. Received: {steps!r}. "
            "Give for example 50."
        )
    return steps


def _quadrature(method: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in 0..1 and weights that add up to 1, float32 `(steps,)` each."""
    checked_steps(steps, 2)
    if method == "gauss-legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return ((points + 1) / 2).astype(np.float32), (weights / 2).astype(np.float32)
    if method == "trapezoid":
        weights = np.full(steps, 1 / (steps - 1), np.float32)
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps, dtype=np.float32), weights
    raise ValueError(
        "Expected `method` to be 'gauss-legendre' or 'trapezoid'. "
        f"Received: {method!r}. The first needs fewer steps."
    )


class ExpectedGradients(PathAttribution):
    r"""Expected gradients: integrated gradients over a distribution of baselines.

    `a = mean over i of (x - b_i) * d score(b_i + t_i (x - b_i)) / d x`, with a baseline `b_i`
    drawn from those given and `t_i ~ Uniform(0, 1)`; `map = sum over channels of a`.

    Args:
        model: Any built Keras model.
        layer: Attribute to the output of this layer instead of the input.
        baseline: The baselines to draw from: arrays in the structure of the model's input, such
            as a hundred training images, or what `IntegratedGradients` takes.
        samples: How many points are drawn; every baseline is drawn equally often, as far as the
            number allows.
        seed: The same seed gives the same bytes on a CPU; None draws another at every call.
        multiply_by_inputs: False leaves out the factor `x - b`.
        reduce: How the channels become one map; "signed" (sum) keeps the total.
        keepdims: Keep the channels.
        **options: As for `kvis2.Explainer`.

    Attributes:
        completeness_gap: After a call, `|sum a - (score(x) - mean score(b))|` relative to
            `|score(x) - mean score(b)|`, of every sample; it falls with the root of `samples`.

    References:
        Erion et al. (2021), Improving Performance of Deep Learning Models with Axiomatic
        Attribution Priors and Expected Gradients. https://arxiv.org/abs/1906.10670

    Example:
        >>> maps = ExpectedGradients(model, baseline=x_train[:100])(243, images)
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        baseline: Any,
        samples: int = 100,
        seed: int | None = 0,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, baseline=baseline, **options)
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise ValueError(
                f"Expected `samples` to be a positive int. Received: {samples!r}. "
                "Give for example 100."
            )
        self.samples = samples
        self.seed = Seed(seed)

    def path(self) -> tuple[int, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Points drawn on the paths, the baselines in turn."""
        seed = tf.stack([self.seed, 0])
        places = tf.random.stateless_uniform([self.samples], seed)
        order = tf.random.experimental.stateless_shuffle(tf.range(self.baselines.count), seed + 1)
        indices = tf.gather(order, tf.range(self.samples) % self.baselines.count)
        return self.samples, indices, places, tf.fill([self.samples], 1.0 / self.samples)
