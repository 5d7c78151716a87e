"""What a gallery shows: one table of artefacts, each a function from a subject to its files.

A function only says which files there are and how each is made; nothing is computed before a
file is asked for, so that a file that exists costs nothing. To add an artefact, write such a
function and enter it in `ARTIFACTS`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import keras
import numpy as np
from numpy.typing import NDArray

from kvis2 import images, presets, targets
from kvis2.ascent_callbacks import Snapshots
from kvis2.cam import ClassActivationMap, GradCAM, LayerCAM
from kvis2.channels import ScoreCAM
from kvis2.colors import Picture
from kvis2.description import Map
from kvis2.dreaming import DeepDream
from kvis2.explainer import Explainer
from kvis2.gradient_pictures import (
    color_picture,
    gray_picture,
    negative_picture,
    positive_picture,
    relevance_picture,
)
from kvis2.guided import GuidedGradCAM
from kvis2.input_space import InputSpace
from kvis2.integrated import IntegratedGradients
from kvis2.inversion import FeatureInversion
from kvis2.lrp import LRP, EpsilonPlusFlat, GammaEverywhere
from kvis2.maximization import ActivationMaximization
from kvis2.modifiers import GuidedReLU, LinearOutput
from kvis2.noise import SmoothGrad
from kvis2.parametrizations import Fourier, Standardized
from kvis2.saliency import InputXGradient, Saliency
from kvis2.scores import LayerScore


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is computed for the gallery.

    Args:
        steps: Steps of every optimisation; None is what each recipe takes by itself.
        samples: Noisy copies of an image for SmoothGrad.
        path: Points on the path of integrated gradients.
        channels: Channels that Score-CAM tries; None is all of them.
        depths: Layers shown of LayerCAM and filters; inversions show half as many again.
        filters: Filters shown of each layer.
        frames: Most pictures in an animation.
    """

    steps: int | None = None
    samples: int = 50
    path: int = 100
    channels: int | None = None
    depths: int = 4
    filters: int = 3
    frames: int = 16


