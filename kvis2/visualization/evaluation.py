"""Losses of symbolic tensors as a model and its scores: what the explainers can take.

The losses become the outputs of a functional model over the user's layers, each with a score that
weights it. Saliency and Grad-CAM explain this model as any other; `Evaluation` is the pass that
the optimiser repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kvis2.models import Batch, output_count
from kvis2.passes import Method, Probe
from kvis2.regularizers import NormalizeGradient
from kvis2.scores import Score, as_scores
from kvis2.types import Tensors
from kvis2.visualization import graphs
from kvis2.visualization.losses import Loss

Losses = Sequence[tuple[Loss, float | None]]


class _Weighted(Score):
    """A loss, which is an output of the model already, times its weight."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, output: tf.Tensor) -> tf.Tensor:
        """One number for the whole batch, as losses are."""
        return self.weight * output


class LossModel(NamedTuple):
    """Losses as outputs of a model.

    Attributes:
        model: From the input tensor to one scalar for each loss; its weights are live.
        scores: What weights each output.
        names: The names of the losses.
    """

    model: keras.Model
    scores: list[Score]
    names: list[str]

    @classmethod
    def of(cls, input_tensor: Any, losses: Losses) -> LossModel:
        """Build all losses whose weight is not zero.

        Raises:
            ValueError: If all weights are zero, or a loss does not depend on the input tensor.
        """
        used = [(loss, float(weight)) for loss, weight in losses if weight]
        if not used:
            raise ValueError(
                "Expected a loss with a weight that is not zero. Received: "
                f"{[(str(loss), weight) for loss, weight in losses]}. Give for example "
                "`[(ActivationMaximization(model.layers[-1], 20), 1)]`."
            )
        # The sum makes a scalar of what a loss builds, and hides a softmax that it ends in.
        built = [keras.ops.sum(loss.build_loss()) for loss, _ in used]
        try:
            model = keras.Model(graphs.single_input(input_tensor), built)
        except ValueError as error:
            raise ValueError(
                "Expected losses that are computed from the input tensor. Received: "
                f"{[str(loss) for loss, _ in used]} ({str(error).splitlines()[0]}). Take input and "
                "layers from the same model."
            ) from error
        return cls(
            model, [_Weighted(weight) for _, weight in used], [str(loss) for loss, _ in used]
        )


def watching(
    wrt_tensor: keras.KerasTensor | None, input_tensor: keras.KerasTensor, model: keras.Model
) -> dict[str, Any]:
    """The options that make an explainer of `model` differentiate by a symbolic tensor.

    Args:
        wrt_tensor: The output of a layer; None, or the input itself, for the input.
        input_tensor: The input of `model`.
        model: A model between the two.
    """
    if wrt_tensor is None or wrt_tensor is input_tensor:
        return {}
    layer, call_index = graphs.call_of(graphs.single_input(wrt_tensor), model)
    # A vector has no space to bring to the end; it is taken as it is.
    reshape = _unchanged if len(wrt_tensor.shape) < 3 else None
    return {"layer": layer, "call_index": call_index, "reshape": reshape}


def _unchanged(activations: tf.Tensor) -> tf.Tensor:
    return activations


class Evaluation(Method):
    """Weighted losses, the value of a tensor and their gradient by it, for a whole batch at once.

    Args:
        model: The model of a `LossModel`.
        norm_grads: Whether the gradient is divided by its Euclidean norm.
        norm_per_sample: Whether by each sample's own, rather than that of the batch.
        **options: As for `kvis2.Explainer`.

    """

    def __init__(
        self, model: keras.Model, *, norm_grads: bool, norm_per_sample: bool, **options: Any
    ) -> None:
        super().__init__(model, **options)
        self.norm_grads = norm_grads
        self.norm_per_sample = norm_per_sample

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor]:
        """What `measured` returns."""
        trace = probe(score, inputs)
        on_input = probe.layer is None
        values = trace.activations[0] if on_input else trace.activations
        gradient = trace.gradients[0] if on_input else trace.gradients
        if gradient is None:
            raise ValueError(
                "Expected a loss with a gradient by the input. Received: losses without one. Look "
                "for a step that has none (rounding, argmax, a cast to integers)."
            )
        losses = [part(output) for part, output in zip(score, trace.outputs, strict=True)]
        if self.norm_grads:
            gradient = self._normalized(gradient)
        return [tf.stack(losses), values, gradient]

    def measured(
        self, weighted: Sequence[Score], images: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Losses, values and gradient for a whole batch in one pass.

        Args:
            weighted: The scores of the `LossModel`.
            images: What the model takes, `(batch, ...)`.

        Returns:
            float32: the weighted losses `(losses,)`, the tensor `(batch, ...)`, and the gradient of
            the sum of the losses in the same shape.
        """
        batch = Batch(self.model, images)
        if batch.fixed not in (None, batch.size):
            raise ValueError(
                f"Expected {batch.fixed} samples, which '{self.model.name}' declares "
                f"(`batch_shape`), for losses over the whole batch. Received: {batch.size}. "
                "Give as many."
            )
        score = as_scores(weighted, batch.size, output_count(self.model))
        ((losses, values, gradient),) = self.chunks(score, batch, batch.size)
        assert losses is not None
        assert values is not None
        assert gradient is not None
        return losses, values, gradient

    def _normalized(self, gradient: tf.Tensor) -> tf.Tensor:
        if self.norm_per_sample:
            return NormalizeGradient()(gradient)
        return NormalizeGradient()(gradient[None])[0]
