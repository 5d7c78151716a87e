"""The server's side of the tab: its page, and the data for it, a little at a time."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import werkzeug
from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from tensorboard_plugin_kvis2.loader import PLUGIN_NAME
from tensorboard_plugin_kvis2.log import VERSION, Log, Record, at_steps, numbers_of, rows_of

_STATIC = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript", ".css": "text/css"}
_MOST_ROWS = 1024
_MOST_STEPS = 64
_MOST_BYTES = 64 * 2**20
_PAGE = 2000
_CACHED_SECONDS = 24 * 3600
_BINARY = "application/octet-stream"


class _Asked(NamedTuple):
    """Whose data a request is about."""

    request: wrappers.Request
    context: Any
    experiment: str

    @classmethod
    def by(cls, request: wrappers.Request) -> _Asked:
        environment = request.environ
        return cls(
            request, plugin_util.context(environment), plugin_util.experiment_id(environment)
        )

    def text(self, name: str) -> str:
        value = self.request.args.get(name)
        if value is None:
            raise errors.InvalidArgumentError(f"expected the parameter {name}")
        return value

    def number(self, name: str, default: int | None = None) -> int:
        value = self.request.args.get(name, default)
        try:
            return int(self.text(name) if value is None else value)
        except ValueError:
            raise errors.InvalidArgumentError(
                f"expected {name} to be a whole number, received {value!r}"
            ) from None

    def numbers(self, name: str, most: int) -> list[int]:
        """Read "3,5-7" as 3, 5, 6, 7."""
        numbers: list[int] = []
        for part in self.text(name).split(","):
            found = re.fullmatch(r"(-?\d{1,18})(?:-(\d{1,18}))?", part)
            if not found:
                raise errors.InvalidArgumentError(
                    f"expected {name} such as 3,5-7, received {part!r}"
                )
            first, last = int(found[1]), int(found[2] or found[1])
            if last - first >= most - len(numbers):
                raise errors.InvalidArgumentError(f"expected at most {most} {name} at once")
            numbers.extend(range(first, last + 1))
        return numbers


class ExplanationsPlugin(base_plugin.TBPlugin):
    """Serve the page and its data.

    Everything is read when it is asked for. What is asked for with the time at which it was
    `written` never changes, so that the browser keeps it; an answer of 304 would be warned of by
    TensorBoard, at each one.

    Args:
        context: What TensorBoard hands to each plugin.
    """

    plugin_name = PLUGIN_NAME

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._log = Log(context.data_provider)

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        """Return what answers each path."""
        files = [path for path in sorted(_STATIC.iterdir()) if path.suffix in _TYPES]
        answers = {
            "/log": self._series,
            "/probes": self._probes,
            "/headers": self._headers,
            "/numbers": self._numbers,
            "/series": self._numbers_of_row,
            "/maps": self._maps,
            "/photograph": self._photograph,
        }
        pages = {f"/{path.name}": _file(path) for path in files}
        return {**pages, **{path: _application(answer) for path, answer in answers.items()}}

    def is_active(self) -> bool:
        """Return False: whether there is data is known by the names in `data_plugin_names`."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """Say what the tab is called, and where its page starts."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Explanations")

    def _series(self, asked: _Asked) -> tuple[Any, str]:
        """List runs and explainers, with the steps of each."""
        listed = self._log.series(asked.context, asked.experiment)
        records = self._log.all_records(asked.context, asked.experiment)
        series = [
            {
                "run": each.run,
                "tag": each.tag,
                "readable": each.version == VERSION,
                "steps": [
                    [record.step, record.wall_time]
                    for record in records.get((each.run, f"{each.tag}/maps"), [])
                ],
            }
            for each in listed
        ]
        without = self._log.runs_with_pictures_only(asked.context, asked.experiment)
        return {"series": series, "without": without}, "application/json"

    def _probes(self, asked: _Asked) -> tuple[Any, str]:
        """List the cards of one explainer, a page at a time; its class names with the first."""
        (header,) = self._headers_of(asked, [self._probes_record(asked)])
        start, count = asked.number("from", 0), asked.number("count", _PAGE)
        if start < 0 or not 0 < count <= _PAGE:
            raise errors.InvalidArgumentError(f"expected from >= 0 and count within 1..{_PAGE}")
        cards = header["cards"]
        page = {"total": len(cards), "depth": header["depth"], "cards": cards[start:][:count]}
        if start == 0:
            page["class_names"] = header["class_names"]
        return page, "application/json"

    def _headers(self, asked: _Asked) -> tuple[Any, str]:
        """List what steps say of themselves, with the curves over all cards; all, or `steps`."""
        records = self._map_records(asked)
        if "steps" in asked.request.args:
            records = at_steps(records, asked.numbers("steps", _MOST_STEPS))
        found = zip(records, self._headers_of(asked, records), strict=True)
        headers = [{"step": record.step, **header} for record, header in found]
        return {"headers": headers}, "application/json"

    def _numbers(self, asked: _Asked) -> tuple[Any, str]:
        """Serve the numbers of all cards at one step, column by column."""
        records = at_steps(self._map_records(asked), [asked.number("step")])
        return self._blobs(asked, records, 1)[0], _BINARY

    def _numbers_of_row(self, asked: _Asked) -> tuple[Any, str]:
        """Serve the numbers of one card at every step, step by step."""
        row, records = asked.number("row"), self._map_records(asked)
        headers = self._headers_of(asked, records)
        found = zip(self._blobs(asked, records, 1), headers, strict=True)
        return b"".join(numbers_of(blob, row, header["rows"]) for blob, header in found), _BINARY

    def _maps(self, asked: _Asked) -> tuple[Any, str]:
        """Serve the maps of some cards at some steps: for each step, each card's cells."""
        rows, steps = asked.numbers("rows", _MOST_ROWS), asked.numbers("steps", _MOST_STEPS)
        records = at_steps(self._map_records(asked), steps)
        headers = self._headers_of(asked, records)
        cells = sum(math.prod(header["grid"]) for header in headers)
        if cells * len(rows) > _MOST_BYTES:
            raise errors.InvalidArgumentError("expected fewer rows or steps at once")
        found = zip(self._blobs(asked, records, 2), headers, strict=True)
        return b"".join(rows_of(blob, rows, header["rows"]) for blob, header in found), _BINARY

    def _photograph(self, asked: _Asked) -> tuple[Any, str]:
        """Serve one picture or signal, by its place among those of the explainer."""
        place = asked.number("place")
        if place < 0:
            raise errors.NotFoundError(f"no photograph {place}")
        (content,) = self._blobs(asked, [self._probes_record(asked)], 1 + place)
        return content, _picture_type(content)

    def _records(self, asked: _Asked, run: str, tag: str) -> list[Record]:
        return self._log.records(asked.context, asked.experiment, run, tag)

    def _map_records(self, asked: _Asked) -> list[Record]:
        return self._records(asked, asked.text("run"), f"{asked.text('tag')}/maps")

    def _probes_record(self, asked: _Asked) -> Record:
        return self._records(asked, asked.text("run"), f"{asked.text('tag')}/probes")[0]

    def _headers_of(self, asked: _Asked, records: list[Record]) -> list[dict[str, Any]]:
        return self._log.headers(asked.context, asked.experiment, records)

    def _blobs(self, asked: _Asked, records: list[Record], place: int) -> list[bytes]:
        return self._log.blobs(asked.context, asked.experiment, records, place)


def _application(answer: Callable[[_Asked], tuple[Any, str]]) -> Callable[..., Any]:
    @wrappers.Request.application
    def application(request: wrappers.Request) -> werkzeug.Response:
        if request.method not in ("GET", "HEAD"):
            return http_util.Respond(request, "expected GET", "text/plain", code=405)
        content, content_type = answer(_Asked.by(request))
        if isinstance(content, dict):  # as bytes: TensorBoard would look at each value in turn
            content = json.dumps(content, separators=(",", ":")).encode()
        expires = _CACHED_SECONDS if "written" in request.args else 0
        return http_util.Respond(request, content, content_type, expires=expires)

    return application


def _file(path: Path) -> Callable[..., Any]:
    @wrappers.Request.application
    def application(request: wrappers.Request) -> werkzeug.Response:
        return http_util.Respond(request, path.read_bytes(), _TYPES[path.suffix])

    return application


def _picture_type(content: bytes) -> str:
    """Name the type of a picture by its first bytes; nothing else is ever served as a picture."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return _BINARY
