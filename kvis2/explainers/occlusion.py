"""What happens to the score when parts of the input are hidden: forward passes only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2 import scores
from kvis2.explainers.explainer import Explainer, without_layer
from kvis2.explainers.placement import moves
from kvis2.models import Batch
from kvis2.passes import (
    Probe,
    as_rows,
    blurred,
    by_copy,
    repeated,
    resize,
    row_indices,
    total,
    uniform,
)
from kvis2.traced import Seed
from kvis2.types import Tensors


class Perturbation(Explainer):
    """Base of the methods that hide parts of the input.

    Each input is perturbed by itself, the others stay as they are. The score is the probability
    of the class, so there is no `LinearOutput` by default.

    Args:
        model: Any built Keras model.
        value: What hidden parts are replaced by: a number, or "blur" for a blurred copy of the
            image (standard deviation 1/20 of its longer side).
        model_modifier: None by default.
        **options: As for `kvis2.Explainer`. `batch_size` bounds the rows of every
            forward pass.
    """

    def __init__(
        self,
        model: Any,
        *,
        value: float | str = 0.0,
        model_modifier: Any = None,
        **options: Any,
    ) -> None:
        options = without_layer(type(self).__name__, options)
        super().__init__(model, model_modifier=model_modifier, **options)
        if isinstance(value, str) and value != "blur":
            raise ValueError(
                "Expected `value` to be a number or 'blur'. "
                f"Received: {value!r}. Give the value that hides best, such as the mean colour."
            )
        self.value = value if isinstance(value, str) else np.asarray(value, np.float32)

    def _blank_cause(self, score: Any, batch: Batch, sample: int) -> str:
        return (
            "no part that was hidden changes the score, because what hides it (`value`) looks like "
            "the input itself, or because the score does not depend on the input"
        )

    def map_of(
        self, index: int, probe: Probe, score: Any, inputs: Tensors, own: tf.Tensor
    ) -> tf.Tensor:
        """The map `(batch, *spatial)` of one input.

        Args:
            index: Which of the inputs.
            probe: Runs the model.
            score: The definite score.
            inputs: The flat inputs.
            own: The scores of the inputs as they are, `(batch,)`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to perturb.")

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The map of every input that the score depends on and that has space (or features)."""
        score = probe.fixed(score, inputs)
        own = probe.scores(score, inputs)
        return [
            self.map_of(i, probe, score, inputs, own) if moves(each, own) else None
            for i, each in enumerate(inputs)
        ]

    def hidden(self, inputs: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
        """What hidden parts of an input look like, in the dtype of the input."""
        if isinstance(self.value, str):
            return tf.cast(blurred(inputs, axes), inputs.dtype)
        return tf.cast(self.value, inputs.dtype) * tf.ones_like(inputs)


def positions(probe: Probe, inputs: Tensors, index: int) -> list[int]:
    """The axes along which an input can be hidden piece by piece: space, or features."""
    return probe.input_space(inputs, index) or [1]


def lengths(inputs: tf.Tensor, axes: Sequence[int]) -> list[int | tf.Tensor]:
    """The lengths of some axes: static where known."""
    dynamic = tf.shape(inputs)
    return [dynamic[i] if inputs.shape[i] is None else inputs.shape[i] for i in axes]


def over(mask: tf.Tensor, inputs: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    """Masks `(n, *spatial)` with an axis of length one for the channels, where inputs have them."""
    for axis in range(1, inputs.shape.rank):
        if axis not in axes:
            mask = tf.expand_dims(mask, axis)
    return mask


class _MaskedScores(Perturbation):
    """Base of the methods that average scores under many masks."""

    def mask_count(self, size: Sequence[int | tf.Tensor]) -> int | tf.Tensor:
        """How many masks there are for an input of this spatial size."""
        raise NotImplementedError

    def masks(self, indices: tf.Tensor, size: Sequence[int | tf.Tensor]) -> tf.Tensor:
        """For each index how much of every position is seen: 0..1, `(n, *size)`."""
        raise NotImplementedError

    def weights(self, seen: tf.Tensor) -> tf.Tensor:
        """How much a mask's score counts at every position."""
        raise NotImplementedError

    def sums(
        self, index: int, probe: Probe, score: Any, inputs: Tensors, own: tf.Tensor
    ) -> list[Any]:
        """Sums over the masks: weight times change of the score, weight, change of the score."""
        image = inputs[index]
        axes = positions(probe, inputs, index)
        size, fill = lengths(image, axes), self.hidden(image, axes)

        def chunk_total(indices: tf.Tensor) -> Tensors:
            copies = tf.shape(indices)[0]
            seen = self.masks(indices, size)
            share = over(seen, image, axes)[:, None]
            if image.dtype.is_floating:
                share = tf.cast(share, image.dtype)
                masked = image[None] * share + fill[None] * (1 - share)
            else:
                masked = tf.where(share > 0.5, image[None], fill[None])
            masked.set_shape([None, *image.shape])
            rows = [repeated(each, copies) for each in inputs]
            rows[index] = as_rows(masked)
            taken = scores.take(score, row_indices(image, copies))
            change = by_copy(probe.scores(taken, rows), copies) - own[None]
            weights = self.weights(seen)
            return [
                tf.tensordot(change, weights, [[0], [0]]),
                tf.reduce_sum(weights, axis=0, keepdims=True),
                tf.reduce_sum(change, axis=0),
            ]

        return total(self.mask_count(size), self.rows, image, chunk_total, self.settings.verbose)


