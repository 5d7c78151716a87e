"""Panels: an image, its heatmap and what the model said of it, as one small picture.

Drawn with Pillow alone: a matplotlib figure costs fifty times as much, and a panel is made for
every probe image at every logged step of a training.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from kvis2.images.colors import Display, Limits, Picture, blend, colorize, finite, heat_limits, rgb
from kvis2.images.drawing import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LINE,
    MARGIN,
    RED,
    TRACK,
    WHITE,
    Color,
    checked_boxes,
    draw_boxes,
    scaled,
    write,
)
from kvis2.images.sequences import montage, signal

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

ClassNames: TypeAlias = Sequence[str] | Mapping[int, str]


def panel(
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    probabilities: ArrayLike | None = None,
    label: int | None = None,
    class_names: ClassNames | None = None,
    top_k: int = 3,
    box: ArrayLike | None = None,
    alpha: float = 0.5,
    colormap: str | Colormap = "jet",
    title: str | None = None,
    width: int = 350,
    display: Display | None = None,
    limits: Limits | None = None,
) -> Picture:
    """Draw one sample: image | overlay, below them the true class and the model's answer.

    The predicted class and its bar are green where they are right, red where they are wrong and
    blue where no label is given. The size depends on the image's size, `width`, `top_k` and on
    which arguments are given, never on their values: all steps of a training fit one slider.
    Wide images (2:1 and more) stand above each other, tall ones are at most 2:1. A sequence
    `(length,)` is drawn by `signal`, a volume `(depth, height, width)` by `montage`.

    Args:
        image: `(height, width)` or `(height, width, channels)`, any kind `displayable` takes;
            or a sequence or a volume, with or without channels.
        heatmap: the image's shape without channels; 0..1 or, signed, -1..1.
        probabilities: `(classes,)` in 0..1; one value alone is that of class 1 of 2.
        label: index of the true class.
        class_names: names by class index; "class 7" where missing.
        top_k: how many of the most probable classes get a bar.
        box: `(x0, y0, x1, y1)` in pixels of the image, x1 and y1 exclusive, or several of them
            `(boxes, 4)`; drawn on both pictures.
        alpha: weight of the heatmap in the overlay, 0..1.
        colormap: as for `colorize`.
        title: a line above the pictures.
        width: of the panel in pixels; TensorBoard shows 350 as they are.
        display: what undoes the preprocessing, as for `displayable`.
        limits: values at the ends of the colormap, as for `colorize`.

    Returns:
        uint8 RGB array `(panel height, width, 3)`.

    Raises:
        ValueError: sizes differ, NaN or infinity, a probability outside 0..1, a class out of
            range, a box outside the image, or a width below 120.

    Example:
        >>> heat = np.linspace(0, 1, 48 * 48).reshape(48, 48)
        >>> panel(heat, heat, probabilities=[0.1, 0.9], label=1).shape
        (233, 350, 3)
    """
    if width < 120:
        raise ValueError(
            f"Expected a width of at least 120 pixels. Received: {width}. Draw a bare picture "
            f"with kvis2.images.overlay instead."
        )
    pictures = _pair(image, heatmap, width, box, alpha, colormap, display, limits)
    answer = _Answer.of(probabilities, label, class_names, top_k)
    stacked = pictures[0].width > width // 2
    top = MARGIN if title is None else MARGIN + LINE
    bottom = top + (len(pictures) if stacked else 1) * (pictures[0].height + MARGIN)
    canvas = Image.new("RGB", (width, bottom + answer.height), WHITE)
    if title is not None:
        write(canvas, (MARGIN, MARGIN - 2), title, width - 2 * MARGIN)
    column = width if stacked else (width - MARGIN) // 2 + MARGIN // 2
    for index, picture in enumerate(pictures):
        x = (column - picture.width) // 2 + (0 if stacked else index * (width - column))
        y = top + (index * (picture.height + MARGIN) if stacked else 0)
        canvas.paste(picture, (x, y))
    answer.draw(canvas, bottom)
    return np.array(canvas)


class _Answer(NamedTuple):
    """What the model said and what is true, ready to be drawn below the pictures."""

    true: str | None
    predicted: str | None
    color: Color
    bars: list[tuple[str, float, Color]]

    @classmethod
    def of(
        cls,
        probabilities: ArrayLike | None,
        label: int | None,
        class_names: ClassNames | None,
        top_k: int,
    ) -> _Answer:
        shares = None if probabilities is None else _checked_probabilities(probabilities)
        classes = None if shares is None else len(shares)
        label = None if label is None else _checked_label(label, classes)
        true = None if label is None else class_name(label, class_names)
        if shares is None:
            return cls(true, None, BLUE, [])
        order = np.argsort(-shares, kind="stable")[: max(top_k, 0)]
        first = int(np.argmax(shares))
        color = BLUE if label is None else GREEN if first == label else RED
        if label is not None and label not in order:
            true = f"{true}  {percent(shares[label])}"
        bars = [
            (class_name(int(i), class_names), float(shares[i]), color if i == first else GREY)
            for i in order
        ]
        return cls(true, class_name(first, class_names), color, bars)

    @property
    def height(self) -> int:
        lines = (self.true is not None or self.predicted is not None) + len(self.bars)
        return lines * LINE + (2 if lines else 0)

    def draw(self, canvas: Image.Image, top: int) -> None:
        width = canvas.width
        half = (width - 3 * MARGIN) // 2
        if self.true is not None:
            _write_named(canvas, (MARGIN, top), "true", self.true, half, INK)
        if self.predicted is not None:
            left = MARGIN if self.true is None else width - MARGIN - half
            _write_named(canvas, (left, top), "predicted", self.predicted, half, self.color)
        name_width, percent_width = width // 3, 46
        left, right = MARGIN + name_width + MARGIN, width - MARGIN - percent_width
        draw = ImageDraw.Draw(canvas)
        for name, share, color in self.bars:
            top += LINE
            text_color = INK if color == GREY else color
            write(canvas, (MARGIN, top), name, name_width, text_color)
            draw.rectangle((left, top + 4, right - 1, top + 13), fill=TRACK)
            filled = round(share * (right - left))
            if filled:
                draw.rectangle((left, top + 4, left + filled - 1, top + 13), fill=color)
            corner = (width - MARGIN, top)
            write(canvas, corner, percent(share), percent_width, text_color, align="right")


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


def _write_named(
    canvas: Image.Image, corner: tuple[int, int], key: str, value: str, width: int, fill: Color
) -> None:
    used = write(canvas, corner, key, width, GREY) + 6
    write(canvas, (corner[0] + used, corner[1]), value, width - used, fill)


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


def _pair(
    image: ArrayLike,
    heatmap: ArrayLike,
    width: int,
    box: ArrayLike | None,
    alpha: float,
    colormap: str | Colormap,
    display: Display | None,
    limits: Limits | None,
) -> list[Image.Image]:
    """Return the pictures of a panel: image and overlay at their final size, boxes drawn."""
    image, heatmap = np.asarray(image), finite(heatmap, "a heatmap")
    if image.shape[: heatmap.ndim] != heatmap.shape or image.ndim - heatmap.ndim not in (0, 1):
        raise ValueError(
            f"Expected a heatmap of the image's shape without channels. Received: image "
            f"{image.shape} and heatmap {heatmap.shape}. Resize the map to the image, or pick "
            f"one map of the batch."
        )
    if heatmap.ndim != 2 and box is not None:
        raise ValueError(
            f"Expected no box for a sequence or a volume. Received: box={box!r} and a heatmap of "
            f"shape {heatmap.shape}. Leave box out."
        )
    if heatmap.ndim == 1:
        drawn = signal(
            image, heatmap, width=width - 2 * MARGIN, alpha=alpha, colormap=colormap, limits=limits
        )
        return [Image.fromarray(drawn)]
    if heatmap.ndim == 3:
        image, heatmap = montage(image), montage(heatmap)
    picture = rgb(image, display)
    height = picture.shape[0]
    # Before resizing, which softens the extremes and could hide a map's negative values.
    limits = heat_limits(heatmap, colormap) if limits is None else limits
    size = _picture_size(picture.shape[1], height, width)
    boxes = None if box is None else checked_boxes(box, picture.shape[1], height)
    shown = scaled(Image.fromarray(picture), size)
    heat = np.asarray(scaled(Image.fromarray(heatmap.astype(np.float32)), size))
    hot = Image.fromarray(blend(np.asarray(shown), colorize(heat, colormap, limits), alpha))
    if boxes is not None:
        scale = np.array(size * 2) / (picture.shape[1], height, picture.shape[1], height)
        for drawn_on in (shown, hot):
            draw_boxes(drawn_on, boxes * scale)
    return [shown, hot]


def _picture_size(width: int, height: int, panel_width: int) -> tuple[int, int]:
    stacked = width >= 2 * height
    available = panel_width - 2 * MARGIN if stacked else (panel_width - 3 * MARGIN) // 2
    scale = min(available / width, 2 * available / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
