"""CRAFT: what a class is made of, as concepts found in patches of its images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2 import models, scores
from kvis2.inspection.feature_maps import Features
from kvis2.inspection.patches import Patch
from kvis2.models import Batch
from kvis2.passes import LINEAR, Method, Probe, resize, scores_of_pairs
from kvis2.scores import ScoreLike
from kvis2.types import LayerReference, Tensors

Array = NDArray[np.float32]
_TINY = 1e-12


@dataclass(frozen=True)
class Concepts:
    """The concepts of a class, the most important first.

    Attributes:
        vectors: Each concept as a direction of the layer's channels, `(concepts, channels)`.
        importance: How much of the variance of the score, as concepts come and go, each takes part
            in: the total Sobol index, 0..1, mean over the images, `(concepts,)`.
        crops: For each concept the patches of the images that show it most.
    """

    vectors: Array
    importance: Array
    crops: list[list[Patch]]
    _method: _ConceptScores = field(repr=False)

    def maps(self, images: Any) -> Array:
        """Where each concept is in images.

        Args:
            images: What the model takes, `(images, *spatial, channels)`.

        Returns:
            float32 `(images, *spatial, concepts)` at the size of the images, 0 up.
        """
        batch = Batch(self._method.model, images)
        found = self._method.results(scores.as_scores(0, batch.size), batch)[0]
        assert found is not None
        large = [
            resize(found[..., k], batch.shapes[0][1:-1]).numpy() for k in range(found.shape[-1])
        ]
        return np.stack(large, axis=-1)


def craft(
    model: keras.Model,
    layer: LayerReference,
    images: Any,
    score: ScoreLike,
    *,
    concepts: int = 10,
    patch: int = 64,
    crops: int = 9,
    designs: int = 32,
    seed: int = 0,
    model_modifier: Any = LINEAR,
    batch_size: int | None = None,
) -> Concepts:
    r"""Find the concepts that a class is made of, and how much each matters (CRAFT).

    `A = U W`, non-negative: `A` the mean activations of patches of the images, enlarged to the size
    of the input, `W (concepts, channels)` the concepts, found by multiplicative updates. The
    importance of concept i is the total Sobol index of `score(head(sum_i m_i U_i W_i))` over masks
    `m` from 0 to 1, by Jansen's estimator, for whole images.

    Args:
        model: A built Keras model with one input of images, `(batch, *spatial, channels)`.
        layer: A layer whose output is not negative, as after a ReLU, such as the last spatial one.
        images: Images of the class, best those that the model takes for it.
        score: The class, or any score.
        concepts: How many concepts to look for, at most as many as the layer has channels.
        patch: Pixels per side of a patch; patches overlap by a fifth.
        crops: How many patches are kept for each concept.
        designs: N of the Sobol indices: each image costs `N (concepts + 2)` passes of the layers
            after `layer`. The error falls with the root of N times the number of images.
        seed: The same seed gives the same concepts.
        model_modifier: As for `kvis2.Explainer`: scores before the softmax by default.
        batch_size: How many rows one forward pass holds; None chooses by their size.

    Returns:
        The concepts, the most important first.

    Raises:
        ValueError: If activations are negative, or the patch does not fit the images.

    References:
        Fel et al. (2023), CRAFT: Concept Recursive Activation FacTorization for Explainability.
        https://arxiv.org/abs/2211.10154

    Example:
        >>> found = craft(model, "top_activation", dogs, 243)
        >>> found.importance.round(2), kvis2.images.grid([p.pixels for p in found.crops[0]])
        >>> found.maps(dogs[:1]).shape
        (1, 224, 224, 10)
    """
    pixels = np.asarray(images)
    whole = Batch(model, pixels)
    _check_sizes(pixels, concepts, patch, designs)
    boxes = list(_windows(pixels.shape, patch))
    values = _of_patches(model, layer, pixels, boxes, batch_size)
    shares, vectors = factorized(values, concepts, np.random.default_rng(seed))
    method = _ConceptScores(
        model,
        layer,
        vectors,
        _designs(concepts, designs, np.random.default_rng(seed)),
        model_modifier=model_modifier,
        batch_size=batch_size,
    )
    definite = scores.as_scores(score, whole.size, models.output_count(model))
    found = method.results(definite, whole)[1]
    assert found is not None
    importance = np.mean([total_indices(each, concepts) for each in found], axis=0)
    order = np.argsort(-importance, kind="stable")
    kept = [_strongest(shares[:, k], pixels, boxes, crops) for k in order]
    final = _ConceptScores(
        model, layer, vectors[order], None, model_modifier=model_modifier, batch_size=batch_size
    )
    return Concepts(vectors[order], importance[order].astype(np.float32), kept, final)


class _ConceptScores(Method):
    """How much of each concept is where, and the scores as concepts come and go.

    Args:
        model: The model.
        layer: The layer of the concepts.
        vectors: The concepts, `(concepts, channels)`.
        masks: What the concepts are multiplied by, `(masks, concepts)`; None for no scores.
        **options: As for `Method`.
    """

    def __init__(
        self,
        model: keras.Model,
        layer: LayerReference,
        vectors: Array,
        masks: Array | None,
        **options: Any,
    ) -> None:
        super().__init__(model, layer, **options)
        self.vectors = vectors
        self.masks = masks

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor]:
        """The shares `(batch, *spatial, concepts)`, and the scores `(batch, masks)`."""
        score = probe.fixed(score, inputs)
        activations, _ = probe.activations(score, inputs)
        shares = _shares_of(activations, self.vectors)
        if self.masks is None:
            return [shares]
        count = [tf.shape(activations)[0], tf.shape(self.masks)[0]]
        grid = tf.meshgrid(tf.range(count[0]), tf.range(count[1]), indexing="ij")
        pairs = tf.stack([tf.reshape(each, [-1]) for each in grid], axis=1)
        first = models.data_format(probe.model, probe.layer) == "channels_first"
        rank = activations.shape.rank

        def of_masks(chunk: tf.Tensor) -> tf.Tensor:
            image, mask = chunk[:, 0], chunk[:, 1]
            shape = [tf.shape(chunk)[0], *[1] * (rank - 2), tf.shape(self.masks)[1]]
            kept = tf.gather(shares, image) * tf.reshape(tf.gather(self.masks, mask), shape)
            made = tf.tensordot(kept, self.vectors, 1)
            made = tf.transpose(made, [0, rank - 1, *range(1, rank - 1)]) if first else made
            rows = [tf.gather(each, image) for each in inputs]
            return probe.scores_with(
                scores.take(score, image),
                rows,
                lambda own: tf.ensure_shape(tf.cast(made, own.dtype), own.shape),
            )

        return [shares, scores_of_pairs(pairs, tf.stack(count), self.rows, of_masks)]


def _shares_of(activations: tf.Tensor, vectors: tf.Tensor, sweeps: int = 2000) -> tf.Tensor:
    """How much of each concept is at each position: `A = U W` for a known `W`, none negative.

    Least squares by coordinate descent: each concept in turn takes what the others leave, until
    nothing changes by more than a millionth of the largest share.
    """
    goal = tf.tensordot(activations, vectors, [[-1], [1]])
    gram = tf.matmul(vectors, vectors, transpose_b=True)
    count = vectors.shape[0]

    def sweep(number: tf.Tensor, shares: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, ...]:
        columns = tf.unstack(shares, num=count, axis=-1)
        for k in range(count):
            others = tf.add_n([columns[j] * gram[j, k] for j in range(count)])
            rest = goal[..., k] - others + columns[k] * gram[k, k]
            columns[k] = tf.nn.relu(rest / gram[k, k])
        found = tf.stack(columns, axis=-1)
        change = tf.reduce_max(tf.abs(found - shares))
        return number + 1, found, change > 1e-6 * tf.reduce_max(found)

    return tf.while_loop(
        lambda number, _, changing: changing & (number < sweeps),
        sweep,
        (tf.constant(0), tf.zeros_like(goal), tf.constant(True)),
        parallel_iterations=1,
    )[1]


def factorized(
    values: NDArray[Any], rank: int, draw: np.random.Generator, updates: int = 500
) -> tuple[Array, Array]:
    """`values (n, channels) = U (n, rank) @ W (rank, channels)`, none negative, least squares.

    Multiplicative updates from random factors (Lee and Seung 2001); every row of W has length 1.

    Args:
        values: Not negative.
        rank: How many rows W has.
        draw: Where the start is drawn from.
        updates: How many updates of each factor.
    """
    values = np.asarray(values, np.float64)
    scale = np.sqrt(values.mean() / rank) + _TINY
    shares = scale * draw.uniform(0.1, 1.0, (len(values), rank))
    vectors = scale * draw.uniform(0.1, 1.0, (rank, values.shape[1]))
    for _ in range(updates):
        vectors *= (shares.T @ values) / (shares.T @ shares @ vectors + _TINY)
        shares *= (values @ vectors.T) / (shares @ (vectors @ vectors.T) + _TINY)
    lengths = np.linalg.norm(vectors, axis=1) + _TINY
    unit = (vectors / lengths[:, None]).astype(np.float32)
    return (shares * lengths).astype(np.float32), unit


def total_indices(found: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Total Sobol indices by Jansen's estimator: `mean((f(A) - f(A_B^i))^2) / 2 / var(f)`.

    Args:
        found: The function at A, at B, and at A with each column of B in turn, `((count + 2) N,)`.
        count: How many variables there are.
    """
    values = np.asarray(found, np.float64).reshape(count + 2, -1)
    variance = values[:2].var()
    if variance <= _TINY * (values**2).mean():
        return np.zeros(count)
    return ((values[0] - values[2:]) ** 2).mean(axis=1) / 2 / variance


