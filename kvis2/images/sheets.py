"""Pictures of heatmaps: colours, overlays, panels, grids, strips, PNG and GIF files, figures.

Everything here takes and returns plain arrays; no model is involved. Pictures are uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from kvis2.images.colors import Display, Limits, PictureArray, displayable, normalize, rgb
from kvis2.images.drawing import captioned, resize
from kvis2.images.files import written_aside
from kvis2.images.framing import Framing
from kvis2.images.painting import (
    Opacity,
    chosen_colormap,
    colorize,
    common_ends,
    is_flat,
    overlay,
)
from kvis2.images.panels import panel
from kvis2.images.sequences import columns_of, montage, signal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

    from kvis2.images.figures import NotebookFigure

__all__ = [
    "captioned",
    "colorize",
    "displayable",
    "grid",
    "montage",
    "normalize",
    "overlay",
    "panel",
    "resize",
    "save",
    "save_gif",
    "show",
    "signal",
    "strip",
]


def grid(images: Sequence[ArrayLike], columns: int | None = None, margin: int = 4) -> PictureArray:
    """Lay pictures out in rows on white, each centred in a cell as large as the largest.

    Args:
        images: each `(height, width)` or `(height, width, channels)`, any kind `displayable`
            takes; sizes may differ.
        columns: pictures in a row; default: as square as it goes.
        margin: white pixels around every cell.

    Returns:
        uint8 RGB array.

    Raises:
        ValueError: no images, `columns` below 1, or a negative margin.

    Example:
        >>> grid([np.zeros((10, 20))] * 5, columns=3).shape
        (32, 76, 3)
    """
    pictures = _pictures(images)
    if margin < 0:
        raise ValueError(f"Expected a margin of 0 or more pixels. Received: {margin}.")
    columns = columns_of(len(pictures), columns)
    rows = -(-len(pictures) // columns)
    height = max(picture.shape[0] for picture in pictures)
    width = max(picture.shape[1] for picture in pictures)
    down, right = height + margin, width + margin
    canvas = np.full((rows * down + margin, columns * right + margin, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        own_height, own_width = picture.shape[:2]
        top = margin + index // columns * down + (height - own_height) // 2
        left = margin + index % columns * right + (width - own_width) // 2
        canvas[top : top + own_height, left : left + own_width] = picture
    return canvas


def strip(
    images: Sequence[ArrayLike],
    captions: Sequence[str] | None = None,
    *,
    width: int | None = None,
    margin: int = 4,
) -> PictureArray:
    """Lay pictures out in one row, each with its caption below: the evolution of one probe image.

    Args:
        images: as for `grid`.
        captions: one for each picture; cut with an ellipsis where it is too long.
        width: pixels to which each picture is brought, so that small ones have room for a
            caption; default: as they are.
        margin: white pixels around every picture.

    Returns:
        uint8 RGB array.

    Raises:
        ValueError: no images, or another number of captions.

    Example:
        >>> strip([np.zeros((48, 48))] * 3, ["epoch 1", "epoch 5", "epoch 9"], width=96).shape
        (122, 304, 3)
    """
    pictures = _pictures(images, width)
    return grid(_with_captions(pictures, captions), columns=len(pictures), margin=margin)


def save(path: str | PathLike[str], image: ArrayLike) -> Path:
    """Write one picture to a file, as a whole; its folder is made where missing.

    Args:
        path: ends in ".png", or another suffix of Pillow's for a still picture.
        image: `(height, width)` or `(height, width, channels)`, any kind `displayable` takes.

    Returns:
        The path.

    Raises:
        ValueError: Pillow does not know the suffix.
        OSError: the file cannot be written.

    Example:
        >>> save("/tmp/heatmap.png", colorize(np.eye(32))).name
        'heatmap.png'
    """
    path = Path(path)
    picture = Image.fromarray(rgb(image))
    if path.suffix.lower() not in Image.registered_extensions():
        raise ValueError(
            f"Expected a file name that ends in .png, .jpg or another suffix of Pillow's. "
            f"Received: {path.name!r}. Add .png."
        )
    with written_aside(path) as part:
        picture.save(part)
    return path


def save_gif(
    path: str | PathLike[str],
    images: Sequence[ArrayLike],
    duration_ms: int = 500,
    captions: Sequence[str] | None = None,
    *,
    width: int | None = None,
) -> Path:
    """Write pictures as an animated GIF that repeats for ever.

    All frames share the 256 colours that suit them best together, so that colours do not flicker.
    Frames that are equal one after the other are stored as one that stays as long as both.

    Args:
        path: ends in ".gif"; its folder is made where missing.
        images: of one size, each as for `save`.
        duration_ms: how long each picture stays; GIF counts in steps of 10 ms.
        captions: one for each picture, written below it.
        width: as for `strip`.

    Returns:
        The path.

    Raises:
        ValueError: no images, sizes differ, another number of captions, another suffix, or a
            duration below 20 ms, which browsers replace by their own.
        OSError: the file cannot be written.

    Example:
        >>> frames = [np.full((32, 32), level) for level in (0.0, 0.5, 1.0)]
        >>> save_gif("/tmp/fade.gif", frames, duration_ms=100).name
        'fade.gif'
    """
    path = Path(path)
    pictures = _with_captions(_pictures(images, width), captions)
    for index, picture in enumerate(pictures):
        if picture.shape != pictures[0].shape:
            raise ValueError(
                f"Expected pictures of one size, {pictures[0].shape[:2]} as the first. Received: "
                f"{picture.shape[:2]} at index {index}. Bring them to one width with "
                f"kvis2.images.resize."
            )
    if path.suffix.lower() != ".gif":
        raise ValueError(f"Expected a file name that ends in .gif. Received: {path.name!r}.")
    if duration_ms < 20:
        raise ValueError(f"Expected a duration of at least 20 ms. Received: {duration_ms}.")
    palette = _common_palette(pictures)
    # No dithering: its noise would flicker from frame to frame.
    frames = [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in pictures
    ]
    with written_aside(path) as part:
        frames[0].save(part, save_all=True, append_images=frames[1:], duration=duration_ms, loop=0)
    return path


_PALETTE_PIXELS = 100_000


def _common_palette(pictures: Sequence[PictureArray]) -> Image.Image:
    """The 256 colours that suit all pictures best, judged by evenly spread pixels."""
    pixels = np.concatenate([picture.reshape(-1, 3) for picture in pictures])
    sample = np.ascontiguousarray(pixels[:: -(-len(pixels) // _PALETTE_PIXELS)])
    # k-means: the median cut alone leaves false colours where the map is hottest.
    return Image.fromarray(sample[None]).quantize(256, kmeans=1, dither=Image.Dither.NONE)


def show(
    images: ArrayLike | Sequence[ArrayLike],
    maps: ArrayLike,
    titles: Sequence[str] | None = None,
    *,
    colormap: str | Colormap | None = None,
    alpha: float = 0.8,
    opacity: Opacity = "heat",
    columns: int = 4,
    limits: Limits | None = None,
    display: Display | None = None,
    framing: Framing | None = None,
    ax: Axes | None = None,
) -> NotebookFigure | Axes:
    """Draw images over their overlays in a matplotlib figure with one colour bar for all.

    A notebook shows the figure as the last value of a cell; in a script a window opens, where
    matplotlib has one to open, and the script goes on when it is closed. Elsewhere the figure
    belongs to nobody: nothing has to be closed, and `figure.savefig(path)` writes it. A map that
    `is_flat` is named as such in its title.

    Args:
        images: `(batch, height, width[, channels])`, as for `displayable`; or a list of
            photographs, each at its own size.
        maps: `(batch, height, width)`, 0..1 or, signed, -1..1; a list where sizes differ.
        titles: one for each image.
        colormap: as for `colorize`.
        alpha: largest weight of the heatmap in the overlay, 0..1.
        opacity: as for `overlay`.
        columns: images side by side.
        limits: values at the ends of the colour bar, one range for all maps; None: as
            `color_ends` says, the widest of them.
        display: what undoes the preprocessing, as for `displayable`.
        framing: how photographs became inputs, as for `overlay`.
        ax: matplotlib axes to draw the overlay of one image into, alone.

    Returns:
        A `matplotlib.figure.Figure`, or `ax` where it was given.

    Raises:
        ValueError: another number of maps or titles than images, more than one image with `ax`,
            or what `overlay` refuses.

    Example:
        >>> figure = show(np.zeros((2, 48, 48, 3)), np.eye(48)[None].repeat(2, 0), ["cat", "dog"])
        >>> len(figure.axes)  # two images, two overlays, one colour bar
        5
    """
    from kvis2.images.figures import NotebookFigure

    pictures = _each_displayable(images, display)
    heat = _each_map(maps)
    for name, given in (("maps", heat), ("titles", titles)):
        if given is not None and len(given) != len(pictures):
            raise ValueError(
                f"Expected as many {name} as images, {len(pictures)}. Received: {len(given)}."
            )
    limits = common_ends(heat, colormap) if limits is None else limits
    overlays = [
        overlay(p, h, alpha, colormap, opacity=opacity, limits=limits, framing=framing)
        for p, h in zip(pictures, heat, strict=True)
    ]
    titles = _told(titles, heat)
    if ax is not None:
        if len(pictures) != 1:
            raise ValueError(
                f"Expected one image for ax=. Received: {len(pictures)}. Give images[:1] and "
                "maps[:1], or leave ax out."
            )
        ax.imshow(overlays[0])
        ax.set_axis_off()
        if titles is not None:
            ax.set_title(titles[0])
        return ax
    figure = NotebookFigure.of_overlays(
        pictures,
        overlays,
        titles,
        columns_of(len(pictures), columns),
        chosen_colormap(colormap, limits),
        limits,
    )
    return figure.wait()


def _each_displayable(images: Any, display: Display | None) -> list[PictureArray]:
    """The images as pictures: of one size in an array, or a list of photographs of any."""
    if isinstance(images, list | tuple) and len({np.shape(each) for each in images}) > 1:
        return [rgb(each, display) for each in images]
    return list(displayable(images, display))


def _each_map(maps: Any) -> list[NDArray[Any]]:
    if isinstance(maps, list | tuple) and len({np.shape(each) for each in maps}) > 1:
        return [np.asarray(each) for each in maps]
    array = np.asarray(maps)
    return list(array[np.newaxis] if array.ndim == 2 else array)


def _told(titles: Sequence[str] | None, maps: Sequence[ArrayLike]) -> list[str] | None:
    """The titles, with a word at those of flat maps."""
    flat = [is_flat(each) for each in maps]
    if titles is None and not any(flat):
        return None
    given = titles or [""] * len(maps)
    return [f"{t} (flat)".strip() if f else t for t, f in zip(given, flat, strict=True)]


def notebook_figure(width: float, height: float) -> NotebookFigure:
    """An empty matplotlib figure that a notebook shows, and that pyplot does not know.

    Args:
        width: In inches.
        height: In inches.
    """
    from kvis2.images.figures import NotebookFigure

    return NotebookFigure(figsize=(width, height), layout="constrained")


def _pictures(images: Sequence[ArrayLike], width: int | None = None) -> list[PictureArray]:
    if len(images) == 0:
        raise ValueError("Expected at least one image. Received: none.")
    return [rgb(image) if width is None else resize(image, width) for image in images]


def _with_captions(
    pictures: list[PictureArray], captions: Sequence[str] | None
) -> list[PictureArray]:
    if captions is None:
        return pictures
    if len(captions) != len(pictures):
        raise ValueError(
            f"Expected as many captions as images, {len(pictures)}. Received: {len(captions)}."
        )
    return [captioned(picture, text) for picture, text in zip(pictures, captions, strict=True)]
