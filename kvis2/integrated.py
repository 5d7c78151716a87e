"""Gradients along a path: integrated and expected gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2 import scores, targets
from kvis2.inputs import Batch
from kvis2.probe import Probe
from kvis2.resampling import blur
from kvis2.saliency import Attribution, gradients_of
from kvis2.sampling import added_up, as_rows, repeated, row_indices, total
from kvis2.types import Tensors


class Baselines:
    """What attributions start from: for every image one or several inputs without evidence.

    Args:
        model: The model that the baselines are inputs of.
        given: None for zeros; a number; a list of numbers for several; "blur" for a blurred copy
            of the image itself; or arrays in the structure of the model's input, whose first axis
            counts the baselines.

    Raises:
        ValueError: If it is none of these.
    """

    traced_by_value = True

    def __init__(self, model: Any, given: Any) -> None:
        self.blurs = isinstance(given, str) and given == "blur"
        if isinstance(given, str) and not self.blurs:
            raise ValueError(
                "Expected a baseline: None, a number, several numbers, an array of inputs, or "
                f"'blur'. Received: {given!r}. Give for example None for zeros."
            )
        numbers = np.ndim(given) == 0 or _all_numbers(given)
        levels = 0.0 if given is None or self.blurs else given
        self.levels = np.atleast_1d(np.asarray(levels, np.float32)) if numbers else None
        self.arrays = None if numbers else Batch(model, given).arrays
        self.count = len(self.levels if self.levels is not None else self.arrays[0])  # type: ignore[index,arg-type]

    def of(self, index: int, inputs: tf.Tensor, probe: Probe) -> tf.Tensor:
        """All baselines of one flat input, float32 `(count or 1, batch or 1, ...)`."""
        values = tf.cast(inputs, tf.float32)
        if self.blurs:
            axes = targets.spatial_axes(probe.model, inputs.shape, inputs.dtype)
            longest = tf.reduce_max(tf.gather(tf.shape(inputs), list(axes)))
            return blur(values, tf.cast(longest, tf.float32) / 20.0, axes)[None]
        if self.arrays is not None:
            return tf.cast(self.arrays[index], tf.float32)[:, None]
        assert self.levels is not None
        return tf.reshape(self.levels, [-1, *[1] * inputs.shape.rank])


def _all_numbers(given: Any) -> bool:
    return isinstance(given, list | tuple) and all(np.ndim(each) == 0 for each in given)


class PathAttribution(Attribution):
    """Base of the methods that average gradients between baselines and the input.

    Args:
        model: Any built Keras model.
        baseline: Where the path starts.
        multiply_by_inputs: Whether the mean gradient is multiplied by `x - baseline`.
        reduce: How the channels become one map; "signed" (sum) keeps the total.
        keepdims: Keep the channels.
        **options: As for `kvis2.explainer.Explainer`.
    """

    reports = ("completeness_gap",)
    completeness_gap: np.ndarray

    takes_layer = False

    def __init__(
        self,
        model: Any,
        *,
        baseline: Any = None,
        multiply_by_inputs: bool = True,
        reduce: str = "signed",
        keepdims: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, reduce=reduce, keepdims=keepdims, **options)
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
        count, baseline_indices, places, weights = self.path()
        starts = self._starts(inputs, probe)

        def chunk_total(indices: tf.Tensor) -> list[tf.Tensor | None]:
            chosen, place = tf.gather(baseline_indices, indices), tf.gather(places, indices)
            points, differences = _on_paths(inputs, starts, chosen, place)
            taken = scores.take(score, row_indices(inputs[0], tf.shape(indices)[0]))
            gradients = gradients_of(probe, taken, points)
            weight = tf.gather(weights, indices)
            return [
                None if g is None or d is None else self._weighted(g, d, weight)
                for g, d in zip(gradients, differences, strict=True)
            ]

        return total(count, self.rows, inputs[0], chunk_total, self.verbose)

    def _starts(self, inputs: Tensors, probe: Probe) -> list[tf.Tensor | None]:
        """The baselines of every input that has a path, which integers do not."""
        return [
            self.baselines.of(i, each, probe) if each.dtype.is_floating else None
            for i, each in enumerate(inputs)
        ]

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
        starts = self._starts(inputs, probe)

        def chunk_total(indices: tf.Tensor) -> Tensors:
            rows, _ = _on_paths(inputs, starts, indices, tf.zeros_like(indices, tf.float32))
            copies = tf.shape(indices)[0]
            taken = scores.take(score, row_indices(inputs[0], copies))
            return [added_up(probe.scores(taken, rows), copies)]

        (sums,) = total(self.baselines.count, self.rows, inputs[0], chunk_total)
        assert sums is not None
        change = probe.scores(score, inputs) - sums / self.baselines.count
        found = [each for each in attributions if each is not None]
        added = tf.add_n([tf.reduce_sum(x, list(range(1, x.shape.rank))) for x in found])
        return tf.math.divide_no_nan(tf.abs(added - change), tf.abs(change))


def _on_paths(
    inputs: Tensors,
    starts: Sequence[tf.Tensor | None],
    baseline_indices: tf.Tensor,
    places: tf.Tensor,
) -> tuple[Tensors, list[tf.Tensor | None]]:
    """Copies of the inputs at `places` between baseline (0) and input (1), and `x - baseline`.

    Args:
        inputs: The flat inputs.
        starts: Their baselines, `(count, batch or 1, ...)`; None for inputs that stay as they are.
        baseline_indices: Which baseline each copy starts from, `(copies,)`.
        places: Where on its path each copy is, `(copies,)`.

    Returns:
        Rows `(copies * batch, ...)` of the inputs and of the differences.
    """
    points: Tensors = []
    differences: list[tf.Tensor | None] = []
    copies = tf.shape(places)[0]
    for each, start in zip(inputs, starts, strict=True):
        if start is None:
            points.append(repeated(each, copies))
            differences.append(None)
            continue
        values = tf.cast(each, tf.float32)
        # A baseline of one number has to be broadcast to the whole input.
        chosen = tf.gather(start, baseline_indices) + tf.zeros_like(values)[None]
        difference = values[None] - chosen
        place = tf.reshape(places, [-1, *[1] * each.shape.rank])
        point = tf.ensure_shape(chosen + place * difference, [None, *each.shape])
        points.append(tf.cast(as_rows(point), each.dtype))
        differences.append(as_rows(difference))
    return points, differences


class IntegratedGradients(PathAttribution):
    r"""Integrated gradients: the gradients on the straight line from a baseline to the input.

    `a = (x - b) * integral over t in 0..1 of d score(b + t (x - b)) / d x`,
    `map = sum over channels of a`; with several baselines b the mean of their a. The attributions
    add up to `score(x) - score(b)`; by how much the sum over steps misses that is reported in
    `completeness_gap` after a call.

    Args:
        model: Any built Keras model.
        baseline: None for zeros; a number; a list of numbers for the mean over several; "blur" for
            the image itself, blurred (standard deviation 1/20 of its longer side); or arrays in
            the structure of the model's input, whose first axis counts the baselines.
        steps: Number of points on each path.
        method: Where the points lie: "gauss-legendre" (exact for polynomials of degree
            `2 steps - 1`) or "trapezoid" (evenly spaced, both ends included).
        multiply_by_inputs: False leaves out the factor `x - b`: a smoothed gradient.
        reduce: How the channels become one map; "signed" (sum) keeps the total.
        keepdims: Keep the channels.
        **options: As for `kvis2.explainer.Explainer`.

    Attributes:
        completeness_gap: After a call, `|sum a - (score(x) - score(b))| / |score(x) - score(b)|`
            of every sample, `(batch,)`; NaN without `multiply_by_inputs`. Below 0.05 is good;
            more steps make it smaller.

    References:
        Sundararajan et al. (2017), Axiomatic Attribution for Deep Networks.
        https://arxiv.org/abs/1703.01365

    Example:
        >>> explainer = IntegratedGradients(model, baseline="blur", steps=32)
        >>> maps = explainer(243, images)
        >>> bool((explainer.completeness_gap < 0.05).all())
        True
    """

    def __init__(
        self,
        model: Any,
        *,
        baseline: Any = None,
        steps: int = 50,
        method: str = "gauss-legendre",
        multiply_by_inputs: bool = True,
        reduce: str = "signed",
        keepdims: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            model,
            baseline=baseline,
            multiply_by_inputs=multiply_by_inputs,
            reduce=reduce,
            keepdims=keepdims,
            **options,
        )
        self.places, self.weights = _quadrature(method, steps)

    def path(self) -> tuple[int, tf.Tensor, tf.Tensor, tf.Tensor]:
        """All points of the rule, for one baseline after the other."""
        steps, baselines = self.places.shape[0], self.baselines.count
        places = tf.tile(self.places, [baselines])
        weights = tf.tile(self.weights, [baselines]) / baselines
        indices = tf.repeat(tf.range(baselines), steps)
        return steps * baselines, indices, places, weights


def _quadrature(method: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in 0..1 and weights that add up to 1, float32 `(steps,)` each."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise ValueError(
            f"Expected `steps` to be an int of 2 or more. Received: {steps!r}. Give for example 50."
        )
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
        baseline: The baselines to draw from: arrays in the structure of the model's input, such
            as a hundred training images, or what `IntegratedGradients` takes.
        samples: How many points are drawn; every baseline is drawn equally often, as far as the
            number allows.
        seed: The same seed gives the same bytes on a CPU; None draws another at every call.
        multiply_by_inputs: False leaves out the factor `x - b`.
        reduce: How the channels become one map; "signed" (sum) keeps the total.
        keepdims: Keep the channels.
        **options: As for `kvis2.explainer.Explainer`.

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
        *,
        baseline: Any,
        samples: int = 100,
        seed: int | None = 0,
        multiply_by_inputs: bool = True,
        reduce: str = "signed",
        keepdims: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            model,
            baseline=baseline,
            multiply_by_inputs=multiply_by_inputs,
            reduce=reduce,
            keepdims=keepdims,
            **options,
        )
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise ValueError(
                f"Expected `samples` to be a positive int. Received: {samples!r}. "
                "Give for example 100."
            )
        self.samples = samples
        self.seed = seed

    def path(self) -> tuple[int, tf.Tensor, tf.Tensor, tf.Tensor]:
        """Points drawn on the paths, the baselines in turn."""
        seed = tf.stack([self.seed, 0])
        places = tf.random.stateless_uniform([self.samples], seed)
        order = tf.random.experimental.stateless_shuffle(tf.range(self.baselines.count), seed + 1)
        indices = tf.gather(order, tf.range(self.samples) % self.baselines.count)
        return self.samples, indices, places, tf.fill([self.samples], 1.0 / self.samples)
