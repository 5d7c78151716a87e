"""Every picture that kvis2 can make of a model and photographs, in one folder with one page.

    python -m kvis2 gallery model.keras cat.jpg dog.jpg --out gallery
    python -m kvis2 gallery VGG16 snake.jpg --out gallery --only grad_cam layer_cam

A file that exists is kept, so that an interrupted gallery is continued by the same command.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kvis2 import images, targets
from kvis2.description import Description, describe
from kvis2.gallery_artifacts import ARTIFACTS, OF_THE_MODEL, QUICK, Effort, Made, Piece, Subject
from kvis2.gallery_index import Contents, Entry, Failure, page
from kvis2.input_space import InputSpace

_MODEL = "model"  # the section of what needs no photograph


class Gallery:
    """A folder of pictures, what is known of them, and the page that shows them.

    Args:
        folder: Where the files are, or will be.
        model: What the model is called; a folder holds pictures of one model.
        overwrite: Whether files that exist are made again.
        say: Gets one line for each file.

    Raises:
        ValueError: If the folder holds a gallery of another model and is not to be overwritten.

    Attributes:
        contents: What is known of the files.
        failed: How many files could not be made since this object was.
    """

    def __init__(
        self,
        folder: Path,
        model: str,
        overwrite: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        self.folder = folder
        self._record = folder / "gallery.json"
        known = Contents.load(self._record)
        if known is not None and known.model != model and not overwrite:
            raise ValueError(
                f"Expected a folder without a gallery, or with one of '{model}'. Received: "
                f"{folder}, which holds one of '{known.model}'. Give another --out, or --overwrite."
            )
        if known is None or known.model != model:
            known = Contents(model)
        self.contents = known
        self.overwrite = overwrite
        self.failed = 0
        self._say = say

    def add(self, section: str, line: str, subject: Subject, artifacts: Sequence[str]) -> None:
        """Make the files of some artefacts, and rewrite the page after each of them.

        Args:
            section: The name of the photograph, or "model".
            line: What the page says about it.
            subject: What is shown.
            artifacts: Names in `ARTIFACTS`.
        """
        self.contents.sections[section] = line
        for number, artifact in enumerate(artifacts, 1):
            self.contents.forget_failures(section, artifact)
            title = f"{section}  {number}/{len(artifacts)}  {artifact}"
            for piece in self._pieces(section, artifact, subject):
                self._add(section, artifact, piece, title)
            self.write_page()

    def write_page(self) -> None:
        """Write what is known, and the page."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.contents.save(self._record)
        text = page(self.contents, self.folder, ARTIFACTS)
        (self.folder / "index.html").write_text(text, encoding="utf-8")

    def _pieces(self, section: str, artifact: str, subject: Subject) -> Iterator[Piece]:
        """The files of an artefact; a failure to list them is one like any other."""
        try:
            yield from ARTIFACTS[artifact](subject)
        except Exception as error:
            self._fail(section, artifact, "", error)

    def _add(self, section: str, artifact: str, piece: Piece, title: str) -> None:
        """Make one file, unless it exists."""
        name = f"{section}/{section}_{piece.file}"
        path = self.folder / name
        if path.exists() and not self.overwrite:
            entry = self.contents.entries.setdefault(name, Entry(section, artifact))
            changed = entry.parameters and entry.parameters != _plain(piece.parameters)
            other = f", made with {_listed(entry.parameters)}" if changed else ""
            self._say(f"{title}  {piece.file}  kept{other}")
            return
        start = time.perf_counter()
        try:
            made, notes = _with_warnings(piece.make)
            _write(path, made)
        except Exception as error:
            self._fail(section, artifact, piece.file, error)
            return
        self.contents.entries[name] = Entry(
            section, artifact, _plain(piece.parameters), _plain(made.findings), notes
        )
        self.contents.save(self._record)
        self._say(f"{title}  {piece.file}  {time.perf_counter() - start:.1f} s")
        for note in notes:
            self._say(f"    {note}")

    def _fail(self, section: str, artifact: str, file: str, error: Exception) -> None:
        """Report what could not be made; the others go on."""
        sentence = str(error) or type(error).__name__
        if not isinstance(error, ValueError | TypeError):
            sentence = f"{type(error).__name__}: {sentence}"
        self.failed += 1
        self.contents.failures.append(Failure(section, artifact, file, sentence))
        self._say(f"{section}  {artifact}  {file}  FAILED: {sentence}")


