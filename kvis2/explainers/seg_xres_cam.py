"""Seg-XRes-CAM: a map of a segmentation's region, local by its gradients' blocks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from kvis2.explainers.cam import ClassActivationMap
from kvis2.passes import Trace
from kvis2.types import LayerReference


class SegXResCAM(ClassActivationMap):
    r"""Seg-XRes-CAM: every position weighted by the gradients of the block that it lies in.

    `map = max(0, sum_k P(G_k) A_k)`, `P(G)` = the largest (or mean) gradient of each block of
    `pool_size` positions per axis, for all positions of the block. Between HiResCAM (blocks of 1)
    and Grad-CAM (one block, "mean"): of a segmentation's region it shows where the evidence lies,
    and not all places that look alike. Blocks at the end of an axis may be smaller.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        pool_size: Positions per axis in a block, 1 or more. The authors leave it to the user.
        pooling: "max", as the authors' code does, or "mean".
        **options: As for `kvis2.Explainer`.

    Raises:
        ValueError: If the layer is the segmentation itself.

    References:
        Hasany et al. (2023), Seg-XRes-CAM: Explaining Spatially Local Regions in Image
        Segmentation.
        https://doi.org/10.1109/CVPRW59228.2023.00395

    Example:
        >>> region = SegmentationScore(2, "object")
        >>> heatmaps = SegXResCAM(unet, "bottleneck", pool_size=4)(region, images)
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        pool_size: int = 2,
        pooling: str = "max",
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        if isinstance(pool_size, bool) or not isinstance(pool_size, int) or pool_size < 1:
            raise ValueError(
                f"Expected `pool_size` to be an int of 1 or more. Received: {pool_size!r}. "
                "Give for example 2."
            )
        if pooling not in ("max", "mean"):
            raise ValueError(
                f"Expected `pooling` to be 'max' or 'mean'. Received: {pooling!r}. "
                "The authors' code takes the maximum."
            )
        self.pool_size = pool_size
        self.pooling = pooling

    def weights(self, trace: Trace) -> tf.Tensor:
        """The pooled gradients, in the shape of the activations."""
        pooled = trace.gradients
        for axis in range(1, trace.gradients.shape.rank - 1):
            pooled = _by_block(pooled, axis, self.pool_size, self.pooling)
        return tf.ensure_shape(pooled, trace.gradients.shape)


def _by_block(values: tf.Tensor, axis: int, size: int, pooling: str) -> tf.Tensor:
    """Every value replaced by the maximum or mean of its block along one axis."""
    shape = tf.shape(values)
    count = shape[axis]
    missing = -count % size
    padding = [[0, missing if i == axis else 0] for i in range(values.shape.rank)]
    blocks = tf.concat([shape[:axis], [-1, size], shape[axis + 1 :]], axis=0)
    if pooling == "max":
        padded = tf.pad(values, padding, constant_values=values.dtype.min)
        pooled = tf.reduce_max(tf.reshape(padded, blocks), axis + 1)
    else:
        sums = tf.reduce_sum(tf.reshape(tf.pad(values, padding), blocks), axis + 1)
        starts = tf.range(0, count, size)
        held = tf.cast(tf.minimum(size, count - starts), values.dtype)
        pooled = sums / tf.reshape(held, [-1, *[1] * (values.shape.rank - axis - 1)])
    return tf.gather(pooled, tf.range(count) // size, axis=axis)
