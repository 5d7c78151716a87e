"""From the outputs of a model to one number per sample: the score that is explained.

A score is a function of one model output, `(batch, ..., units) -> (batch,)`. What a built-in
score needs to know of each sample (its class, its target) is held in NumPy attributes whose
first axis is the batch (see `kvis2.traced`): they are sliced with the batch and fed to the compiled
pass as tensors, so that another class is not another trace.

This file is longer than others: all scores of outputs stand in one place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2.shown import Shown
from kvis2.types import LayerReference


class Score(Shown):
    """Base of the scores: `score(output)` is one number per sample.

    NumPy array attributes are per-sample fields, first axis the batch; an array with a first
    axis of length one stands for every sample. All other attributes must be hashable.
    """

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The score of each sample.

        Args:
            output: One output of the model, float32, `(batch, ..., units)`.

        Returns:
            float32, `(batch,)`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to score an output.")

    def fixed(self, output: tf.Tensor) -> Score:
        """This score with every choice that depends on the output made for good, by `output`."""
        return self

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if this score does not fit an output of the static `shape`."""


class ClassScore(Score):
    """Base of the scores that choose a class: of a one-unit sigmoid, one of two, `[-z, z]`."""


class CategoricalScore(ClassScore):
    """The output of one class: `score_n = output[n, ..., index_n]`, averaged over any space.

    Args:
        indices: The class (or unit, or filter) of every sample: an int for all of them, or a
            list with one int per sample.

    Example:
        >>> Saliency(model)(CategoricalScore([1, 294, 413]), images)
    """

    def __init__(self, indices: int | Sequence[int]) -> None:
        self.indices = _integers(indices)

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The mean over space of each sample's unit."""
        return _unit(output, self.indices)

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if an index is outside the last axis of the output."""
        _check_classes(self.indices, shape)


def _integers(indices: Any) -> np.ndarray:
    array = np.atleast_1d(np.asarray(indices))
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(
            "Expected class indices: an int, or a list with one int per sample. "
            f"Received: {' '.join(repr(indices).split())}. Give for example 3, or [3, 5]."
        )
    return array.astype(np.int32)


class PredictedScore(ClassScore):
    """The output of the class that the model predicts for each sample: `max_c output[n, c]`."""

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The largest output of each sample."""
        return self.fixed(output)(output)

    def fixed(self, output: tf.Tensor) -> Score:
        """The class predicted here, whatever the output is later."""
        units = _over_space(output)
        score = copy.copy(_ANY_CLASS)
        score.indices = tf.argmax(units, axis=-1, output_type=tf.int32)  # type: ignore[assignment]
        return score


_ANY_CLASS = CategoricalScore(0)


class ChosenScore(PredictedScore):
    """The output of the class that a tensor names for each sample, -1 for the predicted one.

    For graphs, where classes are an input: elsewhere `CategoricalScore` takes ints.

    Args:
        indices: int tensor `(batch,)` or `(batch, 1)`.
    """

    def __init__(self, indices: tf.Tensor) -> None:
        self.indices = tf.cast(tf.reshape(indices, [-1]), tf.int32)

    def fixed(self, output: tf.Tensor) -> Score:
        """The same classes, the predicted ones being those of this output."""
        predicted = tf.argmax(_over_space(output), axis=-1, output_type=tf.int32)
        score = copy.copy(_ANY_CLASS)
        score.indices = tf.where(self.indices < 0, predicted, self.indices)  # type: ignore[assignment]
        return score


