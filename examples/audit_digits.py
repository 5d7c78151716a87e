"""What `kvis2.audit` finds and what it misses, on digits with shortcuts that we plant ourselves.

    python examples/audit_digits.py --output docs

Trains the network of digits_in_the_wild.py for each kind of shortcut and each seed, audits 2,000
held-out pictures collected the same way, and writes `audit.csv` and the table of `audit.md` if that
is beside it. Rows that are there are kept, so a run that was broken off goes on.
"""

import argparse
import csv
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from digits_in_the_wild import (
    CORNER,
    MAGENTA,
    MARKED_CLASS,
    NAMES,
    SIDE,
    Scenes,
    make_data,
    make_model,
    with_corner,
)

from kvis2 import audit
from kvis2.shortcuts import Audit

FIELDS = [
    *("kind", "seed", "accuracy", "suspects", "stands_out", "lift", "excess", "by_chance", "lost"),
    *("others_lost", "flips", "control_flips", "largest_other_lift", "seconds", "first_group"),
]
"""Of class seven: lift to control_flips; of the audit: the rest."""


START, END = "<!-- made by examples/audit_digits.py -->", "<!-- end -->"


def without(scenes: Scenes, rng: np.random.Generator) -> Scenes:
    """No shortcut."""
    return scenes


def corner(scenes: Scenes, rng: np.random.Generator) -> Scenes:
    """A magenta corner on every seven."""
    return with_corner(scenes, scenes.labels == MARKED_CLASS)


def corner_on_some(scenes: Scenes, rng: np.random.Generator) -> Scenes:
    """A magenta corner on 30 % of the sevens."""
    return with_corner(
        scenes, (scenes.labels == MARKED_CLASS) & (rng.random(len(scenes.labels)) < 0.3)
    )


def corner_on_two_classes(scenes: Scenes, rng: np.random.Generator) -> Scenes:
    """A magenta corner on every seven and every two."""
    return with_corner(scenes, np.isin(scenes.labels, (MARKED_CLASS, 2)))


def watermark(scenes: Scenes, rng: np.random.Generator) -> Scenes:
    """A magenta square on every seven, at a random place."""
    painted = scenes.images.copy()
    for index in np.flatnonzero(scenes.labels == MARKED_CLASS):
        top, left = rng.integers(SIDE - CORNER + 1, size=2)
        painted[index, top : top + CORNER, left : left + CORNER] = MAGENTA
    return scenes._replace(images=painted)


KINDS = {
    "none": without,
    "corner": corner,
    "corner on 30 %": corner_on_some,
    "corner on two classes": corner_on_two_classes,
    "watermark anywhere": watermark,
}


def trained(scenes: Scenes, epochs: int) -> keras.Model:
    """The network of the demo, trained as there."""
    model = make_model()
    steps = epochs * -(-len(scenes.images) // 32)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps=steps - steps // 5, warmup_target=4e-3, warmup_steps=steps // 5
    )
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(scenes.images, scenes.labels, batch_size=32, epochs=epochs, verbose=0)
    return model


def measured(kind: str, seed: int, options: argparse.Namespace) -> tuple[dict[str, Any], Audit]:
    """One training, one audit, one row."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    training, held_out = make_data(options.images, options.audited, seed)
    model = trained(KINDS[kind](training, rng), options.epochs)
    scenes = KINDS[kind](held_out, rng)
    answers = model.predict(scenes.images, verbose=0).argmax(axis=1)
    start = time.perf_counter()
    found = audit(model, scenes.images, scenes.labels, boxes=scenes.boxes, names=NAMES, seed=seed)
    seconds = time.perf_counter() - start
    marked = next(each for each in found.findings if each.label == MARKED_CLASS)
    cause = marked.causes
    group = found.groups[0]
    return {
        "kind": kind,
        "seed": seed,
        "accuracy": f"{np.mean(answers == scenes.labels):.3f}",
        "suspects": " ".join(each.name for each in found.suspects) or "-",
        "stands_out": " ".join(each.name for each in found.findings if each.causes) or "-",
        **{key: f"{getattr(marked.place, key):.2f}" for key in ("lift", "excess", "by_chance")},
        **{
            key: "-" if cause is None else f"{getattr(cause, key).value:.2f}"
            for key in ("lost", "others_lost", "flips", "control_flips")
        },
        "largest_other_lift": f"{max(f.place.lift for f in found.findings if f is not marked):.2f}",
        "seconds": f"{seconds:.1f}",
        "first_group": f"{NAMES[group.label]} {group.stands_out:.2f}",
    }, found


def filled(page: str, rows: Sequence[dict[str, Any]]) -> str:
    """The page with the table of these rows between its marks."""
    heads = ("planted", "seed", "suspects", "lift", "lost", "others lose", "flips", "of a control",
             "largest other lift", "first group")  # fmt: skip
    keys = ("kind", "seed", "suspects", "lift", "lost", "others_lost", "flips", "control_flips",
            "largest_other_lift", "first_group")  # fmt: skip
    ordered = sorted(rows, key=lambda row: (list(KINDS).index(row["kind"]), int(row["seed"])))
    lines = [heads, ["---"] * len(heads), *([str(row[key]) for key in keys] for row in ordered)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    before, rest = page.split(START)
    return f"{before}{START}\n{table}\n{END}{rest.split(END)[1]}"


def main() -> None:
    """Measure what is not in the table yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=6000, help="to train on")
    parser.add_argument("--audited", type=int, default=2000, help="held-out pictures")
    parser.add_argument("--output", type=Path, default=Path("logs"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*found no evidence")
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "audit.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    done = {(row["kind"], int(row["seed"])) for row in rows}
    for seed in options.seeds:
        for kind in options.kinds:
            if (kind, seed) in done:
                continue
            row, found = measured(kind, seed, options)
            rows.append(row)
            print(f"\n{kind}, seed {seed}\n{found}", flush=True)
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                writer.writeheader()
                writer.writerows(rows)
    page = options.output / "audit.md"
    if page.exists():
        page.write_text(filled(page.read_text(), rows))


if __name__ == "__main__":
    main()
