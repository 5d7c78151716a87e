"""Where a map belongs: which inputs a layer sees, along which of their axes, and at which size."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from kvis2 import models
from kvis2.models import ancestors, axes_between
from kvis2.passes import Probe, resize
from kvis2.types import Tensors


class Place(NamedTuple):
    """How the space of a layer lies in that of an input.

    Attributes:
        order: The order in which the layer's spatial axes are those of the input.
        size: The lengths of these axes of the input.
        extents: What of each of these axes the layer sees.
    """

    order: list[int]
    size: list[int | tf.Tensor]
    extents: list[models.Extent]


def placed(maps: tf.Tensor, probe: Probe, inputs: Tensors, resized: bool) -> list[tf.Tensor | None]:
    """A layer's `maps` for every input that the layer sees; None for the others.

    Where the layer's space is that of the input the map is brought to the input's axes and, if so
    asked, to its size. Where it is a space of its own, as of the spectrogram of a sound, the map
    stays as the layer has it.

    Args:
        maps: `(batch, *spatial)`, from the layer that the probe watched.
        probe: The probe that watched the layer.
        inputs: The flat inputs.
        resized: Whether the maps are brought to the size of the input.
    """
    result: list[tf.Tensor | None] = []
    for index, each in enumerate(inputs):
        if not feeds(each, probe, inputs):
            result.append(None)
            continue
        place = place_in(maps.shape.rank - 1, probe, inputs, index)
        result.append(maps if place is None else in_place(maps, place, resized))
    return result


def in_place(maps: tf.Tensor, place: Place, resized: bool = True) -> tf.Tensor:
    """Maps along the axes of an input, and at its size if so asked.

    Of a layer that sees a part of the input they are always at its size: the grid has no room for
    the rest.
    """
    if place.order != sorted(place.order):
        maps = tf.transpose(maps, [0, *(1 + i for i in place.order)])
    if all(each == models.WHOLE for each in place.extents):
        return resize(maps, place.size) if resized else maps
    turned = [i + 1 for i, each in enumerate(place.extents) if each.stop < each.start]
    pixels = [
        (tf.cast(tf.round(min(each) * tf.cast(n, tf.float32)), tf.int32), _pixels(each, n))
        for each, n in zip(place.extents, place.size, strict=True)
    ]
    part = resize(tf.reverse(maps, turned), [length for _, length in pixels])
    ends = []
    for axis, ((first, length), n) in enumerate(zip(pixels, place.size, strict=True), start=1):
        last = first + length
        inside = tf.range(tf.maximum(-first, 0), length - tf.maximum(last - n, 0))
        part = tf.gather(part, inside, axis=axis)  # What lies over the padding is cut off.
        ends.append((tf.maximum(first, 0), tf.maximum(n - last, 0)))
    whole = tf.pad(part, [(0, 0), *ends])
    return tf.ensure_shape(whole, [None, *(n if isinstance(n, int) else None for n in place.size)])


def _pixels(extent: models.Extent, length: int | tf.Tensor) -> int | tf.Tensor:
    """How many pixels of an axis an extent has: at least one."""
    share = max(extent) - min(extent)
    if isinstance(length, int):
        return max(1, round(share * length))
    return tf.maximum(1, tf.cast(tf.round(share * tf.cast(length, tf.float32)), tf.int32))


def place_in(rank: int, probe: Probe, inputs: Tensors, index: int) -> Place | None:
    """How a map of `rank` spatial axes lies in one of the inputs; None if its space is its own."""
    space = probe.input_space(inputs, index)
    size = _lengths(inputs[index], space)
    followed = _followed(probe, inputs, index)
    if followed is None:  # Not known, so the rank decides.
        whole = [models.WHOLE] * rank
        return Place(list(range(rank)), size, whole) if len(space) == rank else None
    axes = [each for each in followed if each is not None]
    extents = models.extents_between(probe.watched(inputs), inputs[index])
    if len(axes) != rank or set(axes) != set(space) or extents is None:
        return None
    parts = [extents.get(axis, models.WHOLE) for axis in space]
    known = [each for each in parts if each is not None]
    if len(known) < len(parts):
        return None
    return Place(sorted(range(rank), key=axes.__getitem__), size, known)


def _followed(probe: Probe, inputs: Tensors, index: int) -> list[int | None] | None:
    """For each spatial axis of the watched layer the axis of the input that it is."""
    watched = probe.watched(inputs)
    if probe.is_reshaped or not tf.is_tensor(watched) or not tf.is_symbolic_tensor(watched):
        return None
    axes = axes_between(watched, inputs[index])
    if axes is None or len(axes) < 3:
        return None
    first = models.data_format(probe.model, probe.layer) == "channels_first"
    return list(axes[2:] if first else axes[1:-1])


def spatial_size(probe: Probe, inputs: Tensors, index: int) -> list[int | tf.Tensor]:
    """The lengths of the spatial axes of one of the inputs: static where known."""
    return _lengths(inputs[index], probe.input_space(inputs, index))


def channel_axis(probe: Probe, inputs: Tensors, index: int) -> int | None:
    """The axis of an input that holds its channels; None for vectors, tokens and grey images."""
    rank = inputs[index].shape.rank
    if len(probe.input_space(inputs, index)) in (0, rank - 1):
        return None
    return 1 if models.data_format(probe.model) == "channels_first" else rank - 1


def _lengths(inputs: tf.Tensor, axes: list[int]) -> list[int | tf.Tensor]:
    dynamic = tf.shape(inputs)
    return [dynamic[i] if inputs.shape[i] is None else inputs.shape[i] for i in axes]


def feeds(source: tf.Tensor, probe: Probe, inputs: Tensors) -> bool:
    """Whether the watched layer is computed from one of the inputs; taken for granted if eager."""
    return any(moves(source, each) for each in models.tensors_of(probe.watched(inputs)))


def moves(inputs: tf.Tensor, tensor: tf.Tensor) -> bool:
    """Whether a tensor is computed from this input; taken for granted when eager."""
    return not tf.is_symbolic_tensor(tensor) or inputs.op in ancestors(tensor)
