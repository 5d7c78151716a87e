"""Class activation maps: a weighting of the activations of one layer, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from kvis2 import scores, targets
from kvis2.explainer import Explainer, feeds, placed, spatial_size
from kvis2.inputs import Batch
from kvis2.probe import Probe, Trace
from kvis2.resampling import resize
from kvis2.types import LayerReference, Tensors


class CAM(Explainer):
    """Base of all class activation maps: `map = max(0, sum_k weights_k * A_k)`.

    `A` is the output of the watched layer, `(batch, *spatial, channels)`. A method says what
    the weights are. See `kvis2.explainer.Explainer` for the arguments that all share.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted. By default the last spatial feature
            map that the score depends on, at any depth (`cam.layer` says which it was).
        **options: `model_modifier`, `call_index`, `reshape`, `resize`, `normalize`,
            `batch_size`, `clone` and `jit_compile`, as for `Explainer`.
    """

    watches_layer = True
    folds_batch_norm = True

    def __init__(self, model: Any, layer: LayerReference | None = None, **options: Any) -> None:
        super().__init__(model, layer, **options)

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
        return tf.nn.relu(tf.reduce_sum(self.weights(trace) * trace.activations, axis=-1))

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The combined map, at the size of each input that the layer sees."""
        trace = probe(score, inputs)
        return placed(self.combine(trace), trace.activations, probe, inputs, self.resize)

    def _blank_cause(self, score: Any, batch: Batch, sample: int) -> str:
        evidence = _Evidence(
            self.model,
            self.layer,
            model_modifier=self.modifiers,
            fold_batch_norm=False,
            call_index=self.call_index,
            reshape=self.reshape,
            pre_activation=self.pre_activation,
        )
        evidence._maps(score, batch.only(sample))
        assert self.layer is not None
        path = targets.layer_path(self.model, self.layer)
        if evidence.activation_peak[0] == 0:
            return f"the activations of '{path}' are all zero (its ReLUs are off)"
        if evidence.gradient_peak[0] == 0:
            return f"the gradient at '{path}' is zero; {super()._blank_cause(score, batch, 0)}"
        return f"all evidence at '{path}' is against this score, and the final ReLU removes it"


class _Evidence(CAM):
    """The largest magnitudes at a layer, to say why a map is blank."""

    reports = ("activation_peak", "gradient_peak")
    activation_peak: np.ndarray
    gradient_peak: np.ndarray

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """No map; the two peaks, `(batch,)` each."""
        trace = probe(score, inputs)
        axes = list(range(1, trace.activations.shape.rank))
        peaks = [tf.reduce_max(tf.abs(x), axes) for x in (trace.activations, trace.gradients)]
        return [*(None for _ in inputs), *peaks]


def _spatial_axes(trace: Trace) -> list[int]:
    return list(range(1, trace.activations.shape.rank - 1))


class GradCAM(CAM):
    r"""Grad-CAM: every channel weighted by its mean gradient.

    `map = max(0, sum_k alpha_k A_k)`, `alpha_k = mean over space of d score / d A_k`.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        **options: As for `kvis2.explainer.Explainer`.

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
        return tf.reduce_mean(trace.gradients, _spatial_axes(trace), keepdims=True)


class GradCAMPlusPlus(CAM):
    r"""Grad-CAM++: positive gradients, weighted so that every instance of the object counts.

    `map = max(0, sum_k w_k A_k)`, `w_k = sum over space of a_k max(0, G_k)`,
    `a_k = G_k^2 / (2 G_k^2 + (sum over space of A_k) G_k^3)`, with `G = d score / d A`. This is
    the paper's equation 19; its score is `exp(score)`, whose derivatives contribute one positive
    factor that cancels when a map is normalised.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        **options: As for `kvis2.explainer.Explainer`.

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


class LayerCAM(CAM):
    r"""LayerCAM: every position weighted by its own positive gradient.

    `map = max(0, sum_k max(0, d score / d A_k) A_k)`. Works at shallow layers as well.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        **options: As for `kvis2.explainer.Explainer`.

    References:
        Jiang et al. (2021), LayerCAM: Exploring Hierarchical Class Activation Maps for
        Localization. https://doi.org/10.1109/TIP.2021.3089943

    Example:
        >>> heatmaps = LayerCAM(model, layer="block3_pool")(243, images)
    """

    def weights(self, trace: Trace) -> tf.Tensor:
        """The positive part of the gradient."""
        return tf.nn.relu(trace.gradients)