QUICK = Effort(steps=8, samples=4, path=8, channels=16, depths=2, filters=1, frames=3)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is shown: a model, and a photograph unless the model itself is shown.

    Args:
        model: The model.
        space: Its input space.
        size: Height and width of its input.
        labels: The classes to explain; of a photograph there is one.
        maps: Its spatial feature maps, in the order of the pass.
        effort: How much is computed.
        recipe: "kvis2", or "original" for the settings of pytorch-cnn-visualizations.
        colormap: Of the class activation maps.
        layers: Layers shown in the place of those chosen by depth.
        picture: The photograph, uint8 `(height, width, channels)`, in the size of the input.
        original: The photograph in its own size.
    """

    model: keras.Model
    space: InputSpace
    size: tuple[int, int]
    labels: tuple[int, ...]
    maps: tuple[Map, ...]
    effort: Effort = Effort()
    recipe: str = "kvis2"
    colormap: str = "turbo"
    layers: tuple[str, ...] = ()
    picture: Any = None
    original: Any = None

    @property
    def label(self) -> int:
        """The class that is explained."""
        return self.labels[0]

    @functools.cached_property
    def batch(self) -> NDArray[np.float32]:
        """The photograph as the model takes it, `(1, height, width, channels)`."""
        return self.space.encode(self.picture[None])

    def pictures(self, found: Any) -> NDArray[np.uint8]:
        """uint8 pictures of images that were optimised, in the structure of the model's input."""
        return self.space.decode(keras.tree.flatten(found)[0])

    def depths(self, count: int) -> list[str]:
        """Feature maps at `count` depths: the last of each size, the smallest sizes."""
        if self.layers:
            return list(self.layers)
        last = {each.size: each.layer for each in self.maps}
        return list(last.values())[-count:]

    def convolutions(self, count: int) -> list[str]:
        """Convolutions at `count` depths from the first to the last; any maps without them."""
        if self.layers:
            return list(self.layers)
        paths = list(dict.fromkeys(each.layer for each in self.maps))
        kinds = (keras.layers.Conv2D, keras.layers.SeparableConv2D)
        found = [path for path in paths if isinstance(self.layer(path), kinds)]
        return evenly(found or paths, count)

    def layer(self, path: str) -> keras.Operation:
        """The layer of a path."""
        return targets.find_layer(self.model, path)

    def filter_count(self, path: str) -> int:
        """How many channels a feature map has."""
        channels = next((each.channels for each in self.maps if each.layer == path), None)
        if channels is None:
            raise ValueError(
                "Expected a spatial feature map that the score depends on. Received: "
                f"'{path}'. Choose among {', '.join(each.layer for each in self.maps[-8:])}."
            )
        return channels

    def response(self, path: str, filters: int | Sequence[int]) -> LayerScore:
        """The response of filters, before the activation that is fused into their layer."""
        activation = getattr(self.layer(path), "activation", None)
        fused = activation not in (None, keras.activations.linear)
        return LayerScore(path, filters, pre_activation=fused)

    @property
    def follows_original(self) -> bool:
        """Whether the settings are those of pytorch-cnn-visualizations."""
        return self.recipe == "original"

    def steps(self, default: int) -> int:
        """The number of steps of an optimisation."""
        return self.effort.steps or default

    def fourier(self) -> Fourier:
        """The coordinates in which kvis2 optimises images by default."""
        return Fourier(decorrelate="bgr" if self.space.blue_first else True)

    def ascent(self, preset: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a preset, in the colours and the range of this model."""
        chart = preset["parametrization"]
        assert isinstance(chart, Standardized)
        chart = dataclasses.replace(
            chart,
            offset=self.space.in_order(chart.offset),
            scale=self.space.in_order(chart.scale),
        )
        return {**preset, "parametrization": chart, **self.image}

    @property
    def image(self) -> dict[str, Any]:
        """Range and shape of an image, as gradient ascent takes them."""
        return {"input_range": self.space.bounds, "shape": (*self.size, self.space.channels)}


class Made(NamedTuple):
    """What a file holds: one picture, or those of an animation, and what was found on the way."""

    pictures: Picture | list[Picture]
    findings: Mapping[str, Any] = {}


class Piece(NamedTuple):
    """One file of an artefact.

    Attributes:
        file: The end of its name, with the suffix; ".gif" is an animation.
        make: Makes what it holds.
        parameters: What it is made with.
    """

    file: str
    make: Callable[[], Made]
    parameters: Mapping[str, Any] = {}


Artifact: TypeAlias = "Callable[[Subject], Iterator[Piece]]"
Item = TypeVar("Item")

_GUIDED = [LinearOutput(), GuidedReLU()]
_PARTS: dict[str, Callable[[Any], Picture]] = {
    "color": color_picture,
    "gray": gray_picture,
    "pos_sal": positive_picture,
    "neg_sal": negative_picture,
}
_RAW: dict[str, Any] = {"keepdims": True, "normalize": False}


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spread from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def spread(total: int, count: int) -> list[int]:
    """At most `count` of `total` filters, evenly spread away from both ends."""
    places = (np.arange(count) + 0.5) * total / count
    return list(dict.fromkeys(int(place) for place in places))


def in_file(path: str) -> str:
    """The path of a layer as a part of a file's name."""
    return path.replace("/", "-")


# -- gradients ------------------------------------------------------------------------------------


def _gradients(
    title: str, parts: Sequence[str], explain: Callable[[], Any], **parameters: Any
) -> Iterator[Piece]:
    """Pictures of one signed gradient `(1, height, width, channels)`, which is computed once."""
    explain = functools.cache(explain)
    for part in parts:
        make = functools.partial(_painted, _PARTS[part], explain)
        yield Piece(f"{title}_{part}.png", make, parameters)


def _painted(paint: Callable[[Any], Picture], explain: Callable[[], Any]) -> Made:
    return Made(paint(explain()[0]))


def vanilla(subject: Subject) -> Iterator[Piece]:
    """The gradient of the score."""
    saliency = Saliency(subject.model, **_RAW)
    explain = functools.partial(saliency, subject.label, subject.batch)
    yield from _gradients("Vanilla_BP", ["color", "gray"], explain, label=subject.label)


def guided(subject: Subject) -> Iterator[Piece]:
    """The gradient by guided backpropagation."""
    saliency = Saliency(subject.model, model_modifier=_GUIDED, **_RAW)
    explain = functools.partial(saliency, subject.label, subject.batch)
    yield from _gradients("Guided_BP", list(_PARTS), explain, label=subject.label)


def guided_grad_cam(subject: Subject) -> Iterator[Piece]:
    """The guided gradient where the Grad-CAM map is."""
    explainer = GuidedGradCAM(subject.model, **_RAW)
    explain = functools.partial(explainer, subject.label, subject.batch)
    yield from _gradients("GGrad_Cam", ["color", "gray"], explain, label=subject.label)


def integrated_gradients(subject: Subject) -> Iterator[Piece]:
    """The mean gradient on the way from the mean colour, not multiplied by the image."""
    explain = functools.partial(_integrated(subject, False), subject.label, subject.batch)
    yield from _gradients(
        "Integrated_G",
        ["gray"],
        explain,
        label=subject.label,
        points=subject.effort.path,
        baseline="mean colour",
    )


def _integrated(subject: Subject, multiplied: bool) -> Explainer:
    baseline = np.broadcast_to(subject.space.mean_color, subject.batch.shape)
    return IntegratedGradients(
        subject.model,
        baseline=np.ascontiguousarray(baseline),
        steps=subject.effort.path,
        multiply_by_inputs=multiplied,
        **_RAW,
    )


def gradient_times_image(subject: Subject) -> Iterator[Piece]:
    """The vanilla, guided and integrated gradient, times the image."""
    explainers: dict[str, Callable[[], Explainer]] = {
        "Vanilla": lambda: InputXGradient(subject.model, **_RAW),
        "Guided": lambda: InputXGradient(subject.model, model_modifier=_GUIDED, **_RAW),
        "Integrated": lambda: _integrated(subject, True),
    }

    def explained(kind: str) -> Any:
        return explainers[kind]()(subject.label, subject.batch)

    for kind in explainers:
        parameters = {"points": subject.effort.path} if kind == "Integrated" else {}
        explain = functools.partial(explained, kind)
        title = f"{kind}_grad_times_image"
        yield from _gradients(title, ["gray"], explain, label=subject.label, **parameters)


def _smoothed(subject: Subject, kind: str, noise: float) -> Any:
    modifiers = _GUIDED if kind == "Guided" else LinearOutput()
    saliency = Saliency(subject.model, model_modifier=modifiers, **_RAW)
    return SmoothGrad(saliency, subject.effort.samples, noise)(subject.label, subject.batch)


def smooth_grad(subject: Subject) -> Iterator[Piece]:
    """The mean gradient of noisy copies, vanilla and guided."""
    for kind in ("Vanilla", "Guided"):
        explain = functools.partial(_smoothed, subject, kind, 0.15)
        yield from _gradients(
            f"{kind}_SmoothGrad",
            ["color", "gray"],
            explain,
            label=subject.label,
            samples=subject.effort.samples,
            noise=0.15,
        )


def smooth_grad_sweep(subject: Subject) -> Iterator[Piece]:
    """SmoothGrad from no noise to half the range of the image, vanilla and guided."""
    levels = [round(float(each), 3) for each in np.linspace(0.0, 0.5, subject.effort.frames)]

    def frames(kind: str) -> Made:
        pictures = [gray_picture(_smoothed(subject, kind, noise)[0]) for noise in levels]
        return Made(_captioned(pictures, [f"noise {noise:.0%}" for noise in levels]))

    for kind in ("Vanilla", "Guided"):
        parameters = {
            "label": subject.label,
            "samples": subject.effort.samples,
            "noise": f"0 to 0.5 in {len(levels)} steps",
        }
        yield Piece(f"{kind}_SmoothGrad_sweep.gif", functools.partial(frames, kind), parameters)


def _captioned(pictures: Sequence[Picture], captions: Sequence[str]) -> list[Picture]:
    pairs = zip(pictures, captions, strict=True)
    return [images.captioned(picture, caption) for picture, caption in pairs]


# -- class activation maps and relevance ----------------------------------------------------------


def _cam(
    subject: Subject, title: str, make: Callable[[], ClassActivationMap], **parameters: Any
) -> Iterator[Piece]:
    """A map in grey, in colours, and over the photograph."""

    @functools.cache
    def heatmaps() -> Any:
        return make()(subject.label, subject.batch)

    pictures: dict[str, Callable[[Any], Picture]] = {
        "Grayscale": lambda maps: images.colorize(maps, "gray"),
        "Heatmap": lambda maps: images.colorize(maps, subject.colormap),
        "On_Image": lambda maps: images.overlay(subject.picture, maps, 0.4, subject.colormap),
    }
    parameters = {"label": subject.label, **parameters, "colormap": subject.colormap}
    for part, paint in pictures.items():
        yield Piece(f"{title}_{part}.png", functools.partial(_painted, paint, heatmaps), parameters)


def grad_cam(subject: Subject) -> Iterator[Piece]:
    """Grad-CAM at the last spatial feature map."""
    yield from _cam(
        subject, "Grad_Cam", lambda: GradCAM(subject.model), layer=subject.maps[-1].layer
    )


def score_cam(subject: Subject) -> Iterator[Piece]:
    """Score-CAM at the last spatial feature map."""
    channels = subject.effort.channels
    yield from _cam(
        subject,
        "Score_Cam",
        lambda: ScoreCAM(subject.model, max_channels=channels),
        layer=subject.maps[-1].layer,
        channels=channels or "all",
    )


def layer_cam(subject: Subject) -> Iterator[Piece]:
    """LayerCAM at several depths."""
    for path in subject.depths(subject.effort.depths):
        make = functools.partial(LayerCAM, subject.model, path)
        yield from _cam(subject, f"Layer_Cam_{in_file(path)}", make, layer=path)


def lrp(subject: Subject) -> Iterator[Piece]:
    """Layer-wise relevance propagation to two layers, as the original shows, and to the pixels."""
    composite = GammaEverywhere() if subject.follows_original else EpsilonPlusFlat()

    def relevance(path: str | None) -> Made:
        explainer = LRP(subject.model, composite, path, normalize=False)
        maps = explainer(subject.label, subject.batch)
        error = round(float(explainer.conservation_error[0]), 4)
        return Made(relevance_picture(maps[0]), {"conservation error": error})

    paths = subject.layers or evenly(subject.convolutions(5)[:3], 2)
    for path in (None, *paths):
        at = "pixels" if path is None else path
        parameters = {"label": subject.label, "composite": type(composite).__name__, "at": at}
        yield Piece(f"LRP_{in_file(at)}.png", functools.partial(relevance, path), parameters)


# -- filters --------------------------------------------------------------------------------------


def _guided_response(subject: Subject, path: str, filters: Sequence[int]) -> Any:
    """The guided gradients of the responses of filters, `(filters, height, width, channels)`."""
    saliency = Saliency(subject.model, model_modifier=GuidedReLU(), **_RAW)
    return saliency(subject.response(path, filters), np.repeat(subject.batch, len(filters), axis=0))


def filter_response(subject: Subject) -> Iterator[Piece]:
    """What in the photograph excites one filter, by guided backpropagation."""
    path = subject.convolutions(3)[len(subject.convolutions(3)) // 2]
    filter_ = min(5, subject.filter_count(path) - 1)
    explain = functools.partial(_guided_response, subject, path, [filter_])
    title = f"layer_{in_file(path)}_filter{filter_}_Guided_BP"
    yield from _gradients(title, list(_PARTS), explain, layer=path, filter=filter_)


def layer_sweep(subject: Subject) -> Iterator[Piece]:
    """What excites the first filter of one layer after the other."""
    paths = subject.convolutions(subject.effort.frames)

    def frames() -> Made:
        pictures = [gray_picture(_guided_response(subject, path, [0])[0]) for path in paths]
        return Made(_captioned(pictures, paths))

    yield Piece("layer_sweep_filter0.gif", frames, {"layers": len(paths), "filter": 0})


def filter_sweep(subject: Subject) -> Iterator[Piece]:
    """What excites one filter after the other of a deep layer."""
    path = subject.convolutions(5)[-1]
    filters = spread(subject.filter_count(path), subject.effort.frames)

    def frames() -> Made:
        gradients = _guided_response(subject, path, filters)
        captions = [f"filter {each}" for each in filters]
        return Made(_captioned([gray_picture(each) for each in gradients], captions))

    parameters = {"layer": path, "filters": len(filters)}
    yield Piece(f"filter_sweep_{in_file(path)}.gif", frames, parameters)


def filter_images(subject: Subject) -> Iterator[Piece]:
    """The images that filters at several depths want to see, one sheet for each layer."""

    def sheet(path: str, filters: Sequence[int], steps: int) -> Made:
        if subject.follows_original:
            settings = subject.ascent(presets.filter_image(steps))
        else:
            settings = {"steps": steps, "parametrization": subject.fourier(), **subject.image}
        found = ActivationMaximization(subject.model, path, **settings)(filters)
        captions = [f"filter {each}" for each in filters]
        return Made(images.strip(list(subject.pictures(found)), captions))

    for path in subject.convolutions(subject.effort.depths):
        filters = spread(subject.filter_count(path), subject.effort.filters)
        steps = subject.steps(30 if subject.follows_original else 128)
        parameters = {"layer": path, "filters": filters, "steps": steps, "recipe": subject.recipe}
        make = functools.partial(sheet, path, filters, steps)
        yield Piece(f"filters_{in_file(path)}.png", make, parameters)


# -- images made by optimisation ------------------------------------------------------------------


def inversions(subject: Subject) -> Iterator[Piece]:
    """What is left of the photograph at six depths."""

    def inverted(path: str, steps: int) -> Made:
        if subject.follows_original:
            settings = subject.ascent(presets.mahendran_vedaldi(steps=steps))
        else:
            settings = {"steps": steps, "parametrization": subject.fourier(), **subject.image}
        inversion = FeatureInversion(subject.model, path, **settings)
        picture = subject.pictures(inversion(subject.batch))[0]
        assert inversion.errors is not None
        return Made(
            images.grid([picture], margin=0), {"error": round(float(inversion.errors[0]), 3)}
        )

    steps = subject.steps(201 if subject.follows_original else 256)
    for path in subject.convolutions(subject.effort.depths * 3 // 2):
        parameters = {"layer": path, "steps": steps, "recipe": subject.recipe}
        make = functools.partial(inverted, path, steps)
        yield Piece(f"Inv_Image_{in_file(path)}.png", make, parameters)


def deep_dream(subject: Subject) -> Iterator[Piece]:
    """The photograph, changed until two filters of a deep layer see more in it."""
    path = subject.convolutions(5)[-1]
    large = all(n >= m for n, m in zip(subject.original.shape, subject.size, strict=False))
    kept = large and subject.effort.steps is None
    photograph = subject.original if kept else subject.picture
    steps = subject.steps(250 if subject.follows_original else 20)

    def dreamt(filter_: int) -> Made:
        settings: dict[str, Any] = {"steps": steps, "pre_activation": True}
        if subject.follows_original:
            settings = presets.plain_dream(steps)
            # The preset counts pixels from 0 to 255; a step goes with the square of the unit.
            unit = (np.subtract(subject.space.high, subject.space.low) / 255.0) ** 2
            settings["step_size"] = subject.space.in_order(tuple(settings["step_size"])) * unit
        dream = DeepDream(subject.model, path, input_range=subject.space.bounds, **settings)
        found = dream(filter_, subject.space.encode(photograph[None]))
        return Made(images.grid(list(subject.pictures(found)), margin=0))

    for filter_ in spread(subject.filter_count(path), 2):
        parameters = {"layer": path, "filter": filter_, "steps": steps, "recipe": subject.recipe}
        make = functools.partial(dreamt, filter_)
        yield Piece(f"ddream_{in_file(path)}_f{filter_}.png", make, parameters)


def class_images(subject: Subject) -> Iterator[Piece]:
    """The image that a class wants to see: plain, with each decay, with blur, and with all."""
    steps = subject.steps(149)
    recipes: dict[str, dict[str, Any]] = {
        "no_decay": {},
        "L1": {"decay": "l1"},
        "L2": {"decay": "l2"},
        "blur": {"blur_every": 2},
        # The clip of 0.1 of the original, which had no effect there, would leave nothing to see.
        "regularised": {"decay": "l2", "blur_every": 4, "clip": 2.0},
    }
    for label in subject.labels:
        for name, recipe in recipes.items():
            run = functools.cache(functools.partial(_class_image, subject, label, recipe, steps))
            parameters = {"label": label, **recipe, "steps": steps}
            for index, suffix in enumerate(("png", "gif")):
                make = functools.partial(_one_of, run, index)
                yield Piece(f"class_{label}_{name}.{suffix}", make, parameters)


def _class_image(
    subject: Subject, label: int, recipe: Mapping[str, Any], steps: int
) -> tuple[Made, Made]:
    """The image and the way to it."""
    settings = subject.ascent(presets.class_image(steps=steps, **recipe))
    snapshots = Snapshots(max(1, steps // subject.effort.frames))
    found = ActivationMaximization(subject.model, **settings)(label, callbacks=[snapshots])
    pictures = [subject.pictures(each)[0] for each in (found, *snapshots.images)]
    final, *way = [images.grid([each], margin=0) for each in pictures]
    return Made(final), Made(_captioned(way, [f"step {step}" for step in snapshots.steps]))


def _one_of(run: Callable[[], tuple[Made, ...]], index: int) -> Made:
    return run()[index]


def photograph(subject: Subject) -> Iterator[Piece]:
    """The photograph as the model sees it."""
    picture = functools.partial(images.grid, [subject.picture], margin=0)
    yield Piece("photograph.png", lambda: Made(picture()))


ARTIFACTS: dict[str, Artifact] = {
    "photograph": photograph,
    "vanilla": vanilla,
    "guided": guided,
    "grad_cam": grad_cam,
    "score_cam": score_cam,
    "guided_grad_cam": guided_grad_cam,
    "integrated_gradients": integrated_gradients,
    "lrp": lrp,
    "layer_cam": layer_cam,
    "gradient_times_image": gradient_times_image,
    "smooth_grad": smooth_grad,
    "smooth_grad_sweep": smooth_grad_sweep,
    "filter_response": filter_response,
    "layer_sweep": layer_sweep,
    "filter_sweep": filter_sweep,
    "inversions": inversions,
    "deep_dream": deep_dream,
    "filter_images": filter_images,
    "class_images": class_images,
}
"""All artefacts, in the order in which they are made and shown."""

OF_THE_MODEL = frozenset({"filter_images", "class_images"})
"""Those that show the model itself and need no photograph."""
