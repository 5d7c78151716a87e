"""What removed parts of an input look like, in the model's own input space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.models import Batch
from kvis2.passes import blurred


def positions(model: keras.Model, array: np.ndarray) -> list[int]:
    """The axes of an input along which a map has positions: space, or the features of a vector."""
    return models.spatial_axes(model, array.shape, array.dtype) or [1]


def baselines(model: keras.Model, given: Any, batch: Batch) -> list[np.ndarray]:
    """The baseline of every flat input, in its shape and dtype.

    Args:
        model: The model.
        given: "mean": each image's mean over its positions, for each channel. "blur": a blurred
            copy of each image (standard deviation 1/20 of its longer side). A number. An array
            that broadcasts to the input. A function `input (batch, ...) -> baseline`. For several
            inputs a list or dict of these.
        batch: The inputs.

    Raises:
        ValueError: If it is none of these, or does not fit an input.
    """
    chosen = [given] * len(batch.shapes)
    if len(batch.shapes) > 1 and isinstance(given, list | tuple | Mapping):
        chosen = in_order(batch, given, "baselines")
    pairs = zip(chosen, batch.arrays, strict=True)
    return [_baseline(model, each, array) for each, array in pairs]


def in_order(batch: Batch, values: Any, what: str) -> list[Any]:
    """One value per flat input, from the structure of the user's inputs."""
    places = batch.restored(list(range(len(batch.shapes))))
    if isinstance(places, Mapping):
        if not isinstance(values, Mapping) or set(values) - set(places):
            raise ValueError(
                f"Expected {what} in a dict with some of the names {sorted(places)}, as the "
                f"inputs. Received: {_kind(values)}. Use the names of the inputs."
            )
        names = {index: name for name, index in places.items()}
        return [values.get(names[index]) for index in range(len(names))]
    if not isinstance(places, list | tuple):
        return [values]
    if not isinstance(values, list | tuple) or len(values) != len(places):
        raise ValueError(
            f"Expected {what} for each of the {len(places)} inputs, in a list. "
            f"Received: {_kind(values)}. Give None for an input that stays as it is."
        )
    return list(values)


def _kind(values: Any) -> str:
    if isinstance(values, Mapping):
        return f"a dict with {sorted(values)}"
    return f"{len(values)} of them" if isinstance(values, list | tuple) else type(values).__name__


def _baseline(model: keras.Model, given: Any, array: np.ndarray) -> np.ndarray:
    if isinstance(given, str):
        made = _named(model, given, array)
    elif callable(given):
        made = np.asarray(given(array))
    else:
        made = np.asarray(given)
    if made.dtype.kind not in "buif":
        raise ValueError(_expected(given))
    try:
        whole = np.broadcast_to(made, array.shape)
    except ValueError:
        raise ValueError(
            f"Expected a baseline that fits an input of shape {array.shape}. Received: shape "
            f"{made.shape}. Give it in the size of the input, as the model takes it."
        ) from None
    if not np.isfinite(whole).all():
        raise ValueError(
            f"Expected a finite baseline. Received: {given!r} with NaN or infinity. "
            "Give values that the model takes."
        )
    if array.dtype.kind in "iu":
        whole = np.rint(whole)
    return whole.astype(array.dtype)


def _named(model: keras.Model, name: str, array: np.ndarray) -> np.ndarray:
    if name not in ("mean", "blur"):
        raise ValueError(_expected(name))
    axes = positions(model, array)
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        raise ValueError(
            f"Expected an input with a {name}. Received: {array.dtype.name} tokens. Give the "
            "baseline as a token that says nothing, such as 0 for padding."
        )
    values = array.astype(np.float32)
    if name == "mean":
        return values.mean(axis=tuple(axes), keepdims=True, dtype=np.float64)
    return blurred(tf.constant(values), axes).numpy()


def _expected(given: Any) -> str:
    return (
        "Expected `baseline` to be 'mean', 'blur', a number, an array in the size of the input, "
        f"or a function of the input. Received: {given!r}. It stands for a part that is removed."
    )
