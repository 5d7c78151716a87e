"""Steps of gradient descent as pure functions: what an optimizer keeps is passed in and out.

A Keras optimizer keeps its slots in variables of its own; inside a compiled loop over many images
they have to be loop variables. `KerasOptimizer` runs any elementwise Keras optimizer that way.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from kvis2.types import Tensors


class Optimizer(Protocol):
    """What moves the parameters down the gradient."""

    def slots(self, parameters: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What the optimizer keeps, before the first step."""

    def step(
        self, parameters: Tensors, gradients: Tensors, slots: Tensors
    ) -> tuple[Tensors, Tensors]:
        """The parameters and the slots after one step."""


@dataclass(frozen=True)
class KerasVisRMSProp:
    """RMSProp as keras-vis takes it: without bias correction, with a step of about one unit.

    `c <- rho c + (1 - rho) g^2`, `x <- x - learning_rate g / sqrt(c + epsilon)`, `c = 0` at first.
    For a constant gradient the steps are 4.47, 3.20, 2.65, ... towards 1, in units of the input.

    Args:
        learning_rate: What the steps are multiplied by; 1 in the original.
        rho: How much of the running mean of squares is kept.
        epsilon: Added to it under the root.

    Example:
        >>> ActivationMaximization(model, optimizer=KerasVisRMSProp())(20)
    """

    learning_rate: float = 1.0
    rho: float = 0.95
    epsilon: float = 1e-7

    def slots(self, parameters: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Zeros: the running mean of squared gradients."""
        return [np.zeros_like(each) for each in parameters]

    def step(
        self, parameters: Tensors, gradients: Tensors, slots: Tensors
    ) -> tuple[Tensors, Tensors]:
        """One step down."""
        caches = [
            self.rho * c + (1.0 - self.rho) * tf.square(g)
            for c, g in zip(slots, gradients, strict=True)
        ]
        moved = [
            x - self.learning_rate * g / tf.sqrt(c + self.epsilon)
            for x, g, c in zip(parameters, gradients, caches, strict=True)
        ]
        return moved, caches


_ELEMENTWISE = ("Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lion", "RMSprop", "SGD")


@dataclass(frozen=True)
class KerasOptimizer:
    """A Keras optimizer as a pure function, for any that treats each number by itself.

    Args:
        configuration: The serialized optimizer, as JSON.
    """

    configuration: str

    @classmethod
    def of(cls, optimizer: Any) -> KerasOptimizer:
        """From what `keras.optimizers.get` takes: a name, a config or an optimizer.

        Raises:
            ValueError: If the optimizer mixes the images of a batch, as clipping by norm does.
        """
        found = keras.optimizers.get(optimizer)
        config = found.get_config()
        mixing = [name for name in ("clipnorm", "global_clipnorm", "use_ema") if config.get(name)]
        if mixing or type(found).__name__ not in _ELEMENTWISE:
            raise ValueError(
                f"Expected one of {', '.join(_ELEMENTWISE)}, without clipping by norm or moving "
                "averages of the weights, because each image is optimised by itself. Received: "
                f"{type(found).__name__}{f' with {mixing[0]}' if mixing else ''}. Clip with "
                "`gradient_modifier=ClipGradient(...)`."
            )
        serialized = keras.optimizers.serialize(found)
        serialized["config"]["name"] = "optimizer"  # else the next Adam is another than the last
        return cls(json.dumps(serialized, sort_keys=True))

    def slots(self, parameters: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The initial variables of the optimizer: step count, learning rate, moments."""
        optimizer, _ = _built(self.configuration, _shapes(parameters))
        return [variable.numpy() for variable in optimizer.variables]

    def step(
        self, parameters: Tensors, gradients: Tensors, slots: Tensors
    ) -> tuple[Tensors, Tensors]:
        """One step down, as the optimizer's own `update_step` takes it."""
        optimizer, variables = _built(self.configuration, _shapes(parameters))
        values = zip([*optimizer.variables, *variables], [*slots, *parameters], strict=True)
        with keras.StatelessScope(state_mapping=list(values)) as scope:
            rate = optimizer._get_current_learning_rate()
            for variable, gradient in zip(variables, gradients, strict=True):
                if optimizer.clipvalue:
                    gradient = tf.clip_by_value(gradient, -optimizer.clipvalue, optimizer.clipvalue)
                if optimizer.weight_decay:
                    variable.assign_sub(variable * optimizer.weight_decay * rate)
                optimizer.update_step(gradient, variable, rate)
            optimizer.iterations.assign_add(1)
            moved = [scope.get_current_value(each) for each in variables]
            kept = [scope.get_current_value(each) for each in optimizer.variables]
        return moved, kept


@functools.lru_cache(maxsize=4)
def _built(configuration: str, shapes: tuple[Any, ...]) -> tuple[Any, list[keras.Variable]]:
    """An optimizer and variables of these shapes, which only stand for what the loop carries.

    Kept, because a pass that is being traced must not make variables.
    """
    optimizer = keras.optimizers.deserialize(json.loads(configuration))
    # On TensorFlow these write to variables of TensorFlow, past the scope that collects them.
    optimizer._var_key = id
    optimizer.assign = lambda variable, value: variable.assign(value)
    optimizer.assign_add = lambda variable, value: variable.assign_add(value)
    optimizer.assign_sub = lambda variable, value: variable.assign_sub(value)
    variables = [keras.Variable(np.zeros(shape, np.float32)) for shape in shapes]
    optimizer.build(variables)
    return optimizer, variables


def _shapes(parameters: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(tuple(each.shape) for each in parameters)


def as_optimizer(optimizer: Any) -> Optimizer:
    """An optimizer of this module as it is, any other through Keras."""
    if hasattr(optimizer, "slots") and hasattr(optimizer, "step"):
        return optimizer
    try:
        return KerasOptimizer.of(optimizer)
    except (ValueError, TypeError) as error:
        raise TypeError(
            f"Expected an optimizer of Keras or of kvis2.ascent. Received: {optimizer!r}. Give for "
            "example keras.optimizers.Adam(0.1)."
        ) from error
