"""Conductance: what flows through the units of a layer on the way from a baseline to the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kvis2 import models, scores
from kvis2.explainers.baselines import Paths
from kvis2.explainers.integrated_gradients import SteppedAttribution
from kvis2.passes import Probe, added_up, row_indices, total
from kvis2.types import Tensors


class LayerConductance(SteppedAttribution):
    r"""Conductance: integrated gradients of the input, as they flow through the units of a layer.

    `a = sum over steps j of (g_j + g_(j+1)) / 2 * (y_(j+1) - y_j)`, `y_j` the layer's output for
    the input `b + j / steps (x - b)` and `g_j` the gradient by it; `map = sum over channels of a`.
    Where everything passes the layer the attributions add up to `score(x) - score(b)`. The line
    lies in the input; `IntegratedGradients(model, layer)` takes one between the layer's outputs,
    which no input need have.

    Args:
        model: Any built Keras model with inputs of floats.
        layer: The layer whose units are asked for, at any depth; by default the last spatial one.
        baseline: As for `IntegratedGradients`: None for zeros, a number, several, "blur", or
            arrays.
        steps: Number of steps on each path, 1 or more.
        reduce: How the channels become one map; "signed" (sum) keeps the total.
        keepdims: Keep the channels: one number for each unit at each position.
        **options: As for `kvis2.Explainer`.

    Attributes:
        completeness_gap: After a call, `|sum a - (score(x) - score(b))| / |score(x) - score(b)|` of
            every sample.

    References:
        Dhamdhere et al. (2019), How Important Is a Neuron? https://arxiv.org/abs/1805.12233

    Example:
        >>> maps = LayerConductance(model, "block6_add")(243, images)
    """

    default_layer = models.LAST_SPATIAL

    def _paths(self, probe: Probe, score: Any, inputs: Tensors) -> Paths:
        paths = Paths(self.baselines, probe, score, inputs)
        if all(each is None for each in paths.starts):
            kinds = ", ".join(each.dtype.name for each in inputs)
            raise ValueError(
                "Expected an input of floats, to lay a line to. Received: inputs of type "
                f"{kinds}. Use IntegratedGradients at the embedding."
            )
        return paths

    def attributions(self, probe: Probe, score: Any, inputs: Tensors) -> Sequence[tf.Tensor | None]:
        """What flows through each unit, `(batch, *spatial, channels)`, as a list of one."""
        score = probe.fixed(score, inputs)
        paths = self._paths(probe, score, inputs)
        baselines = self.baselines.count

        def chunk_total(indices: tf.Tensor) -> list[tf.Tensor | None]:
            chosen, step = indices // self.steps, tf.cast(indices % self.steps, tf.float32)
            copies = tf.shape(indices)[0]
            taken = scores.take(score, row_indices(inputs[0], copies))
            here = probe(taken, paths.at(chosen, step / self.steps)[0])
            there = probe(taken, paths.at(chosen, (step + 1.0) / self.steps)[0])
            slopes = (here.gradients + there.gradients) / (2.0 * baselines)
            return [added_up(slopes * (there.activations - here.activations), copies)]

        count = self.steps * baselines
        return total(count, self.rows, inputs[0], chunk_total, self.settings.verbose)
