"""How a photograph became a model's input, and how a map of the input goes back to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

Mode: TypeAlias = Literal["stretch", "pad", "crop"]


@dataclass(frozen=True)
class Framing:
    """The geometry between a photograph and the input that a model saw of it.

    * "stretch": the whole photograph, resized whatever its shape, as
      `keras.utils.load_img(target_size=)` and `image_dataset_from_directory` do.
    * "pad": letterboxed. The photograph keeps its shape and stands in the middle of an input that
      is filled up, as with `pad_to_aspect_ratio=True`.
    * "crop": the largest part in its middle that has the shape of the input, as with
      `crop_to_aspect_ratio=True`.

    Args:
        mode: "stretch", "pad" or "crop".
        fill: What "pad" fills up with, in the values of the photograph.

    Raises:
        ValueError: If the mode is another.

    Example:
        >>> Framing("crop").of_photograph(np.ones((2, 2)), (2, 4)).tolist()
        [[nan, 1.0, 1.0, nan], [nan, 1.0, 1.0, nan]]
    """

    mode: Mode = "stretch"
    fill: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(
                f"Expected mode to be 'stretch', 'pad' or 'crop'. Received: {self.mode!r}. They are"
                " what load_img, pad_to_aspect_ratio and crop_to_aspect_ratio do."
            )

    def input_of(self, photograph: ArrayLike, size: tuple[int, int]) -> NDArray[np.float32]:
        """A photograph as the model gets it, `(height, width, channels)` float32.

        Args:
            photograph: `(height, width[, channels])`, any real dtype; its values stay in range.
            size: Height and width of the input.
        """
        values = np.asarray(photograph, np.float32)
        values = values[..., np.newaxis] if values.ndim == 2 else values
        top, left, height, width = self._part(values.shape[:2], size, of_input=False)
        part = values[top : top + height, left : left + width]
        above, beside, tall, wide = self._part(size, values.shape[:2], of_input=True)
        framed = np.full((*size, values.shape[-1]), self.fill, np.float32)
        framed[above : above + tall, beside : beside + wide] = _resized(part, (tall, wide))
        return framed

    def of_photograph(self, heatmap: NDArray[Any], size: tuple[int, ...]) -> NDArray[np.float32]:
        """A map of the input at the photograph's own size; NaN where the model did not look.

        Args:
            heatmap: `(height, width)`, of the input.
            size: Height and width of the photograph.
        """
        height, width = size
        above, beside, tall, wide = self._part(heatmap.shape, (height, width), of_input=True)
        seen = heatmap[above : above + tall, beside : beside + wide].astype(np.float32)
        top, left, high, across = self._part((height, width), heatmap.shape, of_input=False)
        if (top, left) == (0, 0) and (high, across) == seen.shape == (height, width):
            return seen
        found = np.full((height, width), np.nan, np.float32)
        found[top : top + high, left : left + across] = _resized(
            seen[..., np.newaxis], (high, across)
        )[..., 0]
        return found

    def box_in_input(
        self, box: ArrayLike, photograph: tuple[int, int], size: tuple[int, int]
    ) -> NDArray[np.float64]:
        """A box of the photograph as a box of the input, cut where the model did not look.

        Args:
            box: `[x0, y0, x1, y1]` in pixels of the photograph.
            photograph: Height and width of the photograph.
            size: Height and width of the input.

        Returns:
            `[x0, y0, x1, y1]` in pixels of the input; of no area where the box was cut off.

        Example:
            >>> Framing("crop").box_in_input([1, 0, 3, 2], (2, 4), (4, 4)).tolist()
            [0.0, 0.0, 4.0, 4.0]
        """
        top, left, height, width = self._part(photograph, size, of_input=False)
        above, beside, tall, wide = self._part(size, photograph, of_input=True)
        corners = np.asarray(box, np.float64).reshape(2, 2)
        inside = np.clip((corners - (left, top)) / (width, height), 0, 1)
        return (inside * (wide, tall) + (beside, above)).reshape(4)

    def _part(
        self, size: tuple[int, ...], other: tuple[int, ...], *, of_input: bool
    ) -> tuple[int, int, int, int]:
        """Top, left, height and width of what is used of one side: the whole, or its middle."""
        height, width = size
        if self.mode != ("pad" if of_input else "crop"):
            return 0, 0, height, width
        tall = min(height, max(1, round(width * other[0] / other[1])))
        wide = min(width, max(1, round(height * other[1] / other[0])))
        return (height - tall) // 2, (width - wide) // 2, tall, wide


def _resized(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Each channel, bilinear with antialiasing, which never overshoots."""
    if values.shape[:2] == size:
        return values
    channels = [
        np.asarray(Image.fromarray(each).resize(size[::-1], Image.Resampling.BILINEAR))
        for each in np.moveaxis(np.ascontiguousarray(values), -1, 0)
    ]
    return np.stack(channels, axis=-1)
