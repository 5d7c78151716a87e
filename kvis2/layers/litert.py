"""LiteRT (TensorFlow Lite) files, of builtin operations alone: float32, or int8."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2.layers.formats import Format, Run


class LiteRT(Format):
    """LiteRT, run by `ai-edge-litert` without TensorFlow.

    Args:
        rows: Batches by the names of the inputs, whose values int8 is scaled by; none for float32.
    """

    name = "litert"
    title = "LiteRT"
    suffix = ".tflite"
    modules = ("ai_edge_litert",)

    def __init__(self, rows: Sequence[dict[str, np.ndarray]] = ()) -> None:
        self.rows = rows
        if rows:
            self.title = "LiteRT int8"

    def write(self, saved: Path, serving: Any, target: Path) -> None:
        """Convert; what is no builtin operation is refused, not taken from TensorFlow."""
        key = "serving_default"
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved), signature_keys=[key])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if self.rows:
            graph = serving.get_concrete_function().graph.as_graph_def()
            bodies = [graph.node, *(each.node_def for each in graph.library.function)]
            loops = {node.op for body in bodies for node in body if "While" in node.op}
            if loops:  # TensorFlow calibrates them with a segmentation fault.
                raise self.refusal(sorted(loops))
            names = [spec.name for spec in serving.input_signature]

            def representative() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
                for row in self.rows:
                    yield key, {name: row[name] for name in names}

            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = representative
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        try:
            with warnings.catch_warnings():  # Of the interpreter that TensorFlow calibrates with.
                warnings.simplefilter("ignore")
                written = converter.convert()
        except Exception as error:
            raise self._refused(str(error)) or self.failure(error) from error
        target.write_bytes(written)

    def _refused(self, said: str) -> ValueError | None:
        listed = re.findall(r"(?:TF Select|Custom) ops: (.*)", said)
        names = [each.strip() for line in listed for each in line.split(",")]
        if not names:
            names = re.findall(r"failed to legalize operation 'tfl?\.(\w+)'", said)
            names += re.findall(r"not (?:yet )?supported for op: '?(\w+)", said)
        return self.refusal(sorted(set(names))) if names else None

    def opened(self, path: Path) -> Run:
        """The signature `serving_default`."""
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
        return lambda **given: runner(**given)

    def operations(self, path: Path) -> Sequence[str]:
        """The names of the builtin operations."""
        from ai_edge_litert import schema_py_generated as schema

        names = {
            number: name
            for name, number in vars(schema.BuiltinOperator).items()
            if isinstance(number, int)
        }
        model = schema.Model.GetRootAsModel(path.read_bytes(), 0)
        codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
        found = {max(each.BuiltinCode(), each.DeprecatedBuiltinCode()) for each in codes}
        return sorted(names[each] for each in found)
