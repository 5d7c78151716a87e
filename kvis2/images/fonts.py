"""Fonts for every script: Pillow's own, that of matplotlib, and those of the system."""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

_SIZE = 13  # pixels
_PLAIN = frozenset(map(chr, range(32, 127))) | set("…·°±«»©™")

_warned: list[str] = []  # the text of which a warning was given

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font_for(text: str) -> Font:
    """A font that has all characters of a text; where none has, the one with the most scripts."""
    if set(text) <= _PLAIN:
        return _plain_font()
    path = _file_with(_needed(text)) or _wide_file()
    return _loaded(path) if path else _plain_font()


def drawable(text: str) -> str:
    r"""The text with each character that no font here has spelled out, as `\u732b`.

    Such a character would be an empty box like all others; the first one gives a warning.
    """
    needed = _needed(text)
    if not needed or _file_with(needed) is not None:
        return text
    wide = _wide_file()
    known = _PLAIN | (frozenset(map(chr, _codes(wide))) if wide else frozenset())
    missing = needed - known
    if missing and not _warned:
        _warned.append(text)
        warnings.warn(
            "No font on this system has all letters of a text in a picture: they are spelled as "
            "escapes such as \\u732b. Install a font of that script, such as Noto.",
            stacklevel=2,
        )
    return "".join(
        c.encode("ascii", "backslashreplace").decode() if c in missing else c for c in text
    )


def _needed(text: str) -> frozenset[str]:
    """What a font must have for the text; marks of direction and joining are not drawn."""
    return frozenset(c for c in set(text) - _PLAIN if unicodedata.category(c) != "Cf")


@lru_cache(maxsize=512)
def _file_with(characters: frozenset[str]) -> Path | None:
    """The first font that has all characters; None without one."""
    wanted = frozenset(map(ord, characters))
    return next((path for path in _files() if wanted <= _codes(path)), None)


def _files() -> Iterator[Path]:
    """The fonts there are, matplotlib's own first, then upright ones of normal weight."""
    from matplotlib import font_manager  # here, so that importing kvis2 stays fast

    wide = _wide_file()
    if wide is not None:
        yield wide
    entries: Iterable[font_manager.FontEntry] = font_manager.fontManager.ttflist
    for entry in sorted(entries, key=lambda each: each.style != "normal" or each.weight != 400):
        # The font of last resort has a box for every character that there is.
        if "LastResort" not in entry.fname and Path(entry.fname).suffix.lower() != ".afm":
            yield Path(entry.fname)


@lru_cache(maxsize=256)
def _codes(path: Path) -> frozenset[int]:
    """The characters that a font has; none of a file that is gone or damaged."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(maxsize=1)
def _plain_font() -> Font:
    return ImageFont.load_default(size=_SIZE)


@lru_cache(maxsize=1)
def _wide_file() -> Path | None:
    """The font with accents, Greek, Cyrillic and Arabic that matplotlib carries."""
    import matplotlib

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return path if path.exists() else None


@lru_cache(maxsize=16)
def _loaded(path: Path) -> Font:
    return ImageFont.truetype(path, _SIZE - 1)
