"""Worker of zennit."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.workers.protocol import Methods, Prepared, Task, serve
from benchmarks.workers.torch_model import as_torch, load, without_torchvision

without_torchvision()

from zennit.attribution import Gradient  # noqa: E402
from zennit.composites import LayerMapComposite, layer_map_base  # noqa: E402
from zennit.rules import Epsilon  # noqa: E402
from zennit.types import Linear  # noqa: E402


def lrp(task: Task) -> Prepared:
    composite = LayerMapComposite([*layer_map_base(), (Linear, Epsilon(1e-6))])
    images = as_torch(task.images)
    chosen = torch.eye(1000)[torch.from_numpy(task.classes.astype(np.int64))]

    def run() -> np.ndarray:
        with Gradient(task.model, composite) as attributor:
            _, relevance = attributor(
                images, lambda output: output.detach() * chosen[:, : output.shape[1]]
            )
        return relevance.numpy().sum(axis=1)

    return Prepared(run, run)


METHODS: Methods = {"lrp": lrp}

if __name__ == "__main__":
    serve(load, METHODS, ["zennit", "torch", "numpy"])
