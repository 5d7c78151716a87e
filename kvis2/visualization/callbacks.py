"""What watches an optimisation: called at every step with the numbers before its update."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from PIL import Image

from kvis2 import images
from kvis2.ascent import gif_path
from kvis2.visualization import arrays
from kvis2.visualization.pictures import draw_text


class OptimizerCallback:
    """Base of the callbacks: does nothing. Subclasses override what they need."""

    def callback(
        self,
        i: int,
        named_losses: Sequence[tuple[str, float]],
        overall_loss: float,
        grads: np.ndarray,
        wrt_value: np.ndarray,
    ) -> None:
        """One step.

        Args:
            i: Number of the step, from 0.
            named_losses: Name and weighted value of every loss.
            overall_loss: Their sum.
            grads: The gradient, modified, `(batch, ...)`.
            wrt_value: What it is the gradient by, before the update, `(batch, ...)`.
        """

    def on_end(self) -> None:
        """After the last step, also if a step failed."""


class Print(OptimizerCallback):
    """Prints one line for every step: its number, the losses and their sum."""

    def callback(
        self,
        i: int,
        named_losses: Sequence[tuple[str, float]],
        overall_loss: float,
        grads: np.ndarray,
        wrt_value: np.ndarray,
    ) -> None:
        """Print the step."""
        print(f"Iteration: {i + 1}, named_losses: {named_losses}, overall loss: {overall_loss}")


class GifGenerator(OptimizerCallback):
    """Writes the first image of every step into an animated GIF, with the number of the step.

    The file is written at the end, also if a step fails.

    Args:
        path: Of the file; ".gif" is added where missing.
        input_range: Lowest and highest value of the input.
        width: Pixels to which frames are brought, so that small ones have room for the number;
            default: as they are.
        duration_ms: How long a frame stays.

    Example:
        >>> optimizer.minimize(max_iter=500, callbacks=[GifGenerator("progress")])
    """

    def __init__(
        self,
        path: str | PathLike[str],
        input_range: arrays.InputRange = (0, 255),
        *,
        width: int | None = None,
        duration_ms: int = 100,
    ) -> None:
        self.path = gif_path(path)
        self.input_range = input_range
        self.width = width
        self.duration_ms = duration_ms
        self._frames: list[Image.Image] = []

    def callback(
        self,
        i: int,
        named_losses: Sequence[tuple[str, float]],
        overall_loss: float,
        grads: np.ndarray,
        wrt_value: np.ndarray,
    ) -> None:
        """Draw the step."""
        frame = draw_text(
            self._picture(wrt_value[0]),
            f"Step {i + 1}",
            font=None,
            color=(255, 255, 255),
            outline=(0, 0, 0),
        )
        self._frames.append(Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE))

    def _picture(self, image: Any) -> images.PictureArray:
        image = arrays.deprocess_input(channels_last(image), self.input_range)
        picture = images.displayable(image[None], display=self.input_range)[0]
        return picture if self.width is None else images.resize(picture, self.width)

    def on_end(self) -> None:
        """Write the file."""
        if not self._frames:
            return
        first, *rest = self._frames
        self._frames = []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        first.save(self.path, save_all=True, append_images=rest, duration=self.duration_ms, loop=1)


def channels_last(image: Any) -> np.ndarray:
    """One image with the channels at the end, from the global image data format."""
    array = np.asarray(image)
    if arrays.is_channels_first() and array.ndim > 1:
        return np.moveaxis(array, 0, -1)
    return array
