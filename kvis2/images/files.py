"""How files are named and written: inside the folder given, apart from each other, as a whole."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

_LONGEST = 200  # bytes; file systems take 255, and what is written aside adds a few
_FORBIDDEN = re.compile(r'[\\/:*?"<>|\x00-\x1f\x7f\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.I)


def file_name(
    text: str, suffix: str = "", *, taken: Collection[str] = (), longest: int = _LONGEST
) -> str:
    r"""One name that every file system takes, of any text; it never leads to another folder.

    What Windows, macOS or Linux do not take becomes "_": separators, control characters, halves of
    surrogate pairs. Dots and spaces at both ends go, a name such as "CON" that Windows keeps for
    itself gets a "_" before it, and a long name is cut and ends in a hash of the whole.

    Args:
        text: What the file is about: a tag, a class name, a layer.
        suffix: The end of the name, kept as it is: ".png".
        taken: Names, as `comparable` has them, that are given out already; the name gets "_2",
            "_3", ... before its suffix until it is none of them.
        longest: How long the name is at most with its suffix, in bytes of UTF-8.

    Returns:
        The name, with its suffix.

    Example:
        >>> file_name("CAM/00 a?", ".png"), file_name(".."), file_name("con"), file_name("a\ud800")
        ('CAM_00 a_.png', '_', '_con', 'a_')
    """
    stem = _FORBIDDEN.sub("_", text).strip(" .") or "_"
    stem = f"_{stem}" if _RESERVED.fullmatch(stem) else stem
    number, ending = 1, suffix
    while True:
        name = _shortened(stem, longest - len(ending.encode())) + ending
        if comparable(name) not in taken:
            return name
        number += 1
        ending = f"_{number}{suffix}"


def comparable(name: str) -> str:
    """A name as file systems compare it that know no case, or no two ways to write an accent."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _shortened(stem: str, longest: int) -> str:
    encoded = stem.encode()
    if len(encoded) <= longest:
        return stem
    mark = f"~{hashlib.sha256(encoded).hexdigest()[:8]}"
    return encoded[: longest - len(mark)].decode(errors="ignore").rstrip(" .") + mark


@contextmanager
def written_aside(path: str | PathLike[str]) -> Iterator[Path]:
    """The path of a file beside `path` to write to, which takes its place when it is complete.

    A process that is killed, or a disk that is full, leaves the old file as it was.

    Args:
        path: The file; its folder is made where missing.

    Raises:
        OSError: If the folder or the file cannot be written to.

    Example:
        >>> with written_aside("/tmp/kvis2/notes.txt") as part:
        ...     _ = part.write_text("all of it")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"part-of-{path.name}")
    try:
        yield part
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
