"""Panels: an image, its heatmap and what the model said of it, as one small picture.

Drawn with Pillow alone: a matplotlib figure costs fifty times as much, and a panel is made for
every probe image at every logged step of a training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from kvis2.images.answers import Answer, ClassNames, class_name
from kvis2.images.colors import Display, Limits, PictureArray
from kvis2.images.drawing import AMBER, GREY, LINE, MARGIN, WHITE, write
from kvis2.images.heats import HeatStyle, draw_pictures
from kvis2.images.painting import Opacity, common_ends

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


class Explanation(NamedTuple):
    """One heatmap of a panel, and what it is of.

    Attributes:
        heatmap: The image's shape without channels; 0..1 or, signed, -1..1. None leaves its
            place empty.
        explained: The class whose score it explains: its index, or words for another score; None
            says nothing.
    """

    heatmap: ArrayLike | None
    explained: int | str | None = None


def panel(
    image: ArrayLike,
    heatmap: ArrayLike,
    *,
    explained: int | str | None = None,
    beside: Explanation | None = None,
    probabilities: ArrayLike | None = None,
    label: int | None = None,
    class_names: ClassNames | None = None,
    top_k: int = 3,
    box: ArrayLike | None = None,
    alpha: float = 0.8,
    colormap: str | Colormap | None = None,
    opacity: Opacity = "heat",
    title: str | None = None,
    caption: str | None = None,
    width: int = 350,
    display: Display | None = None,
    limits: Limits | None = None,
) -> PictureArray:
    """Draw one sample: image | overlay, above them what is explained, below the model's answer.

    The first line says "why elephant". Where that is not the class that is predicted, the line is
    amber and says both, "why elephant, predicted eagle". The predicted class and its bar
    are green where they are right, red where they are wrong and blue where no label is given; the
    true class is always among the bars and is marked as "true". A bar of the colours, with the
    values at its ends, stands beside the overlay. A map that `is_flat`, which shows no region, is
    drawn in grey and captioned so.

    The size depends on the image's size, `width`, `top_k` and on which arguments are given, never
    on their values: all steps of a training fit one slider. A panel with up to three bars is 350 x
    215 pixels, which TensorBoard shows pixel by pixel in its tabs Time Series and Images. Wide
    images (5:2 and more) stand above each other. A sequence `(length,)` is drawn by `signal`, a
    volume `(depth, height, width)` by `montage`.

    Args:
        image: `(height, width)` or `(height, width, channels)`, any kind `displayable` takes;
            or a sequence or a volume, with or without channels.
        heatmap: the image's shape without channels; 0..1 or, signed, -1..1.
        explained: the class whose score the heatmap explains, or words for another score.
        beside: a second heatmap of the same image in a place of its own, such as that of the
            predicted class; its heatmap may be None for "there is none at this step".
        probabilities: `(classes,)` in 0..1; one value alone is that of class 1 of 2.
        label: index of the true class.
        class_names: names by class index; "class 7" where missing.
        top_k: how many of the most probable classes get a bar; at least the predicted and the
            true one do.
        box: `(x0, y0, x1, y1)` in pixels of the image, x1 and y1 exclusive, or several of them
            `(boxes, 4)`; drawn on all pictures.
        alpha: the largest weight of the heatmap's colour in the overlay, 0..1.
        colormap: as for `colorize`.
        opacity: as for `overlay`.
        title: a line above everything.
        caption: whose map it is, such as "out_relu 7x7", at the end of the first line.
        width: of the panel in pixels.
        display: what undoes the preprocessing, as for `displayable`.
        limits: values at the ends of the colormap; None: as `color_ends` says. Where they end
            before 1, the caption says how much the colours are stronger, "Saliency x5".

    Returns:
        uint8 RGB array `(panel height, width, 3)`.

    Raises:
        ValueError: sizes differ, NaN or infinity, a probability outside 0..1, a class out of
            range, a box outside the image, or a width below 120.

    Example:
        >>> heat = np.linspace(0, 1, 48 * 48).reshape(48, 48)
        >>> panel(heat, heat, explained=1, probabilities=[0.1, 0.9], label=1).shape
        (215, 350, 3)
    """
    if width < 120:
        raise ValueError(
            f"Expected a width of at least 120 pixels. Received: {width}. Draw a bare picture "
            f"with kvis2.images.overlay instead."
        )
    answer = Answer.of(probabilities, label, class_names, top_k)
    why = None if explained is None else _named(explained, class_names)
    head = [LINE] * (title is not None) + [LINE] * (why is not None or caption is not None)
    maps: list[ArrayLike | None] = [heatmap] if beside is None else [heatmap, beside.heatmap]
    given = [each for each in maps if each is not None]
    # Before resizing, which softens the extremes; one scale for both maps.
    limits = common_ends(given, colormap) if limits is None else limits
    style = HeatStyle(alpha, colormap, opacity, limits)
    least = round(width * 215 / 350)
    room = (width, least - sum(head) - answer.height)
    drawn = draw_pictures(image, maps, room, box, style, display)
    height = max(least, sum(head) + drawn.height + answer.height)
    canvas = Image.new("RGB", (width, height), WHITE)
    if title is not None:
        write(canvas, (MARGIN, 0), title, width - 2 * MARGIN)
    gain = 1 / max(abs(each) for each in limits)
    if gain > 1 and len(head) > (title is not None):
        caption = f"{caption or 'heat'} x{gain:.2g}"
    if len(head) > (title is not None):
        _write_why(
            canvas, sum(head) - LINE, why, _contrast(why, beside, answer, class_names), caption
        )
    canvas.paste(drawn, (0, sum(head)))
    answer.draw(canvas, sum(head) + drawn.height)
    return np.array(canvas)


def _named(explained: int | str, class_names: ClassNames | None) -> str:
    return explained if isinstance(explained, str) else class_name(int(explained), class_names)


def _contrast(
    why: str | None,
    beside: Explanation | None,
    answer: Answer,
    class_names: ClassNames | None,
) -> str | None:
    """What the second half of the first line says: the other class, where it is another."""
    if beside is not None and beside.explained is not None:
        other = _named(beside.explained, class_names)
        return None if other == why else f"and why {other}"
    if why is None or answer.predicted in (None, why):
        return None
    return f"predicted {answer.predicted}"


def _write_why(
    canvas: Image.Image, top: int, why: str | None, contrast: str | None, caption: str | None
) -> None:
    """The line that says what is explained, amber where that is not what is predicted."""
    width = canvas.width - 2 * MARGIN
    if contrast is not None:
        ImageDraw.Draw(canvas).rectangle((0, top, canvas.width, top + LINE - 1), AMBER)
    used = 0
    if caption is not None:
        most = width // 3 if why is not None else width
        used = write(canvas, (canvas.width - MARGIN, top), caption, most, GREY, align="right")
        used += 2 * MARGIN
    if why is not None:
        said = f"why {why}" if contrast is None else f"why {why}, {contrast}"
        write(canvas, (MARGIN, top), said, width - used)
