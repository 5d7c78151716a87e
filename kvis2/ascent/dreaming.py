"""Deep dream: a photograph changed step by step until a layer sees more of what it sees in it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.models import Batch
from kvis2.passes import Method, Probe, resize
from kvis2.scores import as_objectives
from kvis2.traced import Seed
from kvis2.types import LayerReference, Tensors


def everything(output: tf.Tensor) -> tf.Tensor:
    """Half the mean square of all activations: whatever the layer sees, it shall see more of."""
    return 0.5 * tf.reduce_mean(tf.square(output), list(range(1, output.shape.rank)))


class DeepDream(Method):
    r"""Gradient ascent on a photograph, octave by octave.

    `x <- clip(x + step_size (high - low) g / mean |g|)`, `g = d score / d x`. The photograph is
    first dreamt about small, then at `octave_scale` times the size, and so on; what the small one
    has gained is added to the larger one's details. At each size the gradient is taken tile by
    tile, shifted at random from step to step, so that neither memory nor the input size of the
    model limits the size of the picture. Where the smallest octave would be smaller than a model
    of fixed input size takes, all octaves are larger by the same factor, and the dream is brought
    back to the size of the photograph.

    Args:
        model: Any built Keras model with one input of images.
        layer: The layer that dreams.
        steps: Steps at each octave.
        step_size: Mean change of a value in one step, as a fraction of the input range; without
            `normalize` what the gradient is multiplied by, a number or one for each channel.
        octaves: How many sizes; 1 is plain ascent.
        octave_scale: The ratio of one size to the next.
        tile: Pixels per side of a tile; by default the input size of the model, or 512 where
            the model leaves it open.
        jitter: Whether tiles and image are shifted against each other at each step.
        normalize: Whether g is divided by its mean magnitude.
        decay: Fraction of the difference to mid-grey that is taken off at each step.
        clip: Whether the image is kept inside the input range.
        input_range: Lowest and highest value of the input, numbers or one for each channel.
        pre_activation: Look at what enters the layer's activation.
        seed: Of the shifts.
        **options: `model_modifier`, `clone`, `call_index`, as for `kvis2.Explainer`.

    References:
        Mordvintsev et al. (2015), Inceptionism: Going Deeper into Neural Networks.

    Example:
        >>> dream = DeepDream(model, "block5c_add")(None, photograph)
        >>> dream = DeepDream(model, "block5_conv4")(94, photograph)  # one filter
    """

    untraced = Method.untraced | {"steps", "octaves", "octave_scale"}

    def __init__(
        self,
        model: keras.Model,
        layer: LayerReference,
        *,
        steps: int = 20,
        step_size: float = 0.01,
        octaves: int = 4,
        octave_scale: float = 1.4,
        tile: int | None = None,
        jitter: bool = True,
        normalize: bool = True,
        decay: float = 0.0,
        clip: bool = True,
        input_range: Any = (0.0, 255.0),
        pre_activation: bool = False,
        seed: int | None = 0,
        **options: Any,
    ) -> None:
        options.setdefault("model_modifier", None)
        super().__init__(model, layer, pre_activation=pre_activation, **options)
        if octaves < 1 or steps < 1 or octave_scale <= 1:
            raise ValueError(
                "Expected at least one octave and one step, and an octave scale above 1. "
                f"Received: {octaves}, {steps} and {octave_scale}. Give for example 4, 20 and 1.4."
            )
        self.steps = steps
        self.step_size = np.asarray(step_size, np.float32)
        self.octaves = octaves
        self.octave_scale = octave_scale
        self.tile: Any = tile
        self.jitter = jitter
        self.scaled = normalize
        self.decay = np.asarray(decay, np.float32)
        self.clip = clip
        self.low = np.asarray(input_range[0], np.float32)
        self.high = np.asarray(input_range[1], np.float32)
        self.seed = Seed(seed)

    def __call__(
        self, score: Any, seed_input: Any, *, snapshots: list[np.ndarray] | None = None
    ) -> np.ndarray:
        """Dream about photographs.

        Args:
            score: What the layer shall see more of: a filter, a `Score`, or a function `output ->
                (batch,)`; None is half the mean square of everything.
            seed_input: `(batch, height, width, channels)` or one image, of any size, in the
                input range.
            snapshots: A list to which the images after each octave are appended.

        Returns:
            float32 images of the same shape, in the input range.
        """
        self._follow()
        originals = np.asarray(seed_input, np.float32)
        if originals.size == 0 or originals.ndim not in (3, 4):
            raise ValueError(
                "Expected photographs (batch, height, width, channels) with pixels. Received: "
                f"shape {originals.shape}. Give one image, or several of one size."
            )
        single = originals.ndim == 3
        originals = originals[None] if single else originals
        score, _ = as_objectives(everything if score is None else score, 1, 1)
        fixed = self._fixed_size()
        sizes = self._sizes(originals.shape[1:3], fixed)
        sides = [side or self.tile or 512 for side in fixed]
        dreamt = _resized(originals, sizes[0])
        for index, size in enumerate(sizes):
            base = _resized(originals, size)
            if index:
                gained = dreamt - _resized(originals, sizes[index - 1])
                dreamt = base + _resized(gained, size)
            tile = tuple(min(side, n) for side, n in zip(sides, size, strict=True))
            dreamt = np.concatenate([self._dreamt(score, each[None], tile) for each in dreamt])
            if snapshots is not None:
                snapshots.append(dreamt[0] if single else dreamt)
        dreamt = _resized(dreamt, originals.shape[1:3])
        return dreamt[0] if single else dreamt

    def _fixed_size(self) -> tuple[int | None, int | None]:
        """Height and width that the model takes, None where it leaves them open."""
        structure = models.input_structure(self.model)
        if structure is None:
            return None, None
        flat = keras.tree.flatten(structure)
        if len(flat) != 1 or len(flat[0].shape) != 4:
            raise ValueError(
                "Expected a model with one input (batch, height, width, channels). Received: "
                f"'{self.model.name}' with inputs {[tuple(x.shape) for x in flat]}."
            )
        return flat[0].shape[1], flat[0].shape[2]

    def _sizes(self, size: Sequence[int], fixed: Sequence[int | None]) -> list[tuple[int, int]]:
        """The sizes of the octaves, the smallest first and as large as the model needs it."""
        factors = [self.octave_scale**-octave for octave in range(self.octaves - 1, -1, -1)]
        needed = [(side or 1) / n for side, n in zip(fixed, size, strict=True)]
        larger = max(1.0, *(each / factors[0] for each in needed))
        return [
            (
                max(round(size[0] * factor * larger), fixed[0] or 1),
                max(round(size[1] * factor * larger), fixed[1] or 1),
            )
            for factor in factors
        ]

    def _dreamt(self, score: Any, image: np.ndarray, tile: tuple[int, ...]) -> np.ndarray:
        """One image after all steps of one octave."""
        method = self.for_pass(1)
        method.tile = tile
        inputs = [image, np.asarray(self.steps, np.int32)]
        whole = np.zeros((1, *tile, image.shape[-1]), np.float32)
        run = self.compiled(method, score, inputs, [(1, 2), ()], Batch(self.model, whole).packing)
        dreamt = self.run(run, method, score, inputs)[0].numpy()
        if not np.isfinite(dreamt).all():
            models.check_finite(self.model)
            raise ValueError(
                "Expected a dream of finite numbers. Received: NaN or infinity from "
                f"'{self.model.name}'. Check the photograph, and take a smaller `step_size`."
            )
        return dreamt

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor]:
        """All steps of one octave, in a loop on the device."""
        image, steps = inputs
        gradient = functools.partial(self._gradient, probe, score)

        def body(step: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            direction = self._shifted(image, step, gradient)
            if self.scaled:
                unit = tf.reduce_mean(tf.abs(direction)) + 1e-12
                direction *= tf.reduce_mean(self.high - self.low) / unit
            grey = (self.low + self.high) / 2.0
            moved = image + self.step_size * direction - self.decay * (image - grey)
            if self.clip:
                moved = tf.clip_by_value(moved, self.low, self.high)
            return step + 1, moved

        shapes = (tf.TensorShape([]), image.shape)
        return [tf.while_loop(lambda step, _: step < steps, body, (0, image), shapes)[1]]

    def _shifted(
        self, image: tf.Tensor, step: tf.Tensor, gradient: Callable[[tf.Tensor], tf.Tensor]
    ) -> tf.Tensor:
        """The gradient, with the seams between the tiles somewhere else at each step."""
        if not self.jitter:
            return gradient(image)
        drawn = tf.random.stateless_uniform(
            [2], tf.stack([self.seed, step]), 0, 1 << 30, dtype=tf.int32
        )
        shift = drawn % tf.shape(image)[1:3]
        rolled = tf.roll(image, shift, [1, 2])
        return tf.roll(gradient(rolled), -shift, [1, 2])

    def _gradient(self, probe: Probe, score: Any, image: tf.Tensor) -> tf.Tensor:
        """The mean of the gradients of all tiles that cover a pixel."""
        height, width = self.tile
        tops, lefts = _starts(tf.shape(image)[1], height), _starts(tf.shape(image)[2], width)
        columns = tf.size(lefts)
        size = tf.shape(image)

        def add(index: tf.Tensor, total: tf.Tensor, cover: tf.Tensor) -> Any:
            top, left = tops[index // columns], lefts[index % columns]
            part = tf.ensure_shape(
                image[:, top : top + height, left : left + width], [1, height, width, None]
            )
            part = tf.ensure_shape(part, [1, height, width, image.shape[-1]])
            around = [
                [0, 0],
                [top, size[1] - top - height],
                [left, size[2] - left - width],
                [0, 0],
            ]
            gradient = self._tile_gradient(probe, score, part)
            total += tf.pad(gradient, around)
            cover += tf.pad(tf.ones([1, height, width, 1]), around)
            return index + 1, total, cover

        zeros = (tf.zeros_like(image), tf.zeros_like(image[..., :1]))
        shapes = (tf.TensorShape([]), zeros[0].shape, zeros[1].shape)
        count = tf.size(tops) * columns
        _, total, cover = tf.while_loop(lambda i, *_: i < count, add, (0, *zeros), shapes)
        return total / cover

    def _tile_gradient(self, probe: Probe, score: Any, part: tf.Tensor) -> tf.Tensor:
        def excitement(sources: Tensors) -> tuple[tf.Tensor, Any]:
            return tf.reduce_sum(probe.layer_scores(score, sources, tf.identity)), None

        gradient = probe.gradients(excitement, [part])[1][0]
        if gradient is None:
            raise ValueError(
                "Expected a layer that depends on the image through steps with a gradient. "
                f"Received: '{probe.layer.name if probe.layer else ''}'. Choose another layer."
            )
        return gradient


def _starts(length: tf.Tensor, tile: int) -> tf.Tensor:
    """Where tiles begin that cover an axis evenly, overlapping where they must."""
    count = -(-length // tile)
    room = tf.cast(length - tile, tf.float32)
    steps = tf.range(count)
    spacing = room / tf.cast(tf.maximum(count - 1, 1), tf.float32)
    return tf.cast(tf.round(tf.cast(steps, tf.float32) * spacing), tf.int32)


def _resized(images: np.ndarray, size: Sequence[int]) -> np.ndarray:
    if tuple(images.shape[1:3]) == tuple(size):
        return images
    smaller = size[0] < images.shape[1]
    if smaller:  # averages what a pixel covers, so that fine texture does not become a pattern
        return tf.image.resize(images, size, method="area").numpy()
    maps = np.moveaxis(images, -1, 1).reshape(-1, *images.shape[1:3])
    larger = resize(tf.constant(maps), list(size)).numpy()
    return np.moveaxis(larger.reshape(len(images), -1, *size), 1, -1)
