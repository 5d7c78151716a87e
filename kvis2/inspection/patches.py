"""The patches of images that a unit responds to most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.explainers import Explainer
from kvis2.inspection.feature_maps import Features
from kvis2.models import Batch
from kvis2.passes import Probe
from kvis2.scores import ScoreLike
from kvis2.types import LayerReference


class Patch(NamedTuple):
    """One image patch that excites a unit.

    Attributes:
        value: The activation there.
        image: The number of the image in the dataset.
        position: Where in the layer's map, one index for each spatial axis.
        box: The receptive field in the image, `(start, stop)` for each spatial axis.
        pixels: The image within the box, in the dtype of the dataset.
    """

    value: float
    image: int
    position: tuple[int, ...]
    box: tuple[tuple[int, int], ...]
    pixels: np.ndarray


def top_patches(
    model: keras.Model,
    layer: LayerReference,
    units: int | Sequence[int],
    images: Any,
    *,
    count: int = 9,
    size: int | None = None,
    pre_activation: bool = False,
    by: Explainer | None = None,
    score: ScoreLike = None,
    batch_size: int | None = None,
) -> dict[int, list[Patch]]:
    """The patches of a dataset that excite each unit most, at most one from each image.

    With `by` they are the patches in which the unit matters most for a score: of concept relevance
    propagation, what a channel stands for where the model uses it, and not where it merely
    responds.

    The dataset is read once and not kept: memory holds one batch and `count` patches for each
    unit.

    Args:
        model: Any built Keras model with one input.
        layer: The layer of the units.
        units: Channels of the layer, or units of a dense layer (whose patch is the image).
        images: An array `(images, *spatial, channels)`, or anything that yields such batches, or
            batches `(images, labels)`: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
            generator.
        count: How many patches for each unit.
        size: Pixels per side of a patch; by default the receptive field, measured.
        pre_activation: Rank by what enters the activation.
        by: Rank by what this explainer gives each unit at each position of the layer, such as
            `LRP(model, layer=layer, keepdims=True)`, instead of by its activation.
        score: What `by` explains: a class, None for what the model predicts of each image, or any
            score that is the same for all images.
        batch_size: How many images one forward pass holds.

    Returns:
        For each unit its patches, the strongest first.

    Raises:
        ValueError: If there is no such unit, or no image, or `by` has no values for each unit.

    Example:
        >>> patches = top_patches(model, "block3b_add", [0, 5], dataset)
        >>> kvis2.images.save("unit5.png", kvis2.images.grid([p.pixels for p in patches[5]]))
        >>> relevance = LRP(model, layer="block3b_add", keepdims=True)
        >>> used = top_patches(model, "block3b_add", 5, dataset, by=relevance, score=243)
    """
    chosen = [int(units)] if isinstance(units, int | np.integer) else [int(unit) for unit in units]
    best: dict[int, list[Patch]] = {unit: [] for unit in chosen}
    method = Features(model, layer, pre_activation=pre_activation, batch_size=batch_size)
    if by is not None:
        by = _by_unit(model, layer, by, batch_size)
    field: list[int] | None = None
    start = 0
    for batch in _batches(images):
        if by is None:
            features = np.concatenate(list(method.of(Batch(model, batch))))
        else:
            features = np.asarray(by(score, batch))
        if field is None:
            _check_units(chosen, features.shape[-1])
            space = batch.shape[1:-1]
            field = [size] * len(space) if size else receptive_field(model, layer, space)
        for unit in chosen:
            best[unit] = _strongest(best[unit], features[..., unit], batch, start, field, count)
        start += len(batch)
    if start == 0:
        raise ValueError("Expected at least one image. Received: an empty dataset. Check it.")
    return best


def _by_unit(
    model: keras.Model, layer: LayerReference, by: Explainer, batch_size: int | None
) -> Explainer:
    """The explainer that patches are ranked by, with raw values for each unit of the layer."""
    wanted = models.find_layer(model, layer)
    if by.model is not model or by.layer is not wanted or not getattr(by, "keepdims", False):
        raise ValueError(
            "Expected an explainer of the same model and layer that keeps the channels. Received: "
            f"{type(by).__name__} of the layer {getattr(by.layer, 'name', None)!r}. Give for "
            f"example `LRP(model, layer={wanted.name!r}, keepdims=True)`."
        )
    changed = {} if batch_size is None else {"batch_size": batch_size}
    return by.with_settings(normalize=False, **changed)


def _check_units(units: Sequence[int], count: int) -> None:
    wrong = [unit for unit in units if not 0 <= unit < count]
    if wrong:
        raise ValueError(
            f"Expected units from 0 to {count - 1}. Received: {wrong[0]}. The layer has {count}."
        )


def _batches(images: Any) -> Iterator[np.ndarray]:
    if isinstance(images, np.ndarray):
        for start in range(0, len(images), 32):
            yield images[start : start + 32]
        return
    indexed = isinstance(images, keras.utils.PyDataset)
    batches: Iterable[Any] = (images[i] for i in range(len(images))) if indexed else images
    for batch in batches:
        yield np.asarray(batch[0] if isinstance(batch, list | tuple) else batch)


def _strongest(
    known: list[Patch],
    maps: np.ndarray,
    images: np.ndarray,
    start: int,
    field: Sequence[int],
    count: int,
) -> list[Patch]:
    """The `count` strongest of the known patches and the peaks of `maps`."""
    flat = maps.reshape(len(maps), -1)
    peaks = flat.argmax(axis=1)
    values = flat[np.arange(len(flat)), peaks]
    floor = known[-1].value if len(known) == count else -np.inf
    found = []
    for index in np.argsort(-values, kind="stable")[:count]:
        if not values[index] > floor:
            break
        position = tuple(int(i) for i in np.unravel_index(peaks[index], maps.shape[1:]))
        box = _box(position, maps.shape[1:], images.shape[1:-1], field)
        pixels = images[index][tuple(slice(*each) for each in box)].copy()
        found.append(Patch(float(values[index]), start + int(index), position, box, pixels))
    return sorted([*known, *found], key=lambda patch: (-patch.value, patch.image))[:count]


def _box(
    position: Sequence[int], size: Sequence[int], space: Sequence[int], field: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """The field around a position of a map, moved inside the image."""
    if not position:
        return tuple((0, length) for length in space)
    box = []
    for index, cells, length, wide in zip(position, size, space, field, strict=True):
        wide = min(wide, length)
        middle = (index + 0.5) * length / cells
        first = int(np.clip(round(middle - wide / 2), 0, length - wide))
        box.append((first, first + wide))
    return tuple(box)


def receptive_field(model: keras.Model, layer: LayerReference, space: Sequence[int]) -> list[int]:
    """How many pixels along each axis the middle of a layer's map depends on, measured.

    Args:
        model: A model with one input.
        layer: The layer.
        space: Size of the input along each spatial axis.

    Returns:
        The width of the field along each axis; all of the image for a layer without space.
    """
    found = models.find_layer(model, layer)
    # Before its activation, a unit that is off has a gradient.
    probe = Probe(model, found, pre_activation=models.activation_of(found) is not None)
    structure = models.input_structure(model)
    channels = 3 if structure is None else keras.tree.flatten(structure)[0].shape[-1]
    noise = np.random.default_rng(0).random(
        (models.fixed_batch(model) or 4, *space, channels), np.float32
    )

    @tf.function(autograph=False)
    def slope(images: tf.Tensor) -> tf.Tensor:
        middle = probe.features([images])
        for _ in range(middle.shape.rank - 2):
            middle = tf.gather(middle, tf.shape(middle)[1] // 2, axis=1)
        weights = tf.random.stateless_normal(tf.shape(middle), [0, 0])
        return tf.gradients(middle * weights, images)[0]

    run = slope.get_concrete_function(tf.TensorSpec(noise.shape, tf.float32))
    seen = np.abs(run(tf.constant(noise)).numpy()).max(axis=(0, -1)) > 0
    widths = []
    for axis, length in enumerate(space):
        others = tuple(each for each in range(seen.ndim) if each != axis)
        line = np.flatnonzero(seen.any(axis=others))
        widths.append(int(line[-1] - line[0] + 1) if line.size else length)
    return widths
