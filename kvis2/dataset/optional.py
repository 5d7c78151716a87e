"""What `kvis2[dataset]` brings, imported where it is needed, and a sentence where it is missing."""

from __future__ import annotations

import importlib
from typing import Any


def is_there(name: str) -> bool:
    """Whether a package can be imported."""
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def pyarrow_parquet(what: str) -> Any:
    """The Parquet part of pyarrow."""
    return _imported("pyarrow.parquet", "pyarrow", what)


def jinja2(what: str) -> Any:
    """The package jinja2."""
    return _imported("jinja2", "jinja2", what)


def pandas(what: str) -> Any:
    """The package pandas."""
    return _imported("pandas", "pandas", what)


def ray_data(what: str) -> Any:
    """The package ray, with its part `data`."""
    _imported("ray.data", "ray", what, extra="ray")
    return importlib.import_module("ray")


def _imported(module: str, package: str, what: str, extra: str = "dataset") -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"Expected {package} for {what}. Received: a Python without it. "
            f"`pip install kvis2[{extra}]`."
        ) from None
