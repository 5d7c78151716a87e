"""Random changes of the image that the model sees at every step of an optimisation.

A picture that excites a unit wherever it is shifted, turned and scaled to cannot rely on patterns
of single pixels. A transform is a function `(images, seed) -> images`; all images of a batch get
the same change at a step, so it does not matter what an image is batched with. The random numbers
come from `seed` alone: no generator of NumPy, Keras or TensorFlow is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from kvis2.passes import along, blur, resize

Transform: TypeAlias = "Callable[[tf.Tensor, tf.Tensor], tf.Tensor]"
"""`(images (batch, *spatial, channels), seed int32 (2,)) -> images`, maybe of another size."""


def _spatial_axes(images: tf.Tensor) -> range:
    axes = range(1, images.shape.rank - 1)
    if not axes:
        raise ValueError(
            "Expected inputs of shape (batch, ≥1 spatial axis, channels) for this transform. "
            f"Received: shape {tuple(images.shape)}. A vector has no neighbours: leave it out, or "
            "give transforms by input, such as {'image': [Jitter(8)]}."
        )
    return axes


def _uniform(seed: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return tf.random.stateless_uniform([], seed, low, high)


def split(seed: tf.Tensor, count: int) -> list[tf.Tensor]:
    """`count` independent seeds, int32 `(2,)` each."""
    return tf.unstack(tf.random.split(seed, count))


@dataclass(frozen=True)
class Jitter:
    """Shifts the image along every spatial axis by a random number of pixels, round the edges.

    Args:
        pixels: The largest shift: from 1 in pixels, below 1 as a fraction of each axis; or one
            number for each axis.

    Example:
        >>> ActivationMaximization(model, transforms=[Jitter(16)])(20)
    """

    pixels: float | Sequence[float] = 8

    def __post_init__(self) -> None:
        given = self.pixels
        values = given if isinstance(given, int | float) else tuple(given)
        if min(values if isinstance(values, tuple) else (values,)) < 0:
            raise ValueError(f"Expected a shift that is not negative. Received: {given!r}.")
        object.__setattr__(self, "pixels", values)

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The images, rolled."""
        axes = _spatial_axes(images)
        given = self.pixels if isinstance(self.pixels, tuple) else (self.pixels,) * len(axes)
        if len(given) != len(axes):
            raise ValueError(
                f"Expected a shift for each of the {len(axes)} spatial axes. Received: {given}. "
                "Give one number for all."
            )
        sizes = tf.shape(images)
        largest = [
            tf.cast(tf.cast(sizes[axis], tf.float32) * each, tf.int32) if each < 1 else int(each)
            for axis, each in zip(axes, given, strict=True)
        ]
        shifts = [
            tf.random.stateless_uniform([], one, -most, most + 1, dtype=tf.int32)
            for one, most in zip(split(seed, len(axes)), largest, strict=True)
        ]
        return tf.ensure_shape(tf.roll(images, shifts, list(axes)), images.shape)


@dataclass(frozen=True)
class Scale:
    """Zooms by a random factor about the centre; the size stays, edges are held.

    Args:
        low: The smallest factor.
        high: The largest; above 1 enlarges.
    """

    low: float = 0.9
    high: float = 1.1

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(
                f"Expected factors 0 < low <= high. Received: {self.low} and {self.high}. "
                "Give for example 0.9 and 1.1."
            )

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The images, zoomed."""
        factor = _uniform(seed, self.low, self.high)
        for axis in _spatial_axes(images):
            length = tf.cast(tf.shape(images)[axis], tf.float32)
            middle = (length - 1.0) / 2.0
            positions = (tf.range(length) - middle) / factor + middle
            images = _sampled(images, axis, positions)
        return images


@dataclass(frozen=True)
class RandomCrop:
    """A random part of the image, enlarged to its size.

    Args:
        low: The shortest side of the part, as a fraction of the image's.
        high: The longest.

    References:
        Fel et al. (2023), Unlocking Feature Visualization for Deeper Networks with MAgnitude
        Constrained Optimization. https://arxiv.org/abs/2306.06805
    """

    low: float = 0.5
    high: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high <= 1:
            raise ValueError(
                f"Expected fractions 0 < low <= high <= 1. Received: {self.low} and {self.high}. "
                "Give for example 0.5 and 0.9."
            )

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The parts, of the size of the images."""
        axes = _spatial_axes(images)
        first, *seeds = split(seed, len(axes) + 1)
        part = _uniform(first, self.low, self.high)
        for axis, one in zip(axes, seeds, strict=True):
            length = tf.cast(tf.shape(images)[axis], tf.float32)
            start = tf.random.stateless_uniform([], one) * (1.0 - part) * length
            positions = start + (tf.range(length) + 0.5) * part - 0.5
            images = _sampled(images, axis, positions)
        return images


