"""What went wrong, in one line."""

from __future__ import annotations

import re

_LONGEST = 600  # characters
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")
_INTERNAL_NAMES = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:.*?\]")
_TRACE = re.compile(
    r"\s*(Traceback \(|File \"|in user code:|Detected at node|Arguments received by|"
    r"Call arguments received|Stack trace for|Original stack trace|-{8,})"
)
_RAISED = re.compile(r"^\s*((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit): .+)$", re.M)


def one_line(message: str) -> str:
    r"""What a message says, without the traceback, the stack and the arguments that it carries.

    Args:
        message: What an error or a warning says, on any number of lines.

    Returns:
        Its words up to the first trace, on one line; where it begins with a trace, as TensorFlow's
        "in user code:", what was raised at the end of that.

    Example:
        >>> one_line("no such file\nTraceback (most recent call last):\n  File ...")
        'no such file'
    """
    text = _INTERNAL_NAMES.sub("", _TERMINAL_CODES.sub("", message))
    trace = next((m for m in map(_TRACE.match, text.splitlines()) if m), None)
    said: list[str] = []
    for line in text.splitlines():
        if trace is not None and _TRACE.match(line):
            break
        said.append(line)
    raised = _RAISED.findall(text)
    line = " ".join(" ".join(said).split()) or (raised[-1] if raised else " ".join(text.split()))
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1].rstrip() + "…"
