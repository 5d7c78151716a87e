"""From the outputs of a model to one number per sample: the score that is explained.

A score is a function of one model output, `(batch, ..., units) -> (batch,)`. What a built-in
score needs to know of each sample (its class, its target) is held in NumPy attributes whose
first axis is the batch (see `kvis2.traced`): they are sliced with the batch and fed to the compiled
pass as tensors, so that another class is not another trace.

This file is longer than others: all scores of outputs stand in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kvis2.shown import Shown
from kvis2.traced import with_fields
from kvis2.types import LayerReference


class Shows(NamedTuple):
    """What is known of the values of an output that a score chooses by.

    Attributes:
        probabilities: Whether they are probabilities, and not scores before the last activation.
        exclusive: Whether the classes exclude each other.
    """

    probabilities: bool = False
    exclusive: bool = True


LOGITS = Shows()


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

    @property
    def choices(self) -> tuple[str, ...]:
        """The names of what this score chooses by the output; none if it is definite."""
        return ()

    def chosen(self, output: tf.Tensor, shows: Shows) -> dict[str, tf.Tensor]:
        """What is chosen by `output`, by the names of `choices`: `(batch, ...)` each.

        Args:
            output: As for a call.
            shows: What is known of the values of the output.
        """
        return {}

    def definite(self, values: Mapping[str, Any]) -> Score:
        """This score with `values` for its choices."""
        return with_fields(self, values)

    def fixed(self, output: tf.Tensor, shows: Shows = LOGITS) -> Score:
        """This score with every choice that depends on the output made for good, by `output`."""
        return self.definite(self.chosen(output, shows)) if self.choices else self

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
        self.indices = integers(indices)

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The mean over space of each sample's unit."""
        return unit_of(output, self.indices)

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if an index is outside the last axis of the output."""
        check_classes(self.indices, shape)


def integers(indices: Any) -> np.ndarray:
    """Indices of classes, int32 `(n,)`, from an int or a list of them."""
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

    @property
    def choices(self) -> tuple[str, ...]:
        """The class."""
        return ("indices",)

    def chosen(self, output: tf.Tensor, shows: Shows) -> dict[str, tf.Tensor]:
        """The class predicted here, whatever the output is later."""
        return {"indices": tf.argmax(_over_space(output), axis=-1, output_type=tf.int32)}

    def definite(self, values: Mapping[str, Any]) -> Score:
        """The score of that class."""
        return with_fields(_ANY_CLASS, values)


_ANY_CLASS = CategoricalScore(0)


class ChosenScore(PredictedScore):
    """The output of the class that a tensor names for each sample, -1 for the predicted one.

    For graphs, where classes are an input: elsewhere `CategoricalScore` takes ints.

    Args:
        indices: int tensor `(batch,)` or `(batch, 1)`.
    """

    def __init__(self, indices: tf.Tensor) -> None:
        self.indices = tf.cast(tf.reshape(indices, [-1]), tf.int32)

    def chosen(self, output: tf.Tensor, shows: Shows) -> dict[str, tf.Tensor]:
        """The same classes, the predicted ones being those of this output."""
        predicted = super().chosen(output, shows)["indices"]
        return {"indices": tf.where(self.indices < 0, predicted, self.indices)}


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
        self.units = integers(unit)

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """Plus or minus each sample's unit, averaged over any space."""
        return self.signs * unit_of(output, self.units)

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if a unit is outside the last axis of the output."""
        if shape.rank != 1:
            check_classes(self.units, shape, numbers=True)


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
        self.a = integers(a)
        self.b = integers(b)

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The difference of each sample's two units, averaged over any space."""
        return unit_of(output, self.a) - unit_of(output, self.b)

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if a class is outside the last axis of the output."""
        check_classes(self.a, shape)
        check_classes(self.b, shape)


class FinerScore(ClassScore):
    r"""Why this class and not those most like it: its score less that of the nearest classes.

    `score = y_t - alpha sum_c p_c y_c / sum_c p_c`, over the `nearest` classes c whose scores are
    the closest to `y_t`, each weighted by its probability `p_c = softmax(y)_c`. Any class
    activation map of it is a Finer-CAM: what the classes have in common cancels, what tells them
    apart stays. The weights are differentiated as well, as in the authors' code.

    Args:
        index: The class t: an int for all samples, a list with one per sample, or None for the
            class that the model predicts.
        nearest: How many classes to tell it from; all others where there are fewer.
        alpha: How much of them is taken away: 0 is the plain class.

    References:
        Zhang et al. (2025), Finer-CAM: Spotting the Difference Reveals Finer Details for Visual
        Explanation. https://arxiv.org/abs/2501.11309

    Example:
        >>> GradCAM(model)(FinerScore(243), images)  # bull mastiff, and not boxer, bulldog, ...
    """

    def __init__(
        self, index: int | Sequence[int] | None = None, nearest: int = 3, alpha: float = 1.0
    ) -> None:
        if isinstance(nearest, bool) or not isinstance(nearest, int) or nearest < 1:
            raise ValueError(
                f"Expected `nearest` to be a positive int. Received: {nearest!r}. "
                "The paper takes 3."
            )
        self.indices = None if index is None else integers(index)
        self.nearest = nearest
        self.alpha = float(alpha)
        self.compared: Any = None
        self.probabilities: Any = None

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The class less the weighted mean of its nearest."""
        if self.compared is None:
            return self.fixed(output)(output)
        units = _over_space(output)
        # The softmax of the logarithm of probabilities is the probabilities.
        small = tf.constant(1e-30, units.dtype)
        logs = tf.where(self.probabilities[:, None], tf.math.log(tf.maximum(units, small)), units)
        values = tf.gather(units, self.compared, axis=1, batch_dims=1)
        logs = tf.gather(logs, self.compared, axis=1, batch_dims=1)
        shares = tf.nn.softmax(logs[:, 1:], axis=1)  # p_c / sum of p_c: the others cancel.
        return values[:, 0] - self.alpha * tf.reduce_sum(shares * values[:, 1:], axis=1)

    @property
    def choices(self) -> tuple[str, ...]:
        """The class and those nearest to it, and whether the output holds probabilities."""
        return ("compared", "probabilities") if self.compared is None else ()

    def chosen(self, output: tf.Tensor, shows: Shows) -> dict[str, tf.Tensor]:
        """The class of each sample, then its nearest, int32 `(batch, 1 + nearest)`."""
        units = tf.stop_gradient(_over_space(output))
        best = tf.argmax(units, axis=1, output_type=tf.int32)
        own = best if self.indices is None else tf.broadcast_to(self.indices, tf.shape(best))
        distance = tf.abs(units - tf.gather(units, own[:, None], axis=1, batch_dims=1))
        # The class itself comes first, also where another has the very same score.
        distance = tf.where(tf.one_hot(own, units.shape[1], True, False), -1.0, distance)
        count = min(self.nearest + 1, units.shape[1])
        compared = tf.math.top_k(-distance, count).indices
        return {
            "compared": compared,
            "probabilities": tf.fill(tf.shape(best), shows.probabilities),
        }

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if a class is outside the last axis of the output, or the only one."""
        check_classes(np.zeros(1, np.int32) if self.indices is None else self.indices, shape)
        if shape.rank is not None and shape[-1] == 1:
            raise ValueError(
                "Expected an output of several classes, to tell one from the others. Received: "
                f"shape {tuple(shape)}. Use CategoricalScore or RegressionScore."
            )


class ReSTScore(ClassScore):
    r"""Residual softmax target-class: a class by its score and its probability at once.

    `score = y_t + log softmax(y)_t`. The score before the softmax says nothing of other classes,
    the probability vanishes where the model is sure; their sum does neither, and has curvature in
    every network, which `ShapleyCAM` looks for. It needs outputs before the softmax, as they are
    explained by default.

    Args:
        indices: The class of every sample: an int for all of them, or a list with one per sample.

    References:
        Huaiguang Cai (2025), CAMs as Shapley Value-based Explainers.
        https://arxiv.org/abs/2501.06261

    Example:
        >>> ShapleyCAM(model)(ReSTScore(243), images)
    """

    def __init__(self, indices: int | Sequence[int]) -> None:
        self.indices = integers(indices)

    def fixed(self, output: tf.Tensor, shows: Shows = LOGITS) -> Score:
        """The same; raises for probabilities, whose score before the softmax is not known."""
        if shows.probabilities:
            raise ValueError(
                "Expected an output before its softmax, for ReSTScore. Received: probabilities. "
                "Give `model_modifier=LinearOutput()`, which explains what enters the softmax."
            )
        return self

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The class's score and the logarithm of its probability, averaged over any space."""
        units = _over_space(output)
        return unit_of(units, self.indices) + unit_of(tf.nn.log_softmax(units), self.indices)

    def validate(self, shape: tf.TensorShape) -> None:
        """Raise if a class is outside the last axis of the output."""
        check_classes(self.indices, shape)


def unit_of(output: tf.Tensor, indices: Any) -> tf.Tensor:
    """Each sample's unit of the last axis, averaged over any space."""
    if output.shape.rank == 1:
        return output
    return column_of(_over_space(output), indices)


def column_of(values: tf.Tensor, indices: Any) -> tf.Tensor:
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


def check_classes(indices: np.ndarray, shape: tf.TensorShape, *, numbers: bool = False) -> None:
    """Raise if an index is outside the last axis of an output; `numbers` where none is a class."""
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
    if wrong.size and classes == 1 and not (numbers or (wrong != 1).any()):
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
        self.filters = integers(filters)
        self.pre_activation = pre_activation
        self.call_index = call_index

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """The sum of the magnitudes of each sample's filter."""
        spatial = list(range(1, output.shape.rank - 1))
        sums = tf.reduce_sum(tf.abs(output), spatial)
        return column_of(sums, self.filters)

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
