"""Which model a command names, what its input is, and what its classes are called."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras

from kvis2.gallery.input_space import InputSpace
from kvis2.visualization.pictures import lookup_imagenet_labels


def add_space_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what black and white are to a model: see `space_asked_for`."""
    space = parser.add_mutually_exclusive_group()
    space.add_argument(
        "--input-range", nargs=2, type=float, metavar=("BLACK", "WHITE"), help="default: 0 255"
    )
    space.add_argument(
        "--preprocess", metavar="MODULE", help="of keras.applications, such as vgg16"
    )


def add_loading_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of what `load_model` takes."""
    parser.add_argument(
        "model", metavar="MODEL", help="a .keras or .h5 file, or a name in keras.applications"
    )
    parser.add_argument("--random-weights", action="store_true", help="for a keras.applications")
    parser.add_argument(
        "--trust", action="store_true", help="run the code of a model file, as of its Lambda layers"
    )


def load_model(
    name: str, random_weights: bool = False, *, trust: bool = False
) -> tuple[keras.Model, Callable[[Any], Any] | None]:
    """A model from a file or from `keras.applications`, and the preprocessing of the latter.

    Args:
        name: A .keras or .h5 file, or a name in `keras.applications`.
        random_weights: Whether a model of `keras.applications` is left untrained.
        trust: Whether code in the file is run, as of a Lambda layer.

    Raises:
        ValueError: If there is neither such a file nor such a name, or no model can be loaded.
    """
    factory = getattr(keras.applications, name, None)
    if callable(factory):
        module = sys.modules[factory.__module__]
        weights = None if random_weights else "imagenet"
        return factory(weights=weights), getattr(module, "preprocess_input", None)
    if not Path(name).exists():
        raise ValueError(
            "Expected a .keras or .h5 file, or the name of a model in keras.applications. "
            f"Received: {name!r}, which is not there. Give a path that exists, or a name such as "
            "VGG16."
        )
    if not trust and _holds_code(Path(name)):
        raise ValueError(
            f"Expected a model file without code. Received: {name!r}, whose Lambda layers run "
            "what is written in them. Add --trust if you know where it comes from."
        )
    try:
        return keras.saving.load_model(name, compile=False, safe_mode=not trust), None
    except Exception as error:  # Keras raises whatever the readers of its formats meet.
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"Expected a .keras or .h5 file with a model. Received: {name!r}, of which Keras says: "
            f"{said} Save the model anew; a file with code of its own needs --trust."
        ) from error


def _holds_code(path: Path) -> bool:
    """Whether an HDF5 file has a Lambda layer, which some versions of Keras run unasked."""
    if not (path.is_file() and h5py.is_hdf5(path)):
        return False
    with h5py.File(path, "r") as file:
        found = file.attrs.get("model_config", "{}")
    config = json.loads(found if isinstance(found, str) else bytes(found))
    return _mentions(config, ("Lambda", "__lambda__"))


def _mentions(config: Any, classes: tuple[str, ...]) -> bool:
    if isinstance(config, list):
        return any(_mentions(each, classes) for each in config)
    if not isinstance(config, dict):
        return False
    named = config.get("class_name") in classes
    return named or any(_mentions(each, classes) for each in config.values())


def image_shape(model: keras.Model) -> tuple[int, int, int]:
    """Height, width and channels of the model's input; 224 pixels where it leaves them open."""
    shapes = [tuple(each.shape) for each in model.inputs or ()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] not in (1, 3):
        raise ValueError(
            "Expected a model of one image (batch, height, width, 1 or 3). Received: "
            f"'{model.name}' with inputs {shapes}. Use the explainers of kvis2 by themselves."
        )
    _, height, width, channels = shapes[0]
    return height or 224, width or 224, channels


def space_asked_for(
    options: argparse.Namespace, preprocess: Callable[[Any], Any] | None, channels: int
) -> InputSpace:
    """The input space that was asked for, or that of the model of `keras.applications`."""
    if options.preprocess is not None:
        module = getattr(keras.applications, options.preprocess, None)
        preprocess = getattr(module, "preprocess_input", None)
        if preprocess is None:
            raise ValueError(
                "Expected a module of keras.applications, such as vgg16. Received: "
                f"--preprocess {options.preprocess}. Or give --input-range BLACK WHITE."
            )
    if options.input_range is None and preprocess is not None and channels == 3:
        return InputSpace.of_preprocessing(preprocess)
    black, white = options.input_range or (0.0, 255.0)
    if black == white:
        raise ValueError(
            f"Expected black and white to differ. Received: --input-range {black} {white}."
        )
    return InputSpace((black,) * channels, (white,) * channels)


def class_names(option: str | None, units: int) -> tuple[str, ...]:
    """The names of the classes; none where none were given."""
    if option is None:
        return ()
    if option == "imagenet":
        names = lookup_imagenet_labels(range(1000))
    elif Path(option).is_file():
        names = Path(option).read_text(encoding="utf-8", errors="replace").splitlines()
    else:
        raise ValueError(
            f"Expected 'imagenet' or a text file of names. Received: --names {option}."
        )
    if len(names) != max(units, 2):
        raise ValueError(
            f"Expected a name for each of {max(units, 2)} classes. Received: {len(names)} in "
            f"--names {option}."
        )
    return tuple(names)
