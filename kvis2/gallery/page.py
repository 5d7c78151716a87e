"""What a gallery holds, kept beside its files, and the page that shows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kvis2 import images
from kvis2.pages import rendered

_OWN_NAMES = frozenset({"model", "index.html", "gallery.json"})  # those of the gallery itself
_LONGEST = 100  # bytes of a section's name, which stands before the names of its files as well


@dataclass
class Entry:
    """One file of a gallery.

    Attributes:
        section: The photograph it shows, or the model.
        artifact: The artefact that it is a part of.
        parameters: What it was made with.
        findings: What was found on the way.
        notes: What was warned of.
    """

    section: str
    artifact: str
    parameters: dict[str, Any] = field(default_factory=dict)
    findings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Failure:
    """A file that could not be made, and the sentence that says why."""

    section: str
    artifact: str
    file: str
    sentence: str


@dataclass
class Contents:
    """What a gallery holds.

    Attributes:
        model: What the model was called on the command line.
        sections: For each photograph, and the model, one line about it.
        sources: For each photograph the path of its file.
        entries: For each file, by its path in the gallery, how it was made.
        failures: What could not be made.
    """

    model: str
    sections: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Contents | None:
        """What was saved at `path`; None if there is nothing.

        Raises:
            ValueError: If there is something else.
        """
        if not path.exists():
            return None
        try:
            saved = json.loads(path.read_text(encoding="utf-8"))
            saved["entries"] = {name: Entry(**each) for name, each in saved["entries"].items()}
            saved["failures"] = [Failure(**each) for each in saved["failures"]]
            return cls(**saved)
        except (ValueError, TypeError, KeyError, AttributeError, OSError):
            raise ValueError(
                f"Expected the record of a gallery. Received: {path}, which is something else, or "
                "damaged. Remove it, or give another --out."
            ) from None

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        with images.written_aside(path) as part:
            part.write_text(json.dumps(asdict(self), indent=1, default=str), encoding="utf-8")

    def name_of(self, source: Path) -> str:
        """The name of a photograph's section, and of its folder in the gallery.

        It is a name that every file system takes, and neither that of another photograph nor of
        another file of the gallery.
        """
        known = {path: name for name, path in self.sources.items()}
        name = known.get(str(source), "")
        # A record may come from elsewhere: what it says must not lead out of the folder.
        if name and name == images.file_name(name, taken=_OWN_NAMES, longest=_LONGEST):
            return name
        self.sources.pop(name, None)
        taken = {*map(images.comparable, self.sources), *_OWN_NAMES}
        name = images.file_name(source.stem, taken=taken, longest=_LONGEST)
        self.sources[name] = str(source)
        return name

    def forget_missing(self, folder: Path) -> None:
        """Drop the files that are no longer in the folder."""
        self.entries = {
            name: entry
            for name, entry in self.entries.items()
            if ".." not in Path(name).parts and (folder / name).exists()
        }

    def forget_failures(self, section: str, artifact: str) -> None:
        """Drop what failed of an artefact before, which is now tried again."""
        self.failures = [
            each for each in self.failures if (each.section, each.artifact) != (section, artifact)
        ]


def page(contents: Contents, artifacts: Mapping[str, str]) -> str:
    """The page that shows all files of a gallery, side by side.

    Args:
        contents: What the gallery holds.
        artifacts: All artefacts in the order in which they are shown, and one line about each.

    Returns:
        HTML without scripts; the pictures are the files beside it, nothing else is loaded.
    """
    sections = [
        {
            "name": section,
            "line": about,
            "artifacts": [
                shown
                for name, line in artifacts.items()
                if (shown := _artifact(contents, section, name, line)) is not None
            ],
        }
        for section, about in contents.sections.items()
    ]
    title = Path(contents.model).name
    return rendered(
        "gallery.html", title=title, subtitle="gallery", sentences=[], sections=sections
    )


def _artifact(contents: Contents, section: str, artifact: str, line: str) -> dict[str, Any] | None:
    """What the page shows of one artefact of one section; None if there is nothing of it."""
    files = {
        name: entry
        for name, entry in contents.entries.items()
        if (entry.section, entry.artifact) == (section, artifact)
    }
    failures = [
        each for each in contents.failures if (each.section, each.artifact) == (section, artifact)
    ]
    if not files and not failures:
        return None
    common = _common([entry.parameters for entry in files.values()])
    notes = dict.fromkeys(note for entry in files.values() for note in entry.notes)
    return {
        "name": artifact.replace("_", " "),
        "line": line,
        "faint": [*filter(None, [_listed(common)]), *notes],
        "figures": [_figure(name, entry, common) for name, entry in files.items()],
        "failures": failures,
    }


def _figure(name: str, entry: Entry, common: Mapping[str, Any]) -> dict[str, str]:
    own = {key: value for key, value in entry.parameters.items() if key not in common}
    return {
        "file": name,
        "shown": Path(name).name.removeprefix(f"{entry.section}_"),
        "words": ", ".join(filter(None, [_listed(own), _listed(entry.findings)])),
    }


def _common(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    """What all have in common."""
    first = parameters[0] if parameters else {}
    return {
        key: value
        for key, value in first.items()
        if all(key in each and each[key] == value for each in parameters)
    }


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} = {value}" for key, value in values.items())
