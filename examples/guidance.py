"""Repair a network that looks at the wrong thing: which loss on masks changes what it does?

The network of digits_in_the_wild.py --shortcut says "seven" to a magenta corner. It is trained on
for some epochs, with masks of a few per cent of its images and one loss of
`kvis2.callbacks.MaskGuide` at a time, and asked again: about sevens without the corner, about other
digits with it, and where its heat is. The page docs/guidance.md has the table of three seeds:

    python examples/guidance.py --seeds 0 1 2 --page docs/guidance.md
"""

import argparse
import json
from pathlib import Path

import digits_in_the_wild as digits
import keras
import numpy as np

from kvis2 import GradCAM
from kvis2.callbacks import MaskGuide
from kvis2.localization import energy_in_box, pointing_game

LOSSES = {
    "none (control)": None,
    "energy, 3": ("energy", 3.0),
    "gradients, 0.0005": ("gradients", 0.0005),
    "swap, 1": ("swap", 1.0),
    "consistency, 1": ("consistency", 1.0),
    "swap and consistency, 1": (["swap", "consistency"], 1.0),
}
COLUMNS = {
    "with": "sevens with the corner",
    "without": "sevens without it",
    "flips": "others that become sevens",
    "others": "accuracy of others",
    "pointing": "pointing game on sevens",
    "energy": "heat on sevens",
}


def compiled(model: keras.Model) -> keras.Model:
    """The model with an optimizer of its own, as every repair begins."""
    model.compile(
        keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def trained(training: digits.Scenes, epochs: int) -> keras.Model:
    """The network with the shortcut."""
    model = compiled(digits.make_model())
    model.optimizer.learning_rate = 4e-3
    model.fit(training.images, training.labels, batch_size=32, epochs=epochs, verbose=0)
    return model


def figures(model: keras.Model, clean: digits.Scenes) -> dict[str, float]:
    """What it answers with the corner and without it, and where its heat is."""
    sevens = clean.labels == digits.MARKED_CLASS
    painted = digits.with_corner(clean, np.full(len(clean.images), True))
    called = model.predict(painted.images[~sevens], verbose=0).argmax(axis=1)
    marked = painted.take(sevens)
    maps = GradCAM(model)(marked.labels.tolist(), marked.images)
    return {
        "with": digits.accuracy(model, marked),
        "without": digits.accuracy(model, clean.take(sevens)),
        "flips": float(np.mean(called == digits.MARKED_CLASS)),
        "others": digits.accuracy(model, clean.take(~sevens)),
        "pointing": float(pointing_game(maps, marked.boxes).mean()),
        "energy": float(energy_in_box(maps, marked.boxes).mean()),
    }


def repaired(
    weights: list[np.ndarray],
    training: digits.Scenes,
    loss: tuple | None,
    share: float,
    epochs: int,
) -> keras.Model:
    """The network after some epochs more, with one loss on the masks of a share of its images."""
    keras.utils.set_random_seed(0)
    model = compiled(digits.make_model())
    model.set_weights(weights)
    count = max(2, round(share * len(training.images)))
    guides = []
    if loss is not None:
        name, weight = loss
        guides.append(
            MaskGuide(
                training.images[:count],
                training.labels[:count],
                training.boxes[:count].tolist(),
                loss=name,
                weight=weight,
            )
        )
    model.fit(
        training.images, training.labels, batch_size=32, epochs=epochs, verbose=0, callbacks=guides
    )
    return model


def experiment(seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """All losses on one network."""
    keras.utils.set_random_seed(seed)
    training, clean = digits.make_data(options.images, 1200, seed)
    training = digits.with_corner(training, training.labels == digits.MARKED_CLASS)
    base = trained(training, options.epochs)
    found = {"before": figures(base, clean)}
    for name, loss in LOSSES.items():
        model = repaired(base.get_weights(), training, loss, options.share, options.repair_epochs)
        found[name] = figures(model, clean)
        print(seed, name, json.dumps({k: round(v, 2) for k, v in found[name].items()}), flush=True)
    return found


def table(runs: list[dict[str, dict[str, float]]]) -> str:
    """Means over the seeds, and in brackets each of them."""
    lines = [
        "| loss, weight | " + " | ".join(COLUMNS.values()) + " |",
        "| --- " * (1 + len(COLUMNS)) + "|",
    ]
    for name in runs[0]:
        cells = []
        for key in COLUMNS:
            values = [run[name][key] for run in runs]
            each = ", ".join(f"{value:.2f}" for value in values)
            cells.append(f"{np.mean(values):.2f} ({each})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Train, repair, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", type=int, default=6000, help="to train on; default: 6000")
    parser.add_argument("--epochs", type=int, default=8, help="before the repair; default: 8")
    parser.add_argument("--repair-epochs", type=int, default=3, help="default: 3")
    parser.add_argument("--share", type=float, default=0.05, help="of images with masks")
    parser.add_argument("--page", type=Path, help="put the table between the page's markers")
    options = parser.parse_args()
    found = table([experiment(seed, options) for seed in options.seeds])
    print(found)
    if options.page:
        start, end = "<!-- table -->", "<!-- end of table -->"
        text = options.page.read_text(encoding="utf-8")
        before, after = text.split(start)[0], text.split(end)[1]
        options.page.write_text(f"{before}{start}\n{found}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
