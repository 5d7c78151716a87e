"""Maps in one byte for each place: small enough to keep for a whole data set, and the way back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST, _ZERO = 255, 128  # of maps without and with a sign


class CompactMap(NamedTuple):
    """A map `(height, width)` in bytes.

    `map = scale * values`, or `scale * (values - 128)` if it is signed: off by half of `scale` at
    most, which is 1/510 of the largest magnitude, or 1/254 if it is signed.

    Attributes:
        values: uint8 `(height, width)`.
        scale: What one step is worth, in the units of the map; 0 for a map of zeros.
        signed: Whether a value is negative.
    """

    values: NDArray[np.uint8]
    scale: float
    signed: bool

    @classmethod
    def of(cls, heatmap: NDArray[np.float32]) -> CompactMap:
        """Keep a finite map `(height, width)`.

        Example:
            >>> CompactMap.of(np.array([[0.0, 1.0], [2.0, 4.0]], np.float32)).values.tolist()
            [[0, 64], [128, 255]]
        """
        values = np.asarray(heatmap, np.float64)
        signed = bool(values.min() < 0)
        steps = _MOST - _ZERO if signed else _MOST
        peak = float(np.abs(values).max())
        # The scale is a float32 where it is kept: maps come back the same before and after.
        scale = np.float32(peak / steps)
        if not scale:
            return cls(np.zeros(values.shape, np.uint8), 0.0, False)
        numbers = np.rint(np.clip(values / np.float64(scale), -steps, steps))
        return cls((numbers + (_ZERO if signed else 0)).astype(np.uint8), float(scale), signed)

    @property
    def heatmap(self) -> NDArray[np.float32]:
        """The map, float32 `(height, width)`."""
        numbers = self.values.astype(np.float32) - np.float32(_ZERO if self.signed else 0)
        return numbers * np.float32(self.scale)
