"""The same model for torch, from the files that `benchmarks.models` wrote."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


class Model(nn.Module):
    """Layers by name, called in the order in which Keras called them; returns logits."""

    def __init__(self, layers: list[dict[str, Any]], weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.order = [(each["name"], each["inputs"]) for each in layers]
        # A name of a module may not hold a dot or be that of a method.
        built = {f"_{each['name']}": _module(each, weights) for each in layers}
        self.steps = nn.ModuleDict(built)

    def step(self, name: str) -> nn.Module:
        """The module of a layer; where an activation is fused into it, the activation."""
        found = self.steps[f"_{name}"]
        return found[-1] if isinstance(found, nn.Sequential) else found

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values: dict[str, torch.Tensor] = {}
        for name, inputs in self.order:
            given = [values[each] for each in inputs] or [images]
            values[name] = self.steps[f"_{name}"](*given)
        return values[self.order[-1][0]]


def load(folder: Path) -> Model:
    """The model in `folder`, after a look whether it computes the logits that Keras does."""
    layers = json.loads((folder / "layers.json").read_text())
    with np.load(folder / "weights.npz") as weights:
        model = Model(layers, weights).eval()
    with np.load(folder / "inputs.npz") as inputs, torch.no_grad():
        logits = model(as_torch(inputs["images"][:2])).numpy()
        error = np.abs(logits - inputs["logits"][:2]).max() / np.abs(inputs["logits"][:2]).max()
    if not error < 1e-4:
        raise ValueError(
            f"Expected the torch model to compute the logits of the Keras model. Received: a "
            f"relative error of {error:.1e} for {folder.name}. Look at `benchmarks/workers/`."
        )
    return model


def as_torch(images: np.ndarray) -> torch.Tensor:
    """Channels first."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))


class Add(nn.Module):
    """A sum, as a module of its own."""

    def forward(self, *values: torch.Tensor) -> torch.Tensor:
        return values[0] + values[1]


class Flatten(nn.Module):
    """Flattens in the order of channels last."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.permute(0, 2, 3, 1).flatten(1)


def _module(layer: dict[str, Any], weights: Any) -> nn.Module:
    arrays = {name: weights[path] for name, path in layer["weights"].items()}
    module = _BUILDERS[layer["kind"]](layer["config"], arrays)
    if layer["config"].get("activation") == "relu" and layer["kind"] != "Activation":
        return nn.Sequential(module, nn.ReLU())
    return module


def _convolution(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> nn.Module:
    kernel = np.transpose(arrays["kernel"], (3, 2, 0, 1))
    return _convolved(config, arrays, kernel, kernel.shape[1], groups=1)


def _depthwise(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> nn.Module:
    kernel = np.transpose(arrays["kernel"], (2, 3, 0, 1))
    return _convolved(config, arrays, kernel, kernel.shape[0], groups=kernel.shape[0])


def _convolved(
    config: dict[str, Any],
    arrays: dict[str, np.ndarray],
    kernel: np.ndarray,
    channels: int,
    groups: int,
) -> nn.Module:
    size, strides = kernel.shape[2:], tuple(config["strides"])
    module = nn.Conv2d(channels, len(kernel), size, strides, groups=groups, bias="bias" in arrays)
    _with(module, weight=kernel, **_named(arrays, bias="bias"))
    if config["padding"] == "valid":
        return module
    # What TensorFlow adds where the stride divides the side: the odd one behind.
    total = [n - stride for n, stride in zip(size, strides, strict=True)]
    if total[0] % 2 == total[1] % 2 == 0:
        module.padding = (total[0] // 2, total[1] // 2)
        return module
    before, behind = [n // 2 for n in total], [n - n // 2 for n in total]
    return nn.Sequential(nn.ZeroPad2d((before[1], behind[1], before[0], behind[0])), module)


def _dense(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> nn.Module:
    kernel = arrays["kernel"].T
    return _with(nn.Linear(*kernel.shape[::-1]), weight=kernel, bias=arrays["bias"])


def _batch_norm(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> nn.Module:
    module = nn.BatchNorm2d(len(arrays["gamma"]), eps=config["epsilon"])
    return _with(
        module,
        weight=arrays["gamma"],
        bias=arrays["beta"],
        running_mean=arrays["moving_mean"],
        running_var=arrays["moving_variance"],
    )


def _zero_padding(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> nn.Module:
    (top, bottom), (left, right) = config["padding"]
    return nn.ZeroPad2d((left, right, top, bottom))


def _pooling(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> nn.Module:
    return nn.MaxPool2d(tuple(config["pool_size"]), tuple(config["strides"]))


def _relu(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> nn.Module:
    return nn.ReLU6() if config.get("max_value") == 6 else nn.ReLU()


_BUILDERS: dict[str, Callable[[dict[str, Any], dict[str, np.ndarray]], nn.Module]] = {
    "InputLayer": lambda config, arrays: nn.Identity(),
    "Conv2D": _convolution,
    "DepthwiseConv2D": _depthwise,
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "ZeroPadding2D": _zero_padding,
    "MaxPooling2D": _pooling,
    "ReLU": _relu,
    "Activation": _relu,
    "Add": lambda config, arrays: Add(),
    "Flatten": lambda config, arrays: Flatten(),
    "GlobalAveragePooling2D": lambda config, arrays: nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
}


def _named(arrays: dict[str, np.ndarray], **names: str) -> dict[str, np.ndarray]:
    return {name: arrays[key] for name, key in names.items() if key in arrays}


def _with(module: nn.Module, **values: np.ndarray) -> nn.Module:
    with torch.no_grad():
        for name, value in values.items():
            getattr(module, name).copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return module


def without_torchvision() -> None:
    """Let packages be imported that import torchvision for what is not measured here.

    zennit names its ResNet blocks, grad-cam its image transforms; neither is called.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError:
        names = {
            "torchvision": (),
            "torchvision.models": (),
            "torchvision.models.resnet": ("Bottleneck", "BasicBlock"),
            "torchvision.transforms": ("Compose", "Normalize", "ToTensor"),
            "torchvision.transforms.functional": ("resize",),
        }
        for name, members in names.items():
            module = types.ModuleType(name)
            for member in members:
                setattr(module, member, type(member, (), {}))
            sys.modules[name] = module
