"""What a gallery holds, kept beside its files, and the page that shows it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kvis2 import images

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


_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 84rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { margin: 2.5rem 0 0; border-bottom: 2px solid #8886; }
h3 { margin: 1.6rem 0 .2rem; font-size: 1.05rem; }
p { margin: .2rem 0 .5rem; } .parameters, figcaption { color: #777; font-size: .82rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; max-width: 100%; } img { display: block; max-width: 100%; min-width: 7rem; }
figcaption { max-width: 20rem; overflow-wrap: anywhere; }
.failure { border-left: 4px solid #c33; padding: .2rem .7rem; }
nav a { margin-right: .9rem; }
"""


def page(contents: Contents, artifacts: Mapping[str, str]) -> str:
    """The page that shows all files of a gallery, side by side.

    Args:
        contents: What the gallery holds.
        artifacts: All artefacts in the order in which they are shown, and one line about each.

    Returns:
        HTML without scripts; the pictures are the files beside it, nothing else is loaded.
    """
    links = [f'<a href="#{quote(name)}">{_text(name)}</a>' for name in contents.sections]
    title = _text(Path(contents.model).name)
    body = [f"<h1>{title}</h1>", f"<nav>{''.join(links)}</nav>"]
    for section, line in contents.sections.items():
        body.append(f'<h2 id="{_text(section)}">{_text(section)}</h2><p>{_text(line)}</p>')
        for artifact, line in artifacts.items():
            body.extend(_artifact(contents, section, artifact, line))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}: gallery</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _artifact(contents: Contents, section: str, artifact: str, line: str) -> list[str]:
    """The lines that show one artefact of one section; none if there is nothing of it."""
    files = {
        name: entry
        for name, entry in contents.entries.items()
        if (entry.section, entry.artifact) == (section, artifact)
    }
    failures = [
        each for each in contents.failures if (each.section, each.artifact) == (section, artifact)
    ]
    if not files and not failures:
        return []
    common = _common([entry.parameters for entry in files.values()])
    notes = dict.fromkeys(note for entry in files.values() for note in entry.notes)
    figures = [_figure(name, entry, common) for name, entry in files.items()]
    return [
        f"<h3>{_text(artifact.replace('_', ' '))}</h3><p>{_text(line)}</p>",
        f'<p class="parameters">{_text(_listed(common))}</p>' if common else "",
        *(f'<p class="parameters">{_text(note)}</p>' for note in notes),
        f'<div class="pictures">{"".join(figures)}</div>',
        *(
            f'<p class="failure"><b>{_text(each.file)}</b> {_text(each.sentence)}</p>'
            for each in failures
        ),
    ]


def _figure(name: str, entry: Entry, common: Mapping[str, Any]) -> str:
    own = {key: value for key, value in entry.parameters.items() if key not in common}
    words = ", ".join(filter(None, [_listed(own), _listed(entry.findings)]))
    file, shown = quote(name), Path(name).name.removeprefix(f"{entry.section}_")
    return (
        f'<figure><a href="{file}"><img src="{file}" alt="{_text(name)}" loading="lazy"></a>'
        f"<figcaption>{_text(shown)}<br>{_text(words)}</figcaption></figure>"
    )


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


def _text(value: Any) -> str:
    return html.escape(str(value))
