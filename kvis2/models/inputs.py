"""From what a user hands in to the flat arrays a model takes, and back to the user's structure."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2.models import layers
from kvis2.models.ranges import warn_of_range


class Arguments(tuple):
    """Placeholders of the inputs of a model whose `call` takes one tensor in each argument."""


class Batch:
    """A user's input as flat arrays, with the way back.

    Values are cast to what the model takes, and checked, row by row as they are asked for: the
    memory of a pass goes by its rows and not by the whole input.

    Args:
        model: The model that the input is for.
        seed_input: An array, tensor or nested Python list; a list of them for a model with
            several inputs or arguments, or a dict by input name. A missing batch axis is added.

    Attributes:
        packing: The structure in which a model that declares none is called.
        size: The number of samples.
        fixed: How many samples the model takes at once, if it declares a number.

    Raises:
        ValueError: If shape, count or values do not fit the model.
    """

    def __init__(self, model: keras.Model, seed_input: Any) -> None:
        self.fixed = layers.fixed_batch(model)
        specs = specifications(model)
        _check_arguments(model, seed_input)
        self._names = _names_of_arguments(model, seed_input)
        if self._names:  # By the names of the arguments of `call`.
            seed_input = [seed_input[name] for name in self._names]
        if _are_arguments(model, seed_input, specs):
            specs = None  # Keras remembers the first argument's shape alone.
        values, self._structure = _flattened(seed_input, specs)
        self.packing = _packing(model, self._structure)
        self._seed_input = seed_input
        expected: Sequence[Any] = [None] * len(values) if specs is None else specs
        unknown = any(spec is None or spec.dtype is None for spec in expected)
        has_tokens = unknown and _has_embedding(model)
        pairs = list(zip(values, expected, strict=True))
        self._given = [_as_array(value, spec) for value, spec in pairs]
        self._dtypes = [
            _dtype(each, spec, has_tokens)
            for each, (_, spec) in zip(self._given, pairs, strict=True)
        ]
        self.size = len(self._given[0])
        if any(len(each) != self.size for each in self._given):
            raise ValueError(
                "Expected inputs with the same number of samples. "
                f"Received: {[len(each) for each in self._given]} samples. Give as many of each."
            )
        self._specs = specs
        self._declared = layers.declared_inputs(model)
        if len(self._given) == 1 and self._dtypes[0].startswith("float"):
            warn_of_range(model, self._given[0])

    @property
    def arrays(self) -> list[np.ndarray]:
        """All flat inputs `(batch, ...)` in the dtypes that the model takes."""
        return self._cast(0, self.size)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the flat inputs."""
        return [each.shape for each in self._given]

    @property
    def open_axes(self) -> list[tuple[int, ...]]:
        """For each flat input the axes whose length may change without a new trace."""
        if self._declared is None:
            return [(0,) for _ in self._given]
        samples = (0,) if self.fixed is None else ()
        return [
            (*samples, *(axis for axis, size in enumerate(spec.shape) if axis and size is None))
            for spec in self._declared
        ]

    def rows(self, start: int, stop: int) -> list[np.ndarray]:
        """The inputs of the samples from `start` to `stop`, cast to what the model takes.

        As many as it takes at once, if it declares a number: the last sample is repeated.
        """
        return [self.whole(each) for each in self._cast(start, stop)]

    def whole(self, array: np.ndarray) -> np.ndarray:
        """An array by sample, its last row repeated where the model takes a fixed number."""
        return array if self.fixed is None else _filled(array, self.fixed)

    def _cast(self, start: int, stop: int) -> list[np.ndarray]:
        pairs = zip(self._given, self._dtypes, strict=True)
        return [_as_dtype(each[start:stop], dtype) for each, dtype in pairs]

    def only(self, sample: int) -> Batch:
        """This batch with one of its samples alone."""
        alone = copy.copy(self)
        alone._given = [each[sample : sample + 1] for each in self._given]
        alone.size = 1
        return alone

    def restored(self, values: Sequence[Any]) -> Any:
        """One value per flat input, in the structure of the user's input."""
        if self._names:
            return dict(zip(self._names, values, strict=True))
        if isinstance(self._seed_input, Mapping):
            return _named_as(self._seed_input, self._specs, values)
        if isinstance(self._structure, list | tuple):
            return list(values) if isinstance(self._structure, list) else tuple(values)
        return values[0]


