"""What is done to a gradient before it is used: functions of NumPy arrays, by name or as such."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import keras
import numpy as np

from kvis2.visualization.identifiers import named

GradientModifier: TypeAlias = Callable[[np.ndarray], np.ndarray]


def negate(grads: np.ndarray) -> np.ndarray:
    """`-g`: what decreases the output."""
    return -grads


def absolute(grads: np.ndarray) -> np.ndarray:
    """`|g|`: what changes the output, up or down."""
    return np.abs(grads)


def invert(grads: np.ndarray) -> np.ndarray:
    """`sign(g) / (|g| + eps)`, with sign(0) = 1: the smaller the larger, the sign kept."""
    return np.where(grads < 0, -1.0, 1.0) / (np.abs(grads) + keras.config.epsilon())


def relu(grads: np.ndarray) -> np.ndarray:
    """`max(g, 0)`: what increases the output."""
    return np.maximum(grads, 0.0)


def small_values(grads: np.ndarray) -> np.ndarray:
    """`1 / (|g| + eps)`: where the output hardly changes; what maintains a regression's output."""
    return absolute(invert(grads))


GRADIENT_MODIFIERS: Mapping[str, GradientModifier] = {
    "negate": negate,
    "absolute": absolute,
    "invert": invert,
    "relu": relu,
    "small_values": small_values,
}


def get(identifier: str | GradientModifier | None) -> GradientModifier:
    """The gradient modifier of a name; a function as it is; the identity for None.

    Raises:
        ValueError: If there is no such name.

    Example:
        >>> get("negate")(np.array([1.0, -2.0])).tolist()
        [-1.0, 2.0]
    """
    if identifier is None:
        return _unchanged
    return named(identifier, GRADIENT_MODIFIERS, "gradient modifier")


def _unchanged(grads: np.ndarray) -> np.ndarray:
    return grads
