"""Mu-fidelity: does the map's sum over a set of positions predict what their loss costs?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvis2.localization import mean_ranks
from kvis2.metrics.masking import blended_scores
from kvis2.metrics.measure import Found, Measure, Placed, only
from kvis2.metrics.weighting import enlarged, is_shared, over_channels, sums_over
from kvis2.models import Batch
from kvis2.passes import LINEAR


class MuFidelity(Measure):
    r"""Mu-fidelity: whether the map's sum over a set of positions predicts what their loss costs.

    `corr over S of (sum of the map over S, f(x) - f(x with S at the baseline))` over random sets S
    of cells of a grid. High is good, at most 1. A map whose sums are all the same, such as a
    blank one, scores 0; where the score does not move under any set the result is NaN, with a
    warning.

    Args:
        model: Any built Keras model.
        subsets: How many sets are drawn; or the sets themselves, the same for all images: bool
            `(n, *spatial)` or on a coarser grid, True where S is, or with the channels at the
            end; bool `(n, batch, *spatial)` for sets of each image; ints `(n, k)`, the flat
            indices of k positions.
        grid: How many cells each side has.
        fraction: Which fraction of the cells each set has; rounded to a whole number.
        baseline: What hidden positions look like, as for `Deletion`.
        correlation: "spearman" or "pearson".
        model_modifier: `LinearOutput()`: differences of the score before the softmax, of which
            maps are shares. None for probabilities.
        **options: `batch_size`, `random_control`, `seed`, `fold_batch_norm`, `jit_compile` and
            `verbose`, as for `Measure`. Random maps cost no further pass.

    Returns:
        From a call: float32 `(batch,)`; `details["differences"]` holds what each set costs.

    Raises:
        ValueError: If an argument is none of these.

    References:
        Bhatt et al. (2020), Evaluating and Aggregating Feature-based Model Explanations.
        https://arxiv.org/abs/2005.00631

    Example:
        >>> result = MuFidelity(model, subsets=100)(243, images, maps)
    """

    takes_channels = True

    def __init__(
        self,
        model: Any,
        *,
        subsets: int | Any = 200,
        grid: int = 9,
        fraction: float = 0.2,
        baseline: Any = "mean",
        correlation: str = "spearman",
        model_modifier: Any = LINEAR,
        **options: Any,
    ) -> None:
        super().__init__(model, model_modifier=model_modifier, **options)
        if correlation not in ("spearman", "pearson"):
            raise ValueError(
                "Expected `correlation` to be 'spearman' or 'pearson'. "
                f"Received: {correlation!r}. Ranks bear outliers better."
            )
        if not 0 < fraction < 1 or not (isinstance(grid, int) and grid > 0):
            raise ValueError(
                "Expected `fraction` between 0 and 1 and a positive `grid`. "
                f"Received: {fraction!r} and {grid!r}. Give for example 0.2 and 9."
            )
        self.subsets = subsets if isinstance(subsets, int) else np.asarray(subsets)
        self.grid = grid
        self.fraction = fraction
        self.baseline = baseline
        self.correlation = correlation

    def measured(self, score: Any, batch: Batch, maps: Sequence[Placed]) -> list[Found]:
        """The correlation, for each map with the same differences of the score."""
        place = only(maps)
        array = batch.arrays[place.input_index]
        subsets = self._subsets(tuple(array.shape[axis] for axis in place.axes))
        shared = is_shared(subsets, array, place.axes)
        own, without = blended_scores(self, score, batch, place, ~subsets, self.baseline, shared)
        differences = own[:, None] - without
        if (np.ptp(differences, axis=1) == 0).any():
            still = np.flatnonzero(np.ptp(differences, axis=1) == 0).tolist()
            warnings.warn(
                f"The score of sample {still} is the same without any of the sets: its fidelity "
                "is NaN. Take larger sets, or another `baseline`.",
                stacklevel=4,
            )
        weights = over_channels(subsets, array, place.axes)
        sums = [sums_over(weights, shared, over_channels(m, array, place.axes)) for m in place.maps]
        details = {"differences": differences.astype(np.float32)}
        return [
            Found(self._correlations(each, differences), details={**details, "sums": each})
            for each in sums
        ]

    def _correlations(
        self, sums: NDArray[np.float64], differences: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        found = []
        for a, b in zip(sums, differences, strict=True):
            if np.ptp(b) == 0 or np.ptp(a) == 0:
                found.append(np.nan if np.ptp(b) == 0 else 0.0)
                continue
            if self.correlation == "spearman":
                a, b = mean_ranks(a), mean_ranks(b)
            found.append(np.corrcoef(a, b)[0, 1])
        return np.array(found)

    def _subsets(self, size: tuple[int, ...]) -> NDArray[np.bool_]:
        """The sets as bool masks `(n, *size)`, or as they were given."""
        if isinstance(self.subsets, int):
            draw = np.random.default_rng(self.seed)
            cells = self.grid ** len(size)
            chosen = max(1, round(self.fraction * cells))
            drawn = np.zeros((self.subsets, cells), bool)
            for each in drawn:
                each[draw.permutation(cells)[:chosen]] = True
            return enlarged(drawn.reshape(-1, *[self.grid] * len(size)), size)
        if self.subsets.dtype.kind in "iu" and self.subsets.ndim == 2:
            marked = np.zeros((len(self.subsets), int(np.prod(size))), bool)
            np.put_along_axis(marked, self.subsets.astype(np.int64), True, axis=1)
            return marked.reshape(-1, *size)
        if self.subsets.dtype != bool:
            raise ValueError(
                "Expected `subsets` to be a number, bool masks, or ints (n, k) of flat positions. "
                f"Received: {self.subsets.dtype} of shape {self.subsets.shape}."
            )
        coarse = self.subsets.ndim == len(size) + 1 and self.subsets.shape[1:] != size
        return enlarged(self.subsets, size) if coarse else self.subsets
