"""The maps of several explainers in as few passes as can be."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow as tf

from kvis2 import scores
from kvis2.explainers import Explainer
from kvis2.models import Batch
from kvis2.passes import Method, Probe, SharedProbe
from kvis2.types import Tensors


class Explained(NamedTuple):
    """The maps of one explainer, and what they cost.

    Attributes:
        maps: In the structure of the inputs.
        seconds: Per image; explainers that share their passes share the time alike.
        shared: How many explainers shared the passes.
    """

    maps: Any
    seconds: float
    shared: int


class Together(Method):
    """Several explainers in one pass, which must look at one model in one way.

    Args:
        explainers: The explainers.
    """

    def __init__(self, explainers: Sequence[Explainer]) -> None:
        self._look_as(explainers[0])
        self.explainers = list(explainers)

    def for_pass(self, rows: int) -> Together:
        """This method and its explainers as a compiled pass keeps them."""
        method = super().for_pass(rows)
        method.explainers = [each.for_pass(rows) for each in self.explainers]
        return method

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The maps and the reports of each explainer, one after the other."""
        shared = SharedProbe(probe)
        return [
            each
            for explainer in self.explainers
            for each in explainer.compute(shared, score, inputs)
        ]


def explained(
    explainers: Mapping[str, Explainer], score: Any, batch: Batch
) -> dict[str, Explained]:
    """The maps of each explainer; those that look at one layer in one way share their passes.

    Args:
        explainers: The explainers by name.
        score: One definite score per sample.
        batch: The inputs.
    """
    groups: dict[Any, list[str]] = {}
    for name, each in explainers.items():
        groups.setdefault(_way(each), []).append(name)
    found: dict[str, Explained] = {}
    for names in groups.values():
        members = [explainers[name] for name in names]
        for each in members:
            each._follow()
        method = Together(members)
        warm = batch.only(0)
        method.results(_first(score, batch), warm)  # Traced now, so that the time is the pass's.
        start = time.perf_counter()
        values = method.results(score, batch)
        seconds = (time.perf_counter() - start) / (batch.size * len(names))
        for name, each in zip(names, members, strict=True):
            count = len(batch.shapes)
            reports = each.reports()
            own, values = values[: count + len(reports)], values[count + len(reports) :]
            each._calls.layer = method.layer  # Which layer was found, as if called by itself.
            each._calls.remember(dict(zip(reports, own[count:], strict=True)))
            each._check(own[:count], score, batch)
            maps = [None if m is None else each._finished(m) for m in own[:count]]
            found[name] = Explained(batch.restored(maps), seconds, len(names))
    return {name: found[name] for name in explainers}


def _way(explainer: Explainer) -> Any:
    """What explainers must have in common to share a pass: the model, and how they look at it.

    Those that look at the input have little in common: most of them change it.
    """
    if explainer.settings.reference is None:
        return id(explainer)
    return id(explainer.model), replace(explainer.settings, resize=True, verbose=0)


def _first(score: Any, batch: Batch) -> Any:
    return score if batch.size == 1 else scores.rows(score, 0, 1)
