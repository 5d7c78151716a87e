"""A classifier's kernel over a feature map: class activation maps as a layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="kvis2")
class CamLayer(keras.layers.Layer):
    """The class activation maps of all classes: `M_c = sum_k w_kc A_k`.

    The weights are those of the classifier itself, shared: what trains one trains the other. For a
    model that ends in global average pooling and a dense layer, the map of class c is that of
    `kvis2.CAM(normalize=False, resize=False)`, and its mean over space plus the bias is the score.

    Args:
        dense: The `keras.layers.Dense` that classifies the pooled features; built by now, or when
            this layer is.
        **options: `name` and `dtype`, as for every Keras layer.

    Raises:
        TypeError: If `dense` is another layer.

    References:
        Zhou et al. (2016), Learning Deep Features for Discriminative Localization.
        https://arxiv.org/abs/1512.04150

    Example:
        >>> dense = keras.layers.Dense(10, activation="softmax")
        >>> features = keras.Input((7, 7, 64))
        >>> predictions = dense(keras.layers.GlobalAveragePooling2D()(features))
        >>> maps = CamLayer(dense)(features)  # (batch, 7, 7, 10)
        >>> model = keras.Model(features, [predictions, maps])
    """

    def __init__(self, dense: keras.layers.Dense, **options: Any) -> None:
        if not isinstance(dense, keras.layers.Dense):
            raise TypeError(
                f"Expected the Dense layer of the classifier. Received: {type(dense).__name__}. "
                "Give the layer that follows global average pooling."
            )
        super().__init__(**options)
        self.dense = dense

    def build(self, input_shape: Any) -> None:
        """Build the classifier, if nothing has yet."""
        if not self.dense.built:
            self.dense.build((input_shape[0], input_shape[-1]))
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps `(batch, *spatial, classes)` of features `(batch, *spatial, channels)`."""
        return keras.ops.matmul(inputs, keras.ops.cast(self.dense.kernel, inputs.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the features, with classes in the place of channels."""
        return (*input_shape[:-1], self.dense.units)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        dense = keras.saving.serialize_keras_object(self.dense)
        return {**super().get_config(), "dense": dense}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CamLayer:
        """The layer of `get_config`."""
        dense = keras.saving.deserialize_keras_object(config.pop("dense"))
        return cls(dense, **config)
