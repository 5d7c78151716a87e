"""The models: random weights, but activations as sane as those of a trained model.

Kernels are drawn as He et al. do, biases are zero, and the statistics of every batch
normalisation are those of the images. So nothing is downloaded, activations neither vanish nor
explode, and LRP-0 is input times gradient.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers


class Recipe(NamedTuple):
    """How a model is built: `build()`, the layer for CAMs, the side of its images."""

    build: Callable[[], keras.Model]
    layer: str
    side: int


def plain_cnn(
    side: int | None = None, channels: int = 32, depth: int = 5, classes: int = 10
) -> keras.Model:
    """`depth` 3 x 3 convolutions, pooled after the second and fourth, then one dense layer.

    Args:
        side: Side of the images; None for any.
        channels: Channels of the first two convolutions; doubled at each pooling.
        depth: How many convolutions.
        classes: How many classes.
    """
    inputs = outputs = keras.Input((side, side, 3))
    for number in range(1, depth + 1):
        outputs = layers.Conv2D(
            channels, 3, padding="same", activation="relu", name=f"conv{number}"
        )(outputs)
        if number in (2, 4) and number < depth:
            outputs = layers.MaxPooling2D(name=f"pool{number}")(outputs)
            channels *= 2
    outputs = layers.GlobalAveragePooling2D(name="gap")(outputs)
    outputs = layers.Dense(classes, activation="softmax", name="predictions")(outputs)
    return keras.Model(inputs, outputs, name="small")


def _application(name: str) -> Callable[[], keras.Model]:
    return lambda: getattr(keras.applications, name)(weights=None)


BUILDERS = {
    "small": Recipe(lambda: plain_cnn(32), "conv5", 32),
    "mobilenetv2": Recipe(_application("MobileNetV2"), "out_relu", 224),
    "resnet50": Recipe(_application("ResNet50"), "conv5_block3_out", 224),
    "vgg16": Recipe(_application("VGG16"), "block5_conv3", 224),
}


def write(name: str, folder: Path, images: int = 32) -> Path:
    """Build a model and write it with its images, once; returns its folder.

    The folder holds `model.keras`; `inputs.npz` (images, the class predicted for each, their
    logits, the layer for CAMs); and for torch `layers.json` and `weights.npz`.
    """
    recipe = BUILDERS[name]
    target = folder / name
    if (target / "inputs.npz").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    model = recipe.build()
    batch = smooth_images(images, recipe.side)
    randomize(model)
    calibrate(model, batch)
    model.save(target / "model.keras")
    (target / "layers.json").write_text(json.dumps(architecture(model)))
    weights = {f"{each.path}": each.numpy() for each in model.weights}
    np.savez(target / "weights.npz", **weights)
    logits = linear(model).predict(batch, verbose=0)
    np.savez(
        target / "inputs.npz",
        images=batch,
        logits=logits,
        classes=logits.argmax(axis=1).astype(np.int32),
        layer=recipe.layer,
    )
    return target


def smooth_images(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Random images with large structure, float32 `(count, side, side, 3)` of unit variance."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 8, 8, 3)).astype(np.float32)
    repeats = -(-side // 8)
    blocks = coarse.repeat(repeats, axis=1).repeat(repeats, axis=2)[:, :side, :side]
    return (blocks + 0.3 * rng.normal(size=blocks.shape)).astype(np.float32)


def randomize(model: keras.Model, seed: int = 0) -> None:
    """Draw all kernels from Normal(0, 2 / fan in)."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is not None:
            inputs = kernel.shape[:2] if _is_depthwise(layer) else kernel.shape[:-1]
            scale = np.sqrt(2 / np.prod(inputs))
            kernel.assign(scale * rng.standard_normal(kernel.shape, dtype=np.float32))


def calibrate(model: keras.Model, images: np.ndarray) -> None:
    """Make the statistics of every batch normalisation those of `images`."""
    norms = [each for each in model.layers if isinstance(each, layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    model(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def load(folder: Path) -> keras.Model:
    """The model that `write` saved."""
    return keras.models.load_model(folder / "model.keras", compile=False)


def linear(model: keras.Model) -> keras.Model:
    """The same model, changed in place, without its final softmax."""
    model.layers[-1].activation = keras.activations.linear
    return model


def _is_depthwise(layer: keras.Layer) -> bool:
    return isinstance(layer, layers.DepthwiseConv2D)


def architecture(model: keras.Model) -> list[dict[str, Any]]:
    """The layers in the order they are called: kind, inputs, configuration, weight names."""
    return [
        {
            "name": layer.name,
            "kind": type(layer).__name__,
            "inputs": _input_names(layer),
            "config": _plain(layer.get_config()),
            "weights": {each.name: each.path for each in layer.weights},
        }
        for layer in model.layers
    ]


def _input_names(layer: keras.Layer) -> list[str]:
    if isinstance(layer, layers.InputLayer):
        return []
    return [each._keras_history.operation.name for each in layer._inbound_nodes[0].input_tensors]


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """What JSON can hold of a configuration."""
    simple = (bool, int, float, str, list, tuple, type(None))
    return {name: value for name, value in config.items() if isinstance(value, simple)}
