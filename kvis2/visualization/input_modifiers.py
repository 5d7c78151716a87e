"""What is done to the input before every step of an optimisation, and undone after it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kvis2.visualization.arrays import generator, is_channels_first


class InputModifier:
    """Base of the input modifiers: changes nothing. Subclasses override what they need."""

    def pre(self, inp: np.ndarray) -> np.ndarray:
        """The input that is evaluated, `(batch, ...)`."""
        return inp

    def post(self, inp: np.ndarray) -> np.ndarray:
        """The input after the step, in the reverse order of the modifiers."""
        return inp


class Jitter(InputModifier):
    """Shifts the input at random along every spatial axis, round the edges.

    Every shift is a whole number of pixels, uniform in -v..v, v included. It makes class images
    crisper, because no pattern can rely on one position.

    Args:
        jitter: v: from 1 on in pixels, below 1 a fraction of the axis (cut off to whole pixels);
            one number, or one for each spatial axis.
        unjitter: Whether the shift is undone after the step. keras-vis does not: its image
            wanders (False).

    Example:
        >>> visualize_activation(model, -1, 20, input_modifiers=[Jitter(16)])
    """

    def __init__(self, jitter: float | Sequence[float] = 0.05, *, unjitter: bool = True) -> None:
        values = np.atleast_1d(np.asarray(jitter, float))
        if values.ndim != 1 or (values < 0).any():
            raise ValueError(
                "Expected a jitter that is not negative: one number, or one for each spatial axis. "
                f"Received: {jitter!r}. Give for example 0.05, or 16 pixels."
            )
        self.jitter = values
        self.unjitter = unjitter
        self._shift: tuple[int, ...] = ()

    def pre(self, inp: np.ndarray) -> np.ndarray:
        """The input, shifted."""
        limits = self.limits(inp.shape)
        self._shift = tuple(int(generator().integers(-v, v + 1)) for v in limits)
        return self._rolled(inp, self._shift)

    def post(self, inp: np.ndarray) -> np.ndarray:
        """The input, shifted back."""
        if not self.unjitter:
            return inp
        return self._rolled(inp, tuple(-shift for shift in self._shift))

    def limits(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The largest shift along each spatial axis of inputs of `shape`, in pixels."""
        sizes = [shape[axis] for axis in _spatial_axes(len(shape))]
        if len(self.jitter) not in (1, len(sizes)):
            raise ValueError(
                f"Expected one jitter, or one for each of {len(sizes)} spatial axes. "
                f"Received: {len(self.jitter)}. Give as many numbers as the input has axes."
            )
        fractions = np.broadcast_to(self.jitter, len(sizes))
        return tuple(
            int(v * size) if v < 1 else int(v) for v, size in zip(fractions, sizes, strict=True)
        )

    def _rolled(self, inp: np.ndarray, shift: tuple[int, ...]) -> np.ndarray:
        return np.roll(inp, shift, _spatial_axes(inp.ndim))


def _spatial_axes(rank: int) -> tuple[int, ...]:
    return tuple(range(2, rank) if is_channels_first() else range(1, rank - 1))
