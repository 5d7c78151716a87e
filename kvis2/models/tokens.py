"""Tokens of a vision transformer as a grid, for `reshape=`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class TokenGrid:
    """The function that `token_grid` returns: `(batch, tokens, channels) -> grid`.

    Equal grids share one compiled pass, and a grid can be pickled.
    """

    leading: int = 1
    shape: tuple[int, int] | None = None

    def __call__(self, tokens: tf.Tensor) -> tf.Tensor:
        """The tokens after the leading ones, row by row."""
        count = tokens.shape[-2]
        if count is None:
            raise ValueError(
                "Expected a fixed number of tokens, to make a grid of them. Received: shape "
                f"{tuple(tokens.shape)}. Give a function of your own as `reshape=`."
            )
        patches = count - self.leading
        height, width = self.shape or (math.isqrt(max(patches, 0)),) * 2
        if height * width != patches or patches < 1:
            wanted = "a square number of" if self.shape is None else f"{height} x {width}"
            raise ValueError(
                f"Expected {wanted} tokens after {self.leading} leading ones. Received: {count} "
                "tokens in all. Say whether there is a `class_token`, and the `shape` of a grid "
                "that is not square."
            )
        before = tf.shape(tokens)[:-2]
        grid = tf.concat([before, [height, width], tf.shape(tokens)[-1:]], axis=0)
        result = tf.reshape(tokens[..., self.leading :, :], grid)
        return tf.ensure_shape(result, [*tokens.shape[:-2], height, width, tokens.shape[-1]])


def token_grid(class_token: bool | int = True, shape: tuple[int, int] | None = None) -> TokenGrid:
    """A `reshape=` for vision transformers: `grid[n, y, x] = tokens[n, leading + y * width + x]`.

    Args:
        class_token: Whether the first token stands for the class and is left out; a number for
            several leading tokens (2 for DeiT with distillation, 5 for one and 4 registers).
        shape: Height and width of the grid in tokens; None for a square one.

    Returns:
        A function `(batch, tokens, channels) -> (batch, height, width, channels)`.

    Raises:
        ValueError: When used, if the tokens do not fill the grid.

    Example:
        >>> token_grid(class_token=True)(tf.zeros([2, 197, 768])).shape
        TensorShape([2, 14, 14, 768])
        >>> GradCAM(vit, layer="block_11/norm", reshape=token_grid())(243, images)
    """
    return TokenGrid(int(class_token), None if shape is None else (shape[0], shape[1]))
