"""The probes of a logger with all that belongs to each: label, name, box, and its picture."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, TypeAlias

import keras
import numpy as np

from kvis2.callbacks.predictions import two_classes
from kvis2.callbacks.probe_images import (
    MOST_PROBES,
    class_labels,
    count_of,
    probe_names,
    shown_inputs,
    take_probes,
)
from kvis2.images import ClassNames
from kvis2.localization import Boxes, as_masks, object_masks

Choice: TypeAlias = str | Callable[[Any, np.ndarray | None], Any]
"""Which of the images are probes: "first", "per_class", "worst", or a function that says it."""

POOL = 512
"""Among how many images, the first ones, probes are chosen where it is not the first."""


@dataclass(frozen=True)
class ProbeSet:
    """Probe images.

    Attributes:
        images: An array `(batch, ...)`, or a list or dict of them for several inputs.
        given: Their labels as they were given, or None.
        labels: Their classes, int `(batch,)`, or None.
        names: One each, which sort as text.
        boxes: Where the objects are, or None.
        shown: What is drawn of the flat inputs, by their number.
    """

    images: Any
    given: np.ndarray | None
    labels: np.ndarray | None
    names: list[str]
    boxes: Boxes | None
    shown: dict[int, np.ndarray]

    @property
    def count(self) -> int:
        """How many there are."""
        return count_of(self.images)

    def at(self, indices: np.ndarray, names: Sequence[str]) -> ProbeSet:
        """Those at some places, under names of their own."""
        return replace(
            self,
            images=keras.tree.map_structure(lambda array: array[indices], self.images),
            given=None if self.given is None else self.given[indices],
            labels=None if self.labels is None else self.labels[indices],
            names=list(names),
            boxes=None if self.boxes is None else [self.boxes[i] for i in indices],
            shown={key: array[indices] for key, array in self.shown.items()},
        )


class Probing:
    """Which images are probes, and what is known of them. Arguments as for `ExplanationLogger`.

    Attributes:
        pool: All images that probes are chosen from; these are the probes themselves, where the
            model has no say in it.
        waits: Whether the probes are chosen by what the model says when a training begins.
    """

    def __init__(
        self,
        images: Any,
        labels: Any,
        *,
        needs_classes: bool,
        class_names: ClassNames | None,
        names: Sequence[str] | None,
        choose: Choice,
        max_images: int | None,
        boxes: Boxes | None,
        display: Callable[[np.ndarray], np.ndarray] | None,
    ) -> None:
        if not callable(choose) and choose not in ("first", "per_class", "worst"):
            raise ValueError(
                "Expected choose to be 'first', 'per_class', 'worst' or a function (images, "
                f"labels) -> indices. Received: {choose!r}."
            )
        self.max_images = max_images
        self._class_names = class_names
        self._own_names = _file_names(images) if names is None else list(names)
        first = choose == "first"
        found, given = take_probes(images, labels, max_images=max_images if first else POOL)
        count = count_of(found)
        classes = class_labels(given, needs_classes or choose in ("per_class", "worst"))
        if choose in ("per_class", "worst") and classes is None:
            raise ValueError(f"Expected labels for choose={choose!r}. Received: none.")
        if names is not None and len(names) < count:
            raise ValueError(
                f"Expected a name for each of the {count} probe images. Received: {len(names)}."
            )
        shown = shown_inputs(found, display)
        whole = ProbeSet(found, given, classes, [""] * count, None, shown)
        whole = replace(whole, boxes=_checked_boxes(boxes, whole, max_images if first else POOL))
        self.waits = choose == "worst"
        self.pool = whole
        if not self.waits:
            self.pool = self._named(whole, self._indices(choose, whole), first)

    def worst(self, probabilities: np.ndarray | None) -> ProbeSet:
        """The probes whose true class the model finds least likely.

        Args:
            probabilities: Of the pool, `(images, classes)`.
        """
        if probabilities is None:
            raise ValueError(
                "Expected a classifier for choose='worst'. Received: a model whose outputs are "
                "not the probabilities of classes. Choose by a function (images, labels) -> "
                "indices."
            )
        labels = self.pool.labels
        assert labels is not None
        of_label = two_classes(probabilities)[np.arange(len(labels)), labels]
        order = np.argsort(of_label, kind="stable")[: self.max_images or MOST_PROBES]
        return self._named(self.pool, order, False)

    def _indices(self, choose: Choice, whole: ProbeSet) -> np.ndarray:
        most = self.max_images or MOST_PROBES
        if choose == "first":
            return np.arange(whole.count)
        if choose == "per_class":
            assert whole.labels is not None
            return _per_class(whole.labels, most)
        assert callable(choose)
        chosen = np.asarray(choose(whole.images, whole.given))
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not len(chosen):
            raise ValueError(
                "Expected choose to return indices of images, ints (images,). Received: "
                f"{chosen!r}. Return for example np.flatnonzero(labels == 3)."
            )
        if chosen.min() < 0 or chosen.max() >= whole.count:
            raise ValueError(
                f"Expected choose to return indices from 0 to {whole.count - 1}. Received: "
                f"{int(chosen.min())} to {int(chosen.max())}. Probes are chosen among the first "
                f"{POOL} images."
            )
        return chosen[:most]

    def _named(self, whole: ProbeSet, indices: np.ndarray, first: bool) -> ProbeSet:
        """The chosen ones, with names that lead back to the file, the name or the place given."""
        labels = None if whole.labels is None else whole.labels[indices]
        names = probe_names(len(indices), labels, self._class_names)
        own = self._own_names
        if own is None and not first:
            own = [f"#{index}" for index in range(whole.count)]
        if own is not None:
            parts = [name.partition(" ") for name in names]
            names = [
                f"{place} {own[i]}{space}{label}"
                for i, (place, space, label) in zip(indices, parts, strict=True)
            ]
        return whole.at(indices, names)


def _per_class(labels: np.ndarray, most: int) -> np.ndarray:
    """The first of each class, then the second of each, and so on; in the order of classes."""
    turn = np.zeros(len(labels), int)
    for each in np.unique(labels):
        places = np.flatnonzero(labels == each)
        turn[places] = np.arange(len(places))
    if labels.min() == labels.max():
        warnings.warn(
            f"All of the {len(labels)} images that probes are chosen from are of class "
            f"{int(labels[0])}. Give images that are not sorted by class.",
            stacklevel=5,
        )
    chosen = np.lexsort((labels, turn))[:most]
    return chosen[np.lexsort((turn[chosen], labels[chosen]))]


def _file_names(images: Any) -> list[str] | None:
    """The names of the files that a dataset of Keras' `image_dataset_from_directory` reads."""
    paths = getattr(images, "file_paths", None)
    return None if paths is None else [PurePath(path).name for path in paths]


def _checked_boxes(boxes: Boxes | None, probes: ProbeSet, most: int | None) -> Boxes | None:
    """One entry for each probe: boxes as they were given, or a bool mask."""
    if boxes is None:
        return None
    if not probes.shown:
        raise ValueError("Expected an image to have boxes. Received: inputs without any.")
    size = probes.shown[min(probes.shown)].shape[1:3]
    masks = as_masks(boxes, size)
    if masks is not None and masks.ndim == 2:
        return object_masks(masks, probes.count, *size)
    kept = boxes[: probes.count] if probes.count == (most or MOST_PROBES) else boxes
    inside = object_masks(kept, probes.count, *size)
    return list(kept) if masks is None else inside


def outlines(boxes: Any) -> np.ndarray:
    """What is drawn of the boxes or the mask of one image: `(boxes, 4)`, of a mask its extent."""
    given = np.asarray(boxes)
    if given.dtype != bool:
        return np.atleast_2d(given.astype(np.float64))
    rows, columns = np.nonzero(given)
    return np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float64)