class BinaryScore(ClassScore):
    """A one-unit output or its opposite: `score_n = output_n` if target_n is True, else minus it.

    The opposite of a probability p is 1 - p, where the sigmoid itself is explained.

    Args:
        targets: What to explain of every sample: True or 1 for the positive class, False or 0
            for the negative one; one bool for all, or a list with one per sample.

    Example:
        >>> GradCAM(cat_or_not)(BinaryScore([True, False]), images)
    """

    def __init__(self, targets: bool | Sequence[bool]) -> None:
        array = np.atleast_1d(np.asarray(targets))
        if array.ndim != 1 or array.size == 0 or not np.isin(array, (0, 1)).all():
            raise ValueError(
                "Expected targets of True or False: one, or a list with one per sample. "
                f"Received: {targets!r}. Give for example True, or [True, False]."
            )
        self.targets = array.astype(bool)

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """Plus or minus the one unit, or the one of two classes."""
        if output.shape.rank == 2 and output.shape[1] == 2:
            return tf.where(self.targets, output[:, 1], output[:, 0])
        flat = tf.reshape(output, [-1])
        return tf.where(self.targets, flat, -flat)

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if the output has more than one unit, or two classes."""
        if shape.rank is not None and shape[1:].num_elements() not in (1, 2, None):
            raise ValueError(
                "Expected an output of shape (batch, 1) for a BinaryScore. "
                f"Received: shape {tuple(shape)}. Use CategoricalScore for several classes."
            )


class RegressionScore(Score):
    """What makes a number larger, or smaller: `score_n = +-output[n, unit_n]`.

    Args:
        direction: "increase" to explain what raises the output, "decrease" what lowers it; one
            for all samples, or a list with one per sample.
        unit: Which unit of the output: an int for all samples, or a list with one per sample.

    Example:
        >>> GradCAM(age_model)(RegressionScore("decrease"), images)  # what makes you look young
    """

    def __init__(
        self, direction: str | Sequence[str] = "increase", unit: int | Sequence[int] = 0
    ) -> None:
        given = [direction] if isinstance(direction, str) else list(direction)
        if not given or any(each not in _SIGNS for each in given):
            raise ValueError(
                "Expected `direction` to be 'increase' or 'decrease', or a list with one per "
                f"sample. Received: {direction!r}. Say whether to explain a higher or lower value."
            )
        self.signs = np.array([_SIGNS[each] for each in given], np.float32)
        self.units = _integers(unit)

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """Plus or minus each sample's unit, averaged over any space."""
        return self.signs * _unit(output, self.units)

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if a unit is outside the last axis of the output."""
        if shape.rank != 1:
            _check_classes(self.units, shape)


_SIGNS = {"increase": 1.0, "decrease": -1.0}


class ContrastScore(ClassScore):
    """Why this class and not that one: `score_n = output[n, a_n] - output[n, b_n]`.

    Args:
        a: The class to explain: an int for all samples, or a list with one per sample.
        b: The class it is told from, in the same way.

    Example:
        >>> GradCAM(model)(ContrastScore(243, 242), images)  # why bull mastiff, not boxer
    """

    def __init__(self, a: int | Sequence[int], b: int | Sequence[int]) -> None:
        self.a = _integers(a)
        self.b = _integers(b)

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The difference of each sample's two units, averaged over any space."""
        return _unit(output, self.a) - _unit(output, self.b)

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if a class is outside the last axis of the output."""
        _check_classes(self.a, shape)
        _check_classes(self.b, shape)


class SegmentationScore(ClassScore):
    """One class of a segmentation map in one region: its mean over the pixels of a mask.

    `score_n = sum_p mask[n, p] * output[n, p, class_n] / sum_p mask[n, p]`

    Args:
        class_index: The class: an int for all samples, or a list with one per sample.
        mask: bool, or weights from 0 up, `(batch, *spatial)` in the size of the output, first
            axis 1 for the same region in all samples; None for all pixels.

    Raises:
        ValueError: If the mask of a sample selects nothing, or does not fit the output.

    References:
        Vinogradova et al. (2020), Towards Interpretable Semantic Segmentation via
        Gradient-weighted Class Activation Mapping. https://arxiv.org/abs/2002.11434

    Example:
        >>> GradCAM(unet, layer="bottleneck")(SegmentationScore(2, predicted == 2), images)
    """

    def __init__(self, class_index: int | Sequence[int], mask: Any = None) -> None:
        self.indices = _integers(class_index)
        self.mask = None if mask is None else _mask(mask)

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The mean of each sample's class over its mask."""
        if self.mask is None:
            return _unit(output, self.indices)
        chosen = tf.gather(
            tf.reshape(output, [tf.shape(output)[0], -1, output.shape[-1]]),
            tf.broadcast_to(self.indices, tf.shape(output)[:1]),
            axis=2,
            batch_dims=1,
        )
        weights = tf.reshape(self.mask, [tf.shape(self.mask)[0], -1])
        return tf.reduce_sum(weights * chosen, axis=1) / tf.reduce_sum(weights, axis=1)

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if class or mask do not fit an output of this shape."""
        _check_classes(self.indices, shape)
        if self.mask is None:
            return
        if not tf.TensorShape(self.mask.shape[1:]).is_compatible_with(shape[1:-1]):
            raise ValueError(
                f"Expected a mask of shape (batch, {_sizes(shape[1:-1])}), the size of the "
                f"output. Received: shape {self.mask.shape}. Resize the mask to the output."
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


def _unit(output: tf.Tensor, indices: Any) -> tf.Tensor:
    """Each sample's unit of the last axis, averaged over any space."""
    if output.shape.rank == 1:
        return output
    return _chosen(_over_space(output), indices)


