"""`python -m benchmarks`: measure, write a table and a JSON file, and say what is too slow."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import environments, extras, models, report, workers
from benchmarks.cases import BEFORE, FLOOR, FULL, OURS, PEERS, QUICK, Case
from benchmarks.machine import about
from benchmarks.measurement import Row, failures, measure
from benchmarks.workers import Worker, WorkerError

# Only a gross slip is to fail where the machine is shared.
_LIMIT = 1.5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if kvis2 is above 1.5 floors somewhere, or did not agree."""
    given = _parser().parse_args(arguments)
    if given.report:
        document = json.loads(Path(given.report).read_text())
    else:
        Path(given.json).parent.mkdir(parents=True, exist_ok=True)
        document = _measured(given)
    text = report.markdown(document)
    if given.markdown:
        Path(given.markdown).parent.mkdir(parents=True, exist_ok=True)
        Path(given.markdown).write_text(text)
        if "growth" in document["extras"]:
            report.plot(document, Path(given.markdown).parent / "images" / "growth.png")
    print(text)
    failed = failures([Row.from_json(each) for each in document["rows"]], _LIMIT)
    for each in failed:
        print(f"FAILED {each}", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases, in three minutes")
    parser.add_argument("--only", default="", help="cases whose name has all of these words")
    parser.add_argument("--rivals", nargs="*", help=f"besides the floor: {OURS} {' '.join(PEERS)}")
    parser.add_argument("--before", help="another checkout of kvis2, which takes its turn too")
    parser.add_argument("--seconds", type=float, help="for the rounds of a case, about")
    parser.add_argument("--no-extras", action="store_true", help="cases only")
    parser.add_argument("--peers", default=".venv/peers", help="folder of the peers' environments")
    parser.add_argument("--models", help="folder to keep the models in (1.5 GB)")
    parser.add_argument("--json", default="build/benchmarks.json", help="where numbers are written")
    parser.add_argument("--resume", action="store_true", help="measure what --json has not yet")
    parser.add_argument("--markdown", help="where the page is written, such as docs/performance.md")
    parser.add_argument("--report", help="write the page of numbers that are there, measure none")
    return parser


def _measured(given: argparse.Namespace) -> dict[str, Any]:
    cases = [case for case in (QUICK if given.quick else FULL) if _is_asked_for(case, given.only)]
    names = given.rivals
    if names is None:
        names = [OURS, "tf-keras-vis"] if given.quick else [OURS, *PEERS]
    seconds = given.seconds or (2.0 if given.quick else 20.0)
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        folder = Path(given.models or stack.enter_context(tempfile.TemporaryDirectory()))
        names = [*names, BEFORE] if given.before else names
        crew = stack.enter_context(
            Crew(names, Path(given.peers), fresh=not given.quick, before=given.before)
        )
        document = _begun(Path(given.json) if given.resume else None)
        before = document["seconds"]

        def keep() -> None:  # After every row: a run takes an hour, and may not reach its end.
            document["machine"] = about()
            document["versions"] |= crew.versions
            document["seconds"] = before + time.perf_counter() - start
            Path(given.json).write_text(json.dumps(document, indent=1))

        measured = [row["name"] for row in document["rows"]]
        for case in (each for each in cases if each.name not in measured):
            target = models.write(case.model, folder)
            with crew.at_work(case) as at_work:
                row = measure(case, target, at_work, seconds)
            print(report.line(row), flush=True)
            document["rows"].append({**row.as_json(), "date": about()["date"]})
            keep()
        if not given.no_extras:
            document["extras"] |= extras.measured(folder, quick=given.quick)
        keep()
    return document


def _begun(saved: Path | None) -> dict[str, Any]:
    """The document of a run that was broken off, or an empty one."""
    if saved is not None and saved.exists():
        return json.loads(saved.read_text())
    return {"machine": {}, "versions": {}, "seconds": 0.0, "rows": [], "extras": {}}


def _is_asked_for(case: Case, words: str) -> bool:
    return all(word.lower() in case.name.lower().split() for word in words.split())


class Crew(contextlib.AbstractContextManager):
    """The workers of all rivals.

    Args:
        names: Who takes part, besides the floor.
        peers: Folder of the environments that `benchmarks.environments` made.
        fresh: Whether every case gets new processes. Memory and the first call are then those of
            a program that does nothing else.
        before: The checkout that `BEFORE` runs, with the worker that it has itself.
    """

    def __init__(
        self, names: Sequence[str], peers: Path, fresh: bool, before: str | None = None
    ) -> None:
        self._names = [FLOOR, *names]
        self._peers = peers
        self._fresh = fresh
        self._checkouts = {BEFORE: Path(before)} if before else {}
        self._workers: dict[str, Worker] = {}
        self.versions: dict[str, dict[str, str]] = {}

    @contextlib.contextmanager
    def at_work(self, case: Case) -> Iterator[dict[str, Any]]:
        """The workers that know the method of a case, the floor first."""
        crew = {name: self._worker(name) for name in self._names if _knows(name, case)}
        for worker in crew.values():
            with contextlib.suppress(WorkerError):  # It will say so again where it is needed.
                worker.ask("about")  # All have started up before any is measured.
        try:
            yield crew
        finally:
            if self._fresh:
                self._dismiss()

    def _worker(self, name: str) -> Worker:
        if name not in self._workers:
            environment = PEERS[name].environment if name in PEERS else None
            python = environments.python(self._peers, environment)
            module = PEERS[name].worker if name in PEERS else name.split()[0]
            command = [str(python), "-m", f"benchmarks.workers.{module}"]
            self._workers[name] = Worker(command, self._checkouts.get(name, workers.REPOSITORY))
        if name not in self.versions:
            with contextlib.suppress(WorkerError):  # It will say so again where it is needed.
                self.versions[name] = self._workers[name].ask("about")["versions"]
        return self._workers[name]

    def _dismiss(self) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers = {}

    def __exit__(self, *error: object) -> None:
        self._dismiss()


def _knows(name: str, case: Case) -> bool:
    return name not in PEERS or case.method in PEERS[name].methods


if __name__ == "__main__":
    sys.exit(main())
