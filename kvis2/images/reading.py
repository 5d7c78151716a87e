"""PictureArray files as arrays: one way in for everything that takes a path."""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ORIENTATION = 0x0112  # the number of the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_RAW_COLORS = ("RGB;16", "RGBA;16", "RGBX;16")  # of which Pillow keeps the upper byte alone


def read(
    path: str | PathLike[str] | BinaryIO,
    size: tuple[int, int] | None = None,
    *,
    channels: int = 3,
) -> NDArray[np.uint8]:
    """Read a picture file as people see it: `0` is black and `255` is white.

    * It stands upright, as the camera noted (EXIF). Of several frames or pages the first is read.
    * Transparency is dropped, as `keras.utils.load_img` does. Palettes, CMYK and one bit
      become RGB or grey.
    * Whole numbers of more than 8 bits: `255 x / (2^b - 1)`, where b is the fewest bits, of 8 or
      more, that hold the largest value. So 12 bits of a radiograph in a file of 16 are read as
      12; where values are below 0, the lowest is black and the highest is white.
    * Floating point: within 0..1 `255 x`, within 0..255 `x`; else the lowest value is black and
      the highest is white.

    Args:
        path: A file that Pillow reads; or an open one, such as a member of an archive.
        size: `(height, width)` to resize to, by Lanczos, without keeping the shape; None keeps
            the file's.
        channels: 3 for RGB, 1 for grey.

    Returns:
        uint8 `(height, width, channels)`.

    Raises:
        ValueError: There is no picture in the file, it is damaged, it has no pixels or more than
            Pillow takes for safe, or it holds NaN or infinity.

    Example:
        >>> from kvis2.images import save
        >>> read(save("/tmp/grey.png", np.full((4, 6), 0.5))).shape
        (4, 6, 3)
    """
    path = Path(path) if isinstance(path, str | PathLike) else path
    if isinstance(path, Path):
        _check_file(path)
    try:
        with warnings.catch_warnings():
            # What Pillow says of large pictures and odd tags; what it cannot read, it raises.
            warnings.simplefilter("ignore")
            picture = _opened(path, "L" if channels == 1 else "RGB")
    except Image.DecompressionBombError as error:
        raise _unreadable(path, f"too large: {error}".rstrip("."), "Make it smaller") from None
    except Image.UnidentifiedImageError:
        raise _unreadable(path, _kind(path), "Give a PNG, JPEG or TIFF file") from None
    except Exception as error:  # Pillow raises whatever its decoders meet in a damaged file.
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise _unreadable(path, f"damaged, or of a kind that is not known: {said}") from error
    if size is not None:
        picture = picture.resize(size[::-1], Image.Resampling.LANCZOS)
    return np.array(picture).reshape(picture.height, picture.width, channels)


def _opened(path: Path | BinaryIO, mode: str) -> Image.Image:
    with Image.open(path) as file:
        raw_modes = [str(raw) for tile in file.tile for raw in _flat(tile[3])]
        file.load()
        _check_bits(file, raw_modes)
        upright = _upright(_eight_bits(file), file.getexif().get(_ORIENTATION, 1))
        return upright.convert(mode)


def _check_file(path: Path) -> None:
    """Refuse what is no file, and what would wait for ever to be one."""
    try:
        if not path.exists():
            raise _unreadable(path, "not there")
        if path.is_dir():
            raise _unreadable(path, "a folder", "Give the files in it")
        if not path.is_file():
            raise _unreadable(path, "no regular file")
        if path.stat().st_size == 0:
            raise _unreadable(path, "empty")
    except OSError as error:
        raise _unreadable(path, f"out of reach: {error.strerror}") from None


def _unreadable(path: Path | BinaryIO, why: str, advice: str = "Save it anew") -> ValueError:
    name = path if isinstance(path, Path) else getattr(path, "name", "an open file")
    return ValueError(f"Expected a picture file. Received: {name}, which is {why}. {advice}.")


def _kind(path: Path | BinaryIO) -> str:
    if isinstance(path, Path):
        with path.open("rb") as file:
            start = file.read(1024)
    else:
        path.seek(0)
        start = path.read(1024)
    return "a drawing (SVG)" if b"<svg" in start.lower() else "no picture that Pillow knows"


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _flat(arguments: object) -> tuple[object, ...]:
    """The arguments of one of Pillow's decoders; one alone is not always in a tuple."""
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _check_bits(file: Image.Image, raw_modes: list[str]) -> None:
    """Refuse colours of 16 bits whose values leave the upper byte, all that is read, nearly 0."""
    deep = any(mode.startswith(_RAW_COLORS) for mode in raw_modes)
    if deep and int(np.asarray(file.convert("RGB")).max()) < 16:
        raise ValueError("colours of 16 bits that use 12 or fewer; save it with 8 bits")


def _eight_bits(picture: Image.Image) -> Image.Image:
    """A picture of any mode in one of 8 bits that converts to RGB and to grey."""
    picture.info.pop("transparency", None)
    if picture.mode == "F" or picture.mode.startswith("I"):
        return Image.fromarray(_scaled(np.asarray(picture)))
    plain = {"La": "LA", "RGBa": "RGBA"}.get(picture.mode)
    return picture if plain is None else picture.convert(plain)


def _scaled(values: NDArray) -> NDArray[np.uint8]:
    """One channel of more than 8 bits in 0..255, as `read` says."""
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinity")
    low, high = float(values.min()), float(values.max())
    if low >= 0 and values.dtype.kind in "ui":
        low, high = 0.0, float(2 ** max(8, int(high).bit_length()) - 1)
    elif low >= 0 and high <= 255:
        low, high = 0.0, 1.0 if high <= 1 else 255.0
    span = (high - low) or 1.0
    return np.rint((values.astype(np.float64) - low) * (255.0 / span)).astype(np.uint8)
