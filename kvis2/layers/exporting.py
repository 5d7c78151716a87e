"""A model and its explanation as one file that needs neither kvis2 nor Keras to run."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.explainers import Explainer
from kvis2.types import Tensors

FORMATS = ("saved_model",)
_TOLERANCE = 1e-3  # of maps in 0..1, between the file and the explainer
_ROUNDS = 5


@dataclass(frozen=True)
class Exported:
    """What was written, and what it does when it is opened again.

    Attributes:
        path: Where it is.
        inputs: Names of the inputs of the signature `serving_default`.
        outputs: Names of its outputs.
        difference: Largest difference of a heatmap to the explainer's, on the sample.
        prediction_difference: Largest difference of a prediction to the model's.
        bytes: How large the file is.
        latency_ratio: Its time for the sample over that of the same model exported alone, in one
            run: medians of rounds in turn.
        operations: The types of TensorFlow operations in it.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    difference: float
    prediction_difference: float
    bytes: int
    latency_ratio: float
    operations: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.path}: {self.bytes / 1e6:.1f} MB, {len(self.operations)} operations",
                f"  serving_default: {', '.join(self.inputs)} -> {', '.join(self.outputs)}",
                f"  heatmaps differ by at most {self.difference:.1e}, predictions by "
                f"{self.prediction_difference:.1e}",
                f"  {self.latency_ratio:.2f} times the time of the model alone",
            ]
        )


def export(
    explainer: Explainer,
    path: str | PathLike[str],
    format: str = "saved_model",
    *,
    class_input: bool = False,
    predictions: str = "exact",
    sample: Any = None,
) -> Exported:
    """Write a model with its explanation to a file, open it again, run it, and compare.

    The signature `serving_default` takes the model's inputs (`images`, or their names where there
    are several) and returns `predictions` and `heatmap`. The batch stays open, and so do sizes
    that the model leaves open. It runs without kvis2 and without Keras, in TensorFlow Serving for
    example.

    Args:
        explainer: An explainer with its model and settings, such as `GradCAM(model)`.
        path: A new folder, or one to be replaced.
        format: "saved_model".
        class_input: Whether the class is an input as well, `class_index`: int32 `(batch,)`, -1
            for the predicted one. Else the predicted class is explained.
        predictions: "exact": those of the model, bit for bit, of a pass without folded batch
            normalisation. "shared": of the folded pass, which is faster and about 1e-7 off.
        sample: Inputs to compare with, as the model takes them; by default two samples of noise
            in 0..1, of 64 pixels where the model leaves a size open.

    Returns:
        What was written, and how it compares; `print` it.

    Raises:
        ValueError: If the format is unknown, the path cannot be written to, or what was read back
            is something else than what the explainer says; then nothing is left behind.

    Example:
        >>> print(export(GradCAM(model), "/tmp/served", class_input=True))
    """
    if format not in FORMATS:
        raise ValueError(
            f"Expected format to be one of {', '.join(map(repr, FORMATS))}. Received: {format!r}. "
            "From a SavedModel, converters of LiteRT and ONNX go on where its operations are known."
        )
    if predictions not in ("exact", "shared"):
        raise ValueError(
            f"Expected predictions to be 'exact' or 'shared'. Received: {predictions!r}."
        )
    target = Path(path)
    if target.exists() and not (target / "saved_model.pb").exists() and any(target.iterdir()):
        raise ValueError(
            f"Expected a new folder, or one with a SavedModel to replace. Received: {target}, "
            "which holds something else."
        )
    if predictions == "exact":
        explainer = explainer.unfolded()
    written = _Written(explainer, class_input, sample)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        report = written.save_and_compare(Path(folder), target)
    return report


