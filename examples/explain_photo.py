"""Explain one photograph with every method of kvis2, on one sheet.

With a model and a photograph of your own (the model takes RGB in 0..255, as keras.applications
models with their preprocessing inside do; see --scale for others):

    python examples/explain_photo.py --model my_model.keras --image photo.jpg --output sheet.png

Without, a small network learns to tell a temple from a flower, and both are in the photograph (see
two_photographs.py; it needs scikit-learn). --quick takes fewer samples, masks and windows, and a
minute in the place of several; --only takes some of the methods.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import two_photographs
from PIL import Image

import kvis2
from kvis2 import images

COLUMNS = 6
WIDTH = 180  # pixels of one picture


class Method(NamedTuple):
    """One picture of the sheet: its caption, the explainer, and whether it marks single pixels."""

    caption: str
    explainer: kvis2.Explainer
    marks_pixels: bool


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a .keras file; default: a small network")
    parser.add_argument("--image", type=Path, help="default: half a temple and half a flower")
    parser.add_argument("--label", type=int, help="class to explain; default: the predicted one")
    parser.add_argument("--output", type=Path, default=Path("methods.png"))
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies RGB in 0..255")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--small", action="store_true", help="256 colours: a third of the bytes")
    parser.add_argument("--only", nargs="+", metavar="CAPTION", help='such as "Grad-CAM" LRP')
    return parser.parse_args()


def load_photo(path: Path | None, model: keras.Model) -> np.ndarray:
    """The photograph as uint8 RGB in the size that the model takes."""
    height, width = (side or 224 for side in model.input_shape[1:3])
    photo = Image.fromarray(two_photographs.both()) if path is None else Image.open(path)
    return np.asarray(photo.convert("RGB").resize((width, height), Image.BICUBIC))


def load_model(path: Path | None) -> keras.Model:
    """The model of a file, or the small one."""
    if path is None:
        return two_photographs.trained()
    return keras.saving.load_model(path, compile=False)


def spatial_layers(model: keras.Model) -> list[str]:
    """The last feature map of each size, from large to small: where LayerCAM fuses."""
    last = {}
    for layer in model.layers:
        shape = getattr(layer, "output", None) is not None and layer.output.shape
        is_map = shape and len(shape) == 4 and min(shape[1:3]) > 1
        if is_map and not isinstance(layer, keras.layers.InputLayer):
            last[tuple(shape[1:3])] = layer.name
    return list(last.values())[-3:]


def methods(model: keras.Model, grey: float, quick: bool) -> list[Method]:
    """Every method of kvis2 that fits a convolutional network, with sensible parameters."""
    few = {"max_channels": 32 if quick else 128}
    samples = 8 if quick else 25
    masks = 100 if quick else 800
    fused = spatial_layers(model)
    guided = [kvis2.LinearOutput(), kvis2.GuidedReLU()]
    deconvolved = [kvis2.LinearOutput(), kvis2.DeconvReLU()]
    saliency = kvis2.Saliency(model)
    integrated = kvis2.IntegratedGradients(model, baseline="blur", steps=10 if quick else 30)

    def cam(caption: str, explainer: kvis2.Explainer) -> Method:
        return Method(caption, explainer, marks_pixels=False)

    def pixels(caption: str, explainer: kvis2.Explainer) -> Method:
        return Method(caption, explainer, marks_pixels=True)

    return [
        cam("CAM", kvis2.CAM(model)),
        cam("Grad-CAM", kvis2.GradCAM(model)),
        cam("Grad-CAM++", kvis2.GradCAMPlusPlus(model)),
        cam("Smooth Grad-CAM++", kvis2.SmoothGradCAMPlusPlus(model, samples=samples)),
        cam("XGrad-CAM", kvis2.XGradCAM(model)),
        cam("HiResCAM", kvis2.HiResCAM(model)),
        cam("LayerCAM", kvis2.LayerCAM(model)),
        cam(f"LayerCAM, {len(fused)} layers", kvis2.LayerCAM(model, layers=fused, scale=2.0)),
        cam("Score-CAM", kvis2.ScoreCAM(model, **few)),
        cam("Ablation-CAM", kvis2.AblationCAM(model, **few)),
        cam("Eigen-CAM", kvis2.EigenCAM(model)),
        cam("Eigen-Grad-CAM", kvis2.EigenGradCAM(model)),
        cam("Recipro-CAM", kvis2.ReciproCAM(model)),
        cam("ShapleyCAM", kvis2.ShapleyCAM(model)),
        cam("Opti-CAM", kvis2.OptiCAM(model, steps=20 if quick else 100)),
        cam("FEM", kvis2.FEM(model)),
        cam("Seg-XRes-CAM", kvis2.SegXResCAM(model)),
        cam("FullGrad", kvis2.FullGrad(model)),
        cam("Occlusion", kvis2.Occlusion(model, value=grey, window=40, stride=20 if quick else 14)),
        cam("RISE", kvis2.RISE(model, value=grey, samples=masks)),
        cam("Extremal mask", kvis2.ExtremalMask(model, area=0.15, steps=40 if quick else 100)),
        pixels("Saliency", saliency),
        pixels("Saliency, guided", kvis2.Saliency(model, model_modifier=guided)),
        pixels("Saliency, deconv", kvis2.Saliency(model, model_modifier=deconvolved)),
        pixels("Guided Grad-CAM", kvis2.GuidedGradCAM(model)),
        pixels("SmoothGrad", kvis2.SmoothGrad(saliency, samples)),
        pixels("SmoothGrad squared", kvis2.SmoothGradSquared(saliency, samples)),
        pixels("VarGrad", kvis2.VarGrad(saliency, samples)),
        pixels("Input x gradient", kvis2.InputXGradient(model)),
        pixels("Integrated gradients", integrated),
        pixels(
            "Expected gradients",
            kvis2.ExpectedGradients(model, baseline=[0.0, grey, 2 * grey], samples=2 * samples),
        ),
        pixels("IDGI", kvis2.IDGI(model, baseline="blur", steps=10 if quick else 30)),
        pixels("Guided IG", kvis2.GuidedIG(model, baseline=grey, steps=10 if quick else 50)),
        pixels("Blur IG", kvis2.BlurIG(model, steps=10 if quick else 50)),
        cam("Layer conductance", kvis2.LayerConductance(model, steps=10 if quick else 30)),
        pixels("LRP", kvis2.LRP(model)),
    ]


def chosen(offered: list[Method], captions: list[str] | None) -> list[Method]:
    """The methods with these captions, all without."""
    unknown = set(captions or ()) - {method.caption for method in offered}
    if unknown:
        raise SystemExit(
            f"Expected --only with captions of the sheet. Received: {', '.join(sorted(unknown))}. "
            f"There are: {', '.join(method.caption for method in offered)}."
        )
    return [method for method in offered if captions is None or method.caption in captions]


def painted(photo: np.ndarray, heatmap: np.ndarray, marks_pixels: bool) -> np.ndarray:
    """A CAM over the photograph; single pixels by themselves, or they would not be seen."""
    if not marks_pixels:
        return images.overlay(photo, heatmap)
    limit = np.percentile(np.abs(heatmap), 99.5)
    clipped = np.clip(heatmap / limit, -1, 1)
    return images.colorize(clipped, "seismic" if heatmap.min() < 0 else "gray")


def timed(explain: Callable[..., np.ndarray], *args: object) -> tuple[np.ndarray, float]:
    """What `explain` returns, and the seconds that it took, tracing included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # guided gradients say what they left alone
        start = time.perf_counter()
        result = explain(*args)
        return result, time.perf_counter() - start


