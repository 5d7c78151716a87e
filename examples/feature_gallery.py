"""What the units of a network want to see: a gallery of five depths, classes, a dream, inversions.

    python examples/feature_gallery.py model.keras photo.jpg --out gallery
    python examples/feature_gallery.py VGG16 photo.jpg --input-range caffe --out gallery

MODEL is a file that `keras.models.load_model` reads, or a name in `keras.applications`, whose
ImageNet weights are downloaded. The input range is what the network was trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from kvis2 import images, targets
from kvis2.ascent_callbacks import ProgressBar
from kvis2.dreaming import DeepDream
from kvis2.features import activations, kernel_sheet
from kvis2.inversion import FeatureInversion
from kvis2.maximization import ActivationMaximization
from kvis2.parametrizations import Fourier

_CAFFE_MEAN = np.array([103.939, 116.779, 123.68])
RANGES = {
    "255": (0.0, 255.0),
    "1": (0.0, 1.0),
    "tf": (-1.0, 1.0),
    "caffe": (tuple(-_CAFFE_MEAN), tuple(255.0 - _CAFFE_MEAN)),
}


def load_model(name: str) -> keras.Model:
    """A saved model, or one of `keras.applications` by its name."""
    if Path(name).exists():
        return keras.models.load_model(name, compile=False)
    return getattr(keras.applications, name)()


def five_depths(model: keras.Model) -> list[keras.Layer]:
    """Convolutions at five depths, from the first to the last."""
    found = [
        layer
        for _, layer in targets.walk(model)
        if isinstance(layer, keras.layers.Conv2D)
        and not isinstance(layer, keras.layers.DepthwiseConv2D)
    ]
    return [found[round(place)] for place in np.linspace(0, len(found) - 1, 5)]


def read_photograph(path: str, size: Sequence[int] | None, low: Any, high: Any) -> np.ndarray:
    """A photograph in the input range, float32 `(height, width, 3)`."""
    picture = Image.open(path).convert("RGB")
    if size is not None:
        picture = picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    unit = np.asarray(picture, np.float32) / 255.0
    unit = unit[..., ::-1] if np.ndim(low) else unit  # the "caffe" range has blue first
    return np.asarray(low, np.float32) + unit * (np.asarray(high) - low).astype(np.float32)


def pictures(values: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """uint8 RGB pictures of images in the input range."""
    unit = (values - np.asarray(low)) / (np.asarray(high) - np.asarray(low))
    unit = unit[..., ::-1] if np.ndim(low) else unit
    return np.round(255 * np.clip(unit, 0, 1)).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the gallery."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("photographs", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("gallery"))
    parser.add_argument("--input-range", choices=RANGES, default="255")
    parser.add_argument("--units", type=int, default=12, help="units shown of each layer")
    parser.add_argument("--classes", type=int, nargs="*", default=[130, 985, 207, 973, 417, 951])
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument(
        "--only", nargs="*", default=["kernels", "units", "classes", "dream", "inversions"]
    )
    options = parser.parse_args(arguments)
    model = load_model(options.model)
    low, high = RANGES[options.input_range]
    first_blue = options.input_range == "caffe"
    settings = {
        "input_range": (low, high),
        "parametrization": Fourier(decorrelate="bgr" if first_blue else True),
        "steps": options.steps,
    }
    bar = [ProgressBar(10)]
    depths = five_depths(model)

    if "kernels" in options.only:
        images.save(options.out / "kernels.png", kernel_sheet(depths[0]))
    for depth, layer in enumerate(depths if "units" in options.only else ()):
        chosen = np.linspace(0, layer.filters - 1, options.units).round().astype(int)
        found = ActivationMaximization(model, layer, **settings)(chosen, callbacks=bar)
        sheet = images.grid(list(pictures(found, low, high)))
        images.save(options.out / f"units_{depth}_{layer.name}.png", sheet)
    if "classes" in options.only:
        found = ActivationMaximization(model, **settings)(options.classes, callbacks=bar)
        images.save(options.out / "classes.png", images.grid(list(pictures(found, low, high))))
    for path in options.photographs:
        name = Path(path).stem
        if "dream" in options.only:
            photograph = read_photograph(path, None, low, high)
            dream = DeepDream(model, depths[3], input_range=(low, high))(None, photograph)
            images.save(options.out / f"{name}_dream.png", pictures(dream, low, high))
        if "inversions" in options.only:
            size = [side or 224 for side in model.input_shape[1:3]]
            photograph = read_photograph(path, size, low, high)[None]
            shown, captions = [pictures(photograph, low, high)[0]], [name]
            for layer in depths:
                inversion = FeatureInversion(model, layer, **settings)
                shown.append(pictures(inversion(photograph, callbacks=bar), low, high)[0])
                captions.append(f"{layer.name}: {inversion.errors[0]:.2f}")
            images.save(options.out / f"{name}_inversions.png", images.strip(shown, captions))
            features = activations(model, depths[1], photograph)[0]
            maps = [images.colorize(each, "viridis") for each in np.moveaxis(features, -1, 0)[:16]]
            images.save(options.out / f"{name}_activations.png", images.grid(maps))


if __name__ == "__main__":
    main()
