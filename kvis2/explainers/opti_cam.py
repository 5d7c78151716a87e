"""Opti-CAM: the weights of the channels, optimised for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2.explainers.cam import ClassActivationMap
from kvis2.explainers.placement import feeds, placed
from kvis2.explainers.score_cam import mask_of, seen_through
from kvis2.passes import Probe, reported
from kvis2.types import LayerReference, Tensors


class OptiCAM(ClassActivationMap):
    r"""Opti-CAM: the weights whose map shows the model what its score needs.

    `map = sum_k w_k A_k`, `w = softmax(u)`, `u` the best by `objective`, which is asked of
    `score(x * minmax(upsampled map))`; found for each image by Adam from equal weights. Each step
    costs a forward and a backward pass. It can find masks that no object explains.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        steps: Number of steps; the paper takes 100.
        learning_rate: Size of the steps; the paper takes 0.1.
        objective: "maximum" raises the score of what is shown, the paper's equation; "match"
            brings it to the score of the whole image, `-|score(x) - score(x * mask)|`, the default
            of the authors' code, which leaves less to masks that only fool the model.
        **options: As for `kvis2.Explainer`.

    References:
        Zhang et al. (2024), Opti-CAM: Optimizing saliency maps for interpretability.
        https://arxiv.org/abs/2301.07002

    Example:
        >>> heatmaps = OptiCAM(model)(243, images)
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        steps: int = 100,
        learning_rate: float = 0.1,
        objective: str = "match",
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(
                f"Expected `steps` to be a positive int. Received: {steps!r}. The paper takes 100."
            )
        if not learning_rate > 0:
            raise ValueError(
                f"Expected `learning_rate` above 0. Received: {learning_rate!r}. "
                "The paper takes 0.1."
            )
        if objective not in ("match", "maximum"):
            raise ValueError(
                f"Expected `objective` to be 'match' or 'maximum'. Received: {objective!r}. "
                "The paper's equation is 'maximum', its code's default 'match'."
            )
        self.steps = steps
        self.objective = objective
        self.learning_rate = np.asarray(learning_rate, np.float32)

    def maps(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The map after the last step."""
        _check_floats(inputs)
        score = probe.fixed(score, inputs)
        activations, own = probe.activations(score, inputs)
        rank = activations.shape.rank - 2
        masks = [
            mask_of(rank, probe, inputs, i) if feeds(x, probe, inputs) else None
            for i, x in enumerate(inputs)
        ]

        def map_of(logits: tf.Tensor) -> tf.Tensor:
            shape = [tf.shape(logits)[0], *[1] * rank, tf.shape(logits)[1]]
            return self.weighted(tf.reshape(tf.nn.softmax(logits), shape), activations)

        def objective(sources: Tensors) -> tuple[tf.Tensor, None]:
            found = map_of(sources[0])
            seen = [
                x if mask is None else seen_through(mask(found), x)
                for x, mask in zip(inputs, masks, strict=True)
            ]
            shown = probe.scores(score, seen)
            if self.objective == "match":
                shown = -tf.abs(own - shown)
            return tf.reduce_sum(shown), None

        def step(number: tf.Tensor, logits: tf.Tensor, *moments: tf.Tensor) -> tuple[Any, ...]:
            _, (gradient,) = probe.gradients(objective, [logits])
            move, *kept = _adam_move(gradient, number, moments)
            logits += self.learning_rate * move
            done = number + 1
            if self.settings.verbose:
                with tf.control_dependencies([logits]):
                    done = reported(done, self.steps)
            return done, logits, *kept

        zeros = tf.zeros_like(tf.reduce_mean(activations, list(range(1, rank + 1))))
        logits = tf.while_loop(
            lambda number, *_: number < self.steps,
            step,
            (tf.constant(0), zeros, zeros, zeros),
            parallel_iterations=1,
        )[1]
        return placed(map_of(logits), probe, inputs, self.settings.resize)


def _check_floats(inputs: Tensors) -> None:
    """Raise for inputs that no mask can be applied to by degrees."""
    if not any(each.dtype.is_floating for each in inputs):
        kinds = ", ".join(each.dtype.name for each in inputs)
        raise ValueError(
            "Expected an input of floating numbers, to be masked by degrees. Received: "
            f"{kinds}. Use ScoreCAM, GradCAM or LayerCAM."
        )


def _adam_move(
    gradient: tf.Tensor, number: tf.Tensor, moments: Sequence[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The direction of a step of Adam, and its two moments."""
    first = 0.9 * moments[0] + 0.1 * gradient
    second = 0.999 * moments[1] + 0.001 * tf.square(gradient)
    time = tf.cast(number + 1, tf.float32)
    move = (first / (1.0 - 0.9**time)) / (tf.sqrt(second / (1.0 - 0.999**time)) + 1e-8)
    return move, first, second
