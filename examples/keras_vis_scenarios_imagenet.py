"""The documented scenarios of keras-vis on an ImageNet model and photographs of your own.

    python examples/keras_vis_scenarios_imagenet.py model.keras dog.jpg cat.jpg --out sheets
    python examples/keras_vis_scenarios_imagenet.py model.keras dog.jpg --penultimate top_relu
    python examples/keras_vis_scenarios_imagenet.py --out sheets

The model takes photographs in 0..255 and ends in a softmax, over the 1000 classes or others.
Nothing is downloaded: without a model a small network learns to tell a temple from a flower (see
two_photographs.py; it needs scikit-learn), and is asked about three photographs. For each
photograph one row shows what the predicted class is seen in; then come images of the classes, alone
and all at once, and of filters at three depths.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import two_photographs

from kvis2 import DeconvReLU, GuidedReLU, images
from kvis2.visualization import (
    get_num_filters,
    overlay,
    visualize_activation,
    visualize_cam,
    visualize_saliency,
)
from kvis2.visualization import tools as utils
from kvis2.visualization.input_modifiers import Jitter

# By name, "guided" and "rectified" change plain ReLUs only; mobile networks have ReLU6.
BACKPROP = {"vanilla": None, "guided": GuidedReLU(), "rectified": DeconvReLU()}


def with_logits(model: keras.Model) -> keras.Model:
    """A copy of the model with its softmax swapped for linear."""
    softmax = model.layers[-1].activation
    model.layers[-1].activation = keras.activations.linear
    copied = utils.apply_modifications(model)
    model.layers[-1].activation = softmax
    return copied


def named(model: keras.Model, label: int) -> str:
    """What a class is called, where that is known."""
    count = model.output_shape[-1]
    if count == len(two_photographs.NAMES):
        return two_photographs.NAMES[label]
    return utils.lookup_imagenet_labels(label)[0] if count == 1000 else f"class {label}"


def attention(
    model: keras.Model, photograph: np.ndarray, label: int, penultimate: str | None
) -> np.ndarray:
    """A photograph, its saliency in three ways, and Grad-CAM over it, side by side."""
    pictures = [photograph]
    for modifier in BACKPROP.values():
        heatmap = visualize_saliency(model, -1, label, photograph, backprop_modifier=modifier)
        pictures.append(images.colorize(heatmap))
    cam = visualize_cam(model, -1, label, photograph, penultimate)
    pictures.append(overlay(images.colorize(cam, "jet"), photograph, 0.5))
    return images.strip(pictures, [named(model, label), *BACKPROP, "Grad-CAM"])


def class_images(model: keras.Model, classes: Sequence[int], steps: int) -> np.ndarray:
    """What each class wants to see, and one image for all of them at once."""
    wanted: list[list[int]] = [[each] for each in classes]
    if len(classes) > 1:
        wanted.append(list(classes))
    pictures = [
        visualize_activation(
            model, -1, each, max_iter=steps, tv_weight=1, input_modifiers=[Jitter(16)]
        )
        for each in wanted
    ]
    captions = [" and ".join(named(model, label) for label in each) for each in wanted]
    return images.strip(pictures, captions)


def filters(model: keras.Model, steps: int, count: int) -> list[np.ndarray]:
    """What some filters want to see, in the first, a middle and the last convolution."""
    found = [
        index for index, layer in enumerate(model.layers) if isinstance(layer, keras.layers.Conv2D)
    ]
    sheets = []
    for layer_idx in (found[0], found[len(found) // 2], found[-1]):
        layer = model.layers[layer_idx]
        chosen = np.linspace(0, (get_num_filters(layer) or 1) - 1, count).astype(int)
        pictures = [
            visualize_activation(
                model, layer_idx, index, max_iter=steps, input_modifiers=[Jitter(8)]
            )
            for index in chosen
        ]
        sheets.append(images.strip(pictures, [f"{layer.name}, {index}" for index in chosen]))
    return sheets


def given(path: str | None, paths: Sequence[Path]) -> tuple[keras.Model, list[np.ndarray]]:
    """The model without its softmax, and the photographs in the size that it takes."""
    if path is None:
        side, both = two_photographs.SIDE, two_photographs.both()
        squares = [both[side // 2 : -side // 2, :side], both[side // 2 : -side // 2, side:]]
        return with_logits(two_photographs.trained()), [*squares, images.resize(both, side)]
    model = with_logits(keras.saving.load_model(path, compile=False))
    size = model.inputs[0].shape[1:3]
    return model, [utils.load_img(path, target_size=size) for path in paths]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write three sheets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="a .keras file; default: a small network")
    parser.add_argument("photographs", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("scenarios"), help="folder of the sheets")
    parser.add_argument("--penultimate", help="layer of Grad-CAM; default: the last convolution")
    parser.add_argument("--steps", type=int, default=200, help="of each optimisation")
    parser.add_argument("--filters", type=int, default=3, help="shown of each layer")
    options = parser.parse_args(arguments)
    if bool(options.model) != bool(options.photographs):
        parser.error("expected a model and photographs, or neither. Received: one of them alone.")
    model, photographs = given(options.model, options.photographs)
    utils.set_random_seed()
    logits = model.predict(np.stack(photographs).astype("float32"), verbose=0)
    classes = [int(each) for each in logits.argmax(axis=1)]
    rows = [
        attention(model, photograph, label, options.penultimate)
        for photograph, label in zip(photographs, classes, strict=True)
    ]
    several = list(dict.fromkeys(classes))
    for name, sheet in (
        ("attention", images.grid(rows, columns=1, margin=0)),
        ("class_images", class_images(model, several, options.steps)),
        (
            "filters",
            images.grid(filters(model, options.steps, options.filters), columns=1, margin=0),
        ),
    ):
        print(images.save(options.out / f"{name}.png", sheet))


if __name__ == "__main__":
    main()