class _Written:
    """One export: the signature of a model and its explainer, and a sample to compare with."""

    def __init__(self, explainer: Explainer, class_input: bool, sample: Any) -> None:
        self.explainer = explainer
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
                [None, *spec.shape[1:]], keras.backend.standardize_dtype(spec.dtype), name
            )
            for name, spec in zip(names, specs, strict=True)
        ]
        self.sample = self._sampled(sample)
        declared = models.output_names(self.model)
        self.outputs = declared if declared is not None and len(declared) > 1 else ["predictions"]

    def save_and_compare(self, folder: Path, target: Path) -> Exported:
        """Write both, compare what is read back, and put the file in its place."""
        whole, alone = folder / "explained", folder / "alone"
        _save(self.model, self._explained(), whole)
        _save(self.model, self._predicted(), alone)
        serve, plain = (_loaded(each) for each in (whole, alone))
        given = dict(zip((spec.name for spec in self.specs), self.sample, strict=True))
        classes = {}
        if self.class_input:
            classes = {"class_index": tf.fill([len(self.sample[0])], -1)}
        found = serve(**given, **classes)
        expected, predicted = self._expected()
        report = Exported(
            target,
            (*given, *classes),
            tuple(sorted(found)),
            max(_difference(found[name], each) for name, each in expected.items()),
            max(_difference(found[name], each) for name, each in predicted.items()),
            sum(each.stat().st_size for each in whole.rglob("*") if each.is_file()),
            _ratio(lambda: serve(**given, **classes), lambda: plain(**given)),
            tuple(sorted(_operations(serve))),
        )
        if not report.difference <= _TOLERANCE:
            raise ValueError(
                f"Expected the file to say what {type(self.explainer).__name__} says. Received: "
                f"heatmaps that differ by {report.difference:.2g}. Export a method without random "
                "samples, or one with a seed."
            )
        if target.exists():
            target.rename(folder / "old")
        whole.rename(target)
        return report

    def _explained(self) -> Any:
        specs = list(self.specs)
        if self.class_input:
            specs.append(tf.TensorSpec([None], tf.int32, "class_index"))

        @tf.function(input_signature=specs, autograph=False)
        def serving(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            inputs, classes = list(tensors), None
            if self.class_input:
                classes = inputs.pop()
            maps, outputs = self.explainer.graph(self._structured(inputs), classes)
            return {**dict(zip(self.outputs, outputs, strict=True)), **self._named(maps)}

        return serving

    def _predicted(self) -> Any:
        @tf.function(input_signature=list(self.specs), autograph=False)
        def serving(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            inputs = self._structured(list(tensors))
            outputs = models.flat_outputs(self.model(inputs, training=False))
            return dict(zip(self.outputs, outputs, strict=True))

        return serving

    def _expected(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        values = [each.numpy() for each in self.sample]
        given = self._structured(values)
        maps = self._named(self.explainer(None, given))
        outputs = models.flat_outputs(self.model(given, training=False))
        return maps, dict(zip(self.outputs, outputs, strict=True))

    def _structured(self, values: Tensors) -> Any:
        """The inputs by name where the model has several, else the one alone."""
        if len(values) == 1:
            return values[0]
        return {spec.name: each for spec, each in zip(self.specs, values, strict=True)}

    def _named(self, maps: Any) -> dict[str, Any]:
        """The maps by the names of the file's outputs; inputs without a map have none."""
        if not isinstance(maps, Mapping):
            return {"heatmap": maps}
        return {f"heatmap_{name}": each for name, each in maps.items() if each is not None}

    def _sampled(self, sample: Any) -> list[tf.Tensor]:
        if sample is not None:
            return [tf.convert_to_tensor(each) for each in models.Batch(self.model, sample).arrays]
        noise = np.random.default_rng(0)
        shapes = [[2, *(size or 64 for size in spec.shape[1:])] for spec in self.specs]
        pairs = zip(shapes, self.specs, strict=True)
        return [tf.cast(tf.constant(noise.random(shape)), spec.dtype) for shape, spec in pairs]


def _save(model: keras.Model, serving: Any, path: Path) -> None:
    """Write a function and the variables of its model, each of them once."""
    module = tf.Module()
    module.weights = [each.value for each in model.variables]
    module.serving = serving
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(path), {"serving_default": serving}, options)


def _loaded(path: Path) -> Callable[..., dict[str, tf.Tensor]]:
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    signature.keeps_alive = loaded
    return signature


def _difference(found: Any, expected: Any) -> float:
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")


def _ratio(one: Callable[[], Any], other: Callable[[], Any]) -> float:
    """Median time of one over that of the other, run in turn."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(2 * _ROUNDS + 2):
        started = time.perf_counter()
        (one, other)[turn % 2]()
        if turn > 1:  # The first of each warms up.
            times[turn % 2].append(time.perf_counter() - started)
    return statistics.median(times[0]) / statistics.median(times[1])


def _operations(serving: Any) -> Sequence[str]:
    graph = serving.graph.as_graph_def()
    bodies = [graph.node, *(each.node_def for each in graph.library.function)]
    return sorted({node.op for body in bodies for node in body})
