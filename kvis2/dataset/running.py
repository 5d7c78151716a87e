"""One run over the chunks of a data set that are not there yet: read, explain and write at once."""

from __future__ import annotations

import concurrent.futures
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from kvis2.dataset.explaining import Explained, Explaining
from kvis2.dataset.manifest import manifest_of, method_of, model_hash
from kvis2.dataset.pictures import write_overlays, write_thumbnails
from kvis2.dataset.progress import Progress
from kvis2.dataset.reading import batches
from kvis2.dataset.sources import Row
from kvis2.dataset.store import Columns, Store

_WAITING = 4  # batches that are explained and not yet written


@dataclass(frozen=True)
class Summary:
    """What is in a folder of explanations after a run.

    Attributes:
        folder: The folder.
        pictures: How many pictures the source has.
        explained: How many have a map.
        failed: How many have none; `errors.csv` says why.
        blank: How many of the maps are zero everywhere: no evidence was found.
        missing: How many are in chunks that are not there, as those of other shards.
        done: How many pictures this run went through.
        seconds: How long it took, without loading the model.
    """

    folder: str
    pictures: int
    explained: int
    failed: int
    blank: int
    missing: int
    done: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


class Run:
    """One run over the chunks of a data set that are not there yet."""

    def __init__(
        self,
        store: Store,
        explaining: Explaining,
        rows: Sequence[Row],
        chunk_size: int,
        overlays: int,
        thumbnails: int,
    ) -> None:
        self.store = store
        self.explaining = explaining
        self.rows = rows
        self.chunk_size = chunk_size
        self.overlays = overlays
        self.thumbnails = thumbnails

    def manifest(self, source: Any, normalize: Any) -> dict[str, Any]:
        """What is computed, and with what."""
        work, model = self.explaining, self.explaining.explainer.model
        reader, score = work.reader, work.score
        return manifest_of(
            source=source,
            pictures=len(self.rows),
            chunk_size=self.chunk_size,
            chunk_format="parquet" if self.store.parquet else "csv",
            batch_size=work.batch_size,
            model={
                "name": model.name,
                "weights": model.count_params(),
                "hash": model_hash(model),
            },
            method=method_of(work.explainer),
            normalize=normalize,
            score=score if isinstance(score, str | int) else repr(score),
            classes=list(work.classes.names),
            input={"size": reader.size, **reader.space._asdict(), **asdict(reader.framing)},
            map_size=work.map_size,
            measures=work.measures,
            overlays=self.overlays,
            thumbnails=self.thumbnails,
        )

    def pending(self, shard: tuple[int, int], retry: bool) -> list[int]:
        """The chunks of a shard that are still to do, in their order."""
        finished = set(self.store.finished())
        if retry:
            finished -= {each for each in finished if self._has_errors(each)}
        total = -(-len(self.rows) // self.chunk_size)
        return [each for each in range(shard[0], total, shard[1]) if each not in finished]

    def _has_errors(self, chunk: int) -> bool:
        return any(self.store.read_chunk(chunk, ["error"])["error"])

    def through(self, chunks: Sequence[int], stream: TextIO | None) -> Summary:
        """Explain and write these chunks."""
        start = time.monotonic()
        progress = Progress(sum(len(self.of_chunk(each)) for each in chunks), stream)
        try:
            for columns in in_background(self._finished(chunks)):
                progress.add(len(columns["id"]), sum(map(bool, columns["error"])))
        finally:
            progress.close()
        self.store.write_errors()
        return summary_of(self.store, len(self.rows), progress.done, time.monotonic() - start)

    def chunk(self, number: int) -> Iterator[Columns]:
        """Do one chunk, batch after batch; it is written when this ends."""
        yield from in_background(self._finished([number]))

    def of_chunk(self, number: int) -> range:
        """The numbers of the rows of a chunk."""
        start = number * self.chunk_size
        return range(start, min(start + self.chunk_size, len(self.rows)))

    def _finished(self, chunks: Sequence[int]) -> Iterator[Callable[[], Columns]]:
        """For each batch the work that is left when it has been explained."""
        numbers = [number for each in chunks for number in self.of_chunk(each)]
        rows = [self.rows[number] for number in numbers]
        place, growing = 0, _Growing()
        for read in batches(rows, self.explaining.reader, self.explaining.batch_size):
            explained = self.explaining.explain(read)
            first = numbers[place]
            place += len(read.entries)
            chunk = first // self.chunk_size
            ends = place == len(numbers) or numbers[place] // self.chunk_size != chunk
            yield functools.partial(self._keep, explained, first, growing, ends)

    def _keep(self, explained: Explained, first: int, growing: _Growing, ends: bool) -> Columns:
        """Keep a batch, and write the chunk that it is the last of."""
        columns = self.explaining.columns(explained, first)
        with said_where_disk_is_full(self.store):
            write_thumbnails(self.store.folder, explained, first, self.thumbnails)
            write_overlays(self.store.folder, explained, first, self.overlays)
            growing.add(columns)
            if ends:
                self.store.write_chunk(first // self.chunk_size, growing.taken())
        return columns


class _Growing:
    """The rows of a chunk that is not complete yet."""

    def __init__(self) -> None:
        self._columns: Columns = {}

    def add(self, columns: Columns) -> None:
        for name, values in columns.items():
            self._columns.setdefault(name, []).extend(values)

    def taken(self) -> Columns:
        columns, self._columns = self._columns, {}
        return columns


def in_background(work: Iterable[Callable[[], Columns]]) -> Iterator[Columns]:
    """What each piece of work returns, in order, done by one thread while the next is prepared.

    Where one raises, no other is begun: a chunk that lacks a batch must not be completed.
    """
    waiting: deque[concurrent.futures.Future[Columns]] = deque()
    broken = threading.Event()

    def unless_broken(piece: Callable[[], Columns]) -> Columns:
        if broken.is_set():
            raise concurrent.futures.CancelledError
        try:
            return piece()
        except BaseException:
            broken.set()
            raise

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        try:
            for piece in work:
                waiting.append(thread.submit(unless_broken, piece))
                while waiting and (len(waiting) > _WAITING or waiting[0].done()):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            broken.set()


def summary_of(store: Store, pictures: int, done: int, seconds: float) -> Summary:
    """What is in a folder."""
    explained = failed = blank = 0
    for number in store.finished():
        chunk = store.read_chunk(number, ["error", "scale"])
        errors = list(map(bool, chunk["error"]))
        failed += sum(errors)
        explained += len(errors) - sum(errors)
        blank += sum(scale == 0 for scale in chunk["scale"])
    missing = pictures - explained - failed
    return Summary(
        str(store.folder), pictures, explained, failed, blank, missing, done, round(seconds, 3)
    )


@contextmanager
def said_where_disk_is_full(store: Store) -> Iterator[None]:
    """Say what stands, where something could not be written."""
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"Expected room to write to. Received: {error.strerror or error}. "
            f"{len(store.finished())} chunks are whole; make room, and go on with --resume "
            "(resume=True)",
            str(store.folder),
        ) from error
