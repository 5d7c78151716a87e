"""Which method for this model? Compare explainers on photographs with boxes, and write a page.

Without arguments the ImageNet classifier and all photographs in ../shared/data are used, and
docs/which_method.md with its picture and the tables of docs/metrics.md and docs/methods.md are
made anew:

    python examples/which_method.py --output docs

--quick takes three photographs and few steps, to see that it runs.
"""

import argparse
import functools
import json
import warnings
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import kvis2
from kvis2 import metrics

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
START, END = "<!-- made by examples/which_method.py -->", "<!-- end -->"


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DATA / "efficientnet_lite0.keras")
    parser.add_argument("--photographs", type=Path, default=DATA)
    parser.add_argument("--output", type=Path, default=Path("which_method"))
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def explainers(model: keras.Model, quick: bool) -> dict[str, kvis2.Explainer]:
    """The methods that are compared, by their names in the tables."""
    guided = [kvis2.LinearOutput(), kvis2.GuidedReLU(activations=("relu", "relu6"))]
    few = 3 if quick else 10
    return {
        "CAM": kvis2.CAM(model),
        "Grad-CAM": kvis2.GradCAM(model),
        "Grad-CAM++": kvis2.GradCAMPlusPlus(model),
        "LayerCAM": kvis2.LayerCAM(model),
        "Eigen-CAM": kvis2.EigenCAM(model),
        "Saliency": kvis2.Saliency(model),
        "guided": kvis2.Saliency(model, model_modifier=guided),
        "SmoothGrad": kvis2.SmoothGrad(kvis2.Saliency(model), samples=few),
        "input x gradient": kvis2.InputXGradient(model),
        "integrated gradients": kvis2.IntegratedGradients(model, steps=few),
        "LRP": kvis2.LRP(model),
    }


def photographs(folder: Path, size: int, most: int | None) -> tuple[np.ndarray, list, list, list]:
    """Images in 0..255, the class that each shows best, its boxes, and its name."""
    found: list[tuple[np.ndarray, int, list, str]] = []
    for each in json.loads((folder / "boxes.json").read_text())["images"]:
        target = max(each["objects"], key=lambda shown: shown["p"])
        picture = Image.open(folder / each["file"]).convert("RGB")
        scale = np.array([size / picture.width, size / picture.height] * 2)
        pixels = np.asarray(picture.resize((size, size), Image.BICUBIC), np.float32)
        boxes = [np.minimum(np.array(box) * scale, size).tolist() for box in target["boxes"]]
        found.append((pixels, target["class"], boxes, f"{each['id']}: {target['name']}"))
    chosen = found[:most]
    return np.stack([each[0] for each in chosen]), *(
        [each[i] for each in chosen] for i in (1, 2, 3)
    )


def measures(model: keras.Model, quick: bool) -> dict[str, object]:
    """What is measured, by the names of the tables."""
    steps = 4 if quick else 10
    fractions = (0.5,) if quick else (0.3, 0.7)
    return {
        "deletion": metrics.Deletion(model, steps=steps),
        "insertion": metrics.Insertion(model, steps=steps, baseline="blur"),
        "ROAD": metrics.Road(model, fractions=fractions),
        "average drop": metrics.AverageDrop(model, baseline="mean"),
        "random logit": metrics.RandomLogit,
        "sparseness": metrics.sparseness,
        "energy in box": metrics.energy_in_box,
        "pointing game": functools.partial(metrics.pointing_game, tolerance=8),
        "relevance rank": metrics.relevance_rank,
        "localization AUC": metrics.localization_auc,
    }


def sanity(
    model: keras.Model, made: dict[str, kvis2.Explainer], images: np.ndarray, labels: list[int]
) -> str:
    """A table of parameter randomisation: the similarity after some and after all layers."""
    lines = [
        "| method | top 25 % random | top 50 % | all random | SSIM, all random |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, explainer in made.items():
        ranks = metrics.ParameterRandomization(explainer, stages=4)(labels, images)
        windows = metrics.ParameterRandomization(explainer, stages=1, similarity="ssim")
        alike = windows(labels, images).mean()
        after = ranks.curve.mean(axis=0)
        shown = [after[0], after[(len(after) - 1) // 2], after[-1], alike]
        lines.append(f"| {name} | " + " | ".join(f"{each:.2f}" for each in shown) + " |")
    return "\n".join(lines)


def put(path: Path, key: str, text: str) -> None:
    """Write text between the marks of `key` in a page; one that is not there is made of it."""
    start, end = START.replace("made", f"{key} made"), END
    page = path.read_text(encoding="utf-8") if path.exists() else f"{start}\n{end}\n"
    if start not in page:
        page += f"\n{start}\n{end}\n"
    before, rest = page.split(start, 1)
    after = rest.split(end, 1)[1]
    path.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Compare, and write what was found."""
    options = arguments()
    model = keras.saving.load_model(options.model, compile=False)
    most = 3 if options.quick else None
    images, labels, boxes, names = photographs(options.photographs, model.input_shape[1], most)
    made = explainers(model, options.quick)
    chosen = measures(model, options.quick)
    warnings.filterwarnings("ignore", message=".*found no evidence")
    found = metrics.compare(model, made, images, labels, boxes, chosen)
    print(found, flush=True)
    pictures = options.output / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    found.plot(images=len(images)).savefig(pictures / "which_method.webp", dpi=70)
    found.to_csv(options.output / "which_method.csv")
    shown = "\n".join(f"- {name}" for name in names)
    put(options.output / "which_method.md", "numbers", found.to_markdown())
    put(options.output / "which_method.md", "photographs", shown)
    put(options.output / "metrics.md", "numbers", found.to_markdown())
    checks = sanity(model, made, images[:6], labels[:6])
    print(checks)
    put(options.output / "methods.md", "checks", checks)


if __name__ == "__main__":
    main()
