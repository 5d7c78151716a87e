"""Worker of captum."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from captum.attr import (
    GuidedBackprop,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    NoiseTunnel,
    Saliency,
)

from benchmarks.workers.protocol import Methods, Prepared, Task, serve
from benchmarks.workers.torch_model import as_torch, load


def gradcam(task: Task) -> Prepared:
    explainer = LayerGradCam(task.model, task.model.step(task.layer))
    images, classes = _torch(task)

    def maps() -> torch.Tensor:
        return explainer.attribute(images, target=classes, relu_attributions=True)

    def run() -> np.ndarray:
        return LayerAttribution.interpolate(maps(), images.shape[2:], "bilinear").detach().numpy()

    return Prepared(run, lambda: maps().detach().numpy()[:, 0])


def _torch(task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    return as_torch(task.images), torch.from_numpy(task.classes.astype(np.int64))


def _gradients(explainer: Any, task: Task, noise: float | None = None, **options: Any) -> Prepared:
    images, classes = _torch(task)

    def explain(**noise: Any) -> np.ndarray:
        found = explainer.attribute(images, target=classes, **options, **noise)
        return np.abs(found.detach().numpy()).max(axis=1)

    if noise is None:
        return Prepared(explain, explain)
    return Prepared(lambda: explain(stdevs=noise), lambda: explain(stdevs=0.0))


def saliency(task: Task) -> Prepared:
    return _gradients(Saliency(task.model), task)


def guided(task: Task) -> Prepared:
    return _gradients(GuidedBackprop(task.model), task)


def smoothgrad(task: Task) -> Prepared:
    # Its chunks were seen to be fastest with 16 rows of 224 x 224 pixels, and 128 of 32 x 32.
    samples = max(1, _rows(task) // len(task.images))
    return _gradients(
        NoiseTunnel(Saliency(task.model)),
        task,
        noise=0.5,
        nt_samples=task.options["samples"],
        nt_samples_batch_size=min(samples, task.options["samples"]),
        abs=False,
    )


def integrated(task: Task) -> Prepared:
    return _gradients(
        IntegratedGradients(task.model),
        task,
        n_steps=task.options["samples"],
        internal_batch_size=max(_rows(task), len(task.images)),
    )


def _rows(task: Task) -> int:
    return 16 if task.images.shape[1] > 64 else 128


METHODS: Methods = {
    "gradcam": gradcam,
    "saliency": saliency,
    "guided": guided,
    "smoothgrad": smoothgrad,
    "integrated": integrated,
}

if __name__ == "__main__":
    serve(load, METHODS, ["captum", "torch", "numpy"])
