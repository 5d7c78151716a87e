"""Worker of kvis2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

import kvis2
from benchmarks.floors import reached
from benchmarks.models import load
from benchmarks.workers.protocol import Methods, Prepared, Task, ranking_maps, serve


def _compared(make: Callable[..., Any], task: Task, **compared: Any) -> Prepared:
    """An explainer as a user makes it, and the same one with options that leave its maps raw."""
    explainer = make()
    score = kvis2.CategoricalScore(task.classes.tolist())

    def result() -> np.ndarray:
        return make(normalize=False, **compared)(score, task.images)

    return Prepared(lambda: explainer(score, task.images), result)


def gradcam(task: Task) -> Prepared:
    def make(**options: Any) -> Any:
        return kvis2.GradCAM(task.model, task.layer, **options)

    return _compared(make, task, resize=False)


def saliency(task: Task) -> Prepared:
    return _compared(lambda **options: kvis2.Saliency(task.model, **options), task)


def guided(task: Task) -> Prepared:
    def make(**options: Any) -> Any:
        modifiers = [kvis2.LinearOutput(), kvis2.GuidedReLU()]
        return kvis2.Saliency(task.model, model_modifier=modifiers, **options)

    return _compared(make, task)


def smoothgrad(task: Task) -> Prepared:
    def make(**options: Any) -> Any:
        samples = task.options["samples"]
        return kvis2.Saliency(task.model, smooth_samples=samples, **options)

    return _compared(make, task, smooth_noise=0.0)


def integrated(task: Task) -> Prepared:
    from kvis2.explainers import IntegratedGradients

    def make(**options: Any) -> Any:
        return IntegratedGradients(
            task.model, steps=task.options["samples"], reduce="absolute", **options
        )

    return _compared(make, task)


def scorecam(task: Task) -> Prepared:
    def make(**options: Any) -> Any:
        channels = task.options["channels"]
        return kvis2.ScoreCAM(task.model, task.layer, max_channels=channels, **options)

    return _compared(make, task, resize=False)


def lrp(task: Task) -> Prepared:
    from kvis2.lrp import LRP, Composite, Epsilon

    def make(**options: Any) -> Any:
        return LRP(task.model, Composite(Epsilon(1e-6), Epsilon(1e-6)), **options)

    return _compared(make, task)


def maximization(task: Task) -> Prepared:
    from kvis2.ascent import ActivationMaximization
    from kvis2.parametrizations import Pixels

    ascent = ActivationMaximization(
        task.model,
        steps=task.options["steps"],
        optimizer=keras.optimizers.SGD(0.1),
        transforms=(),
        parametrization=Pixels(),
        input_range=(-1000.0, 1000.0),
    )
    classes = task.classes.tolist()

    def run() -> np.ndarray:
        return ascent(classes, task.images)

    return Prepared(run, lambda: reached(task, run()))


def _curve(name: str, task: Task) -> Prepared:
    from kvis2 import metrics

    measure = getattr(metrics, name)(task.model, steps=task.options["steps"], baseline=0.0)
    score, maps = kvis2.CategoricalScore(task.classes.tolist()), ranking_maps(task.images)

    def run() -> np.ndarray:
        return measure(score, task.images, maps)

    return Prepared(run, run)


def deletion(task: Task) -> Prepared:
    return _curve("Deletion", task)


def insertion(task: Task) -> Prepared:
    return _curve("Insertion", task)


def road(task: Task) -> Prepared:
    from kvis2.metrics import Road

    count = task.options["fractions"]
    fractions = np.arange(1, count + 1) / (count + 1)
    measure = Road(task.model, fractions=fractions)
    quiet = Road(task.model, fractions=fractions, noise=0)
    score, maps = kvis2.CategoricalScore(task.classes.tolist()), ranking_maps(task.images)

    def result() -> np.ndarray:
        return quiet(score, task.images, maps).details["morf"].mean(axis=1)

    return Prepared(lambda: measure(score, task.images, maps), result)


METHODS: Methods = {
    "gradcam": gradcam,
    "saliency": saliency,
    "guided": guided,
    "smoothgrad": smoothgrad,
    "integrated": integrated,
    "scorecam": scorecam,
    "lrp": lrp,
    "maximization": maximization,
    "deletion": deletion,
    "insertion": insertion,
    "road": road,
}

if __name__ == "__main__":
    serve(load, METHODS, ["kvis2", "tensorflow", "keras", "numpy"])
