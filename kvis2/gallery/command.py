"""The command: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kvis2.gallery.artifacts import ARTIFACTS, OF_THE_MODEL
from kvis2.gallery.folder import Gallery
from kvis2.gallery.input_space import InputSpace
from kvis2.gallery.loading import (
    add_loading_arguments,
    add_space_arguments,
    class_names,
    image_shape,
    load_model,
    space_asked_for,
)
from kvis2.gallery.subject import QUICK, Effort, Subject
from kvis2.inspection import Description

_MODEL = "model"  # the section of what needs no photograph


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m kvis2 gallery`."""
    add_loading_arguments(parser)
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
    add_space_arguments(parser)
    parser.add_argument(
        "--recipe",
        choices=("kvis2", "original"),
        default="kvis2",
        help="original: optimise and propagate as pytorch-cnn-visualizations",
    )
    parser.add_argument("--colormap", default="turbo", help="of the class activation maps")
    parser.add_argument("--overwrite", action="store_true", help="make existing files again")


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
    shape = image_shape(model)
    effort = QUICK if options.quick else Effort()
    if options.steps is not None:
        effort = dataclasses.replace(effort, steps=options.steps)
    return Subject(
        model,
        space_asked_for(options, preprocess, shape[2]),
        shape[:2],
        () if options.label is None else (options.label,),
        description.maps,
        effort,
        options.recipe,
        options.colormap,
        tuple(options.layers),
        names=class_names(options.names, description.outputs[0].shape[-1] or 0),
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


def _described(model: keras.Model) -> Description:
    """What is in the model, with feature maps to look at."""
    description = Description.of(model)
    if not description.maps:
        raise ValueError(
            f"Expected a model with spatial feature maps. Received: '{model.name}', which has "
            "none. Use the gradient methods of kvis2 by themselves."
        )
    return description


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
