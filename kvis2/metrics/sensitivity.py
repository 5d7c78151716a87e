"""How steady an explainer is: how much its maps change with invisible changes of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvis2.explainers import Explainer
from kvis2.metrics.explained import OfExplainer, joined, raw, raw_maps
from kvis2.metrics.infidelity import perturbations_for
from kvis2.models import Batch


class MaxSensitivity(OfExplainer):
    r"""Max-sensitivity: by how much a map changes at most within a small radius of the image.

    `max over k of |map(x + d_k) - map(x)| / |map(x)|` in the Euclidean norm of the raw maps, for
    the score of the image as it is. Low is good: 0 is a map that does not change, and so is that
    of a method that ignores the image. Where a map is blank, it is 0 if it stays so, else infinite.

    Args:
        explainer: Any explainer; its `normalize` does not count.
        radius: The largest change of a value, as a fraction of the range of each image's values
            (maximum minus minimum): state it with the number, which is comparable for one alone.
        samples: How many changes d_k are tried, uniform within the radius.
        perturbations: The changes themselves instead, float `(n, *input)`, on a coarser grid, or
            `(n, batch, *input)`, for a model with one input.
        seed: Seed of the changes. Every image gets the same draws.

    Returns:
        From a call: float32 `(batch,)`; `details["changes"]` holds all relative changes
        `(batch, n)`.

    References:
        Yeh et al. (2019), On the (In)fidelity and Sensitivity of Explanations.
        https://arxiv.org/abs/1901.09392

    Example:
        >>> result = MaxSensitivity(GradCAM(model), radius=0.02)(None, images)
    """

    def __init__(
        self,
        explainer: Explainer,
        *,
        radius: float = 0.02,
        samples: int = 10,
        perturbations: Any = None,
        seed: int = 0,
    ) -> None:
        super().__init__(explainer)
        if not 0 < radius < np.inf or not (isinstance(samples, int) and samples > 0):
            raise ValueError(
                "Expected a `radius` above 0, as a fraction of the input's range, and a positive "
                f"number of `samples`. Received: {radius!r} and {samples!r}. Give 0.02 and 10."
            )
        self.radius = radius
        self.samples = samples
        given = perturbations is not None
        self.perturbations = np.asarray(perturbations, np.float32) if given else None
        self.seed = seed

    def measured(self, score: Any, batch: Batch, images: Any) -> dict[str, Any]:
        """The largest relative change, and all of them."""
        explainer = raw(self.explainer)
        own = joined(raw_maps(explainer, score, images)).astype(np.float64)
        norms = _norms(own)
        changes = []
        arrays = batch.arrays
        for moves in self._moves(arrays):
            moved = [
                (each + move).astype(each.dtype) for each, move in zip(arrays, moves, strict=True)
            ]
            maps = joined(raw_maps(explainer, score, batch.restored(moved), quiet=True))
            change = _norms(maps - own)
            quotient = np.divide(change, norms, out=np.full_like(change, np.inf), where=norms > 0)
            changes.append(np.where(change == 0, 0, quotient))
        stacked = np.stack(changes, axis=1)
        return {
            "values": stacked.max(axis=1),
            "details": {"changes": stacked.astype(np.float32)},
        }

    def _moves(self, arrays: Sequence[np.ndarray]) -> Any:
        """For each change what is added to every input."""
        if self.perturbations is not None:
            if len(arrays) > 1:
                raise ValueError(
                    "Expected a model with one input for given `perturbations`. Received: "
                    f"{len(arrays)} inputs. Leave them out, to draw some for each input."
                )
            for each in perturbations_for(self.perturbations, arrays[0]):
                yield [each]
            return
        if not any(each.dtype.kind == "f" for each in arrays):
            raise ValueError(
                "Expected an input of floating numbers, to change a little. Received: "
                f"{', '.join(each.dtype.name for each in arrays)}. Tokens have no "
                "neighbourhood."
            )
        for sample in range(self.samples):
            draw = np.random.default_rng([self.seed, sample])
            yield [self._move(each, draw) for each in arrays]

    def _move(self, array: np.ndarray, draw: np.random.Generator) -> NDArray[np.float32] | int:
        if array.dtype.kind != "f":
            return 0
        spread = np.ptp(array, axis=tuple(range(1, array.ndim)), keepdims=True)
        return self.radius * spread * draw.uniform(-1, 1, array.shape[1:]).astype(np.float32)


def _norms(maps: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt((maps.reshape(len(maps), -1) ** 2).sum(axis=1))
