"""Worker of tf-keras-vis."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from tf_keras_vis.activation_maximization import ActivationMaximization
from tf_keras_vis.gradcam import Gradcam
from tf_keras_vis.saliency import Saliency
from tf_keras_vis.scorecam import Scorecam
from tf_keras_vis.utils.model_modifiers import ReplaceToLinear
from tf_keras_vis.utils.scores import CategoricalScore

from benchmarks.floors import reached
from benchmarks.models import load
from benchmarks.workers.folder_loop import folder_loop
from benchmarks.workers.protocol import Methods, Prepared, Task, serve


def _cam(kind: type, task: Task, **options: Any) -> Prepared:
    explainer = kind(task.model, model_modifier=ReplaceToLinear(), clone=True)
    score = CategoricalScore(task.classes.tolist())
    options = {"penultimate_layer": task.layer, "seek_penultimate_conv_layer": False, **options}

    def result() -> np.ndarray:
        return explainer(score, task.images, expand_cam=False, normalize_cam=False, **options)

    return Prepared(lambda: explainer(score, task.images, **options), result)


def gradcam(task: Task) -> Prepared:
    return _cam(Gradcam, task)


def scorecam(task: Task) -> Prepared:
    return _cam(Scorecam, task, max_N=task.options["channels"])


def saliency(task: Task, **options: Any) -> Prepared:
    explainer = Saliency(task.model, model_modifier=ReplaceToLinear(), clone=True)
    score = CategoricalScore(task.classes.tolist())

    def result() -> np.ndarray:
        return np.asarray(explainer(score, task.images, normalize_map=False))

    return Prepared(lambda: explainer(score, task.images, **options), result)


def smoothgrad(task: Task) -> Prepared:
    return saliency(task, smooth_samples=task.options["samples"], smooth_noise=0.15)


def maximization(task: Task) -> Prepared:
    explainer = ActivationMaximization(task.model, model_modifier=ReplaceToLinear(), clone=True)
    score = CategoricalScore(task.classes.tolist())

    def run() -> Any:
        return explainer(
            score,
            seed_input=task.images,
            steps=task.options["steps"],
            optimizer=keras.optimizers.SGD(0.1),
            input_modifiers=[],
            regularizers=[],
            input_range=(-1000.0, 1000.0),
        )

    return Prepared(run, lambda: reached(task, np.asarray(run())))


def folder(task: Task) -> Prepared:
    explainer = Gradcam(task.model, model_modifier=ReplaceToLinear(), clone=True)

    def explain(pictures: np.ndarray) -> np.ndarray:  # It explains classes that it is given.
        classes = task.model.predict_on_batch(pictures).argmax(axis=-1)
        score = CategoricalScore(classes.tolist())
        return explainer(score, pictures, penultimate_layer=task.layer)

    return folder_loop(task, explain)


METHODS: Methods = {
    "folder": folder,
    "gradcam": gradcam,
    "scorecam": scorecam,
    "saliency": saliency,
    "smoothgrad": smoothgrad,
    "maximization": maximization,
}

if __name__ == "__main__":
    serve(load, METHODS, ["tf-keras-vis", "tensorflow", "keras", "numpy"])
