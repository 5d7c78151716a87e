"""Gradient descent on the input, with user losses, modifiers and callbacks at every step.

`kvis2.ActivationMaximization` runs its loop on the device. Here the loop is in Python around one
compiled evaluation: callbacks see every step before its update, and gradient and input modifiers
are functions of NumPy arrays.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kvis2.ascent import KerasVisRMSProp
from kvis2.visualization import arrays, backprop_modifiers, grad_modifiers, graphs
from kvis2.visualization.callbacks import OptimizerCallback, Print
from kvis2.visualization.evaluation import Evaluation, Losses, LossModel, watching
from kvis2.visualization.identifiers import is_original, named
from kvis2.visualization.input_modifiers import InputModifier

_DEPROCESSING: dict[str, Callable[[np.ndarray, arrays.InputRange], np.ndarray]] = {
    "standard": arrays.deprocess_input,
    "clip": lambda image, input_range: np.clip(image, *input_range),
    "none": lambda image, input_range: image,
}


class Optimizer:
    """Minimises `L = sum_j weight_j loss_j` over the input by RMSProp without a learning rate.

    With g the gradient of L divided by its norm: `c <- 0.95 c + 0.05 g^2`,
    `x <- x - g / sqrt(c + eps)`, c = 0 at first.

    Args:
        input_tensor: The symbolic input, `model.inputs[0]`.
        losses: Pairs (loss, weight); a weight of 0 or None leaves a loss out.
        input_range: Lowest and highest value of the input.
        wrt_tensor: Differentiate by this symbolic tensor instead; then nothing is updated, and
            one evaluation is all there is to do.
        norm_grads: Whether g is divided by its norm, that of each sample.
        backprop_modifier: "guided", "rectified", or another of
            `kvis2.visualization.backprop_modifiers`; not a function.
        compat: "keras-vis" for the numbers of the original: one norm for the whole batch, and the
            image one step after the best for the best.

    Attributes:
        input_tensor: The symbolic input.
        input_range: Lowest and highest value of the input.
        wrt_tensor: What is differentiated by.
        wrt_tensor_is_input_tensor: Whether that is the input, which is then optimised.

    Raises:
        ValueError: If no loss has a weight, or one does not depend on the input.

    Example:
        >>> losses = [
        ...     (ActivationMaximization(model.layers[-1], 20), 2),
        ...     (LPNorm(model.inputs[0]), 10),
        ...     (TotalVariation(model.inputs[0]), 10),
        ... ]
        >>> image, gradient, value = Optimizer(model.inputs[0], losses).minimize(max_iter=500)
    """

    def __init__(
        self,
        input_tensor: Any,
        losses: Losses,
        input_range: arrays.InputRange = (0, 255),
        wrt_tensor: keras.KerasTensor | None = None,
        norm_grads: bool = True,
        *,
        backprop_modifier: Any = None,
        compat: str | None = None,
    ) -> None:
        low, high = input_range
        if not low < high:
            raise ValueError(
                f"Expected an `input_range` (lowest, highest). Received: {input_range!r}. "
                "Give the range that the model was trained on."
            )
        self.input_tensor = graphs.single_input(input_tensor)
        self.input_range = input_range
        self._is_original = is_original(compat)
        model, self._scores, self.names = LossModel.of(self.input_tensor, losses)
        watched = watching(wrt_tensor, self.input_tensor, model)
        self.optimizes_input = not watched
        self.wrt_tensor = wrt_tensor if watched else self.input_tensor
        self.wrt_tensor_is_input_tensor = self.optimizes_input
        self._evaluation = Evaluation(
            model,
            norm_grads=norm_grads,
            norm_per_sample=not self._is_original,
            model_modifier=backprop_modifiers.of_pass(backprop_modifier),
            **watched,
        )

    def minimize(
        self,
        seed_input: Any = None,
        max_iter: int = 200,
        input_modifiers: Sequence[InputModifier] | None = None,
        grad_modifier: str | grad_modifiers.GradientModifier | None = None,
        callbacks: Sequence[OptimizerCallback] | None = None,
        verbose: bool = True,
        *,
        shape: Sequence[int] | None = None,
        learning_rate: float = 1.0,
        scale_steps_to_range: bool = True,
        deprocess: str = "standard",
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run the descent.

        Args:
            seed_input: The input to start from, with or without a batch axis; by default noise
                around the middle of the input range.
            max_iter: The number of steps.
            input_modifiers: What is done to the input before each step (in order) and after it
                (in reverse), such as `Jitter()`.
            grad_modifier: What is done to the gradient: "negate", "absolute", "invert", "relu",
                "small_values", or a function of arrays.
            callbacks: Called at every step with the numbers before its update.
            verbose: Whether to print the losses of every step.
            shape: Shape of one input, for a model that leaves it open.
            learning_rate: What the steps are multiplied by.
            scale_steps_to_range: Whether steps are scaled by `(hi - lo) / 255` as well; with
                `compat="keras-vis"` they are not.
            deprocess: "standard" centres the contrast of the result (`deprocess_input`), "clip"
                cuts it to the input range, "none" leaves it.

        Returns:
            The input at which the lowest loss was measured, deprocessed, without a batch axis if
            the seed had none; the gradient of the last step, modified; and the value of the
            tensor differentiated by at the last step.

        Raises:
            ValueError: If the loss or its gradient is not finite, or `max_iter` is below 1.
        """
        self._check(max_iter)
        finished = named(deprocess, _DEPROCESSING, "deprocessing")
        modify = grad_modifiers.get(grad_modifier)
        modifiers = list(input_modifiers or [])
        watchers = [*(callbacks or []), *([Print()] if verbose else [])]
        low, high = self.input_range
        scales = scale_steps_to_range and not self._is_original
        scale = (high - low) / 255.0 if scales else 1.0
        rule = KerasVisRMSProp(learning_rate * scale, epsilon=keras.config.epsilon())

        x, is_batch = self._seed(seed_input, shape)
        best, lowest, cache = x, np.inf, np.zeros_like(x)
        with contextlib.ExitStack() as stack:
            for watcher in watchers:  # A file is closed even when a step fails.
                stack.callback(watcher.on_end)
            for step in range(max_iter):
                for modifier in modifiers:
                    x = modifier.pre(x)
                measured = x
                losses, gradient, value = self._evaluate(x, step)
                total = float(losses.sum())
                gradient = np.asarray(modify(gradient), np.float32)
                for watcher in watchers:
                    watcher.callback(step, self._named(losses), total, gradient, value)
                if self.optimizes_input:
                    [x], [cache] = _arrays(rule.step([x], [gradient], [cache]))
                for modifier in reversed(modifiers):
                    x = modifier.post(x)
                if total < lowest:
                    best, lowest = (x if self._is_original else measured), total
        images = [finished(each, self.input_range) for each in best]
        return (np.stack(images) if is_batch else images[0]), gradient, value

    def _check(self, max_iter: int) -> None:
        if max_iter < 1:
            raise ValueError(
                f"Expected `max_iter` of at least 1. Received: {max_iter}. Give for example 200."
            )
        if max_iter > 1 and not self.optimizes_input:
            raise ValueError(
                "Expected the input to be optimised. Received: another `wrt_tensor` and "
                f"`max_iter={max_iter}`: without updates every step is the same. Leave "
                "`wrt_tensor` out, or evaluate once with `max_iter=1`."
            )

    def _evaluate(self, x: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        losses, values, gradient = self._evaluation.measured(self._scores, x)
        for name, found in (("loss", losses), ("gradient", gradient)):
            if not np.isfinite(found).all():
                raise ValueError(
                    f"Expected a finite {name}. Received: NaN or infinity at step {step + 1}, "
                    f"with losses {self._named(losses)}. Start from another seed, take "
                    "smaller steps (`learning_rate`), or look for the loss that has none."
                )
        return losses, gradient, values

    def _named(self, losses: np.ndarray) -> list[tuple[str, float]]:
        return [(name, float(loss)) for name, loss in zip(self.names, losses, strict=True)]

    def _seed(self, seed_input: Any, shape: Sequence[int] | None) -> tuple[np.ndarray, bool]:
        """The first input, `(batch, ...)`, and whether a batch was asked for."""
        expected = tuple(self.input_tensor.shape[1:]) if shape is None else tuple(shape)
        if seed_input is not None:
            return as_batch(seed_input, expected)
        if None in expected:
            raise ValueError(
                "Expected a model with a fixed input size, or `shape=` or `seed_input=` to say it. "
                f"Received: an input of shape {expected}. Give for example `shape=(224, 224, 3)`."
            )
        low, high = self.input_range
        noise = arrays.random_array((1, *expected), (low + high) / 2, 0.05 * (high - low))
        return noise.astype(np.float32), False


def as_batch(seed_input: Any, expected: Sequence[int | None]) -> tuple[np.ndarray, bool]:
    """A copy of a user's input with a batch axis and the channels where the model has them.

    Args:
        seed_input: With or without a batch axis.
        expected: The shape of one input of the model.

    Returns:
        float32 `(batch, ...)`, and whether the input had the batch axis.
    """
    array = np.array(seed_input, np.float32)
    is_batch = array.ndim != len(expected)
    if not is_batch:
        array = array[None]
    if array.ndim > 2 and array.ndim == len(expected) + 1 and not _fits(array, expected):
        for source, target in ((-1, 1), (1, -1)):
            moved = np.moveaxis(array, source, target)
            if _fits(moved, expected):
                return moved, is_batch
    return array, is_batch


def _fits(array: np.ndarray, expected: Sequence[int | None]) -> bool:
    return all(n in (None, size) for n, size in zip(expected, array.shape[1:], strict=True))


def _arrays(tensors: Any) -> Any:
    return keras.tree.map_structure(np.asarray, tensors)
