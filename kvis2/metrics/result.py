"""What a measure returns: one number per image, with what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Measurement(np.ndarray):
    """One float32 number per image, `(batch,)`, that also says how it came about.

    It is an array in every respect; what is computed from it (`result.mean()`, `result[1:]`,
    `result - other`) is a plain array.

    Args:
        values: The number of every image, `(batch,)`.
        name: What was measured.
        settings: What it was measured with.
        better: Whether "higher" or "lower" speaks for the map.
        curve: What the numbers sum up, `(batch, points)`.
        fractions: Where the points of the curve are, `(points,)`.
        random_control: The same measure for random maps of the same images.
        details: Further arrays by name.

    Example:
        >>> result = Deletion(model, random_control=1)(None, images, maps)
        >>> result.mean(), result.random_control.mean()
    """

    name: str
    settings: dict[str, Any]
    better: str
    curve: NDArray[np.float32] | None
    fractions: NDArray[np.float32] | None
    random_control: Measurement | None
    details: dict[str, Any]

    def __new__(
        cls,
        values: ArrayLike,
        name: str,
        *,
        settings: Mapping[str, Any] | None = None,
        better: str = "higher",
        curve: ArrayLike | None = None,
        fractions: ArrayLike | None = None,
        random_control: Measurement | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Measurement:
        """The values as float32, with the rest as attributes."""
        made = np.array(values, np.float32).view(cls)
        made.name = name
        made.settings = dict(settings or {})
        made.better = better
        made.curve = None if curve is None else np.asarray(curve, np.float32)
        made.fractions = None if fractions is None else np.asarray(fractions, np.float32)
        made.random_control = random_control
        made.details = dict(details or {})
        return made

    def __getitem__(self, key: Any) -> Any:
        """A part of the numbers: a plain array."""
        return np.asarray(self)[key]

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """What is computed from the numbers: a plain array."""
        plain = np.asarray(array)
        return plain[()] if return_scalar or plain.ndim == 0 else plain

    def __reduce__(self) -> Any:
        """Pickled, and copied, with everything."""
        return _restored, (np.asarray(self), dict(vars(self)))

    def __deepcopy__(self, memo: Any) -> Measurement:
        """A copy with everything."""
        return _restored(np.array(self), dict(vars(self)))

    def __copy__(self) -> Measurement:
        """A copy with everything."""
        return _restored(np.array(self), dict(vars(self)))

    @property
    def gain(self) -> NDArray[np.float32]:
        """How much better than random maps, `(batch,)`: above 0 is better, whatever is measured."""
        if self.random_control is None:
            raise ValueError(
                f"Expected a {self.name} with a random control. Received: one without. Give "
                "`random_control=1` to the measure."
            )
        difference = np.asarray(self) - np.asarray(self.random_control)
        return difference if self.better == "higher" else -difference

    def __repr__(self) -> str:
        """The mean, that of random maps, the numbers and the settings."""
        parts = [f"mean {np.mean(np.asarray(self)):.4g}"]
        if self.random_control is not None:
            parts.append(f"random maps {np.mean(np.asarray(self.random_control)):.4g}")
        parts.append(f"{self.better} is better")
        numbers = np.array2string(np.asarray(self), precision=4, threshold=8)
        settings = ", ".join(f"{key}={_shown(each)}" for key, each in self.settings.items())
        return f"<{self.name}: {', '.join(parts)}; {numbers}; {settings}>"

    def plot(self, ax: Any = None) -> Any:
        """Draw the curves of all images, thin, and their mean; without curves, the numbers.

        Args:
            ax: The matplotlib axes to draw on; a new figure's by default.

        Returns:
            The axes.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            ax = plt.figure().add_subplot()
        if self.curve is None or self.fractions is None:
            values = np.asarray(self)
            ax.bar(np.arange(values.size), values.ravel(), color="tab:blue")
            if self.random_control is not None:
                level = float(np.mean(np.asarray(self.random_control)))
                ax.axhline(level, color="tab:gray", linestyle="--", label="random maps")
                ax.legend()
            ax.set_xlabel("image")
            ax.set_title(f"{self.name} ({self.better} is better)")
            return ax
        ax.plot(self.fractions, self.curve.T, color="tab:blue", alpha=0.25, linewidth=0.8)
        ax.plot(self.fractions, self.curve.mean(axis=0), color="tab:blue", label=self.name)
        control = self.random_control
        if control is not None and control.curve is not None:
            mean = control.curve.mean(axis=0)
            ax.plot(self.fractions, mean, color="tab:gray", linestyle="--", label="random maps")
        ax.set_xlabel("fraction")
        ax.set_title(f"{self.name}: mean {np.mean(np.asarray(self)):.3g} ({self.better} is better)")
        ax.legend()
        return ax


def _restored(values: NDArray[np.float32], attributes: dict[str, Any]) -> Measurement:
    made = values.view(Measurement)
    vars(made).update(attributes)
    return made


def _shown(value: Any) -> str:
    """A setting in a few characters."""
    if isinstance(value, np.ndarray):
        return f"array{value.shape}"
    return getattr(value, "__name__", None) or repr(value)
