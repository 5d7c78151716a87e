"""How far a run is: pictures, rate, time left, on the error stream."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Tells how far a run is: on a terminal in one line, else in a line every so often.

    Args:
        total: How many pictures there are to explain.
        stream: Where to; None is silent.
        every: Seconds between two lines where there is no terminal.
    """

    def __init__(self, total: int, stream: TextIO | None = None, every: float = 10.0) -> None:
        self.total = total
        self.done = self.failed = 0
        self._stream = stream
        self._start = self._told = time.monotonic()
        self._live = bool(stream is not None and stream.isatty())
        self._every = 0.2 if self._live else every

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._start

    @property
    def rate(self) -> float:
        """Pictures in a second."""
        return self.done / max(self.seconds, 1e-9)

    def add(self, count: int, failed: int) -> None:
        """So many more pictures are through, and so many of these failed."""
        self.done += count
        self.failed += failed
        now = time.monotonic()
        if self._stream is not None and now - self._told >= self._every:
            self._told = now
            self._tell()

    def close(self) -> None:
        """Tell the end."""
        if self._stream is not None and self.done:
            self._tell()
            if self._live:
                self._stream.write("\n")

    def _tell(self) -> None:
        left = (self.total - self.done) / max(self.rate, 1e-9)
        failed = f", {self.failed:,} failed" if self.failed else ""
        line = (
            f"{self.done:,}/{self.total:,} pictures, {self.rate:.1f} a second, "
            f"{as_time(left)} left{failed}"
        )
        assert self._stream is not None
        self._stream.write(f"\r{line}\x1b[K" if self._live else f"{line}\n")
        self._stream.flush()


def as_time(seconds: float) -> str:
    """Seconds in words: "12 s", "3 min 20 s", "5 h 7 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def error_stream() -> TextIO:
    """Where the command tells how far it is."""
    return sys.stderr
