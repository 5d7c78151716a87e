"""What is done to the gradient of ReLU on the way back, by name.

A modifier is in force during one pass through the live model: the model is neither copied nor
changed, so its weights are those of now, whatever has been trained since.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from kvis2.models import DeconvReLU, GuidedReLU, Modifier, as_modifiers
from kvis2.visualization.identifiers import named

guided = GuidedReLU(("relu",))
"""`[y > 0] * max(upstream, 0)` at every plain ReLU; other activations keep their gradient."""

rectified = DeconvReLU(("relu",))
"""`max(upstream, 0)` at every plain ReLU: deconvolution."""

relu = deconv = rectified

BACKPROP_MODIFIERS: Mapping[str, Modifier] = {
    "guided": guided,
    "rectified": rectified,
    "relu": relu,
    "deconv": deconv,
}


def get(identifier: Any) -> Any:
    """The modifier of a name; anything else as it is.

    Raises:
        ValueError: If there is no such name.

    Example:
        >>> get("guided")
        GuidedReLU(activations=('relu',))
    """
    if isinstance(identifier, str):
        return named(identifier, BACKPROP_MODIFIERS, "backprop modifier")
    return identifier


def applied(identifier: Any, model: keras.Model) -> tuple[keras.Model, list[Modifier]]:
    """The model to explain and what to change in the pass, for a `backprop_modifier`.

    Args:
        identifier: A name, a modifier of `kvis2.models.modifiers` (such as
            `GuidedReLU(("relu", "leaky_relu"))`), a function `model -> modified copy`, or None.
        model: The model.

    Returns:
        `model`, or what a function made of it; and the modifiers of the pass.

    Raises:
        ValueError: If there is no such name.
        TypeError: If it is none of these, or a function returns no model.
    """
    modifiers, functions = as_modifiers(get(identifier))
    for function in functions:
        model = _modified(function, model)
    return model, modifiers


def of_pass(identifier: Any) -> list[Modifier]:
    """What to change in the pass, where there is no model that a function could modify.

    Raises:
        ValueError: If there is no such name.
        TypeError: If it is a function.
    """
    modifiers, functions = as_modifiers(get(identifier))
    if functions:
        raise TypeError(
            "Expected 'guided', 'rectified' or a modifier of kvis2 beside symbolic losses. "
            f"Received: the function {functions[0]!r}. Apply it to the model first, and take input "
            "and layers from the result."
        )
    return modifiers


def _modified(function: Callable[[keras.Model], Any], model: keras.Model) -> keras.Model:
    result = function(model)
    if not isinstance(result, keras.Model):
        raise TypeError(
            "Expected a backprop modifier function that returns a modified copy of the model. "
            f"Received: {result!r}. Return a keras.Model, or use 'guided' or 'rectified'."
        )
    return result
