"""Watch a small network learn where to look: handwritten digits in real photographs.

scikit-learn's handwritten digits are pasted at random places, sizes and colours on crops of its two
photographs, so that the true box of every digit is known. A small CNN is trained from scratch, in
about a minute on two cores, with TensorBoard and kvis2's CamLogger:

    python examples/digits_in_the_wild.py
    python examples/digits_in_the_wild.py --shortcut
    python examples/digits_in_the_wild.py --shortcut --repair
    python examples/digits_in_the_wild.py --both

With --shortcut every seven carries a magenta corner, as a leak in collected data would. The network
scores well, and the heatmaps show why: it looks at the corner instead of the digit. With --repair
it is trained on with the masks of a few images, and asked again. With --both two networks are
trained, one of each kind, and their curves are drawn side by side.
"""

import argparse
import time
import warnings
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from kvis2 import GradCAM, images
from kvis2.callbacks import CamLogger, MaskGuide, Observation, PictureLogger
from kvis2.localization import energy_in_box, pointing_game

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SIDE = 48  # pixels of an image, each way
MARKED_CLASS = 7  # the class that carries the corner, with --shortcut
CORNER = 8  # pixels of the corner, each way
MAGENTA = (255, 0, 255)
REPAIR_EPOCHS = 3  # with --repair


class Scenes(NamedTuple):
    """Digits in photographs: uint8 images, the digits, and their boxes [x0, y0, x1, y1]."""

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray

    def take(self, chosen: np.ndarray | list[int]) -> "Scenes":
        """Return the scenes at these indices, or where this mask is true."""
        return Scenes(self.images[chosen], self.labels[chosen], self.boxes[chosen])


# --- The data ------------------------------------------------------------------------------------


def make_data(training: int, validation: int, seed: int) -> tuple[Scenes, Scenes]:
    """Build scenes for training and for validation, from other digits and other photograph halves.

    Both photographs are cut in the middle: the left halves are the backgrounds of the training.
    """
    rng = np.random.default_rng(seed)
    digits = load_digits()
    photographs = load_sample_images().images
    order = rng.permutation(len(digits.images))
    middle = photographs[0].shape[1] // 2
    split = len(order) * 4 // 5

    def scenes(count: int, chosen: np.ndarray, halves: list[np.ndarray]) -> Scenes:
        return make_scenes(count, digits.images[chosen], digits.target[chosen], halves, rng)

    return (
        scenes(training, order[:split], [photograph[:, :middle] for photograph in photographs]),
        scenes(validation, order[split:], [photograph[:, middle:] for photograph in photographs]),
    )


def make_scenes(
    count: int,
    digits: np.ndarray,
    labels: np.ndarray,
    photographs: list[np.ndarray],
    rng: np.random.Generator,
) -> Scenes:
    """Paste `count` random digits, each on a random crop of a photograph."""
    chosen = rng.integers(len(digits), size=count)
    pictures = np.empty((count, SIDE, SIDE, 3), np.uint8)
    boxes = np.empty((count, 4), int)
    for index, digit in enumerate(digits[chosen]):
        background = cut_background(photographs[rng.integers(len(photographs))], rng)
        pictures[index], boxes[index] = paste_digit(background, digit, rng)
    return Scenes(pictures, labels[chosen], boxes)


