"""Layer-wise relevance propagation: which part of the score came from which pixel."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models, scores
from kvis2.explainers import Attribution, feeds, gradients_of
from kvis2.lrp.composites import (
    Composite,
    EpsilonPlusFlat,
    registered,
)
from kvis2.lrp.flow import RelevanceFlow, summed_by_sample
from kvis2.models import Batch
from kvis2.passes import Probe, Report
from kvis2.scores import LayerScore
from kvis2.types import LayerReference, Tensors

_STARTS = ("score", "one")
_BIASES = ("absorb", "ignore", "share")


class LRP(Attribution):
    r"""The score, shared out backwards from layer to layer until it reaches the pixels.

    `R_j = sum_k contribution_jk / (sum_j contribution_jk) R_k` at every layer, `map = sum over
    channels of R`. What a contribution is, the rule of each layer says; with `Epsilon(0)`
    everywhere, `a_j w_jk`, the map is gradient x input. Relevance is conserved: the map adds up
    to the score, but for what biases absorb. Maps are signed: evidence for and against.

    The pass runs on the live model, at any depth of nesting; a BatchNormalization beside a
    convolution or dense layer is folded into it. `Composite` says what happens elsewhere.

    Args:
        model: Any built Keras model that can be traced into a graph.
        composite: Which layer gets which rule; `EpsilonPlusFlat()` by default.
        layer: Stop at the output of this layer instead of the input.
        start: Where relevance starts, at the output: with the "score", `R_c = z_c`, or with
            "one", `R_c = 1`. For a score that weighs several outputs each starts with its part.
        bias: What becomes of the share of the biases of convolution and dense layers, the shift of
            folded batch normalisation included: they "absorb" it; "ignore" takes them for zero, so
            that the shares of inputs are those of their contributions alone (zennit's
            `zero_params="bias"`); "share" spreads what a layer would absorb evenly over the inputs
            that each output sees (Bach et al.).
        channels: Concept relevance (CRP): by layer, the channels whose relevance goes on from its
            output, such as `{"block5_conv3": [7]}`. That of other channels ends there, and that
            which takes another way around the layer is left out: the map is of these channels.
        reduce: How the channels become one map; "signed" (sum) keeps the total.
        keepdims: Keep the channels: relevance in the shape of the input or the layer's output, of
            dense layers too.
        **options: As for `kvis2.Explainer`. `model_modifier` is LinearOutput() (start
            before the softmax) or None.

    Attributes:
        conservation_error: After a call, for each sample, `|start - end| / |start|`, where `end`
            is the sum of the relevance over all inputs (or the layer). Biases absorb relevance
            unless `bias` says otherwise, as do the epsilon, attention with `attention="softmax"`,
            and units without a contribution of the sign that a rule looks at; `Flat`, `WSquare` and
            `ZBox` leave a share on the rim of a ZeroPadding layer; a hidden `layer` does not see
            what takes another way. `AlphaBeta` can also add relevance.
        bias_share: After a call, for each sample, the part of the start that did not come out of
            convolution and dense layers with a bias (folded BatchNormalization included), signed.

    Raises:
        ValueError: At the first call, before anything is computed, if relevance would come to a
            layer or operation without a rule. `kvis2.lrp.register(LayerClass, rule)` gives one.

    References:
        Achtibat et al. (2023), From attribution maps to human-understandable explanations through
        Concept Relevance Propagation. https://doi.org/10.1038/s42256-023-00711-8
        Bach et al. (2015), On Pixel-Wise Explanations for Non-Linear Classifier Decisions by
        Layer-Wise Relevance Propagation. https://doi.org/10.1371/journal.pone.0130140
        Montavon et al. (2019), Layer-Wise Relevance Propagation: An Overview.
        https://doi.org/10.1007/978-3-030-28954-6_10
        Achtibat et al. (2024), AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for
        Transformers. https://arxiv.org/abs/2402.05602

    Example:
        >>> lrp = LRP(model, EpsilonGammaBox(low=-1.0, high=1.0))
        >>> maps = lrp(243, images)  # -1..1
        >>> lrp.conservation_error
        >>> of_one_channel = LRP(model, channels={"block5_conv3": [7]})(243, images)
    """

    conservation_error = Report()
    bias_share = Report()

    def __init__(
        self,
        model: keras.Model,
        composite: Composite | None = None,
        layer: LayerReference | None = None,
        *,
        start: str = "score",
        bias: str = "absorb",
        channels: Mapping[LayerReference, int | Sequence[int]] | None = None,
        reduce: str = "signed",
        keepdims: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, reduce=reduce, keepdims=keepdims, **options)
        _check_options(composite, start, bias)
        wrong = [type(each).__name__ for each in self.settings.modifiers if each.gradients()]
        if wrong:
            raise ValueError(
                "Expected modifiers that leave the gradients alone, for LRP has rules of its own. "
                f"Received: {wrong[0]}. Leave it out."
            )
        self.composite = EpsilonPlusFlat() if composite is None else composite
        self.start = start
        self.bias = bias
        self.channels = _conditions(self.model, channels)
        if self.channels and layer is not None:
            raise ValueError(
                "Expected `channels` without `layer`: their relevance is followed to the input. "
                f"Received: layer={layer!r} as well. Leave one of them out."
            )

    def _check(self, maps: Sequence[np.ndarray | None], score: Any, batch: Batch) -> None:
        finite = all(each is None or bool(np.isfinite(each).all()) for each in maps)
        if self.bias == "absorb" or finite:
            super()._check(maps, score, batch)
            return
        raise ValueError(
            "Expected shares of relevance that stay finite. Received: NaN or infinity, with "
            f"bias={self.bias!r}: sums that are small without their bias hand out more than they "
            "got, layer after layer. Take a rule of positive shares, such as EpsilonPlus(), a "
            "larger epsilon, or bias='absorb'."
        )

    def for_pass(self, rows: int) -> LRP:
        """This method as a compiled pass keeps it, with the rules that are registered now."""
        method = super().for_pass(rows)
        vars(method)["registered"] = registered()  # Another registered rule is another trace.
        return method

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The relevance maps, the conservation error and the share of the biases."""
        relevances, flow = self._relevances(probe, score, inputs)
        start = flow.restored(flow.started()) / probe.gradient_scale
        end = tf.add_n([summed_by_sample(each) for each in relevances if each is not None])
        error = tf.math.divide_no_nan(tf.abs(start - end), tf.abs(start))
        return [*self.reduced(relevances, probe, inputs), error, flow.bias_share()]

    def attributions(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The relevance of every value."""
        return self._relevances(probe, score, inputs)[0]

    def _relevances(
        self, probe: Probe, score: Any, inputs: Tensors
    ) -> tuple[list[tf.Tensor | None], RelevanceFlow]:
        if any(isinstance(each, LayerScore) for each in scores.flat(score)):
            raise ValueError(
                "Expected a score of the model's output, for LRP. Received: a LayerScore. Use "
                "Saliency or IntegratedGradients, or a model that ends in the layer."
            )
        if tf.executing_eagerly():
            raise ValueError(
                "Expected a model that can be traced into a graph, for LRP. Received: "
                f"'{probe.model.name}', which runs eagerly only. Use Saliency or "
                "IntegratedGradients."
            )
        flow = RelevanceFlow(
            self.composite,
            inputs,
            probe.layer,
            self.start,
            self.bias,
            frozenset(path for path, _ in self.channels),
        )
        ruled = probe.with_modifiers(flow)
        if self.keepdims:
            first = models.data_format(probe.model, probe.layer) == "channels_first"
            ruled = ruled.reshaped(functools.partial(_channels_last, first))
        with flow.in_force():
            if self.channels:
                total = ruled.scores(score, inputs)
                upstream = tf.fill(tf.shape(total), probe.gradient_scale)
                scaled = flow.through_channels(total, upstream, dict(self.channels))
                scale = probe.gradient_scale
                relevances = [None if r is None else tf.cast(r, tf.float32) / scale for r in scaled]
            else:
                relevances = gradients_of(ruled, score, inputs)
        return [None if each is None else flow.restored(each) for each in relevances], flow

    def reduced(
        self, attributions: Sequence[tf.Tensor | None], probe: Probe, inputs: Tensors
    ) -> list[tf.Tensor | None]:
        """One map for each; with `keepdims` of any layer, a dense one too."""
        if probe.layer is None or not self.keepdims:
            return super().reduced(attributions, probe, inputs)
        (relevance,) = attributions
        assert relevance is not None
        return [relevance if feeds(each, probe, inputs) else None for each in inputs]


def _check_options(composite: Composite | None, start: str, bias: str) -> None:
    """Raise for options that LRP does not have."""
    if composite is not None and not isinstance(composite, Composite):
        raise TypeError(
            f"Expected a composite such as EpsilonPlus(). Received: {composite!r}. "
            "One rule for all layers is Composite(rule, rule)."
        )
    if start not in _STARTS:
        raise ValueError(
            f"Expected `start` to be one of {', '.join(map(repr, _STARTS))}. "
            f"Received: {start!r}. 'score' starts with the score itself."
        )
    if bias not in _BIASES:
        raise ValueError(
            f"Expected `bias` to be one of {', '.join(map(repr, _BIASES))}. "
            f"Received: {bias!r}. 'absorb' lets biases keep their share."
        )


def _conditions(
    model: keras.Model, channels: Mapping[LayerReference, int | Sequence[int]] | None
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The path of every layer that relevance is conditioned at, with the channels that go on."""
    found = []
    for reference, chosen in (channels or {}).items():
        path = models.layer_path(model, models.find_layer(model, reference))
        several = np.atleast_1d(np.asarray(chosen))
        if several.ndim != 1 or several.size == 0 or several.dtype.kind not in "iu":
            raise ValueError(
                f"Expected the channels of '{path}': an int, or a list of them. Received: "
                f"{chosen!r}. Give for example {{{path!r}: [7]}}."
            )
        found.append((path, tuple(int(each) for each in several)))
    return tuple(sorted(found))


def _channels_last(first: bool, relevance: tf.Tensor) -> tf.Tensor:
    """Relevance of a layer of any rank, moved from channels first if it is so."""
    rank = relevance.shape.rank
    return tf.transpose(relevance, [0, *range(2, rank), 1]) if first and rank > 2 else relevance