def _designs(count: int, designs: int, draw: np.random.Generator) -> Array:
    """The points that `total_indices` takes, `((count + 2) * designs, count)`."""
    one, other = draw.uniform(size=(2, designs, count))
    mixed = np.repeat(one[None], count, axis=0)
    for i in range(count):
        mixed[i, :, i] = other[:, i]
    return np.concatenate([one[None], other[None], mixed]).reshape(-1, count).astype(np.float32)


def _check_sizes(images: NDArray[Any], concepts: int, patch: int, designs: int) -> None:
    for name, value in (("concepts", concepts), ("patch", patch), ("designs", designs)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(
                f"Expected `{name}` to be a positive int. Received: {value!r}. Leave it out."
            )
    if images.ndim < 3 or patch > min(images.shape[1:-1]):
        raise ValueError(
            f"Expected images, (images, *spatial, channels), of at least {patch} pixels a side. "
            f"Received: shape {images.shape}. Make `patch` smaller."
        )


def _windows(shape: Sequence[int], patch: int) -> Iterator[tuple[int, tuple[tuple[int, int], ...]]]:
    """Every patch of every image: its image, and where it starts and stops along each axis."""
    step = max(1, int(patch * 0.8))
    lines = [range(0, length - patch + 1, step) for length in shape[1:-1]]
    for image in range(shape[0]):
        for places in np.ndindex(*map(len, lines)):
            starts = [line[i] for line, i in zip(lines, places, strict=True)]
            yield image, tuple((start, start + patch) for start in starts)


def _of_patches(
    model: keras.Model,
    layer: LayerReference,
    images: NDArray[Any],
    boxes: Sequence[tuple[int, tuple[tuple[int, int], ...]]],
    batch_size: int | None,
) -> Array:
    """The layer's activations for each patch at the size of an image, mean over space."""
    method = Features(model, layer, batch_size=batch_size)
    size = list(images.shape[1:-1])
    found: list[Array] = []
    for start in range(0, len(boxes), 64):
        cut = [
            images[n][tuple(slice(*each) for each in box)] for n, box in boxes[start : start + 64]
        ]
        planes = np.moveaxis(np.stack(cut).astype(np.float32), -1, 1)
        large = resize(tf.constant(planes.reshape(-1, *planes.shape[2:])), size).numpy()
        large = np.moveaxis(large.reshape(*planes.shape[:2], *size), 1, -1)
        if images.dtype.kind in "iu":
            large = np.rint(large).astype(images.dtype)
        features = np.concatenate(list(method.of(Batch(model, large))))
        space = tuple(range(1, features.ndim - 1))
        found.append(features.mean(axis=space) if space else features)
    values = np.concatenate(found)
    if values.min() < 0:
        raise ValueError(
            "Expected a layer whose output is not negative, to factorise it. Received: "
            f"'{models.layer_path(model, models.find_layer(model, layer))}', down to "
            f"{values.min():.3g}. Name the ReLU after it."
        )
    return values


def _strongest(
    shares: Array,
    images: NDArray[Any],
    boxes: Sequence[tuple[int, tuple[tuple[int, int], ...]]],
    count: int,
) -> list[Patch]:
    found = []
    for index in np.argsort(-shares, kind="stable")[:count]:
        image, box = boxes[index]
        pixels = images[image][tuple(slice(*each) for each in box)].copy()
        place = tuple(start for start, _ in box)
        found.append(Patch(float(shares[index]), image, place, box, pixels))
    return found
