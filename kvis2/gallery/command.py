"""The command: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from kvis2.gallery.artifacts import ARTIFACTS, OF_THE_MODEL
from kvis2.gallery.folder import Gallery
from kvis2.gallery.input_space import InputSpace
from kvis2.gallery.subject import QUICK, Effort, Subject
from kvis2.inspection import Description
from kvis2.visualization.pictures import lookup_imagenet_labels

_MODEL = "model"  # the section of what needs no photograph


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m kvis2 gallery`."""
    parser.add_argument(
        "model", metavar="MODEL", help="a .keras or .h5 file, or a name in keras.applications"
    )
    parser.add_argument("photographs", metavar="IMAGE", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--class", dest="label", type=int, help="class to explain; default: the predicted one"
    )
    for option, said in (("--only", "make these artefacts"), ("--skip", "leave these out")):
        parser.add_argument(
            option, nargs="+", choices=ARTIFACTS, default=[], metavar="NAME",
            help=f"{said}: {', '.join(ARTIFACTS)}" if option == "--only" else said,
        )  # fmt: skip
    parser.add_argument(
        "--names", metavar="FILE", help='of the classes, one on each line; or "imagenet"'
    )
    parser.add_argument("--steps", type=int, help="steps of each optimisation")
    parser.add_argument("--quick", action="store_true", help="few steps, samples, layers, filters")
    parser.add_argument(
        "--layers", nargs="+", default=[], metavar="LAYER", help="in the place of several depths"
    )
    space = parser.add_mutually_exclusive_group()
    space.add_argument(
        "--input-range", nargs=2, type=float, metavar=("BLACK", "WHITE"), help="default: 0 255"
    )
    space.add_argument(
        "--preprocess", metavar="MODULE", help="of keras.applications, such as vgg16"
    )
    parser.add_argument(
        "--recipe",
        choices=("kvis2", "original"),
        default="kvis2",
        help="original: optimise and propagate as pytorch-cnn-visualizations",
    )
    parser.add_argument("--colormap", default="turbo", help="of the class activation maps")
    parser.add_argument("--random-weights", action="store_true", help="for a keras.applications")
    parser.add_argument("--overwrite", action="store_true", help="make existing files again")
    parser.add_argument(
        "--trust", action="store_true", help="run the code of a model file, as of its Lambda layers"
    )


def run(options: argparse.Namespace) -> int:
    """Make a gallery.

    Args:
        options: As `add_arguments` reads them.

    Returns:
        0, or 1 if something could not be made, or a photograph not be read.

    Raises:
        ValueError: If model, photographs or options do not fit together.
    """
    for path in options.photographs:
        if not os.path.lexists(path):
            raise ValueError(f"Expected a picture file. Received: {path}, which is not there.")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"Expected a folder. Received: --out {options.out}, which is a file.")
    model, preprocess = load_model(options.model, options.random_weights, trust=options.trust)
    description = _described(model)
    base = _subject(options, model, preprocess, description)
    gallery = Gallery(options.out, options.model, options.overwrite, _say)
    photographs, unreadable = _readable(options.photographs, base.space)
    artifacts = [
        each
        for each in options.only or ARTIFACTS
        if each not in options.skip and (photographs or each in OF_THE_MODEL)
    ]
    labels = list(base.labels)
    for path in photographs:
        subject = _of_photograph(base, path, options.label, description)
        labels.append(subject.label)
        output = subject.output(subject.batch, subject.label)
        line = f"{path.name}: class {subject.named(subject.label)}, output {output:.3f}"
        of_photograph = [each for each in artifacts if each not in OF_THE_MODEL]
        name = gallery.contents.name_of(path.resolve())
        gallery.add(name, line, subject, of_photograph)
    of_model = [each for each in artifacts if each in OF_THE_MODEL]
    if of_model:
        subject = dataclasses.replace(base, labels=tuple(dict.fromkeys(labels)) or (0,))
        gallery.add(_MODEL, f"{model.name}: {model.count_params():,} weights", subject, of_model)
    gallery.write_page()
    failed = f", {gallery.failed} could not be made" if gallery.failed else ""
    _say(f"{len(gallery.contents.entries)} files{failed}: {options.out / 'index.html'}")
    if unreadable:
        _say(f"{len(unreadable)} of {len(options.photographs)} pictures could not be read:")
        for sentence in unreadable:
            _say(f"    {sentence}")
    return 1 if gallery.failed or unreadable else 0


