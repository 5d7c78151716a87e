"""What is changed about a model for one pass only: the final activation, the gradient of ReLU.

Nothing here touches the model. A modifier may replace attributes of layers while the pass is
traced (`overrides`), the gradient of TensorFlow operations (`gradients`), or the tensor that is
taken for the model's output (`output`). Because `output` and `gradients` work on the traced
graph, it does not matter how a softmax or a ReLU was written: fused into a layer, as a layer of
its own, as a raw operation, deep inside a nested model, or inside a custom layer.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2.models.activations import (
    activation,
    buried_activation,
    counted,
    final_activation,
)
from kvis2.types import Override


@dataclass(frozen=True)
class Modifier:
    """Base of all modifiers: changes nothing. Subclasses override what they need.

    A modifier is a frozen dataclass: equal modifiers share one compiled pass.
    """

    def overrides(self, model: keras.Model) -> Sequence[Override]:
        """Attributes of layers to replace while the pass is traced."""
        return ()

    def gradients(self) -> Mapping[str, str]:
        """Name of the registered gradient for each type of TensorFlow operation to change."""
        return {}

    def output(self, output: tf.Tensor) -> tf.Tensor:
        """The tensor to explain in the place of the model's `output`."""
        return output

    def check(self, operations: Sequence[tf.Operation]) -> None:
        """Raise or warn about what the traced forward pass (its `operations`) shows."""


@dataclass(frozen=True)
class LinearOutput(Modifier):
    """Explain the scores before the final softmax or sigmoid.

    For an output `p = softmax(z)` or `p = sigmoid(z)` the explained output is `z`. Gradients of
    `p` vanish where the model is sure, gradients of `z` do not, and the papers define their
    scores on `z`. An output without a final softmax or sigmoid is left as it is.

    Example:
        >>> GradCAM(model, model_modifier=LinearOutput())(243, images)
    """

    def output(self, output: tf.Tensor) -> tf.Tensor:
        """The argument of the final softmax or sigmoid of `output`."""
        name, argument = final_activation(output)
        if name is None and tf.is_symbolic_tensor(output):
            _warn_of_buried(output)
        return argument


def _warn_of_buried(output: tf.Tensor) -> None:
    """Say so if an output is computed from a softmax or sigmoid: its logits are not found."""
    buried = buried_activation(output)
    if buried is not None:
        name, passed = buried
        warnings.warn(
            f"Expected the {name} to be the last step of the model, so that the score before it "
            f"can be explained. Received: a {name} followed by {', '.join(passed)}. The output is "
            "explained as it is; pass `model_modifier=None` if that is what you mean.",
            stacklevel=2,
        )


_RELU_GRADIENTS: dict[str, Callable[[tf.Operation, tf.Tensor], tf.Tensor]] = {
    "Relu": lambda op, up: tf.raw_ops.ReluGrad(gradients=up, features=op.outputs[0]),
    "Relu6": lambda op, up: tf.raw_ops.Relu6Grad(gradients=up, features=op.outputs[0]),
    "LeakyRelu": lambda op, up: tf.raw_ops.LeakyReluGrad(
        gradients=up, features=op.inputs[0], alpha=op.get_attr("alpha")
    ),
}
_OPERATION_NAMES = {"relu": "Relu", "relu6": "Relu6", "leaky_relu": "LeakyRelu"}