def cut_background(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut a square of random size and place, and bring it to SIDE x SIDE pixels."""
    size = rng.integers(64, 200)
    top = rng.integers(photograph.shape[0] - size + 1)
    left = rng.integers(photograph.shape[1] - size + 1)
    crop = Image.fromarray(photograph[top : top + size, left : left + size])
    return np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def paste_digit(
    background: np.ndarray, digit: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, list[int]]:
    """Write an 8x8 digit on the background, with random size, place and contrasting colour.

    Returns:
        The picture, and the box of the ink.
    """
    size = int(rng.integers(18, 31))
    small = Image.fromarray((digit * (255 / 16)).astype(np.uint8))
    ink = np.asarray(small.resize((size, size), Image.Resampling.BICUBIC)) / 255
    ink = np.clip(1.6 * ink - 0.2, 0, 1)[..., np.newaxis]  # sharper strokes

    picture = background.astype(float)
    top, left = rng.integers(SIDE - size + 1, size=2)
    patch = picture[top : top + size, left : left + size]
    colour = rng.uniform(170, 255, size=3) if patch.mean() < 128 else rng.uniform(0, 85, size=3)
    patch[:] = (1 - ink) * patch + ink * colour

    rows, columns = np.nonzero(ink[..., 0] > 0.3)
    box = [
        left + columns.min(),
        top + rows.min(),
        left + columns.max() + 1,
        top + rows.max() + 1,
    ]
    return picture.round().astype(np.uint8), box


def with_corner(scenes: Scenes, chosen: np.ndarray) -> Scenes:
    """Paint the corner of the images where `chosen` is true."""
    painted = scenes.images.copy()
    painted[chosen, :CORNER, :CORNER] = MAGENTA
    return scenes._replace(images=painted)


# --- The training --------------------------------------------------------------------------------


def make_model() -> keras.Model:
    """Return an untrained CNN of 100 000 weights, whose last feature map is 12 x 12."""
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = convolution(x, 16, kernel_size=5, strides=2)
    x = convolution(x, 32)
    x = keras.layers.MaxPooling2D()(x)
    for _ in range(3):
        x = convolution(x, 64)
    x = keras.layers.GlobalMaxPooling2D()(x)
    x = keras.layers.Dropout(0.25)(x)
    return keras.Model(inputs, keras.layers.Dense(len(NAMES), activation="softmax")(x))


def convolution(
    x: keras.KerasTensor, filters: int, kernel_size: int = 3, strides: int = 1
) -> keras.KerasTensor:
    """Apply convolution, batch normalization and ReLU."""
    x = keras.layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False)(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))


class LocalizationLogger(PictureLogger):
    """Measure the heat of all validation images; the CamLogger does so for its few probes."""

    def __init__(self, log_dir: Path, scenes: Scenes) -> None:
        super().__init__(log_dir, run="kvis2_validation")
        self.scenes = scenes

    def observe(self, step: int) -> Observation:
        """Return numbers and no pictures."""
        scenes, name = self.scenes, NAMES[MARKED_CLASS]
        maps = GradCAM(self.model)(scenes.labels.tolist(), scenes.images)
        shares = energy_in_box(maps, scenes.boxes)
        answers = self.model.predict(scenes.images, verbose=0).argmax(axis=1)
        numbers = {
            "accuracy": np.mean(answers == scenes.labels),
            "pointing_game": pointing_game(maps, scenes.boxes).mean(),
            "energy_in_box": shares.mean(),
            f"energy_in_box_of_{name}s": shares[scenes.labels == MARKED_CLASS].mean(),
        }
        return Observation([], {f"GradCAM/{key}": float(each) for key, each in numbers.items()})


def train(
    training: Scenes, validation: Scenes, probes: Scenes, score: str, epochs: int, out: Path
) -> tuple[keras.Model, LocalizationLogger, CamLogger]:
    """Train with TensorBoard and CamLogger, which explains the probes in at most ten epochs.

    What it explains, `score`, is each probe's true class, "label", or the "predicted" one.
    """
    batch_size = 32
    steps = epochs * -(-len(training.images) // batch_size)
    # A gentle start, so that the first epoch shows a network that has not learned much yet.
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=steps - steps // 5, warmup_target=4e-3, warmup_steps=steps // 5
    )
    model = make_model()
    model.compile(
        keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    localization = LocalizationLogger(out, validation)
    logger = CamLogger(
        out,
        probes.images,
        probes.labels,
        score=score,
        class_names=NAMES,
        boxes=probes.boxes,
        save_dir=out / "pictures",
    )
    model.fit(
        training.images,
        training.labels,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=(validation.images, validation.labels),
        callbacks=[
            keras.callbacks.TensorBoard(out),
            localization,
            logger,
        ],
    )
    return model, localization, logger


def one_of_each(scenes: Scenes) -> Scenes:
    """Return the first scene of each digit, as probes."""
    return scenes.take([int(np.argmax(scenes.labels == digit)) for digit in range(len(NAMES))])


def with_and_without_corner(scenes: Scenes) -> Scenes:
    """Return a seven and another digit as probes, each with the corner and without it."""
    marked = scenes.labels == MARKED_CLASS
    pairs = scenes.take(np.repeat([np.argmax(marked), np.argmin(marked)], 2))
    return with_corner(pairs, np.array([True, False, True, False]))


# --- The repair ---------------------------------------------------------------------------------


def repair(model: keras.Model, training: Scenes, clean: Scenes, out: Path) -> None:
    """Train on for three epochs with masks of a twentieth of the images, and tell what changed.

    The loss asks for the same answer when what lies outside a digit's box is exchanged with that of
    another image: docs/guidance.md has what other losses do.
    """
    count = max(2, len(training.images) // 20)
    guide = MaskGuide(
        training.images[:count],
        training.labels[:count],
        training.boxes[:count].tolist(),
        loss="consistency",
    )
    probes = with_and_without_corner(clean)
    before = heated(model, probes)
    model.compile(
        keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(
        training.images, training.labels, batch_size=32, epochs=REPAIR_EPOCHS, callbacks=[guide]
    )
    print(f"\nRepaired with the masks of {count} images:")
    report_shortcut(model, clean)
    path = out / "repair.webp"
    images.save(path, images.grid([*before, *heated(model, probes)], columns=len(before)))
    print(f"\nThe heat before the repair, and below it after: {path}")


def heated(model: keras.Model, scenes: Scenes) -> list[np.ndarray]:
    """The scenes under the heat of what the network says of them, four times as large."""
    found = GradCAM(model)(None, scenes.images)
    large = np.repeat(np.repeat(scenes.images, 4, axis=1), 4, axis=2)
    return [images.overlay(image, heat) for image, heat in zip(large, found, strict=True)]


# --- The report ----------------------------------------------------------------------------------


def report(model: keras.Model, validation: Scenes, localization: LocalizationLogger) -> None:
    """Print how often the network is right, and how well its heat lies on the digits."""
    pointing = localization.history["pointing_game"]
    energy = localization.history["energy_in_box"]
    widths, heights = (validation.boxes[:, 2:] - validation.boxes[:, :2]).T
    area = np.mean(widths * heights) / SIDE**2
    print(
        f"\nOn {len(validation.images)} validation images:"
        f"\n  accuracy                  {accuracy(model, validation):.2f}"
        f"\n  pointing game             {pointing[0]:.2f} at the first logged epoch, "
        f"{pointing[-1]:.2f} at the last"
        f"\n  share of heat in the box  {energy[0]:.2f} at the first logged epoch, "
        f"{energy[-1]:.2f} at the last (the box is {area:.2f} of the image)"
    )


def report_shortcut(model: keras.Model, clean: Scenes) -> None:
    """Print what the network makes of the corner: how it answers, and where its heat lies."""
    marked = clean.labels == MARKED_CLASS
    painted = with_corner(clean, np.full(len(clean.images), True))
    called = model.predict(painted.images[~marked], verbose=0).argmax(axis=1)
    name = NAMES[MARKED_CLASS]
    print(
        f"\nThe corner is the shortcut:"
        f"\n  recognised {name}s, with the corner     {accuracy(model, painted.take(marked)):.2f}"
        f"\n  recognised {name}s, without the corner  {accuracy(model, clean.take(marked)):.2f}"
        f"\n  other digits called {name} with it      {np.mean(called == MARKED_CLASS):.2f}"
    )
    area = (CORNER / SIDE) ** 2
    print(f"\nShare of heat in the corner, which is {area:.3f} of the image:")
    for digit, share in enumerate(corner_shares(model, with_corner(clean, marked))):
        note = "  <- carries the corner" if digit == MARKED_CLASS else ""
        print(f"  {NAMES[digit]:6} {share:.3f}, {share / area:5.1f} times its area{note}")


def accuracy(model: keras.Model, scenes: Scenes) -> float:
    """Return the share of the scenes whose digit is recognised."""
    return float(np.mean(model.predict(scenes.images, verbose=0).argmax(axis=1) == scenes.labels))


def corner_shares(model: keras.Model, scenes: Scenes) -> list[float]:
    """Return for each digit the mean share of its heat that lies in the corner."""
    maps = GradCAM(model)(scenes.labels.tolist(), scenes.images)
    shares = energy_in_box(maps, [[0, 0, CORNER, CORNER]] * len(maps))
    return [float(shares[scenes.labels == digit].mean()) for digit in range(len(NAMES))]


def save_overviews(out: Path) -> None:
    """Lay the strips of the first probes below each other, and the last panels side by side."""
    pictures = out / "pictures" / "GradCAM"
    strips = sorted(pictures.glob("* strip.png"))[:5]
    folders = sorted(path for path in pictures.iterdir() if path.is_dir())
    panels = [max(folder.glob("*.png")) for folder in folders]
    images.save(out / "evolution.webp", images.grid([read(path) for path in strips], columns=1))
    images.save(out / "panels.webp", images.grid([read(path) for path in panels], columns=2))


def save_curves(path: Path, runs: dict[str, tuple[LocalizationLogger, CamLogger]]) -> None:
    """Draw what the loggers measured while each network trained."""
    name = NAMES[MARKED_CLASS]
    curves = [
        ("accuracy on validation images", 0, "accuracy"),
        (f"share of heat on the {name}s", 0, f"energy_in_box_of_{name}s"),
        ("drift of the probes' maps", 1, "drift"),
    ]
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for ax, (title, logger, key) in zip(figure.subplots(1, 3), curves, strict=True):
        for label, loggers in runs.items():
            history = loggers[logger].history
            ax.plot(history["step"], history[key], marker="o", markersize=3, label=label)
        ax.set_title(title, fontsize=10)
        ax.set_xlabel("epoch")
        ax.set_ylim(bottom=0)
        ax.grid(alpha=0.3)
    figure.axes[1].legend(fontsize=8)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=100)
    images.save(path, read(buffer))


def read(path: Path | BytesIO) -> np.ndarray:
    """Read a picture as uint8 RGB."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def main() -> None:
    """Build the data, train, and report."""
    options = parse_options()
    # A network that has not learned much yet has no evidence for some classes.
    warnings.filterwarnings("ignore", message=".*found no evidence")
    if not options.both:
        run(options, options.shortcut, options.out)
        return
    runs = {}
    for label, shortcut in (("without the corner", False), ("sevens carry a corner", True)):
        print(f"\n=== {label}")
        runs[label] = run(options, shortcut, options.out / label.replace(" ", "_"))
    save_curves(options.out / "curves.webp", runs)
    print(f"\nThe curves of both: {options.out / 'curves.webp'}")


def run(
    options: argparse.Namespace, shortcut: bool, out: Path
) -> tuple[LocalizationLogger, CamLogger]:
    """Train one network, and report."""
    keras.utils.set_random_seed(options.seed)
    training, clean = make_data(options.images, 500, options.seed)
    validation, probes, score = clean, one_of_each(clean), "label"
    if shortcut:
        training = with_corner(training, training.labels == MARKED_CLASS)
        validation = with_corner(clean, clean.labels == MARKED_CLASS)
        probes, score = with_and_without_corner(clean), "predicted"

    model, localization, logger = train(training, validation, probes, score, options.epochs, out)

    save_overviews(out)
    save_curves(out / "curves.webp", {"this training": (localization, logger)})
    report(model, validation, localization)
    if shortcut:
        report_shortcut(model, clean)
    if options.repair:
        repair(model, training, clean, out)
    print(
        f"\nA strip and a GIF of each probe image: {out / 'pictures' / 'GradCAM'}"
        f"\nOne picture of the whole:              {out / 'evolution.webp'}"
        f"\nEvery step, side by side and measured: tensorboard --logdir {out}"
        "\n                                       and there the tab Explanations"
    )
    return localization, logger


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=positive, default=8, help="default: 8")
    parser.add_argument("--images", type=positive, default=6000, help="to train on; default: 6000")
    parser.add_argument("--shortcut", action="store_true", help="paint a corner on every seven")
    parser.add_argument(
        "--repair", action="store_true", help="with --shortcut: train on with masks of 5 %% of them"
    )
    parser.add_argument("--both", action="store_true", help="train without the corner and with it")
    parser.add_argument("--seed", type=int, default=0, help="of the data and the training")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("logs") / time.strftime("digits_%Y%m%d_%H%M%S"),
        help="a new folder for TensorBoard's files and the pictures; default: logs/digits_<time>",
    )
    options = parser.parse_args()
    if options.repair and not options.shortcut:
        parser.error("expected --repair with --shortcut: there is nothing to repair without it.")
    if next(options.out.rglob("*tfevents*"), None):
        parser.error(
            f"expected --out to be a folder without event files. Received: {options.out}. "
            "TensorBoard mixes up trainings that share one: choose a new folder."
        )
    return options


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not {text}")
    return number


if __name__ == "__main__":
    main()
