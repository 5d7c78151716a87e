"""How good the explanations of the probes are, step by step: numbers beside the accuracy."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from kvis2.callbacks.looked import Looked
from kvis2.callbacks.probe_sets import ProbeSet
from kvis2.localization import (
    energy_in_box,
    localization_auc,
    pointing_game,
    relevance_rank,
)
from kvis2.metrics import Insertion, complexity, drift, sparseness, untrained_similarity
from kvis2.passes import Prediction

_ON_OBJECTS: dict[str, Callable[..., np.ndarray]] = {
    "pointing_game": pointing_game,
    "energy_in_box": energy_in_box,
    "relevance_rank": relevance_rank,
    "localization_auc": localization_auc,
}
_OF_MAPS: dict[str, Callable[..., np.ndarray]] = {
    "sparseness": sparseness,
    "complexity": complexity,
}
_OF_TIME = ("drift", "untrained_similarity")
MEASURES = (*_ON_OBJECTS, *_OF_MAPS, *_OF_TIME, "insertion_gain")

_STEPS = 8
_SHARE = 1 / 3  # of a logged step, that "auto" may add


class Curves:
    """The means over the probes of what `metrics=` asks for.

    Args:
        metrics: "auto", or names of `MEASURES`.
        has_boxes: Whether it is known where the objects are.

    Raises:
        ValueError: If a name is unknown, or needs boxes that are not there.
    """

    def __init__(self, metrics: str | Sequence[str], has_boxes: bool) -> None:
        self._is_auto = isinstance(metrics, str) and metrics == "auto"
        located = ["pointing_game", "energy_in_box"] if has_boxes else []
        usual = [*located, "sparseness", *_OF_TIME]
        self.names = usual if self._is_auto else _checked(metrics, has_boxes)
        self.forget()

    def forget(self) -> None:
        """Begin a training."""
        self._before: np.ndarray | None = None
        self._untrained: np.ndarray | None = None
        self._insertion: Insertion | None = None
        self._asked = not self._is_auto  # whether it is known what "auto" can afford
        if self._is_auto and "insertion_gain" in self.names:
            self.names = [name for name in self.names if name != "insertion_gain"]

    @property
    def compares_with_untrained(self) -> bool:
        """Whether the maps before the first batch are needed."""
        return "untrained_similarity" in self.names

    def remember_untrained(self, looked: Looked) -> None:
        """Keep the maps before the first batch."""
        self._untrained = looked.raw[looked.first]

    def afford(self, model: keras.Model, images: Any, look: Callable[[], Looked]) -> None:
        """At the first step, find out whether "auto" can afford `insertion_gain`.

        It takes 16 forward passes, and a logged step may become a third longer.
        """
        if self._asked:
            return
        self._asked = True
        prediction = Prediction(model)
        once = [_seconds(lambda: prediction.of(images)) for _ in range(2)][-1]
        if 2 * _STEPS * once <= _SHARE * _seconds(look):
            self.names = [*self.names, "insertion_gain"]

    def numbers(self, looked: Looked, model: keras.Model, probes: ProbeSet) -> dict[str, float]:
        """The mean of each measure; NaN where there is nothing to compare with yet.

        Args:
            looked: What was seen at this step.
            model: The model that was explained.
            probes: What was explained.
        """
        maps, raw = looked.maps[looked.first], looked.raw[looked.first]
        assert maps is not None
        assert raw is not None
        found: dict[str, Any] = {}
        for name in self.names:
            if name in _ON_OBJECTS:
                found[name] = _ON_OBJECTS[name](maps, probes.boxes)
            elif name in _OF_MAPS:
                found[name] = _OF_MAPS[name](raw)
            elif name == "insertion_gain":
                found[name] = self._gain(looked, model, probes.images)
            else:
                found[name] = self._since(name, raw)
        self._before = raw
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _since(self, name: str, raw: np.ndarray) -> Any:
        """How the maps compare with earlier ones, NaN where there are none."""
        earlier = self._before if name == "drift" else self._untrained
        if earlier is None or earlier.shape != raw.shape:
            return math.nan
        return (drift if name == "drift" else untrained_similarity)(raw, earlier)

    def _gain(self, looked: Looked, model: keras.Model, images: Any) -> Any:
        if self._insertion is None or self._insertion.model is not model:
            self._insertion = Insertion(model, steps=_STEPS, random_control=1)
        given = images if isinstance(images, list | dict) else None
        maps: Any = looked.maps[0] if given is None else list(looked.maps)
        if isinstance(images, dict):
            maps = dict(zip(sorted(images), looked.maps, strict=True))
        return self._insertion(looked.explained.score, images, maps).gain


def _checked(metrics: Any, has_boxes: bool) -> list[str]:
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise ValueError(
            f"Expected metrics to be 'auto' or some of {', '.join(MEASURES)}. Received: "
            f"{', '.join(map(repr, unknown))}. Others are in kvis2.metrics."
        )
    homeless = [name for name in names if name in _ON_OBJECTS]
    if homeless and not has_boxes:
        raise ValueError(
            f"Expected boxes= for {', '.join(homeless)}. Received: none. Say where the objects "
            "are, with boxes or masks."
        )
    return names


def _seconds(run: Callable[[], Any]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It was said, or will be, when the step itself looks.
        started = time.perf_counter()
        run()
        return time.perf_counter() - started
