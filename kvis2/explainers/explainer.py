"""The base of all explainers: `explainer(score, seed_input)` -> maps in the user's structure."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models, scores
from kvis2.images import normalize as normalized
from kvis2.models import Batch
from kvis2.passes import LINEAR, Method, Predicted, Probe
from kvis2.passes import normalized as resampled
from kvis2.scores import Score, ScoreLike
from kvis2.types import LayerReference, Tensors

_LEFT_OUT: Any = object()
"""In the place of the images where a call has one argument."""

_NORMALIZATIONS = ("image", "batch", "minmax", False, None)


class Explainer(Method):
    """Base of all explainers: a method that makes one map per input. A subclass has `explain`.

    It is safe to explain while other threads call, train, save or explain the same model: what is
    changed for a pass is seen by the thread that traces it alone.

    Args:
        model: Any built Keras model. It is neither copied nor changed, but by a plain function as
            `model_modifier`: that works on a clone, or with `clone=False` on the model itself.
        layer: The layer that the method looks at: an object, unique name, path
            (`"backbone/block5_conv3"`) or index.
        model_modifier: `LinearOutput()`, `GuidedReLU()`, a list of modifiers, None, or a plain
            function `model -> model or None`. It replaces the method's default.
        clone: Whether plain functions are applied to a clone, whose weights follow the
            model's, or to the model itself.
        call_index: Which call of a layer that the model calls more than once (siamese nets): 0
            is the first, -1 the last, which is the default. A layer inside a TimeDistributed is
            called once: its maps are `(batch, time, *spatial)`.
        reshape: Makes a grid of the layer's activations: `(batch, tokens, channels) ->
            (batch, height, width, channels)`, for instance `kvis2.token_grid()`. Needs `layer`.
        resize: Whether a layer's map is brought to the size of the input.
        normalize: "image" divides every map by its largest magnitude, "batch" all maps by
            that of the batch, "minmax" stretches every map to 0..1, False leaves them raw.
        batch_size: How many rows one forward pass holds at most. None chooses by their size, and
            takes fewer where memory is short. A model that declares how many samples it takes at
            once, `Input(batch_shape=(8, ...))`, gets as many, the last one repeated if need be.
        fold_batch_norm: Whether batch normalisation is folded into the layer before it during the
            pass, which is faster and moves maps by less than 1e-4. On by default for class
            activation maps; input gradients can jump at single pixels, so they opt in.
        jit_compile: Compile the pass with XLA (slower on a CPU; try it on a GPU).
        pre_activation: Look at what enters the layer's activation, which is fused into it or
            which the layer is.
        verbose: 1 shows a progress bar, 0 is silent.
    """

    _predicts = False
    """Whether a pass returns what the model predicts as well."""

    def __init__(
        self,
        model: keras.Model,
        layer: LayerReference | None = None,
        *,
        model_modifier: Any = LINEAR,
        clone: bool = True,
        call_index: int = -1,
        reshape: Callable[[tf.Tensor], tf.Tensor] | None = None,
        resize: bool = True,
        normalize: str | bool | None = "image",
        batch_size: int | None = None,
        fold_batch_norm: bool | None = None,
        jit_compile: bool = False,
        pre_activation: bool = False,
        verbose: int = 0,
    ) -> None:
        if normalize is True or normalize not in _NORMALIZATIONS:
            raise ValueError(
                f"Expected `normalize` to be one of {_NORMALIZATIONS}. Received: {normalize!r}. "
                "Use False for the raw map."
            )
        super().__init__(
            model,
            layer,
            model_modifier=model_modifier,
            clone=clone,
            fold_batch_norm=bool(fold_batch_norm),
            call_index=call_index,
            reshape=reshape,
            resize=resize,
            normalize=normalize,
            batch_size=batch_size,
            jit_compile=jit_compile,
            pre_activation=pre_activation,
            verbose=verbose,
        )

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """Raw maps of one chunk, as a graph: what an explainer is.

        Args:
            probe: Runs the model.
            score: The score, its fields tensors.
            inputs: The flat inputs `(batch, ...)`.

        Returns:
            For each flat input a map `(batch, *spatial)`, or None where the method has none.
            The numbers per sample of its `Report` attributes follow.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to explain.")

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The maps, the predictions if asked for, and the reports."""
        found, count = self.explain(probe, score, inputs), len(inputs)
        predicted = probe.predictions(inputs) if self._predicts else []
        return [*found[:count], *predicted, *found[count:]]

    def attributions(self, probe: Probe, score: Any, inputs: Tensors) -> Sequence[tf.Tensor | None]:
        """What SmoothGrad averages: the raw maps, or what they are `reduced` from."""
        return self.explain(probe, score, inputs)[: len(inputs)]

    def reduced(
        self, attributions: Sequence[tf.Tensor | None], probe: Probe, inputs: Tensors
    ) -> list[tf.Tensor | None]:
        """The maps that `explain` makes of `attributions`."""
        return list(attributions)

    def __call__(self, score: ScoreLike = None, seed_input: Any = _LEFT_OUT) -> Any:
        """Explain `score` for every sample of `seed_input`.

        `explainer(images)`, without a score, is `explainer(None, images)`: each sample's predicted
        class.

        Args:
            score: A class index, one per sample, None (each sample's predicted class), a
                `kvis2.scores.Score`, any function `output -> (batch,)`, or a list or dict of
                these for several outputs.
            seed_input: What the model takes: an array `(batch, ...)` (a missing batch axis is
                added), or a list or dict of arrays for several inputs. Or a `tf.data.Dataset` of
                batches, for which the score is None, one class, or another score that holds for
                all samples; of `(images, labels)` the images are explained, as by `model.predict`.

        Returns:
            float32 maps `(batch, *spatial)` in the structure of `seed_input`: an array for an
            array, a list for a list, a dict for a dict; None for an input without a map. For a
            `tf.data.Dataset` an iterator over these, one for each batch, which explains a batch
            when it is asked for.

        Raises:
            ValueError: If the score, the input or the layer do not fit the model.
        """
        if seed_input is _LEFT_OUT:
            score, seed_input = None, score
        if seed_input is None or isinstance(seed_input, Score) or callable(seed_input):
            raise TypeError(
                f"Expected what is explained: `{type(self).__name__}(model)(score, images)`, or "
                f"`(images)` for the predicted class. Received: {seed_input!r} alone. Give images."
            )
        if isinstance(seed_input, tf.data.Dataset):
            return self._of_batches(score, seed_input)
        return self._explained(score, seed_input)[0]

    def _of_batches(self, score: ScoreLike, dataset: tf.data.Dataset) -> Iterator[Any]:
        """The maps of one batch after the other."""
        for element in dataset:
            images = keras.utils.unpack_x_y_sample_weight(element)[0]
            yield self._explained(score, keras.tree.map_structure(lambda x: x.numpy(), images))[0]

    def with_predictions(
        self, score: ScoreLike, seed_input: Any, *, checked: bool = True
    ) -> tuple[Any, Predicted]:
        """The maps, and what the model predicts, in one pass.

        Args:
            score: As for a call.
            seed_input: What the model takes, arrays.
            checked: Whether maps that are not finite are refused, and blank ones warned of. False
                leaves both to the caller, who finds NaN or zeros in them.

        Returns:
            The maps as a call returns them, and the outputs of the model with their meanings. With
            batch normalisation folded, outputs differ in their last digits from `model(...)`.
        """
        predicting = copy.copy(self)
        predicting._predicts = True
        maps, outputs = predicting._explained(score, seed_input, checked)
        return maps, Predicted(outputs, self.meanings)

    @tf.autograph.experimental.do_not_convert
    def graph(self, inputs: Any, score: ScoreLike = None) -> tuple[Any, list[tf.Tensor]]:
        """The maps and the predictions as tensors, inside a `tf.function`: the pass itself.

        What a call computes, for a model, a layer or a file that explains what it predicts. The
        variables of the model are read when it runs.

        Args:
            inputs: Tensors as the model takes them, `(batch, ...)`; a list of them, or a dict by
                input name.
            score: As for a call; or an int tensor `(batch,)` of classes, where -1 stands for the
                predicted one.

        Returns:
            float32 maps as a call returns them, and the flat outputs of the model. With batch
            normalisation folded, outputs differ in their last digits from `model(...)`.

        Raises:
            ValueError: If it is called eagerly, or score and model do not fit.

        Example:
            >>> @tf.function
            ... def served(images, classes):
            ...     return GradCAM(model).graph(images, classes)
        """
        if tf.executing_eagerly():
            raise ValueError(
                "Expected tensors of a `tf.function`. Received: values. Call "
                f"`{type(self).__name__}(model)(score, images)`, or do so in a `tf.function`."
            )
        flat = [tf.identity(each) for each in models.flat_inputs(self.model, inputs)]
        count = models.output_count(self.model)
        parts = scores.as_tensors(score, tf.shape(flat[0])[0], count)
        predicting = copy.copy(self)
        predicting._predicts = True
        results = predicting.in_graph(parts, flat)
        maps, outputs = results[: len(flat)], results[len(flat) : len(flat) + count]
        finished = [None if m is None else resampled(m, self.settings.normalize) for m in maps]
        return models.like_inputs(self.model, inputs, finished), outputs

    def _explained(
        self, score: Any, seed_input: Any, checked: bool = True
    ) -> tuple[Any, list[np.ndarray]]:
        self._follow()
        batch = Batch(self.model, seed_input)
        score = scores.as_scores(score, batch.size, models.output_count(self.model))
        results = self.results(score, batch)
        maps, outputs = results[: len(batch.shapes)], results[len(batch.shapes) :]
        if checked:
            self._check(maps, score, batch)
        restored = batch.restored([None if m is None else self._finished(m) for m in maps])
        return restored, [each for each in outputs if each is not None]

    def _finished(self, maps: np.ndarray) -> np.ndarray:
        return normalized(maps, self.settings.normalize)  # type: ignore[arg-type]

    def _check(self, maps: Sequence[np.ndarray | None], score: Any, batch: Batch) -> None:
        """Raise if a map is not finite; warn, with the likely cause, if one is zero everywhere."""
        for each in maps:
            if each is None:
                continue
            peaks = np.abs(each).reshape(len(each), -1).max(axis=1)
            finite = np.isfinite(peaks)
            if finite.all() and peaks.all():
                continue
            if not finite.all():
                wrong = np.flatnonzero(~finite).tolist()
                raise ValueError(
                    "Expected a model whose outputs and gradients are finite. Received: NaN or "
                    f"infinity in the map of sample {wrong}. Check the weights of "
                    f"'{self.model.name}' (a diverged training?) and the range of the input."
                )
            models.check_finite(self.model)  # ReLU makes zero of NaN, as if there were no evidence.
            blank = np.flatnonzero(peaks == 0).tolist()
            sample = blank[0]
            cause = self._blank_cause(scores.rows(score, sample, sample + 1), batch, sample)
            warnings.warn(
                f"{type(self).__name__} found no evidence: the map of sample {blank} is zero "
                f"everywhere. Likely cause: {cause}.",
                stacklevel=5,
            )
            return

    def _blank_cause(self, score: Any, batch: Batch, sample: int) -> str:
        """Why the map of one sample may be zero."""
        return (
            "the gradient of the score is zero, because every ReLU on the way is off, or because "
            "a softmax is saturated (LinearOutput() explains the score before it)"
        )


def without_layer(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of an explainer that explains the input, having refused a layer among them."""
    if options.get("layer") is not None:
        raise ValueError(
            f"Expected no `layer` for {kind}, which explains the input. Received: "
            f"{options['layer']!r}. Leave it out, or take a method that looks at a layer, "
            "such as GradCAM or Saliency."
        )
    return {name: value for name, value in options.items() if name != "layer"}
