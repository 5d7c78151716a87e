"""Infidelity: how badly a map predicts, to first order, what perturbations cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2.metrics.baselines import baselines
from kvis2.metrics.measure import Copies, Found, Measure, Placed, only
from kvis2.metrics.weighting import enlarged, over_channels, sums_over
from kvis2.models import Batch
from kvis2.passes import LINEAR
from kvis2.types import Tensors


class Subtracted(Copies):
    """The input, and copies `x - weight_k * unit` of it.

    Args:
        measure: Looks at the model.
        weights: float32 `(copies, ...)`, in the shape of the input, or with axes of length one;
            None where each sample has its own, the first of `further`, `(batch, copies, ...)`.
        count: How many copies there are beside the input.
        inputs: How many flat inputs the model has.
        index: Which of them is perturbed. Its units `(batch, ...)` are the last of `further`.
    """

    def __init__(
        self,
        measure: Measure,
        weights: NDArray[np.float32] | None,
        count: int,
        inputs: int,
        index: int,
    ) -> None:
        super().__init__(measure, count + 1, inputs)
        self.weights = weights
        self.index = index

    def changed(
        self, inputs: Tensors, further: Tensors, sample: tf.Tensor, copy: tf.Tensor
    ) -> Tensors:
        """The copies."""
        rows = [tf.gather(each, sample) for each in inputs]
        image, number = rows[self.index], tf.maximum(copy - 1, 0)
        if self.weights is None:
            weight = tf.gather_nd(further[0], tf.stack([sample, number], axis=1))
        else:
            weight = tf.gather(self.weights, number)
        move = weight * tf.gather(further[-1], sample)
        whole = tf.reshape(copy, [-1, *[1] * (image.shape.rank - 1)])
        rows[self.index] = tf.where(whole == 0, image, image - tf.cast(move, image.dtype))
        return rows


class Infidelity(Measure):
    r"""Infidelity: how badly the map predicts, to first order, what perturbations cost.

    `mean over k of (beta * sum I_k A - (f(x) - f(x - I_k)))^2` over the perturbations I_k of all
    values of the input; a map without channels counts for each. `beta = sum s d / sum s^2`
    of the sums s and differences d, if `normalize`; else 1. Low is good.

    A is a gradient: change of the score per unit of the input. Of methods whose maps are shares
    of the score (IntegratedGradients, InputXGradient, LRP), say `multiplies_inputs`: then `I_k A`
    becomes `I_k / (x - baseline) A`. The maps must be signed and at the input
    (`reduce="signed"`, or `keepdims=True` for every value by itself); for others it says little.

    Args:
        model: Any built Keras model.
        perturbations: "square" hides each square of a grid in turn: `I = x - baseline` there.
            "noise" is normal noise, constant in the cells of the grid. Or arrays of float
            `(n, *input)`, or `(n, batch, *input)` for those of each image.
        samples: How many perturbations "noise" draws.
        grid: How many cells each side has.
        noise: Standard deviation of "noise", as a fraction of the range of each image's values.
        baseline: What "square" hides with, as for `Deletion`.
        normalize: Whether the scale of each map is fitted, by beta. Raw maps of gradients need
            not; maps that were scaled to 1 must.
        multiplies_inputs: Whether the maps are shares of the score, instead of gradients.
        model_modifier: `LinearOutput()`: the score before the softmax; None for probabilities.
        **options: `batch_size`, `random_control`, `seed`, `fold_batch_norm`, `jit_compile` and
            `verbose`, as for `Measure`. Random maps cost no further pass.

    Returns:
        From a call: float32 `(batch,)`, in squared units of the score;
        `details["differences"]` holds `f(x) - f(x - I_k)`, `(batch, n)`.

    Raises:
        ValueError: If an argument is none of these, or does not fit the input.

    References:
        Yeh et al. (2019), On the (In)fidelity and Sensitivity of Explanations.
        https://arxiv.org/abs/1901.09392

    Example:
        >>> maps = Saliency(model, reduce="signed", normalize=False)(243, images)
        >>> result = Infidelity(model)(243, images, maps)
    """

    better = "lower"
    takes_channels = True

    def __init__(
        self,
        model: Any,
        *,
        perturbations: str | Any = "square",
        samples: int = 50,
        grid: int = 7,
        noise: float = 0.1,
        baseline: Any = "mean",
        normalize: bool = True,
        multiplies_inputs: bool = False,
        model_modifier: Any = LINEAR,
        **options: Any,
    ) -> None:
        super().__init__(model, model_modifier=model_modifier, **options)
        named = isinstance(perturbations, str)
        if named and perturbations not in ("square", "noise"):
            raise ValueError(
                "Expected `perturbations` to be 'square', 'noise', or an array (n, *input). "
                f"Received: {perturbations!r}. Give for example 'square'."
            )
        self.perturbations = perturbations if named else np.asarray(perturbations, np.float32)
        self.samples = samples
        self.grid = grid
        self.noise = noise
        self.baseline = baseline
        self.normalize = normalize
        self.multiplies_inputs = multiplies_inputs

    def measured(self, score: Any, batch: Batch, maps: Sequence[Placed]) -> list[Found]:
        """The mean squared error, for each map with the same differences of the score."""
        place = only(maps)
        array = batch.arrays[place.input_index]
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(
                "Expected an input of floating numbers, to subtract perturbations from. Received: "
                f"{array.dtype.name}. Use MuFidelity."
            )
        span = array - baselines(self.model, self.baseline, batch)[place.input_index]
        weights, units = self._weights(array, place.axes, span)
        shared = weights.ndim == array.ndim
        further = [units] if shared else [np.swapaxes(weights, 0, 1), units]
        copies = Subtracted(
            self, weights if shared else None, len(weights), len(batch.shapes), place.input_index
        )
        scored = self.scored(copies, score, batch, further).astype(np.float64)
        differences = scored[:, :1] - scored[:, 1:]
        per_unit = units
        if self.multiplies_inputs:
            per_unit = np.divide(units, span, out=np.zeros_like(span), where=span != 0)
        details = {"differences": differences.astype(np.float32)}
        found = []
        for each in place.maps:
            own = over_channels(each, array, place.axes)
            if self.multiplies_inputs:  # The channels of a position share its part of the score.
                own = own / (np.prod(array.shape[1:]) / np.prod(own.shape[1:]))
            weighted = per_unit.astype(np.float64) * own
            sums = sums_over(weights, shared, weighted)
            found.append(Found(self._errors(sums, differences), details={**details, "sums": sums}))
        return found

    def _weights(
        self, array: np.ndarray, axes: Sequence[int], span: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The perturbations as weights `(n, ...)` of units `(batch, ...)` of each image."""
        ones = np.ones_like(span)
        if not isinstance(self.perturbations, str):
            return perturbations_for(self.perturbations, array), ones
        cells = [self.grid if axis in axes else array.shape[axis] for axis in range(1, array.ndim)]
        if self.perturbations == "noise":
            drawn = np.random.default_rng(self.seed).normal(0.0, self.noise, (self.samples, *cells))
            extent = tuple(range(1, array.ndim))
            spread = np.ptp(array, axis=extent, keepdims=True)
            return enlarged(drawn.astype(np.float32), array.shape[1:]), spread * ones
        squares = np.eye(self.grid ** len(axes), dtype=np.float32)
        shape = [self.grid if axis in axes else 1 for axis in range(1, array.ndim)]
        size = [array.shape[axis] if axis in axes else 1 for axis in range(1, array.ndim)]
        return enlarged(squares.reshape(-1, *shape), size), span

    def _errors(
        self, sums: NDArray[np.float64], differences: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        if self.normalize:
            squares = (sums * sums).sum(axis=1, keepdims=True)
            products = (sums * differences).sum(axis=1, keepdims=True)
            sums = sums * np.divide(
                products, squares, out=np.zeros_like(squares), where=squares > 0
            )
        return ((sums - differences) ** 2).mean(axis=1)


def perturbations_for(given: NDArray[np.float32], array: np.ndarray) -> NDArray[np.float32]:
    """Given perturbations in the size of an input: `(n, *input)` or `(n, batch, *input)`.

    Those on a coarser grid are enlarged, each value spread over the positions of its cell.
    """
    if given.shape[1:] == array.shape:
        return given
    size = array.shape[1:]
    fits = given.ndim == array.ndim and given.size > 0
    if not (fits and (np.array(given.shape[1:]) <= size).all()):
        raise ValueError(
            f"Expected perturbations of shape (n, {', '.join(map(str, size))}), on a coarser grid, "
            f"or with the batch after n. Received: shape {given.shape}. Give them in the size of "
            "the input."
        )
    return enlarged(given, size)
