"""What an optimisation minimises, as expressions of symbolic tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.scores import Score
from kvis2.types import LayerReference
from kvis2.visualization import graphs

FilterIndices: TypeAlias = "int | Sequence[int] | np.ndarray | None"


class Loss:
    """Base of the losses: a subclass builds one number to be minimised.

    Example:
        >>> class Contrast(Loss):
        ...     def __init__(self, layer):
        ...         super().__init__()
        ...         self.name = "Contrast Loss"
        ...         self.layer = layer
        ...
        ...     def build_loss(self):
        ...         return -keras.ops.mean(self.layer.output[:, 3] - self.layer.output[:, 5])
    """

    def __init__(self) -> None:
        self.name = "Unnamed Loss"

    def __str__(self) -> str:
        return self.name

    def build_loss(self) -> keras.KerasTensor:
        """The loss, a symbolic scalar made of layer outputs or inputs with `keras.ops`."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its loss is.")


def unit_sum(output: Any, filter_indices: Any, axis: int) -> Any:
    """`sum over i in filters of mean over space of y_i`, one number per sample.

    Args:
        output: A layer's output, symbolic or not.
        filter_indices: Indices `(filters,)`; None for one term, the mean over everything.
        axis: The axis of the filters.

    Returns:
        `(batch,)`.
    """
    rank = len(output.shape)
    if filter_indices is None:
        return keras.ops.mean(output, axis=list(range(1, rank)))
    chosen = keras.ops.take(output, filter_indices, axis=axis)
    spatial = [each for each in range(1, rank) if each != axis]
    means = keras.ops.mean(chosen, axis=spatial) if spatial else chosen
    return keras.ops.sum(means, axis=-1)


class ActivationMaximization(Loss):
    """`-sum over i in filters of mean over batch and space of y_i`: smaller where units fire.

    An explicit list of all K filters is K times the loss of None, which averages them.

    Args:
        layer: The layer whose output is y, or a symbolic output.
        filter_indices: A unit or filter, or several; None for the mean over all.

    Raises:
        ValueError: If there is no such filter.

    References:
        Simonyan et al. (2014), Deep Inside Convolutional Networks. https://arxiv.org/abs/1312.6034

    Example:
        >>> Optimizer(model.inputs[0], [(ActivationMaximization(model.layers[-1], 20), 1)])
    """

    def __init__(self, layer: Any, filter_indices: FilterIndices) -> None:
        super().__init__()
        self.name = "ActivationMax Loss"
        self.layer = layer
        self.filter_indices = checked_indices(filter_indices)

    def build_loss(self) -> keras.KerasTensor:
        """Minus the mean over the batch of the sum over the filters."""
        if isinstance(self.layer, keras.KerasTensor):
            output, operation = self.layer, self.layer._keras_history[0]
        else:
            output, operation = graphs.output_of(self.layer), self.layer
        axis = graphs.channel_axis(operation, len(output.shape))
        check_filters(self.filter_indices, output.shape[axis], operation.name)
        return -keras.ops.mean(unit_sum(output, self.filter_indices, axis))


class UnitSum(Score):
    """The score whose gradient is that of `ActivationMaximization` with weight -1.

    The indices are a field: other filters of the same number share a trace.

    Args:
        filter_indices: As for `ActivationMaximization`.
        axis: The axis of the filters in the output.
    """

    def __init__(self, filter_indices: FilterIndices, axis: int) -> None:
        checked = checked_indices(filter_indices)
        self.indices = None if checked is None else checked[None]
        self.axis = axis

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The sum over the filters of each sample."""
        # The same filters stand in every row.
        return unit_sum(output, None if self.indices is None else self.indices[0], self.axis)

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if there is no such filter."""
        check_filters(self.indices, shape[self.axis], "output")


def checked_indices(filter_indices: FilterIndices) -> np.ndarray | None:
    """Filter indices as an int32 vector; None as it is.

    Raises:
        ValueError: If they are no indices.
    """
    if filter_indices is None:
        return None
    array = np.atleast_1d(np.asarray(filter_indices))
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(
            "Expected filter indices: an int, several ints, or None for the mean over all. "
            f"Received: {filter_indices!r}. Give for example 20, or [1, 7]."
        )
    return array.astype(np.int32)


def check_filters(indices: np.ndarray | None, count: int | None, name: str) -> None:
    """Raise if an index is not below the number of filters.

    Raises:
        ValueError: Naming the first wrong index.
    """
    if indices is None or count is None:
        return
    wrong = indices[(indices < 0) | (indices >= count)]
    if wrong.size:
        raise ValueError(
            f"Expected filter indices from 0 to {count - 1}: '{name}' has {count} filters. "
            f"Received: {wrong.flat[0]}. Choose one of these."
        )


def score_of(
    model: keras.Model, layer_idx: LayerReference, filter_indices: FilterIndices
) -> tuple[keras.Model, UnitSum]:
    """The part of a model that ends in a layer, and the score of filters of that layer."""
    layer = models.find_layer(model, layer_idx)
    part = graphs.part_of(model, layer)
    axis = graphs.channel_axis(layer, len(part.outputs[0].shape))
    return part, UnitSum(filter_indices, axis)
