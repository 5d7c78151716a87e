"""Random shifts by whole pixels, as a layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kvis2.transforms import Jitter


@keras.saving.register_keras_serializable(package="kvis2")
class RandomJitter(keras.layers.Layer):
    """Shifts a batch by a random number of whole pixels along every spatial axis, round the edges.

    While training only. No pixel is interpolated and none is lost, which
    `keras.layers.RandomTranslation` does; Keras has layers for the other transforms.

    Args:
        pixels: The largest shift: from 1 in pixels, below 1 as a fraction of each axis.
        seed: Seed of the shifts.
        **options: `name` and `dtype`, as for every Keras layer.

    Example:
        >>> RandomJitter(2, seed=0)(images, training=True).shape
        TensorShape([8, 224, 224, 3])
    """

    def __init__(self, pixels: float = 8, seed: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.pixels = pixels
        self.seed = seed
        self._jitter = Jitter(pixels)
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The images, rolled while training."""
        if not training:
            return inputs
        seed = tf.convert_to_tensor(self.seed_generator.next())
        return self._jitter(inputs, tf.cast(tf.reshape(seed, [2]) % 2**30, tf.int32))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        return {**super().get_config(), "pixels": self.pixels, "seed": self.seed}
