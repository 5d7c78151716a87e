"""Heat laid over images inside the graph."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2.images import color_table
from kvis2.passes import resize


@keras.saving.register_keras_serializable(package="kvis2")
class Overlay(keras.layers.Layer):
    """Images with their heatmaps laid over them, as `kvis2.images.overlay` does, in the graph.

    `(1 - a) image + a colour`, `a = alpha |h|`: a model in, a picture out. Images are in
    `value_range`; what comes out is in 0..255, float32, to be cast to uint8 by whoever shows it.

    Args:
        alpha: The largest weight of the colour, 0..1.
        colormap: Name of a matplotlib colormap; "inferno" for heat in 0..1. For signed maps in
            -1..1 take a diverging one, such as "RdBu_r", and `signed=True`.
        signed: Whether maps reach from -1 to 1.
        value_range: The values of black and white in the images.
        **options: `name` and `dtype`, as for every Keras layer.

    Raises:
        ValueError: If `alpha` or the colormap is none.

    Example:
        >>> Overlay(value_range=(0, 1))([images, GradCAM(model)(243, images)]).shape
        TensorShape([8, 224, 224, 3])
    """

    def __init__(
        self,
        alpha: float = 0.8,
        colormap: str = "inferno",
        signed: bool = False,
        value_range: tuple[float, float] = (0.0, 255.0),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not 0 <= alpha <= 1:
            raise ValueError(f"Expected alpha within 0..1. Received: {alpha}.")
        self.alpha = alpha
        self.colormap = colormap
        self.signed = signed
        self.value_range = tuple(value_range)
        self._table = color_table(colormap).astype(np.float32)

    def call(self, inputs: Any) -> tf.Tensor:
        """Pictures `(batch, height, width, 3)` of images and maps of any size."""
        images, maps = inputs
        low, high = self.value_range
        levels = tf.clip_by_value((tf.cast(images, tf.float32) - low) / (high - low), 0.0, 1.0)
        levels = tf.round(255.0 * levels)
        if levels.shape[-1] == 1:
            levels = tf.repeat(levels, 3, axis=-1)
        maps = tf.cast(maps, tf.float32)
        size = [levels.shape[i] or tf.shape(levels)[i] for i in (1, 2)]
        maps = resize(maps, size)
        share = (maps + 1.0) / 2.0 if self.signed else maps
        count = len(self._table)
        index = tf.clip_by_value(tf.cast(share * count, tf.int32), 0, count - 1)
        colors = tf.gather(tf.constant(self._table), index)
        weight = self.alpha * tf.clip_by_value(tf.abs(maps), 0.0, 1.0)[..., tf.newaxis]
        return tf.floor((1.0 - weight) * levels + weight * colors + 0.5)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the images, in three channels."""
        return (*input_shape[0][:-1], 3)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        own = {name: getattr(self, name) for name in ("alpha", "colormap", "signed", "value_range")}
        return {**super().get_config(), **own}