def sheet(pictures: list[np.ndarray], captions: list[str]) -> np.ndarray:
    """All pictures in rows, each with its caption below."""
    starts = range(0, len(pictures), COLUMNS)
    rows = [
        images.strip(pictures[i : i + COLUMNS], captions[i : i + COLUMNS], width=WIDTH)
        for i in starts
    ]
    widest = max(row.shape[1] for row in rows)
    padded = [
        np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255)
        for row in rows
    ]
    return np.concatenate(padded)


def in_256_colours(picture: Image.Image) -> Image.Image:
    """The picture with a palette of its own, dithered so that no colour map shows steps."""
    return picture.quantize(palette=picture.quantize(256), dither=Image.Dither.FLOYDSTEINBERG)


def main() -> None:
    """Explain the photograph and write the sheet."""
    options = arguments()
    missing = [each for each in (options.model, options.image) if each and not each.exists()]
    if missing:
        raise SystemExit(
            f"Expected files of a model and a photograph. Received: {missing[0]}, which is not "
            "there. Leave --model and --image out to take those of two_photographs.py."
        )
    model = load_model(options.model)
    photo = load_photo(options.image, model)
    batch = options.scale * photo[None].astype(np.float32)
    probabilities = model.predict(batch, verbose=0)[0]
    label = int(probabilities.argmax()) if options.label is None else options.label
    print(f"class {label}, probability {probabilities[label]:.2f}")

    pictures, captions = [photo], [f"class {label}, p = {probabilities[label]:.2f}"]
    grey = options.scale * float(photo.mean())
    for method in chosen(methods(model, grey, options.quick), options.only):
        maps, seconds = timed(method.explainer, label, batch)
        print(f"{method.caption:22} {seconds:6.1f} s")
        pictures.append(painted(photo, maps[0], method.marks_pixels))
        captions.append(method.caption)
    picture = Image.fromarray(sheet(pictures, captions))
    (in_256_colours(picture) if options.small else picture).save(options.output, optimize=True)
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
