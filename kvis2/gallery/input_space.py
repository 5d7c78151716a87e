"""Between photographs and what a model takes: its range of values and its order of colours."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvis2 import images
from kvis2.parametrizations import Standardized


class InputSpace(NamedTuple):
    """What black and white are to a model: `x = low + (high - low) picture / 255`.

    Attributes:
        low: The value of black, for each channel in the model's order.
        high: The value of white, likewise.
        blue_first: Whether the model takes blue, green, red.
    """

    low: tuple[float, ...] = (0.0, 0.0, 0.0)
    high: tuple[float, ...] = (255.0, 255.0, 255.0)
    blue_first: bool = False

    @classmethod
    def of_preprocessing(cls, preprocess: Callable[[Any], Any]) -> InputSpace:
        """The space that a function such as `keras.applications.vgg16.preprocess_input` leads to.

        Args:
            preprocess: Takes float RGB images in 0..255. It may scale and shift each channel and
                reverse their order, as all of `keras.applications` do.

        Raises:
            ValueError: If it does something else.

        Example:
            >>> InputSpace.of_preprocessing(keras.applications.mobilenet_v2.preprocess_input).low
            (-1.0, -1.0, -1.0)
        """
        colors = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)

        def processed(color: Any) -> NDArray[np.float64]:
            pixel = np.broadcast_to(np.asarray(color, np.float32), (1, 4, 4, 3)).copy()
            return np.asarray(preprocess(pixel), np.float64)[0]

        low, high = (tuple(map(float, processed(value)[0, 0])) for value in (0, 255))
        expected = processed(colors)
        for blue_first in (False, True):
            space = cls(low, high, blue_first)
            if np.allclose(space.encode(colors), expected, rtol=1e-4, atol=1e-3):
                return space
        raise ValueError(
            "Expected a preprocessing that scales and shifts each channel by itself. Received: "
            f"{preprocess!r}. Give the range of the input instead."
        )

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colours."""
        return len(self.low)

    @property
    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """`(low, high)`, as gradient ascent takes its `input_range`."""
        return self.low, self.high

    @property
    def mean_color(self) -> NDArray[np.float32]:
        """The mean colour of ImageNet as the model takes it, `(channels,)`."""
        low, high = (np.asarray(each, np.float32) for each in self.bounds)
        return low + (high - low) * np.asarray(self.in_order(Standardized.offset), np.float32)

    def in_order(self, by_color: tuple[float, ...]) -> tuple[float, ...]:
        """Numbers for red, green and blue in the model's order; their mean for a grey input."""
        if self.channels == 1:
            return (sum(by_color) / len(by_color),)
        return by_color[::-1] if self.blue_first else by_color

    def encode(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the model takes, float32, of uint8 pictures `(..., height, width, channels)`."""
        ordered = pictures[..., ::-1] if self.blue_first else pictures
        low, high = (np.asarray(each, np.float32) for each in self.bounds)
        return low + (high - low) * (ordered.astype(np.float32) / np.float32(255.0))

    def decode(self, images: Any) -> NDArray[np.uint8]:
        """uint8 pictures of what the model takes: clipped to the range and rounded."""
        low, high = (np.asarray(each, np.float64) for each in self.bounds)
        unit = np.clip((np.asarray(images, np.float64) - low) / (high - low), 0.0, 1.0)
        pictures = np.round(255.0 * unit).astype(np.uint8)
        return pictures[..., ::-1] if self.blue_first else pictures

    def read(self, path: str | PathLike[str], size: tuple[int, int] | None) -> NDArray[np.uint8]:
        """A picture file as uint8 `(height, width, channels)`, grey or RGB: see `images.read`.

        Args:
            path: Any file that Pillow reads.
            size: `(height, width)` to resize to; None keeps the file's.

        Raises:
            ValueError: If no picture can be read.
        """
        return images.read(path, size, channels=self.channels)
