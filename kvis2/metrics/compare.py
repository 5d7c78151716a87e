"""Several explainers on the same images of one model, by several measures."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from kvis2 import models, scores
from kvis2.explainers import Explainer
from kvis2.localization import (
    Boxes,
    energy_in_box,
    localization_auc,
    object_masks,
    pointing_game,
    relevance_rank,
)
from kvis2.metrics.baselines import positions
from kvis2.metrics.comparison import RANDOM, Comparison
from kvis2.metrics.deletion import Deletion, Insertion
from kvis2.metrics.explained import OfExplainer, definite
from kvis2.metrics.maps import complexity, effective_complexity, sparseness
from kvis2.metrics.measure import Measure
from kvis2.metrics.ranking import random_maps
from kvis2.metrics.result import Measurement
from kvis2.metrics.road import Road
from kvis2.metrics.together import explained
from kvis2.models import Batch


def compare(
    model: keras.Model,
    explainers: Any,
    images: Any,
    score: Any = None,
    boxes: Boxes | None = None,
    metrics: Any = None,
    *,
    batch_size: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare explainers on the same images of one model: several measures, no winner.

    Explainers that look at one layer in the same way share one forward and one backward pass: the
    maps of eight class activation maps cost about those of one. Every measure is taken of random
    maps of the same images too, under the name "random maps".

    Args:
        model: Any built Keras model.
        explainers: Explainers; classes or functions `model -> explainer`; a list of them, or a dict
            by the names that the comparison shows.
        images: What the model takes.
        score: What is explained, as explainers take it; None is each image's predicted class.
        boxes: For each image a box `[x0, y0, x1, y1]`, or a list of them; or masks. They add the
            measures of localisation.
        metrics: Measures, in a list, or a dict by the names that the comparison shows: classes or
            objects such as `Deletion` or `Deletion(model, steps=10)`; those of explainers by class
            or as `functools.partial(MaxSensitivity, samples=5)`; functions of maps, and those of
            localisation, such as `pointing_game`. By default
            deletion, insertion and ROAD in ten steps or fewer, sparseness, and localisation if
            there are boxes.
        batch_size: How many rows one forward pass of a measure holds at most.
        seed: Seed of ties, random maps and the bootstrap.

    Returns:
        A `Comparison`: print it, show it in a notebook, `.to_markdown()`, `.to_csv(path)`,
        `.plot()`.

    Raises:
        ValueError: If there is no explainer, or one is not of this model.

    Example:
        >>> print(compare(model, [GradCAM, LayerCAM, Saliency], images))
    """
    made = _explainers(model, explainers)
    batch = Batch(model, images)
    shown = batch.arrays[0]
    if boxes is not None:  # A wrong box is told before anything is computed.
        sizes = (shown.shape[axis] for axis in positions(model, shown))
        object_masks(boxes, batch.size, *sizes)
    whole = scores.as_scores(score, batch.size, models.output_count(model))
    fixed = definite(next(iter(made.values())), whole, batch)
    found = explained(made, fixed, batch)
    maps = {name: each.maps for name, each in found.items()}
    context = _Context(model, boxes, batch, fixed, images, batch_size, seed)
    values, seconds = _taken(_choices(context, metrics), made, maps, context)
    return Comparison(
        values,
        maps=maps,
        images=shown,
        seconds={name: each.seconds for name, each in found.items()},
        measure_seconds=seconds,
        seed=seed,
    )


class _Choice(NamedTuple):
    """A measure that was chosen: how it is taken, and whether of maps alone, so of random ones."""

    take: Callable[[Any, Any], Measurement]
    of_maps: bool


class _Context(NamedTuple):
    """What all measures of a comparison are taken on."""

    model: keras.Model
    boxes: Any
    batch: Batch
    score: Any
    images: Any
    batch_size: int | None
    seed: int


def _taken(
    choices: Mapping[str, _Choice],
    explainers: Mapping[str, Explainer],
    maps: Mapping[str, Any],
    context: _Context,
) -> tuple[dict[str, dict[str, Measurement]], dict[str, float]]:
    """Every measure of every explainer and of random maps, and its seconds per image."""
    values: dict[str, dict[str, Measurement]] = {}
    seconds: dict[str, float] = {}
    control = keras.tree.map_structure(
        lambda m: None if m is None else random_maps(m.shape, 1, context.seed)[0],
        next(iter(maps.values())),
    )
    for measure, choice in choices.items():
        values[measure] = {}
        for name, explainer in explainers.items():
            start = time.perf_counter()
            values[measure][name] = choice.take(explainer, maps[name])
            # That of the last one: the first compiles the pass, which is not the measure's time.
            seconds[measure] = (time.perf_counter() - start) / context.batch.size
        if choice.of_maps:
            values[measure][RANDOM] = choice.take(None, control)
    return values, seconds


