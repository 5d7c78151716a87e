"""OpenVINO files: a graph in XML, and its weights beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kvis2.layers.formats import Format, Run


class OpenVINO(Format):
    """OpenVINO, converted from the SavedModel; run in float32.

    By default OpenVINO computes in bfloat16 where the processor can, which moves maps by a
    hundredth: `INFERENCE_PRECISION_HINT` says otherwise.
    """

    name = "openvino"
    title = "OpenVINO"
    suffix = ".xml"
    modules = ("openvino",)

    def write(self, saved: Path, serving: Any, target: Path) -> None:
        """Convert; weights stay float32."""
        import openvino

        try:
            model = openvino.convert_model(str(saved))
        except Exception as error:
            said = str(error)
            names = re.findall(r"failed for: (.*)|for operations: (.*)", said)
            listed = sorted({each.strip() for pair in names for x in pair for each in x.split(",")})
            found = [each for each in listed if each]
            raise self.refusal(found) if found else self.failure(error) from error
        openvino.save_model(model, str(target), compress_to_fp16=False)

    def opened(self, path: Path) -> Run:
        """The model on the CPU, in float32."""
        import openvino

        options = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(str(path), "CPU", options)
        names = [sorted(each.names)[0] for each in compiled.outputs]

        def run(**given: np.ndarray) -> dict[str, np.ndarray]:
            found = compiled(given)
            return {name: np.array(found[i]) for i, name in enumerate(names)}

        return run

    def operations(self, path: Path) -> Sequence[str]:
        """The types of operations."""
        import openvino

        model = openvino.Core().read_model(str(path))
        return sorted({each.get_type_name() for each in model.get_ops()})
