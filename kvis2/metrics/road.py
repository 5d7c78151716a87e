"""ROAD: removed positions are imputed from their neighbours, so that holes say little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2.metrics.imputation import imputed
from kvis2.metrics.measure import Copies, Found, Measure, Placed, only
from kvis2.metrics.ranking import checked_fractions, counts, ranks
from kvis2.models import Batch
from kvis2.passes import normal
from kvis2.types import Tensors


class Imputed(Copies):
    """Copies whose first positions of a ranking are imputed.

    Args:
        measure: Looks at the model.
        plan: For every copy its ranking, how many positions are removed, and which draw of the
            noise it gets: int32 `(copies, 3)`.
        inputs: How many flat inputs the model has.
        index: Which of them is an image with a map.
        channels_first: Whether its channels come before its positions.
        noise: Standard deviation of the noise, as a fraction of each image's range.
        seed: The seed of the noise.
    """

    def __init__(
        self,
        measure: Measure,
        plan: NDArray[np.int32],
        inputs: int,
        index: int,
        channels_first: bool,
        noise: float,
        seed: int,
    ) -> None:
        super().__init__(measure, len(plan), inputs)
        self.plan = plan
        self.index = index
        self.channels_first = channels_first
        self.noise = np.asarray(noise, np.float32)
        self.seed = np.asarray(seed, np.int32)

    def changed(
        self, inputs: Tensors, further: Tensors, sample: tf.Tensor, copy: tf.Tensor
    ) -> Tensors:
        """The copies; `further` holds the ranks of the image."""
        plan = tf.gather(self.plan, copy)
        rows = [tf.gather(each, sample) for each in inputs]
        places = tf.gather_nd(further[0], tf.stack([sample, plan[:, 0]], axis=1))
        missing = places < plan[:, 1, None, None]
        images = rows[self.index]
        if self.channels_first:
            images = tf.transpose(images, [0, 2, 3, 1])
        filled = imputed(tf.cast(images, tf.float32), missing)
        spread = tf.reduce_max(images, [1, 2, 3], keepdims=True)
        spread -= tf.reduce_min(images, [1, 2, 3], keepdims=True)
        drawn = normal(plan[:, 2], tf.shape(images)[1:], self.seed)
        noisy = filled + self.noise * tf.cast(spread, tf.float32) * drawn
        changed = tf.where(missing[..., None], noisy, filled)
        if self.channels_first:
            changed = tf.transpose(changed, [0, 3, 1, 2])
        rows[self.index] = tf.cast(changed, inputs[self.index].dtype)
        return rows


class Road(Measure):
    r"""ROAD: what the score loses with the highest positions, against what with the lowest.

    `road = mean over q of (L_q - M_q) / 2`, M_q the score without the `floor(q n)` highest of n
    positions (most relevant first), L_q without the `floor(q n)` lowest (least relevant first).
    What is removed becomes the weighted mean of its eight neighbours (1/6 straight, 1/12
    diagonally), solved for all removed positions at once, with a little noise. High is good, 0 is
    what a map that knows nothing reaches.

    Positions are removed by exact count, those that tie in a seeded order: with a threshold at a
    percentile, a map with 60 % zeros would lose all of its image at once. Smooth maps leave
    large holes, which are filled less well than the small ones of scattered maps.

    Args:
        model: A built Keras model of images `(height, width, channels)`.
        fractions: Which fractions of the positions are removed, ascending, between 0 and 1.
        noise: Standard deviation of the noise on what was imputed, as a fraction of the range of
            each image's values. Every image gets the same draws.
        **options: `model_modifier` (None: probabilities), `batch_size`, `random_control`,
            `seed`, `fold_batch_norm`, `jit_compile` and `verbose`, as for `Measure`.

    Returns:
        From a call: float32 `(batch,)`; `curve` is `(L_q - M_q) / 2`, `details["morf"]` is M and
        `details["lerf"]` L, `(batch, fractions)` each.

    Raises:
        ValueError: If the fractions are none, or the input with the map is no image.

    References:
        Rong et al. (2022), A Consistent and Efficient Evaluation Strategy for Attribution
        Methods. https://arxiv.org/abs/2202.00449

    Example:
        >>> result = Road(model, fractions=(0.2, 0.4, 0.6, 0.8))(None, images, maps)
    """

    def __init__(
        self,
        model: Any,
        *,
        fractions: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        noise: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        self.fractions = checked_fractions(fractions)
        if not 0 <= noise < np.inf:
            raise ValueError(
                "Expected `noise` as a fraction of each image's range, from 0. "
                f"Received: {noise!r}. The paper's is 0.01."
            )
        self.noise = noise

    def measured(self, score: Any, batch: Batch, maps: Sequence[Placed]) -> list[Found]:
        """Half of what lies between the two curves of each map."""
        image = self._image(batch, maps)
        places = [
            ranks(one, self.seed, lowest_first=lowest)
            for one in image.maps
            for lowest in (False, True)
        ]
        removed = counts(self.fractions, int(np.prod(image.maps.shape[2:])))
        # All rankings get the same noise, which so hardly enters their differences.
        plan = [(r, each, draw) for r in range(len(places)) for draw, each in enumerate(removed)]
        copies = Imputed(
            self,
            np.asarray(plan, np.int32),
            len(batch.shapes),
            image.input_index,
            image.axes == [2, 3],
            self.noise,
            self.seed,
        )
        found = self.scored(copies, score, batch, [np.stack(places, axis=1)])
        curves = found.reshape(batch.size, -1, 2, len(removed)).astype(np.float64)
        return [self._half(*curves[:, number].swapaxes(0, 1)) for number in range(len(image.maps))]

    def _half(self, most: NDArray[np.float64], least: NDArray[np.float64]) -> Found:
        half = (least - most) / 2
        details = {"morf": most.astype(np.float32), "lerf": least.astype(np.float32)}
        return Found(half.mean(axis=1), half, self.fractions, details)

    def _image(self, batch: Batch, maps: Sequence[Placed]) -> Placed:
        image = only(maps)
        array = batch.arrays[image.input_index]
        if array.ndim != 4 or len(image.axes) != 2:
            raise ValueError(
                "Expected images of shape (batch, height, width, channels): ROAD imputes a pixel "
                f"from its eight neighbours. Received: shape {array.shape}. Use Deletion and "
                "Insertion for signals, volumes and tokens."
            )
        return image