class ScoreCAM(CAM):
    r"""Score-CAM: every channel weighted by the score of the input seen through it alone.

    `map = max(0, sum_k w_k A_k)`, `w_k = score(x * minmax(upsampled A_k))`. No gradients are
    used. The score is the probability of the class, so there is no `LinearOutput` by default.
    A channel that is constant for an image weighs nothing there; its forward pass is skipped.

    Args:
        model: Any built Keras model.
        layer: The layer whose activations are weighted; by default the last spatial one.
        max_channels: Use only so many channels of each image, those of the highest variance
            over space; None uses all.
        model_modifier: None by default: the paper weighs by probabilities.
        **options: As for `kvis2.explainer.Explainer`. `batch_size` bounds the masked inputs
            that are in memory at once.

    References:
        Wang et al. (2020), Score-CAM: Score-Weighted Visual Explanations for Convolutional
        Neural Networks. https://arxiv.org/abs/1910.01279

    Example:
        >>> heatmaps = ScoreCAM(model, max_channels=64)(None, images)
    """

    def __init__(
        self,
        model: Any,
        layer: LayerReference | None = None,
        *,
        max_channels: int | None = None,
        model_modifier: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, model_modifier=model_modifier, **options)
        if max_channels is not None and (not isinstance(max_channels, int) or max_channels < 1):
            raise ValueError(
                "Expected `max_channels` to be a positive int, or None for all channels. "
                f"Received: {max_channels!r}. Give for example 64."
            )
        self.max_channels = max_channels

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The map of activations weighted by masked scores."""
        score = probe.fixed(score, inputs)
        activations, _ = probe.activations(score, inputs)
        weights = self._masked_scores(probe, score, inputs, activations)
        space = [1] * (activations.shape.rank - 2)
        shape = [tf.shape(weights)[0], *space, tf.shape(weights)[1]]
        maps = tf.nn.relu(tf.reduce_sum(activations * tf.reshape(weights, shape), axis=-1))
        return placed(maps, activations, probe, inputs, self.resize)

    def _masked_scores(
        self, probe: Probe, score: Any, inputs: Tensors, activations: tf.Tensor
    ) -> tf.Tensor:
        """The score of each image through each of its channels, `(batch, channels)`."""
        pairs = self._channels_to_try(activations)
        count, step = tf.shape(pairs)[0], self.rows
        channels = tf.experimental.numpy.moveaxis(activations, -1, 1)
        masked = [feeds(each, activations) for each in inputs]

        def run(start: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            chunk = pairs[start : start + step]
            maps = tf.gather_nd(channels, chunk)
            rows = [tf.gather(each, chunk[:, 0]) for each in inputs]
            seen = [
                self._through(maps, each, probe) if is_masked else each
                for each, is_masked in zip(rows, masked, strict=True)
            ]
            result = probe.scores(scores.take(score, chunk[:, 0]), seen)
            return start + step, tf.tensor_scatter_nd_update(weights, chunk, result)

        weights = tf.zeros([tf.shape(activations)[0], tf.shape(activations)[-1]])
        return tf.while_loop(lambda start, _: start < count, run, (0, weights))[1]

    def _channels_to_try(self, activations: tf.Tensor) -> tf.Tensor:
        """Pairs (image, channel) `(n, 2)`: each image's own channels, constant ones left out."""
        space = list(range(1, activations.shape.rank - 1))
        variance = tf.math.reduce_variance(activations, space)
        varies = tf.reduce_max(activations, space) > tf.reduce_min(activations, space)
        if self.max_channels is not None:
            most = tf.minimum(self.max_channels, tf.shape(variance)[1])
            best = tf.math.top_k(variance, most).indices
            chosen = tf.reduce_any(tf.one_hot(best, tf.shape(variance)[1], True, False), axis=1)
            varies = varies & chosen
        return tf.cast(tf.where(varies), tf.int32)

    def _through(self, maps: tf.Tensor, inputs: tf.Tensor, probe: Probe) -> tf.Tensor:
        """The inputs multiplied by their maps, stretched to 0..1 at input size."""
        size = spatial_size(inputs, probe)
        if len(size) != maps.shape.rank - 1 or not inputs.dtype.is_floating:
            return inputs
        large = resize(maps, size)
        space = list(range(1, large.shape.rank))
        low = tf.reduce_min(large, space, keepdims=True)
        high = tf.reduce_max(large, space, keepdims=True)
        mask = tf.cast(tf.math.divide_no_nan(large - low, high - low), inputs.dtype)
        first = targets.data_format(probe.model) == "channels_first"
        return inputs * tf.expand_dims(mask, 1 if first else -1)
