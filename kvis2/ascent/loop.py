"""The traced loop of gradient ascent: what is done at every step, on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.ascent.arguments import Part
from kvis2.parametrizations import Fourier, Parametrization, Pixels
from kvis2.passes import Method, Probe
from kvis2.regularizers import Bounds, GradientModifier
from kvis2.traced import Seed
from kvis2.transforms import Jitter, Rotate, Scale, transformed
from kvis2.types import Tensors

AUTOMATIC: Any = "auto"


class AscentLoop(Method):
    """The loop over the steps, as a method; `ActivationMaximization` says with which parts.

    Attributes:
        optimizer: Steps the parameters.
        regularizers: Penalties, added to the loss.
        transforms: What is done to the image at random before the model sees it.
        constraints: What is done to the image itself before each step.
        gradient_modifiers: What is done to the gradient.
        shapes: Shape of one image of each input, `(*spatial, channels)`.
        ranges: (low, high) of each input.
        parametrization: How an image is made of parameters; None chooses by its shape.
        sees_units: Whether single units are maximised: of filters the negative responses count a
            tenth, see `responses`.
        seed: Of the transforms.
    """

    optimizer: Any
    regularizers: tuple[Part, ...]
    transforms: Any
    constraints: tuple[Part, ...]
    gradient_modifiers: tuple[GradientModifier, ...]
    shapes: Any
    ranges: tuple[tuple[Any, Any], ...]
    parametrization: Parametrization | None
    sees_units = False
    seed: Seed | np.ndarray

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> Any:
        """A stretch of the ascent, in a loop on the device.

        Args:
            probe: Runs the model.
            score: What is maximised, its fields tensors.
            inputs: The parameters of each input; the optimizer's slots; the best parameters so
                far; their loss; the first step and the one after the last.
        """
        count = len(self.shapes)
        *state, start, stop = inputs
        slots = len(state) - 2 * count - 1
        history = tf.TensorArray(
            tf.float32, stop - start, element_shape=self._history_shape(inputs)
        )

        def body(step: tf.Tensor, state: Tensors, last: Tensors, history: Any) -> Any:
            parameters, kept = state[:count], state[count : count + slots]
            best, lowest = state[count + slots : -1], state[-1]
            parameters = self._constrained(parameters, step)
            losses, gradients = self._measured(probe, score, parameters, step)
            losses = tf.ensure_shape(losses, history.element_shape)
            better = losses[-1] < lowest
            best = [
                tf.where(tf.reshape(better, [-1] + [1] * (new.shape.rank - 1)), new, old)
                for new, old in zip(parameters, best, strict=True)
            ]
            moved, kept = self.optimizer.step(parameters, gradients, kept)
            lowest = tf.where(better, losses[-1], lowest)
            history = history.write(step - start, losses)
            return step + 1, [*moved, *kept, *best, lowest], [*parameters, *gradients], history

        last = [tf.zeros_like(each) for each in [*state[:count], *state[:count]]]
        _, state, last, history = tf.while_loop(
            lambda step, *_: step < stop, body, (start, state, last, history)
        )
        return [*state, *last, history.stack()]

    def _history_shape(self, inputs: Tensors) -> list[int]:
        return [len(self.terms), inputs[0].shape[0]]

    @property
    def terms(self) -> list[str]:
        """The names of the terms of the loss, their sum last."""
        return ["score", *_distinct([each.value.name for each in self.regularizers]), "loss"]

    def _measured(
        self, probe: Probe, score: Any, parameters: Tensors, step: tf.Tensor
    ) -> tuple[tf.Tensor, Tensors]:
        """The terms of the loss `(terms, images)` at `parameters`, and its gradients by them."""

        def loss(parameters: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
            images = self.images(parameters)
            seen = [
                self._in_layout(self._transformed(each, step, index), probe)
                for index, each in enumerate(images)
            ]
            terms = [-self._scored(probe, score, seen)]
            for part in self.regularizers:
                penalties = [
                    part.value(self.chart(i).penalized(each, self.bounds(i)))
                    for i, each in enumerate(images)
                    if part.concerns(i)
                ]
                terms.append(part.value.weight * tf.add_n(penalties))
            total = tf.add_n(terms)
            # Guided ReLUs pass on what raises the score: the ascent is differentiated, not the
            # descent.
            return -tf.reduce_sum(total), tf.stack([*terms, total])

        losses, gradients = probe.gradients(loss, parameters)
        if all(each is None for each in gradients):
            raise ValueError(
                "Expected a score that depends on the input through steps with a gradient. "
                f"Received: none, for '{probe.model.name}'. Look for rounding, argmax or a cast."
            )
        # An input that the score does not depend on stays where it is.
        found = [
            tf.zeros_like(x) if each is None else self._modified(-each)
            for x, each in zip(parameters, gradients, strict=True)
        ]
        return losses, found

    def _scored(self, probe: Probe, score: Any, seen: Tensors) -> tf.Tensor:
        if probe.layer is None:
            return probe.scores(score, seen)
        return probe.layer_scores(score, seen, self._responses())

    def _responses(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """What of the layer's output is scored."""
        return responses if self.sees_units else tf.identity

    def _modified(self, gradient: tf.Tensor) -> tf.Tensor:
        for modifier in self.gradient_modifiers:
            gradient = modifier(gradient)
        return gradient

    def _constrained(self, parameters: Tensors, step: tf.Tensor) -> Tensors:
        if not self.constraints:
            return parameters
        constrained = []
        for index, images in enumerate(self.images(parameters)):
            own = [part.value for part in self.constraints if part.concerns(index)]
            if not own:
                constrained.append(parameters[index])
                continue
            for constraint in own:
                images = constraint(images, step, self.bounds(index))
            encoded = self.chart(index).encode(images, self.bounds(index))
            constrained.append(tf.ensure_shape(encoded, parameters[index].shape))
        return constrained

    def _transformed(self, images: tf.Tensor, step: tf.Tensor, index: int) -> tf.Tensor:
        if isinstance(self.transforms, str):
            transforms = automatic_transforms(images.shape[1:], self.settings.reference is None)
        else:
            transforms = tuple(each.value for each in self.transforms if each.concerns(index))
        seed = tf.stack([tf.cast(self.seed, tf.int32) + index, step])
        return transformed(images, transforms, seed)

    def _in_layout(self, images: tf.Tensor, probe: Probe) -> tf.Tensor:
        if images.shape.rank < 3 or models.data_format(probe.model) == "channels_last":
            return images
        return tf.transpose(images, [0, images.shape.rank - 1, *range(1, images.shape.rank - 1)])

    def images(self, parameters: Tensors) -> Tensors:
        """The image of each input that the parameters stand for, `(batch, *spatial, channels)`."""
        return [
            self.chart(i).image(each, self.shapes[i], self.bounds(i))
            for i, each in enumerate(parameters)
        ]

    def chart(self, index: int) -> Parametrization:
        """How the image of one input is made of its parameters."""
        if self.parametrization is not None:
            return self.parametrization
        return Fourier() if len(self.shapes[index]) > 1 else Pixels()

    def bounds(self, index: int) -> Bounds:
        """Lowest and highest value of one input, numbers or one for each channel."""
        low, high = self.ranges[index]
        return np.float32(low), np.float32(high)


def responses(output: tf.Tensor) -> tf.Tensor:
    """Units as they are; of filters the negative responses count only a tenth.

    The mean over space of a linear filter depends on the mean of the image alone, whatever the
    filter looks for. Of its positive part it does not.
    """
    return output if output.shape.rank < 3 else tf.nn.leaky_relu(output, 0.1)


def automatic_transforms(shape: Sequence[int], whole: bool = False) -> tuple[Any, ...]:
    """The transforms that suit images of a `shape`, `(*spatial, channels)`.

    Args:
        shape: Shape of one image.
        whole: Whether whole objects are looked for, at many sizes, or their parts and textures.
            An image of less than 64 pixels has no room for many sizes.
    """
    if len(shape) < 2:
        return ()
    roomy = whole and min(shape[:-1]) >= 64
    degrees, zoom = (15.0, Scale(0.7, 1.2)) if roomy else (8.0, Scale(0.9, 1.1))
    turned = (Rotate(degrees),) if len(shape) > 2 else ()
    return (Jitter(0.04), zoom, *turned, Jitter(0.02))


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, those that occur again with a number."""
    return [
        name if name not in names[:i] else f"{name} {names[: i + 1].count(name)}"
        for i, name in enumerate(names)
    ]