def flat_inputs(model: keras.Model, inputs: Any) -> list[tf.Tensor]:
    """Tensors as a model takes them, flat and in its dtypes, inside a graph.

    Args:
        model: The model that they are for.
        inputs: A tensor `(batch, ...)`; a list of them, or a dict by input name.

    Raises:
        ValueError: If there are not as many as the model has inputs.
    """
    specs = specifications(model)
    values = _flattened(inputs, specs)[0]
    if specs is None:
        return [tf.convert_to_tensor(each) for each in values]
    dtypes = [keras.backend.standardize_dtype(spec.dtype) for spec in specs]
    return [tf.cast(each, dtype) for each, dtype in zip(values, dtypes, strict=True)]


def _named_as(
    given: Mapping[str, Any], specs: list[Any] | None, values: Sequence[Any]
) -> dict[str, Any]:
    """One value per flat input, under the names and in the order of a user's dict."""
    names = sorted(given) if specs is None else [spec.name for spec in specs]
    by_name = dict(zip(names, values, strict=True))
    return {name: by_name[name] for name in given}


def like_inputs(model: keras.Model, inputs: Any, values: Sequence[Any]) -> Any:
    """One value per flat input, in the structure of `inputs`."""
    if isinstance(inputs, Mapping):
        return _named_as(inputs, specifications(model), values)
    if isinstance(inputs, list | tuple):
        return list(values)
    return values[0]


def _filled(array: np.ndarray, size: int) -> np.ndarray:
    missing = size - len(array)
    return array if missing <= 0 else np.concatenate([array, np.repeat(array[-1:], missing, 0)])


def refuse_stateful(model: keras.Model) -> None:
    """Raise for layers that carry a state from batch to batch: which one would be explained?"""
    for path, layer in layers.walk(model):
        if isinstance(layer, keras.layers.RNN) and layer.stateful:
            raise ValueError(
                "Expected a model whose outputs depend on its input alone. Received: "
                f"'{path}', an RNN with `stateful=True`. Build the model with `stateful=False` "
                "and set its weights, to explain it."
            )


def _names_of_arguments(model: keras.Model, seed_input: Any) -> list[str]:
    """The arguments of a subclassed `call` that a user names, in their order; else none."""
    if layers.declared_inputs(model) is not None or not isinstance(seed_input, Mapping):
        return []
    names = _tensor_arguments(model)
    return names[: len(seed_input)] if set(names[: len(seed_input)]) == set(seed_input) else []


def _check_arguments(model: keras.Model, seed_input: Any) -> None:
    """Raise if a subclassed `call` needs more tensors than are given."""
    if layers.declared_inputs(model) is not None:
        return
    given = len(seed_input) if isinstance(seed_input, list | tuple | Mapping) else 1
    parameters = inspect.signature(model.call).parameters
    needed = [n for n in _tensor_arguments(model) if parameters[n].default is inspect._empty]
    if given == 1 and len(needed) > 1:
        raise ValueError(
            f"Expected an input for each of the arguments {needed} of `call`. Received: one. "
            "Give a list in this order, or a dict by name."
        )


def _are_arguments(model: keras.Model, seed_input: Any, specs: list[Any] | None) -> bool:
    """Whether a user gives one array for each of several arguments of a subclassed `call`."""
    if layers.declared_inputs(model) is not None or not isinstance(seed_input, list | tuple):
        return False
    if not 1 < len(seed_input) <= len(_tensor_arguments(model)):
        return False
    alone = specs is not None and len(specs) == 1  # Else they are known one by one.
    return alone and np.ndim(seed_input[0]) == len(specs[0].shape)  # type: ignore[index]


