"""`kvis2 audit`: which class is recognised by something that is not the class, as a page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kvis2 import images
from kvis2.dataset.annotations import annotated
from kvis2.dataset.classes import Classes
from kvis2.dataset.command import (
    add_method_arguments,
    add_model_arguments,
    add_source_arguments,
    made_explainer,
    source_of,
)
from kvis2.dataset.measures import boxes_in_input
from kvis2.dataset.reading import Entry, Read, Reader, batches
from kvis2.dataset.sources import Row, rows_of
from kvis2.gallery import class_names, image_shape, load_model, space_asked_for
from kvis2.images import Framing
from kvis2.pages import rendered
from kvis2.shortcuts import LIFT, Audit, Group, audit

_SHOWN = 8  # pictures of a class, or of a group
_GROUPS = 10
_BATCH = 32  # pictures that are read at once
_SIDE = 112  # pixels of a picture on the page
_GAP, _BETWEEN = 3, 160  # pixels between pictures, and how grey they are
_AMBER = (255, 176, 0)
_EXPLAINED = (
    "A suspect is a class whose heat stands out at one place, and which alone is no longer "
    "recognised when that place is hidden, or which others become when it is pasted onto them. A "
    "shortcut at changing places is not found this way."
)


def add_audit_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `kvis2 audit`."""
    add_model_arguments(parser)
    add_source_arguments(parser)
    add_method_arguments(parser)
    parser.add_argument("--labels", metavar="FILE", help="CSV or Parquet with path,label")
    parser.add_argument("--most", type=int, default=5000, metavar="N",
                        help="pictures looked at, drawn by chance; %(default)s")  # fmt: skip
    parser.add_argument("--batch-size", type=int, metavar="N", help="pictures in one pass")
    parser.add_argument("--json", action="store_true", help="tell the result as JSON")


