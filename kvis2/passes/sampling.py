"""Sums over many perturbed copies of a batch, in chunks, inside one graph loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kvis2.passes.progress import reported
from kvis2.types import Tensors


def total(
    count: int | tf.Tensor,
    rows: int,
    batch: tf.Tensor,
    chunk_total: Callable[[tf.Tensor], Sequence[tf.Tensor | None]],
    verbose: int = 0,
) -> list[tf.Tensor | None]:
    """The sum of `chunk_total(indices)` over chunks of the indices `0 .. count - 1`.

    Args:
        count: How many copies of the batch there are, at least one.
        rows: How many rows one forward pass may hold; a chunk has `rows // batch` copies, at
            least one.
        batch: Any tensor whose first axis is the batch.
        chunk_total: Sums over the copies of a chunk, given its indices, int32 `(n,)`; each
            `(batch, ...)`.
        verbose: Whether the running progress bar is told after every chunk.

    Returns:
        The sums; None where `chunk_total` returns None.
    """
    step = tf.maximum(1, rows // tf.shape(batch)[0])
    part = _traced_once(chunk_total)

    def sums_from(start: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor | None]]:
        stop = tf.minimum(start + step, count)
        sums = part(tf.range(start, stop))
        if verbose:
            with tf.control_dependencies([each for each in sums if each is not None]):
                stop = reported(stop, count)
        return stop, list(sums)

    start, first = tf.constant(0), _zeros(part, batch)
    if first is None:
        start, first = sums_from(start)
    kept = [each for each in first if each is not None]
    with tf.control_dependencies(kept):
        start = tf.identity(start)  # One chunk at a time, the first one included.

    def add(start: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        stop, parts = sums_from(start)
        found = [each for each in parts if each is not None]
        return stop, *(a + b for a, b in zip(sums, found, strict=True))

    shapes = (tf.TensorShape([]), *(each.shape for each in kept))
    loop = tf.while_loop(
        lambda start, *_: start < count, add, (start, *kept), shapes, parallel_iterations=1
    )
    remaining = list(loop[1:])
    return [None if each is None else remaining.pop(0) for each in first]


def _zeros(part: Any, batch: tf.Tensor) -> list[tf.Tensor | None] | None:
    """Sums of nothing; None if their shapes are known only once the first chunk is computed.

    They spare the graph a copy of the pass beside the one in the loop, and so its compilation.
    """
    if tf.executing_eagerly():
        return None
    sums = part.structured_outputs
    if not all(each is None or each.shape[1:].is_fully_defined() for each in sums):
        return None
    size = tf.shape(batch)[0]
    return [None if x is None else tf.zeros([size, *x.shape[1:]], x.dtype) for x in sums]


def _traced_once(chunk_total: Callable[..., Sequence[tf.Tensor | None]]) -> Callable[..., Tensors]:
    """All chunks share one trace, which tells the shapes of the sums."""
    if tf.executing_eagerly():
        return chunk_total  # type: ignore[return-value]
    indices = tf.TensorSpec([None], tf.int32)
    return tf.function(chunk_total, autograph=False).get_concrete_function(indices)


def scores_of_pairs(
    pairs: tf.Tensor,
    shape: tf.Tensor,
    rows: int,
    score_pairs: Callable[[tf.Tensor], tf.Tensor],
    verbose: int = 0,
) -> tf.Tensor:
    """One score for each pair (sample, channel), where only some pairs are tried.

    Args:
        pairs: int32 `(n, 2)`.
        shape: int32 `[batch, channels]`.
        rows: How many pairs one forward pass may hold.
        score_pairs: The scores `(m,)` of a chunk of pairs `(m, 2)`.
        verbose: Whether the running progress bar is told after every chunk.

    Returns:
        float32 `(batch, channels)`, zero for the pairs that were not tried.
    """
    count = tf.shape(pairs)[0]

    def run(start: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chunk = pairs[start : start + rows]
        found = tf.tensor_scatter_nd_update(found, chunk, score_pairs(chunk))
        stop = tf.minimum(start + rows, count)
        if verbose:
            with tf.control_dependencies([found]):
                stop = reported(stop, count)
        return stop, found

    start = (tf.constant(0), tf.zeros(shape))
    return tf.while_loop(lambda start, _: start < count, run, start, parallel_iterations=1)[1]


def repeated(batch: tf.Tensor, copies: tf.Tensor) -> tf.Tensor:
    """Every sample `copies` times over: `(copies * batch, ...)`, one whole batch after another."""
    ones = tf.ones([batch.shape.rank - 1], tf.int32)
    return tf.tile(batch, tf.concat([[copies], ones], axis=0))


def row_indices(batch: tf.Tensor, copies: tf.Tensor) -> tf.Tensor:
    """For every row of `repeated(batch, copies)` the sample it is a copy of."""
    return tf.tile(tf.range(tf.shape(batch)[0]), [copies])


def by_copy(rows: tf.Tensor, copies: tf.Tensor) -> tf.Tensor:
    """Rows `(copies * batch, ...)` as `(copies, batch, ...)`: undoes `as_rows`."""
    shape = tf.shape(rows)
    split = tf.reshape(rows, tf.concat([[copies, shape[0] // copies], shape[1:]], axis=0))
    return tf.ensure_shape(split, [None, None, *rows.shape[1:]])


def as_rows(copies: tf.Tensor) -> tf.Tensor:
    """Copies `(copies, batch, ...)` as the rows `(copies * batch, ...)` of one pass."""
    rows = tf.reshape(copies, tf.concat([[-1], tf.shape(copies)[2:]], axis=0))
    return tf.ensure_shape(rows, [None, *copies.shape[2:]])


def added_up(rows: tf.Tensor, copies: tf.Tensor) -> tf.Tensor:
    """The sum over the copies of every sample: undoes `repeated`."""
    return tf.reduce_sum(by_copy(rows, copies), axis=0)


def uniform(indices: tf.Tensor, shape: Sequence[int], seed: tf.Tensor) -> tf.Tensor:
    """Uniform noise in 0..1 `(len(indices), *shape)`; each index has its own, in any chunk."""

    def draw(index: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, seed=tf.stack([seed, index]))

    return tf.map_fn(draw, indices, fn_output_signature=tf.float32)


def normal(indices: tf.Tensor, shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Standard normal noise `(len(indices), *shape)`; each index has its own, in any chunk."""

    def draw(index: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_normal(shape, seed=tf.stack([seed, index]))

    return tf.map_fn(draw, indices, fn_output_signature=tf.float32)
