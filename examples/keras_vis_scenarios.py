"""The documented scenarios of keras-vis with kvis2.visualization, on data scikit-learn carries.

A small classifier of handwritten digits and a small "steering" network, which says how far left or
right of the middle a digit stands, are trained in a minute on two cores. Then each scenario writes
one sheet, and one of them a GIF:

    python examples/keras_vis_scenarios.py --out scenarios
    python examples/keras_vis_scenarios.py --out scenarios --only saliency regression

Only the imports differ from a script for keras-vis. `keras_vis_scenarios_imagenet.py` does the same
for a model of ImageNet and photographs.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from sklearn.datasets import load_digits

from kvis2 import images
from kvis2.visualization import (
    get_num_filters,
    overlay,
    visualize_activation,
    visualize_activation_with_losses,
    visualize_cam,
    visualize_saliency,
)
from kvis2.visualization import tools as utils
from kvis2.visualization.callbacks import GifGenerator, OptimizerCallback
from kvis2.visualization.input_modifiers import Jitter
from kvis2.visualization.losses import ActivationMaximization, Loss
from kvis2.visualization.regularizers import LPNorm, TotalVariation

SCALE = 3  # pixels for each of the 8 x 8 of a digit
SIDE = 8 * SCALE
ROAD = 3 * SIDE  # width of the pictures of the steering network
RANGE = (0.0, 1.0)
CELL = 144  # pixels of a picture on a sheet

# --- Data and networks ---------------------------------------------------------------------------


class Networks(NamedTuple):
    """What the scenarios look at: two networks and pictures that they were not trained on."""

    classifier: keras.Model  # softmax over the ten digits
    linear: keras.Model  # the same with logits
    digits: np.ndarray  # one of every class, (10, SIDE, SIDE, 1)
    steering: keras.Model  # the place of a digit, -1 (left) .. 1 (right)
    roads: np.ndarray  # (4, SIDE, ROAD, 1), from left to right


def make_networks(epochs: int) -> Networks:
    """Train both networks on three quarters of scikit-learn's digits."""
    keras.utils.set_random_seed(1)
    data = load_digits()
    pictures = enlarged(data.images.astype("float32") / 16.0)
    training = np.arange(len(pictures)) % 4 > 0
    classifier = make_classifier()
    classifier.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    shown = np.random.default_rng(0).normal(0, 0.1, pictures.shape).astype("float32") + pictures
    classifier.fit(shown[training], data.target[training], 32, epochs, verbose=0)
    _, accuracy = classifier.evaluate(pictures[~training], data.target[~training], verbose=0)
    roads, places = make_roads(pictures[training], 4000, seed=0)
    unseen_roads, unseen_places = make_roads(pictures[~training], 400, seed=1)
    steering = make_steering()
    steering.compile("adam", "mse")
    steering.fit(roads, places, 64, epochs, verbose=0)
    error = np.abs(steering.predict(unseen_roads, verbose=0)[:, 0] - unseen_places).mean()
    print(f"classifier: accuracy {accuracy:.3f}; steering: mean error {error:.3f} of 1")
    unseen = np.flatnonzero(~training)
    one_of_each = [unseen[data.target[unseen] == digit][3] for digit in range(10)]
    examples = [np.abs(unseen_places - place).argmin() for place in (-0.9, -0.3, 0.3, 0.9)]
    return Networks(
        classifier,
        with_logits(classifier),
        pictures[one_of_each],
        steering,
        unseen_roads[examples],
    )


def enlarged(pictures: np.ndarray) -> np.ndarray:
    """Digits of 8 x 8 brought to SIDE x SIDE, with a channel axis."""
    return keras.ops.convert_to_numpy(
        keras.ops.image.resize(pictures[..., None], (SIDE, SIDE), interpolation="bilinear")
    )