def run_audit(options: argparse.Namespace) -> int:
    """Audit a model by labelled pictures.

    Args:
        options: As `add_audit_arguments` reads them.

    Returns:
        0, or 1 if pictures could not be read, or have no label that is a class.

    Raises:
        ValueError: If model, method and source do not fit, or no picture has a label.
        OSError: If the folder cannot be written to.
    """
    if options.most < 1:
        raise ValueError(f"Expected --most from 1. Received: {options.most}.")
    model, preprocess = load_model(options.model, options.random_weights, trust=options.trust)
    height, width, channels = image_shape(model)
    reader = Reader((height, width), space_asked_for(options, preprocess, channels), Framing())
    listed = annotated(rows_of(source_of(options)), options.labels, options.boxes)
    units = model.outputs[0].shape[-1] or 0
    names: list[str] = list(class_names(options.names, units) or [])
    read, labels, failed = _read(_drawn(listed, options.most), reader, names, max(units, 2))
    boxes = [boxes_in_input(entry, reader) for entry in read.entries]
    found = audit(
        model,
        read.inputs,
        labels,
        made_explainer(model, options.method, options.layer),
        boxes=np.array([_around(each) for each in boxes]) if all(boxes) else None,
        names=[_called(read.entries, labels, names, each) for each in range(int(labels.max()) + 1)],
        batch_size=options.batch_size,
    )
    page = audit_page(found, read.pictures, labels, options.out, failed=failed)
    print(json.dumps({**found.as_dict(), "failed": failed}) if options.json else f"{found}\n{page}")
    for name, reason in failed.items():
        print(f"{name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def audit_page(
    found: Audit,
    pictures: NDArray[np.uint8],
    labels: NDArray[np.int64],
    out: str | PathLike[str],
    *,
    failed: dict[str, str] | None = None,
) -> Path:
    """Write what an audit found as a page that opens from disk, and as `audit.json`.

    Args:
        found: What `kvis2.audit` returned.
        pictures: Those that were audited, as they look: uint8
            `(pictures, height, width, 1 or 3)`.
        labels: Their classes.
        out: The folder.
        failed: Pictures that were left out, and why.

    Returns:
        The path of the page.

    Example:
        >>> audit_page(kvis2.audit(model, images, labels), images, labels, "audited").name
        'index.html'
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    findings = []
    for each in found.findings:
        own = np.flatnonzero(labels == each.label)
        findings.append(
            {
                **each._asdict(),
                "shown": _strip(folder, f"class_{each.label}", pictures, found.maps, own, each.box)
                if each.causes is not None
                else None,
            }
        )

    def drawn(groups: Sequence[Group], kind: str) -> list[dict[str, Any]]:
        return [
            {
                **each._asdict(),
                "name": found.names[each.label],
                "shown": _strip(
                    folder, f"{kind}_{number}", pictures, found.maps, np.array(each.rows), None
                ),
            }
            for number, each in enumerate(groups[:_GROUPS])
        ]

    text = rendered(
        "audit.html",
        findings=findings,
        groups=drawn(found.groups, "group"),
        map_groups=drawn(found.map_groups, "map_group"),
        lift=LIFT,
        title=_title(len(found.suspects)),
        subtitle=f"{len(pictures)} pictures. {_EXPLAINED}",
        sentences=found.sentences(),
        failed=failed or {},
    )
    with images.written_aside(folder / "audit.json") as part:
        part.write_text(json.dumps(found.as_dict(), indent=1), encoding="utf-8")
    with images.written_aside(folder / "index.html") as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
    return folder / "index.html"


def _title(suspects: int) -> str:
    return f"{suspects} suspect{'s' * (suspects > 1)}" if suspects else "No suspect"


def _drawn(rows: Sequence[Row], most: int) -> list[Row]:
    """All rows, or some drawn by chance, in their order."""
    if len(rows) <= most:
        return list(rows)
    chosen = np.random.default_rng(0).choice(len(rows), most, replace=False)
    return [rows[each] for each in np.sort(chosen)]


def _read(
    rows: Sequence[Row], reader: Reader, names: Sequence[str], units: int
) -> tuple[Read, NDArray[np.int64], dict[str, str]]:
    """The pictures that can be read and have a class, their classes, and why others are left."""
    known = Classes([row.label for row in rows], names, units)
    entries, pictures, inputs, labels, failed = [], [], [], [], {}
    read = (each for batch in batches(rows, reader, _BATCH) for each in zip(*batch, strict=True))
    for entry, picture, given in read:
        label = known.number(entry.row.label)
        if entry.error:
            failed[entry.row.id] = entry.error
        elif label is None:
            failed[entry.row.id] = (
                f"Expected a label that is a class of the model. Received: {entry.row.label!r}."
            )
        else:
            entries.append(entry)
            pictures.append(picture)
            inputs.append(given)
            labels.append(label)
    if not entries:
        raise ValueError(
            f"Expected pictures with labels. Received: {len(rows)} pictures, the first of which "
            f"says: {next(iter(failed.values()), 'nothing')} Give folders named by class, or "
            "--labels."
        )
    return Read(entries, np.stack(pictures), np.stack(inputs)), np.array(labels), failed


def _around(boxes: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """The box around all boxes of a picture."""
    corners = np.array(boxes)
    return np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])


def _called(
    entries: Sequence[Entry], labels: NDArray[np.int64], names: Sequence[str], number: int
) -> str:
    if number < len(names):
        return names[number]
    own = np.flatnonzero(labels == number)
    return entries[own[0]].row.label if len(own) else str(number)


def _strip(
    folder: Path,
    name: str,
    pictures: NDArray[np.uint8],
    maps: NDArray[np.float32],
    rows: NDArray[Any],
    box: Sequence[int] | None,
) -> str:
    """A row of pictures above their maps, the place drawn in; returns the file's name."""
    shown = rows[:: max(1, len(rows) // _SHOWN)][:_SHOWN] if box is not None else rows[:_SHOWN]
    columns = []
    for row in shown:
        peak = float(maps[row].max()) or 1.0
        heated = images.overlay(pictures[row], maps[row] / peak)
        both = [_framed(each, box) for each in (images.displayable(pictures[row][None])[0], heated)]
        columns.append(np.concatenate(both, axis=0))
    path = folder / f"{name}.png"
    with images.written_aside(path) as part:
        Image.fromarray(np.concatenate(columns, axis=1)).save(part, format="png")
    return path.name


def _framed(picture: NDArray[np.uint8], box: Sequence[int] | None) -> NDArray[np.uint8]:
    """The picture at the size of the page, a gap around it, and the place drawn in amber."""
    height, width = picture.shape[:2]
    longest = max(height, width)
    scale = max(1, _SIDE // longest) if longest <= 2 * _SIDE else 2 * _SIDE / longest
    size = (round(width * scale), round(height * scale))
    drawn = np.array(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))
    if box is not None:
        x0, y0, x1, y1 = (round(each * scale) for each in box)
        drawn[y0:y1, [x0, x1 - 1]] = _AMBER
        drawn[[y0, y1 - 1], x0:x1] = _AMBER
    return np.pad(drawn, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=_BETWEEN)