def _sampled(images: tf.Tensor, axis: int, positions: tf.Tensor) -> tf.Tensor:
    """Linear interpolation along one axis at `positions` in pixels, the edges held."""
    length = tf.cast(tf.shape(images)[axis], tf.float32)
    inside = tf.clip_by_value(positions, 0.0, length - 1.0)
    weights = tf.maximum(0.0, 1.0 - tf.abs(inside[:, None] - tf.range(length)[None, :]))
    return tf.ensure_shape(along(images, axis, weights), images.shape)


@dataclass(frozen=True)
class Rotate:
    """Turns the image by a random angle about its centre, bilinearly, the edges held.

    The last two spatial axes span the plane of the turn.

    Args:
        degrees: The largest angle, either way.
    """

    degrees: float = 10.0

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The images, turned."""
        if images.shape.rank < 4:
            raise ValueError(
                "Expected inputs with at least two spatial axes for Rotate. Received: shape "
                f"{tuple(images.shape)}. Use Jitter and Scale alone."
            )
        angle = _uniform(seed, -self.degrees, self.degrees) * (3.141592653589793 / 180.0)
        shape = tf.shape(images)
        flat = tf.reshape(images, tf.concat([[-1], shape[-3:]], axis=0))
        turned = _rotated(flat, tf.cos(angle), tf.sin(angle))
        return tf.ensure_shape(tf.reshape(turned, shape), images.shape)


def _rotated(images: tf.Tensor, cosine: tf.Tensor, sine: tf.Tensor) -> tf.Tensor:
    height, width = (tf.cast(n, tf.float32) for n in tf.unstack(tf.shape(images)[1:3]))
    down = tf.range(height)[:, None] - (height - 1.0) / 2.0
    right = tf.range(width)[None, :] - (width - 1.0) / 2.0
    y = tf.clip_by_value(cosine * down - sine * right + (height - 1.0) / 2.0, 0.0, height - 1.0)
    x = tf.clip_by_value(sine * down + cosine * right + (width - 1.0) / 2.0, 0.0, width - 1.0)
    top, left = tf.floor(y), tf.floor(x)
    pixels = tf.reshape(images, [tf.shape(images)[0], -1, tf.shape(images)[3]])
    result = tf.zeros_like(pixels)
    for row, row_weight in ((top, 1.0 - (y - top)), (top + 1.0, y - top)):
        for column, column_weight in ((left, 1.0 - (x - left)), (left + 1.0, x - left)):
            # A row or column past the edge has weight zero.
            index = tf.minimum(row, height - 1.0) * width + tf.minimum(column, width - 1.0)
            corner = tf.gather(pixels, tf.cast(tf.reshape(index, [-1]), tf.int32), axis=1)
            result += corner * tf.reshape(row_weight * column_weight, [1, -1, 1])
    return tf.reshape(result, tf.shape(images))


@dataclass(frozen=True)
class Pad:
    """Adds a border, so that what lies at the edge is shrunk inwards with the rest.

    The loop brings the image back to its size afterwards.

    Args:
        pixels: The width of the border.
        value: What it is filled with, in units of the input; None continues the edge.
    """

    pixels: int = 12
    value: float | None = None

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The images within their border."""
        widths = [[0, 0], *[[self.pixels] * 2 for _ in _spatial_axes(images)], [0, 0]]
        if self.value is not None:
            return tf.pad(images, widths, constant_values=self.value)
        for axis in _spatial_axes(images):
            length = tf.shape(images)[axis]
            positions = tf.clip_by_value(
                tf.range(-self.pixels, length + self.pixels), 0, length - 1
            )
            images = tf.gather(images, positions, axis=axis)
        return images


