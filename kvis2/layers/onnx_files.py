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
    """Replace weights that are others, transposed or turned around, by these.

    The gradient of a product multiplies by the same weights, transposed, that of a convolution
    goes over them from the end: tf2onnx writes them a second time. A runtime turns them once,
    when it opens the file.
    """
    from onnx import numpy_helper

    kept: list[tuple[str, np.ndarray]] = []
    graph = model.graph
    nodes: list[Any] = []
    for weights in list(graph.initializer):
        array = numpy_helper.to_array(weights)
        if array.nbytes < _SMALLEST:
            continue
        found = next(filter(None, (_as_turned(array, *each) for each in kept)), None)
        if found is None:
            kept.append((weights.name, array))
            continue
        graph.initializer.remove(weights)
        nodes += _turning(weights.name, *found, graph)
    for node in reversed(nodes):
        graph.node.insert(0, node)


def _as_turned(
    array: np.ndarray, name: str, other: np.ndarray
) -> tuple[str, list[int], list[int]] | None:
    """Other weights, the order of their axes and which of them go backwards to make `array`."""
    if sorted(array.shape) != sorted(other.shape) or array.dtype != other.dtype:
        return None
    space = [each for each in range(2, array.ndim) if array.shape[each] > 1]
    for order in itertools.permutations(range(array.ndim)):
        turned = other.transpose(order)
        if turned.shape != array.shape:
            continue
        if np.array_equal(turned, array):
            return name, list(order), []
        if space and np.array_equal(np.flip(turned, tuple(space)), array):
            return name, list(order), space
    return None


def _turning(name: str, source: str, order: list[int], turned: list[int], graph: Any) -> list[Any]:
    """The nodes that make the weights `name` of others."""
    from onnx import helper, numpy_helper

    if not turned:
        return [helper.make_node("Transpose", [source], [name], perm=order)]
    between = f"{name}_transposed"
    bounds = {
        "starts": np.full(len(turned), -1, np.int64),
        "ends": np.full(len(turned), np.iinfo(np.int64).min, np.int64),
        "axes": np.array(turned, np.int64),
        "steps": np.full(len(turned), -1, np.int64),
    }
    names = [f"{name}_{each}" for each in bounds]
    graph.initializer.extend(
        numpy_helper.from_array(v, n) for v, n in zip(bounds.values(), names, strict=True)
    )
    return [
        helper.make_node("Transpose", [source], [between], perm=order),
        helper.make_node("Slice", [between, *names], [name]),
    ]
