"""Importing this lets tests import `benchmarks`, which is not installed."""

import importlib.util
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def load_package():
    """`benchmarks` is not installed; found by its place, so that nothing else is on the path."""
    place = REPOSITORY / "benchmarks" / "__init__.py"
    spec = importlib.util.spec_from_file_location("benchmarks", place)
    sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["benchmarks"])


if "benchmarks" not in sys.modules:
    load_package()