@dataclass(frozen=True)
class Crop:
    """A part of fixed size at a random place; the loop brings it back to the size of the input.

    Args:
        size: The length of each side of the part, in pixels.
    """

    size: int

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The parts."""
        for axis, one in zip(
            _spatial_axes(images), split(seed, images.shape.rank - 2), strict=True
        ):
            room = tf.shape(images)[axis] - self.size
            tf.debugging.assert_greater_equal(room, 0, "Expected a crop smaller than the image.")
            start = tf.random.stateless_uniform([], one, 0, room + 1, dtype=tf.int32)
            images = tf.gather(images, start + tf.range(self.size), axis=axis)
        return images


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur of random width.

    Args:
        low: The smallest standard deviation, in pixels, above 0.
        high: The largest.
    """

    low: float = 0.5
    high: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(
                f"Expected deviations 0 < low <= high. Received: {self.low} and {self.high}."
            )

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The images, blurred."""
        blurred = blur(images, _uniform(seed, self.low, self.high), _spatial_axes(images))
        return tf.ensure_shape(blurred, images.shape)


@dataclass(frozen=True)
class RandomLayer:
    """Any random layer of Keras as a transform; its own generator is neither read nor moved.

    Each image is put through it alone, with the same random numbers.

    Args:
        layer: Such as `keras.layers.RandomContrast(0.2)`.
    """

    layer: keras.layers.Layer

    def __call__(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The images as the layer changes them in training."""
        with tf.init_scope():
            if not self.layer.built:
                self.layer.build(tuple(images.shape))
            states = [each.state for each in _generators(self.layer)]
        numbers = tf.cast(tf.bitcast(seed, tf.uint32), "uint32")

        def changed(image: tf.Tensor) -> tf.Tensor:
            with keras.StatelessScope([(state, numbers) for state in states]):
                return self.layer(image[None], training=True)[0]

        return tf.map_fn(changed, images)


def _generators(layer: keras.layers.Layer) -> list[keras.random.SeedGenerator]:
    own = [each for each in vars(layer).values() if isinstance(each, keras.random.SeedGenerator)]
    inner = [each for child in getattr(layer, "_layers", []) for each in _generators(child)]
    return own + inner


def as_transforms(transforms: Any) -> tuple[Transform, ...]:
    """A transform or a sequence of them, Keras layers wrapped; None is none.

    Raises:
        TypeError: If something cannot be called.
    """
    if transforms is None:
        return ()
    given = transforms if isinstance(transforms, list | tuple) else [transforms]
    wrapped = [RandomLayer(each) if isinstance(each, keras.Layer) else each for each in given]
    for each in wrapped:
        if not callable(each) or isinstance(each, type):
            raise TypeError(
                "Expected transforms such as Jitter(8), Keras layers, or functions (images, seed) "
                f"-> images. Received: {each!r}. Give a list of them."
            )
    return tuple(wrapped)


def transformed(images: tf.Tensor, transforms: Sequence[Transform], seed: tf.Tensor) -> tf.Tensor:
    """`images` after all transforms, each with random numbers of its own, at their old size."""
    if not transforms:
        return images
    changed = images
    for transform, one in zip(transforms, split(seed, len(transforms)), strict=True):
        changed = transform(changed, one)
    same = changed.shape[1:-1].is_fully_defined() and changed.shape[1:-1] == images.shape[1:-1]
    if not same:
        changed = _resized(changed, images.shape[1:-1])
    return tf.ensure_shape(changed, images.shape)


def _resized(images: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    rank = images.shape.rank
    channels_first = tf.transpose(images, [0, rank - 1, *range(1, rank - 1)])
    maps = tf.reshape(channels_first, tf.concat([[-1], tf.shape(channels_first)[2:]], axis=0))
    shape = tf.stack([tf.shape(images)[0], images.shape[-1], *size])
    return tf.transpose(tf.reshape(resize(maps, list(size)), shape), [0, *range(2, rank), 1])
