"""What a data set of explanations was made with: by it a run goes on, or is refused."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import PIL
import tensorflow as tf

from kvis2 import models
from kvis2.explainers import Explainer
from kvis2.version import __version__

_FORMAT = 1
_FREE = ("versions", "kvis2")  # May differ between two runs of one data set, and are told.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def model_hash(model: keras.Model) -> str:
    """A hash of the weights of a model and of the kinds and settings of its layers.

    Names are left out: the same model built twice in one process has others.
    """
    digest = hashlib.sha256()
    for _, layer in models.walk(model):
        digest.update(type(layer).__name__.encode())
        if not isinstance(layer, keras.Model):
            try:
                config = layer.get_config()
            except NotImplementedError:  # A layer of one's own without it.
                config = {}
            digest.update(json.dumps(_nameless(config), sort_keys=True, default=str).encode())
    for weight in model.weights:
        array = np.ascontiguousarray(weight)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _nameless(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {str(key): _nameless(each) for key, each in config.items() if key != "name"}
    if isinstance(config, list | tuple):
        return [_nameless(each) for each in config]
    return _ADDRESS.sub("", config) if isinstance(config, str) else config


def method_of(explainer: Explainer) -> dict[str, Any]:
    """The name and the settings of an explainer, as JSON has them."""
    found: dict[str, Any] = {"name": type(explainer).__name__}
    for name, value in sorted(vars(explainer).items()):
        if name.startswith("_") or name == "model":
            continue
        found[name] = method_of(value) if isinstance(value, Explainer) else _plain(value)
    layer = explainer.layer
    found["layer"] = None if layer is None else models.layer_path(explainer.model, layer)
    return found


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, keras.Operation):
        return value.name
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
    return _ADDRESS.sub("", repr(value))


def versions() -> dict[str, str]:
    """The versions of what computes."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def manifest_of(**parts: Any) -> dict[str, Any]:
    """A manifest: its format, versions, and the parts that say what is computed."""
    made = {"format": _FORMAT, "kvis2": __version__, "versions": versions(), **parts}
    return json.loads(json.dumps(made))  # As it comes back from disk.


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None if there is none.

    Raises:
        ValueError: If there is something else in its place.
    """
    path = folder / "manifest.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] == _FORMAT:
            return found
    except (ValueError, TypeError, KeyError):
        pass
    raise ValueError(
        f"Expected a manifest of kvis2 of format {_FORMAT}. Received: {path}, which is another, or "
        "damaged. Give another folder."
    )


def check_same(known: Mapping[str, Any], asked: Mapping[str, Any], folder: Path) -> None:
    """Raise if what is asked for would not go on what a folder holds.

    Raises:
        ValueError: If model, source, method or settings differ.
    """
    differing = list(_differing(known, asked))
    if differing:
        name, there, here = differing[0]
        more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
        raise ValueError(
            f"Expected to go on with what {folder} was made with, {name} = {there!r}. Received: "
            f"{here!r}{more}. Give the same command, or another folder."
        )


def _differing(known: Any, asked: Any, name: str = "") -> Any:
    if isinstance(known, Mapping) and isinstance(asked, Mapping):
        for key in dict.fromkeys([*known, *asked]):
            if name or key not in _FREE:
                inner = f"{name}.{key}" if name else key
                yield from _differing(known.get(key), asked.get(key), inner)
    elif known != asked:
        yield name, known, asked
