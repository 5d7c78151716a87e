"""The score of a segmentation: one class in one region, given or predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2.scores.outputs import LOGITS, ClassScore, Shows, check_classes, integers, unit_of

_REGIONS = ("object", "all", "single")


class SegmentationScore(ClassScore):
    """One class of a segmentation map in one region: its mean over the pixels of a mask.

    `score_n = sum_p mask[n, p] * output[n, p, class_n] / sum_p mask[n, p]`

    A segmentation of one channel that ends in a sigmoid, or is compiled with a binary
    cross-entropy, has two classes: 1 is the object, 0 the background.

    Args:
        class_index: The class: an int for all samples, or a list with one per sample.
        mask: The region. "object": where the model predicts the class, for each sample (the
            largest output of all classes; above 1/2 where classes do not exclude each other).
            "single": the one pixel with the largest output of the class. "all" or None: all pixels.
            Or bool, or weights from 0 up, `(batch, *spatial)` in the size of the output, first axis
            1 for the same region in all samples.

    Raises:
        ValueError: If the mask of a sample selects nothing, a class is predicted nowhere in it, or
            the mask does not fit the output.

    References:
        Vinogradova et al. (2020), Towards Interpretable Semantic Segmentation via
        Gradient-weighted Class Activation Mapping. https://arxiv.org/abs/2002.11434

    Example:
        >>> GradCAM(unet, layer="bottleneck")(SegmentationScore(2, "object"), images)
    """

    def __init__(self, class_index: int | Sequence[int], mask: Any = None) -> None:
        self.indices = integers(class_index)
        if isinstance(mask, str) and mask not in _REGIONS:
            raise ValueError(
                f"Expected `mask` to be one of {', '.join(map(repr, _REGIONS))}, or an array. "
                f"Received: {mask!r}. 'object' is what the model predicts to be of the class."
            )
        whole = mask is None or (isinstance(mask, str) and mask == "all")
        self.mask = None if whole else mask if isinstance(mask, str) else _mask(mask)

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The mean of each sample's class over its mask."""
        if self.mask is None:
            return unit_of(output, self.indices)
        if isinstance(self.mask, str):
            return self.fixed(output)(output)
        chosen = _of_class(output, self.indices)
        weights = tf.reshape(self.mask, [tf.shape(self.mask)[0], -1])
        return tf.reduce_sum(weights * chosen, axis=1) / tf.reduce_sum(weights, axis=1)

    @property
    def choices(self) -> tuple[str, ...]:
        """The mask, where it is what the model predicts."""
        return ("mask",) if isinstance(self.mask, str) else ()

    def chosen(self, output: tf.Tensor, shows: Shows = LOGITS) -> dict[str, tf.Tensor]:
        """The region of each sample, float32 `(batch, *spatial)`."""
        own = _of_class(output, self.indices)
        if self.mask == "single":
            mask = tf.one_hot(tf.argmax(own, axis=1), tf.shape(own)[1])
        elif shows.exclusive:
            flat = tf.reshape(output, [tf.shape(output)[0], -1, output.shape[-1]])
            best = tf.argmax(flat, axis=-1, output_type=tf.int32)
            mask = tf.cast(best == tf.reshape(self.indices, [-1, 1]), tf.float32)
        else:
            mask = tf.cast(own > (0.5 if shows.probabilities else 0.0), tf.float32)
        mask = _not_empty(mask, self.indices)
        shape = tf.shape(output)[:-1]
        return {"mask": tf.ensure_shape(tf.reshape(mask, shape), output.shape[:-1])}

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if class or mask do not fit an output of this shape."""
        check_classes(self.indices, shape)
        if self.mask is None:
            return
        if isinstance(self.mask, str):
            _check_predicts(self.mask, shape)
        elif not tf.TensorShape(self.mask.shape[1:]).is_compatible_with(shape[1:-1]):
            raise ValueError(
                f"Expected a mask of shape (batch, {_sizes(shape[1:-1])}), the size of the "
                f"output. Received: shape {tuple(self.mask.shape)}. Resize the mask to the output."
            )


def _of_class(output: tf.Tensor, indices: Any) -> tf.Tensor:
    """Each sample's class at every pixel, `(batch, pixels)`."""
    flat = tf.reshape(output, [tf.shape(output)[0], -1, output.shape[-1]])
    return tf.gather(flat, tf.broadcast_to(indices, tf.shape(output)[:1]), axis=2, batch_dims=1)


def _not_empty(mask: tf.Tensor, indices: Any) -> tf.Tensor:
    """The mask, having checked when it is computed that every sample has a region."""
    sizes = tf.reduce_sum(mask, axis=1)
    said = (
        "Expected a class that the model predicts somewhere in every sample, for mask='object'. "
        "Received: a sample without. Give another class, mask='single', or a mask of your own."
    )
    if tf.executing_eagerly():
        if not bool(tf.reduce_all(sizes > 0)):
            raise ValueError(said)
        return mask
    with tf.control_dependencies([tf.debugging.assert_positive(sizes, said)]):
        return tf.identity(mask)


def _check_predicts(mask: str, shape: tf.TensorShape) -> None:
    if shape.rank is not None and shape.rank < 3:
        raise ValueError(
            f"Expected a segmentation, (batch, *spatial, classes), for mask={mask!r}. Received: an "
            f"output of shape {tuple(shape)}. Use CategoricalScore for a classifier."
        )
    if mask == "object" and shape.rank is not None and shape[-1] == 1:
        raise ValueError(
            "Expected several classes, or one channel known to be of two (a sigmoid, or a model "
            f"compiled with a binary loss), for mask='object'. Received: shape {tuple(shape)} "
            "without either. Compile the model with its loss, or give a mask of your own."
        )


def _mask(mask: Any) -> np.ndarray:
    array = np.asarray(mask)
    if array.ndim < 2 or array.dtype.kind not in "buif" or (array < 0).any():
        raise ValueError(
            "Expected a mask of bools or weights from 0 up, of shape (batch, *spatial). Received: "
            f"dtype {array.dtype}, shape {array.shape}. Give for example `labels == 2`."
        )
    array = array.astype(np.float32)
    empty = np.flatnonzero(array.reshape(len(array), -1).sum(axis=1) == 0)
    if empty.size:
        raise ValueError(
            "Expected a mask that selects at least one pixel of every sample. Received: an empty "
            f"mask for sample {empty.tolist()}. Leave these samples out."
        )
    return array


def _sizes(shape: tf.TensorShape) -> str:
    return ", ".join("any" if size is None else str(size) for size in shape)
