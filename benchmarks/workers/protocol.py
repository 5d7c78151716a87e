"""The far end: answers requests, one JSON object a line, on standard input and output.

    prepare  {folder, method, batch, options}  -> {first_seconds}   build the explainer, first call
    result   {path}                            -> {}                write the raw maps to a .npy
    time     {repeats}                         -> {seconds}         mean seconds of a call
    memory   {}                                -> {peak_mib}        above the loaded model
    about    {}                                -> {versions}

What goes wrong is answered as {error}. Models and images are handed over as files.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np


class Task(NamedTuple):
    """What is to be explained.

    Attributes:
        model: As the worker loaded it.
        layer: Name of the layer that CAMs are made at.
        images: float32 `(batch, height, width, 3)`.
        classes: int32 `(batch,)`: the class to explain of each image.
        options: `Case.options`.
    """

    model: Any
    layer: str
    images: np.ndarray
    classes: np.ndarray
    options: Mapping[str, Any]


def ranking_maps(images: np.ndarray) -> np.ndarray:
    """Maps for the measures of maps, `(batch, height, width)`: a blob and noise, without ties."""
    size = images.shape[1:3]
    rows, columns = np.mgrid[: size[0], : size[1]] / max(size)
    blob = np.exp(-12 * ((rows - 0.45) ** 2 + (columns - 0.55) ** 2))
    noise = np.random.default_rng(0).random((len(images), *size))
    return (blob + 0.2 * noise).astype(np.float32)


class Prepared(NamedTuple):
    """A built explainer.

    Attributes:
        run: One call as a user would make it; this is timed.
        result: What the method computed before it was resized and normalised, to be compared:
            a CAM `(batch, *size of the layer)`, or `(batch, height, width)` with the channels of a
            gradient reduced by the largest magnitude. Random noise is left out.
    """

    run: Callable[[], Any]
    result: Callable[[], np.ndarray]


Methods = Mapping[str, Callable[[Task], Prepared]]


def serve(
    load: Callable[[Path], Any],
    methods: Methods,
    packages: Sequence[str],
    requests: TextIO | None = None,
    answers: TextIO | None = None,
) -> None:
    """Answer requests until there are no more.

    Args:
        load: Loads the model that `benchmarks.models` wrote to a folder.
        methods: How a task is prepared, for each method that the rival has.
        packages: The packages whose versions are told.
        requests: Standard input by default.
        answers: Standard output by default, which is then closed to everybody else: what the
            packages print goes to standard error.
    """
    if answers is None:
        answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    session = Session(load, methods, packages)
    for line in requests or sys.stdin:
        answers.write(json.dumps(session.answer(json.loads(line))) + "\n")
        answers.flush()


class Session:
    """One rival, with the task it has prepared."""

    def __init__(
        self, load: Callable[[Path], Any], methods: Methods, packages: Sequence[str]
    ) -> None:
        self._load = load
        self._methods = methods
        self._packages = packages
        self._prepared: Prepared | None = None
        self._loaded_mib = 0.0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request; an error is an answer, too."""
        answers: dict[str, Callable[..., dict[str, Any]]] = {
            "prepare": self.prepare,
            "result": self.result,
            "time": self.time,
            "memory": self.memory,
            "about": self.about,
        }
        try:
            return answers[request.pop("do")](**request)
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            return {"error": f"{type(error).__name__}: {first_line}"}

    def prepare(
        self, folder: str, method: str, batch: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Load the model, then build the explainer and call it once."""
        self._prepared = None
        gc.collect()
        with np.load(Path(folder) / "inputs.npz") as inputs:
            images, classes = inputs["images"][:batch], inputs["classes"][:batch]
            layer = str(inputs["layer"])
        if len(images) < batch:
            raise ValueError(f"Expected {batch} images. Received: {len(images)}. Write more.")
        task = Task(self._load(Path(folder)), layer, images, classes, options)
        gc.collect()
        self._loaded_mib = reset_peak_mib()
        start = time.perf_counter()
        self._prepared = self._methods[method](task)
        self._prepared.run()
        return {"first_seconds": time.perf_counter() - start}

    def result(self, path: str) -> dict[str, Any]:
        """Write what is compared."""
        assert self._prepared is not None
        np.save(path, np.asarray(self._prepared.result(), np.float32))
        return {}

    def time(self, repeats: int) -> dict[str, Any]:
        """Time so many calls together."""
        assert self._prepared is not None
        start = time.perf_counter()
        for _ in range(repeats):
            self._prepared.run()
        return {"seconds": (time.perf_counter() - start) / repeats}

    def memory(self) -> dict[str, Any]:
        """The most memory held since the model was loaded, above what it took itself."""
        return {"peak_mib": peak_mib() - self._loaded_mib}

    def about(self) -> dict[str, Any]:
        """Versions of the packages."""
        return {"versions": {name: importlib.metadata.version(name) for name in self._packages}}


def _status_mib(field: str) -> float:
    """A field of this process's memory status; not a number where there is no /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def resident_mib() -> float:
    """Resident memory of this process."""
    return _status_mib("VmRSS")


def peak_mib() -> float:
    """The most resident memory since the start, or since `reset_peak_mib`."""
    return _status_mib("VmHWM")


def reset_peak_mib() -> float:
    """Forget the peak; returns the resident memory of now."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    return resident_mib()