def _with_warnings(make: Callable[[], Made]) -> tuple[Made, list[str]]:
    """What is made, and what was warned of on the way."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = make()
    # What libraries warn one another of is nothing that a reader of the page can mend.
    notes = [str(w.message) for w in caught if not issubclass(w.category, DeprecationWarning)]
    return made, list(dict.fromkeys(notes))


def _write(path: Path, made: Made) -> None:
    """Write a file as a whole: one that was interrupted is not taken for one that is done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"part-of-{path.name}")
    if isinstance(made.pictures, list):
        images.save_gif(part, made.pictures, duration_ms=300)
    else:
        images.save(part, made.pictures)
    part.replace(path)


def _plain(values: Any) -> dict[str, Any]:
    """As it comes back from JSON."""
    return {
        key: list(each) if isinstance(each, tuple) else each for key, each in dict(values).items()
    }


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


# -- the command ----------------------------------------------------------------------------------


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


def run(options: argparse.Namespace) -> int:
    """Make a gallery.

    Args:
        options: As `add_arguments` reads them.

    Returns:
        0, or 1 if something could not be made.

    Raises:
        ValueError: If model, photographs or options do not fit together.
    """
    model, preprocess = load_model(options.model, options.random_weights)
    shape = _image_shape(model)
    space = _input_space(options, preprocess, shape[2])
    gallery = Gallery(options.out, options.model, options.overwrite, _say)
    for path in options.photographs:
        if not path.exists():
            raise ValueError(f"Expected a picture file. Received: {path}, which is not there.")
    artifacts = [
        each
        for each in options.only or ARTIFACTS
        if each not in options.skip and (options.photographs or each in OF_THE_MODEL)
    ]
    description = _described(model)
    effort = QUICK if options.quick else Effort()
    if options.steps is not None:
        effort = dataclasses.replace(effort, steps=options.steps)
    base = Subject(
        model,
        space,
        shape[:2],
        () if options.label is None else (options.label,),
        description.maps,
        effort,
        options.recipe,
        options.colormap,
        tuple(options.layers),
    )
    labels = list(base.labels)
    for path in options.photographs:
        subject = dataclasses.replace(
            base, picture=space.read(path, base.size), original=space.read(path, None)
        )
        probabilities = _outputs(model, subject.batch)
        label = _label(probabilities, options.label, description)
        subject = dataclasses.replace(subject, labels=(label,))
        labels.append(label)
        shares = probabilities.reshape(-1, probabilities.shape[-1]).mean(axis=0)
        share = f"{shares[label]:.3f}" if label < len(shares) else f"{shares[0]:.3f} (one unit)"
        line = f"{path.name}: class {label}, output {share}"
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
    return 1 if gallery.failed else 0


def load_model(
    name: str, random_weights: bool = False
) -> tuple[keras.Model, Callable[[Any], Any] | None]:
    """A model from a file or from `keras.applications`, and the preprocessing of the latter.

    Raises:
        ValueError: If there is neither such a file nor such a name.
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
    return keras.saving.load_model(name, compile=False), None


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
    with contextlib.redirect_stdout(io.StringIO()):
        description = describe(model)
    if not description.maps:
        raise ValueError(
            f"Expected a model with spatial feature maps. Received: '{model.name}', which has "
            "none. Use the gradient methods of kvis2 by themselves."
        )
    return description


def _outputs(model: keras.Model, batch: np.ndarray) -> np.ndarray:
    """The first output of the model, `(batch, ..., units)`."""
    # A model of one input may have been built to take it in a list, or a dict.
    given = keras.tree.map_structure(lambda _: batch, targets.input_structure(model))
    return np.asarray(keras.tree.flatten(model(given, training=False))[0], np.float64)


def _label(outputs: np.ndarray, asked: int | None, description: Description) -> int:
    """The class to explain: the one asked for, or the predicted one."""
    units = outputs.shape[-1]
    is_binary = units == 1 and description.outputs[0].activation == "sigmoid"
    if asked is not None:
        if not 0 <= asked < (2 if is_binary else units):
            raise ValueError(
                f"Expected a class from 0 to {1 if is_binary else units - 1}. Received: {asked}."
            )
        return asked
    means = outputs.reshape(-1, units).mean(axis=0)
    return int(means[0] > 0.5) if is_binary else int(means.argmax())


def _say(line: str) -> None:
    print(line, flush=True)
