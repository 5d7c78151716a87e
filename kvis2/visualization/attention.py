"""What a unit attends to in an input: `visualize_saliency` and `visualize_cam` of keras-vis.

Both are the explainers `Saliency` and `GradCAM` with a NumPy gradient modifier inside. Every
sample is explained by itself, because a user's loss and modifier may mix what is in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.explainers import GradCAM, Saliency
from kvis2.models import Modifier
from kvis2.passes import Probe, Trace
from kvis2.types import LayerReference, Tensors
from kvis2.visualization import backprop_modifiers, grad_modifiers, graphs
from kvis2.visualization.arrays import normalize
from kvis2.visualization.evaluation import Losses, LossModel, watching
from kvis2.visualization.grad_modifiers import GradientModifier
from kvis2.visualization.identifiers import is_original
from kvis2.visualization.losses import FilterIndices, score_of
from kvis2.visualization.optimizer import as_batch
from kvis2.visualization.splines import zoomed


class ModifiedSaliency(Saliency):
    """Saliency whose gradient passes through a function of arrays before it is reduced."""

    def __init__(
        self, model: keras.Model, grad_modifier: GradientModifier, keepdims: bool, **options: Any
    ) -> None:
        super().__init__(model, keepdims=keepdims, normalize=False, batch_size=1, **options)
        self.grad_modifier = grad_modifier

    def reduced(
        self, attributions: Sequence[tf.Tensor | None], probe: Probe, inputs: Tensors
    ) -> list[tf.Tensor | None]:
        """The modified gradient, channels last, or its maximum over the channels."""
        [gradient] = attributions
        assert gradient is not None
        rank = gradient.shape.rank
        first = probe.layer is None and models.data_format(probe.model) == "channels_first"
        if first and rank > 2:
            gradient = tf.transpose(gradient, [0, *range(2, rank), 1])
        modified = _modified(self.grad_modifier, gradient)
        # The features of a vector are no channels.
        return [modified if self.keepdims or rank < 3 else tf.reduce_max(modified, -1)]


class ModifiedGradCAM(GradCAM):
    """Grad-CAM whose gradient passes through a function of arrays before it is averaged."""

    def __init__(
        self,
        model: keras.Model,
        layer: keras.Operation,
        grad_modifier: GradientModifier,
        scales_by_magnitude: bool,
        **options: Any,
    ) -> None:
        super().__init__(
            model, layer, normalize=False, batch_size=1, fold_batch_norm=False, **options
        )
        self.grad_modifier = grad_modifier
        self.scales_by_magnitude = scales_by_magnitude

    def weights(self, trace: Trace) -> tf.Tensor:
        """The mean modified gradient of every channel, the gradient scaled to 1."""
        gradients = _modified(self.grad_modifier, trace.gradients)
        axes = list(range(1, gradients.shape.rank))
        sizes = tf.abs(gradients) if self.scales_by_magnitude else gradients
        largest = tf.reduce_max(sizes, axes, keepdims=True)
        return super().weights(
            trace._replace(gradients=gradients / (largest + keras.config.epsilon()))
        )


def _modified(modifier: GradientModifier, gradient: tf.Tensor) -> tf.Tensor:
    """A function of arrays applied to a tensor, inside a compiled pass."""

    def function(array: np.ndarray) -> np.ndarray:
        result = np.asarray(modifier(array), np.float32)
        if result.shape != array.shape:
            raise ValueError(
                f"Expected a gradient modifier to keep the shape {array.shape}. "
                f"Received: shape {result.shape}. Return an array like the gradient."
            )
        return result

    return tf.ensure_shape(tf.numpy_function(function, [gradient], tf.float32), gradient.shape)


def visualize_saliency_with_losses(
    input_tensor: Any,
    losses: Losses,
    seed_input: Any,
    wrt_tensor: keras.KerasTensor | None = None,
    grad_modifier: str | GradientModifier | None = "absolute",
    keepdims: bool = False,
    *,
    backprop_modifier: Any = None,
) -> np.ndarray:
    """Where a small change of the input raises a weighted sum of losses.

    `map = minmax(max over channels of modified(d L / d x))`.

    Args:
        input_tensor: The symbolic input, `model.inputs[0]`.
        losses: Pairs (loss, weight). They are to be minimised: -1 explains what lowers a loss.
        seed_input: The input, with or without a batch axis.
        wrt_tensor: Differentiate by this symbolic layer output instead.
        grad_modifier: What is done to the gradient: "absolute", "relu" (what raises L), "negate",
            "invert", "small_values", or a function of arrays that keeps the shape.
        keepdims: Whether to keep the channels.
        backprop_modifier: "guided", "rectified", or a modifier of kvis2; not a function.

    Returns:
        float32 in 0..1, `(*spatial)` or with `keepdims` `(*spatial, channels)`, at the size of
        what is differentiated by; with a batch axis, every sample stretched by itself, if the
        seed had one.

    Raises:
        ValueError: If losses, input or modifier do not fit.

    Example:
        >>> losses = [(ActivationMaximization(model.layers[-1], 20), -1)]
        >>> heatmap = visualize_saliency_with_losses(model.inputs[0], losses, image)
    """
    question = _Question.of_losses(input_tensor, losses, backprop_modifier)
    return _saliency(question, seed_input, wrt_tensor, grad_modifier, keepdims)


def visualize_saliency(
    model: keras.Model,
    layer_idx: LayerReference,
    filter_indices: FilterIndices,
    seed_input: Any,
    wrt_tensor: keras.KerasTensor | None = None,
    backprop_modifier: Any = None,
    grad_modifier: str | GradientModifier | None = "absolute",
    keepdims: bool = False,
) -> np.ndarray:
    """Where a small change of the input raises units of a layer.

    `map = minmax(max over channels of modified(d sum_i mean y_i / d x))`. Positive gradients mean
    "raises the output". Swap a softmax for linear first (`apply_modifications`).

    Args:
        model: A Sequential or functional model with one input. It is neither copied nor changed.
        layer_idx: Index in `model.layers` (or name) of the layer.
        filter_indices: A unit or filter, or several at once; None for the mean over all.
        seed_input: The input, with or without a batch axis.
        wrt_tensor: Differentiate by this symbolic layer output instead.
        backprop_modifier: What ReLUs do to the gradient: "guided", "rectified" ("relu",
            "deconv"), a modifier of kvis2, or a function `model -> modified copy`.
        grad_modifier: As for `visualize_saliency_with_losses`. For regression: "relu" increases
            the output, "negate" decreases it, "small_values" maintains it.
        keepdims: Whether to keep the channels.

    Returns:
        As `visualize_saliency_with_losses`.

    Raises:
        ValueError: If layer, filters, input or modifier do not fit the model.

    Example:
        >>> heatmap = visualize_saliency(model, -1, 20, image, backprop_modifier="guided")
    """
    model, modifiers = backprop_modifiers.applied(backprop_modifier, model)
    question = _Question.of_filters(model, layer_idx, filter_indices, modifiers)
    return _saliency(question, seed_input, wrt_tensor, grad_modifier, keepdims)


def _saliency(
    question: _Question,
    seed_input: Any,
    wrt_tensor: keras.KerasTensor | None,
    grad_modifier: str | GradientModifier | None,
    keepdims: bool,
) -> np.ndarray:
    explainer = ModifiedSaliency(
        question.model,
        grad_modifiers.get(grad_modifier),
        keepdims,
        model_modifier=question.modifiers,
        **watching(wrt_tensor, question.input_tensor, question.model),
    )
    inputs, is_batch = as_batch(seed_input, question.input_tensor.shape[1:])
    return _stretched(explainer(question.score, inputs), is_batch)


def visualize_cam_with_losses(
    input_tensor: Any,
    losses: Losses,
    seed_input: Any,
    penultimate_layer: keras.Operation,
    grad_modifier: str | GradientModifier | None = None,
    *,
    backprop_modifier: Any = None,
    compat: str | None = None,
) -> np.ndarray:
    """Grad-CAM of a weighted sum of losses.

    `map = minmax(max(0, sum_k alpha_k A_k))`, `alpha_k = mean over space of modified(d L / d A_k)`.

    Args:
        input_tensor: The symbolic input, `model.inputs[0]`.
        losses: Pairs (loss, weight). They are to be minimised: -1 explains what lowers a loss.
        seed_input: The input, with or without a batch axis.
        penultimate_layer: The layer whose output is A, at any depth.
        grad_modifier: What is done to the gradient: "negate" (what lowers L), "small_values",
            "absolute", "relu", "invert", or a function of arrays that keeps the shape.
        backprop_modifier: "guided", "rectified", or a modifier of kvis2; not a function.
        compat: As for `visualize_cam`.

    Returns:
        float32 in 0..1, `(*spatial)` at the size of the input; with a batch axis, every sample by
        itself, if the seed had one.

    Raises:
        ValueError: If losses, layer, input or modifier do not fit.

    Example:
        >>> losses = [(ActivationMaximization(model.layers[-1], 20), -1)]
        >>> visualize_cam_with_losses(model.inputs[0], losses, image, model.get_layer("conv5"))
    """
    question = _Question.of_losses(input_tensor, losses, backprop_modifier)
    return _cam(question, seed_input, penultimate_layer, grad_modifier, compat)


def visualize_cam(
    model: keras.Model,
    layer_idx: LayerReference,
    filter_indices: FilterIndices,
    seed_input: Any,
    penultimate_layer_idx: LayerReference | None = None,
    backprop_modifier: Any = None,
    grad_modifier: str | GradientModifier | None = None,
    *,
    compat: str | None = None,
) -> np.ndarray:
    """Grad-CAM of units of a layer.

    `map = minmax(max(0, sum_k alpha_k A_k))`, `alpha_k = mean over space of modified(d s / d A_k)`
    with `s = sum_i mean y_i`. Swap a softmax for linear first (`apply_modifications`).

    Args:
        model: A Sequential or functional model with one input. It is neither copied nor changed.
        layer_idx: Index in `model.layers` (or name) of the layer.
        filter_indices: A unit or filter, or several at once; None for the mean over all.
        seed_input: The input, with or without a batch axis.
        penultimate_layer_idx: The layer whose output is A: index, name or path. By default the
            last convolution or (not global) pooling before `layer_idx`.
        backprop_modifier: As for `visualize_saliency`.
        grad_modifier: As for `visualize_cam_with_losses`. For regression: None increases the
            output, "negate" decreases it, "small_values" maintains it.
        compat: "keras-vis" for the numbers of the original: cubic splines on a corner-aligned
            grid, and a map that is turned round where every gradient is negative. By default
            the map is enlarged linearly with half-pixel centres, without overshoot.

    Returns:
        As `visualize_cam_with_losses`.

    Raises:
        ValueError: If layers, filters, input or modifier do not fit the model.

    Example:
        >>> heatmap = visualize_cam(model, -1, 20, image)
        >>> jet = kvis2.images.colorize(heatmap, "jet")
        >>> picture = overlay(jet, image)
    """
    model, modifiers = backprop_modifiers.applied(backprop_modifier, model)
    question = _Question.of_filters(model, layer_idx, filter_indices, modifiers)
    layer = graphs.penultimate_layer(model, layer_idx, penultimate_layer_idx)
    return _cam(question, seed_input, layer, grad_modifier, compat)


def _cam(
    question: _Question,
    seed_input: Any,
    layer: keras.Operation,
    grad_modifier: str | GradientModifier | None,
    compat: str | None,
) -> np.ndarray:
    as_original = is_original(compat)
    explainer = ModifiedGradCAM(
        question.model,
        layer,
        grad_modifiers.get(grad_modifier),
        scales_by_magnitude=not as_original,
        resize=not as_original,
        model_modifier=question.modifiers,
    )
    inputs, is_batch = as_batch(seed_input, question.input_tensor.shape[1:])
    maps = explainer(question.score, inputs)
    if as_original:
        axes = models.spatial_axes(question.model, inputs.shape, inputs.dtype)
        maps = np.stack([zoomed(each, [inputs.shape[axis] for axis in axes]) for each in maps])
    return _stretched(maps, is_batch)


def _stretched(maps: np.ndarray, is_batch: bool) -> np.ndarray:
    """Maps from 0 to 1, each by its own minimum and maximum; one alone without a batch axis."""
    unit = np.stack([normalize(each) for each in maps]).astype(np.float32)
    return unit if is_batch else unit[0]


class _Question(NamedTuple):
    """What is asked of a model: a score from its input, and what is changed in the pass."""

    model: keras.Model
    score: Any
    input_tensor: keras.KerasTensor
    modifiers: Sequence[Modifier]

    @classmethod
    def of_losses(cls, input_tensor: Any, losses: Losses, backprop_modifier: Any) -> _Question:
        """Of a weighted sum of losses."""
        tensor = graphs.single_input(input_tensor)
        model, scores, _ = LossModel.of(tensor, losses)
        return cls(model, scores, tensor, backprop_modifiers.of_pass(backprop_modifier))

    @classmethod
    def of_filters(
        cls,
        model: keras.Model,
        layer_idx: LayerReference,
        filter_indices: FilterIndices,
        modifiers: Sequence[Modifier],
    ) -> _Question:
        """Of units of a layer."""
        part, score = score_of(model, layer_idx, filter_indices)
        return cls(part, score, graphs.model_input(part), modifiers)
