"""Heatmaps to colours, and the colours over images, as strong as the heat.

No model and no drawing here; `kvis2.images` is where users find it.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvis2.images.colors import SLACK, Display, Limits, PictureArray, checked_limits, finite, rgb
from kvis2.images.framing import Framing

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

Opacity: TypeAlias = Literal["heat", "even"]
"""Whether the colours of an overlay grow stronger with the heat, or are as strong everywhere."""

HEAT_COLORS = "inferno"
SIGNED_COLORS = "RdBu_r"
_SPARSE = 0.5  # share of the largest magnitude, below which most of a map would not be seen
FLAT = 0.1
"""The spread, in shares of its largest magnitude, below which a map shows no region."""

# fmt: off
_DIVERGING = frozenset({
    "PiYG", "PRGn", "BrBG", "PuOr", "RdGy", "RdBu", "RdYlBu", "RdYlGn", "Spectral", "coolwarm",
    "bwr", "seismic", "berlin", "managua", "vanimo",
})
# fmt: on


def is_flat(heatmap: ArrayLike) -> bool:
    """Whether a map shows no region: `max h - min h < 0.1 max |h|`, or it is 0 everywhere.

    Divided by its largest value, as heatmaps are, such a map would be painted red all over and be
    taken for evidence.

    Args:
        heatmap: Of any shape.

    Example:
        >>> is_flat([[0.97, 1.0]]), is_flat([[0.0, 1.0]])
        (True, False)
    """
    values = finite(heatmap, "a heatmap")
    low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    largest = max(abs(low), abs(high))
    return largest == 0 or high - low < FLAT * largest


def colorize(
    heatmap: ArrayLike, colormap: str | Colormap | None = None, limits: Limits | None = None
) -> NDArray[np.uint8]:
    """Paint a heatmap with a matplotlib colormap: colormap((h - low) / (high - low)).

    Args:
        heatmap: array of any shape, values in 0..1 or, signed, in -1..1.
        colormap: name of any matplotlib colormap, or a `Colormap`. None: "inferno", whose steps
            look even and keep their order for every kind of colour vision, or "RdBu_r" where the
            heatmap is signed.
        limits: the values at the two ends of the colormap; values outside get the colour of the
            end. Default: `(-1, 1)` where the heatmap holds negative values or the colormap is a
            diverging one ("RdBu_r", "seismic", ...), so that 0 is its middle; otherwise `(0, 1)`.

    Returns:
        uint8 RGB array of shape `heatmap.shape + (3,)`.

    Raises:
        ValueError: NaN or infinity, values outside -1..1 without `limits`, an unknown colormap.

    Example:
        >>> colorize([[0.0, 1.0]], "gray").tolist()
        [[[0, 0, 0], [255, 255, 255]]]
    """
    heatmap = finite(heatmap, "a heatmap")
    low, high = heat_limits(heatmap, colormap) if limits is None else checked_limits(limits)
    table = color_table(chosen_colormap(colormap, (low, high)))
    # The same steps as matplotlib's: N equal bins, the upper end belongs to the last one.
    position = (heatmap - np.float32(low)) * np.float32(len(table) / (high - low))
    index = np.clip(position, 0, len(table) - 1).astype(np.intp)
    return np.take(table, index, axis=0)


def overlay(
    image: ArrayLike,
    heatmap: ArrayLike,
    alpha: float = 0.8,
    colormap: str | Colormap | None = None,
    *,
    opacity: Opacity = "heat",
    limits: Limits | None = None,
    display: Display | None = None,
    framing: Framing | None = None,
) -> PictureArray:
    """Lay a painted heatmap over its image: round((1 - a) * image + a * colour).

    The opacity a is `alpha * |h| / max(|low|, |high|)`, so that cold regions show the image as it
    is, or `alpha` everywhere with `opacity="even"`. The image may be the photograph at its own
    size: the map is brought to it as `framing` says that the model saw it.

    Args:
        image: `(height, width)` or `(height, width, channels)`, any kind `displayable` takes.
        heatmap: `(height, width)`, values in 0..1 or, signed, in -1..1.
        alpha: the largest weight of the heatmap's colour, 0 (image only) to 1 (colour only).
        colormap: as for `colorize`.
        opacity: "heat" or "even".
        limits: the values at the ends of the colours; None: as `color_ends` says.
        display: as for `displayable`.
        framing: how the photograph became the input; None: it was resized, whatever its shape, as
            `keras.utils.load_img(target_size=)` does.

    Returns:
        uint8 RGB array `(height, width, 3)` of the image's size.

    Raises:
        ValueError: `alpha` is outside 0..1, or what `colorize` and `displayable` refuse.

    Example:
        >>> overlay(np.zeros((1, 2)), [[0.0, 1.0]], alpha=0.5, colormap="gray").tolist()
        [[[0, 0, 0], [128, 128, 128]]]
    """
    picture = rgb(image, display)
    heatmap = finite(heatmap, "a heatmap")
    if heatmap.ndim != 2 or 0 in heatmap.shape:
        raise ValueError(
            f"Expected a heatmap (height, width). Received: shape {heatmap.shape}. Pick one map of "
            "the batch."
        )
    # Before resizing, which softens the extremes and could hide a map's negative values.
    limits = color_ends(heatmap, colormap) if limits is None else checked_limits(limits)
    chosen = Framing() if framing is None else framing
    heatmap = chosen.of_photograph(heatmap, picture.shape[:2])
    colors = colorize(np.nan_to_num(heatmap), colormap, limits)
    return blend(picture, colors, opacities(heatmap, limits, alpha, opacity))


def opacities(
    heatmap: NDArray[Any], limits: Limits, alpha: float, opacity: Opacity = "heat"
) -> NDArray[np.float32]:
    """The weight of the colour at each point of a map, as `overlay` says; 0 where it is NaN."""
    check_opacity(alpha, opacity)
    seen = np.isfinite(heatmap)
    if opacity == "even":
        return np.float32(alpha) * seen
    low, high = limits
    zero = min(max(low, 0.0), high)
    strength = np.abs(np.where(seen, heatmap, zero) - zero) / max(high - zero, zero - low)
    return (alpha * np.clip(strength, 0, 1)).astype(np.float32)


def check_opacity(alpha: float, opacity: Opacity) -> None:
    """Raise unless `alpha` is a weight and `opacity` says where it holds."""
    if not 0 <= alpha <= 1:
        raise ValueError(
            f"Expected alpha within 0..1, the weight of the heatmap. Received: {alpha}."
        )
    if opacity not in ("heat", "even"):
        raise ValueError(f'Expected opacity to be "heat" or "even". Received: {opacity!r}.')


def blend(
    picture: PictureArray, colors: PictureArray, alpha: float | NDArray[np.float32]
) -> PictureArray:
    """Mix two pictures of one size: round((1 - alpha) * picture + alpha * colors).

    Args:
        picture: `(height, width, 3)`.
        colors: The same.
        alpha: Weight of `colors`, one or for each point `(height, width)`.
    """
    weight = np.asarray(alpha, np.float32)
    weight = weight[..., np.newaxis] if weight.ndim else weight
    mixed = picture * (np.float32(1) - weight)
    mixed += colors * weight
    mixed += np.float32(0.5)  # the cast below cuts off, so this rounds
    return mixed.astype(np.uint8)


def chosen_colormap(colormap: str | Colormap | None, limits: Limits) -> str | Colormap:
    """The colormap that None stands for, by the values at its ends."""
    if colormap is not None:
        return colormap
    return SIGNED_COLORS if limits[0] < 0 else HEAT_COLORS


def heat_limits(heatmap: ArrayLike, colormap: str | Colormap | None) -> Limits:
    """Choose the values at the ends of the colormap: `(-1, 1)` or `(0, 1)`, see `colorize`."""
    heatmap = np.asarray(heatmap)
    low = float(heatmap.min(initial=0.0))
    high = float(heatmap.max(initial=0.0))
    if low < -1 - SLACK or high > 1 + SLACK:
        raise ValueError(
            f"Expected a heatmap within 0..1, or -1..1 if signed. Received: values from {low:.4g} "
            f"to {high:.4g}. Scale it with kvis2.images.normalize, or say limits=(low, high)."
        )
    name = colormap if isinstance(colormap, str) else getattr(colormap, "name", "")
    return (-1.0, 1.0) if low < -SLACK or name.removesuffix("_r") in _DIVERGING else (0.0, 1.0)


def color_ends(
    heatmap: ArrayLike, colormap: str | Colormap | None = None, *, signed: bool = False
) -> Limits:
    """The values at the ends of the colours of a picture: those of `heat_limits`, or nearer to 0.

    A map of single pixels, as gradients give, is all but 0 beside its one largest value, and would
    not be seen. Where the 99th percentile of the magnitudes that are not 0 is below half of the
    largest, the colours end at its share of the largest, and what is above has the last colour.

    Args:
        heatmap: Of any shape, in 0..1 or, signed, in -1..1.
        colormap: As for `colorize`.
        signed: Whether 0 stays in the middle, also where no value is negative.

    Example:
        >>> color_ends(np.linspace(0, 1, 1000) ** 8)[1] == 1
        True
    """
    low, high = (-1.0, 1.0) if signed else heat_limits(heatmap, colormap)
    magnitudes = np.abs(np.asarray(heatmap, np.float32))
    magnitudes = magnitudes[magnitudes > 0]
    if not magnitudes.size:
        return low, high
    share = float(np.percentile(magnitudes, 99) / magnitudes.max())
    return (low * share, high * share) if share < _SPARSE else (low, high)


def common_ends(maps: Sequence[ArrayLike], colormap: str | Colormap | None = None) -> Limits:
    """`color_ends` of several maps that share one scale: the widest of them."""
    ends = [color_ends(each, colormap) for each in maps]
    return min(low for low, _ in ends), max(high for _, high in ends)


def color_table(colormap: str | Colormap) -> NDArray[np.uint8]:
    """Return the colours of a matplotlib colormap, uint8 RGB `(N, 3)` from low to high."""
    if isinstance(colormap, str):
        return _named_color_table(colormap)
    return np.asarray(colormap(np.arange(colormap.N), bytes=True))[:, :3]


@lru_cache(maxsize=32)
def _named_color_table(name: str) -> NDArray[np.uint8]:
    import matplotlib  # here, so that importing kvis2 stays fast

    if name not in matplotlib.colormaps:
        close = difflib.get_close_matches(name, list(matplotlib.colormaps), n=3, cutoff=0.4)
        raise ValueError(
            f"Expected the name of a matplotlib colormap. Received: {name!r}. "
            + (f"Close names: {', '.join(close)}." if close else "Try 'inferno' or 'viridis'.")
        )
    table = color_table(matplotlib.colormaps[name])
    table.flags.writeable = False  # it is shared by every later call
    return table
