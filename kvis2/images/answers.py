"""What a model answers, as lines with bars below the pictures of a panel."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from kvis2.images.colors import finite
from kvis2.images.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LINE,
    MARGIN,
    RED,
    TRACK,
    Color,
    write,
)

ClassNames: TypeAlias = Sequence[str] | Mapping[int, str]

_PERCENT_WIDTH = 50  # pixels: "100.0%" and a gap before it


class Row(NamedTuple):
    """One class of the answer: whether it is the true one, its name, its share, its colour."""

    true: bool
    name: str
    share: float | None
    color: Color


class Answer(NamedTuple):
    """What the model said and what is true, ready to be drawn.

    Attributes:
        predicted: Name of the most probable class, or None.
        rows: The most probable classes and the true one; as many at every step.
    """

    predicted: str | None
    rows: list[Row]

    @classmethod
    def of(
        cls,
        probabilities: ArrayLike | None,
        label: int | None,
        class_names: ClassNames | None,
        top_k: int,
    ) -> Answer:
        """The answer for one sample; arguments as for `panel`."""
        shares = None if probabilities is None else _checked_probabilities(probabilities)
        classes = None if shares is None else len(shares)
        label = None if label is None else _checked_label(label, classes)
        if shares is None:
            rows = [] if label is None else [Row(True, class_name(label, class_names), None, INK)]
            return cls(None, rows)
        order = np.argsort(-shares, kind="stable")
        first = int(order[0])
        count = min(max(top_k, 1 if label is None else 2), len(shares))
        shown = order[:count].tolist()
        if label is not None and label not in shown:
            shown[-1] = label
        color = BLUE if label is None else GREEN if first == label else RED
        rows = [
            Row(
                i == label,
                class_name(i, class_names),
                float(shares[i]),
                color if i == first else GREY,
            )
            for i in shown
        ]
        return cls(class_name(first, class_names), rows)

    @property
    def height(self) -> int:
        """In pixels."""
        return len(self.rows) * LINE + (2 if self.rows else 0)

    def draw(self, canvas: Image.Image, top: int) -> None:
        """Draw the rows from `top` on: name, bar, percentage."""
        name_width = 2 * canvas.width // 5
        left, right = MARGIN + name_width + MARGIN, canvas.width - MARGIN - _PERCENT_WIDTH
        draw = ImageDraw.Draw(canvas)
        for true, name, share, color in self.rows:
            text_color = INK if color == GREY else color
            used = write(canvas, (MARGIN, top), "true", name_width, GREY) + 5 if true else 0
            write(canvas, (MARGIN + used, top), name, name_width - used, text_color)
            if share is not None:
                draw.rectangle((left, top + 4, right - 1, top + 13), fill=TRACK)
                filled = round(share * (right - left))
                if filled:
                    draw.rectangle((left, top + 4, left + filled - 1, top + 13), fill=color)
                corner = (canvas.width - MARGIN, top)
                write(canvas, corner, percent(share), _PERCENT_WIDTH, text_color, align="right")
            top += LINE


def class_name(index: int, class_names: ClassNames | None) -> str:
    """Return the name of a class, "class 7" where no names are given."""
    if class_names is None:
        return f"class {index}"
    try:
        return str(class_names[index])
    except (IndexError, KeyError):
        raise ValueError(
            f"Expected class_names to name class {index}. Received: {len(class_names)} names. "
            f"Give one name for each class, in the order of the model's outputs."
        ) from None


def percent(share: float) -> str:
    """Write a share of 1 as a percentage with one decimal."""
    return f"{100 * share:.1f}%"


def _checked_probabilities(probabilities: ArrayLike) -> NDArray[np.float64]:
    shares = finite(probabilities, "probabilities").astype(np.float64)
    if shares.ndim != 1 or not len(shares):
        raise ValueError(
            f"Expected the probabilities of one sample, shape (classes,). "
            f"Received: shape {shares.shape}. Pick one row of the model's output."
        )
    if shares.min() < -1e-3 or shares.max() > 1 + 1e-3:
        raise ValueError(
            f"Expected probabilities within 0..1. Received: values from {shares.min():.4g} to "
            f"{shares.max():.4g}. Apply the softmax or sigmoid to the model's output first."
        )
    shares = shares.clip(0, 1)
    return np.array([1 - shares[0], shares[0]]) if len(shares) == 1 else shares


def _checked_label(label: int, classes: int | None) -> int:
    try:
        index = operator.index(label)
    except TypeError:
        index = -1
    if index < 0 or (classes is not None and index >= classes):
        known = "" if classes is None else f" below {classes}, the number of probabilities"
        raise ValueError(
            f"Expected label to be a class index, an integer from 0{known}. "
            f"Received: {label!r}. For one-hot labels take np.argmax."
        )
    return index
