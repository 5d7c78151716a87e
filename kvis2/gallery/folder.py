"""The folder of a gallery: files are written once, kept, listed, and failures are told."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kvis2 import images
from kvis2.gallery.artifacts import ARTIFACTS
from kvis2.gallery.page import Contents, Entry, Failure, page
from kvis2.gallery.pieces import Made, Piece
from kvis2.gallery.subject import Subject


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
        self._taken: dict[str, set[str]] = {}

    def add(self, section: str, line: str, subject: Subject, artifacts: Sequence[str]) -> None:
        """Make the files of some artefacts, and rewrite the page after each of them.

        Args:
            section: The name of the photograph, or "model".
            line: What the page says about it.
            subject: What is shown.
            artifacts: Names in `ARTIFACTS`.
        """
        self.contents.sections[section] = line
        self._taken[section] = set()
        for number, artifact in enumerate(artifacts, 1):
            self.contents.forget_failures(section, artifact)
            title = f"{section}  {number}/{len(artifacts)}  {artifact}"
            for piece in self._pieces(section, artifact, subject):
                self._add(section, artifact, piece, title)
            self.write_page()

    def write_page(self) -> None:
        """Write what is known, and the page."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.contents.forget_missing(self.folder)
        self.contents.save(self._record)
        lines = {name: (each.__doc__ or "").partition("\n")[0] for name, each in ARTIFACTS.items()}
        text = page(self.contents, lines)
        with images.written_aside(self.folder / "index.html") as part:
            # A file may have a name that is no text, which its folder in the gallery has not.
            part.write_text(text, encoding="utf-8", errors="backslashreplace")

    def _pieces(self, section: str, artifact: str, subject: Subject) -> Iterator[Piece]:
        """The files of an artefact; a failure to list them is one like any other."""
        try:
            yield from ARTIFACTS[artifact](subject)
        except Exception as error:
            self._fail(section, artifact, "", error)

    def _add(self, section: str, artifact: str, piece: Piece, title: str) -> None:
        """Make one file, unless it exists."""
        name = f"{section}/{self._file(section, piece.file)}"
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

    def _file(self, section: str, file: str) -> str:
        """The name of a file; two that are the same once cleaned, as of layers, are kept apart."""
        taken = self._taken.setdefault(section, set())
        stem, dot, suffix = f"{section}_{file}".rpartition(".")
        name = images.file_name(stem, dot + suffix, taken=taken)
        taken.add(images.comparable(name))
        return name

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
    with images.written_aside(path) as part:
        if isinstance(made.pictures, list):
            images.save_gif(part, made.pictures, duration_ms=300)
        else:
            images.save(part, made.pictures)


def _plain(values: Any) -> dict[str, Any]:
    """As it comes back from JSON."""
    return {
        key: list(each) if isinstance(each, tuple) else each for key, each in dict(values).items()
    }


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())
