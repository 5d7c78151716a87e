"""Where and when a logger logs, and how its panels look: the settings that loggers share."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvis2.callbacks.schedule import check_every
from kvis2.callbacks.writers import check_run
from kvis2.images import Opacity, check_opacity, color_table

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


@dataclass(frozen=True)
class Log:
    """When a logger looks, and where it writes to.

    A logger takes one in the place of `log_dir`, or the fields as arguments of its own:
    `CamLogger("logs", images, every=5)` is `CamLogger(Log("logs", every=5), images)`.

    Args:
        log_dir: The directory that TensorBoard is started with.
        every: Log every n epochs (or batches); "auto" spreads ten steps over the training, the
            first and the last included, since TensorBoard keeps ten pictures of a tag.
        unit: "epoch" or "batch", what `every` counts. A step is the epoch's or batch's number
            from 0; batches count on over epochs.
        run: Name of the run directory below `log_dir`. If it holds event files already, `run_2`,
            `run_3`, ... is used, so that two trainings, or two loggers, never mix.
        save_dir: Also write the pictures here as PNG files, and at the end a GIF and a strip of
            each. A training that is resumed (`initial_epoch`) goes on in GIF and strip where the
            earlier one was; else files of an earlier training are replaced.
        on_error: "warn": an error while logging gives one warning and ends the logging, and the
            training goes on; "raise": it ends the training. A directory that cannot be written to
            is an error before the first batch in either case. An attempt to end the process
            (`SystemExit`) while logging is such an error. A `KeyboardInterrupt` while logging ends
            the training and closes the files; one elsewhere closes them at the next training,
            or with the process.

    Raises:
        ValueError: If a field is not as described.
    """

    log_dir: str | os.PathLike[str]
    every: int | str = "auto"
    unit: str = "epoch"
    run: str = "kvis2"
    save_dir: str | os.PathLike[str] | None = None
    on_error: str = "warn"

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_dir", os.fspath(self.log_dir))
        check_every(self.every)
        check_choice("unit", self.unit, ("epoch", "batch"))
        check_choice("on_error", self.on_error, ("warn", "raise"))
        if not self.run or self.run in (".", "..", "train", "validation"):
            raise ValueError(
                f"Expected run to name a directory of the logger's own. Received: {self.run!r}. "
                "TensorBoard loses data where two writers share a run: use for example 'kvis2'."
            )
        check_run(self.run)


@dataclass(frozen=True)
class PanelStyle:
    """How the panel of an explanation looks: see `kvis2.images.panel`.

    Args:
        alpha: The largest weight of the heatmap's colour in the overlay, 0..1.
        colormap: Any colormap of matplotlib; None: "inferno", or "RdBu_r" for signed maps.
        opacity: "heat": the colour is as strong as the heat; "even": as strong everywhere.
        top_k: How many of the most probable classes get a bar.
        width: Of the panel in pixels; 350 are shown pixel by pixel in TensorBoard.

    Raises:
        ValueError: If a field is not as described.
    """

    alpha: float = 0.8
    colormap: str | Colormap | None = None
    opacity: Opacity = "heat"
    top_k: int = 3
    width: int = 350

    def __post_init__(self) -> None:
        check_opacity(self.alpha, self.opacity)
        if self.colormap is not None:
            color_table(self.colormap)
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(
                f"Expected top_k to be a number of classes, from 0. Received: {self.top_k!r}."
            )
        if self.width < 120:
            raise ValueError(
                f"Expected a width of at least 120 pixels. Received: {self.width}. A panel holds "
                "two pictures side by side."
            )


def log_of(log_dir: str | os.PathLike[str] | Log, options: Mapping[str, Any]) -> Log:
    """The log that a logger's first argument and its further ones describe."""
    if isinstance(log_dir, Log):
        return dataclasses.replace(log_dir, **options) if options else log_dir
    return Log(log_dir, **options)


def parted(name: str, options: Mapping[str, Any], *kinds: type) -> list[dict[str, Any]]:
    """Part a logger's further arguments by the settings that they belong to.

    Args:
        name: Of the logger.
        options: The arguments.
        *kinds: Dataclasses.

    Returns:
        The arguments of each of the kinds.

    Raises:
        TypeError: If an argument is of none.
    """
    known = [[field.name for field in dataclasses.fields(kind)] for kind in kinds]
    unknown = sorted(set(options).difference(*known))
    if unknown:
        every = [each for names in known for each in names if each != "log_dir"]
        raise TypeError(
            f"Expected arguments that {name} knows. Received: {', '.join(unknown)}. Beside those "
            f"of its own there are {', '.join(every)}."
        )
    return [{key: options[key] for key in names if key in options} for names in known]


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(
            f"Expected {name} to be one of {', '.join(map(repr, choices))}. Received: {value!r}."
        )
