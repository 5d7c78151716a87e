"""Noisy linear imputation: removed pixels become weighted means of their neighbours.

One linear system per image, solved by conjugate gradients with a multigrid step for a
preconditioner: about 20 steps however large the holes are, in the graph of the
pass itself and without a sparse solver.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

_ROUNDS = 2
_STEPS = 10
_ENOUGH = 1e-5
"""Rounds of at most so many steps in float32, down to this share of the residual that the round
began with; between them the residual is taken in float64."""
_SMOOTHING = 0.8
_OVERCORRECTION = 1.5
"""Constant blocks are stiffer than what they stand for; this much more corrects for it."""


def imputed(images: tf.Tensor, missing: tf.Tensor) -> tf.Tensor:
    """Images whose missing pixels are the weighted means of their eight neighbours.

    `x_p = sum_q w_pq x_q / sum_q w_pq` for every missing pixel p, over its neighbours q inside
    the image, missing ones included: `w = 1/6` straight, `1/12` diagonally. Every channel is
    solved by itself.

    Args:
        images: float32 `(n, height, width, channels)`, height and width known.
        missing: bool `(n, height, width)`, some pixel of each image not missing.

    Returns:
        float32 in the shape of `images`, within 1e-5 of the range of each image's values.

    References:
        Rong et al. (2022), A Consistent and Efficient Evaluation Strategy for Attribution
        Methods. https://arxiv.org/abs/2202.00449
    """
    _, height, width, channels = images.shape
    planes = tf.reshape(tf.transpose(images, [0, 3, 1, 2]), [-1, height, width])
    holes = tf.repeat(tf.cast(missing, tf.float32), channels, axis=0)
    known = planes * (1.0 - holes)
    filled = known + _solved(holes, holes * _neighbours(known))
    restored = tf.reshape(filled, [-1, channels, height, width])
    return tf.ensure_shape(tf.transpose(restored, [0, 2, 3, 1]), images.shape)


class _Level(NamedTuple):
    """The system on one grid: `diagonal * u - strength * share * neighbours(share * u)`."""

    share: tf.Tensor  # of each cell that is missing
    diagonal: tf.Tensor
    strength: float

    def applied(self, values: tf.Tensor) -> tf.Tensor:
        around = self.share * _neighbours(self.share * values)
        return self.diagonal * values - self.strength * around


def _neighbours(planes: tf.Tensor) -> tf.Tensor:
    """The weighted sum of the eight neighbours of every pixel, zero outside."""
    rows = tf.pad(planes, [[0, 0], [0, 0], [1, 1]])
    rows = rows[:, :, :-2] + 2.0 * rows[:, :, 1:-1] + rows[:, :, 2:]
    both = tf.pad(rows, [[0, 0], [1, 1], [0, 0]])
    both = both[:, :-2] + 2.0 * both[:, 1:-1] + both[:, 2:]
    return (both - 4.0 * planes) / 12.0


def _solved(holes: tf.Tensor, known: tf.Tensor) -> tf.Tensor:
    """The values in the holes, given what flows into them from known pixels."""
    exact, wanted = tf.cast(holes, tf.float64), tf.cast(known, tf.float64)
    degrees = _neighbours(tf.ones_like(exact[:1]))
    levels = _levels(holes)

    def refined(number: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        residual = wanted - exact * (degrees * found - _neighbours(found))
        # Scaled, so that the smallest residuals are no smaller than float32 can square.
        size = tf.reduce_max(tf.abs(residual), [1, 2], keepdims=True)
        relative = tf.cast(tf.math.divide_no_nan(residual, size), tf.float32)
        change = _conjugate_gradients(levels, relative)
        return number + 1, found + size * tf.cast(change, tf.float64)

    start = (tf.constant(0), tf.zeros_like(exact))
    found = tf.while_loop(lambda number, _: number < _ROUNDS, refined, start)[1]
    return tf.cast(found, tf.float32)


def _conjugate_gradients(levels: list[_Level], residual: tf.Tensor) -> tf.Tensor:
    """What brings the residual close to zero."""
    holes = levels[0].share

    def step(
        number: tf.Tensor,
        found: tf.Tensor,
        residual: tf.Tensor,
        direction: tf.Tensor,
        before: tf.Tensor,
    ) -> tuple[tf.Tensor, ...]:
        preconditioned = holes * _multigrid(levels, residual)
        product = _dot(residual, preconditioned)
        direction = preconditioned + tf.math.divide_no_nan(product, before) * direction
        image = levels[0].applied(direction)
        length = tf.math.divide_no_nan(product, _dot(direction, image))
        found += length * direction
        return number + 1, found, residual - length * image, direction, product

    def goes_on(number: tf.Tensor, _: tf.Tensor, residual: tf.Tensor, *__: tf.Tensor) -> tf.Tensor:
        return (number < _STEPS) & (tf.reduce_max(tf.abs(residual)) > _ENOUGH)

    zeros = tf.zeros_like(residual)
    start = (tf.constant(0), zeros, residual, zeros, tf.zeros_like(_dot(residual, residual)))
    return tf.while_loop(goes_on, step, start)[1]


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(a * b, [1, 2], keepdims=True)


def _levels(holes: tf.Tensor) -> list[_Level]:
    """The system on the grid of the image, and on grids of half the size each."""
    strength, share = 1.0, holes
    # What ties a missing pixel to known ones, where it is held.
    held = holes * _neighbours(tf.ones_like(holes)) - holes * _neighbours(holes)
    levels = []
    while True:
        diagonal = strength * share * _neighbours(share) + held
        levels.append(_Level(share, diagonal, strength))
        if max(share.shape[1:]) <= 2:
            return levels
        # A side of two cells holds twice the ties of a side of one.
        share, held, strength = _halved(share) / 4.0, _halved(held), 2.0 * strength


def _halved(planes: tf.Tensor) -> tf.Tensor:
    """The sums over blocks of two by two."""
    _, height, width = planes.shape
    padded = tf.pad(planes, [[0, 0], [0, height % 2], [0, width % 2]])
    blocks = tf.reshape(padded, [-1, (height + 1) // 2, 2, (width + 1) // 2, 2])
    return tf.reduce_sum(blocks, [2, 4])


def _multigrid(levels: list[_Level], residual: tf.Tensor) -> tf.Tensor:
    """One V-cycle: smooth, correct on the coarser grid, smooth again."""
    level, coarser = levels[0], levels[1:]
    smoothing = _SMOOTHING * tf.math.divide_no_nan(1.0, level.diagonal)
    found = smoothing * residual
    if not coarser:
        return found
    rest = residual - level.applied(found)
    _, height, width = residual.shape
    correction = _multigrid(coarser, _halved(rest))
    spread = tf.repeat(tf.repeat(correction, 2, axis=1), 2, axis=2)[:, :height, :width]
    found += _OVERCORRECTION * tf.where(level.diagonal > 0.0, spread, 0.0)
    return found + smoothing * (residual - level.applied(found))
