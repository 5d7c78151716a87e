"""Images that excite a unit: `visualize_activation` of keras-vis."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from kvis2 import models
from kvis2.types import LayerReference
from kvis2.visualization import arrays, backprop_modifiers, graphs
from kvis2.visualization.callbacks import channels_last
from kvis2.visualization.evaluation import Losses
from kvis2.visualization.grad_modifiers import GradientModifier
from kvis2.visualization.losses import ActivationMaximization, FilterIndices
from kvis2.visualization.optimizer import Optimizer
from kvis2.visualization.regularizers import LPNorm, TotalVariation


def visualize_activation_with_losses(
    input_tensor: Any,
    losses: Losses,
    wrt_tensor: keras.KerasTensor | None = None,
    seed_input: Any = None,
    input_range: arrays.InputRange = (0, 255),
    *,
    backprop_modifier: Any = None,
    compat: str | None = None,
    **optimizer_params: Any,
) -> np.ndarray:
    """The input that minimises a weighted sum of losses, found by gradient descent.

    Args:
        input_tensor: The symbolic input, `model.inputs[0]`.
        losses: Pairs (loss, weight).
        wrt_tensor: Differentiate by this tensor instead, with `max_iter=1`.
        seed_input: The input to start from, with or without a batch axis; by default noise.
        input_range: Lowest and highest value of the input.
        backprop_modifier: As for `visualize_activation`, but not a function.
        compat: As for `visualize_activation`.
        **optimizer_params: As for `Optimizer.minimize`: `max_iter` (200), `input_modifiers`,
            `grad_modifier`, `callbacks`, `verbose` (False), `learning_rate`, `deprocess`, ...

    Returns:
        The input `(*spatial, channels)`, channels last, uint8 if `input_range` was given in ints
        that are grey levels, else float; with a batch axis if the seed had one.

    Raises:
        ValueError: If the losses or the seed do not fit.

    Example:
        >>> losses = [(ActivationMaximization(model.layers[-1], [1, 7]), 1)]
        >>> visualize_activation_with_losses(model.inputs[0], losses, input_range=(0.0, 1.0))
    """
    optimizer = Optimizer(
        input_tensor,
        losses,
        input_range,
        wrt_tensor,
        backprop_modifier=backprop_modifier,
        compat=compat,
    )
    defaults = {"seed_input": seed_input, "max_iter": 200, "verbose": False}
    found, _, _ = optimizer.minimize(**(defaults | optimizer_params))
    found = arrays.quantized(found, input_range)
    if found.ndim == len(optimizer.input_tensor.shape):
        return np.stack([channels_last(each) for each in found])
    return channels_last(found)


def visualize_activation(
    model: keras.Model,
    layer_idx: LayerReference,
    filter_indices: FilterIndices = None,
    wrt_tensor: keras.KerasTensor | None = None,
    seed_input: Any = None,
    input_range: arrays.InputRange = (0, 255),
    backprop_modifier: Any = None,
    grad_modifier: str | GradientModifier | None = None,
    act_max_weight: float | None = 1,
    lp_norm_weight: float | None = 10,
    tv_weight: float | None = 10,
    *,
    compat: str | None = None,
    **optimizer_params: Any,
) -> np.ndarray:
    """The input that maximises units of a layer.

    `x = argmin -act_max sum_i mean y_i + lp_norm ||x||_6 / values + tv TV(x) / values`. Swap a
    softmax for linear first (`apply_modifications`); try total variation weights from 1e-3 to 10;
    `input_modifiers=[Jitter(16)]` makes crisper images; give regression models a seed.

    Args:
        model: A Sequential or functional model with one input. It is neither copied nor changed.
        layer_idx: Index in `model.layers` (or name) of the layer.
        filter_indices: A unit or filter, or several at once; None for the mean over all.
        wrt_tensor: Differentiate by this tensor instead, with `max_iter=1`.
        seed_input: The input to start from, with or without a batch axis; by default noise.
        input_range: Lowest and highest value of the input, that of the model's training.
        backprop_modifier: What ReLUs do to the gradient: "guided", "rectified" ("relu",
            "deconv"), a modifier of kvis2, or a function `model -> modified copy`.
        grad_modifier: What is done to the gradient: "negate" (minimises the unit), "absolute",
            "invert", "relu", "small_values", or a function of arrays.
        act_max_weight: Weight of the units; 0 or None leaves a term out.
        lp_norm_weight: Weight of the L-6 norm, which keeps values within a range.
        tv_weight: Weight of the total variation, which keeps the image smooth.
        compat: "keras-vis" for the numbers of the original: the image one step after the best,
            steps in raw units whatever the range, one gradient norm for a batch.
        **optimizer_params: As for `visualize_activation_with_losses`.

    Returns:
        As `visualize_activation_with_losses`.

    Raises:
        ValueError: If layer, filters or seed do not fit the model.

    Example:
        >>> image = visualize_activation(model, -1, filter_indices=20, max_iter=500)
    """
    model, modifiers = backprop_modifiers.applied(backprop_modifier, model)
    image, layer = graphs.model_input(model), models.find_layer(model, layer_idx)
    losses: Losses = [
        (ActivationMaximization(graphs.output_of(layer, model), filter_indices), act_max_weight),
        (LPNorm(image), lp_norm_weight),
        (TotalVariation(image), tv_weight),
    ]
    return visualize_activation_with_losses(
        image,
        losses,
        wrt_tensor,
        seed_input,
        input_range,
        backprop_modifier=modifiers,
        compat=compat,
        **({"grad_modifier": grad_modifier} | optimizer_params),
    )
