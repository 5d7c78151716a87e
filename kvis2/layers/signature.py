"""What a file takes and returns: the inputs of a model, its predictions and its heatmaps."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.explainers import Explainer

_STEP = 37  # From class to class: it goes through all of them, in small steps and in large.


class Signature:
    """`images[, class_index] -> predictions, heatmap`, and a sample to compare with.

    Args:
        explainer: The explainer, with its model.
        class_input: Whether the class is an input as well.
        batch: How many samples at once; None leaves it open.
        size: The lengths of the spatial axes of all inputs that leave them open.
        sample: Inputs as the model takes them; None draws noise in 0..1.
        portable: Whether gradients are written in forward operations.
    """

    def __init__(
        self,
        explainer: Explainer,
        class_input: bool,
        batch: int | None,
        size: Sequence[int] | None,
        sample: Any,
        portable: bool = False,
    ) -> None:
        self.explainer = explainer
        self.portable = portable
        self.model: keras.Model = explainer.model
        self.class_input = class_input
        specs = models.specifications(self.model)
        if specs is None:
            raise ValueError(
                f"Expected a model that knows its inputs. Received: '{self.model.name}'. Call it "
                "once, or give it an Input."
            )
        names = ["images"] if len(specs) == 1 else [spec.name for spec in specs]
        self.specs = [
            tf.TensorSpec(
                [batch, *_sized(spec.shape[1:], size)],
                keras.backend.standardize_dtype(spec.dtype),
                name,
            )
            for name, spec in zip(names, specs, strict=True)
        ]
        self.batch = batch
        self.sample = self._sampled(sample)
        declared = models.output_names(self.model)
        self.outputs = declared if declared is not None and len(declared) > 1 else ["predictions"]

    def explained(self) -> Any:
        """The function of the file: predictions and heatmaps by name."""
        specs, explainer = list(self.specs), self.explainer
        if self.portable:  # Before the modifiers that are there: theirs win.
            own = explainer.settings.modifiers
            explainer = explainer.with_settings(modifiers=(models.PortableGradients(), *own))
        if self.class_input:
            specs.append(tf.TensorSpec([self.batch], tf.int32, "class_index"))

        @tf.function(input_signature=specs, autograph=False)
        def serving(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            inputs, classes = list(tensors), None
            if self.class_input:
                classes = inputs.pop()
            maps, outputs = explainer.graph(self._structured(inputs), classes)
            return {**dict(zip(self.outputs, outputs, strict=True)), **self._named(maps)}

        return serving

    def predicted(self) -> Any:
        """The function of the model alone."""

        @tf.function(input_signature=list(self.specs), autograph=False)
        def serving(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            inputs = self._structured(list(tensors))
            outputs = models.flat_outputs(self.model(inputs, training=False))
            return dict(zip(self.outputs, outputs, strict=True))

        return serving

    def given(self) -> dict[str, np.ndarray]:
        """The sample by the names of the inputs, without the class."""
        return dict(zip((spec.name for spec in self.specs), self.sample, strict=True))

    def classes(self, count: int, start: int = -1) -> dict[str, np.ndarray]:
        """Classes for so many samples, where the class is an input.

        Args:
            count: How many samples.
            start: The class of the first sample, the next ones following; -1 is the predicted
                class for all of them.
        """
        if not self.class_input:
            return {}
        each = np.full(count, -1) if start < 0 else (start + np.arange(count)) % self.units
        return {"class_index": each.astype(np.int32)}

    @functools.cached_property
    def units(self) -> int:
        """How many classes the first output has."""
        return int(next(iter(self.predictions().values())).shape[-1])

    def expected(self, classes: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The maps of the explainer for the sample, by name: of classes, or the predicted one."""
        score = None if classes is None or classes[0] < 0 else classes.tolist()
        with warnings.catch_warnings():  # A class without evidence has a map of zeros.
            warnings.simplefilter("ignore")
            return self._named(self.explainer(score, self._structured(list(self.sample))))

    def predictions(self) -> dict[str, np.ndarray]:
        """The predictions of the model for the sample, by name."""
        outputs = self.model(self._structured(list(self.sample)), training=False)
        pairs = zip(self.outputs, models.flat_outputs(outputs), strict=True)
        return {name: np.asarray(each) for name, each in pairs}

    def rows(self, inputs: Any) -> list[dict[str, np.ndarray]]:
        """Inputs as the model takes them, in parts of one batch each, by name.

        Classes are the predicted ones and all others in turn, so that the maps of both are seen.
        """
        arrays = models.Batch(self.model, inputs).arrays
        count = self.batch or 1
        names = [spec.name for spec in self.specs]
        parts = []
        for number, i in enumerate(range(0, len(arrays[0]) - count + 1, count)):
            part = {n: np.asarray(a[i : i + count]) for n, a in zip(names, arrays, strict=True)}
            start = -1 if number % 2 == 0 else (number // 2 * _STEP) % self.units
            parts.append({**part, **self.classes(count, start)})
        return parts

    def _structured(self, values: Sequence[Any]) -> Any:
        """The inputs by name where the model has several, else the one alone."""
        if len(values) == 1:
            return values[0]
        return {spec.name: each for spec, each in zip(self.specs, values, strict=True)}

    def _named(self, maps: Any) -> dict[str, Any]:
        """The maps by the names of the file's outputs; inputs without a map have none."""
        if not isinstance(maps, Mapping):
            return {"heatmap": maps}
        return {f"heatmap_{name}": each for name, each in maps.items() if each is not None}

    def _sampled(self, sample: Any) -> list[np.ndarray]:
        if sample is not None:
            arrays = [np.asarray(each) for each in models.Batch(self.model, sample).arrays]
            for array, spec in zip(arrays, self.specs, strict=True):
                if not spec.shape.is_compatible_with(array.shape):
                    raise ValueError(
                        f"Expected a sample of shape {tuple(spec.shape)} for '{spec.name}'. "
                        f"Received: {array.shape}. Give as many samples as `batch`, of `size`."
                    )
            return arrays
        noise = np.random.default_rng(0)
        shapes = [[self.batch or 2, *(n or 64 for n in spec.shape[1:])] for spec in self.specs]
        pairs = zip(shapes, self.specs, strict=True)
        return [noise.random(shape).astype(spec.dtype.as_numpy_dtype) for shape, spec in pairs]


def _sized(shape: Sequence[int | None], size: Sequence[int] | None) -> list[int | None]:
    """A shape `(*spatial, channels)` with its open lengths filled in."""
    shape = list(shape)
    if size is None or len(shape) != len(size) + 1:
        return shape
    wrong = [(n, own) for n, own in zip(size, shape, strict=False) if own not in (None, n)]
    if wrong:
        raise ValueError(
            f"Expected `size` to fill the lengths that the model leaves open. Received: "
            f"{tuple(size)} for an input of shape {(None, *shape)}. Leave `size` out."
        )
    return [*size, shape[-1]]
