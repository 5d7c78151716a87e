"""What the Explanations tab of TensorBoard shows: the data of a step, as summaries.

The tab paints heatmaps itself, so that only small maps are written at each step, and each
photograph once. A tag holds all cards of one explainer: one record for each card and step would
be millions.

The format, version 1. Every summary is a sequence of byte strings (`DATA_CLASS_BLOB_SEQUENCE`) of
the plugin "kvis2"; numbers are little-endian.

`<tag>/probes`, once:

* JSON: `version`; `class_names`, by class index as text; `depth`, what the first axis of
  a volume is, "slice" or "channel"; `cards`, for each its `name`, `size` (height, width) or null,
  `label` or null, `boxes`, and `photographs`: the place of its first one below, from 0, and how
  many there are.
* then the photographs: PNG, JPEG or WebP files as they are; signals as float32
  `(length, channels)`, their `size` being `[length, channels]`.

`<tag>/maps`, at each step:

* JSON: `version`; `rows`, how many cards; `grid`, the shape of a map; `source`, the shape that it
  was averaged from; `signed`; `layer` or null; `columns`, the names and types of the numbers;
  `scalars`, one value each for all cards together.
* the numbers, column by column, `rows` values each: float32 ("f") or int32 ("i").
* the maps, row by row, one byte q for each cell. Unsigned: `low + (high - low) * q / 255`;
  signed: `max(-low, high) * (q - 128) / 127`, so that 0 stays 0.

The columns: `low` and `high`, the ends of the map; `peak`, the largest |value| of the card at this
and all earlier steps; `drift`; `heat_in_box`; `explained`, a class; `label_probability`; `class_0`,
`probability_0`, `class_1`, ... the most probable classes first. What is not known is NaN or -1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

PLUGIN_NAME = "kvis2"
VERSION = 1
_LARGEST_SIDE = {1: 1024, 2: 64, 3: 64}  # cells along an axis of a map, by the rank of the map
_BLOB_SEQUENCE = 3  # tensorboard.DataClass.DATA_CLASS_BLOB_SEQUENCE

FloatArray = npt.NDArray[np.float64]


class TabSummary(NamedTuple):
    """One record for the tab.

    Attributes:
        tag: Its tag within the run.
        blobs: What it holds.
        metadata: What TensorBoard has to know of it.
    """

    tag: str
    blobs: list[bytes]
    metadata: tf.compat.v1.SummaryMetadata


@dataclass(frozen=True)
class Card:
    """What stays the same of one explained input at every step.

    Attributes:
        name: As in the tags of the pictures, "00 cat"; the tab puts cards of one name from several
            runs and explainers side by side.
        photograph: What lies under the heatmap. The bytes of a PNG, JPEG or WebP file; for a
            volume a sequence of such files, one for each slice; for a signal its values,
            `(length,)` or `(length, channels)`. None: the heatmap stands alone.
        size: Height and width of the picture in pixels; required with a picture.
        label: Index of the true class, from 0.
        boxes: Where the object is, `(boxes, 4)` of `[x0, y0, x1, y1]` in pixels of the picture.
    """

    name: str
    photograph: bytes | Sequence[bytes] | npt.ArrayLike | None = None
    size: tuple[int, int] | None = None
    label: int | None = None
    boxes: npt.ArrayLike = ()


class TabCards:
    """Encode what one explainer shows of the same inputs, step by step, for the Explanations tab.

    It remembers the maps of the step before and the largest value so far: make one for each
    training, and encode its steps in order.

    The drift of a map since the step before is `1/2 sum |p - p'|`, where p and p' are the two maps
    `|map| / sum |map|`: 0 where they have the same shape, 1 where they share no cell.

    Args:
        tag: Name of the explainer, "GradCAM"; two explained classes are two tags. No picture or
            scalar may have the tag `<tag>/probes` or `<tag>/maps`.
        cards: One for each input, in the order of the batch; names are unique.
        class_names: Names by class index.
        layer: Name of the layer that the maps are of.
        depth: What the first axis of three-dimensional maps is: "slice" of a volume, or
            "channel", each shown over the same photograph.
        top_k: How many of the most probable classes are kept of each prediction.

    Raises:
        ValueError: If there are no cards, names repeat, a photograph has no size, or a card's
            label is not one.

    Example:
        >>> maps = np.linspace(0, 1, 49).reshape(1, 7, 7)
        >>> cards = TabCards("GradCAM", [Card("00 cat", label=1)])
        >>> [summary.tag for summary in cards.summaries(maps, probabilities=[[0.2, 0.8]])]
        ['GradCAM/probes', 'GradCAM/maps']
        >>> [summary.tag for summary in cards.summaries(maps)]
        ['GradCAM/maps']
    """

    def __init__(
        self,
        tag: str,
        cards: Sequence[Card],
        *,
        class_names: Sequence[str] | Mapping[int, str] | None = None,
        layer: str | None = None,
        depth: str = "slice",
        top_k: int = 3,
    ) -> None:
        if depth not in ("slice", "channel"):
            raise ValueError(f"Expected depth to be 'slice' or 'channel'. Received: {depth!r}.")
        names = [card.name for card in cards]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"Expected cards with a name of their own each. Received: {names!r}. "
                "Number them, as '00 cat' and '01 cat'."
            )
        self.tag = tag
        self.layer = layer
        self.top_k = top_k
        self._labels = [card.label for card in cards]
        self._probes: TabSummary | None = _probes(tag, cards, class_names, depth)
        self._peak = np.zeros(len(cards))
        self._signed = False
        self._shares: FloatArray | None = None

    def summaries(
        self,
        maps: npt.ArrayLike,
        *,
        probabilities: npt.ArrayLike | None = None,
        explained: Sequence[int] | npt.ArrayLike | None = None,
        heat_in_box: npt.ArrayLike | None = None,
        scalars: Mapping[str, float] | None = None,
    ) -> list[TabSummary]:
        """Encode one step; the first time with the photographs.

        Args:
            maps: `(cards, *grid)`, real and finite, as the explainer computes them: at the grid of
                the layer rather than resized to the image, and not yet divided by their own
                maximum, so that strength can be compared. One, two or three axes; sides above 64
                cells (series: 1024; the first of three axes: any) are averaged to that many.
            probabilities: `(cards, classes)` in 0..1; `(cards, 1)` are those of class 1 of 2.
            explained: The class that each map explains, `(cards,)`; -1 where there is none.
            heat_in_box: Share of the heat in the boxes, `(cards,)` in 0..1, as
                `kvis2.localization.energy_in_box` has it; NaN where there is no box.
            scalars: Curves to be shown beside the cards, by name. The means over all cards of
                `correct`, `label_probability`, `heat_in_box` and `drift` come by themselves.

        Returns:
            The records of the step, to be given to `write_summaries`.

        Raises:
            ValueError: If the shapes do not fit the cards, or a map is not finite.
        """
        rows = len(self._labels)
        values, source = _maps(maps, rows)
        self._signed = self._signed or bool((values < 0).any())
        columns = self._heat_columns(values)
        columns["heat_in_box"] = _column(heat_in_box, rows, "heat_in_box", math.nan)
        columns["explained"] = _column(explained, rows, "explained", -1)
        columns.update(self._answer_columns(probabilities))
        means = {**self._means(columns), **(scalars or {})}
        header = {
            "version": VERSION,
            "rows": rows,
            "grid": values.shape[1:],
            "source": source,
            "signed": self._signed,
            "layer": self.layer,
            "columns": [[name, _kind(name)] for name in columns],
            "scalars": {name: float(v) for name, v in means.items() if math.isfinite(v)},
        }
        numbers = b"".join(np.asarray(v, f"<{_kind(n)}4").tobytes() for n, v in columns.items())
        blobs = [_json(header), numbers, _quantized(values, columns, self._signed).tobytes()]
        step = TabSummary(f"{self.tag}/maps", blobs, _metadata("maps"))
        first, self._probes = self._probes, None
        return [step] if first is None else [first, step]

    def _heat_columns(self, values: FloatArray) -> dict[str, npt.NDArray[Any]]:
        flat = values.reshape(len(values), -1)
        # As they are stored, so that a cell is decoded with the ends it was encoded with.
        low, high = flat.min(axis=1).astype(np.float32), flat.max(axis=1).astype(np.float32)
        self._peak = np.maximum(self._peak, np.maximum(-low, high))
        total = np.abs(flat).sum(axis=1, keepdims=True)
        shares = np.abs(flat) / np.where(total > 0, total, 1)
        drift = np.full(len(flat), math.nan)
        if self._shares is not None and self._shares.shape == shares.shape:
            drift = np.abs(shares - self._shares).sum(axis=1) / 2
        self._shares = shares
        return {"low": low, "high": high, "peak": self._peak, "drift": drift}

    def _answer_columns(self, probabilities: npt.ArrayLike | None) -> dict[str, npt.NDArray[Any]]:
        rows = len(self._labels)
        of_label = np.full(rows, math.nan)
        columns: dict[str, npt.NDArray[Any]] = {"label_probability": of_label}
        if probabilities is None:
            return columns
        shares = np.asarray(probabilities, np.float64)
        if shares.ndim != 2 or len(shares) != rows or not shares.shape[1]:
            raise ValueError(
                f"Expected probabilities of shape (cards, classes) for {rows} cards. Received: "
                f"shape {shares.shape}. Give one row for each card."
            )
        if shares.shape[1] == 1:
            shares = np.concatenate([1 - shares, shares], axis=1)
        for row, label in enumerate(self._labels):
            if label is not None and label < shares.shape[1]:
                of_label[row] = shares[row, label]
        order = np.argsort(-shares, axis=1, kind="stable")[:, : max(self.top_k, 1)]
        for place in range(order.shape[1]):
            columns[f"class_{place}"] = order[:, place]
            columns[f"probability_{place}"] = shares[np.arange(rows), order[:, place]]
        return columns

    def _means(self, columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
        names = ("label_probability", "heat_in_box", "drift")
        known = {name: columns[name][np.isfinite(columns[name])] for name in names}
        means = {name: float(values.mean()) for name, values in known.items() if len(values)}
        pairs = zip(self._labels, columns.get("class_0", ()), strict=False)
        right = [label == predicted for label, predicted in pairs if label is not None]
        return {"correct": sum(right) / len(right), **means} if right else means


def write_summaries(step: int, summaries: Sequence[TabSummary]) -> int:
    """Write records with the default summary writer.

    Args:
        step: The step on TensorBoard's axis.
        summaries: What `TabCards.summaries` returned.

    Returns:
        How many bytes they hold, by which the event file grows at least.
    """
    for summary in summaries:
        tf.summary.write(summary.tag, tf.constant(summary.blobs), step, summary.metadata)
    return sum(len(blob) for summary in summaries for blob in summary.blobs)


def _probes(
    tag: str,
    cards: Sequence[Card],
    class_names: Sequence[str] | Mapping[int, str] | None,
    depth: str,
) -> TabSummary:
    blobs: list[bytes] = []
    described = []
    for card in cards:
        pictures = _pictures(card)
        described.append({**_described(card), "photographs": [len(blobs), len(pictures)]})
        blobs.extend(pictures)
    named = class_names if isinstance(class_names, Mapping) else dict(enumerate(class_names or []))
    names = {str(index): str(name) for index, name in named.items()}
    header = {"version": VERSION, "class_names": names, "depth": depth, "cards": described}
    return TabSummary(f"{tag}/probes", [_json(header), *blobs], _metadata("probes"))


def _described(card: Card) -> dict[str, Any]:
    if card.label is not None and card.label < 0:
        raise ValueError(
            f"Expected label to be a class index from 0. Received: {card.label!r} for "
            f"{card.name!r}. Leave it None where it is not known."
        )
    boxes = np.asarray(card.boxes, np.float64)
    return {
        "name": card.name,
        "size": _size(card),
        "label": None if card.label is None else int(card.label),
        "boxes": boxes.reshape(-1, 4).tolist(),
    }


def _size(card: Card) -> list[int] | None:
    if card.size is not None:
        return [int(side) for side in card.size]
    shape = np.shape(card.photograph) if card.photograph is not None else ()
    return [shape[0], shape[1] if len(shape) == 2 else 1] if shape else None


def _pictures(card: Card) -> list[bytes]:
    """Return the photograph as blobs: a file, a file for each slice, or a signal."""
    photograph = card.photograph
    if photograph is None:
        return []
    if isinstance(photograph, bytes):
        pictures = [photograph]
    elif isinstance(photograph, list | tuple) and photograph and isinstance(photograph[0], bytes):
        pictures = list(photograph)
    else:
        return [_signal(card)]
    if card.size is None:
        raise ValueError(
            f"Expected the size (height, width) of a photograph. Received: None for "
            f"{card.name!r}. Give image.shape[:2]."
        )
    return pictures


def _signal(card: Card) -> bytes:
    values = np.asarray(card.photograph, np.float32)
    if values.ndim not in (1, 2) or not np.isfinite(values).all():
        raise ValueError(
            "Expected a photograph as the bytes of a file, or a finite signal (length[, channels])."
            f" Received: shape {values.shape} for {card.name!r}. Encode pictures as PNG or WebP."
        )
    return values.astype("<f4").tobytes()


def _maps(maps: npt.ArrayLike, rows: int) -> tuple[FloatArray, tuple[int, ...]]:
    """Return the maps, averaged where they are large, and the shape they had."""
    values = np.asarray(maps)
    values = values.astype(np.float32 if values.dtype.kind == "f" else np.float64, copy=False)
    rank = values.ndim - 1
    if rank not in _LARGEST_SIDE or len(values) != rows or 0 in values.shape:
        raise ValueError(
            f"Expected maps of shape (cards, *grid) for {rows} cards, with one to three axes. "
            f"Received: shape {values.shape}. Give one map for each card."
        )
    if not np.isfinite(values).all():
        raise ValueError(
            "Expected maps without NaN or infinity. Received: values that are not finite. Look "
            "for a diverged model."
        )
    reduced = values.astype(np.float64)
    # The first axis of a volume is what one slides along, and is kept.
    for axis in range(1 if rank < 3 else 2, values.ndim):
        reduced = _averaged(reduced, axis, _LARGEST_SIDE[rank])
    return reduced, values.shape[1:]


def _averaged(values: FloatArray, axis: int, largest: int) -> FloatArray:
    """Average along an axis to at most `largest` equal parts; a cell on a border goes to both."""
    side = values.shape[axis]
    if side <= largest:
        return values
    edges = np.linspace(0, side, largest + 1)
    cells = np.arange(side)
    ends = np.minimum(edges[1:, None], cells + 1)
    overlap = np.clip(ends - np.maximum(edges[:-1, None], cells), 0, None)
    weights = overlap / overlap.sum(axis=1, keepdims=True)
    return np.moveaxis(np.tensordot(values, weights, axes=(axis, 1)), -1, axis)


def _quantized(
    values: FloatArray, columns: Mapping[str, npt.NDArray[Any]], signed: bool
) -> npt.NDArray[np.uint8]:
    shape = (-1, *[1] * (values.ndim - 1))
    low = columns["low"].astype(np.float64).reshape(shape)
    high = columns["high"].astype(np.float64).reshape(shape)
    if signed:
        largest = np.maximum(-low, high)
        levels = 128 + 127 * values / np.where(largest > 0, largest, 1)
    else:
        levels = 255 * (values - low) / np.where(high > low, high - low, 1)
    return np.rint(levels).clip(0, 255).astype(np.uint8)


def _column(given: npt.ArrayLike | None, rows: int, name: str, missing: float) -> FloatArray:
    values = np.full(rows, missing) if given is None else np.asarray(given, np.float64)
    if values.shape != (rows,):
        raise ValueError(
            f"Expected {name} of shape ({rows},), one value for each card. Received: shape "
            f"{values.shape}."
        )
    return values


def _kind(column: str) -> str:
    return "i" if column == "explained" or column.startswith("class_") else "f"


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def _metadata(kind: str) -> tf.compat.v1.SummaryMetadata:
    content = _json({"version": VERSION, "kind": kind})
    data = tf.compat.v1.SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content)
    return tf.compat.v1.SummaryMetadata(plugin_data=data, data_class=_BLOB_SEQUENCE)