def _packing(model: keras.Model, structure: Any) -> Any:
    """The structure in which a model is called that declares none itself."""
    several = isinstance(structure, list | tuple) and len(structure) > 1
    if not several or layers.input_structure(model) is not None:
        return structure
    built = getattr(model, "_build_shapes_dict", None)
    (shapes,) = built.values() if built and len(built) == 1 else (None,)
    if shapes is not None and not _is_shape(shapes):
        return structure  # Built with a list of inputs in one argument.
    return Arguments(structure) if len(_tensor_arguments(model)) >= len(structure) else structure


def _tensor_arguments(model: keras.Model) -> list[str]:
    """The names of the arguments of `call` that can be tensors without a keyword."""
    parameters = inspect.signature(model.call).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [each.name for each in parameters if each.kind in kinds]
    return [name for name in named if name not in ("self", "training", "mask")]


def specifications(model: keras.Model) -> list[Any] | None:
    """Symbolic inputs (shape, dtype, name) of a model that declares them, else of its build."""
    declared = layers.declared_inputs(model)
    if declared is not None:
        return declared
    built: Mapping[str, Any] = getattr(model, "_build_shapes_dict", None) or {}
    if not built:
        return None
    if len(built) == 1:
        (shapes,) = built.values()
        if isinstance(shapes, tuple | list) and _is_shape(shapes):
            return [_BuiltWith("input", shapes)]
        if isinstance(shapes, Mapping) and all(map(_is_shape, shapes.values())):
            return [_BuiltWith(name, shapes[name]) for name in sorted(shapes)]
        if isinstance(shapes, tuple | list) and all(map(_is_shape, shapes)):
            return [_BuiltWith(f"input {i}", each) for i, each in enumerate(shapes)]
        return None
    if not all(map(_is_shape, built.values())):
        return None
    return [_BuiltWith(name.removesuffix("_shape"), each) for name, each in built.items()]


class _BuiltWith:
    """What is known of an input of a subclassed model: the shape it was built with."""

    dtype = None

    def __init__(self, name: str, shape: Sequence[int | None]) -> None:
        self.name = name
        self.built_with = (None, *shape[1:])
        # The size of the images seen in building is not a promise; rank and channels are.
        self.shape = (*[None] * (len(shape) - 1), *([shape[-1]] if len(shape) != 2 else [None]))


def _is_shape(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) > 0
        and all(size is None or isinstance(size, int) for size in value)
    )


def _has_embedding(model: keras.Model) -> bool:
    return any(isinstance(layer, keras.layers.Embedding) for _, layer in layers.walk(model))


def _flattened(seed_input: Any, specs: list[Any] | None) -> tuple[list[Any], Any]:
    """The flat values and the structure of placeholders they came in."""
    if isinstance(seed_input, Mapping):
        return _by_name(seed_input, specs)
    if not isinstance(seed_input, list | tuple):
        return _as_many([seed_input], specs), 0
    if specs is not None and len(specs) == 1:
        rank = len(specs[0].shape)
        if len(seed_input) == 1 and np.ndim(seed_input[0]) == rank:
            return [seed_input[0]], _like(seed_input, 1)
        return [seed_input], 0
    if specs is None and not all(hasattr(each, "shape") for each in seed_input):
        return [seed_input], 0
    return _as_many(list(seed_input), specs), _like(seed_input, len(seed_input))


def _like(seed_input: Sequence[Any], count: int) -> Any:
    return [0] * count if isinstance(seed_input, list) else (0,) * count


