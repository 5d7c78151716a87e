"""When a training is looked at, and where the pictures go: the base of the loggers."""

from __future__ import annotations

import logging
import os
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, NamedTuple

import keras

from kvis2.callbacks.probe_images import preserved_random_state
from kvis2.callbacks.schedule import TENSORBOARD_STEPS, BatchNumbers, Schedule
from kvis2.callbacks.sentences import one_line
from kvis2.callbacks.settings import Log, log_of
from kvis2.callbacks.tab import TabSummary
from kvis2.callbacks.writers import (
    FolderWriter,
    Picture,
    TensorBoardWriter,
    Writer,
)
from kvis2.shown import Shown

# At WARNING, the lowest level that Python shows where nobody has set up logging.
_LOG = logging.getLogger("kvis2")


class Observation(NamedTuple):
    """What a logger saw at one step.

    Attributes:
        pictures: What is drawn.
        scalars: Numbers by tag; NaN where there is none at this step, which is not written.
        summaries: Records for the Explanations tab of TensorBoard.
    """

    pictures: Sequence[Picture]
    scalars: Mapping[str, float] = {}
    summaries: Sequence[TabSummary] = ()


class PictureLogger(Shown, keras.callbacks.Callback):
    """Base of the loggers: when to look, and where the pictures go. `observe` says what is seen.

    Training with a logger is bit-identical to training without: weights, optimizer, metrics and
    the global random generators of Python and NumPy are left as they were.

    Args:
        log_dir: The directory that TensorBoard is started with, or a `Log`.
        **options: The further fields of `Log`: `every`, `unit`, `run`, `save_dir`, `on_error`.

    Attributes:
        log: When the logger looks, and where it writes to.
        history: What was logged, lists of equal length by name: "step", "seconds" (what the step
            cost), and the scalars.
    """

    default_run: ClassVar[str] = "kvis2"
    """Name of the run where none is said: one for each kind of logger."""
    option_kinds: ClassVar[tuple[type, ...]] = (Log,)
    """What further arguments are parted by."""

    # Of one training:
    _schedule: Schedule | None
    _writers: list[Writer]
    _failed: bool
    _warned: set[tuple[type[Warning], str, int]]
    _batches: BatchNumbers
    _visited: int | None  # the last step that could have been logged
    _epoch_scalars: dict[str, float]
    _first_seconds: float  # what was spent before the first batch, counted with the first step

    def __init__(self, log_dir: str | os.PathLike[str] | Log, **options: Any) -> None:
        super().__init__()
        if not isinstance(log_dir, Log):
            options = {"run": self.default_run, **options}
        self.log = log_of(log_dir, options)
        self.history: dict[str, list[float]] = {"step": [], "seconds": []}
        self._reset()

    def observe(self, step: int) -> Observation:
        """Look at `self.model`: the pictures and scalars of one step. Subclasses say what."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it observes.")

    def begin(self) -> None:
        """Look at `self.model` before its first batch; subclasses may."""

    @property
    def overhead(self) -> float:
        """Seconds that the logging of the last training took."""
        return sum(self.history["seconds"])

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget the last training, and close what it left open when it was interrupted."""
        self._close()
        self._reset()
        self.history = {"step": [], "seconds": []}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Open the files before the first batch; the number of the first epoch is known here."""
        steps = self.params.get("steps")
        if self._schedule is None:
            self._schedule = self._planned(epoch, self.params.get("epochs"), steps)
            self._writers = self._opened()
            # Keras calls no hook when a training is interrupted outside of one.
            weakref.finalize(self, _close_all, self._writers)
            self._prepare()
        if self.log.unit == "batch":
            self._batches.begin_epoch(self.model, epoch, steps)
        self._epoch_scalars = {}

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Log if a batch is due; with `steps_per_execution` the hook sees each n-th batch only."""
        if self.log.unit == "batch" and not self._failed:
            with self._guarded(f"after batch {batch} of an epoch"):
                self._visit(self._batches.number(batch))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log if the epoch is due, and hand the scalars to the callbacks that come after."""
        if self.log.unit == "epoch":
            self._visit(epoch)
        if logs is not None:
            logs.update(
                {f"{self.log.run}_{name}": value for name, value in self._epoch_scalars.items()}
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Log the end of a training that stopped early, and close the files."""
        if self._schedule is not None and self._schedule.is_spread:
            self._log_last()
        self._close()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to a training, so that a used logger can be copied."""
        left_out: dict[str, Any] = {
            "_model": None,
            "params": None,
            "_schedule": None,
            "_writers": [],
        }
        return {**self.__dict__, **left_out, "_batches": BatchNumbers()}

    def _reset(self) -> None:
        self._schedule = None
        self._writers = []
        self._failed = False
        self._warned = set()
        self._batches = BatchNumbers()
        self._visited = None
        self._epoch_scalars = {}
        self._first_seconds = 0.0

    def _planned(self, epoch: int, epochs: int | None, steps: int | None) -> Schedule:
        first, last = epoch, None if epochs is None else epochs - 1
        if self.log.unit == "batch":
            first = epoch * (steps or 0)
            last = None if epochs is None or steps is None else epochs * steps - 1
        schedule = Schedule(self.log.every, first, last)
        planned = schedule.total()
        if planned is not None and planned > TENSORBOARD_STEPS:
            _LOG.warning(
                f"{type(self).__name__} will log {planned} steps, of which TensorBoard keeps "
                f"{TENSORBOARD_STEPS}: start it with `tensorboard --logdir {self.log.log_dir} "
                f"--samples_per_plugin images={planned}` to see them all."
            )
        return schedule

    def _opened(self) -> list[Writer]:
        writers: list[Writer] = []
        if self.log.save_dir is not None:
            writers.append(FolderWriter(self.log.save_dir, self.log.unit))
        return [TensorBoardWriter(self.log.log_dir, self.log.run), *writers]

    def _close(self) -> None:
        """Close the files, each of them though another cannot be."""
        # The list stays the same: it is also what is closed with the process.
        writers = self._writers[:]
        self._writers.clear()
        with ExitStack() as stack:
            for writer in reversed(writers):
                stack.callback(self._finish, writer)

    def _finish(self, writer: Writer) -> None:
        with self._guarded("when it finished"):
            writer.close()

    def _prepare(self) -> None:
        started = time.perf_counter()
        with (
            self._guarded("before the first batch"),
            preserved_random_state(),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # What remains true is said at the first step.
            self.begin()
        self._first_seconds = time.perf_counter() - started

    def _visit(self, step: int) -> None:
        assert self._schedule is not None
        self._visited = step
        if self._schedule.due(step):
            self._log(step)
        elif self._schedule.is_spread and self.model.stop_training:
            self._log(step)  # An early stop makes this the last step.

    def _log_last(self) -> None:
        steps = self.history["step"]
        if self._visited is not None and self._visited not in steps:
            self._log(self._visited)

    def _log(self, step: int) -> None:
        if self._failed:
            return
        started = time.perf_counter()
        with self._guarded(f"at {self.log.unit} {step}"):
            with preserved_random_state(), self._each_warning_once(step):
                observation = self.observe(step)
            known = {tag: v for tag, v in observation.scalars.items() if v == v}  # not NaN
            for writer in self._writers:
                writer.write(step, observation.pictures, known, observation.summaries)
            self._remember(step, observation.scalars, time.perf_counter() - started)

    def _remember(self, step: int, scalars: Mapping[str, float], seconds: float) -> None:
        named = {tag.split("/")[-1]: value for tag, value in scalars.items()}
        self._epoch_scalars = {name: value for name, value in named.items() if value == value}
        seconds, self._first_seconds = seconds + self._first_seconds, 0.0
        for name, value in {"step": step, "seconds": seconds, **named}.items():
            self.history.setdefault(name, []).append(value)

    @contextmanager
    def _each_warning_once(self, step: int) -> Iterator[None]:
        """Let a warning that comes at every step, such as of an empty map, through once."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for warning in caught:
            place = (warning.category, warning.filename, warning.lineno)
            if place not in self._warned:
                self._warned.add(place)
                said = one_line(str(warning.message))
                message = f"{type(self).__name__} at {self.log.unit} {step}: {said}"
                warnings.warn_explicit(message, *place)

    @contextmanager
    def _guarded(self, when: str) -> Iterator[None]:
        """Let the training survive an error: the first one is a warning, or raised if wanted."""
        try:
            yield
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {one_line(str(error))}"
            if self.log.on_error == "raise":
                self._close()
                if isinstance(error, Exception):
                    raise
                raise RuntimeError(f"{type(self).__name__} failed {when}: {said}") from error
            if not self._failed:
                self._failed = True
                warnings.warn(
                    f"{type(self).__name__} failed {when} and logs no more in this training, "
                    f"which goes on: {said}",
                    RuntimeWarning,
                    stacklevel=3,
                )
        except BaseException:
            self._close()
            raise


def _close_all(writers: list[Writer]) -> None:
    """Close what an interrupted training has left open."""
    with ExitStack() as stack:
        while writers:
            stack.callback(writers.pop().close)