def make_roads(pictures: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits at random places on dim noise, and their places from -1 to 1."""
    rng = np.random.default_rng(seed)
    roads = rng.uniform(0, 0.3, (count, SIDE, ROAD, 1)).astype("float32")
    left = rng.integers(0, ROAD - SIDE + 1, count)
    for road, start, picture in zip(roads, left, rng.choice(pictures, count), strict=True):
        road[:, start : start + SIDE] = np.maximum(road[:, start : start + SIDE], picture)
    return roads, (2.0 * left / (ROAD - SIDE) - 1.0).astype("float32")


def make_classifier() -> keras.Model:
    """Two convolutions and two dense layers, the last a softmax called "preds"."""
    inputs = keras.Input((SIDE, SIDE, 1))
    x = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="conv1")(inputs)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv2")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dropout(0.4)(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="preds")(x))


def make_steering() -> keras.Model:
    """Three convolutions and a dense layer with one linear unit."""
    inputs = keras.Input((SIDE, ROAD, 1))
    x = inputs
    for filters in (8, 16, 16):
        x = keras.layers.Conv2D(filters, 5, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(1, name="angle")(x))


def with_logits(classifier: keras.Model) -> keras.Model:
    """The classifier with its softmax swapped for linear, as the documentation advises."""
    layer = classifier.layers[utils.find_layer_idx(classifier, "preds")]
    layer.activation = keras.activations.linear
    swapped = utils.apply_modifications(classifier)
    layer.activation = keras.activations.softmax
    return swapped


# --- Sheets --------------------------------------------------------------------------------------


def row(pictures: Iterable[np.ndarray], captions: Sequence[str], width: int = CELL) -> np.ndarray:
    """Pictures in 0..1 side by side, each with its caption."""
    shown = [images.displayable(each[None], display=RANGE)[0] for each in pictures]
    return images.strip(shown, captions, width=width)


def sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows one below the other."""
    return images.grid(rows, columns=1, margin=0)


def heat(heatmap: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """The display recipe of the documentation: the map in jet, over the picture."""
    jet = images.colorize(heatmap, "jet")
    return overlay(jet, images.displayable(picture[None], display=RANGE)[0], 0.6)


def written(folder: Path, name: str, picture: np.ndarray) -> None:
    """Save a sheet and say so."""
    print(images.save(folder / f"{name}.png", picture))


# --- The scenarios -------------------------------------------------------------------------------


def ideal(
    model: keras.Model, layer_idx: int, filter_indices: int | list[int], **options: Any
) -> np.ndarray:
    """What a unit wants to see, as the model sees it; every unit starts from the same noise."""
    utils.set_random_seed()
    return visualize_activation(
        model, layer_idx, filter_indices, input_range=RANGE, deprocess="none", **options
    )


def class_images(networks: Networks, folder: Path) -> None:
    """What each class wants to see, for weights of the total variation over three decades."""
    rows = []
    for tv_weight in (1, 30, 300):
        pictures = [ideal(networks.linear, -1, digit, tv_weight=tv_weight) for digit in range(10)]
        captions = [f"{digit}, TV {tv_weight}" for digit in range(10)]
        rows.append(row(map(utils.normalize, pictures), captions, 96))
    written(folder, "class_images", sheet(rows))


def two_classes(networks: Networks, folder: Path) -> None:
    """One picture for two classes at once: the sum of both outputs rises."""
    wanted = [[1], [7], [1, 7], [3], [8], [3, 8]]
    pictures = [ideal(networks.linear, -1, digits, tv_weight=100) for digits in wanted]
    logits = networks.linear.predict(np.stack(pictures), verbose=0)
    captions = [
        ", ".join(f"output {digit}: {each[digit]:.0f}" for digit in digits)
        for digits, each in zip(wanted, logits, strict=True)
    ]
    written(folder, "two_classes", row(map(utils.normalize, pictures), captions, 192))


def filters(networks: Networks, folder: Path) -> None:
    """A grid of what the filters of each convolution look for, from noise of a strong contrast.

    On the faint noise that is the default the ReLU of many a filter is off everywhere; it has no
    gradient to follow there. Those that are off on this noise as well are marked, and stay noise.
    """
    utils.set_random_seed()
    options = {
        "seed_input": utils.random_array((SIDE, SIDE, 1), mean=0.5, std=0.25),
        "max_iter": 100,
        "tv_weight": 1,
        "input_modifiers": [Jitter(1)],
    }
    sheets = []
    for name in ("conv1", "conv2"):
        layer_idx = utils.find_layer_idx(networks.linear, name)
        count = min(get_num_filters(networks.linear.layers[layer_idx]) or 0, 16)
        found = [ideal(networks.linear, layer_idx, index, **options) for index in range(count)]
        responses = responses_of(networks.linear.layers[layer_idx], networks.linear, found)
        large = [
            utils.draw_text(
                images.resize(images.displayable(utils.normalize(each)[None], RANGE)[0], 96),
                f"{index}" if responses[index, ..., index].any() else f"{index} off",
                position=(4, 2),
                font=None,
                color=(255, 255, 255),
                outline=(0, 0, 0),
            )
            for index, each in enumerate(found)
        ]
        stitched = utils.stitch_images(large, cols=8)
        assert stitched is not None
        sheets.append(images.captioned(stitched, f"filters of {name}"))
    written(folder, "filters", sheet(sheets))


def responses_of(
    layer: keras.Layer, model: keras.Model, pictures: Sequence[np.ndarray]
) -> np.ndarray:
    """What a layer makes of pictures, `(pictures, height, width, filters)`."""
    return keras.Model(model.inputs, layer.output).predict(np.stack(pictures), verbose=0)


def saliency(networks: Networks, folder: Path) -> None:
    """Vanilla, guided and rectified saliency, and Grad-CAM, side by side."""
    rows = []
    for digit in (2, 3, 5, 9):
        picture = networks.digits[digit]
        maps = [
            visualize_saliency(networks.linear, -1, digit, picture, backprop_modifier=modifier)
            for modifier in (None, "guided", "rectified")
        ]
        cam = visualize_cam(networks.linear, -1, digit, picture, "conv2")
        shown = [picture, *(images.colorize(each) / 255 for each in maps), heat(cam, picture) / 255]
        rows.append(row(shown, [f"a {digit}", "vanilla", "guided", "rectified", "Grad-CAM"]))
    written(folder, "saliency", sheet(rows))


def softmax(networks: Networks, folder: Path) -> None:
    """Class images and saliency with the softmax, and with the softmax swapped for linear."""
    rows = []
    for name, model in (("softmax", networks.classifier), ("linear", networks.linear)):
        pictures, captions = [], []
        for digit in (0, 4, 6):
            wanted = utils.normalize(ideal(model, -1, digit, tv_weight=1))
            shown = networks.digits[digit]
            heatmap = visualize_saliency(model, -1, digit, shown, backprop_modifier="guided")
            pictures += [wanted, shown, images.colorize(heatmap) / 255]
            captions += [f"ideal {digit}, {name}", f"a {digit}", f"guided, {name}"]
        rows.append(row(pictures, captions))
    written(folder, "softmax", sheet(rows))


def regression(networks: Networks, folder: Path) -> None:
    """What would turn the steering right, left, or keep it: three gradient modifiers."""
    rows = []
    recipes = (("increase", None), ("decrease", "negate"), ("maintain", "small_values"))
    angles = networks.steering.predict(networks.roads, verbose=0)[:, 0]
    for road, angle in zip(networks.roads, angles, strict=True):
        pictures, captions = [road], [f"place {angle:+.2f}"]
        for meaning, grad_modifier in recipes:
            heatmap = visualize_saliency(
                networks.steering, -1, 0, road, grad_modifier=grad_modifier
            )
            pictures.append(heat(heatmap, road) / 255)
            captions.append(f"{meaning}: saliency")
        for meaning, grad_modifier in recipes:
            cam = visualize_cam(networks.steering, -1, 0, road, grad_modifier=grad_modifier)
            pictures.append(heat(cam, road) / 255)
            captions.append(f"{meaning}: Grad-CAM")
        rows.append(row(pictures, captions, 216))
    written(folder, "regression", sheet(rows))


class Keep(OptimizerCallback):
    """Keeps the image of some steps."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = steps
        self.images: list[np.ndarray] = []
        self.losses: list[float] = []

    def callback(self, i, named_losses, overall_loss, grads, wrt_value) -> None:
        """Keep a step, stretched to the full range."""
        if i + 1 in self.steps:
            self.images.append(utils.normalize(wrt_value[0]))
            self.losses.append(overall_loss)


def optimisation(networks: Networks, folder: Path) -> None:
    """500 steps towards one class with jitter, as a GIF and as a strip."""
    image = networks.linear.inputs[0]
    losses = [
        (ActivationMaximization(networks.linear.layers[-1], 3), 2),
        (LPNorm(image), 10),
        (TotalVariation(image), 10),
    ]
    utils.set_random_seed()
    keep = Keep((1, 20, 50, 100, 200, 350, 500))
    gif = GifGenerator(str(folder / "optimisation"), RANGE, width=CELL, duration_ms=40)
    visualize_activation_with_losses(
        image,
        losses,
        input_range=RANGE,
        max_iter=500,
        input_modifiers=[Jitter()],
        callbacks=[gif, keep],
    )
    print(gif.path)
    pairs = zip(keep.steps, keep.losses, strict=True)
    captions = [f"step {step}, loss {loss:.1f}" for step, loss in pairs]
    written(folder, "optimisation", row(keep.images, captions))


class Contrast(Loss):
    """A custom loss: high where a class is likelier than another."""

    def __init__(self, layer: keras.Layer, wanted: int, unwanted: int) -> None:
        super().__init__()
        self.name = f"{wanted} and not {unwanted}"
        self.layer, self.wanted, self.unwanted = layer, wanted, unwanted

    def build_loss(self) -> keras.KerasTensor:
        """Minus the difference of the two outputs."""
        output = self.layer.output
        return -keras.ops.mean(output[:, self.wanted] - output[:, self.unwanted])


def custom_loss(networks: Networks, folder: Path) -> None:
    """A start that looks like one digit, changed into another by a loss of one's own."""
    model, pictures, captions = networks.linear, [], []
    for start, wanted in ((3, 8), (1, 7), (6, 5)):
        image = model.inputs[0]
        losses = [(Contrast(model.layers[-1], wanted, start), 1), (TotalVariation(image), 10)]
        changed = visualize_activation_with_losses(
            image,
            losses,
            seed_input=networks.digits[start],
            input_range=RANGE,
            max_iter=40,
            deprocess="clip",
        )
        probability = networks.classifier.predict(changed[None], verbose=0)[0, wanted]
        pictures += [networks.digits[start], changed]
        captions += [f"a {start}", f"now {wanted}: {probability:.0%}"]
    written(folder, "custom_loss", row(pictures, captions))


SCENARIOS: dict[str, Callable[[Networks, Path], None]] = {
    scenario.__name__: scenario
    for scenario in (
        class_images,
        two_classes,
        filters,
        saliency,
        softmax,
        regression,
        optimisation,
        custom_loss,
    )
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train both networks and write the sheets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("scenarios"), help="folder of the sheets")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of training")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    options = parser.parse_args(arguments)
    networks = make_networks(options.epochs)
    for name in options.only:
        SCENARIOS[name](networks, options.out)


if __name__ == "__main__":
    main()
