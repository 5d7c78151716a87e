"""Sums over many perturbed copies of a batch, in chunks, inside one graph loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from kvis2.types import Tensors


def total(
    count: int | tf.Tensor,
    rows: int,
    zeros: Sequence[tf.Tensor],
    chunk_total: Callable[[tf.Tensor], Sequence[tf.Tensor]],
) -> Tensors:
    """The sum of `chunk_total(indices)` over chunks of the indices `0 .. count - 1`.

    Args:
        count: How many copies of the batch there are.
        rows: How many rows one forward pass may hold; a chunk has `rows // batch` copies, at
            least one.
        zeros: Where the sums start, `(batch, ...)` each.
        chunk_total: Sums over the copies of a chunk, given its indices, int32 `(n,)`.

    Returns:
        The sums, in the shapes of `zeros`.
    """
    step = tf.maximum(1, rows // tf.shape(zeros[0])[0])

    def add(start: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        indices = tf.range(start, tf.minimum(start + step, count))
        parts = chunk_total(indices)
        return start + step, *(a + b for a, b in zip(sums, parts, strict=True))

    shapes = (tf.TensorShape([]), *(each.shape for each in zeros))
    loop = tf.while_loop(lambda start, *_: start < count, add, (0, *zeros), shapes)
    return list(loop[1:])


def repeated(batch: tf.Tensor, copies: tf.Tensor) -> tf.Tensor:
    """Every sample `copies` times over: `(copies * batch, ...)`, one whole batch after another."""
    ones = tf.ones([batch.shape.rank - 1], tf.int32)
    return tf.tile(batch, tf.concat([[copies], ones], axis=0))


def row_indices(batch: tf.Tensor, copies: tf.Tensor) -> tf.Tensor:
    """For every row of `repeated(batch, copies)` the sample it is a copy of."""
    return tf.tile(tf.range(tf.shape(batch)[0]), [copies])


def added_up(rows: tf.Tensor, copies: tf.Tensor) -> tf.Tensor:
    """The sum over the copies of every sample: undoes `repeated`."""
    shape = tf.shape(rows)
    split = tf.concat([[copies, shape[0] // copies], shape[1:]], axis=0)
    return tf.reduce_sum(tf.reshape(rows, split), axis=0)


def normal(indices: tf.Tensor, shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Standard normal noise `(len(indices), *shape)`; each index has its own, in any chunk."""

    def draw(index: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_normal(shape, seed=tf.stack([seed, index]))

    return tf.map_fn(draw, indices, fn_output_signature=tf.float32)
