"""The weights of a layer, one kernel for each of its filters."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from kvis2.images import colorize, grid


def kernels(layer: keras.layers.Layer) -> np.ndarray:
    """The weights of a layer, one kernel for each of its filters.

    Args:
        layer: A built layer with a kernel: any convolution (transposed, depthwise, and separable,
            whose depthwise part is meant), or Dense.

    Returns:
        float32 `(filters, *spatial, inputs)`; `(units, inputs)` of a dense layer; `(channels *
        depth_multiplier, *spatial, 1)` of a depthwise one.

    Raises:
        ValueError: If the layer has no kernel, or is not built.

    Example:
        >>> kernels(model.get_layer("stem_conv")).shape
        (32, 3, 3, 3)
    """
    kernel = getattr(layer, "depthwise_kernel", getattr(layer, "kernel", None))
    if kernel is None:
        raise ValueError(
            "Expected a built layer with a kernel, such as a convolution. Received: "
            f"'{layer.name}', a {type(layer).__name__}. Choose another layer, or build the model."
        )
    values = tf.cast(tf.convert_to_tensor(kernel), tf.float32).numpy()
    if hasattr(layer, "depth_multiplier"):
        return np.moveaxis(values.reshape(*values.shape[:-2], -1), -1, 0)[..., None]
    if "Transpose" in type(layer).__name__:
        return np.moveaxis(values, -2, 0)
    return np.moveaxis(values, -1, 0)


def kernel_sheet(
    layer: keras.layers.Layer,
    *,
    filters: int = 64,
    inputs: int = 8,
    size: int = 32,
    colormap: str = "seismic",
) -> np.ndarray:
    """The kernels of a layer as one picture.

    Kernels over three channels are shown in colour, 0 as mid-grey, one tile for each filter.
    Others are one row for each filter with a tile for each input channel, 0 in the middle of the
    colormap. Each filter is scaled by its own largest magnitude.

    Args:
        layer: As for `kernels`; a one-dimensional kernel is a row of pixels, of a
            three-dimensional one the middle slice is shown.
        filters: How many filters are shown at most.
        inputs: How many input channels.
        size: Pixels per side of a tile.
        colormap: Any diverging colormap of matplotlib.

    Returns:
        uint8 RGB `(height, width, 3)`.
    """
    values = planes(kernels(layer)[:filters])
    peaks = np.abs(values).max(axis=(1, 2, 3), keepdims=True)
    values = np.divide(values, peaks, out=np.zeros_like(values), where=peaks > 0)
    if values.shape[-1] == 3:
        return grid([_enlarged(((each + 1) * 127.5).astype(np.uint8), size) for each in values])
    shown = min(inputs, values.shape[-1])
    tiles = [
        _enlarged(colorize(each[..., channel], colormap, limits=(-1.0, 1.0)), size)
        for each in values
        for channel in range(shown)
    ]
    return grid(tiles, columns=None if shown == 1 else shown, margin=2)


def planes(values: np.ndarray) -> np.ndarray:
    """Kernels of any rank as `(filters, height, width, inputs)`."""
    if values.ndim == 2:  # Dense: the inputs are a row of pixels.
        return values[:, None, :, None]
    if values.ndim == 3:
        return values[:, None]
    return values[:, values.shape[1] // 2] if values.ndim == 5 else values


def _enlarged(tile: np.ndarray, size: int) -> np.ndarray:
    """Whole-number enlargement: each weight is a square of one colour."""
    factor = max(1, size // max(tile.shape[:2]))
    return tile.repeat(factor, axis=0).repeat(factor, axis=1)
