"""Images whose background is exchanged, and what a model answers then."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2.callbacks.looked import probabilities_of
from kvis2.callbacks.predictions import two_classes
from kvis2.localization import object_masks
from kvis2.passes import Prediction
from kvis2.shown import Shown


class Annotated(Shown):
    """Images with their classes and with masks of their objects.

    Args:
        images: `(batch, height, width, channels)` as the model takes them.
        labels: Classes, ints `(batch,)`, or one-hot rows.
        masks_or_boxes: bool `(batch, height, width)`; or for each image a box `[x0, y0, x1, y1]` in
            pixels, or a list of boxes.

    Raises:
        ValueError: If they do not fit each other.
    """

    def __init__(self, images: Any, labels: Any, masks_or_boxes: Any) -> None:
        self.images = np.asarray(images)
        if self.images.ndim != 4 or len(self.images) < 2:
            raise ValueError(
                "Expected at least two images (batch, height, width, channels), whose "
                f"backgrounds can be exchanged. Received: shape {self.images.shape}."
            )
        self.targets = np.asarray(labels)
        if len(self.targets) != len(self.images):
            raise ValueError(
                f"Expected a label for each of the {len(self.images)} images. Received: "
                f"{len(self.targets)}."
            )
        one_hot = self.targets.ndim == 2 and self.targets.shape[1] > 1
        self.classes = self.targets.argmax(1) if one_hot else self.targets.reshape(-1).astype(int)
        self.masks = object_masks(masks_or_boxes, *self.images.shape[:3])

    def __len__(self) -> int:
        """How many there are."""
        return len(self.images)


def exchanged(images: Any, masks: Any, others: Any) -> Any:
    """`mask * image + (1 - mask) * other`: all outside of the masks from other images.

    Args:
        images: `(batch, height, width, channels)`, arrays or tensors.
        masks: `(batch, height, width)` bool.
        others: As many images.
    """
    return tf.where(masks[..., tf.newaxis], images, others)


def shuffled(count: int, seed: int) -> np.ndarray:
    """For each of `count` images another one, `(count,)`: a rotation of a random order."""
    order = np.random.default_rng(seed).permutation(count)
    other = np.empty(count, int)
    other[order] = np.roll(order, 1)
    return other


def counterfactual_figures(
    model: keras.Model, annotated: Annotated, *, exchanges: int = 2, seed: int = 0
) -> dict[str, float]:
    """What a model answers when all outside of the masks is exchanged with another image's.

    Args:
        model: A classifier.
        annotated: Images with classes and masks.
        exchanges: How many other images each one is exchanged with.
        seed: Which ones these are.

    Returns:
        "accuracy" as it is; "exchanged_accuracy", of the object before other backgrounds; "flips",
        the share of answers that another background changes.

    Raises:
        ValueError: If the model's first output is not that of a classifier.
    """
    prediction = Prediction(model)

    def answers(images: Any) -> np.ndarray:
        probabilities = probabilities_of(prediction.of(images), 0)
        if probabilities is None:
            raise ValueError(
                "Expected a classifier, whose answers can flip. Received: "
                f"'{model.name}', whose first output says nothing of classes. Compile it with the "
                "loss of a classifier."
            )
        return two_classes(probabilities).argmax(axis=1)

    before = answers(annotated.images)
    right, flips = [], []
    for index in range(exchanges):
        others = annotated.images[shuffled(len(annotated), seed + index)]
        after = answers(np.asarray(exchanged(annotated.images, annotated.masks, others)))
        right.append(np.mean(after == annotated.classes))
        flips.append(np.mean(after != before))
    return {
        "accuracy": float(np.mean(before == annotated.classes)),
        "exchanged_accuracy": float(np.mean(right)),
        "flips": float(np.mean(flips)),
    }
