"""A live model run at inference, changed for this pass alone.

A `Runner` is the only place that calls the model. It reads the live variables, so weights may
change between calls, and leaves nothing behind in the model.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from kvis2 import models
from kvis2.models import Arguments, Modifier, inlined, is_function, overriding
from kvis2.types import Override, Tensors

# A power of two scales exactly; it lifts float16 gradients over the smallest float16.
_FLOAT16_SCALE = 1024.0

_LEFT_BY_A_CALL: dict[str, Callable[[Any], Any]] = {
    "_called": lambda called: called,
    "_parent_path": lambda path: path,
    "_losses": lambda _: [],
    "_loss_ids": lambda _: set(),
}


Values: TypeAlias = "Sequence[tuple[keras.Variable, tf.Tensor]]"
"""Variables of the model, and what stands for them during a pass."""


class Runner:
    """Runs one model; may be used eagerly or inside a `tf.function`.

    Args:
        model: A built model of any kind.
        modifiers: What to change about the model during the pass.
        packing: The structure of the inputs of a model that declares none.
    """

    def __init__(
        self, model: keras.Model, modifiers: Sequence[Modifier] = (), packing: Any = 0
    ) -> None:
        self.model = model
        self.modifiers = tuple(modifiers)
        self.packing = packing
        self.values: Values = ()
        self.batch = models.fixed_batch(model)
        self.gradient_scale = _FLOAT16_SCALE if _has_float16(model) else 1.0

    def with_modifiers(self, *modifiers: Modifier) -> Runner:
        """A runner of the same model with further modifiers."""
        other = copy.copy(self)
        other.modifiers = (*self.modifiers, *modifiers)
        return other

    def with_values(self, values: Values) -> Runner:
        """A runner of the same model, whose variables have other values while it runs."""
        other = copy.copy(self)
        other.values = (*self.values, *values)
        return other

    def __call__(self, inputs: Tensors, overrides: Sequence[Override] = ()) -> Any:
        """What the model returns, in its own structure: one forward pass.

        Args:
            inputs: The flat inputs, `(batch, ...)` each.
            overrides: What is replaced besides what the modifiers replace.
        """
        inputs = self._whole(inputs)
        start = operation_count()
        with ExitStack() as stack:
            stack.enter_context(overriding([*self._overrides(), *overrides]))
            stack.enter_context(self._gradient_map())
            # No variable of the model is assigned and no loss is added, whatever a layer does.
            stack.enter_context(keras.StatelessScope(self.values or None))
            try:
                result = self.model(*self._packed(inputs), training=False)
            except (ValueError, TypeError) as error:
                raise _unwrapped(error) from None
        for modifier in self.modifiers:
            modifier.check(operations_since(start))
        return result

    def _whole(self, inputs: Tensors) -> Tensors:
        """The inputs, as many samples as the model declares that it takes at once."""
        if self.batch is None:
            return inputs
        for each in inputs:
            if each.shape[0] not in (None, self.batch):
                raise other_than_fixed(self.model, f"one of {each.shape[0]}")
        return [
            each if each.shape[0] else tf.ensure_shape(each, [self.batch, *each.shape[1:]])
            for each in inputs
        ]

    def explained(self, output: tf.Tensor) -> tf.Tensor:
        """What the modifiers put into the place of a model output."""
        for modifier in self.modifiers:
            output = modifier.output(output)
        return output

    def gradients(
        self, total: tf.Tensor, sources: Tensors, inputs: Tensors, computed: bool = False
    ) -> list[Any]:
        """Scaled gradients of scores, which are not computed if nothing else asks for them.

        Args:
            total: The scores, `(batch,)`.
            sources: What to differentiate by.
            inputs: The flat inputs.
            computed: Whether the scores are computed all the same, for a check that they have.
        """
        known = total.shape.is_fully_defined()  # One score for all samples, or a fixed batch.
        shape = total.shape if known else tf.shape(inputs[0])[:1]
        if computed and not known:
            with tf.control_dependencies([total]):
                shape = tf.identity(shape)
        return tf.gradients(total, sources, grad_ys=tf.fill(shape, self.gradient_scale))

    def unscaled(self, gradient: Any) -> tf.Tensor:
        """A gradient of scaled scores, float32 and of its own size."""
        return tf.cast(tf.convert_to_tensor(gradient), tf.float32) / self.gradient_scale

    def _overrides(self) -> list[Override]:
        inside = [layer for _, layer in models.walk(self.model)]
        found = [inlined(each) for each in [self.model, *inside] if is_function(each.call)]
        found += [each for modifier in self.modifiers for each in modifier.overrides(self.model)]
        # A call marks a layer as called and clears the losses that the last one left in it.
        found += [
            Override(layer, name, empty)
            for layer in (self.model, *inside)
            for name, empty in _LEFT_BY_A_CALL.items()
            if name in vars(layer)
        ]
        return found

    def _gradient_map(self) -> Any:
        replaced = {k: v for each in self.modifiers for k, v in each.gradients().items()}
        if not replaced:
            return ExitStack()
        if tf.executing_eagerly():
            raise ValueError(
                "Expected a model that can be traced into a graph, to change the gradient of its "
                f"ReLUs. Received: '{self.model.name}', which runs eagerly only. Use a method "
                "without GuidedReLU or DeconvReLU."
            )
        return tf.compat.v1.get_default_graph().gradient_override_map(replaced)

    def _packed(self, inputs: Tensors) -> tuple[Any, ...]:
        """The arguments of the model."""
        structure = models.input_structure(self.model)
        structure = self.packing if structure is None else structure
        if isinstance(structure, Arguments):
            return tuple(inputs)
        return (keras.tree.pack_sequence_as(structure, inputs),)


def other_than_fixed(model: keras.Model, received: str) -> ValueError:
    """What is said of a pass that a model with a fixed `batch_shape` cannot take."""
    return ValueError(
        f"Expected a pass of {models.fixed_batch(model)} samples, which '{model.name}' declares "
        f"(`batch_shape`). Received: {received}. Build it with an open number of samples, "
        "`Input(shape)`, and set its weights."
    )


def refused_by_tensorflow(model: keras.Model, error: Exception) -> Exception:
    """A sentence of what a layer cannot compute, such as a token outside of its vocabulary."""
    said = re.search(r"^[ \t]*(\S.*?)\s*\[\[\{\{node", str(error), re.MULTILINE)
    lines = [each.strip() for each in str(error).splitlines() if "{{node" not in each]
    reason = said.group(1) if said else next((x for x in reversed(lines) if " " in x), "an error")
    return ValueError(
        f"Expected an input that '{model.name}' can compute. Received: one of which TensorFlow "
        f"says '{reason}'. Look at its values, such as tokens within the vocabulary, and its size."
    )


def _unwrapped(error: Exception) -> Exception:
    """A sentence of kvis2's own without what Keras puts around errors inside of layers."""
    said = re.search(r"\x1b\[1m(Expected .*? Received: .*?)\x1b\[0m", str(error), re.DOTALL)
    return error if said is None else type(error)(said.group(1))


def _has_float16(model: keras.Model) -> bool:
    layers = [model, *(layer for _, layer in models.walk(model))]
    return any(getattr(layer, "compute_dtype", None) == "float16" for layer in layers)


def operation_count() -> int:
    """How many operations the graph has by now; 0 where there is none."""
    if tf.executing_eagerly():
        return 0
    return len(tf.compat.v1.get_default_graph().get_operations())


def operations_since(start: int) -> list[tf.Operation]:
    """The operations of the graph after the first `start`."""
    if tf.executing_eagerly():
        return []
    return tf.compat.v1.get_default_graph().get_operations()[start:]
