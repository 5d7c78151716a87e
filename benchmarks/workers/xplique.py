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

from benchmarks.models import linear, load
from benchmarks.workers.protocol import Methods, Prepared, Task, serve


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


METHODS: Methods = {
    "gradcam": gradcam,
    "saliency": saliency,
    "guided": guided,
    "smoothgrad": smoothgrad,
    "integrated": integrated,
}

if __name__ == "__main__":
    serve(load, METHODS, ["xplique", "tensorflow", "keras", "numpy"])