class Occlusion(_MaskedScores):
    r"""Occlusion: how far the score falls when a window slides over the input and hides it.

    `map(i) = mean over the windows that cover i of score(x) - score(x with the window hidden)`.
    Positive where hiding hurts, negative where it helps. Images, series, volumes, tokens (hidden
    by the token `value`) and plain features.

    Args:
        model: Any built Keras model.
        window: Size of the window in pixels (or steps, tokens, features), one number or one per
            axis; None for an eighth of each axis.
        stride: How far the window moves each time, one number or one per axis; None for half a
            window. The last window is flush with the border.
        value: What the window shows: a number, or "blur" for the image itself, blurred.
        model_modifier: None by default: the score is a probability.
        **options: As for `kvis2.Explainer`. `batch_size` bounds the rows of every
            forward pass; there are as many passes as windows.

    References:
        Zeiler and Fergus (2014), Visualizing and Understanding Convolutional Networks.
        https://arxiv.org/abs/1311.2901

    Example:
        >>> maps = Occlusion(model, window=32, stride=16, value=127.5)(243, images)
    """

    def __init__(
        self,
        model: Any,
        *,
        window: int | Sequence[int] | None = None,
        stride: int | Sequence[int] | None = None,
        value: float | str = 0.0,
        model_modifier: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(model, value=value, model_modifier=model_modifier, **options)
        self.window = _sizes("window", window)
        self.stride = _sizes("stride", stride)

    def map_of(
        self, index: int, probe: Probe, score: Any, inputs: Tensors, own: tf.Tensor
    ) -> tf.Tensor:
        """The mean fall of the score under the windows that cover each position."""
        change, covered, _ = self.sums(index, probe, score, inputs, own)
        return tf.math.divide_no_nan(-change, covered)

    def mask_count(self, size: Sequence[int | tf.Tensor]) -> int | tf.Tensor:
        """The number of windows."""
        return tf.reduce_prod([count for _, _, count in self._grid(size)])

    def masks(self, indices: tf.Tensor, size: Sequence[int | tf.Tensor]) -> tf.Tensor:
        """0 inside the window, 1 outside."""
        hidden = tf.ones([tf.shape(indices)[0], *[1] * len(size)])
        for axis, (window, stride, count) in reversed(list(enumerate(self._grid(size)))):
            start = tf.minimum(indices % count * stride, size[axis] - window)[:, None]
            place = tf.range(size[axis])[None]
            inside = tf.cast((place >= start) & (place < start + window), tf.float32)
            shape = [1] * len(size)
            shape[axis] = size[axis]  # type: ignore[call-overload]
            hidden *= tf.reshape(inside, [-1, *shape])
            indices //= count
        return 1.0 - hidden

    def weights(self, seen: tf.Tensor) -> tf.Tensor:
        """A score counts where its window is."""
        return 1.0 - seen

    def _grid(self, size: Sequence[int | tf.Tensor]) -> list[tuple[Any, Any, Any]]:
        """Window, stride and number of windows along every axis."""
        grid = []
        for axis, length in enumerate(size):
            window = _along(self.window, axis, len(size), "window")
            window = (length + 7) // 8 if window is None else tf.minimum(window, length)
            stride = _along(self.stride, axis, len(size), "stride")
            stride = (window + 1) // 2 if stride is None else stride
            grid.append((window, stride, (length - window + stride - 1) // stride + 1))
        return grid


def _sizes(name: str, given: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    sizes = (given,) if isinstance(given, int | np.integer) else tuple(given)
    if not sizes or not all(isinstance(n, int | np.integer) and n > 0 for n in sizes):
        raise ValueError(
            f"Expected `{name}` to be a positive int, or one for every axis. "
            f"Received: {given!r}. Give for example 16, or (16, 16)."
        )
    return tuple(int(n) for n in sizes)


def _along(sizes: tuple[int, ...] | None, axis: int, rank: int, name: str) -> int | None:
    if sizes is None or len(sizes) == 1:
        return None if sizes is None else sizes[0]
    if len(sizes) != rank:
        raise ValueError(
            f"Expected `{name}` to have one number for each of the {rank} axes of the input. "
            f"Received: {sizes}. One number stands for all axes."
        )
    return sizes[axis]


class RISE(_MaskedScores):
    r"""RISE: the mean score of the input seen through random masks that show a position.

    `map(i) = sum_n score(x * m_n) m_n(i) / (samples * probability) - mean_n score(x * m_n)`. The
    masks are coarse random grids, each cell seen with `probability`, enlarged linearly and
    shifted at random. The paper leaves the second term out; with it 0 means no evidence.

    Args:
        model: Any built Keras model.
        samples: Number of masks; the paper takes 4000 to 8000, a few hundred show the object.
        cells: Number of cells of the grid along each axis.
        probability: How likely a cell is seen, between 0 and 1.
        centred: False leaves the second term out, as in the paper.
        value: What hidden parts are replaced by: a number, or "blur".
        seed: The same seed gives the same bytes on a CPU; None draws another at every call.
        model_modifier: None by default: the score is a probability.
        **options: As for `kvis2.Explainer`. `batch_size` bounds the rows of every
            forward pass.

    References:
        Petsiuk et al. (2018), RISE: Randomized Input Sampling for Explanation of Black-box Models.
        https://arxiv.org/abs/1806.07421

    Example:
        >>> maps = RISE(model, samples=500, verbose=1)(243, images)
    """

    def __init__(
        self,
        model: Any,
        *,
        samples: int = 1000,
        cells: int = 7,
        probability: float = 0.5,
        centred: bool = True,
        value: float | str = 0.0,
        seed: int | None = 0,
        model_modifier: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(model, value=value, model_modifier=model_modifier, **options)
        if not (isinstance(samples, int) and samples > 0 and isinstance(cells, int) and cells > 0):
            raise ValueError(
                "Expected `samples` and `cells` to be positive ints. "
                f"Received: {samples!r} and {cells!r}. Give for example 1000 and 7."
            )
        if not 0 < probability < 1:
            raise ValueError(
                "Expected `probability` to be between 0 and 1. "
                f"Received: {probability!r}. The paper takes 0.5."
            )
        self.samples = samples
        self.cells = cells
        self.probability = np.asarray(probability, np.float32)
        self.centred = centred
        self.seed = Seed(seed)

    def map_of(
        self, index: int, probe: Probe, score: Any, inputs: Tensors, own: tf.Tensor
    ) -> tf.Tensor:
        """The mean score where a position is seen, against the mean score."""
        change, seen, changes = self.sums(index, probe, score, inputs, own)
        shape = [-1, *[1] * (change.shape.rank - 1)]
        expected = self.samples * self.probability
        if self.centred:  # The own score cancels but for the sampling error of the masks.
            mean = tf.reshape(changes / self.samples, shape)
            found = change / expected - mean + tf.reshape(own, shape) * (seen / expected - 1.0)
            # A score that no mask changes is no evidence, though the error is there as well.
            axes = list(range(1, change.shape.rank))
            still = tf.reduce_all(change == 0.0, axes, keepdims=True)
            return tf.where(still & (tf.reshape(changes, shape) == 0.0), 0.0, found)
        return (change + tf.reshape(own, shape) * seen) / expected

    def mask_count(self, size: Sequence[int | tf.Tensor]) -> int | tf.Tensor:
        """The number of samples."""
        return self.samples

    def masks(self, indices: tf.Tensor, size: Sequence[int | tf.Tensor]) -> tf.Tensor:
        """Random grids, enlarged and shifted."""
        rank, count = len(size), (self.cells + 1) ** len(size)
        draws = uniform(indices, [count + rank], self.seed)
        grid = tf.cast(draws[:, :count] < self.probability, tf.float32)
        grid = tf.reshape(grid, [-1, *[self.cells + 1] * rank])
        cell = [(length + self.cells - 1) // self.cells for length in size]
        large = resize(grid, [(self.cells + 1) * length for length in cell])
        shift = tf.cast(draws[:, count:] * tf.cast(tf.stack(cell), tf.float32), tf.int32)

        def cropped(each: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            return tf.slice(each[0], each[1], tf.stack(size))

        return tf.map_fn(cropped, (large, shift), fn_output_signature=tf.float32)

    def weights(self, seen: tf.Tensor) -> tf.Tensor:
        """A score counts where its mask shows the input."""
        return seen
