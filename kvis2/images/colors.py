"""Arrays to colours: images and heatmaps of any kind and range become uint8 RGB.

No model and no drawing here; `kvis2.images.panels` composes what this module colours, and
`kvis2.images` is where users find both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    pass

PictureArray: TypeAlias = NDArray[np.uint8]
"""A uint8 RGB array of shape `(height, width, 3)`."""

Limits: TypeAlias = tuple[float, float]
"""The two values that stand at the two ends of a range of grey levels or colours."""

Display: TypeAlias = Callable[[Any], Any] | Limits
"""How to undo a preprocessing: a function `images -> images`, or the `(low, high)` of the data."""

# Values this far outside a range still count as inside it: half a grey level.
SLACK = 0.5 / 255


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
    limits = _known_limits(images) if display is None else checked_limits(display)
    if channels == 4 and limits is None:
        images = images[..., :3]
    levels = _levels(images, limits)
    if levels.shape[-1] == 4:
        opacity = levels[..., 3:] / np.float32(255)
        levels = np.rint(levels[..., :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)
    return np.repeat(levels, 3, axis=-1) if levels.shape[-1] == 1 else levels


def rgb(image: ArrayLike, display: Display | None = None) -> PictureArray:
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


def checked_limits(limits: Any) -> Limits:
    """Return a range as two floats; refuse what is none."""
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
        if low >= -top * SLACK and high <= top + top * SLACK:
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
