"""What methods say and cost in the formats of `kvis2.export`.

    python -m benchmarks.formats --json docs/formats.json --page docs/deploy.md
    python -m benchmarks.formats --from-json --json docs/formats.json --page docs/deploy.md

Every method in every format, on the small network; then the cost of Grad-CAM on MobileNetV2. A
method has a process of its own, so that a converter that breaks takes nothing else with it.
Needs `pip install -e .[export]`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras

import kvis2
from benchmarks import models
from benchmarks.machine import about

FORMATS = {
    "saved_model": "SavedModel",
    "litert": "LiteRT float32",
    "int8": "LiteRT int8",
    "onnx": "ONNX",
    "openvino": "OpenVINO",
}
_SUFFIXES = {"litert": ".tflite", "int8": ".tflite", "onnx": ".onnx", "openvino": ".xml"}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "CAM": ("CAM", {}),
    "Grad-CAM, last layer": ("GradCAM", {}),
    "Grad-CAM, inner layer": ("GradCAM", {"layer": "conv2"}),
    "Grad-CAM++": ("GradCAMPlusPlus", {}),
    "LayerCAM, inner layer": ("LayerCAM", {"layer": "conv2"}),
    "HiResCAM": ("HiResCAM", {}),
    "Score-CAM": ("ScoreCAM", {}),
    "Recipro-CAM": ("ReciproCAM", {}),
    "Saliency": ("Saliency", {}),
    "Integrated Gradients, 8 steps": ("IntegratedGradients", {"steps": 8}),
    "SmoothGrad, 8 samples": ("Saliency", {"smooth_samples": 8}),
    "LRP": ("LRP", {}),
}
# Grad-CAM in the whole of MobileNetV2: format, predictions.
COSTS = [
    ("saved_model", "exact"),
    ("saved_model", "shared"),
    ("litert", "exact"),
    ("litert", "shared"),
    ("onnx", "exact"),
    ("onnx", "shared"),
]
_BATCH = 8
_SECONDS = 900  # A converter that takes longer is taken for one that does not end.
_START, _END = "<!-- formats made by benchmarks/formats.py -->", "<!-- end -->"


def main() -> None:
    """Measure, or read what was measured, and write the table into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("docs/formats.json"))
    parser.add_argument("--page", type=Path, help="the page with the marks of the table")
    parser.add_argument("--from-json", action="store_true", help="only write the page anew")
    parser.add_argument("--only", help="measure one row alone, and print it as JSON")
    given = parser.parse_args()
    if given.only:
        print("\n" + json.dumps(measured(given.only)))
        return
    if not given.from_json:
        rows = {name: in_a_process(name) for name in [*METHODS, "MobileNetV2"]}
        given.json.write_text(json.dumps({"machine": about(), "rows": rows}, indent=1) + "\n")
    document = json.loads(given.json.read_text())
    if given.page:
        given.page.write_text(filled(given.page.read_text(), document))
    else:
        print(markdown(document))


def in_a_process(name: str) -> dict[str, Any]:
    """The row of a method, or the sentence for a process that broke."""
    command = [sys.executable, "-m", "benchmarks.formats", "--only", name]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=_SECONDS
        )
        row = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        row = {each: {"refused": f"The process ended with {error}."} for each in FORMATS}
    print(name, row, flush=True)
    return row


def measured(name: str) -> dict[str, Any]:
    """One row: the cells of a method by format, or the costs on MobileNetV2."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "MobileNetV2":
            return costs(Path(folder))
        model = prepared("small")
        images = models.smooth_images(40, 32)
        kind, options = METHODS[name]
        return {
            each: cell(getattr(kvis2, kind), model, options, each, images, Path(folder))
            for each in FORMATS
        }


def prepared(name: str) -> keras.Model:
    """One of the benchmark's models, its weights drawn and calibrated."""
    recipe = models.BUILDERS[name]
    keras.utils.set_random_seed(0)
    model = recipe.build()
    models.randomize(model)
    models.calibrate(model, models.smooth_images(8, recipe.side))
    return model


def cell(
    kind: Any, model: keras.Model, options: Any, format: str, images: Any, folder: Path
) -> Any:
    """What an export reports, or the sentence of its refusal."""
    further: dict[str, Any] = {"sample": images[:2]}
    if format == "int8":
        options = {**options, "normalize": False}
        further = {"sample": images[:1], "representative": images, "batch": 1}
    name = "litert" if format == "int8" else format
    path = folder / f"{format}{_SUFFIXES.get(format, '')}"
    try:
        report = kvis2.export(kind(model, **options), path, name, **further)
    except ValueError as error:
        return {"refused": str(error)}
    return numbers(report)


def numbers(report: kvis2.layers.Exported) -> dict[str, float]:
    """The numbers of a report."""
    return {
        "difference": report.difference,
        "correlation": report.correlation,
        "latency_ratio": report.latency_ratio,
        "bytes": report.bytes,
    }


def costs(folder: Path) -> dict[str, Any]:
    """Grad-CAM on MobileNetV2, of eight images, beside the same model in the same runtime."""
    model = prepared("mobilenetv2")
    images = models.smooth_images(_BATCH, 224)
    found: dict[str, Any] = {}
    for format, predictions in COSTS:
        path = folder / f"{predictions}{_SUFFIXES.get(format, '')}"
        report = kvis2.export(
            kvis2.GradCAM(model), path, format, predictions=predictions, sample=images
        )
        found[f"{format}, {predictions}"] = numbers(report)
    return found


def filled(page: str, document: dict[str, Any]) -> str:
    """A page with the table between its marks."""
    before, rest = page.split(_START)
    after = rest.split(_END, 1)[1]
    return f"{before}{_START}\n\n{markdown(document)}\n{_END}{after}"


def markdown(document: dict[str, Any]) -> str:
    """Both tables, and the refusals below the first."""
    refusals: list[str] = []
    lines = [f"| method | {' | '.join(FORMATS.values())} |", "| --- " * (len(FORMATS) + 1) + "|"]
    for name in METHODS:
        row = document["rows"][name]
        lines.append(f"| {name} | {' | '.join(written(row[f], f, refusals) for f in FORMATS)} |")
    lines.append("")
    lines += [f"{number}. {each}" for number, each in enumerate(refusals, start=1)]
    lines += ["", "| MobileNetV2, Grad-CAM | difference | times the model alone | size |"]
    lines.append("| --- | --- | --- | --- |")
    for name, each in document["rows"]["MobileNetV2"].items():
        format, predictions = name.split(", ")
        lines.append(
            f"| {FORMATS[format]}, {predictions} predictions | {each['difference']:.0e} | "
            f"{each['latency_ratio']:.2f} | {each['bytes'] / 1e6:.1f} MB |"
        )
    machine = ", ".join(f"{name} {value}" for name, value in document["machine"].items())
    return "\n".join([*lines, "", f"Measured: {machine}.", ""])


def written(found: dict[str, Any], format: str, refusals: list[str]) -> str:
    """A cell: numbers, or the number of the sentence that refuses."""
    if "refused" in found:
        sentence = re.sub(r", at '[^']*'", "", found["refused"])
        if sentence not in refusals:
            refusals.append(sentence)
        return f"refused ({refusals.index(sentence) + 1})"
    first = f"{found['difference']:.0e}"
    if format == "int8":
        first = f"r {found['correlation']:.3f}"
    return f"{first}, x{found['latency_ratio']:.1f}"


if __name__ == "__main__":
    main()
