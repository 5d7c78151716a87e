"""Whether a class needs what lies at a place: hide it, and paste it onto the other classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2.passes import blur

Predict = Callable[[NDArray[np.float32]], NDArray[np.int64]]
Box = tuple[int, int, int, int]
_ROWS = 64  # pictures that are blurred at once


class Share(NamedTuple):
    """A share of pictures, with its interval.

    Attributes:
        value: 0..1; nan of no pictures.
        pictures: Of how many.
        low, high: Wilson's interval of 95 %.
    """

    value: float
    pictures: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: NDArray[np.bool_]) -> Share:
        """The share of True."""
        count = len(hits)
        if not count:
            return cls(float("nan"), 0, 0.0, 1.0)
        value, z = float(np.mean(hits)), 1.959964
        middle = (value + z**2 / (2 * count)) / (1 + z**2 / count)
        half = (
            z / (1 + z**2 / count) * np.sqrt(value * (1 - value) / count + (z / (2 * count)) ** 2)
        )
        return cls(value, count, float(max(middle - half, 0)), float(min(middle + half, 1)))

    def __str__(self) -> str:
        if not self.pictures:
            return "nobody knows how many (no pictures)"
        return f"{self.value:.0%} [{self.low:.0%} to {self.high:.0%}]"


_NOBODY = Share.of(np.zeros(0, bool))


class Causes(NamedTuple):
    """What hiding and pasting a place does.

    Attributes:
        lost: Of the class' pictures that were recognised, the share that is not when the place
            is hidden; the smaller of two ways: what surrounds it blurred into it, and its mean.
        others_lost: The largest such share of any other class, of the same two ways the larger.
        most_hurt: That other class.
        flips: Share of the other classes' pictures that become the class with its place pasted.
        control_flips: The same with the place of yet other pictures pasted.
        beside_objects: Whether boxes say that no object was pasted.
    """

    lost: Share
    others_lost: Share
    most_hurt: int | None
    flips: Share
    control_flips: Share
    beside_objects: bool


class Answered(NamedTuple):
    """Pictures, and what a model says of them.

    Attributes:
        images: `(pictures, height, width, channels)`, as the model takes them.
        labels: Their classes.
        predicted: The classes that the model says.
        boxes: The objects, `(pictures, 4)`, where they are known.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    boxes: NDArray[np.float64] | None = None


def causes(
    predict: Predict, pictures: Answered, label: int, box: Box, *, least: int = 10, seed: int = 0
) -> Causes:
    """Hide a place in all pictures, and paste that of a class onto the others.

    Args:
        predict: Gives the classes of images.
        pictures: Those that are audited; with boxes, nothing is pasted from an object or over one.
        label: The class that stands out.
        box: The place in pixels, `[x0, y0, x1, y1]`.
        least: Classes with fewer recognised pictures are not asked what they lose.
        seed: For which picture is pasted onto which.
    """
    images, labels = pictures.images, pictures.labels
    right = pictures.predicted == labels
    gone = [predict(hide(images, box)) != labels for hide in (_filled, _flat)]
    lost = {
        int(each): [Share.of(wrong[right & (labels == each)]) for wrong in gone]
        for each in np.unique(labels)
        if (right & (labels == each)).sum() >= (1 if each == label else least)
    }
    own = min(lost.pop(label, [_NOBODY]), key=lambda share: share.value)
    hurt = {each: max(both, key=lambda share: share.value) for each, both in lost.items()}
    worst = max(hurt, key=lambda each: hurt[each].value, default=None)
    flips, control = _flips(predict, pictures, label, box, np.random.default_rng(seed))
    others_lost = _NOBODY if worst is None else hurt[worst]
    return Causes(own, others_lost, worst, flips, control, pictures.boxes is not None)


def _flips(
    predict: Predict, pictures: Answered, label: int, box: Box, rng: np.random.Generator
) -> tuple[Share, Share]:
    """Which others become the class by the place of its own pictures, and by that of others."""
    images, labels, predicted, boxes = pictures
    others = np.flatnonzero((labels != label) & (predicted != label))
    own = np.flatnonzero((labels == label) & (predicted == label))
    if boxes is not None:
        own, others = (each[~_overlap(boxes[each], box)] for each in (own, others))
    x0, y0, x1, y1 = box

    def turned(givers: NDArray[np.int64]) -> Share:
        if not len(givers) or not len(others):
            return _NOBODY
        pasted = images[others].copy()
        pasted[:, y0:y1, x0:x1] = images[rng.choice(givers, len(others)), y0:y1, x0:x1]
        return Share.of(predict(pasted) == label)

    return turned(own), turned(others)


def _overlap(boxes: NDArray[np.float64], box: Box) -> NDArray[np.bool_]:
    x0, y0, x1, y1 = box
    return (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)


def _filled(images: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
    """The place filled by what surrounds it, blurred by half of its side, and nothing of itself.

    `blur(image * outside) / blur(outside)`: a plain blur would leave the colour of what was there.
    """
    x0, y0, x1, y1 = box
    hidden = images.copy()
    outside = np.ones((1, *images.shape[1:3], 1), np.float32)
    outside[:, y0:y1, x0:x1] = 0
    deviation = max(x1 - x0, y1 - y0) / 2
    weight = blur(tf.constant(outside), deviation, (1, 2)).numpy()[:, y0:y1, x0:x1]
    for start in range(0, len(images), _ROWS):
        rows = slice(start, start + _ROWS)
        soft = blur(tf.constant(images[rows] * outside), deviation, (1, 2)).numpy()
        hidden[rows, y0:y1, x0:x1] = soft[:, y0:y1, x0:x1] / np.maximum(weight, 1e-6)
    return hidden


def _flat(images: NDArray[np.float32], box: Box) -> NDArray[np.float32]:
    """The place in the mean colour of what lies around it."""
    x0, y0, x1, y1 = box
    hidden = images.copy()
    outside = np.ones(images.shape[1:3], bool)
    outside[y0:y1, x0:x1] = False
    mean = images[:, outside].mean(axis=1) if outside.any() else images.mean(axis=(1, 2))
    hidden[:, y0:y1, x0:x1] = mean[:, None, None]
    return hidden
