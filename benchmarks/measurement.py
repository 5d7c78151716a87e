"""One case: prepare all rivals, see that they agree, then let them run in turn."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.agreement import KNOWN_DIFFERENCES, Agreement, compare
from benchmarks.cases import FLOOR, METHODS, OURS, Case
from benchmarks.workers import WorkerError

# A sample of less than this many seconds is mostly the noise of the clock and the scheduler.
_SHORTEST_SAMPLE = 0.1


class Asked(Protocol):
    """What is measured through: a `benchmarks.workers.Worker`."""

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""


@dataclass
class Measured:
    """What is known of one rival in one case.

    Attributes:
        seconds: The time of one call, in every round; the rounds of all rivals belong together.
        first_seconds: Building the explainer and calling it for the first time.
        peak_mib: Memory above the loaded model, at its highest.
        agreement: How close its result is to that of the floor.
        left_out: Why there is no time.
    """

    seconds: list[float] = field(default_factory=list)
    first_seconds: float | None = None
    peak_mib: float | None = None
    agreement: Agreement | None = None
    left_out: str | None = None


@dataclass
class Row:
    """A case with all its rivals, by name; the floor and kvis2 among them."""

    case: Case
    rivals: dict[str, Measured]

    def ratio(self, rival: str, to: str) -> tuple[float, float, float] | None:
        """Median and quartiles, over the rounds, of the time of `rival` over that of `to`."""
        if not all(name in self.rivals and self.rivals[name].seconds for name in (rival, to)):
            return None
        both = self.rivals[rival].seconds, self.rivals[to].seconds
        ratios = np.divide(*map(np.asarray, both))
        low, middle, high = np.percentile(ratios, (25, 50, 75))
        return float(middle), float(low), float(high)

    def as_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers."""
        rivals = {name: asdict(each) for name, each in self.rivals.items()}
        for name, each in self.rivals.items():
            rivals[name]["agreement"] = each.agreement and each.agreement._asdict()
        return {"name": self.case.name, "case": asdict(self.case), "rivals": rivals}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Row:
        """The row that `as_json` made."""
        rivals = {name: Measured(**each) for name, each in saved["rivals"].items()}
        for each in rivals.values():
            if each.agreement is not None:
                each.agreement = Agreement(**each.agreement)  # type: ignore[arg-type]
        return cls(Case(**saved["case"]), rivals)


def measure(
    case: Case,
    folder: Path,
    workers: dict[str, Asked],
    seconds: float,
    say: Callable[[str], None] = print,
) -> Row:
    """Measure a case.

    Args:
        case: What is explained.
        folder: Where `benchmarks.models.write` put the model.
        workers: The rivals by name; the floor first.
        seconds: How long the rounds may take together, about; there are two at least.
        say: Told of every rival that is left out.
    """
    row = Row(case, {name: Measured() for name in workers})
    for name, worker in workers.items():
        with _left_out_on_error(row, name, say):
            answer = worker.ask(
                "prepare",
                folder=str(folder),
                method=case.method,
                batch=case.batch,
                options=dict(case.options),
            )
            row.rivals[name].first_seconds = answer["first_seconds"]
    _check_agreement(row, workers, say)
    running = [name for name in workers if row.rivals[name].left_out is None]
    if FLOOR in running:
        _time(row, workers, running, seconds, say)
    for name in running:
        with _left_out_on_error(row, name, say):
            row.rivals[name].peak_mib = workers[name].ask("memory")["peak_mib"]
    return row


@contextlib.contextmanager
def _left_out_on_error(row: Row, name: str, say: Callable[[str], None]) -> Iterator[None]:
    try:
        yield
    except WorkerError as error:
        _leave_out(row, name, str(error), say)


def _leave_out(row: Row, name: str, reason: str, say: Callable[[str], None]) -> None:
    row.rivals[name].left_out = reason
    row.rivals[name].seconds = []
    say(f"  {row.case.name}: {name} is left out: {reason}")


def _check_agreement(row: Row, workers: dict[str, Asked], say: Callable[[str], None]) -> None:
    """Leave out whoever computed something else than the floor."""
    case, reference = row.case, None
    for name, worker in workers.items():
        measured = row.rivals[name]
        if measured.left_out is not None:
            continue
        with _left_out_on_error(row, name, say), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "result.npy"
            worker.ask("result", path=str(path))
            result = np.load(path)
            if name == FLOOR:
                reference = result
                continue
            if reference is None:
                _leave_out(row, name, "there is no floor to agree with", say)
                continue
            measured.agreement = compare(METHODS[case.method].agreement, reference, result)
            known = (case.method, name) in KNOWN_DIFFERENCES
            if not measured.agreement.agrees and not known:
                found = measured.agreement
                _leave_out(
                    row,
                    name,
                    f"computes something else: correlation {found.correlation:.4f}, 99 % of "
                    f"pixels within {found.error:.2g}, all within {found.largest:.2g}",
                    say,
                )


def _time(
    row: Row,
    workers: dict[str, Asked],
    running: list[str],
    seconds: float,
    say: Callable[[str], None],
) -> None:
    """Run all in turn, each round starting with another."""
    repeats, first = {}, {}
    for name in list(running):
        with _left_out_on_error(row, name, say):
            once = workers[name].ask("time", repeats=1)["seconds"]  # it is warm after this
            repeats[name], first[name] = max(1, math.ceil(_SHORTEST_SAMPLE / once)), once
    running[:] = list(repeats)
    if all(count == 1 for count in repeats.values()):  # A round already.
        for name in running:
            row.rivals[name].seconds.append(first[name])
    total = sum(first[name] * repeats[name] for name in running)
    rounds = int(np.clip(seconds / max(total, 1e-9), 1 if total > seconds else 3, 25))
    for turn in range(1, rounds + 1):
        start = turn % len(running)
        for name in running[start:] + running[:start]:
            with _left_out_on_error(row, name, say):
                answer = workers[name].ask("time", repeats=repeats[name])
                row.rivals[name].seconds.append(answer["seconds"])
        running[:] = [name for name in running if row.rivals[name].left_out is None]


def failures(rows: Sequence[Row], limit: float) -> list[str]:
    """Why the benchmark fails: a time of kvis2 above `limit` floors, or none to compare with.

    A case whose class is not there at all is told of, and no failure.
    """
    found = []
    for row in rows:
        ours = row.rivals[OURS]
        ratio = row.ratio(OURS, FLOOR)
        # The lower quartile: a machine that others use slows single rounds, code slows them all.
        if ratio is not None and ratio[1] > limit:
            found.append(f"{row.case.name}: {ratio[0]:.2f} times its floor, above {limit}")
        elif ratio is None and not (ours.left_out or "").startswith(("ImportError", "ModuleNot")):
            found.append(f"{row.case.name}: {ours.left_out or row.rivals[FLOOR].left_out}")
    return found
