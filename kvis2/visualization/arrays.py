"""Arrays as keras-vis makes, scales and indexes them; no model here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kvis2.images import PictureArray

InputRange = tuple[float, float]
"""Lowest and highest value of an input; two ints ask for uint8 pictures where they fit."""

_random = {"generator": np.random.default_rng()}


def generator() -> np.random.Generator:
    """What `random_array` and `Jitter` draw from; no generator of a model is touched."""
    return _random["generator"]


def set_random_seed(seed_value: int = 1337) -> None:
    """Make `random_array` and `Jitter` repeatable, and Keras (with NumPy and TensorFlow) as well.

    Args:
        seed_value: The same seed gives the same numbers.

    Example:
        >>> set_random_seed()
        >>> first = random_array((4, 4, 3))
    """
    keras.utils.set_random_seed(seed_value)
    _random["generator"] = np.random.default_rng(seed_value)


def random_array(shape: Sequence[int], mean: float = 128.0, std: float = 20.0) -> np.ndarray:
    """Uniform noise of an exact mean and standard deviation.

    `std * (u - mean(u)) / (std(u) + eps) + mean` with u uniform: bounded by `mean +- sqrt(3) std`.

    Args:
        shape: The shape of the array.
        mean: Its mean.
        std: Its standard deviation.

    Returns:
        float64, of `shape`.

    Example:
        >>> round(float(random_array((8, 8, 3)).mean()), 3)
        128.0
    """
    noise = generator().random(tuple(shape))
    noise = (noise - noise.mean()) / (noise.std() + keras.config.epsilon())
    return std * noise + mean


def normalize(array: Any, min_value: float = 0.0, max_value: float = 1.0) -> np.ndarray:
    """Stretch an array to a range: `(hi - lo) (a - min a) / (max a - min a + eps) + lo`.

    A constant array becomes `lo`.

    Args:
        array: Numbers, any shape.
        min_value: lo.
        max_value: hi.

    Returns:
        float array of the same shape.

    Example:
        >>> normalize([2.0, 4.0, 6.0]).round(3).tolist()
        [0.0, 0.5, 1.0]
    """
    array = np.asarray(array)
    low, high = array.min(), array.max()
    unit = (array - low) / (high - low + keras.config.epsilon())
    return (max_value - min_value) * unit + min_value


def deprocess_input(input_array: Any, input_range: InputRange = (0, 255)) -> np.ndarray:
    """Centre the contrast of an optimised input: five standard deviations fill half the range.

    `lo + (hi - lo) clip(0.1 (a - mean a) / (std a + eps) + 0.5, 0, 1)`. The colours are therefore
    not those that the model saw; `Optimizer.minimize(deprocess="none")` returns these.

    Args:
        input_array: One input, any shape; it is not changed.
        input_range: (lo, hi).

    Returns:
        float array of the same shape, within the range.

    Example:
        >>> deprocess_input([0.0, 1.0, 2.0, 3.0]).round(2).tolist()
        [93.29, 116.1, 138.9, 161.71]
    """
    array = np.asarray(input_array)
    array = 0.1 * (array - array.mean()) / (array.std() + keras.config.epsilon()) + 0.5
    low, high = input_range
    return (high - low) * np.clip(array, 0.0, 1.0) + low


def quantized(array: np.ndarray, input_range: InputRange) -> np.ndarray:
    """A uint8 picture, cut off below the point, if the range was given in ints and fits one.

    A range of 0 to 1, or one that leaves 0..255, is no range of grey levels even in ints: the
    array is returned as it is.
    """
    low, high = input_range
    is_integer = all(isinstance(end, int | np.integer) for end in input_range)
    if not is_integer or low < 0 or high > 255 or high - low <= 1:
        return array
    return np.clip(array, low, high).astype(np.uint8)


def is_channels_first() -> bool:
    """Whether the global image data format has the channels before space."""
    return keras.config.image_data_format() == "channels_first"


def get_img_shape(img: Any) -> tuple[Any, ...]:
    """`(samples, channels, *spatial)` of an image batch in the global image data format.

    Args:
        img: An array or tensor, symbolic or not.

    Returns:
        The sizes; None where a symbolic tensor leaves one open.

    Example:
        >>> get_img_shape(np.zeros((1, 224, 200, 3)))
        (1, 3, 224, 200)
    """
    shape = tuple(img.shape)
    if is_channels_first():
        return shape
    return (shape[0], shape[-1], *shape[1:-1])


class _Slicer:
    """Indices written for channels_first, in the order of the global image data format."""

    def __getitem__(self, item: tuple[Any, ...]) -> tuple[Any, ...]:
        if is_channels_first():
            return item
        sample, channel, *spatial = item
        return (sample, *spatial, channel)


slicer = _Slicer()
"""`array[slicer[:, i, ...]]` is channel i of a batch in either image data format."""


def bgr2rgb(img: Any) -> np.ndarray:
    """The image with its last axis reversed: BGR to RGB, or back.

    Example:
        >>> bgr2rgb([[[1, 2, 3]]]).tolist()
        [[[3, 2, 1]]]
    """
    return np.asarray(img)[..., ::-1]


def overlay(array1: Any, array2: Any, alpha: float = 0.5) -> np.ndarray:
    """`array1 * alpha + array2 * (1 - alpha)`, cut off to the dtype of `array1`.

    Neither ranges nor dtypes are brought together: a float image in 0..1 vanishes beside a uint8
    heatmap. `kvis2.images.overlay` colours a heatmap and lays it over any kind of image.

    Args:
        array1: The array on top, whose dtype the result has.
        array2: The array below, of the same shape.
        alpha: How much of `array1` is seen, 0..1.

    Returns:
        An array of the same shape.

    Raises:
        ValueError: If alpha is outside 0..1 or the shapes differ.

    Example:
        >>> overlay(np.uint8([0, 101, 255]), np.uint8([255, 100, 0])).tolist()
        [127, 100, 127]
    """
    array1, array2 = np.asarray(array1), np.asarray(array2)
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(
            f"Expected `alpha` from 0 to 1. Received: {alpha!r}. Give for example 0.5."
        )
    if array1.shape != array2.shape:
        raise ValueError(
            f"Expected two arrays of one shape. Received: {array1.shape} and {array2.shape}. "
            "Colour the heatmap first, and resize one of them."
        )
    return (array1 * alpha + array2 * (1.0 - alpha)).astype(array1.dtype)


def stitch_images(images: Sequence[Any], margin: int = 5, cols: int = 5) -> PictureArray | None:
    """Lay images out in rows on black.

    Args:
        images: `(height, width)` or `(height, width, channels)` each, all of one shape.
        margin: Black pixels between neighbours, none around the edge.
        cols: Images in a row.

    Returns:
        One image in the dtype of the first, or None if there are no images.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> stitch_images([np.ones((4, 6, 3))] * 7).shape
        (13, 50, 3)
    """
    arrays = [np.asarray(image) for image in images]
    if not arrays:
        return None
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(
            f"Expected images of one shape. Received: {sorted(shapes)}. Resize them to one size; "
            "`kvis2.images.grid` takes images of several."
        )
    height, width, *channels = arrays[0].shape
    columns, rows = min(len(arrays), cols), -(-len(arrays) // cols)
    down, right = height + margin, width + margin
    canvas = np.zeros((rows * down - margin, columns * right - margin, *channels), arrays[0].dtype)
    for index, array in enumerate(arrays):
        top, left = index // cols * down, index % cols * right
        canvas[top : top + height, left : left + width] = array
    return canvas