def _guided(operation: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    plain = _RELU_GRADIENTS[operation.type]
    if activation(operation) == "hard_sigmoid":
        return plain(operation, upstream)
    return plain(operation, tf.nn.relu(upstream))


def _deconv(operation: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    if activation(operation) == "hard_sigmoid":
        return _RELU_GRADIENTS[operation.type](operation, upstream)
    return tf.nn.relu(upstream)


def _register(name: str, gradient: Callable[..., tf.Tensor]) -> str:
    # A reloaded module finds its name taken: TensorFlow's registry outlives it.
    with contextlib.suppress(KeyError):
        tf.RegisterGradient(name)(gradient)
    return name


_GUIDED = _register("Kvis2GuidedReLU", _guided)
_DECONV = _register("Kvis2DeconvReLU", _deconv)


@dataclass(frozen=True)
class _ReLUGradient(Modifier):
    """Gives every ReLU in the pass another gradient; forward values stay what they are."""

    activations: tuple[str, ...] = ("relu", "relu6")

    def __post_init__(self) -> None:
        unknown = set(self.activations) - set(_OPERATION_NAMES)
        if unknown or not self.activations:
            raise ValueError(
                f"Expected `activations` to be some of {', '.join(map(repr, _OPERATION_NAMES))}. "
                f"Received: {self.activations!r}. Name the activations whose gradient to change."
            )
        object.__setattr__(self, "activations", tuple(self.activations))

    def check(self, operations: Sequence[tf.Operation]) -> None:
        """Raise if the pass holds no such ReLU; warn if it holds other activations as well."""
        found = counted(operations)
        replaced = {each: found.pop(each, 0) for each in self.activations}
        name, kinds = type(self).__name__, " or ".join(self.activations)
        if not any(replaced.values()):
            raise ValueError(
                f"Expected a model with at least one {kinds} for {name}. Received: a model with "
                f"{_listed(found) or 'no activation at all'}. {name} would change nothing; use "
                "Saliency or IntegratedGradients, or name other `activations`."
            )
        if found:
            warnings.warn(
                f"{name} replaced the gradient of {_listed(replaced)} and left {_listed(found)} "
                "as they are.",
                stacklevel=2,
            )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)


@dataclass(frozen=True)
class GuidedReLU(_ReLUGradient):
    """Guided backpropagation: `grad = [y > 0] * max(upstream, 0)` at every ReLU.

    Negative evidence is cut off at each ReLU on the way back. Forward values do not change.
    Guided backpropagation draws the edges that a network sees rather than the reason for its
    answer: it hardly depends on the weights of the upper layers (Adebayo et al. 2018).

    Args:
        activations: Which activations to change: "relu", "relu6", "leaky_relu". However they
            are written, as layers or as operations inside custom layers, they are found.

    Raises:
        ValueError: At the first explanation, if the model has none of these activations.

    References:
        Springenberg et al. (2015), Striving for Simplicity: The All Convolutional Net.
        Adebayo et al. (2018), Sanity Checks for Saliency Maps.

    Example:
        >>> Saliency(model, model_modifier=[LinearOutput(), GuidedReLU()])(243, images)
    """

    def gradients(self) -> Mapping[str, str]:
        """The guided gradient for every kind of ReLU asked for."""
        return {_OPERATION_NAMES[each]: _GUIDED for each in self.activations}


@dataclass(frozen=True)
class DeconvReLU(_ReLUGradient):
    """Deconvolution: `grad = max(upstream, 0)` at every ReLU, whatever the forward value was.

    Args:
        activations: Which activations to change: "relu", "relu6", "leaky_relu".

    Raises:
        ValueError: At the first explanation, if the model has none of these activations.

    References:
        Zeiler and Fergus (2014), Visualizing and Understanding Convolutional Networks.

    Example:
        >>> Saliency(model, model_modifier=[LinearOutput(), DeconvReLU()])(243, images)
    """

    def gradients(self) -> Mapping[str, str]:
        """The deconvolution gradient for every kind of ReLU asked for."""
        return {_OPERATION_NAMES[each]: _DECONV for each in self.activations}


def as_modifiers(model_modifier: Any) -> tuple[list[Modifier], list[Callable[..., Any]]]:
    """Sort what a user gave into modifiers of a pass and plain functions `model -> model or None`.

    Modifiers of tf-keras-vis are taken for the modifier of kvis2 that does the same, without
    a clone; its other modifiers and plain functions are returned second.

    Raises:
        TypeError: If something is neither a modifier nor callable.
    """
    if model_modifier is None:
        return [], []
    given = list(model_modifier) if isinstance(model_modifier, list | tuple) else [model_modifier]
    modifiers: list[Modifier] = []
    functions: list[Callable[..., Any]] = []
    for each in given:
        each = _converted(each)
        if isinstance(each, type):
            raise TypeError(
                f"Expected a modifier. Received: the class {each.__name__}. "
                f"Make an instance of it: `{each.__name__}()`."
            )
        if isinstance(each, Modifier):
            modifiers.append(each)
        elif callable(each):
            functions.append(each)
        else:
            raise TypeError(
                "Expected a modifier such as LinearOutput(), or a function `model -> model`. "
                f"Received: {each!r}. Give one, a list of them, or None."
            )
    return modifiers, functions


_CONVERSIONS: list[Callable[[Any], Modifier | None]] = []


def convert_with(convert: Callable[[Any], Modifier | None]) -> None:
    """Let modifiers of another toolkit be taken: `convert` returns None for what is not one."""
    _CONVERSIONS.append(convert)


def _converted(modifier: Any) -> Any:
    found = (convert(modifier) for convert in _CONVERSIONS)
    return next((each for each in found if each is not None), modifier)


def modified(
    model: keras.Model, functions: Sequence[Callable[..., Any]], clone: bool
) -> tuple[keras.Model, list[tuple[keras.Variable, keras.Variable]]]:
    """The model that plain modifier functions make of a clone of `model`, or of itself.

    Returned with the pairs (weight of the clone, weight of `model`) of all weights that the
    functions left alone: these follow the model as it trains.
    """
    if not functions:
        return model, []
    start = changed = cloned(model) if clone else model
    for function in functions:
        result = function(changed)
        if result is not None and not isinstance(result, keras.Model):
            raise TypeError(
                f"Expected a model modifier to return a model or None. Received: {result!r}. "
                "Change the model in place and return None, or return another model."
            )
        changed = result or changed
    if not clone:
        return changed, []
    pairs = zip(start.weights, model.weights, strict=True)
    return changed, [(a, b) for a, b in pairs if np.array_equal(a.numpy(), b.numpy())]


def cloned(model: keras.Model, advice: str = "") -> keras.Model:
    """A copy of a model, with its weights.

    Args:
        model: A built model. It is left alone.
        advice: What to do where Keras cannot copy it.

    Raises:
        ValueError: If Keras cannot make the model again from its configuration.
    """
    try:
        copied = keras.models.clone_model(model)
        if not copied.built:
            copied.build_from_config(model.get_build_config())
        copied.set_weights(model.get_weights())
    except (TypeError, ValueError, NotImplementedError, AttributeError) as error:
        raise ValueError(
            "Expected a model that Keras can clone from its configuration. Received: "
            f"'{model.name}' ({str(error).splitlines()[0]}). {advice or _WITHOUT_A_CLONE}"
        ) from error
    return copied


_WITHOUT_A_CLONE = (
    "Use a modifier of kvis2, which needs no clone, or `clone=False`, which changes the model "
    "itself."
)
