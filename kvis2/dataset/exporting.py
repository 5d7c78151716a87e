"""`kvis2 export`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from kvis2.dataset.command import made_explainer
from kvis2.gallery import add_loading_arguments, load_model
from kvis2.layers import FORMATS, export


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run_export` needs.

    Args:
        parser: The parser of the command.
    """
    add_loading_arguments(parser)
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


def run_export(options: argparse.Namespace) -> int:
    """Export, print what was written and how it compares, and return the exit status 0.

    Args:
        options: What `add_export_arguments` parsed.

    Raises:
        ValueError: If an argument is not as described, or the file cannot be written; `export`
            says why.
    """
    settings: dict[str, Any] = {"normalize": False} if options.raw else {}
    representative = None
    if options.representative is not None:
        representative = np.load(options.representative)
    model, _ = load_model(options.model, options.random_weights, trust=options.trust)
    report = export(
        made_explainer(model, options.method, options.layer, **settings),
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
