"""What a model predicts for the probe images, as probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def forward_pass(model: keras.Model, images: np.ndarray) -> Callable[[np.ndarray], Any]:
    """Return `images -> model outputs` at inference, in one trace for all batch sizes.

    The weights are read at each call; a model compiled with `run_eagerly` stays eager.
    """

    def forward(batch: tf.Tensor) -> Any:
        return model(batch, training=False)

    dtype = tf.as_dtype(keras.config.floatx() if images.dtype.kind == "f" else images.dtype)
    if not model.run_eagerly:
        forward = tf.function(forward, [tf.TensorSpec((None, *images.shape[1:]), dtype)])
    return lambda batch: forward(tf.cast(batch, dtype))


def as_probabilities(outputs: np.ndarray, loss: Any = None) -> np.ndarray | None:
    """Turn the outputs of a classifier into probabilities.

    Args:
        outputs: `(batch, classes)`; probabilities stay as they are, logits go through a softmax,
            or a sigmoid where the loss is a binary one.
        loss: The model's loss, whose `from_logits` decides; without it, outputs outside of 0..1
            are logits.

    Returns:
        float32 `(batch, classes)`, or None where the outputs are not those of a classifier.
    """
    if outputs.ndim != 2:
        return None
    from_logits = getattr(loss, "from_logits", None)
    if from_logits is None:
        from_logits = outputs.min() < -1e-3 or outputs.max() > 1 + 1e-3
        if from_logits and outputs.shape[1] == 1:
            return None  # One number of any size: more likely a regression.
    if not from_logits:
        return outputs
    if outputs.shape[1] == 1 or isinstance(loss, keras.losses.BinaryCrossentropy):
        return 1 / (1 + np.exp(-outputs))
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def two_classes(probabilities: np.ndarray) -> np.ndarray:
    """Return a column for each class, also for the one output of a binary classifier."""
    if probabilities.shape[1] > 1:
        return probabilities
    return np.concatenate([1 - probabilities, probabilities], axis=1)
