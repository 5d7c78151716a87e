"""Arrays to colours: images and heatmaps of any kind and range become uint8 RGB.

No model and no drawing here; `kvis2.images.panels` composes what this module colours, and
`kvis2.images` is where users find both.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

Picture: TypeAlias = NDArray[np.uint8]
"""A uint8 RGB array of shape `(height, width, 3)`."""

Limits: TypeAlias = tuple[float, float]
"""The two values that stand at the two ends of a range of grey levels or colours."""

Display: TypeAlias = Callable[[Any], Any] | Limits
"""How to undo a preprocessing: a function `images -> images`, or the `(low, high)` of the data."""

# Values this far outside a range still count as inside it: half a grey level.
_SLACK = 0.5 / 255
# fmt: off
_DIVERGING = frozenset({
    "PiYG", "PRGn", "BrBG", "PuOr", "RdGy", "RdBu", "RdYlBu", "RdYlGn", "Spectral", "coolwarm",
    "bwr", "seismic", "berlin", "managua", "vanimo",
})
# fmt: on


def finite(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return `values` as an array of numbers; refuse NaN and infinity."""
    array = np.asarray(values)
    if array.dtype.kind in "biu":
        return array
    # Half floats (bfloat16 too) are widened; float64 stays, so that no value overflows.
    array = array.astype(np.float64 if array.dtype == np.float64 else np.float32, copy=False)
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        where = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"Expected {name} without NaN or infinity. Received: {len(bad)} of {array.size} "
            f"values are not finite, the first at index {where}. Look for a diverged model, or "
            f"replace them with np.nan_to_num."
        )
    return array


def normalize(
    maps: ArrayLike, mode: Literal["image", "batch", "minmax", False] | None = "image"
) -> NDArray[np.float32]:
    """Scale heatmaps to 0..1, or signed ones to -1..1, so that 0 stays "no evidence".

    `"image"`: m / max|m| for each map m. `"batch"`: m / max|m| over the whole batch, so that maps
    compare with each other. `"minmax"`: (m - min m) / (max m - min m) for each map, which moves
    the zero. A map that is zero everywhere (for `"minmax"`: constant) comes back as zeros.

    Args:
        maps: `(batch, *spatial)`, any real dtype.
        mode: `"image"`, `"batch"`, `"minmax"`; `None` or `False` leaves the values as they are.

    Returns:
        float32 array of the shape of `maps`.

    Raises:
        ValueError: `maps` has no spatial axis, holds NaN or infinity, or `mode` is unknown.

    Example:
        >>> normalize([[[0.0, 2.0], [-4.0, 1.0]]]).tolist()
        [[[0.0, 0.5], [-1.0, 0.25]]]
    """
    values = finite(maps, "maps")
    if values.dtype != np.float32 or mode == "minmax":  # One division is as exact in float32.
        values = values.astype(np.float64)
    if values.ndim < 2:
        raise ValueError(
            f"Expected maps of shape (batch, *spatial). Received: shape {values.shape}. "
            f"Add the batch axis with maps[np.newaxis]."
        )
    if mode is None or mode is False:
        return values.astype(np.float32)
    if mode not in ("image", "batch", "minmax"):
        raise ValueError(
            f'Expected mode to be "image", "batch", "minmax" or None. Received: {mode!r}.'
        )
    axes = None if mode == "batch" else tuple(range(1, values.ndim))
    if mode == "minmax" and values.size:
        values = values - values.min(axis=axes, keepdims=True)
    high = values.max(axis=axes, keepdims=True, initial=0.0)
    low = values.min(axis=axes, keepdims=True, initial=0.0)
    scale = np.maximum(high, -low)
    scale[scale == 0] = 1
    return (values / scale).astype(np.float32, copy=False)


