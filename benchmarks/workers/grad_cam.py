"""Worker of pytorch-grad-cam (the package grad-cam)."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.workers.folder_loop import folder_loop
from benchmarks.workers.protocol import Methods, Prepared, Task, ranking_maps, serve
from benchmarks.workers.torch_model import as_torch, load, without_torchvision

without_torchvision()

from pytorch_grad_cam import GradCAM, ScoreCAM  # noqa: E402


class _Class:
    """The output of one class: what the package's own target does, which needs torchvision."""

    def __init__(self, index: int) -> None:
        self.index = index

    def __call__(self, output: torch.Tensor) -> torch.Tensor:
        return output[..., self.index]


def _cam(kind: type, model: torch.nn.Module, task: Task) -> Prepared:
    explainer = kind(model, [task.model.step(task.layer)])
    images = as_torch(task.images)
    targets = [_Class(int(each)) for each in task.classes]

    def run() -> np.ndarray:  # It offers no raw maps: these are resized and stretched to 0..1.
        return explainer(images, targets)

    return Prepared(run, run)


def gradcam(task: Task) -> Prepared:
    return _cam(GradCAM, task.model, task)


def scorecam(task: Task) -> Prepared:
    if task.options["channels"] < _channel_count(task):
        raise NotImplementedError("takes all channels of the layer, however many")
    model = torch.nn.Sequential(task.model, torch.nn.Softmax(dim=-1))
    return _cam(ScoreCAM, model, task)


def _channel_count(task: Task) -> int:
    """How many channels the layer has."""
    counts: list[int] = []
    hook = task.model.step(task.layer).register_forward_hook(
        lambda module, inputs, output: counts.append(output.shape[1])
    )
    with torch.no_grad():
        task.model(as_torch(task.images[:1]))
    hook.remove()
    return counts[0]


def road(task: Task) -> Prepared:
    from pytorch_grad_cam.metrics.road import ROADCombined, ROADMostRelevantFirst

    count = task.options["fractions"]
    percentiles = [100 * part / (count + 1) for part in range(1, count + 1)]
    model = torch.nn.Sequential(task.model, torch.nn.Softmax(dim=-1))
    images, maps = as_torch(task.images), ranking_maps(task.images)
    targets = [_Class(int(each)) for each in task.classes]
    combined = ROADCombined(percentiles=percentiles)

    def result() -> np.ndarray:  # The changes of the probabilities, which are added again.
        with torch.no_grad():
            own = model(images).numpy()[np.arange(len(images)), task.classes]
        parts = [
            ROADMostRelevantFirst(percentile=each)(images, maps, targets, model)
            for each in percentiles
        ]
        return own + np.mean(parts, axis=0)

    return Prepared(lambda: combined(images, maps, targets, model), result)


def folder(task: Task) -> Prepared:
    explainer = GradCAM(task.model, [task.model.step(task.layer)])
    return folder_loop(task, lambda pictures: explainer(as_torch(pictures), targets=None))


METHODS: Methods = {"gradcam": gradcam, "scorecam": scorecam, "road": road, "folder": folder}

if __name__ == "__main__":
    serve(load, METHODS, ["grad-cam", "torch", "numpy"])
