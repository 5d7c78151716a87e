"""Worker of xplique."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from xplique.attributions import (
    GradCAM,
    GuidedBackprop,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
)
from xplique.metrics import Deletion, Insertion

from benchmarks.models import linear, load
from benchmarks.workers.protocol import Methods, Prepared, Task, ranking_maps, serve


def _one_hot(task: Task) -> np.ndarray:
    return np.eye(task.model.output_shape[-1], dtype=np.float32)[task.classes]


def gradcam(task: Task) -> Prepared:
    explainer = GradCAM(linear(task.model), conv_layer=task.layer)
    targets = _one_hot(task)

    def result() -> np.ndarray:
        maps, gradients = explainer._gradient(tf.constant(task.images), tf.constant(targets))
        return explainer._apply_weights(explainer._compute_weights(gradients, maps), maps)

    return Prepared(lambda: explainer(task.images, targets), result)


def _gradients(kind: type, task: Task, **options: Any) -> Prepared:
    explainer = kind(linear(task.model), reducer=None, **options)
    targets = _one_hot(task)

    def result() -> np.ndarray:
        if "noise" in options:
            explainer.noise = 0.0
        found = np.abs(explainer(task.images, targets)).max(axis=-1)
        explainer.noise = options.get("noise")
        return found

    return Prepared(lambda: np.asarray(explainer(task.images, targets)), result)


def saliency(task: Task) -> Prepared:
    return _gradients(Saliency, task)


def guided(task: Task) -> Prepared:
    return _gradients(GuidedBackprop, task)


def smoothgrad(task: Task) -> Prepared:
    return _gradients(SmoothGrad, task, nb_samples=task.options["samples"], noise=0.5)


def integrated(task: Task) -> Prepared:
    return _gradients(IntegratedGradients, task, steps=task.options["samples"])


def _curve(kind: type, task: Task) -> Prepared:
    targets, maps = _one_hot(task), ranking_maps(task.images)
    options = {"baseline_mode": 0.0, "steps": task.options["steps"]}
    measure = kind(task.model, task.images, targets, **options)

    def result() -> np.ndarray:  # It returns the mean of all images, so they are given singly.
        found = []
        for image, target, each in zip(task.images, targets, maps, strict=True):
            found.append(kind(task.model, image[None], target[None], **options)(each[None]))
        return np.array(found)

    return Prepared(lambda: measure(maps), result)


def deletion(task: Task) -> Prepared:
    return _curve(Deletion, task)


def insertion(task: Task) -> Prepared:
    return _curve(Insertion, task)


METHODS: Methods = {
    "gradcam": gradcam,
    "saliency": saliency,
    "guided": guided,
    "smoothgrad": smoothgrad,
    "integrated": integrated,
    "deletion": deletion,
    "insertion": insertion,
}

if __name__ == "__main__":
    serve(load, METHODS, ["xplique", "tensorflow", "keras", "numpy"])
