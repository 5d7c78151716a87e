"""FEM: where the channels of a layer are far above their own mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from kvis2.explainers.cam import ClassActivationMap
from kvis2.models import Batch
from kvis2.passes import Trace
from kvis2.types import LayerReference


class FEM(ClassActivationMap):
    r"""Feature explanation method: where channels respond far more than they do elsewhere.

    `map = sum_k mu_k [A_k > mu_k + deviations * sigma_k]`, `mu_k` and `sigma_k` the mean and
    standard deviation over space of channel k. It does not depend on the score: what the layer
    finds rare in the image, whatever the class. Channels whose mean is negative count below zero.

    Args:
        model: Any built Keras model.
        layer: The layer that is looked at; by default the last spatial one.
        deviations: How many standard deviations above the mean is far; the paper takes 2. No value
            is further from the mean of n than `sqrt(n - 1)` deviations: a map of 2 x 2 positions
            has none above 2.
        **options: As for `kvis2.Explainer`.

    References:
        Fuad et al. (2020), Features Understanding in 3D CNNs for Actions Recognition in Video.
        https://doi.org/10.1109/IPTA50016.2020.9286629

    Example:
        >>> heatmaps = FEM(model)(None, images)
    """

    signed = True

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        deviations: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        if not deviations >= 0:
            raise ValueError(
                f"Expected `deviations` of 0 or more. Received: {deviations!r}. The paper takes 2."
            )
        self.deviations = np.asarray(deviations, np.float32)

    def _blank_cause(self, score: Any, batch: Batch, sample: int) -> str:
        return (
            "no position is so far above the mean of its channel; take fewer `deviations`, or a "
            "layer of more positions"
        )

    def combine(self, trace: Trace) -> tf.Tensor:
        """The channels' means, where they are far above them."""
        space = list(range(1, trace.activations.shape.rank - 1))
        mean, variance = tf.nn.moments(trace.activations, space, keepdims=True)
        far = trace.activations > mean + self.deviations * tf.sqrt(variance)
        return tf.reduce_sum(mean * tf.cast(far, tf.float32), axis=-1)
