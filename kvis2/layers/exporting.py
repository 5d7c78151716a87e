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

import numpy as np

from kvis2.explainers import Explainer
from kvis2.layers.formats import Format, SavedModel, save
from kvis2.layers.litert import LiteRT
from kvis2.layers.onnx_files import ONNX
from kvis2.layers.openvino_files import OpenVINO
from kvis2.layers.signature import Signature

FORMATS: dict[str, type[Format]] = {
    each.name: each for each in (SavedModel, LiteRT, ONNX, OpenVINO)
}
# Between a file and the explainer: of maps, as a share of the largest value.
_TOLERANCE = 1e-3
# Where a ReLU bends, the last digit of a float opens or closes it: single pixels may jump.
_CORRELATION = 0.999
_CORRELATION_INT8 = 0.95
_ROUNDS = 5


@dataclass(frozen=True)
class Exported:
    """What was written, and what it does when it is opened again.

    Attributes:
        path: Where it is.
        inputs: Names of the inputs of the signature `serving_default`.
        outputs: Names of its outputs.
        difference: Largest difference of a heatmap to the explainer's, on the sample, as a share
            of the largest value: of 1 where maps are normalised. Where the class is an input, of
            the predicted classes and of others.
        prediction_difference: Largest difference of a prediction to the model's, as a share of the
            largest one where that is above 1.
        bytes: How large the file is.
        latency_ratio: Its time for the sample over that of the same model exported alone, in one
            run: medians of rounds in turn.
        operations: The types of operations in it, as the format calls them.
        correlation: Smallest correlation over the pixels of a heatmap with the explainer's.
        format: "saved_model", "litert", "onnx" or "openvino".
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    difference: float
    prediction_difference: float
    bytes: int
    latency_ratio: float
    operations: tuple[str, ...]
    correlation: float = 1.0
    format: str = "saved_model"

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.path}: {self.bytes / 1e6:.1f} MB, {len(self.operations)} operations",
                f"  serving_default: {', '.join(self.inputs)} -> {', '.join(self.outputs)}",
                f"  heatmaps differ by at most {self.difference:.1e}, correlate by at least "
                f"{self.correlation:.4f}; predictions differ by {self.prediction_difference:.1e}",
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
    batch: int | None = None,
    size: Sequence[int] | None = None,
    representative: Any = None,
    sample: Any = None,
) -> Exported:
    """Write a model with its explanation to a file, open it again, run it, and compare.

    The signature `serving_default` takes the model's inputs (`images`, or their names where there
    are several) and returns `predictions` and `heatmap`. It runs without kvis2 and without Keras;
    LiteRT, ONNX and OpenVINO without TensorFlow. These have no operations for gradients, so
    gradients are written in forward operations there (`kvis2.PortableGradients`).

    Args:
        explainer: An explainer with its model and settings, such as `GradCAM(model)`.
        path: "saved_model": a new folder, or one to be replaced. "litert": a file `.tflite`,
            "onnx": `.onnx`, "openvino": `.xml`, with its weights beside it in `.bin`.
        format: "saved_model", "litert", "onnx" or "openvino".
        class_input: Whether the class is an input as well, `class_index`: int32 `(batch,)`, -1
            for the predicted one. Else the predicted class is explained.
        predictions: "exact": those of the model, of a pass without folded batch normalisation;
            bit for bit in a SavedModel. "shared": of the folded pass, which is faster and about
            1e-7 off.
        batch: How many samples the file takes at once; None leaves it open.
        size: `(height, width)` for a model that leaves the size of its images open. A SavedModel
            stays open without it, the other formats need it.
        representative: For LiteRT in int8: a few dozen inputs as the model takes them, by which
            values are scaled. Give an explainer with `normalize=False`: a division by the peak
            of a map has no place in int8.
        sample: Inputs to compare with, as the model takes them; by default two samples of noise
            in 0..1, of 64 pixels where the model leaves a size open; for int8 the first
            representative ones.

    Returns:
        What was written, and how it compares; `print` it.

    Raises:
        ValueError: If the format is unknown, its packages are missing, it has no operation for a
            step of the pass, the path cannot be written to, or what was read back is something
            else than what the explainer says. Nothing is left behind then.

    Example:
        >>> print(export(GradCAM(model), "/tmp/served", class_input=True))
        >>> print(export(GradCAM(model), "/tmp/served.onnx", "onnx"))
    """
    if format not in FORMATS:
        raise ValueError(
            f"Expected format to be one of {', '.join(map(repr, FORMATS))}. Received: {format!r}. "
            "Every runtime of TensorFlow takes a SavedModel."
        )
    if predictions not in ("exact", "shared"):
        raise ValueError(
            f"Expected predictions to be 'exact' or 'shared'. Received: {predictions!r}."
        )
    target = Path(path)
    kind = FORMATS[format]
    _check_target(target, kind)
    if predictions == "exact":
        explainer = explainer.unfolded()
    if sample is None and isinstance(representative, np.ndarray):
        sample = representative[: batch or 2]
    signature = Signature(explainer, class_input, batch, size, sample, kind.portable)
    _check_sizes(signature, kind)
    writer = kind()
    if representative is not None:
        _check_int8(kind, explainer)
        writer = LiteRT(signature.rows(representative))
    writer.check_installed()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        return _save_and_compare(writer, signature, Path(folder), target)


def _check_target(target: Path, kind: type[Format]) -> None:
    if kind.suffix:
        if target.suffix != kind.suffix or target.is_dir():
            raise ValueError(
                f"Expected a file that ends in '{kind.suffix}', for {kind.title}. Received: "
                f"{target}. Give for example '{target.with_suffix(kind.suffix)}'."
            )
    elif target.exists() and not (target / "saved_model.pb").exists() and any(target.iterdir()):
        raise ValueError(
            f"Expected a new folder, or one with a SavedModel to replace. Received: {target}, "
            "which holds something else."
        )


def _check_sizes(signature: Signature, kind: type[Format]) -> None:
    for spec in signature.specs if kind.portable else ():
        if None in spec.shape.as_list()[1:]:
            raise ValueError(
                f"Expected images of one size, for {kind.title}. Received: a model whose input "
                f"'{spec.name}' has shape {tuple(spec.shape)}. Give `size=`, such as (224, 224), "
                "or export a SavedModel, which stays open."
            )


def _check_int8(kind: type[Format], explainer: Explainer) -> None:
    if kind is not LiteRT:
        raise ValueError(
            f"Expected no `representative` data for {kind.title}. Received: some, which scale "
            "LiteRT in int8. Leave them out, or take format='litert'."
        )
    if explainer.settings.normalize not in (None, False):
        raise ValueError(
            "Expected raw maps, for int8: a map divided by its peak divides by a rounded zero "
            f"where nothing is seen. Received: normalize={explainer.settings.normalize!r}. Give "
            f"`{type(explainer).__name__}(model, normalize=False)` and normalise what comes out."
        )


def _save_and_compare(writer: Format, signature: Signature, folder: Path, target: Path) -> Exported:
    """Write both, compare what is read back, and put the file in its place."""
    whole, alone = (
        _write(writer, signature, folder / name, serving, target.name)
        for name, serving in (
            ("explained", signature.explained()),
            ("alone", signature.predicted()),
        )
    )
    given, count = signature.given(), len(signature.sample[0])
    classes = signature.classes(count)
    try:
        serve, plain = writer.opened(whole), writer.opened(alone)
        found = _values(serve(**given, **classes))
        plain(**given)
    except Exception as error:
        raise writer.failure(error) from error
    pairs = [(found[name], each) for name, each in signature.expected().items()]
    if classes:
        others = signature.classes(count, 0)
        again, expected = serve(**given, **others), signature.expected(others["class_index"])
        pairs += [(again[name], each) for name, each in expected.items()]
    predicted = [(found[name], each) for name, each in signature.predictions().items()]
    report = Exported(
        target,
        (*given, *classes),
        tuple(sorted(found)),
        max(_difference(*each) for each in pairs),
        max(_difference(*each, least=1.0) for each in predicted),
        sum(each.stat().st_size for each in whole.parent.rglob("*") if each.is_file()),
        _ratio(lambda: serve(**given, **classes), lambda: plain(**given)),
        tuple(writer.operations(whole)),
        min(_correlation(*each) for each in pairs),
        writer.name,
    )
    _check_report(report, writer, signature)
    _put(whole, target, folder)
    return report


def _write(writer: Format, signature: Signature, folder: Path, serving: Any, name: str) -> Path:
    """Write one function as a file of this name in a folder of its own."""
    folder.mkdir()
    saved = folder.parent / "saved"
    try:
        save(signature.model, serving, saved)
    except ValueError as error:
        if signature.batch is None or "shape_invariants" not in str(error):
            raise
        raise ValueError(
            f"Expected an open batch for {type(signature.explainer).__name__}, which goes through "
            f"samples in a loop. Received: batch={signature.batch}. Leave `batch` out"
            f"{', and `representative`: int8 needs a fixed one' * _is_quantized(writer)}."
        ) from error
    writer.write(saved, serving, folder / name)
    if saved.exists():
        saved.rename(folder.parent / f"saved_{folder.name}")
    return folder / name


def _put(written: Path, target: Path, folder: Path) -> None:
    """Move what was written to its place; what was there before goes with the folder."""
    for each in written.parent.iterdir():
        place = target.parent / each.name
        if place.exists():
            place.rename(folder / f"old_{each.name}")
        each.rename(place)


def _check_report(report: Exported, writer: Format, signature: Signature) -> None:
    """Raise unless the file says what the explainer says."""
    name = type(signature.explainer).__name__
    quantized = _is_quantized(writer)
    if quantized:
        same = report.correlation >= _CORRELATION_INT8
    elif writer.portable:
        same = report.difference <= _TOLERANCE or report.correlation >= _CORRELATION
    else:
        same = report.difference <= _TOLERANCE
    if same and (quantized or report.prediction_difference <= _TOLERANCE):
        return
    advice = (
        "Integers of 8 bits are too coarse for it: export float32, without `representative`."
        if quantized
        else "Export a SavedModel, or, where samples are drawn, a method with a seed."
    )
    raise ValueError(
        f"Expected the file to say what {name} says. Received: heatmaps that differ by "
        f"{report.difference:.2g} and correlate by {report.correlation:.4f}, predictions that "
        f"differ by {report.prediction_difference:.2g}, in {writer.title}. {advice}"
    )


def _is_quantized(writer: Format) -> bool:
    return isinstance(writer, LiteRT) and bool(writer.rows)


def _values(found: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.array(each) for name, each in found.items()}


def _difference(found: Any, expected: Any, least: float = 0.0) -> float:
    """The largest difference as a share of the peak; infinite for another shape, or NaN."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return float("inf")
    peak = max(least, float(np.abs(b).max())) or 1.0
    return float(np.abs(a - b).max()) / peak


def _correlation(found: Any, expected: Any) -> float:
    """The smallest correlation of a map with its own; -1 for another shape, or NaN."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if a.shape != b.shape or not np.isfinite(a).all():
        return -1.0
    a, b = (each.reshape(len(each), -1) for each in (a, b))
    a, b = (each - each.mean(axis=1, keepdims=True) for each in (a, b))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    flat = np.abs(a).max(axis=1) + np.abs(b).max(axis=1) == 0  # Both say nothing: they agree.
    products = np.where(flat, 1.0, (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1.0))
    return float(products.min())


def _ratio(one: Callable[[], Any], other: Callable[[], Any]) -> float:
    """Median time of one over that of the other, run in turn."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(2 * _ROUNDS + 2):
        started = time.perf_counter()
        (one, other)[turn % 2]()
        if turn > 1:  # The first of each warms up.
            times[turn % 2].append(time.perf_counter() - started)
    return statistics.median(times[0]) / statistics.median(times[1])
