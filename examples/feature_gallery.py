"""What the units of a network want to see: a gallery of five depths, classes, a dream, inversions.

    python examples/feature_gallery.py --out gallery
    python examples/feature_gallery.py model.keras photo.jpg --out gallery
    python examples/feature_gallery.py VGG16 photo.jpg --out gallery --only units classes
    python examples/feature_gallery.py emotion.keras face.png --input-range 0 255 --out gallery

MODEL is a file that Keras reads, or a name in `keras.applications`, whose ImageNet weights are
downloaded and whose preprocessing is taken; without one a small network is trained that tells a
temple from a flower (see two_photographs.py; it needs scikit-learn). `features.jpg` sums up units
and classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import two_photographs
from numpy.typing import NDArray

from kvis2 import images, presets
from kvis2.ascent import ActivationMaximization, DeepDream, FeatureInversion, ProgressBar
from kvis2.gallery import InputSpace, load_model
from kvis2.inspection import activations, kernel_sheet, receptive_field
from kvis2.models import layers
from kvis2.parametrizations import Fourier

PARTS = ("kernels", "units", "classes", "phases", "dream", "inversions", "activations")
IMAGENET_CLASSES = [130, 985, 207, 973, 417, 951]  # flamingo, daisy, retriever, reef, balloon, ...
CLOSE_UP = 16  # receptive fields side by side, so that each is wide enough to be seen

Pictures = list[NDArray[np.uint8]]


def five_depths(model: keras.Model) -> list[keras.Layer]:
    """Convolutions at five depths, from the first to the last."""
    kinds = (keras.layers.Conv2D, keras.layers.SeparableConv2D)
    found = [layer for _, layer in layers.walk(model) if isinstance(layer, kinds)]
    return [found[round(place)] for place in np.linspace(0, len(found) - 1, 5)]


def living_filters(layer: keras.layers.Layer, count: int) -> NDArray[np.intp]:
    """Filters spread over a layer, without those that training has set to zero."""
    kernel = np.asarray(getattr(layer, "pointwise_kernel", getattr(layer, "kernel", None)))
    peaks = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
    living = np.flatnonzero(peaks > 1e-3 * peaks.max())
    return living[np.linspace(0, len(living) - 1, min(count, len(living))).round().astype(int)]


def input_space(
    model: keras.Model,
    preprocess: Callable[[Any], Any] | None,
    input_range: Sequence[float] | None,
) -> InputSpace:
    """What black and white are: as said, or by the preprocessing, or 0 and 255."""
    channels = model.inputs[0].shape[-1]
    if input_range is None and preprocess is not None:
        return InputSpace.of_preprocessing(preprocess)
    black, white = input_range or (0.0, 255.0)
    return InputSpace((black,) * channels, (white,) * channels)


def close_up(picture: NDArray[np.uint8], field: int) -> NDArray[np.uint8]:
    """The middle of a picture, `CLOSE_UP` fields of `field` pixels wide, at the old size."""
    side = min(*picture.shape[:2], CLOSE_UP * field)
    top, left = ((length - side) // 2 for length in picture.shape[:2])
    return images.resize(picture[top : top + side, left : left + side], picture.shape[1])


class FeatureGallery:
    """Sheets of one model.

    Args:
        model: A model of one input of images.
        space: Its range of values and order of colours.
        steps: Steps of each ascent.
        out: The folder of the sheets.
    """

    def __init__(self, model: keras.Model, space: InputSpace, steps: int, out: Path) -> None:
        self.model = model
        self.space = space
        self.out = out
        height, width = model.inputs[0].shape[1:3]
        self.size = (height or 224, width or 224)
        self.depths = five_depths(model)
        self.ascent: dict[str, Any] = {
            "input_range": space.bounds,
            "shape": (*self.size, space.channels),
            "steps": steps,
        }

    def fourier(self, decay: float = 1.5) -> Fourier:
        """Fourier coordinates in the model's order of colours."""
        return Fourier(decay=decay, decorrelate="bgr" if self.space.blue_first else True)

    def pictures(self, found: Any) -> Pictures:
        """Pictures of what the model takes, as itself, or in a list if the model wants one."""
        return list(self.space.decode(keras.tree.flatten(found)[0]))

    def save(self, name: str, pictures: Pictures, captions: Sequence[str], columns: int) -> None:
        """A sheet of pictures with their captions."""
        width = max(112, pictures[0].shape[1])
        tiles = [
            images.captioned(images.resize(picture, width), caption)
            for picture, caption in zip(pictures, captions, strict=True)
        ]
        print(f"\n{images.save(self.out / name, images.grid(tiles, columns))}", flush=True)

    def units(self, depth: int, count: int) -> Pictures:
        """Filters at one of the five depths."""
        layer = self.depths[depth]
        filters = living_filters(layer, count)
        field = max(receptive_field(self.model, layer, self.size))
        # A field of a few pixels cannot tell low frequencies apart: they would fill the picture.
        parametrization = self.fourier(0.75 if field < 8 else 1.5)
        found = ActivationMaximization(
            self.model, layer, parametrization=parametrization, **self.ascent
        )(filters, callbacks=[ProgressBar()])
        pictures = [close_up(each, field) for each in self.pictures(found)]
        self.save(f"units_{depth}_{layer.name}.png", pictures, [f"{i}" for i in filters], 4)
        return pictures

    def classes(self, labels: Sequence[int], name: str, **settings: Any) -> Pictures:
        """Classes, with the probability that the model gives to each."""
        settings = {"parametrization": self.fourier(), **self.ascent, **settings}
        found = ActivationMaximization(self.model, **settings)(labels, callbacks=[ProgressBar()])
        shares = self.model.predict(found, verbose=0)[range(len(labels)), labels]
        captions = [f"class {i}: {p:.3f}" for i, p in zip(labels, shares, strict=True)]
        pictures = self.pictures(found)
        self.save(f"{name}.png", pictures, captions, 3)
        return pictures

    def dream(self, path: Path) -> None:
        """What a late layer sees in a photograph."""
        dream = DeepDream(self.model, self.depths[3], input_range=self.space.bounds)
        dreamt = dream(None, self.space.encode(self.space.read(path, None)))
        images.save(self.out / f"{path.stem}_dream.png", self.space.decode(dreamt))

    def inversions(self, path: Path) -> None:
        """What is left of a photograph at each of the five depths."""
        picture = self.space.read(path, self.size)
        pictures, captions = [picture], [path.stem]
        for layer in self.depths:
            inversion = FeatureInversion(
                self.model, layer, parametrization=self.fourier(), **self.ascent
            )
            found = inversion(self.space.encode(picture)[None], callbacks=[ProgressBar()])
            assert inversion.errors is not None
            pictures += self.pictures(found)
            captions.append(f"{layer.name}: {inversion.errors[0]:.2f}")
        self.save(f"{path.stem}_inversions.png", pictures, captions, len(pictures))

    def activations(self, path: Path) -> None:
        """The first sixteen feature maps of a photograph at the second depth."""
        batch = self.space.encode(self.space.read(path, self.size))[None]
        maps = activations(self.model, self.depths[1], batch, pre_activation=True)[0]
        shown = np.moveaxis(maps, -1, 0)[:16]
        pictures = [images.colorize(images.normalize(each), "viridis") for each in shown]
        captions = [str(channel) for channel in range(len(pictures))]
        self.save(f"{path.stem}_activations.png", pictures, captions, 8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the gallery."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("photographs", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=Path("gallery"))
    parser.add_argument("--input-range", nargs=2, type=float, metavar=("BLACK", "WHITE"))
    parser.add_argument("--random-weights", action="store_true", help="for keras.applications")
    parser.add_argument("--units", type=int, default=12, help="units shown of each layer")
    parser.add_argument("--classes", type=int, nargs="*")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    options = parser.parse_args(arguments)

    if options.model is None:
        model, preprocess = two_photographs.trained(), None
        images.save(options.out / "both.png", two_photographs.both())
        options.photographs = [options.out / "both.png"]
    else:
        model, preprocess = load_model(options.model, options.random_weights)
    space = input_space(model, preprocess, options.input_range)
    gallery = FeatureGallery(model, space, options.steps, options.out)
    count = model.output_shape[-1]
    labels = options.classes or (IMAGENET_CLASSES if count == 1000 else list(range(min(6, count))))
    rows: list[Pictures] = []
    if "kernels" in options.only:
        images.save(options.out / "kernels.png", kernel_sheet(gallery.depths[0]))
    for depth in range(5 if "units" in options.only else 0):
        rows.append(gallery.units(depth, options.units))
    if "classes" in options.only:
        rows.append(gallery.classes(labels, "classes"))
    if "phases" in options.only:
        maco = presets.magnitude_constrained(options.steps, gallery.fourier().decorrelate)
        rows.append(gallery.classes(labels, "phases", **maco))
    if rows:
        shown = min(6, *(len(row) for row in rows)) if len(rows) > 1 else len(rows[0])
        tiles = [images.resize(picture, 128) for row in rows for picture in row[:shown]]
        images.save(options.out / "features.jpg", images.grid(tiles, columns=shown))
    for path in options.photographs:
        for part in ("dream", "inversions", "activations"):
            if part in options.only:
                getattr(gallery, part)(path)


if __name__ == "__main__":
    main()
