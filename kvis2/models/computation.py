"""What a model computes, as far as its layers tell: when a pass that was kept no longer holds.

Weights are read live, so a kept pass follows them. It does not follow another activation, LoRA
weights, quantisation, a popped head or a changed number that `call` reads: these are attributes
of layers, and are compared here.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2.models.layers import walk

# What building, calling, training and saving leave in a layer, and no forward pass reads.
_BOOKKEEPING = frozenset(
    (
        *("_tracker", "_tracked", "_lock", "_auto_config", "_path", "_parent_path", "built"),
        *("build", "quantize"),  # wrapped for each instance, which they keep alive
        *("_called", "_losses", "_loss_ids", "_losses_override", "_metrics", "_seed_generators"),
        *("_inbound_nodes", "_outbound_nodes", "_saved_model_inputs_spec", "_input_spec"),
        *("_saved_model_arg_spec", "_build_shapes_dict", "_convert_input_args", "supports_jit"),
        *("_call_signature", "call_signature_parameters", "_trainable_variables"),
        *("_non_trainable_variables", "optimizer", "stop_training", "stop_predicting", "history"),
        *("stop_evaluating", "_compiled_trainable_state"),
        *("train_function", "test_function", "predict_function", "_compile_config", "compiled"),
        *("_compile_loss", "_compile_metrics", "_loss_tracker", "_initial_epoch", "_jit_compile"),
        *("_compute_loss_has_training_arg", "_distribute_strategy", "_call_has_context_arg"),
        *("_call_has_training_arg", "_call_has_mask_arg", "_call_context_args"),
        *("_allow_non_tensor_positional_args", "activity_regularizer"),
        *("steps_per_execution", "unrolled_steps_per_execution", "_eval_epoch_iterator"),
    )
)
# What Keras' own layers read when they are built or trained; those of a user may read them always.
_OF_TRAINING = ("_initializer", "_regularizer", "_constraint")
_PLAIN = (bool, int, float, str, bytes, type(None))
_MOST_ITEMS = 256  # Of a list that is compared item by item.
_MOST_BYTES = 2**16  # Of an array that is compared by its values.
_DEEPEST = 6  # Objects in objects may lead in a circle.


class Computation:
    """What a model computed when this was made.

    Args:
        model: A built model. It is not kept alive.
        unsteady: Attributes, as `differences` gives them, that say nothing: those that a trace
            changes by itself, such as a count of calls.
    """

    def __init__(
        self, model: keras.Model, unsteady: frozenset[tuple[str, str]] = frozenset()
    ) -> None:
        self._unsteady = unsteady
        self._values = _values_of(model)
        # The dictionaries of all layers, but not of the model itself, which would be kept alive.
        layers = [layer for _, layer in walk(model)]
        self._inside = [vars(layer) for layer in layers]
        self._layers = [each["_layers"] for each in self._inside if "_layers" in each]
        self._watched = [_watched(each) for each in (model, *layers)]
        self._identities = self._identities_now(model)
        self._containers = [_kept(each, model) for each in _containers_of(model)]

    def holds(self, model: keras.Model) -> bool:
        """Whether `model` still computes the same: quick where no attribute was touched."""
        if self._identities_now(model) == self._identities and all(
            _are_the_same(each, kept) if singles else _frozen(each, model) == kept
            for each, kept, singles in self._containers
        ):
            return True
        now = Computation(model, self._unsteady)
        if self.differences(now):
            return False
        vars(self).update(vars(now))
        return True

    def _identities_now(self, model: keras.Model) -> list[int] | None:
        """Which objects the attributes of all layers are, and how many; None where one is gone.

        `_values` keeps the objects alive, so that no other gets the place in memory of one. Every
        call asks this of every layer, so it looks at nothing that is bookkeeping.
        """
        dictionaries = (vars(model), *self._inside)
        try:
            values = [get(each) for get, each in zip(self._watched, dictionaries, strict=True)]
        except KeyError:
            return None
        layers = (vars(model).get("_layers", ()), *self._layers)
        return [*map(id, chain.from_iterable(values)), *map(len, dictionaries), *map(len, layers)]

    def differences(self, other: Computation) -> frozenset[tuple[str, str]]:
        """The attributes, (path, name), in which two computations differ."""
        keys = self._values.keys() | other._values.keys()
        found = {k for k in keys if not _same(self._values.get(k), other._values.get(k))}
        return frozenset(found - self._unsteady)


def _kept(container: Any, model: keras.Model) -> tuple[Any, Any, bool]:
    """A container, what it held, and whether its items are compared by identity."""
    if isinstance(container, list) and all(_is_single(each, model) for each in container):
        return container, list(container), True
    return container, _frozen(container, model), False


def _is_single(value: Any, model: keras.Model) -> bool:
    """Whether nothing is inside of a value that may change."""
    return type(value) in _PLAIN or isinstance(_frozen(value, model), _Identity)


def _are_the_same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(is_, one, other))


def _values_of(model: keras.Model) -> dict[tuple[str, str], Any]:
    """The attributes of all layers as values that can be compared."""
    return {
        (path, name): _frozen(value, model)
        for path, layer in [("", model), *walk(model)]
        for name, value in [("class", type(layer)), *_attributes(layer)]
    }


def _containers_of(model: keras.Model) -> list[Any]:
    """What changes in place among the attributes: lists, dicts, arrays, objects of users."""
    return [
        value
        for layer in [model, *(each for _, each in walk(model))]
        for name, value in _attributes(layer)
        if (isinstance(value, list | dict) and value)
        or isinstance(value, np.ndarray)
        or _is_users(value)
        if not name.startswith(("_nodes", "_operations", "_layers"))
    ]


def _attributes(layer: Any) -> list[tuple[str, Any]]:
    silent = _OF_TRAINING if type(layer).__module__.startswith("keras.") else ()
    return [
        (name, value)
        for name, value in vars(layer).items()
        if name not in _BOOKKEEPING and not name.startswith("_self_") and not name.endswith(silent)
    ]


def _watched(layer: Any) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """What takes the values of the attributes that say something out of a layer's dictionary."""
    names = [name for name, _ in _attributes(layer)]
    if len(names) > 1:
        return itemgetter(*names)
    return lambda found: tuple(found[name] for name in names)


