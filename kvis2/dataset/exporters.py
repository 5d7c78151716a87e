"""What other tools take: FiftyOne, COCO, Label Studio, a folder of overlays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvis2 import images
from kvis2.dataset.pictures import overlay_name
from kvis2.dataset.regions import box_of, outline, regions, run_lengths
from kvis2.dataset.table import Table


class _Hot(NamedTuple):
    """A picture with a map: its row, its size, its map of some size, the name of its class."""

    place: int
    size: tuple[int, int]
    heatmap: NDArray[np.float32]
    name: str


def to_fiftyone(
    table: Table, indices: Sequence[int] | None = None, *, resolution: int = 64
) -> list[dict[str, Any]]:
    """A dict for each picture with a map, with what a sample of FiftyOne takes.

    Args:
        table: What was explained.
        indices: Which rows; None is all.
        resolution: How many places a map has along its longer side. It covers the photograph, 0
            where the model did not look.

    Returns:
        Plain dicts: `filepath`, `heatmap` (`map`, nested lists in 0..1 or -1..1, and `range`),
        `prediction` (`label`, `confidence`), and `ground_truth` (`label`) where it is known.

    Example:
        >>> for each in to_fiftyone(read("explained")):
        ...     heat = each["heatmap"]
        ...     sample = fo.Sample(filepath=each["filepath"])
        ...     sample["heatmap"] = fo.Heatmap(map=np.array(heat["map"]), range=heat["range"])
    """
    found = []
    for hot in _hot(table, indices, resolution):
        low = -1.0 if hot.heatmap.min() < 0 else 0.0
        sample: dict[str, Any] = {
            "filepath": str(table["path"][hot.place]),
            "heatmap": {"map": hot.heatmap.round(4).tolist(), "range": [low, 1.0]},
        }
        predicted, label = int(table["prediction"][hot.place]), int(table["label"][hot.place])
        if predicted >= 0:
            sample["prediction"] = {
                "label": table.named(predicted),
                "confidence": float(table["probability"][hot.place]),
            }
        if label >= 0:
            sample["ground_truth"] = {"label": table.named(label)}
        found.append(sample)
    return found


def to_coco(
    table: Table,
    path: str | PathLike[str] | None = None,
    indices: Sequence[int] | None = None,
    *,
    threshold: float = 0.5,
) -> dict[str, Any]:
    """The regions of heat as annotations of COCO: boxes, and masks as run lengths.

    A region are the pixels that share edges and whose heat is at least `threshold` times the
    hottest; its category is the class that was explained. Evidence against it counts as none.

    Args:
        table: What was explained.
        path: Where the JSON is written; None writes nothing.
        indices: Which rows; None is all.
        threshold: The share of the hottest, in 0..1.

    Returns:
        `images`, `categories` and `annotations` (`bbox` [x, y, width, height] in pixels of the
        photograph, `segmentation` with `counts`, `area`, `score` the mean heat in 0..1).

    References:
        https://cocodataset.org/#format-data
    """
    found: dict[str, Any] = {"images": [], "categories": [], "annotations": []}
    numbers: dict[str, int] = {}
    for hot in _hot(table, indices, None):
        found["images"].append(
            {
                "id": hot.place,
                "file_name": str(table["path"][hot.place]),
                "height": hot.size[0],
                "width": hot.size[1],
            }
        )
        category = numbers.setdefault(hot.name, len(numbers) + 1)
        for part in _parts(hot.heatmap, threshold):
            x0, y0, x1, y1 = box_of(part)
            found["annotations"].append(
                {
                    "id": len(found["annotations"]) + 1,
                    "image_id": hot.place,
                    "category_id": category,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(part.sum()),
                    "segmentation": run_lengths(part),
                    "iscrowd": 1,
                    "score": round(float(hot.heatmap[part].mean()), 4),
                }
            )
    found["categories"] = [{"id": number, "name": name} for name, number in numbers.items()]
    return _written(found, path)


def to_label_studio(
    table: Table,
    path: str | PathLike[str] | None = None,
    indices: Sequence[int] | None = None,
    *,
    threshold: float = 0.5,
    resolution: int = 128,
    from_name: str = "label",
    to_name: str = "image",
) -> list[dict[str, Any]]:
    """The regions of heat as polygons that Label Studio takes as predictions to correct.

    Args:
        table: What was explained.
        path: Where the JSON is written; None writes nothing.
        indices: Which rows; None is all.
        threshold: As for `to_coco`.
        resolution: How fine an outline is: places along the longer side of a picture.
        from_name: The name of the labels in the project.
        to_name: The name of the image in the project.

    Returns:
        A task for each picture. Corners are percentages of width and height; holes are filled.
    """
    tasks = []
    for hot in _hot(table, indices, resolution):
        high, wide = hot.heatmap.shape
        results = [
            {
                "id": f"{hot.place}-{number}",
                "from_name": from_name,
                "to_name": to_name,
                "type": "polygonlabels",
                "original_height": hot.size[0],
                "original_width": hot.size[1],
                "value": {
                    "points": [
                        [round(100 * x / wide, 4), round(100 * y / high, 4)]
                        for x, y in outline(part)
                    ],
                    "polygonlabels": [hot.name],
                },
            }
            for number, part in enumerate(_parts(hot.heatmap, threshold))
        ]
        version = f"{table.manifest['model']['name']} {table.manifest['method']['name']}"
        prediction: dict[str, Any] = {"model_version": version, "result": results}
        if np.isfinite(table["probability"][hot.place]):
            prediction["score"] = float(table["probability"][hot.place])
        data = {to_name: str(table["path"][hot.place])}
        tasks.append({"data": data, "predictions": [prediction]})
    return _written(tasks, path)


def to_overlays(
    table: Table,
    folder: str | PathLike[str],
    indices: Sequence[int] | None = None,
    **options: Any,
) -> list[Path]:
    """An overlay of each photograph in its own size.

    Args:
        table: What was explained.
        folder: Where the JPEG files are written.
        indices: Which rows; None is all.
        **options: `alpha`, `colormap` and so on, as for `kvis2.images.overlay`.

    Returns:
        Their paths.

    Raises:
        ValueError: If a photograph cannot be read any more.
    """
    made = []
    for hot in _hot(table, indices, None):
        photograph = table.photograph(hot.place)
        name = Path(overlay_name(int(table["row"][hot.place]), str(table["id"][hot.place]))).name
        picture = photograph
        if not images.is_flat(hot.heatmap):
            picture = images.overlay(photograph, hot.heatmap, **options)
        made.append(images.save(Path(folder) / name, picture))
    return made


def _hot(table: Table, indices: Sequence[int] | None, resolution: int | None) -> Iterator[_Hot]:
    """The pictures that have maps, these over the photograph and 0 beside what the model saw."""
    for index in range(len(table)) if indices is None else indices:
        heatmap = table.map(int(index), "input", normalize="image")
        if heatmap is None:
            continue
        size = (int(table["height"][index]), int(table["width"][index]))
        shrunk = size if resolution is None else _within(size, resolution)
        seen = np.nan_to_num(table.framing.of_photograph(heatmap, shrunk), nan=0.0)
        target = int(table["target"][index])
        name = table.named(target) if target >= 0 else "heat"
        yield _Hot(int(index), size, seen, name)


def _within(size: tuple[int, int], most: int) -> tuple[int, int]:
    share = min(1.0, most / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _parts(heatmap: NDArray[np.float32], threshold: float) -> list[NDArray[np.bool_]]:
    if not 0 < threshold <= 1:
        raise ValueError(
            f"Expected a threshold above 0, up to 1, of the hottest. Received: {threshold}. Take "
            "for example 0.5."
        )
    peak = float(heatmap.max())
    return regions(heatmap >= threshold * peak) if peak > 0 else []


def _written(found: Any, path: str | PathLike[str] | None) -> Any:
    if path is not None:
        with images.written_aside(path) as part:
            part.write_text(json.dumps(found), encoding="utf-8")
    return found
