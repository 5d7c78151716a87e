"""Artefacts of a gallery that are maps: class activation maps and relevance."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from kvis2 import images
from kvis2.explainers import ClassActivationMap, GradCAM, LayerCAM, ScoreCAM
from kvis2.gallery.pieces import Made, Piece, in_file, painted
from kvis2.gallery.subject import Subject, evenly
from kvis2.images import PictureArray, relevance_picture
from kvis2.lrp import LRP, EpsilonPlusFlat, GammaEverywhere


def _cam(
    subject: Subject, title: str, make: Callable[[], ClassActivationMap], **parameters: Any
) -> Iterator[Piece]:
    """A map in grey, in colours, and over the photograph."""

    @functools.cache
    def heatmaps() -> Any:
        return make()(subject.label, subject.batch)

    pictures: dict[str, Callable[[Any], PictureArray]] = {
        "Grayscale": lambda maps: images.colorize(maps, "gray"),
        "Heatmap": lambda maps: images.colorize(maps, subject.colormap),
        "On_Image": lambda maps: images.overlay(subject.picture, maps, 0.4, subject.colormap),
    }
    parameters = {"label": subject.label, **parameters, "colormap": subject.colormap}
    for part, paint in pictures.items():
        yield Piece(f"{title}_{part}.png", functools.partial(painted, paint, heatmaps), parameters)


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
