"""What happens beside gradient ascent: progress, history, snapshots, animations.

The ascent runs on the device; Python is called every `every` steps only, with what was measured
at each step since the last time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from kvis2.images import displayable, grid, save_gif


class AscentState(NamedTuple):
    """Where an ascent has come to.

    Attributes:
        step: How many steps have been taken.
        steps: How many will be.
        losses: For each weighted term of the loss, and their sum "loss", the values measured
            since the last call, `(steps since then, images)`.
        images: Makes the images at which the last losses were measured, in the structure of
            the model's inputs.
        gradients: Gradients of the loss by the parameters there, as the optimizer saw them.
    """

    step: int
    steps: int
    losses: Mapping[str, np.ndarray]
    images: Callable[[], Any]
    gradients: Sequence[np.ndarray]


class AscentCallback:
    """Base of the callbacks of gradient ascent; does nothing.

    Args:
        every: Call `on_step` after every n-th step, and after the last one.
    """

    def __init__(self, every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"Expected `every` of at least 1. Received: {every}.")
        self.every = every

    def on_begin(self, steps: int) -> None:
        """An ascent of `steps` steps begins."""

    def on_step(self, state: AscentState) -> None:
        """`every` more steps have been taken."""

    def on_end(self) -> None:
        """The ascent is over, even if by an error."""


class ProgressBar(AscentCallback):
    """A Keras progress bar with the mean of each term of the loss."""

    def on_begin(self, steps: int) -> None:
        """Start an empty bar."""
        self._bar = keras.utils.Progbar(steps, stateful_metrics=None)

    def on_step(self, state: AscentState) -> None:
        """Move the bar."""
        values = [(name, float(each[-1].mean())) for name, each in state.losses.items()]
        self._bar.stateful_metrics = {name for name, _ in values}
        self._bar.update(state.step, values)


class History(AscentCallback):
    """Every term of the loss at every step.

    Attributes:
        losses: For each term, and their sum "loss", float32 `(steps, images)`.

    Example:
        >>> history = History()
        >>> images = ActivationMaximization(model)([20, 21], callbacks=[history])
        >>> history.losses["score"].shape
        (128, 2)
    """

    def __init__(self, every: int = 1000) -> None:
        super().__init__(every)
        self.losses: dict[str, np.ndarray] = {}

    def on_begin(self, steps: int) -> None:
        """Forget the last ascent."""
        self.losses = {}

    def on_step(self, state: AscentState) -> None:
        """Append what was measured."""
        for name, values in state.losses.items():
            known = [self.losses[name]] if name in self.losses else []
            self.losses[name] = np.concatenate([*known, values])


class Snapshots(AscentCallback):
    """Keeps the images every n steps.

    Attributes:
        steps: The numbers of the steps.
        images: The images at each of them, as the call returns them.
    """

    def __init__(self, every: int = 10) -> None:
        super().__init__(every)
        self.steps: list[int] = []
        self.images: list[Any] = []

    def on_begin(self, steps: int) -> None:
        """Forget the last ascent."""
        self.steps, self.images = [], []

    def on_step(self, state: AscentState) -> None:
        """Keep the images of this step."""
        self.steps.append(state.step)
        self.images.append(state.images())


def gif_path(path: str | PathLike[str]) -> Path:
    """The path of an animation, with ".gif" added where it is missing.

    Example:
        >>> gif_path("ascent.v2").name
        'ascent.v2.gif'
    """
    path = Path(path)
    return path if path.suffix.lower() == ".gif" else path.with_name(f"{path.name}.gif")


class GifWriter(Snapshots):
    """Writes an animation of the ascent; many images are laid out as a grid.

    Args:
        path: Ends in ".gif"; the suffix is added where missing.
        every: Steps from frame to frame.
        duration_ms: How long each frame stays.
        display: As for `kvis2.images.displayable`; a tuple (low, high) is the input range.
        captions: Whether "Step n" stands below each frame.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        every: int = 10,
        duration_ms: int = 100,
        display: Any = (0, 255),
        captions: bool = True,
    ) -> None:
        super().__init__(every)
        self.path = gif_path(path)
        self.duration_ms = duration_ms
        self.display = display
        self.captions = captions

    def on_step(self, state: AscentState) -> None:
        """Draw a frame."""
        self.steps.append(state.step)
        first = keras.tree.flatten(state.images())[0]
        self.images.append(grid(list(displayable(first, self.display)), margin=2))

    def on_end(self) -> None:
        """Write the file, with what there is of it after an error."""
        if self.images:
            texts = [f"Step {step}" for step in self.steps] if self.captions else None
            save_gif(self.path, self.images, self.duration_ms, texts)
