"""ONNX files, with every weight in them once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kvis2.layers.formats import Format, Run

_OPSET = 17
_SMALLEST = 4096  # Bytes from which a weight is looked for among the others.


class ONNX(Format):
    """ONNX, written by `tf2onnx`, run by `onnxruntime`."""

    name = "onnx"
    title = "ONNX"
    suffix = ".onnx"
    modules = ("tf2onnx", "onnx", "onnxruntime")

    def write(self, saved: Path, serving: Any, target: Path) -> None:
        """Convert, check, and put weights in once; tf2onnx itself only logs what it lacks."""
        import onnx
        import tf2onnx

        with _silent("tf2onnx"):
            try:
                model, _ = tf2onnx.convert.from_function(
                    serving, input_signature=serving.input_signature, opset=_OPSET
                )
            except Exception as error:
                raise self.failure(error) from error
        unknown = sorted({node.op_type for node in _nodes(model.graph) if not _is_known(node)})
        if unknown:
            raise self.refusal(unknown)
        _share_turned_weights(model)
        try:
            onnx.checker.check_model(model, full_check=True)
        except Exception as error:
            raise self.failure(error) from error
        onnx.save(model, str(target))

    def opened(self, path: Path) -> Run:
        """A session on the CPU."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        names = [each.name for each in session.get_outputs()]
        return lambda **given: dict(zip(names, session.run(None, given), strict=True))

    def operations(self, path: Path) -> Sequence[str]:
        """The types of operators, those inside of loops as well."""
        import onnx

        return sorted({node.op_type for node in _nodes(onnx.load(str(path)).graph)})


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Without what a converter logs: all of it is checked afterwards."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _is_known(node: Any) -> bool:
    import onnx

    return node.domain not in ("", "ai.onnx") or onnx.defs.has(node.op_type)


def _share_turned_weights(model: Any) -> None:
    """Replace weights that are others, transposed, by a transposition of these.

    The gradient of a product multiplies by the same weights, transposed: tf2onnx writes them a
    second time. A runtime transposes them once, when it opens the file.
    """
    from onnx import helper, numpy_helper

    kept: list[tuple[str, np.ndarray]] = []
    graph = model.graph
    nodes = []
    for weights in list(graph.initializer):
        array = numpy_helper.to_array(weights)
        if array.nbytes < _SMALLEST:
            continue
        found = next(filter(None, (_as_turned(array, *each) for each in kept)), None)
        if found is None:
            kept.append((weights.name, array))
            continue
        name, order = found
        graph.initializer.remove(weights)
        nodes.append(helper.make_node("Transpose", [name], [weights.name], perm=order))
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _as_turned(array: np.ndarray, name: str, other: np.ndarray) -> tuple[str, list[int]] | None:
    """The name of other weights and the order of their axes that makes them `array`."""
    if sorted(array.shape) != sorted(other.shape) or array.dtype != other.dtype:
        return None
    for order in itertools.permutations(range(array.ndim)):
        turned = other.transpose(order)
        if turned.shape == array.shape and np.array_equal(turned, array):
            return name, list(order)
    return None
