"""The command `export MODEL --method GradCAM --format litert --out FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kvis2 import explainers, lrp
from kvis2.layers.exporting import FORMATS, export


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` needs.

    Args:
        parser: The parser of the command.
    """
    parser.add_argument("model", type=Path, help="a Keras model (.keras)")
    parser.add_argument("--method", default="GradCAM", help="an explainer of kvis2 (GradCAM)")
    parser.add_argument("--layer", help="the layer it looks at, by name or path")
    parser.add_argument(
        "--format", default="saved_model", choices=sorted(FORMATS), help="saved_model by default"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="a folder, or a file .tflite, .onnx or .xml"
    )
    parser.add_argument("--class-input", action="store_true", help="the class is an input as well")
    parser.add_argument("--predictions", default="exact", choices=["exact", "shared"])
    parser.add_argument("--batch", type=int, help="how many samples at once; open by default")
    parser.add_argument("--size", type=int, nargs="+", help="height and width, where open")
    parser.add_argument("--raw", action="store_true", help="maps that are not normalised")
    parser.add_argument(
        "--representative", type=Path, help="inputs in a .npy file, for LiteRT in int8"
    )


def run(options: argparse.Namespace) -> int:
    """Export, print what was written and how it compares, and return the exit status 0.

    Args:
        options: What `add_arguments` parsed.

    Raises:
        ValueError: If an argument is not as described, or the file cannot be written; `export`
            says why.
    """
    method = getattr(explainers, options.method, None) or getattr(lrp, options.method, None)
    if not (isinstance(method, type) and issubclass(method, explainers.Explainer)):
        raise ValueError(
            f"Expected --method to be an explainer of kvis2. Received: {options.method!r}. Give "
            "for example GradCAM, LayerCAM, CAM or Saliency."
        )
    settings: dict[str, Any] = {"normalize": False} if options.raw else {}
    if options.layer is not None:
        settings["layer"] = options.layer
    representative = None
    if options.representative is not None:
        representative = np.load(options.representative)
    report = export(
        method(_loaded(options.model), **settings),
        options.out,
        options.format,
        class_input=options.class_input,
        predictions=options.predictions,
        batch=options.batch,
        size=options.size,
        representative=representative,
    )
    print(report)
    return 0


def _loaded(path: Path) -> keras.Model:
    if not path.exists():
        raise ValueError(f"Expected a Keras model. Received: {path}, which is not there.")
    return keras.saving.load_model(path, compile=False)
