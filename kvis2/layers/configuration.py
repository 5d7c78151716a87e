"""Explainers, scores and modifiers as plain data, for `.keras` files, and back."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kvis2 import models

_OWN = "kvis2"


def as_config(value: Any, model: keras.Model) -> Any:
    """What JSON can hold of a setting.

    Args:
        value: Numbers, text, arrays, lists and dicts; layers of the model, by their path; objects
            and classes of kvis2, by their names and attributes.
        model: The model whose layers may be named.

    Raises:
        ValueError: If it is anything else, such as a function.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        return {"array": array.tolist(), "dtype": array.dtype.name}
    if isinstance(value, list | tuple):
        return {"list": [as_config(each, model) for each in value], "is": type(value).__name__}
    if isinstance(value, Mapping):
        return {"dict": {str(key): as_config(each, model) for key, each in value.items()}}
    if isinstance(value, keras.Operation):
        return {"layer": models.layer_path(model, value)}
    kind = value if isinstance(value, type) else type(value)
    if kind.__module__.split(".")[0] != _OWN:
        raise ValueError(
            f"Expected settings that a file can hold. Received: {value!r}. A saved model takes "
            "numbers, names of layers, and scores and modifiers of kvis2; leave functions out."
        )
    place = {"module": kind.__module__, "name": kind.__qualname__}
    if isinstance(value, type):
        return {"class": place}
    state = {name: as_config(each, model) for name, each in vars(value).items()}
    return {"object": place, "state": state}


def from_config(config: Any) -> Any:
    """The setting that `as_config` made data of; objects are of kvis2 alone."""
    if not isinstance(config, Mapping):
        return config
    if "array" in config:
        return np.asarray(config["array"], config["dtype"])
    if "list" in config:
        values = [from_config(each) for each in config["list"]]
        return tuple(values) if config["is"] == "tuple" else values
    if "dict" in config:
        return {key: from_config(each) for key, each in config["dict"].items()}
    if "layer" in config:
        return config["layer"]
    kind = _class_of(config.get("class") or config["object"])
    if "class" in config:
        return kind
    made: Any = object.__new__(kind)
    for name, value in config["state"].items():
        object.__setattr__(made, name, from_config(value))
    return made


def _class_of(place: Mapping[str, str]) -> type:
    """A class of kvis2; a file that names another is refused, for it could run anything."""
    if place["module"].split(".")[0] != _OWN:
        raise ValueError(
            f"Expected a class of kvis2 in the file. Received: {place['module']}.{place['name']}. "
            "Load files that you trust alone."
        )
    found: Any = importlib.import_module(place["module"])
    for part in place["name"].split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or found.__module__ != place["module"]:
        raise ValueError(
            f"Expected the name of a class of kvis2 in the file. Received: {place['name']!r}. "
            "Save the model anew."
        )
    return found
