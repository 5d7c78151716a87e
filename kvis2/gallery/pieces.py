"""The files of a gallery before they are made: what each is called, and how it is made.

Nothing is computed before a file is asked for, so that a file that exists costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from kvis2 import images
from kvis2.gallery.subject import Subject
from kvis2.images import PictureArray


class Made(NamedTuple):
    """What a file holds: one picture, or those of an animation, and what was found on the way."""

    pictures: PictureArray | list[PictureArray]
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


def in_file(path: str) -> str:
    """The path of a layer as a part of a file's name."""
    return path.replace("/", "-")


def painted(paint: Callable[[Any], PictureArray], explain: Callable[[], Any]) -> Made:
    """The picture of the first of what is explained."""
    return Made(paint(explain()[0]))


def captioned_each(pictures: Sequence[PictureArray], captions: Sequence[str]) -> list[PictureArray]:
    """Pictures of an animation, each with its caption below."""
    pairs = zip(pictures, captions, strict=True)
    return [images.captioned(picture, caption) for picture, caption in pairs]
