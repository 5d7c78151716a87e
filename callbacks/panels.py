"""The panels of a logged step: what `kvis2.images.panel` draws of every probe."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kvis2.callbacks.cards import explained_classes
from kvis2.callbacks.looked import Looked, place_of
from kvis2.callbacks.predictions import score_words
from kvis2.callbacks.probe_sets import ProbeSet, outlines
from kvis2.callbacks.settings import PanelStyle
from kvis2.callbacks.writers import Picture
from kvis2.images import ClassNames, Explanation, color_ends, is_flat, overlay, panel


class _Step(NamedTuple):
    """What is drawn of one step: what was seen, and for each row what its maps explain."""

    looked: Looked
    also: Looked | None
    explained: list[int | str]
    predicted: list[int | str] | None
    explainer: Any

    def beside(self, index: int, row: int) -> Explanation | None:
        """The predicted class' map in its place; an empty one where the true class is predicted."""
        if self.also is None or self.predicted is None:
            return None
        maps = self.also.maps[index]
        if self.predicted[row] == self.explained[row] or maps is None:
            return Explanation(None)
        return Explanation(maps[row], self.predicted[row])


class Panels:
    """Draws the probes of one training, all steps in one kind of colours.

    Args:
        probes: What is drawn.
        style: How it looks.
        class_names: Names by class index.
        thumbnails: Whether strips of all steps are wanted.
    """

    def __init__(
        self,
        probes: ProbeSet,
        style: PanelStyle,
        class_names: ClassNames | None,
        thumbnails: bool,
    ) -> None:
        self.probes = probes
        self.style = style
        self.class_names = class_names
        self.thumbnails = thumbnails
        self._signed = False

    def pictures(
        self, tag: str, looked: Looked, also: Looked | None, explainer: Any
    ) -> list[Picture]:
        """A panel of every probe, for each input that can be drawn.

        Args:
            tag: What their tags start with.
            looked: What was seen.
            also: What was seen of the predicted classes, or None where they have no place.
            explainer: Whose maps they are.
        """
        maps = {i: m for i, m in enumerate(looked.maps) if m is not None and i in self._shown}
        drawn = list(maps)
        self._signed = self._signed or any(bool((each < 0).any()) for each in maps.values())
        _warn_of_flat(maps[looked.first], self.probes.names)
        predicted = None if also is None else self._explained(also)
        step = _Step(looked, also, self._explained(looked), predicted, explainer)
        tags = {index: f"{tag}{self._input(index, drawn)}" for index in drawn}
        return [
            self._picture(row, f"{tags[index]}/{name}", index, step)
            for index in drawn
            for row, name in enumerate(self.probes.names)
        ]

    @property
    def _shown(self) -> dict[int, np.ndarray]:
        return self.probes.shown

    def _input(self, index: int, drawn: Sequence[int]) -> str:
        """What an input adds to a tag: its name or number, where several are drawn."""
        images = self.probes.images
        inputs = sorted(images) if isinstance(images, Mapping) else None
        return "" if len(drawn) == 1 else f" {inputs[index] if inputs else index}"

    def _picture(self, row: int, tag: str, index: int, step: _Step) -> Picture:
        looked = step.looked
        maps, raw, probabilities = looked.maps[index], looked.raw[index], looked.probabilities
        assert maps is not None
        assert raw is not None
        image, heatmap, style = self._shown[index][row], maps[row], self.style
        labels, boxes = looked.explained.labels, self.probes.boxes
        limits = color_ends(heatmap, signed=self._signed)
        drawn = panel(
            image,
            heatmap,
            explained=step.explained[row],
            beside=step.beside(index, row),
            probabilities=None if probabilities is None else probabilities[row],
            label=None if labels is None else int(labels[row]),
            class_names=self.class_names,
            top_k=style.top_k,
            box=None if boxes is None or index != looked.first else outlines(boxes[row]),
            alpha=style.alpha,
            colormap=style.colormap,
            opacity=style.opacity,
            caption=place_of(step.explainer, raw),
            width=style.width,
            limits=limits,
        )
        if not self.thumbnails or heatmap.ndim != 2:
            return Picture(tag, drawn)
        small = overlay(
            image, heatmap, style.alpha, style.colormap, opacity=style.opacity, limits=limits
        )
        return Picture(tag, drawn, small)

    def _explained(self, looked: Looked) -> list[int | str]:
        """The class that each map explains, or words for another score."""
        classes = explained_classes(looked.explained, looked.probabilities, self.probes.count)
        return [int(each) if each >= 0 else score_words(looked.explained) for each in classes]


def _warn_of_flat(maps: np.ndarray, names: Sequence[str]) -> None:
    """Say which maps show no region, though they are not blank, which explainers say."""
    flat = [name for name, each in zip(names, maps, strict=True) if is_flat(each) and each.any()]
    if flat:
        warnings.warn(
            f"The maps of {len(flat)} of {len(maps)} images, such as {flat[0]!r}, are flat: their "
            "values differ by less than 10 % of the largest one, so that they show no region and "
            "are drawn in grey. Look at an earlier layer, or wait until the model has learned.",
            stacklevel=2,
        )
