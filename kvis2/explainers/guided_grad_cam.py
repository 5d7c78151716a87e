"""Guided Grad-CAM: where the class is, at the resolution of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kvis2 import models
from kvis2.explainers.cam import mean_gradients
from kvis2.explainers.placement import channel_axis, placed
from kvis2.explainers.saliency import Attribution, gradients_of
from kvis2.models import GuidedReLU
from kvis2.passes import Probe
from kvis2.types import LayerReference, Tensors


class GuidedGradCAM(Attribution):
    r"""Guided Grad-CAM: the Grad-CAM map times the guided gradient.

    `map = max over channels of |resize(max(0, sum_k alpha_k A_k)) * g|`, `alpha_k` the mean
    gradient of channel k and `g` the gradient by the input with `GuidedReLU`. Fine lines come from
    guided backpropagation, which hardly depends on the upper layers' weights and fails the sanity
    checks of Adebayo et al. (2018); the place comes from Grad-CAM, which passes them.

    Args:
        model: A built Keras model with ReLU activations.
        layer: The layer of the Grad-CAM map; by default the last spatial one.
        activations: Which activations are guided: "relu", "relu6", "leaky_relu".
        reduce: How the channels become one map: "absolute" (largest magnitude), "absolute_sum"
            (sum of the magnitudes), "signed" (sum), "positive" or "negative" (largest such part).
        keepdims: Keep the channels: signed unless `reduce` says otherwise.
        **options: As for `kvis2.Explainer`.

    References:
        Selvaraju et al. (2017), Grad-CAM. https://arxiv.org/abs/1610.02391
        Adebayo et al. (2018), Sanity Checks for Saliency Maps. https://arxiv.org/abs/1810.03292

    Example:
        >>> maps = GuidedGradCAM(model, layer="block5_conv3")(243, images)
    """

    default_layer = models.LAST_SPATIAL

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        activations: tuple[str, ...] = ("relu", "relu6"),
        reduce: str | None = None,
        keepdims: bool = False,
        **options: Any,
    ) -> None:
        reduce = reduce or ("signed" if keepdims else "absolute")
        super().__init__(model, layer, reduce=reduce, keepdims=keepdims, **options)
        self.guided = GuidedReLU(activations)

    def attributions(self, probe: Probe, score: Any, inputs: Tensors) -> Sequence[tf.Tensor | None]:
        """The product for every value of each input that the layer sees."""
        score = probe.fixed(score, inputs)
        trace = probe(score, inputs)
        cam = tf.nn.relu(tf.reduce_sum(mean_gradients(trace) * trace.activations, axis=-1))
        maps = placed(cam, probe, inputs, True)
        gradients = gradients_of(probe.on_inputs(self.guided), score, inputs)
        return [
            None if m is None or g is None else g * _over(m, channel_axis(probe, inputs, i))
            for i, (m, g) in enumerate(zip(maps, gradients, strict=True))
        ]

    def reduced(
        self, attributions: Sequence[tf.Tensor | None], probe: Probe, inputs: Tensors
    ) -> list[tf.Tensor | None]:
        """One map for each input, without its channels unless `keepdims`."""
        return super().reduced(attributions, probe.on_inputs(), inputs)


def _over(maps: tf.Tensor, axis: int | None) -> tf.Tensor:
    """Maps with an axis for the channels of their input, where it has them."""
    return maps if axis is None else tf.expand_dims(maps, axis)
