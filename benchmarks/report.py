"""The numbers as a page: one table of times, one of first calls and memory, and what else is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.agreement import KNOWN_DIFFERENCES
from benchmarks.cases import (
    BEFORE,
    FLOOR,
    FULL,
    METHODS,
    OURS,
    PEERS,
    QUICK,
    floor_goal,
    peer_goal,
)
from benchmarks.measurement import Row
from benchmarks.models import BUILDERS
from benchmarks.reasons import reason

_FIRST_CALL_GOAL = 2.0


def line(row: Row) -> str:
    """One line for the terminal."""
    parts = [f"floor {_time(row, FLOOR)}"]
    for name in row.rivals:
        ratio = row.ratio(name, FLOOR)
        if ratio is not None and name != FLOOR:
            parts.append(f"{name} {_spread(ratio)}")
    return f"{row.case.name}: " + ", ".join(parts)


def markdown(document: dict[str, Any]) -> str:
    """The page of all numbers.

    Args:
        document: What `python -m benchmarks --json` wrote.
    """
    rows = sorted((Row.from_json(each) for each in document["rows"]), key=_place)
    dates = {each["name"]: each.get("date", "") for each in document["rows"]}
    parts = [
        "# Performance",
        *_verdict(rows),
        *_earlier(dates),
        "All toolkits of a row were run in turn. `make bench` writes this page; its tables are "
        "folded.",
        _machine(document),
        "## Time",
        "The floor is one compiled forward (and backward) pass of the plain model, as far as the "
        "method needs it, at the best chunk size, written without any explainer (`benchmarks/"
        "floors.py`). Ratios are medians over rounds in which all rivals ran in turn, quartiles in "
        "brackets. The column of kvis2 is its time over that of the floor; the columns of the "
        "peers are their time over that of kvis2, so above 1 kvis2 is ahead. A rival is timed only "
        "after its maps were seen to be those of the floor. Batch normalisation is folded where "
        "kvis2 does so by itself; so a ratio can be below 1.",
        _folded("Time of every method, model and batch", _times(rows)),
        *_differences(rows),
        "## Goals that were missed",
        _short_of(rows),
        "## First call and memory",
        "Building the explainer and calling it once; and the most memory above the loaded model.",
        _folded("First calls and memory", _first_calls(rows)),
        *_extras(document["extras"]),
        "## What was left out",
        _left_out(rows, document["extras"]),
    ]
    return "\n\n".join(parts) + "\n"


def _verdict(rows: Sequence[Row]) -> Iterator[str]:
    """Who is ahead, in a sentence for each peer."""
    ours = [ratio for row in rows if (ratio := row.ratio(OURS, FLOOR)) is not None]
    if not ours:
        return
    medians = sorted(ratio[0] for ratio in ours)
    most = max(rows, key=lambda row: (row.ratio(OURS, FLOOR) or (0.0,))[0])
    yield (
        f"A method of kvis2 takes {statistics.median(medians):.2f} times as long as the passes of "
        f"the plain model that it needs (median of {len(medians)} rows; {medians[0]:.2f} to "
        f"{medians[-1]:.2f}, which is {most.case.name})."
    )
    lines = []
    for peer in (*PEERS, BEFORE):
        found = [ratio[0] for row in rows if (ratio := row.ratio(peer, OURS)) is not None]
        if found:
            faster = sum(each > 1 for each in found)
            lines.append(
                f"- {peer} takes {statistics.median(found):.1f} times as long as kvis2 (median of "
                f"{len(found)} rows, {min(found):.2f} to {max(found):.1f}); kvis2 is ahead in "
                f"{faster}."
            )
    if lines:
        yield "\n".join(lines)


def _folded(title: str, text: str) -> str:
    return f'<details markdown="1"><summary>{title}</summary>\n\n{text}\n\n</details>'


def _earlier(dates: dict[str, str]) -> list[str]:
    """Which rows were measured before the last ones, by an earlier state of the code."""
    days = sorted(set(dates.values()), reverse=True)
    if len(days) < 2:
        return []
    parts = [
        f"Measured on {day}: {', '.join(sorted(name for name in dates if dates[name] == day))}."
        for day in days[:-1]
    ]
    rest = f"All other rows are of {days[-1] or 'before'}, and older than the code."
    return [" ".join([*parts, rest])]


def _place(row: Row) -> tuple[int, int, int]:
    case = row.case
    return list(METHODS).index(case.method), list(BUILDERS).index(case.model), case.batch


def _machine(document: dict[str, Any]) -> str:
    machine = document["machine"]
    versions = {
        name: version for each in document["versions"].values() for name, version in each.items()
    }
    ours = document["versions"].get(FLOOR, {})
    listed = ", ".join(f"{name} {v}" for name, v in sorted((versions | ours).items()))
    return (
        f"{machine['date']}, {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory']}, {machine['system']}, Python {machine['python']}, load "
        f"{machine['load']} at the end, {document['seconds'] / 60:.0f} minutes.\n\n{listed}."
    )


def _times(rows: Sequence[Row]) -> str:
    peers = [name for name in (*PEERS, BEFORE) if any(row.ratio(name, OURS) for row in rows)]
    lines = []
    for row in rows:
        ours = row.ratio(OURS, FLOOR)
        cells = [row.case.name, METHODS[row.case.method].floor, _time(row, FLOOR)]
        cells += [_spread(ours), f"≤ {floor_goal(row.case):g}", *(_peer(row, p) for p in peers)]
        lines.append(cells)
    return _table(["", "floor", "its time", "kvis2 / floor", "goal", *peers], lines)


def _peer(row: Row, peer: str) -> str:
    ratio = row.ratio(peer, OURS)
    if ratio is not None:
        mark = "*" if (row.case.method, peer) in KNOWN_DIFFERENCES else ""
        return f"{_spread(ratio)}{mark}"
    return "left out" if peer in row.rivals and row.rivals[peer].left_out else "-"


def _differences(rows: Sequence[Row]) -> list[str]:
    notes = []
    for row in rows:
        for name, measured in row.rivals.items():
            known = KNOWN_DIFFERENCES.get((row.case.method, name))
            if known and measured.seconds and measured.agreement:
                correlation = measured.agreement.correlation
                notes.append(f"{name}, {row.case.name}: {known} (correlation {correlation:.3f}).")
    return ["\\* Computes something a little different:", _bullets(notes)] if notes else []


def _short_of(rows: Sequence[Row]) -> str:
    """Every goal that was not reached, with the reason."""
    missed = []
    for row in rows:
        ratio = row.ratio(OURS, FLOOR)
        if ratio is not None and ratio[0] > floor_goal(row.case):
            goal = floor_goal(row.case)
            why = reason(row.case.name) or _by_spread(ratio, goal)
            missed.append(f"{row.case.name}: {ratio[0]:.2f} floors, goal {goal:g}: {why}.")
        first = _first_call(row)
        if first is not None and first > _FIRST_CALL_GOAL:
            missed.append(
                f"{row.case.name}: the first call takes {first:.1f} times that of the floor, goal "
                f"{_FIRST_CALL_GOAL:g}: {reason(row.case.name, 'first call') or _NOT_KNOWN}."
            )
        for peer in PEERS:
            ahead, goal = row.ratio(peer, OURS), peer_goal(row.case, peer)
            if ahead is not None and ahead[0] < goal:
                why = reason(row.case.name, peer) or _by_spread(ahead, goal)
                missed.append(
                    f"{row.case.name}: {peer} takes {ahead[0]:.2f} times as long, goal {goal:g}: "
                    f"{why}."
                )
    return _bullets(missed) or "Nowhere."


_NOT_KNOWN = "not looked into yet"


def _by_spread(ratio: tuple[float, float, float], goal: float) -> str:
    """What the quartiles themselves say about a goal that the median misses."""
    _, low, high = ratio
    return "the goal lies within the spread of the rounds" if low <= goal <= high else _NOT_KNOWN


def _first_call(row: Row) -> float | None:
    """The first call of kvis2 over that of the floor."""
    ours, floor = (row.rivals[name].first_seconds for name in (OURS, FLOOR))
    return None if ours is None or floor is None else ours / floor


def _first_calls(rows: Sequence[Row]) -> str:
    names = [FLOOR, OURS, *PEERS, BEFORE]
    names = [n for n in names if any(n in row.rivals and row.rivals[n].seconds for row in rows)]
    lines = []
    for row in rows:
        cells = [row.case.name]
        for name in names:
            measured = row.rivals.get(name)
            if measured is None or not measured.seconds or measured.first_seconds is None:
                cells.append("-")
                continue
            memory = "?" if not _is_number(measured.peak_mib) else f"{measured.peak_mib:.0f} MiB"
            cells.append(f"{measured.first_seconds:.2f} s, {memory}")
        lines.append(cells)
    return _table(["", *names], lines)


def _extras(extras: dict[str, Any]) -> Iterator[str]:
    found = {name: each for name, each in extras.items() if "left_out" not in each}
    if "imports" in found:
        each = found["imports"]
        yield "## Import"
        yield (
            f"`import kvis2` takes {each['kvis2_seconds']:.2f} s after `import tensorflow, keras` "
            f"({each['tensorflow_and_keras_seconds']:.1f} s); goal 0.2 s."
        )
    if "endurance" in found:
        yield "## Many calls"
        yield _table(
            ["LayerCAM, another class each time", "calls", "traces", "memory grown"],
            [
                [name, str(each["calls"]), str(each["traces"]), f"{each['grown_mib']:+.1f} MiB"]
                for name, each in found["endurance"].items()
            ],
        )
    if "training" in found:
        yield "## CamLogger"
        yield "Eight images once per epoch, pictures written; medians after the first epoch."
        yield _table(
            ["", "images per epoch", "epoch", "logging", "share", "first logging"],
            [
                [
                    name,
                    str(each["images"]),
                    f"{each['epoch_seconds']:.2f} s",
                    f"{1000 * each['logging_seconds']:.0f} ms",
                    f"{each['share']:.1%}",
                    f"{each['first_logging_seconds']:.2f} s",
                ]
                for name, each in found["training"].items()
            ],
        )
    if "tab" in found:
        yield "## The Explanations tab"
        yield f"Measured by `python -m benchmarks.tab` on {found['tab']['date']}."
        yield _table(["what", "measured"], [list(map(str, row)) for row in found["tab"]["rows"]])
    if "growth" in found:
        yield "## Growth"
        yield "![Time over batch, side, channels and depth](images/growth.png)"
        yield (
            "Exponents of the last doubling (1 is linear; pixels grow with the square of the side, "
            "and a convolution with the square of its channels):"
        )
        yield _bullets(
            f"{axis}: "
            + ", ".join(f"{name} {_exponent(each, name):.2f}" for name in each["seconds"])
            for axis, each in found["growth"].items()
        )


def _exponent(axis: dict[str, Any], method: str) -> float:
    x, y = axis["values"], axis["seconds"][method]
    return math.log(y[-1] / y[-2]) / math.log(x[-1] / x[-2])


def _left_out(rows: Sequence[Row], extras: dict[str, Any]) -> str:
    notes = [
        f"{row.case.name}: {name}: {measured.left_out}"
        for row in rows
        for name, measured in row.rivals.items()
        if measured.left_out
    ]
    notes += [f"{name}: {each['left_out']}" for name, each in extras.items() if "left_out" in each]
    measured = {row.case.name for row in rows}
    if not measured <= {case.name for case in QUICK}:
        missing = [case.name for case in FULL if case.name not in measured]
        notes += [f"{name}: not measured in this run" for name in missing]
    return _bullets(notes) or "Nothing."


def plot(document: dict[str, Any], path: Path) -> None:
    """Draw how time grows, one panel for each axis, on logarithmic scales."""
    from matplotlib.figure import Figure

    growth = document["extras"]["growth"]
    if "left_out" in growth:
        return
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    for axes, (name, each) in zip(figure.subplots(2, 2).flat, growth.items(), strict=True):
        for method, seconds in each["seconds"].items():
            axes.loglog(each["values"], seconds, marker="o", markersize=4, label=method)
        axes.set_xscale("log", base=2)
        axes.set_xticks(each["values"], list(map(str, each["values"])))
        axes.minorticks_off()
        axes.set_xlabel({"side": "side of the images (pixels)"}.get(name, name))
        axes.set_ylabel("seconds per call")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _time(row: Row, name: str) -> str:
    seconds = sorted(row.rivals[name].seconds)
    if not seconds:
        return "-"
    middle = seconds[len(seconds) // 2]
    return f"{1000 * middle:.3g} ms" if middle < 1 else f"{middle:.3g} s"


def _spread(ratio: tuple[float, float, float] | None) -> str:
    return "-" if ratio is None else f"{ratio[0]:.2f} [{ratio[1]:.2f} to {ratio[2]:.2f}]"


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    ruled = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ruled)


def _bullets(notes: Any) -> str:
    return "\n".join(f"- {note}" for note in notes)