def _subject(
    options: argparse.Namespace,
    model: keras.Model,
    preprocess: Callable[[Any], Any] | None,
    description: Description,
) -> Subject:
    """What all photographs have in common."""
    shape = _image_shape(model)
    effort = QUICK if options.quick else Effort()
    if options.steps is not None:
        effort = dataclasses.replace(effort, steps=options.steps)
    return Subject(
        model,
        _input_space(options, preprocess, shape[2]),
        shape[:2],
        () if options.label is None else (options.label,),
        description.maps,
        effort,
        options.recipe,
        options.colormap,
        tuple(options.layers),
        names=_class_names(options.names, description.outputs[0].shape[-1] or 0),
    )


def _of_photograph(
    base: Subject, path: Path, asked: int | None, description: Description
) -> Subject:
    """A photograph, and the class that is explained of it."""
    picture, original = base.space.read(path, base.size), base.space.read(path, None)
    subject = dataclasses.replace(base, picture=picture, original=original)
    label = _label(subject.outputs(subject.batch), asked, description)
    return dataclasses.replace(subject, labels=(label,))


def _readable(paths: Sequence[Path], space: InputSpace) -> tuple[list[Path], list[str]]:
    """The photographs that can be read, and a sentence for each of the others.

    Raises:
        ValueError: If there are photographs, and none can be read.
    """
    readable, sentences = [], []
    for path in paths:
        try:
            space.read(path, (1, 1))
        except ValueError as error:
            sentences.append(str(error))
        else:
            readable.append(path)
    if sentences and not readable:
        raise ValueError(" ".join(sentences))
    for sentence in sentences:
        _say(f"SKIPPED: {sentence}")
    return readable, sentences


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
            f"Received: {name!r}. Give a path that exists, or a name such as VGG16."
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


def _image_shape(model: keras.Model) -> tuple[int, int, int]:
    """Height, width and channels of the model's input; 224 pixels where it leaves them open."""
    shapes = [tuple(each.shape) for each in model.inputs or ()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] not in (1, 3):
        raise ValueError(
            "Expected a model of one image (batch, height, width, 1 or 3). Received: "
            f"'{model.name}' with inputs {shapes}. Use the explainers of kvis2 by themselves."
        )
    _, height, width, channels = shapes[0]
    return height or 224, width or 224, channels


def _input_space(
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


def _described(model: keras.Model) -> Description:
    """What is in the model, with feature maps to look at."""
    description = Description.of(model)
    if not description.maps:
        raise ValueError(
            f"Expected a model with spatial feature maps. Received: '{model.name}', which has "
            "none. Use the gradient methods of kvis2 by themselves."
        )
    return description


def _class_names(option: str | None, units: int) -> tuple[str, ...]:
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


def _label(outputs: np.ndarray, asked: int | None, description: Description) -> int:
    """The class to explain: the one asked for, or the predicted one."""
    units = len(outputs)
    is_binary = units == 1 and description.outputs[0].activation == "sigmoid"
    if asked is not None:
        if not 0 <= asked < (2 if is_binary else units):
            raise ValueError(
                f"Expected a class from 0 to {1 if is_binary else units - 1}. Received: {asked}."
            )
        return asked
    return int(outputs[0] > 0.5) if is_binary else int(outputs.argmax())


def _say(line: str) -> None:
    """Print a line, whatever a file is called and whatever letters the terminal has."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)
