"""One progress bar for all the passes of one call, told from inside the compiled loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf


class Progress:
    """How far one call has come, over chunks of samples and the loops within them."""

    def __init__(self, chunks: int) -> None:
        self._chunks_left = chunks
        self._bar: keras.utils.Progbar | None = None
        self._before = 0  # passes of the loops that are through
        self._done = self._count = 0  # of the loop that is running

    def passes_done(self, done: int, count: int) -> None:
        """`done` of the `count` passes of the running loop are through."""
        if done <= self._done:  # Another loop has begun.
            self._before += self._count
        self._done, self._count = done, count
        target = self._before + count * self._chunks_left
        if self._bar is None:
            self._bar = keras.utils.Progbar(target)
        self._bar.target = target  # Loops differ in length: the estimate becomes exact.
        self._bar.update(self._before + done)

    def chunk_done(self) -> None:
        """A chunk of samples is through."""
        if not self._count:  # A method without a loop.
            self.passes_done(1, 1)
        self._chunks_left -= 1
        self._before += self._count
        self._done = self._count = 0


# A compiled pass outlives the call it was made for: it asks here whose turn it is.
_RUNNING: list[Progress] = []


@contextmanager
def running(chunks: int, verbose: int) -> Iterator[Progress | None]:
    """Show a bar for the `chunks` of one call, or nothing if `verbose` is 0."""
    if not verbose:
        yield None
        return
    progress = Progress(chunks)
    _RUNNING.append(progress)
    try:
        yield progress
    finally:
        _RUNNING.remove(progress)


def reported(done: tf.Tensor, count: int | tf.Tensor) -> tf.Tensor:
    """`done`, int32, having told the running bar that so many of `count` passes are through."""

    def report(done: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        if _RUNNING:
            _RUNNING[-1].passes_done(int(done), int(count))
        return done

    return tf.ensure_shape(tf.py_function(report, [done, count], tf.int32), [])