def displayable(images: ArrayLike, display: Display | None = None) -> NDArray[np.uint8]:
    """Turn images, as a model gets them, into uint8 RGB that a person can look at.

    A grey level is round(255 * (x - low) / (high - low)), clipped to 0..255. Without `display`
    the range is guessed once for the whole batch: uint8 is taken as it is; values within 0..1 and
    within 0..255 are taken for those ranges (half a grey level outside is forgiven); any other
    values are stretched from each image's own minimum to its own maximum, a constant image to
    black.

    Channels: 1 is grey; 3 is RGB; 4 is RGBA, laid on white (the first three alone where the range
    is unknown); 2 shows the first as grey; 5 or more show the first three as RGB. For another
    choice of channels give a function as `display`.

    Args:
        images: `(batch, height, width, channels)` or grey `(batch, height, width)`, any real
            dtype, channels last. A missing batch axis is added: `(height, width)`, and
            `(height, width, channels)` with 1, 3 or 4 channels.
        display: what undoes the preprocessing. A function gets a copy of the images with their
            batch axis and returns images, whose range is then guessed as above; a tuple
            `(low, high)` names the values of black and white, such as `(-1, 1)`.

    Returns:
        uint8 array `(batch, height, width, 3)`.

    Raises:
        ValueError: no images, a wrong rank, NaN or infinity, `low >= high`, or a `display` that
            returns another number of images.

    Example:
        >>> displayable(np.zeros((2, 8, 8, 1)) - 1.0, display=(-1, 1)).shape
        (2, 8, 8, 3)
    """
    images = _with_batch_and_channels(np.asarray(images))
    if callable(display):
        # A copy: such functions often write into their argument, as `preprocess_input` does.
        shown = _with_batch_and_channels(np.asarray(display(np.array(images))))
        if len(shown) != len(images):
            raise ValueError(
                f"Expected display to return as many images as it gets, {len(images)}. "
                f"Received: {len(shown)}. Keep the batch axis."
            )
        images, display = shown, None
    images = finite(images, "images")
    channels = images.shape[-1]
    if channels == 2:
        images = images[..., :1]
    elif channels > 4:
        images = images[..., :3]
    limits = _known_limits(images) if display is None else _checked_limits(display)
    if channels == 4 and limits is None:
        images = images[..., :3]
    levels = _levels(images, limits)
    if levels.shape[-1] == 4:
        opacity = levels[..., 3:] / np.float32(255)
        levels = np.rint(levels[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
    return np.repeat(levels, 3, axis=-1) if levels.shape[-1] == 1 else levels


def rgb(image: ArrayLike, display: Display | None = None) -> Picture:
    """Turn one image `(height, width)` or `(height, width, channels)` into uint8 RGB.

    The rules are those of `displayable`, for an image that stands alone.
    """
    image = np.asarray(image)
    if image.size == 0:
        raise ValueError(
            f"Expected at least one image with pixels. Received: shape {image.shape}. Check what "
            "was selected or cut out."
        )
    if display is None and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return image
    if image.ndim not in (2, 3):
        raise ValueError(
            f"Expected one image of shape (height, width) or (height, width, channels). "
            f"Received: shape {image.shape}. Pick one image of the batch."
        )
    return displayable(
        image[np.newaxis] if image.ndim == 3 else image[np.newaxis, ..., None], display
    )[0]


def colorize(
    heatmap: ArrayLike, colormap: str | Colormap = "jet", limits: Limits | None = None
) -> NDArray[np.uint8]:
    """Paint a heatmap with a matplotlib colormap: colormap((h - low) / (high - low)).

    Args:
        heatmap: array of any shape, values in 0..1 or, signed, in -1..1.
        colormap: name of any matplotlib colormap, or a `Colormap`.
        limits: the values at the two ends of the colormap; values outside get the colour of the
            end. Default: `(-1, 1)` where the heatmap holds negative values or the colormap is a
            diverging one ("RdBu_r", "seismic", ...), so that 0 is its middle; otherwise `(0, 1)`.

    Returns:
        uint8 RGB array of shape `heatmap.shape + (3,)`.

    Raises:
        ValueError: NaN or infinity, values outside -1..1 without `limits`, an unknown colormap.

    Example:
        >>> colorize([[0.0, 1.0]], "gray").tolist()
        [[[0, 0, 0], [255, 255, 255]]]
    """
    heatmap = finite(heatmap, "a heatmap")
    low, high = heat_limits(heatmap, colormap) if limits is None else _checked_limits(limits)
    table = color_table(colormap)
    # The same steps as matplotlib's: N equal bins, the upper end belongs to the last one.
    position = (heatmap - np.float32(low)) * np.float32(len(table) / (high - low))
    index = np.clip(position, 0, len(table) - 1).astype(np.intp)
    return np.take(table, index, axis=0)


def overlay(
    image: ArrayLike,
    heatmap: ArrayLike,
    alpha: float = 0.5,
    colormap: str | Colormap = "jet",
    *,
    limits: Limits | None = None,
    display: Display | None = None,
) -> Picture:
    """Lay a painted heatmap over its image: round((1 - alpha) * image + alpha * colour).

    Args:
        image: `(height, width)` or `(height, width, channels)`, any kind `displayable` takes.
        heatmap: `(height, width)`, values in 0..1 or, signed, in -1..1.
        alpha: weight of the heatmap's colour, 0 (image only) to 1 (colour only).
        colormap: as for `colorize`.
        limits: as for `colorize`.
        display: as for `displayable`.

    Returns:
        uint8 RGB array `(height, width, 3)`.

    Raises:
        ValueError: the two sizes differ, `alpha` is outside 0..1, or what `colorize` and
            `displayable` refuse.

    Example:
        >>> overlay(np.zeros((1, 2)), [[0.0, 1.0]], alpha=0.5, colormap="gray").tolist()
        [[[0, 0, 0], [128, 128, 128]]]
    """
    picture = rgb(image, display)
    heatmap = np.asarray(heatmap)
    if heatmap.shape != picture.shape[:2]:
        raise ValueError(
            f"Expected a heatmap of the image's size (height, width) = {picture.shape[:2]}. "
            f"Received: shape {heatmap.shape}. Resize the map, or pick one map of the batch."
        )
    return blend(picture, colorize(heatmap, colormap, limits), alpha)


def blend(picture: Picture, colors: Picture, alpha: float) -> Picture:
    """Mix two pictures of one size: round((1 - alpha) * picture + alpha * colors)."""
    if not 0 <= alpha <= 1:
        raise ValueError(
            f"Expected alpha within 0..1, the weight of the heatmap. Received: {alpha}."
        )
    mixed = picture * np.float32(1 - alpha)
    mixed += colors * np.float32(alpha)
    mixed += np.float32(0.5)  # the cast below cuts off, so this rounds
    return mixed.astype(np.uint8)


def heat_limits(heatmap: ArrayLike, colormap: str | Colormap) -> Limits:
    """Choose the values at the ends of the colormap: `(-1, 1)` or `(0, 1)`, see `colorize`."""
    heatmap = np.asarray(heatmap)
    low = float(heatmap.min(initial=0.0))
    high = float(heatmap.max(initial=0.0))
    if low < -1 - _SLACK or high > 1 + _SLACK:
        raise ValueError(
            f"Expected a heatmap within 0..1, or -1..1 if signed. Received: values from {low:.4g} "
            f"to {high:.4g}. Scale it with kvis2.images.normalize, or say limits=(low, high)."
        )
    name = colormap if isinstance(colormap, str) else colormap.name
    return (-1.0, 1.0) if low < -_SLACK or name.removesuffix("_r") in _DIVERGING else (0.0, 1.0)


def color_table(colormap: str | Colormap) -> NDArray[np.uint8]:
    """Return the colours of a matplotlib colormap, uint8 RGB `(N, 3)` from low to high."""
    if isinstance(colormap, str):
        return _named_color_table(colormap)
    return np.asarray(colormap(np.arange(colormap.N), bytes=True))[:, :3]


@lru_cache(maxsize=32)
def _named_color_table(name: str) -> NDArray[np.uint8]:
    import matplotlib  # here, so that importing kvis2 stays fast

    if name not in matplotlib.colormaps:
        close = difflib.get_close_matches(name, list(matplotlib.colormaps), n=3, cutoff=0.4)
        raise ValueError(
            f"Expected the name of a matplotlib colormap. Received: {name!r}. "
            + (f"Close names: {', '.join(close)}." if close else "Try 'jet' or 'viridis'.")
        )
    table = color_table(matplotlib.colormaps[name])
    table.flags.writeable = False  # it is shared by every later call
    return table


def _with_batch_and_channels(images: NDArray[Any]) -> NDArray[Any]:
    shape = images.shape
    if images.ndim == 2:
        images = images[np.newaxis, ..., np.newaxis]
    elif images.ndim == 3:
        images = images[np.newaxis] if shape[-1] in (1, 3, 4) else images[..., np.newaxis]
    if images.ndim != 4 or 0 in shape:
        raise ValueError(
            f"Expected at least one image: (batch, height, width, channels) or, grey, (batch, "
            f"height, width). Received: shape {shape}. Lay a volume out with kvis2.images.montage."
        )
    return images


def _checked_limits(limits: Any) -> Limits:
    values = np.asarray(limits, dtype=np.float64)
    if values.shape != (2,) or not values[0] < values[1]:
        raise ValueError(
            f"Expected a range (low, high) with low < high. Received: {limits!r}. "
            f"Give for example (0, 1), (-1, 1) or (0, 255)."
        )
    return float(values[0]), float(values[1])


def _known_limits(images: NDArray[Any]) -> Limits | None:
    if images.dtype == np.uint8:
        return 0.0, 255.0
    low, high = float(images.min()), float(images.max())
    for top in (1.0, 255.0):
        if low >= -top * _SLACK and high <= top + top * _SLACK:
            return 0.0, top
    return None


def _levels(images: NDArray[Any], limits: Limits | None) -> NDArray[np.uint8]:
    if images.dtype == np.uint8 and limits == (0.0, 255.0):
        return images
    values = images.astype(np.float64)
    low: Any
    high: Any
    if limits is None:
        low = values.min(axis=(1, 2, 3), keepdims=True)
        high = values.max(axis=(1, 2, 3), keepdims=True)
        high = np.where(high > low, high, low + 1)  # a constant image: black
    else:
        low, high = limits
    return np.rint(np.clip((values - low) / (high - low) * 255, 0, 255)).astype(np.uint8)
