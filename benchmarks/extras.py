"""What is not a race: import time, long loops, the cost of logging, and how time grows.

Each is a program of its own, `python -m benchmarks.<name>`, that prints its numbers as JSON: a
fresh process, so that memory and first calls are its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.workers import REPOSITORY


def measured(folder: Path, quick: bool) -> dict[str, Any]:
    """The numbers of every program by its name; `{"left_out": reason}` for one that failed.

    Args:
        folder: Where the models are kept.
        quick: Whether to leave out what takes minutes: the training of a large network, and how
            time grows.
    """
    found = {
        "imports": _run("imports", folder),
        "endurance": _run("endurance", folder),
        "training": _run("training", folder, *(["quick"] if quick else [])),
    }
    if not quick:
        found["growth"] = _run("growth", folder)
    return found


def _run(name: str, folder: Path, *arguments: str) -> dict[str, Any]:
    print(f"Measuring {name}", flush=True)
    finished = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", str(folder), *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    if finished.returncode:
        lines = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
        print(f"  {name} is left out: {lines[-1]}")
        return {"left_out": lines[-1]}
    return json.loads(finished.stdout.strip().splitlines()[-1])
