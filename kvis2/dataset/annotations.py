"""Labels and boxes from files of their own, put to the rows of a source."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path, PurePath

from kvis2.dataset.sources import Row, checked_boxes, records


def annotated(
    rows: Sequence[Row],
    labels: str | PathLike[str] | None = None,
    boxes: str | PathLike[str] | None = None,
) -> list[Row]:
    """Rows with the labels and the boxes of files, which stand for those of the source.

    Args:
        rows: The rows.
        labels: A CSV or Parquet file with the columns `path` and `label`.
        boxes: Likewise with `path` and `boxes`; or JSON, `{"cat.jpg": [x0, y0, x1, y1], ...}`.

    Returns:
        The rows. A path in a file is the id of a row, its path, or else its name in its folder.

    Raises:
        ValueError: If a file has none of the pictures.
    """
    found = list(rows)
    if labels is not None:
        known = {str(each.get("path")): str(each.get("label") or "") for each in records(labels)}
        found = _changed(found, "label", known, labels)
    if boxes is not None:
        known = {name: checked_boxes(each, name) for name, each in _boxes(Path(boxes)).items()}
        found = _changed(found, "boxes", known, boxes)
    return found


def _boxes(path: Path) -> dict[str, str]:
    if path.suffix.lower() != ".json":
        return {str(each.get("path")): str(each.get("boxes") or "") for each in records(path)}
    try:
        return {
            name: json.dumps(each)
            for name, each in json.loads(path.read_text(encoding="utf-8")).items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(
            'Expected JSON of boxes by picture, {"cat.jpg": [x0, y0, x1, y1]}. Received: '
            f"{path}, of which is said: {error}. A CSV with `path` and `boxes` is taken as well."
        ) from None


def _changed(
    rows: Sequence[Row], field: str, known: dict[str, str], file: str | PathLike[str]
) -> list[Row]:
    made, count = [], 0
    for row in rows:
        names = (row.id, row.path, PurePath(row.id).name)
        value = next((known[name] for name in names if name in known), None)
        count += value is not None
        made.append(row if value is None else Row(**{**row._asdict(), field: value}))
    if not count:
        raise ValueError(
            f"Expected {field} of some of the {len(rows)} pictures. Received: {file}, which names "
            f"none of them, such as '{rows[0].id}'. Its `path` is the picture's name in the source."
        )
    return made