def _explainers(model: keras.Model, given: Any) -> dict[str, Explainer]:
    """The explainers by name, made of classes and functions where these were given."""
    named = isinstance(given, Mapping)
    if not named and not isinstance(given, list | tuple):
        given = [given]
    made: dict[str, Explainer] = {}
    for key, each in given.items() if named else enumerate(given):
        explainer = each(model) if callable(each) and not isinstance(each, Explainer) else each
        if not isinstance(explainer, Explainer):
            raise TypeError(
                "Expected explainers, or classes or functions `model -> explainer`. Received: "
                f"{explainer!r}. Give for example [GradCAM, Saliency]."
            )
        if explainer.model is not model and not explainer._followed:
            raise ValueError(
                f"Expected explainers of '{model.name}'. Received: one of the model "
                f"'{explainer.model.name}'. Make it of the model that is compared on."
            )
        name = str(key) if named else _unused(type(explainer).__name__, made)
        made[name] = explainer
    if not made or RANDOM in made:
        raise ValueError(
            f"Expected at least one explainer, none of them named {RANDOM!r}. Received: "
            f"{list(made)}. Give for example [GradCAM, Saliency]."
        )
    return made


def _unused(name: str, taken: Mapping[str, Any]) -> str:
    """`name`, or with the first number that makes it another."""
    numbered = (f"{name} {number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(each for each in numbered if each not in taken)


def _choices(context: _Context, metrics: Any) -> dict[str, _Choice]:
    """The measures by name."""
    if metrics is None:
        metrics = _usual(context)
    if isinstance(metrics, Mapping):
        return {name: _choice(context, name, each) for name, each in metrics.items()}
    found: dict[str, _Choice] = {}
    for each in metrics if isinstance(metrics, list | tuple) else [metrics]:
        kind = each.func if isinstance(each, functools.partial) else each
        name = _unused(getattr(kind, "__name__", type(kind).__name__), found)
        found[name] = _choice(context, name, each)
    return found


def _usual(context: _Context) -> list[Any]:
    """What is measured if nothing else is asked for."""
    model, shapes = context.model, context.batch.shapes
    options = _options(context)
    chosen: list[Any] = [measure(model, steps=10, **options) for measure in (Deletion, Insertion)]
    if len(shapes) == 1 and len(shapes[0]) == 4:
        chosen.append(Road(model, fractions=(0.1, 0.3, 0.5, 0.7, 0.9), **options))
    return [*chosen, sparseness, *(() if context.boxes is None else _ON_OBJECTS)]


def _choice(context: _Context, name: str, given: Any) -> _Choice:
    """One measure, from a class, an object or a function."""
    kind = given.func if isinstance(given, functools.partial) else given
    if isinstance(kind, type) and issubclass(kind, OfExplainer):
        return _Choice(functools.partial(_of_explainer, context, given), False)
    if isinstance(kind, type) and issubclass(kind, Measure):
        given = given(context.model, **{} if kind is not given else _options(context))
    if isinstance(given, Measure):
        return _Choice(functools.partial(_of_model, context, given), True)
    if kind in _ON_OBJECTS:
        return _Choice(functools.partial(_on_objects, context, name, given), True)
    if not callable(given):
        raise TypeError(
            "Expected measures: classes or objects such as Deletion, or functions of maps. "
            f"Received: {given!r}. Give for example [Deletion, sparseness]."
        )
    return _Choice(functools.partial(_of_maps, name, given), True)


def _options(context: _Context) -> dict[str, Any]:
    return {"batch_size": context.batch_size, "seed": context.seed}


def _of_explainer(context: _Context, make: Any, explainer: Explainer, _: Any) -> Measurement:
    return make(explainer)(context.score, context.images)


def _of_model(context: _Context, measure: Measure, _: Any, maps: Any) -> Measurement:
    return measure(context.score, context.images, maps)


def _on_objects(context: _Context, name: str, measure: Any, _: Any, maps: Any) -> Measurement:
    if context.boxes is None:
        raise ValueError(
            f"Expected `boxes` for {name}. Received: None. Give for each image the box of what it "
            "shows, or a mask."
        )
    return Measurement(measure(maps, context.boxes), name)


def _of_maps(name: str, function: Any, _: Any, maps: Any) -> Measurement:
    return Measurement(function(maps), name, better=_DIRECTIONS.get(function, "higher"))


_DIRECTIONS: dict[Any, str] = {complexity: "lower", effective_complexity: "lower"}
"""Which functions of maps are better where they are low."""
_ON_OBJECTS = (pointing_game, energy_in_box, relevance_rank, localization_auc)
