"""Artefacts of a gallery that are gradients by the image: of a class, or of a filter."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from kvis2.explainers import (
    Explainer,
    GuidedGradCAM,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
)
from kvis2.gallery.pieces import Made, Piece, captioned_each, in_file, painted
from kvis2.gallery.subject import Subject, evenly
from kvis2.images import (
    PictureArray,
    color_picture,
    gray_picture,
    negative_picture,
    positive_picture,
)
from kvis2.models import GuidedReLU, LinearOutput

_GUIDED = [LinearOutput(), GuidedReLU()]
_RAW: dict[str, Any] = {"keepdims": True, "normalize": False}
_PARTS: dict[str, Callable[[Any], PictureArray]] = {
    "color": color_picture,
    "gray": gray_picture,
    "pos_sal": positive_picture,
    "neg_sal": negative_picture,
}


def _gradients(
    title: str, parts: Sequence[str], explain: Callable[[], Any], **parameters: Any
) -> Iterator[Piece]:
    """Pictures of one signed gradient `(1, height, width, channels)`, which is computed once."""
    explain = functools.cache(explain)
    for part in parts:
        make = functools.partial(painted, _PARTS[part], explain)
        yield Piece(f"{title}_{part}.png", make, parameters)


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
    levels = evenly(range(0, 55, 5), subject.effort.frames)  # in percent

    def frames(kind: str) -> Made:
        pictures = [gray_picture(_smoothed(subject, kind, each / 100)[0]) for each in levels]
        return Made(captioned_each(pictures, [f"noise {each}%" for each in levels]))

    for kind in ("Vanilla", "Guided"):
        parameters = {
            "label": subject.label,
            "samples": subject.effort.samples,
            "noise": f"0 to 0.5 in {len(levels)} frames",
        }
        yield Piece(f"{kind}_SmoothGrad_sweep.gif", functools.partial(frames, kind), parameters)


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
        return Made(captioned_each(pictures, paths))

    yield Piece("layer_sweep_filter0.gif", frames, {"layers": len(paths), "filter": 0})


def filter_sweep(subject: Subject) -> Iterator[Piece]:
    """What excites one filter after the other of a deep layer."""
    path = subject.convolutions(5)[-1]
    filters = subject.filters(path, 4 * subject.effort.frames)

    def frames() -> Made:
        gradients = _guided_response(subject, path, filters)
        captions = [f"filter {each}" for each in filters]
        return Made(captioned_each([gray_picture(each) for each in gradients], captions))

    parameters = {"layer": path, "filters": len(filters)}
    yield Piece(f"filter_sweep_{in_file(path)}.gif", frames, parameters)
