"""Worker of pytorch-grad-cam (the package grad-cam)."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.workers.protocol import Methods, Prepared, Task, serve
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
    model = torch.nn.Sequential(task.model, torch.nn.Softmax(dim=-1))
    return _cam(ScoreCAM, model, task)


METHODS: Methods = {"gradcam": gradcam, "scorecam": scorecam}

if __name__ == "__main__":
    serve(load, METHODS, ["grad-cam", "torch", "numpy"])
