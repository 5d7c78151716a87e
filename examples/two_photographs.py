"""A small model and a photograph for the other examples, where nobody has given them any.

scikit-learn carries a photograph of a temple and one of a flower. A small network learns, in some
ten seconds on two cores, to tell crops of one from crops of the other; the photograph that is
explained shows the temple at the left and the flower at the right, so that one can see whether a
map is right:

    python examples/two_photographs.py --output both.png
"""

import argparse
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

import kvis2
from kvis2 import images

NAMES = ["temple", "flower"]
SIDE = 96  # pixels that the model takes, each way


def crop(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photograph, turned round or not, as SIDE x SIDE pixels."""
    size = int(rng.integers(SIDE // 2, 300))
    top, left = (int(rng.integers(length - size + 1)) for length in photograph.shape[:2])
    square = photograph[top : top + size, left : left + size]
    resized = Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(resized)[:, :: int(rng.choice([-1, 1]))]


def both() -> np.ndarray:
    """Half of the temple and half of the flower side by side, uint8 `(2 SIDE, 2 SIDE, 3)`."""
    temple, flower = load_sample_images().images
    halves = [temple[60:420, 250:430], flower[20:380, 230:410]]
    return images.resize(np.concatenate(halves, axis=1), 2 * SIDE)


def trained(poolings: int = 3, crops: int = 600, epochs: int = 4, seed: int = 0) -> keras.Model:
    """A network of five convolutions that tells the temple from the flower; it takes 0..255.

    Its last map has `SIDE / 2 ** poolings` positions each way.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    photographs = load_sample_images().images
    labels = np.arange(crops) % 2
    pixels = np.stack([crop(photographs[label], rng) for label in labels])
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    for depth, filters in enumerate((8, 16, 16, 32, 32)):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x) if depth < poolings else x
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(len(NAMES), activation="softmax", name="predictions")(x)
    model = keras.Model(inputs, outputs, name="temple_or_flower")
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(pixels, labels, epochs=epochs, verbose=0)
    return model


def main() -> None:
    """Explain both classes of the photograph, and write one picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("both.png"))
    options = parser.parse_args()
    photo, model = images.resize(both(), SIDE), trained()
    heatmaps = kvis2.GradCAM(model)([0, 1], np.stack([photo, photo]))
    pictures = [photo, *(images.overlay(photo, heatmap) for heatmap in heatmaps)]
    captions = ["both", *(f"why {name}" for name in NAMES)]
    images.save(options.output, images.strip(pictures, captions, width=2 * SIDE))
    for name, heatmap in zip(NAMES, heatmaps, strict=True):
        right = heatmap[:, SIDE // 2 :].sum() / heatmap.sum()
        print(f"{name}: {right:.2f} of the heat lies in the right half")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
