"""When a training is looked at, and where the pictures go: the base of the loggers."""

from __future__ import annotations

import os
import time
import warnings
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import keras

from kvis2.callbacks.probe_images import preserved_random_state
from kvis2.callbacks.schedule import TENSORBOARD_STEPS, BatchNumbers, Schedule, check_every
from kvis2.callbacks.sentences import one_line
from kvis2.callbacks.tab import TabSummary
from kvis2.callbacks.writers import (
    FolderWriter,
    Picture,
    TensorBoardWriter,
    Writer,
    check_run,
)


class Observation(NamedTuple):
    """What a logger saw at one step.

    Attributes:
        pictures: What is drawn.
        scalars: Numbers by tag.
        summaries: Records for the Explanations tab of TensorBoard.
    """

    pictures: Sequence[Picture]
    scalars: Mapping[str, float] = {}
    summaries: Sequence[TabSummary] = ()


class PictureLogger(keras.callbacks.Callback):
    """Base of the loggers: when to look, and where the pictures go. `observe` says what is seen.

    Training with a logger is bit-identical to training without: weights, optimizer, metrics and
    the global random generators of Python and NumPy are left as they were.

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

    Attributes:
        history: What was logged, lists of equal length by name: "step", "seconds" (what the step
            cost), and the scalars.
    """

    # Of one training:
    _schedule: Schedule | None
    _writers: list[Writer]
    _failed: bool
    _warned: set[tuple[type[Warning], str, int]]
    _batches: BatchNumbers
    _visited: int | None  # the last step that could have been logged
    _epoch_scalars: dict[str, float]

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        *,
        every: int | str = "auto",
        unit: str = "epoch",
        run: str = "kvis2",
        save_dir: str | os.PathLike[str] | None = None,
        on_error: str = "warn",
    ) -> None:
        super().__init__()
        check_every(every)
        check_choice("unit", unit, ("epoch", "batch"))
        check_choice("on_error", on_error, ("warn", "raise"))
        if not run or run in (".", "..", "train", "validation"):
            raise ValueError(
                f"Expected run to name a directory of the logger's own. Received: {run!r}. "
                "TensorBoard loses data where two writers share a run: use for example 'kvis2'."
            )
        check_run(run)
        self.log_dir = os.fspath(log_dir)
        self.every = every
        self.unit = unit
        self.run = run
        self.save_dir = save_dir
        self.on_error = on_error
        self.history: dict[str, list[float]] = {"step": [], "seconds": []}
        self._reset()

    def observe(self, step: int) -> Observation:
        """Look at `self.model`: the pictures and scalars of one step. Subclasses say what."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it observes.")

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
        if self.unit == "batch":
            self._batches.begin_epoch(self.model, epoch, steps)
        self._epoch_scalars = {}

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Log if a batch is due; with `steps_per_execution` the hook sees each n-th batch only."""
        if self.unit == "batch" and not self._failed:
            with self._guarded(f"after batch {batch} of an epoch"):
                self._visit(self._batches.number(batch))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log if the epoch is due, and hand the scalars to the callbacks that come after."""
        if self.unit == "epoch":
            self._visit(epoch)
        if logs is not None:
            logs.update(
                {f"{self.run}_{name}": value for name, value in self._epoch_scalars.items()}
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

    def _planned(self, epoch: int, epochs: int | None, steps: int | None) -> Schedule:
        first, last = epoch, None if epochs is None else epochs - 1
        if self.unit == "batch":
            first = epoch * (steps or 0)
            last = None if epochs is None or steps is None else epochs * steps - 1
        schedule = Schedule(self.every, first, last)
        planned = schedule.total()
        if planned is not None and planned > TENSORBOARD_STEPS:
            print(
                f"{type(self).__name__} will log {planned} steps, of which TensorBoard keeps "
                f"{TENSORBOARD_STEPS}: start it with `tensorboard --logdir {self.log_dir} "
                f"--samples_per_plugin images={planned}` to see them all."
            )
        return schedule

    def _opened(self) -> list[Writer]:
        writers: list[Writer] = []
        if self.save_dir is not None:
            writers.append(FolderWriter(self.save_dir, self.unit))
        return [TensorBoardWriter(self.log_dir, self.run), *writers]

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
        with self._guarded(f"at {self.unit} {step}"):
            with preserved_random_state(), self._each_warning_once(step):
                observation = self.observe(step)
            for writer in self._writers:
                writer.write(step, *observation)
            self._remember(step, observation.scalars, time.perf_counter() - started)

    def _remember(self, step: int, scalars: Mapping[str, float], seconds: float) -> None:
        self._epoch_scalars = {tag.split("/")[-1]: value for tag, value in scalars.items()}
        for name, value in {"step": step, "seconds": seconds, **self._epoch_scalars}.items():
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
                message = f"{type(self).__name__} at {self.unit} {step}: {said}"
                warnings.warn_explicit(message, *place)

    @contextmanager
    def _guarded(self, when: str) -> Iterator[None]:
        """Let the training survive an error: the first one is a warning, or raised if wanted."""
        try:
            yield
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {one_line(str(error))}"
            if self.on_error == "raise":
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


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(
            f"Expected {name} to be one of {', '.join(map(repr, choices))}. Received: {value!r}."
        )
