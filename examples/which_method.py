"""Which method for this model? Compare explainers on photographs with boxes, and write a page.

Without arguments the network of digits_in_the_wild.py is trained, and compared on its digits. With
a classifier of ImageNet, and a folder of photographs with a file boxes.json, docs/which_method.md
with its picture and the tables of docs/metrics.md and docs/methods.md are made anew:

    python examples/which_method.py --model lite0.keras --photographs folder --output docs

--quick takes three photographs and few steps, to see that it runs.
"""

import argparse
import functools
import json
import warnings
from pathlib import Path

import digits_in_the_wild
import keras
import numpy as np
from PIL import Image

import kvis2
from kvis2 import metrics

START, END = "<!-- made by examples/which_method.py -->", "<!-- end -->"


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a .keras file; needs --photographs")
    parser.add_argument("--photographs", type=Path, help="folder with images and boxes.json")
    parser.add_argument("--output", type=Path, default=Path("which_method"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if (options.model is None) != (options.photographs is None):
        parser.error("expected --model and --photographs together, or none of them")
    return options


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


def digits(count: int, quick: bool) -> tuple[keras.Model, np.ndarray, list, list, list]:
    """A network trained on digits in photographs, and images, classes, boxes and names of some."""
    keras.utils.set_random_seed(0)
    training, others = digits_in_the_wild.make_data(500 if quick else 6000, count, seed=0)
    model = digits_in_the_wild.make_model()
    model.compile(keras.optimizers.Adam(4e-3), "sparse_categorical_crossentropy")
    model.fit(training.images, training.labels, epochs=1 if quick else 6, verbose=0)
    names = [digits_in_the_wild.NAMES[label] for label in others.labels]
    boxes = [[box] for box in others.boxes.tolist()]
    return model, others.images.astype(np.float32), others.labels.tolist(), boxes, names


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
    most = 3 if options.quick else None
    if options.model is None:
        model, images, labels, boxes, names = digits(most or 15, options.quick)
    else:
        model = keras.saving.load_model(options.model, compile=False)
        images, labels, boxes, names = photographs(options.photographs, model.input_shape[1], most)
    made = explainers(model, options.quick)
    if options.model is None:
        del made["CAM"]  # The network ends in a global maximum, and not in a mean.
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
