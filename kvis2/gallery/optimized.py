"""Artefacts of a gallery that are images made by optimisation."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kvis2 import images, presets
from kvis2.ascent import ActivationMaximization, DeepDream, FeatureInversion, History, Snapshots
from kvis2.gallery.pieces import Made, Piece, captioned_each, in_file
from kvis2.gallery.subject import Subject


def filter_images(subject: Subject) -> Iterator[Piece]:
    """The images that filters at several depths want to see, one sheet for each layer."""

    def sheet(path: str, filters: Sequence[int], steps: int) -> Made:
        if subject.follows_original:
            settings = subject.ascent(presets.filter_image(steps))
        else:
            settings = {"steps": steps, "parametrization": subject.fourier(), **subject.image}
        history = History()
        found = ActivationMaximization(subject.model, path, **settings)(
            filters, callbacks=[history]
        )
        silent = [
            each
            for each, scores in zip(filters, history.losses["score"].T, strict=True)
            if np.ptp(scores) == 0
        ]
        captions = [f"filter {each}" for each in filters]
        picture = images.strip(list(subject.pictures(found)), captions)
        return Made(picture, {"filters that nothing excites": silent} if silent else {})

    for path in subject.convolutions(subject.effort.depths):
        filters = subject.filters(path, subject.effort.filters)
        steps = subject.steps(30 if subject.follows_original else 128)
        parameters = {"layer": path, "filters": filters, "steps": steps, "recipe": subject.recipe}
        make = functools.partial(sheet, path, filters, steps)
        yield Piece(f"filters_{in_file(path)}.png", make, parameters)


def inversions(subject: Subject) -> Iterator[Piece]:
    """What is left of the photograph at six depths."""

    def inverted(path: str, steps: int) -> Made:
        if subject.follows_original:
            settings = subject.ascent(presets.mahendran_vedaldi(steps=steps))
        else:
            settings = {"steps": steps, "parametrization": subject.fourier(), **subject.image}
        inversion = FeatureInversion(subject.model, path, **settings)
        picture = subject.pictures(inversion(subject.batch))[0]
        assert inversion.errors is not None
        return Made(
            images.grid([picture], margin=0), {"error": round(float(inversion.errors[0]), 3)}
        )

    steps = subject.steps(201 if subject.follows_original else 256)
    for path in subject.convolutions(subject.effort.depths * 3 // 2):
        parameters = {"layer": path, "steps": steps, "recipe": subject.recipe}
        make = functools.partial(inverted, path, steps)
        yield Piece(f"Inv_Image_{in_file(path)}.png", make, parameters)


def deep_dream(subject: Subject) -> Iterator[Piece]:
    """The photograph, changed until two filters of a deep layer see more in it."""
    paths = subject.convolutions(4)
    # The last convolutions see objects with all their surroundings: they dream of fine noise.
    path = paths[-1 if subject.follows_original else 2 * len(paths) // 3]
    large = all(n >= m for n, m in zip(subject.original.shape, subject.size, strict=False))
    kept = large and subject.effort.steps is None
    photograph = subject.original if kept else subject.picture
    steps = subject.steps(250 if subject.follows_original else 20)

    def dreamt(filter_: int) -> Made:
        settings: dict[str, Any] = {"steps": steps, "pre_activation": True}
        if subject.follows_original:
            settings = presets.plain_dream(steps)
            # The preset counts pixels from 0 to 255; a step goes with the square of the unit.
            unit = (np.subtract(subject.space.high, subject.space.low) / 255.0) ** 2
            settings["step_size"] = subject.space.in_order(tuple(settings["step_size"])) * unit
        dream = DeepDream(subject.model, path, input_range=subject.space.bounds, **settings)
        found = dream(filter_, subject.space.encode(photograph[None]))
        return Made(images.grid(list(subject.pictures(found)), margin=0))

    for filter_ in subject.filters(path, 2):
        parameters = {"layer": path, "filter": filter_, "steps": steps, "recipe": subject.recipe}
        make = functools.partial(dreamt, filter_)
        yield Piece(f"ddream_{in_file(path)}_f{filter_}.png", make, parameters)


def class_images(subject: Subject) -> Iterator[Piece]:
    """The image that a class wants to see: plain, with each decay, with blur, and with all.

    The first is the one that kvis2 makes by default.
    """
    steps = subject.steps(149)
    recipes: dict[str, dict[str, Any] | None] = {
        **({} if subject.follows_original else {"fourier": None}),
        "no_decay": {},
        "L1": {"decay": "l1"},
        "L2": {"decay": "l2"},
        "blur": {"blur_every": 2},
        # The clip of 0.1 of the original, which had no effect there, would leave nothing to see.
        "regularised": {"decay": "l2", "blur_every": 4, "clip": 2.0},
    }
    for label in subject.labels:
        for name, recipe in recipes.items():
            run = functools.cache(functools.partial(_class_image, subject, label, recipe, steps))
            parameters = {"label": subject.named(label), **(recipe or {}), "steps": steps}
            for index, suffix in enumerate(("png", "gif")):
                make = functools.partial(_one_of, run, index)
                yield Piece(f"class_{label}_{name}.{suffix}", make, parameters)


def _class_image(
    subject: Subject, label: int, recipe: Mapping[str, Any] | None, steps: int
) -> tuple[Made, Made]:
    """The image and the way to it."""
    settings = _of_class(subject, recipe, steps)
    snapshots = Snapshots(max(1, steps // subject.effort.frames))
    found = ActivationMaximization(subject.model, **settings)(label, callbacks=[snapshots])
    pictures = [subject.pictures(each)[0] for each in (found, *snapshots.images)]
    final, *way = [images.grid([each], margin=0) for each in pictures]
    output = subject.output(keras.tree.flatten(found)[0], label)
    captions = [f"step {step}" for step in snapshots.steps]
    return Made(final, {"output": output}), Made(captioned_each(way, captions))


def _of_class(subject: Subject, recipe: Mapping[str, Any] | None, steps: int) -> dict[str, Any]:
    """The settings of a recipe; None is that of kvis2."""
    if recipe is None:
        return {"steps": steps, "parametrization": subject.fourier(), **subject.image}
    settings = subject.ascent(presets.class_image(steps=steps, **recipe))
    if not subject.follows_original:
        # The strong noise that the original starts from would hide what comes of it.
        chart = settings["parametrization"]
        settings["parametrization"] = dataclasses.replace(chart, deviation=0.02)
    return settings


def _one_of(run: Callable[[], tuple[Made, ...]], index: int) -> Made:
    return run()[index]
