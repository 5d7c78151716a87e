"""Draw the maps that people ask about: blank, red all over, at the border, a blob, upside down.

Each picture of docs/strange_maps.md shows how a map comes out when something is wrong, and beside
it how it comes out when that is mended:

    python examples/strange_maps.py --out docs/images
"""

import argparse
import warnings
from pathlib import Path

import keras
import numpy as np
import two_photographs

import kvis2
from kvis2 import images

SIDE = two_photographs.SIDE
FLOWER = two_photographs.NAMES.index("flower")


def untrained() -> keras.Model:
    """A deep network with zeros around every map and random weights."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    for _ in range(6):
        x = keras.layers.Conv2D(16, 5, padding="same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))


def explained(model: keras.Model, image: np.ndarray) -> np.ndarray:
    """The Grad-CAM of the flower in one image, `(SIDE, SIDE)`."""
    return kvis2.GradCAM(model)(FLOWER, image[None])[0]


def cases() -> dict[str, list[tuple[str, np.ndarray, np.ndarray]]]:
    """For each picture a list of captions, photographs and maps."""
    photo = images.resize(two_photographs.both(), SIDE)
    temple = np.concatenate([photo[:, : SIDE // 2], photo[:, SIDE // 2 - 1 :: -1]], axis=1)
    model, coarse = two_photographs.trained(), two_photographs.trained(poolings=5)
    right = explained(model, photo)
    dead = keras.models.clone_model(model)
    dead.set_weights([-abs(each) if each.ndim == 1 else 0 * each for each in model.get_weights()])
    white = np.full_like(photo, 255)
    return {
        "blank": [
            ("dead ReLUs", photo, explained(dead, photo)),
            ("no flower there", temple, explained(model, temple)),
            ("as it should be", photo, right),
        ],
        "red": [
            ("0..1, not 0..255", photo, explained(model, photo / np.float32(255))),
            ("0..255", photo, right),
        ],
        "border": [
            ("untrained, white", white, explained(untrained(), white)),
            ("untrained, photo", photo, explained(untrained(), photo)),
            ("trained, photo", photo, right),
        ],
        "blob": [
            ("3 x 3", photo, explained(coarse, photo)),
            ("12 x 12", photo, right),
        ],
        "upside_down": [("origin='lower'", photo, right[::-1]), ("as it is", photo, right)],
    }


def main() -> None:
    """Write one picture for each question."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # They say what the page says.
        drawn = cases()
    for name, row in drawn.items():
        pictures = [images.overlay(photo, heatmap) for _, photo, heatmap in row]
        captions = [caption for caption, _, _ in row]
        path = options.out / f"strange_{name}.webp"
        images.save(path, images.strip(pictures, captions, width=2 * SIDE))
        print(f"written to {path}")


if __name__ == "__main__":
    main()