def _chosen(values: tf.Tensor, indices: Any) -> tf.Tensor:
    """One column for each row of `values (batch, units)`, with a gradient that needs no values."""
    units = values.shape[-1]

    @tf.custom_gradient
    def gathered(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        columns = tf.broadcast_to(tf.cast(indices, tf.int32), tf.shape(values)[:1])
        pairs = tf.stack([tf.range(tf.shape(values)[0]), columns], axis=1)
        one_hot = tf.one_hot(columns, units or tf.shape(values)[1], dtype=values.dtype)
        return tf.gather_nd(values, pairs), lambda upstream: upstream[:, tf.newaxis] * one_hot

    return gathered(values)


def _over_space(output: tf.Tensor) -> tf.Tensor:
    """The mean over all axes but batch and units."""
    spatial = list(range(1, output.shape.rank - 1))
    return tf.reduce_mean(output, spatial) if spatial else output


def _check_classes(indices: np.ndarray, shape: tf.TensorShape) -> None:
    """Raise if an index is outside the last axis of an output of this shape."""
    if shape.rank is not None and shape.rank < 2:
        raise ValueError(
            "Expected an output of shape (batch, ..., classes) to choose a class from. "
            f"Received: shape {tuple(shape)}. Use a function as score instead."
        )
    classes = None if shape.rank is None else shape[-1]
    if classes is None:
        return
    indices = np.asarray(indices)
    wrong = indices[(indices < 0) | (indices >= classes)]
    if wrong.size and classes == 1 and not (wrong != 1).any():
        raise ValueError(
            "Expected class 0, of an output with one unit that is taken for a number. Received: 1. "
            "If it is two classes, give BinaryScore(True) or BinaryScore(False), or compile the "
            "model with its loss, such as BinaryCrossentropy(from_logits=True)."
        )
    if wrong.size:
        raise ValueError(
            f"Expected a class index from 0 to {classes - 1} (the output has {classes} "
            f"classes). Received: {wrong[0]}. Choose one of the model's classes."
        )


class InactiveScore(Score):
    """Leaves one of several outputs out: `score_n = 0`."""

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """Zero for each sample."""
        return tf.zeros(tf.shape(output)[:1], output.dtype)


class LayerScore(Score):
    """The response of one filter of a hidden layer: `score_n = sum over space |A_n[filter_n]|`.

    Given alone, in the place of a score of the model's output, to any explainer.

    Args:
        layer: The layer's unique name, path or index.
        filters: The filter (channel, unit) of every sample: an int for all of them, or a list
            with one int per sample.
        pre_activation: Score the response before the activation that is fused into the layer.
        call_index: Which call of a layer that is called more than once.

    Example:
        >>> score = LayerScore("block3_conv1", 5, pre_activation=True)
        >>> Saliency(model, model_modifier=GuidedReLU())(score, images)
    """

    def __init__(
        self,
        layer: LayerReference,
        filters: int | Sequence[int],
        *,
        pre_activation: bool = False,
        call_index: int = -1,
    ) -> None:
        # The name, not the layer: a compiled pass keeps its score and must not keep the model.
        self.layer = layer.name if isinstance(layer, keras.Operation) else layer
        self.filters = _integers(filters)
        self.pre_activation = pre_activation
        self.call_index = call_index

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The sum of the magnitudes of each sample's filter."""
        spatial = list(range(1, output.shape.rank - 1))
        sums = tf.reduce_sum(tf.abs(output), spatial)
        return _chosen(sums, self.filters)

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if a filter is outside the last axis of the layer's output."""
        count = None if shape.rank is None else shape[-1]
        wrong = self.filters[(self.filters < 0) | (self.filters >= (count or np.inf))]
        if wrong.size:
            raise ValueError(
                f"Expected a filter of the layer {self.layer!r}, from 0 to {(count or 0) - 1}. "
                f"Received: {wrong[0]}. Choose one that it has."
            )


_ONE_EACH = "Expected a score function that returns one number per sample, shape (batch,)."
_KEEP = "Keep the batch axis: `lambda output: output[:, 3]`."


class FunctionScore(Score):
    """A user's function of the output. One function is one trace: make it outside of loops.

    Args:
        function: `output (batch, ..., units) -> (batch,)`, in TensorFlow or Keras operations.
    """

    def __init__(self, function: Callable[[tf.Tensor], tf.Tensor]) -> None:
        self.function = function

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """What the function says."""
        result = self.function(output)
        if result is None:
            raise ValueError(f"{_ONE_EACH} Received: None. Look for a missing `return`.")
        if isinstance(result, list | tuple):
            result = tf.stack(result)
        result = tf.cast(result, tf.float32)
        if result.shape.rank is not None and result.shape.rank > 1:
            result = tf.reduce_mean(result, list(range(1, result.shape.rank)))
        if result.shape.rank == 0:
            raise ValueError(f"{_ONE_EACH} Received: a single number. {_KEEP}")
        received, expected = result.shape[:1], output.shape[:1]
        if not received.is_compatible_with(expected):
            raise ValueError(
                f"{_ONE_EACH} Received: {received[0]} numbers for {expected[0]} samples. {_KEEP}"
            )
        if received.is_fully_defined() and expected.is_fully_defined():
            return result
        message = f"{_ONE_EACH} Received: another number of them. {_KEEP}"
        check = tf.debugging.assert_equal(tf.shape(result)[0], tf.shape(output)[0], message)
        with tf.control_dependencies([check] if check is not None else []):
            return tf.ensure_shape(tf.identity(result), expected)
