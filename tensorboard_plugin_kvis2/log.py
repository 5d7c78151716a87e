"""What the loggers of kvis2 wrote, read through TensorBoard: records of runs, tags and steps."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from tensorboard import errors

from tensorboard_plugin_kvis2.loader import PLUGIN_NAME

VERSION = 1
_ALL_STEPS = 1_000_000_000
_KEPT_BYTES = 64 * 2**20
_KEPT_SECONDS = 3.0  # for which the list of a tag's steps holds
_LONG = 2**16  # bytes
_AT_ONCE = 16  # TensorBoard's data server takes 40 ms for a blob, whatever its size


class Series(NamedTuple):
    """What one explainer showed in one run.

    Attributes:
        run: Name of the run.
        tag: Name of the explainer.
        version: Version of the format.
    """

    run: str
    tag: str
    version: int


class Record(NamedTuple):
    """One step of a series, whose blobs are read when they are asked for."""

    step: int
    wall_time: float
    keys: tuple[str, ...]


class Log:
    """Read the data of one experiment.

    Blobs that were read lately are kept, up to 64 MiB.

    Args:
        provider: TensorBoard's data provider.
    """

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._kept: OrderedDict[tuple[str, str, float], bytes] = OrderedDict()
        self._kept_bytes = 0
        self._listed: dict[tuple[str, str, str], tuple[float, list[Record]]] = {}
        self._long: tuple[bytes, dict[str, Any]] = (b"", {})
        self._lock = threading.Lock()
        self._readers = ThreadPoolExecutor(_AT_ONCE)

    def series(self, context: Any, experiment: str) -> list[Series]:
        """List what there is, by run and tag."""
        listed = self._provider.list_blob_sequences(
            context, experiment_id=experiment, plugin_name=PLUGIN_NAME
        )
        return sorted(
            Series(run, tag.removesuffix("/maps"), _version(about.plugin_content))
            for run, tags in listed.items()
            for tag, about in tags.items()
            if tag.endswith("/maps")
        )

    def runs_with_pictures_only(self, context: Any, experiment: str) -> list[str]:
        """List the runs that hold pictures, but nothing for this tab."""
        pictures = self._provider.list_blob_sequences(
            context, experiment_id=experiment, plugin_name="images"
        )
        return sorted(set(pictures) - {each.run for each in self.series(context, experiment)})

    def records(self, context: Any, experiment: str, run: str, tag: str) -> list[Record]:
        """List the steps of one tag, such as "GradCAM/maps", in order.

        Raises:
            NotFoundError: If there is no such run or tag.
        """
        known, found = self._listed.get((experiment, run, tag), (0.0, []))
        if found and time.monotonic() - known < _KEPT_SECONDS:
            return found
        from tensorboard.data import provider  # imports NumPy

        of_tag = provider.RunTagFilter(runs=[run], tags=[tag])
        found = self.all_records(context, experiment, of_tag).get((run, tag), [])
        if not found:
            raise errors.NotFoundError(f"no {tag!r} in run {run!r}")
        return found

    def all_records(
        self, context: Any, experiment: str, run_tag_filter: Any = None
    ) -> dict[tuple[str, str], list[Record]]:
        """List the steps of many tags by `(run, tag)`, in order."""
        read = self._provider.read_blob_sequences(
            context,
            experiment_id=experiment,
            plugin_name=PLUGIN_NAME,
            downsample=_ALL_STEPS,
            run_tag_filter=run_tag_filter,
        )
        found = {
            (run, tag): [
                Record(datum.step, datum.wall_time, tuple(value.blob_key for value in datum.values))
                for datum in data
            ]
            for run, tags in read.items()
            for tag, data in tags.items()
        }
        # Whoever is told of a new step here asks for it next, and has to find it.
        now = time.monotonic()
        for (run, tag), records in found.items():
            self._listed[experiment, run, tag] = now, records
        return found

    def blob(self, context: Any, experiment: str, record: Record, place: int) -> bytes:
        """Read one blob of a record.

        Raises:
            NotFoundError: If the record has no such blob.
        """
        if not 0 <= place < len(record.keys):
            raise errors.NotFoundError(f"no blob {place} at step {record.step}")
        # The time tells a run from an earlier one in the same folder.
        name = (experiment, record.keys[place], record.wall_time)
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        content = bytes(self._provider.read_blob(context, blob_key=record.keys[place]))
        with self._lock:
            self._keep(name, content)
        return content

    def blobs(
        self, context: Any, experiment: str, records: Iterable[Record], place: int
    ) -> list[bytes]:
        """Read the blob at one place of several records, side by side."""
        return list(
            self._readers.map(lambda record: self.blob(context, experiment, record, place), records)
        )

    def headers(
        self, context: Any, experiment: str, records: Iterable[Record]
    ) -> list[dict[str, Any]]:
        """Read what records say of themselves: their first blobs, as JSON."""
        return [self._parsed(blob) for blob in self.blobs(context, experiment, records, 0)]

    def _parsed(self, blob: bytes) -> dict[str, Any]:
        """Parse a header; long ones, of many cards, are asked for again and again."""
        if len(blob) < _LONG:
            return json.loads(blob)
        with self._lock:
            if self._long[0] != blob:
                self._long = blob, json.loads(blob)
            return self._long[1]

    def _keep(self, name: tuple[str, str, float], content: bytes) -> None:
        if name in self._kept:
            return
        self._kept[name] = content
        self._kept_bytes += len(content)
        while self._kept_bytes > _KEPT_BYTES:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= len(dropped)


def at_steps(records: Sequence[Record], steps: Sequence[int]) -> list[Record]:
    """Pick the records of these steps, in the order of `steps`.

    Raises:
        NotFoundError: If a step was not logged.
    """
    by_step = {record.step: record for record in records}
    missing = [step for step in steps if step not in by_step]
    if missing:
        raise errors.NotFoundError(f"step {missing[0]} was not logged")
    return [by_step[step] for step in steps]


def rows_of(blob: bytes, rows: Sequence[int], total: int) -> bytes:
    """Cut rows out of a blob that holds `total` rows of equal length.

    Raises:
        NotFoundError: If there is no such row.
    """
    if any(not 0 <= row < total for row in rows):
        raise errors.NotFoundError(f"expected rows within 0..{total - 1}")
    length = len(blob) // total
    return b"".join(blob[row * length : (row + 1) * length] for row in rows)


def numbers_of(blob: bytes, row: int, total: int) -> bytes:
    """Cut the numbers of one row out of columns of four bytes for each of `total` rows.

    Raises:
        NotFoundError: If there is no such row.
    """
    if not 0 <= row < total:
        raise errors.NotFoundError(f"expected a row within 0..{total - 1}")
    places = range(4 * row, len(blob), 4 * total)
    return b"".join(blob[place : place + 4] for place in places)


def _version(content: bytes) -> int:
    """Return the version of the format; 0 where the metadata cannot be read."""
    try:
        return int(json.loads(content)["version"])
    except (ValueError, KeyError, TypeError):
        return 0