def _as_many(values: list[Any], specs: list[Any] | None) -> list[Any]:
    if specs is not None and len(values) != len(specs):
        names = [spec.name for spec in specs]
        raise ValueError(
            f"Expected {len(specs)} inputs, {names}. Received: {len(values)}. "
            "Give a list in this order, or a dict by name."
        )
    return values


def _by_name(seed_input: Mapping[str, Any], specs: list[Any] | None) -> tuple[list[Any], Any]:
    names = sorted(seed_input) if specs is None else [spec.name for spec in specs]
    if set(names) != set(seed_input):
        raise ValueError(
            f"Expected inputs named {sorted(names)}. Received: {sorted(seed_input)}. "
            "Use the names of the model's inputs."
        )
    return [seed_input[name] for name in names], dict.fromkeys(sorted(seed_input), 0)


def _as_array(value: Any, spec: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # A ragged list.
        array = np.empty(0, object)
    if array.dtype.kind not in "buif" and array.dtype.name != "bfloat16":
        raise ValueError(
            "Expected an array of numbers, or images of one size. "
            f"Received: {type(value).__name__} of dtype {array.dtype}. The score comes first and "
            "the input second: `explainer(score, images)`; resize images to one size."
        )
    if array.ndim == 0:
        raise ValueError(
            f"Expected an input array. Received: the number {value!r}. "
            "The score comes first and the input second: `explainer(score, images)`."
        )
    if spec is not None:
        array = _with_axes(array, tuple(spec.shape), spec.name)
    if array.shape[0] == 0:
        raise ValueError(
            f"Expected at least one sample. Received: an empty batch of shape {array.shape}. "
            "Check what was selected."
        )
    if 0 in array.shape:
        raise ValueError(
            f"Expected an input with values. Received: shape {array.shape}, which has none. "
            "Check how the images were cropped."
        )
    return array


def _as_dtype(array: np.ndarray, dtype: str) -> np.ndarray:
    """Values in the dtype that the model takes, none of them changed by a cast to integers."""
    _finite(array)
    if np.dtype(dtype).kind not in "iu" or array.dtype == dtype or not array.size:
        return array if array.dtype == dtype else _finite(array.astype(dtype))
    limits, low, high = np.iinfo(dtype), array.min(), array.max()
    whole = array.dtype.kind in "iub" or not np.any(array != np.floor(array))
    if not whole or low < limits.min or high > limits.max:
        raise ValueError(
            f"Expected whole numbers from {limits.min} to {limits.max}, for an input of type "
            f"{dtype}. Received: {'numbers' if whole else 'fractions'} from {low} to {high}. "
            "Undo the scaling of the images, or build the model with a floating input."
        )
    return array.astype(dtype)


def _finite(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise ValueError(
            f"Expected finite numbers. Received: an input with {count} NaN or infinite values. "
            "Clean the input first."
        )
    return array


def _dtype(array: np.ndarray, spec: Any, has_tokens: bool) -> str:
    declared = None if spec is None else spec.dtype
    if declared is not None:
        # A model that declares half precision still gets float32: its layers cast themselves.
        return "float32" if declared in ("float16", "bfloat16") else declared
    if array.dtype.kind in "iu" and array.dtype != np.uint8 and has_tokens:
        return "int32"
    return "float32"


def _with_axes(array: np.ndarray, shape: tuple[int | None, ...], name: str) -> np.ndarray:
    """`array` with the axes added that it lacks: the batch, the channel of grey images, or both."""
    for candidate in (array, array[None], array[..., None], array[None, ..., None]):
        if candidate.ndim == len(shape) and all(
            wanted in (None, size)
            for wanted, size in zip(shape[1:], candidate.shape[1:], strict=True)
        ):
            return candidate
    wanted = ", ".join("any" if size is None else str(size) for size in shape[1:])
    raise ValueError(
        f"Expected the input '{name}' to have shape (batch, {wanted}). Received: {array.shape}. "
        "Resize or convert the images to what the model takes."
    )
