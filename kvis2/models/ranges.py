"""Which range of images a model expects, as it scales them itself; and a word where they differ."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

# Of the values that a network computes with, from black to white: wide enough for 0..1, -1..1, and
# a division by the deviations of ImageNet (4.4), and far from 255 or 1 / 255.
_LEAST_CONTRAST, _MOST_CONTRAST = 0.5, 12.0
_MEANS_OF_255 = (50.0, 200.0)  # Of the means that a model subtracts of images in 0..255.
_OPERATIONS = ("Multiply", "Divide", "TrueDivide", "Add", "Subtract")


class InputRange(NamedTuple):
    """The range of images that a model expects.

    Attributes:
        low: Black.
        high: White.
        because: Which layers or operations say so, for a sentence.
    """

    low: float
    high: float
    because: str

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}, by {self.because}"


def input_range(model: keras.Model) -> InputRange | None:
    """The range of images that a model expects, as far as its first layers tell.

    What a model does to its input first is followed while it is `a x + b`: `Rescaling`,
    `Normalization`, and arithmetic with numbers, augmentation left out. Images are expected in
    0..255 where `a` times 255 is a contrast to compute with, or where means of such images are
    subtracted; in 0..1 where `a` itself is one.

    Args:
        model: Any built model.

    Returns:
        0..255 or 0..1; None where the model does not scale its input, has several inputs, or is
        subclassed, so that nothing is known.

    Example:
        >>> str(input_range(keras.applications.EfficientNetB0(weights=None)))
        '0..255, by Rescaling, Normalization'
    """
    if len(getattr(model, "inputs", None) or ()) != 1:
        return None
    steps, names = [], []
    for operation in _front(model):
        step = _scale_and_shift(operation)
        if step is None:
            break
        steps.append(step)
        names.append(type(operation).__name__)
    if not steps:
        return None
    scale, shift = np.ones(1), np.zeros(1)
    for by, plus in steps:
        scale, shift = by * scale, by * shift + plus
    factor, offset = float(np.mean(scale)), float(np.mean(shift))
    if not np.isfinite([factor, offset]).all() or factor <= 0:
        return None
    middle, because = -offset / factor, ", ".join(dict.fromkeys(names))
    if _LEAST_CONTRAST <= 255 * factor <= _MOST_CONTRAST and -1 <= middle <= 256:
        return InputRange(0.0, 255.0, because)
    if np.isclose(factor, 1.0) and _MEANS_OF_255[0] <= middle <= _MEANS_OF_255[1]:
        return InputRange(0.0, 255.0, because)
    changes = not np.isclose(factor, 1.0) or not np.isclose(offset, 0.0)
    if changes and _LEAST_CONTRAST <= factor <= _MOST_CONTRAST and 0 <= middle <= 1:
        return InputRange(0.0, 1.0, because)
    return None


def warn_of_range(model: keras.Model, images: np.ndarray) -> None:
    """Warn of images in 0..1 for a model that scales 0..255 itself, and of the reverse.

    Args:
        model: The model.
        images: What it is given, `(batch, height, width, channels)`. Inputs of another rank, and
            images of one value (such as baselines), are passed over.
    """
    if images.ndim != 4 or not images.size:
        return
    expected = input_range(model)
    if expected is None:
        return
    low, high = float(images.min()), float(images.max())
    if low == high:
        return
    if expected.high == 255 and low >= -1 and high <= 1:
        advice = "They are all but black to it: give pixels in 0..255, unscaled"
    elif expected.high == 1 and low >= 0 and high > 2:
        advice = "They are far brighter than white to it: divide them by 255"
    else:
        return
    warnings.warn(
        f"Expected images in {expected.low:g}..{expected.high:g} for '{model.name}', which scales "
        f"them itself ({expected.because}). Received: values from {low:.4g} to {high:.4g}. "
        f"{advice}.",
        stacklevel=5,
    )


def _front(model: keras.Model) -> Iterator[Any]:
    """What is done to the only input of a model first, in order, without augmentation."""
    operations: Sequence[Any] = getattr(model, "operations", None) or model.layers
    chain = list(operations)
    for index, operation in enumerate(chain):
        if isinstance(operation, keras.layers.InputLayer) or _passes_images(operation):
            continue
        if index and _branches(chain[index - 1]):
            return
        if isinstance(operation, keras.Model):
            yield from _front(operation)
            if not _is_only_scaling(operation):
                return
        else:
            yield operation


def _branches(operation: Any) -> bool:
    """Whether more than one operation reads what this one returns: where a chain ends."""
    return len({id(node.operation) for node in operation._outbound_nodes}) > 1


def _is_only_scaling(model: keras.Model) -> bool:
    parts = [each for each in model.layers if not isinstance(each, keras.layers.InputLayer)]
    return all(_passes_images(each) or _scale_and_shift(each) is not None for each in parts)


def _passes_images(operation: Any) -> bool:
    """Whether an operation leaves the values of images alone at inference: augmentation, sizes."""
    kinds = (keras.layers.Resizing, keras.layers.CenterCrop, keras.layers.ZeroPadding2D)
    return isinstance(operation, kinds) or type(operation).__name__.startswith("Random")


def _scale_and_shift(operation: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """An operation as `scale x + shift`, each one number or one a channel; None if it is not."""
    if isinstance(operation, keras.layers.Rescaling):
        return _numbers(operation.scale), _numbers(operation.offset)
    if isinstance(operation, keras.layers.Normalization):
        mean, variance = getattr(operation, "mean", None), getattr(operation, "variance", None)
        if mean is None or variance is None or operation.invert:
            return None
        deviation = np.maximum(np.sqrt(_numbers(variance)), keras.config.epsilon())
        return 1 / deviation, -_numbers(mean) / deviation
    name = type(operation).__name__
    if name not in _OPERATIONS or isinstance(operation, keras.layers.Layer):
        return None
    return _of_arithmetic(name, operation)


def _of_arithmetic(name: str, operation: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """`x / 255`, `x * 2`, `x - 1`, `1 - x`: arithmetic of a tensor of a graph and numbers."""
    given = operation._inbound_nodes[0].arguments.args
    numbers = [not isinstance(each, keras.KerasTensor) for each in given]
    if len(given) != 2 or sum(numbers) != 1:
        return None
    value, first = _numbers(given[numbers.index(True)]), numbers[0]
    one, none = np.ones(1), np.zeros(1)
    if name == "Multiply":
        return value, none
    if name == "Add":
        return one, value
    if name == "Subtract":
        return (-one, value) if first else (one, -value)
    return None if first else (1 / value, none)


def _numbers(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value), np.float64).reshape(-1)
