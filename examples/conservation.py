"""How much of the score LRP hands down to the pixels, and how much biases take, by composite.

    python examples/conservation.py --model lite0.keras --photographs folder --page docs/trust.md

Without a model the small network of two_photographs.py is measured. The table is written between
the marks of the page, if one is given.
"""

import argparse
from pathlib import Path

import keras
import numpy as np
import two_photographs
from PIL import Image

from kvis2 import LRP, images
from kvis2.lrp import (
    Composite,
    Epsilon,
    EpsilonAlpha2Beta1,
    EpsilonPlus,
    EpsilonPlusFlat,
    GammaEverywhere,
)

START, END = "<!-- conservation made by examples/conservation.py -->", "<!-- end -->"
COMPOSITES = {
    "`EpsilonPlusFlat()`, the default": EpsilonPlusFlat(),
    "`EpsilonPlus()`": EpsilonPlus(),
    "`EpsilonAlpha2Beta1()`": EpsilonAlpha2Beta1(),
    "`GammaEverywhere()`": GammaEverywhere(),
    "`Composite(Epsilon(1e-9))`": Composite(Epsilon(1e-9)),
}


def measured(model: keras.Model, photographs: np.ndarray) -> str:
    """A table of the conservation error and the share of the biases, mean and range."""
    lines = ["| composite | `conservation_error` | `bias_share` |", "| --- | --- | --- |"]
    for name, composite in COMPOSITES.items():
        lrp = LRP(model, composite)
        lrp(None, photographs)
        cells = [
            f"{each.mean():.4f} ({each.min():.4f} to {each.max():.4f})"
            for each in (lrp.conservation_error, lrp.bias_share)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def read(folder: Path, side: int) -> np.ndarray:
    """The first six photographs of a folder, by name."""
    files = sorted([*folder.glob("*.jpg"), *folder.glob("*.png")])[:6]
    opened = [Image.open(file).convert("RGB").resize((side, side)) for file in files]
    return np.stack([np.asarray(each, np.float32) for each in opened])


def main() -> None:
    """Measure, print, and write into the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    if options.model is None:
        model = two_photographs.trained()
        photographs = images.resize(two_photographs.both(), two_photographs.SIDE)[None]
    else:
        model = keras.saving.load_model(options.model, compile=False)
        photographs = read(options.photographs, model.input_shape[1])
    table = measured(model, photographs)
    print(table)
    if options.page is not None:
        before, rest = options.page.read_text(encoding="utf-8").split(START, 1)
        after = rest.split(END, 1)[1]
        options.page.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