_NOT_USERS = frozenset(
    (
        "builtins",
        "inspect",
        "keras",
        "kvis2",
        "numpy",
        "optree",
        "tensorflow",
        "threading",
        "weakref",
    )
)


def _is_users(value: Any) -> bool:
    """Whether a value is an object of a user's own class, such as a configuration."""
    owner = type(value).__module__.partition(".")[0]
    return (
        hasattr(value, "__dict__")
        and owner not in _NOT_USERS
        and not isinstance(value, keras.Operation | keras.Variable | tf.Module)
        and not callable(value)
    )


def _frozen(value: Any, model: keras.Model, depth: int = 0) -> Any:
    """A value to compare: plain ones by value, layers, variables and functions by identity."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list | tuple) and len(value) <= _MOST_ITEMS:
        return tuple(_frozen(each, model, depth + 1) for each in value)
    if isinstance(value, dict) and len(value) <= _MOST_ITEMS:
        return tuple((repr(k), _frozen(each, model, depth + 1)) for k, each in value.items())
    if isinstance(value, np.ndarray) and value.nbytes <= _MOST_BYTES and not value.dtype.hasobject:
        return (value.shape, value.dtype.str, value.tobytes())
    if depth < _DEEPEST and _is_users(value):
        return (_Identity(value), _frozen(dict(vars(value)), model, depth + 1))
    if isinstance(value, keras.DTypePolicy):
        return repr(value.get_config())
    bound = getattr(value, "__self__", None)
    if bound is not None and isinstance(value, Callable):  # type: ignore[arg-type]
        return getattr(value, "__func__", None)
    if value is model:
        return None
    return _Identity(value)


class _Identity:
    """An object that equals itself alone, kept alive so that its place is not reused."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other
