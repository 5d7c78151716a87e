"""Packages that an extra of kvis2 brings: imported where they are needed, or a sentence."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

_PACKAGES = {"sklearn": "scikit-learn", "ai_edge_litert": "ai-edge-litert"}


def is_installed(module: str) -> bool:
    """Whether a package is there; it is not imported."""
    return importlib.util.find_spec(module) is not None


def check_installed(modules: Sequence[str], what: str, extra: str, otherwise: str = "") -> None:
    """Raise if packages are missing.

    Args:
        modules: As they are imported.
        what: What needs them, for the sentence.
        extra: The extra of kvis2 that brings them.
        otherwise: What can be done without them, for the end of the sentence.

    Raises:
        ValueError: If one is missing.
    """
    missing = [_PACKAGES.get(each, each) for each in modules if not is_installed(each)]
    if missing:
        raise ValueError(
            f"Expected {', '.join(missing)} for {what}. Received: a Python without. "
            f"`pip install kvis2[{extra}]`{otherwise}."
        )


def imported(module: str, what: str, extra: str, otherwise: str = "") -> Any:
    """A module that not everybody has; the arguments are those of `check_installed`."""
    check_installed([module.partition(".")[0]], what, extra, otherwise)
    return importlib.import_module(module)
