"""Class activation maps: a weighting of the activations of one layer, and nothing else.

This file is longer than others: every weighting stands in one place, to be read side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.explainers.explainer import Explainer
from kvis2.explainers.placement import placed
from kvis2.explainers.smooth_grad import Noise
from kvis2.models import Batch
from kvis2.passes import Method, Probe, Report, Trace, as_rows, repeated
from kvis2.traced import Seed
from kvis2.types import LayerReference, Tensors


class ClassActivationMap(Explainer):
    """Base of all class activation maps: `map = max(0, sum_k weights_k * A_k)`.

    `A` is the output of the watched layer, `(batch, *spatial, channels)`. A method says what
    the weights are. See `kvis2.Explainer` for the arguments that all share.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted. By default the last spatial feature
            map that the score depends on, at any depth (`cam.layer` says which it was).
        layers: Several layers in the place of `layer`: their maps, each divided by its maximum,
            are fused into one at the size of the input.
        fusion: How several layers are fused: "maximum" or "mean".
        per_step: Whether every time step has weights of its own, for a layer in a TimeDistributed
            or any whose first spatial axis is time. By default one weight is that of all steps.
        **options: `model_modifier`, `call_index`, `reshape`, `resize`, `normalize`,
            `batch_size`, `clone`, `jit_compile`, `pre_activation` and `verbose`, as for
            `Explainer`.
    """

    default_layer = models.LAST_SPATIAL
    signed = False
    """Whether evidence against the score stays in the map, below zero."""

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        layers: Sequence[LayerReference] | None = None,
        fusion: str = "maximum",
        per_step: bool = False,
        **options: Any,
    ) -> None:
        if layers is not None:
            layer = _first_of(layers, layer, fusion, options.get("resize", True))
        if options.get("fold_batch_norm") is None:
            options["fold_batch_norm"] = True
        super().__init__(model, layer, **options)
        found = [models.find_layer(self.model, each) for each in layers or ()]
        self.layers = [models.layer_path(self.model, each) for each in found] or None
        self.fusion = fusion
        if per_step and type(self).maps is not ClassActivationMap.maps:
            raise ValueError(
                f"Expected a method whose weights come from one trace, for `per_step`. Received: "
                f"{type(self).__name__}. Use GradCAM, LayerCAM, HiResCAM, XGradCAM or EigenCAM."
            )
        self.per_step = bool(per_step)

    def weights(self, trace: Trace) -> tf.Tensor:
        """What the activations are weighted by.

        Args:
            trace: One pass: activations and gradients `(batch, *spatial, channels)`.

        Returns:
            float32, broadcastable to the activations.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to weight.")

    def combine(self, trace: Trace) -> tf.Tensor:
        """The map `(batch, *spatial)` of one pass."""
        return self.weighted(self.weights(trace), trace.activations)

    def weighted(self, weights: tf.Tensor, activations: tf.Tensor) -> tf.Tensor:
        """The weighted sum over the channels, without its negative part unless `signed`."""
        maps = tf.reduce_sum(weights * activations, axis=-1)
        return maps if self.signed else tf.nn.relu(maps)

    def maps(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The combined map of the probe's layer, at the size of each input that the layer sees."""
        trace = probe(score, inputs)
        maps = self._step_by_step(trace) if self.per_step else self.combine(trace)
        return placed(maps, probe, inputs, self.settings.resize)

    def _step_by_step(self, trace: Trace) -> tf.Tensor:
        """The maps `(batch, time, *spatial)`, each step combined as if it were a sample."""
        shape = trace.activations.shape
        if shape.rank < 4:
            raise ValueError(
                "Expected a layer with an axis of time before those of space, for `per_step`. "
                f"Received: an output of shape {tuple(shape)}. Leave `per_step` out."
            )
        steps = [as_rows(x) for x in (trace.activations, trace.gradients)]
        maps = self.combine(trace._replace(activations=steps[0], gradients=steps[1]))
        whole = tf.concat([tf.shape(trace.activations)[:2], tf.shape(maps)[1:]], axis=0)
        return tf.ensure_shape(tf.reshape(maps, whole), shape[:-1])

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The map of the layer, or of several layers in one."""
        if self.layers is None:
            return self.maps(probe, score, inputs)
        each = [self.maps(probe.on_layer(layer), score, inputs) for layer in self.layers]
        return [_fused(maps, self.fusion) for maps in zip(*each, strict=True)]

    def _blank_cause(self, score: Any, batch: Batch, sample: int) -> str:
        if self.layer is None:
            return super()._blank_cause(score, batch, sample)
        return self._cause_at_layer(score, batch, sample)

    def _cause_at_layer(self, score: Any, batch: Batch, sample: int, gradients: bool = True) -> str:
        """Why the map is zero, by what is at the layer; `gradients` if the method takes them."""
        assert self.layer is not None
        evidence = _Evidence(self)
        evidence.results(score, batch.only(sample))
        path = models.layer_path(self.model, self.layer)
        if evidence.activation_peak[0] == 0:
            return f"the activations of '{path}' are all zero (its ReLUs are off)"
        if gradients and evidence.gradient_peak[0] == 0:
            return f"the gradient at '{path}' is zero; {super()._blank_cause(score, batch, 0)}"
        return f"all evidence at '{path}' is against this score, and the final ReLU removes it"


class _Evidence(Method):
    """The largest magnitudes at the layer of a map, to say why it is blank."""

    activation_peak = Report()
    gradient_peak = Report()

    def __init__(self, explainer: ClassActivationMap) -> None:
        self._look_as(explainer)

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor]:
        """The two peaks, `(batch,)` each."""
        trace = probe(score, inputs)
        axes = list(range(1, trace.activations.shape.rank))
        return [tf.reduce_max(tf.abs(x), axes) for x in (trace.activations, trace.gradients)]


def _spatial_axes(trace: Trace) -> list[int]:
    return list(range(1, trace.activations.shape.rank - 1))


def _first_of(layers: Any, layer: Any, fusion: str, resized: bool) -> LayerReference:
    """The first of several layers to fuse, having checked that they can be."""
    if isinstance(layers, str) or not layers or layer is not None:
        raise ValueError(
            "Expected `layers` to be a list of layers, and no `layer` beside it. Received: "
            f"layers={layers!r}, layer={layer!r}. Give for example ['block3_pool', 'block5_pool']."
        )
    if fusion not in ("maximum", "mean"):
        raise ValueError(
            f"Expected `fusion` to be 'maximum' or 'mean'. Received: {fusion!r}. "
            "The LayerCAM paper takes the maximum."
        )
    if not resized:
        raise ValueError(
            "Expected maps at the size of the input, to fuse those of several layers. Received: "
            "`resize=False`. Leave it out, or explain one layer at a time."
        )
    return layers[0]


def _fused(maps: Sequence[tf.Tensor | None], fusion: str) -> tf.Tensor | None:
    """The maximum or the mean of maps, each divided by its largest magnitude; None without any."""
    found = [_scaled(each) for each in maps if each is not None]
    if not found:
        return None
    over_layers = tf.reduce_max if fusion == "maximum" else tf.reduce_mean
    return over_layers(tf.stack(found), axis=0)


def _scaled(maps: tf.Tensor) -> tf.Tensor:
    """Every map divided by its largest magnitude; zeros stay zeros."""
    peaks = tf.reduce_max(tf.abs(maps), list(range(1, maps.shape.rank)), keepdims=True)
    return tf.math.divide_no_nan(maps, peaks)


class CAM(ClassActivationMap):
    r"""CAM: every channel weighted as the classifier weighs it after global average pooling.

    `map = sum_k w_k A_k`, with `w_k = d score / d (mean over space of A_k)`: for a model that ends
    in global average pooling and a dense layer, `w` is the column of the dense kernel. Signed:
    channels that speak against the class count below zero.

    Args:
        model: A built Keras model with global average pooling after the layer.
        layer: The layer whose activations are weighted; by default the last spatial one.
        **options: As for `kvis2.Explainer`.

    Raises:
        ValueError: If the score weighs positions of the layer differently, so that there is no
            one weight per channel. GradCAM takes the mean then.

    References:
        Zhou et al. (2016), Learning Deep Features for Discriminative Localization.
        https://arxiv.org/abs/1512.04150

    Example:
        >>> heatmaps = CAM(model)(243, images)
    """

    signed = True
    _unevenness = Report()

    def __init__(self, model: Any, layer: LayerReference | None = None, **options: Any) -> None:
        if options.get("layers") is not None:
            raise ValueError(
                "Expected one layer: the one that global average pooling follows. Received: "
                f"layers={options['layers']!r}. Use GradCAM or LayerCAM to fuse layers."
            )
        super().__init__(model, layer, **options)

    def weights(self, trace: Trace) -> tf.Tensor:
        """The gradient by the mean of every channel, `(batch, 1, ..., channels)`."""
        return tf.reduce_sum(trace.gradients, _spatial_axes(trace), keepdims=True)

    def maps(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The map, and by how much the gradients differ over space, relative to the largest."""
        trace = probe(score, inputs)
        maps = placed(self.combine(trace), probe, inputs, self.settings.resize)
        space = _spatial_axes(trace)
        span = tf.reduce_max(trace.gradients, space) - tf.reduce_min(trace.gradients, space)
        peak = tf.reduce_max(tf.abs(trace.gradients), [*space, trace.gradients.shape.rank - 1])
        return [*maps, tf.math.divide_no_nan(tf.reduce_max(span, axis=-1), peak)]

    def _check(self, maps: Sequence[np.ndarray | None], score: Any, batch: Batch) -> None:
        if (self._unevenness > 1e-3).any():
            assert self.layer is not None
            raise ValueError(
                "Expected a layer that only global average pooling and the classifier follow. "
                f"Received: '{models.layer_path(self.model, self.layer)}', whose positions the "
                "score weighs differently. Use GradCAM, which takes the mean over them."
            )
        super()._check(maps, score, batch)


class GradCAM(ClassActivationMap):
    r"""Grad-CAM: every channel weighted by its mean gradient.

    `map = max(0, sum_k alpha_k A_k)`, `alpha_k = mean over space of d score / d A_k`.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        **options: As for `kvis2.Explainer`.

    Raises:
        ValueError: If the layer is unknown, has no spatial axes, or does not move the score.

    References:
        Selvaraju et al. (2017), Grad-CAM: Visual Explanations from Deep Networks via
        Gradient-based Localization. https://arxiv.org/abs/1610.02391

    Example:
        >>> heatmaps = GradCAM(model, layer="block5_conv3")(243, images)
        >>> heatmaps.shape, float(heatmaps.max())
        ((8, 224, 224), 1.0)
    """

    def weights(self, trace: Trace) -> tf.Tensor:
        """The mean gradient of every channel, `(batch, 1, ..., channels)`."""
        return mean_gradients(trace)


def mean_gradients(trace: Trace) -> tf.Tensor:
    """The mean over space of the gradient of every channel, `(batch, 1, ..., channels)`."""
    return tf.reduce_mean(trace.gradients, _spatial_axes(trace), keepdims=True)


class GradCAMPlusPlus(ClassActivationMap):
    r"""Grad-CAM++: positive gradients, weighted so that every instance of the object counts.

    `map = max(0, sum_k w_k A_k)`, `w_k = sum over space of a_k max(0, G_k)`,
    `a_k = G_k^2 / (2 G_k^2 + (sum over space of A_k) G_k^3)`, with `G = d score / d A`. This is
    the paper's equation 19; its score is `exp(score)`, whose derivatives contribute one positive
    factor that cancels when a map is normalised.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        **options: As for `kvis2.Explainer`.

    References:
        Chattopadhay et al. (2018), Grad-CAM++: Generalized Gradient-based Visual Explanations
        for Deep Convolutional Networks. https://arxiv.org/abs/1710.11063

    Example:
        >>> heatmaps = GradCAMPlusPlus(model)(243, images)
    """

    def weights(self, trace: Trace) -> tf.Tensor:
        """The sum over space of alpha times the positive gradient, `(batch, 1, ..., channels)`."""
        space, gradients = _spatial_axes(trace), trace.gradients
        total = tf.reduce_sum(trace.activations, space, keepdims=True)
        # G^2 / (2 G^2 + A G^3) without its square, which is lost in float32 for small gradients.
        alpha = tf.math.divide_no_nan(1.0, 2.0 + total * gradients)
        alpha = tf.where(gradients == 0.0, 0.0, alpha)
        return tf.reduce_sum(alpha * tf.nn.relu(gradients), space, keepdims=True)


class SmoothGradCAMPlusPlus(ClassActivationMap):
    r"""Smooth Grad-CAM++: Grad-CAM++ with the powers of the gradient averaged over noisy inputs.

    `map = max(0, sum_k w_k A_k)`, `w_k = sum over space of a_k max(0, D1_k)`,
    `a_k = D2_k / (2 D2_k + (sum over space of A_k) D3_k)`, with `Dp` the mean over noisy inputs of
    `(d score / d A)^p` and `A` of the clean input.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        samples: Number of noisy copies of each image.
        noise: Standard deviation of the noise as a fraction of each image's range.
        seed: The same seed gives the same bytes on a CPU; None draws another at every call.
        **options: As for `kvis2.Explainer`.

    References:
        Omeiza et al. (2019), Smooth Grad-CAM++. https://arxiv.org/abs/1908.01224

    Example:
        >>> heatmaps = SmoothGradCAMPlusPlus(model, samples=20)(243, images)
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        samples: int = 20,
        noise: float = 0.15,
        seed: int | None = 0,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        self.noise = Noise(samples, noise)
        self.seed = Seed(seed)

    def maps(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The map with weights from noisy gradients."""
        score = probe.fixed(score, inputs)
        clean = probe(score, inputs)
        axes = list(range(1, clean.gradients.shape.rank))
        # Powers of gradients leave the range of float32, so they are taken of G / max |G|.
        peak = tf.reduce_max(tf.abs(clean.gradients), axes, keepdims=True)
        peak = tf.where(peak > 0.0, peak, 1.0)

        def powers(score: Any, noisy: Tensors) -> Tensors:
            gradients = probe(score, noisy).gradients
            copies = tf.shape(gradients)[0] // tf.shape(peak)[0]
            relative = gradients / repeated(peak, copies)
            return [relative, relative**2, relative**3]

        sums = self.noise.sums(powers, score, inputs, self.seed, self.rows, self.settings.verbose)
        first, second, third = (each / self.noise.samples for each in sums)  # type: ignore[operator]
        space = _spatial_axes(clean)
        total = tf.reduce_sum(clean.activations, space, keepdims=True)
        alpha = tf.math.divide_no_nan(second, 2.0 * second + total * peak * third)
        weights = tf.reduce_sum(alpha * tf.nn.relu(first) * peak, space, keepdims=True)
        maps = self.weighted(weights, clean.activations)
        return placed(maps, probe, inputs, self.settings.resize)


class LayerCAM(ClassActivationMap):
    r"""LayerCAM: every position weighted by its own positive gradient.

    `map = max(0, sum_k max(0, d score / d A_k) A_k)`. Works at shallow layers as well; the paper
    scales their maps by `tanh(scale * map / max(map))` and fuses layers by the maximum.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        scale: Scales the map by a hyperbolic tangent, which lifts its weak parts; the paper
            takes 2 at shallow layers. None leaves the map as it is.
        **options: As for `kvis2.Explainer`; `layers=[...]` fuses several layers.

    References:
        Jiang et al. (2021), LayerCAM: Exploring Hierarchical Class Activation Maps for
        Localization. https://doi.org/10.1109/TIP.2021.3089943

    Example:
        >>> heatmaps = LayerCAM(model, layers=["block3_pool", "block5_pool"], scale=2)(243, images)
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        scale: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        if scale is not None and not scale > 0:
            raise ValueError(
                f"Expected `scale` to be a positive number or None. Received: {scale!r}. "
                "The paper takes 2."
            )
        self.scale = None if scale is None else np.asarray(scale, np.float32)

    def weights(self, trace: Trace) -> tf.Tensor:
        """The positive part of the gradient."""
        return tf.nn.relu(trace.gradients)

    def combine(self, trace: Trace) -> tf.Tensor:
        """The map, scaled if so asked."""
        maps = super().combine(trace)
        return maps if self.scale is None else tf.tanh(self.scale * _scaled(maps))


class XGradCAM(ClassActivationMap):
    r"""XGrad-CAM: every channel weighted by its gradient where it is active.

    `map = max(0, sum_k w_k A_k)`, `w_k = sum over space of A_k G_k / sum over space of A_k`, with
    `G = d score / d A`. The weights that fit the score best under the paper's two axioms.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        **options: As for `kvis2.Explainer`.

    References:
        Fu et al. (2020), Axiom-based Grad-CAM. https://arxiv.org/abs/2008.02312

    Example:
        >>> heatmaps = XGradCAM(model)(243, images)
    """

    def weights(self, trace: Trace) -> tf.Tensor:
        """The mean gradient of every channel, weighted by its activation."""
        space, activations = _spatial_axes(trace), trace.activations
        evidence = tf.reduce_sum(activations * trace.gradients, space, keepdims=True)
        return tf.math.divide_no_nan(evidence, tf.reduce_sum(activations, space, keepdims=True))


class HiResCAM(ClassActivationMap):
    r"""HiResCAM: every position weighted by its own gradient.

    `map = sum_k (d score / d A_k) A_k`, signed. Where global average pooling or a flattened dense
    layer follows, the sum of the map is the score up to the bias: it shows what the model used.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        **options: As for `kvis2.Explainer`.

    References:
        Draelos and Carin (2020), Use HiResCAM instead of Grad-CAM for faithful explanations of
        convolutional neural networks. https://arxiv.org/abs/2011.08891

    Example:
        >>> heatmaps = HiResCAM(model)(243, images)
    """

    signed = True

    def weights(self, trace: Trace) -> tf.Tensor:
        """The gradient."""
        return trace.gradients
