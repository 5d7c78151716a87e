"""ShapleyCAM: Grad-CAM corrected by the curvature of the score."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from kvis2.explainers.cam import ClassActivationMap
from kvis2.explainers.placement import placed
from kvis2.passes import Probe
from kvis2.types import Tensors


class ShapleyCAM(ClassActivationMap):
    r"""ShapleyCAM: every channel weighted by the Shapley value that a second-order expansion gives.

    `map = max(0, sum_k w_k A_k)`, `w_k = mean over space of (G - 1/2 H A)_k`, with `G` the gradient
    and `H` the Hessian of the score by the layer's output `A`: one product of the two, no Hessian.
    A score that is piecewise linear in the layer, as the logit of a network of ReLUs, has `H = 0`:
    the map is then Grad-CAM's. The authors take `ReSTScore`, which has curvature in every network.

    Args:
        model: Any built Keras model that can be traced into a graph.
        layer: The layer whose activations are weighted; by default the last spatial one.
        **options: As for `kvis2.Explainer`.

    References:
        Huaiguang Cai (2025), CAMs as Shapley Value-based Explainers.
        https://arxiv.org/abs/2501.06261

    Example:
        >>> heatmaps = ShapleyCAM(model)(ReSTScore(243), images)
    """

    def maps(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The map, with weights from gradients and curvature."""
        trace = probe(score, inputs)
        space = list(range(1, trace.activations.shape.rank - 1))
        corrected = trace.gradients - 0.5 * probe.curvature()
        weights = tf.reduce_mean(corrected, space, keepdims=True)
        maps = self.weighted(weights, trace.activations)
        return placed(maps, probe, inputs, self.settings.resize)
