"""Find layers in any Keras model: nested names and paths, kinds, inputs, memory layout."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from kvis2.types import LayerReference

LAST_SPATIAL = "<last spatial feature map>"
"""The layer reference that stands for the last feature map before the spatial axes collapse."""


# The one list of layers that are affine but for their activation, by how they sum.
DENSE = (keras.layers.Dense, keras.layers.EinsumDense)
PLAIN_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
CONVOLUTIONS = (*PLAIN_CONVOLUTIONS, *TRANSPOSED, *DEPTHWISE, *SEPARABLE)
ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
_AFFINE: list[type] = [*DENSE, *CONVOLUTIONS]


def register_affine(layer_class: type) -> None:
    """Let kvis2 know a layer of one's own that is affine, in every method.

    LRP then gives it the rules of dense layers, and folds a batch normalisation into it.

    Args:
        layer_class: A subclass of `keras.Layer` with the attributes `kernel`, `bias` (or None)
            and `activation` (or None), whose output is `activation(sum over inputs and kernel +
            bias)`, the outputs on the last axis of the kernel.

    Example:
        >>> register_affine(LocallyConnected)
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise TypeError(
            f"Expected a class of Keras layers. Received: {layer_class!r}. Give the class, not "
            "an instance."
        )
    if layer_class not in _AFFINE:
        _AFFINE.append(layer_class)


def is_affine(layer: keras.Operation) -> bool:
    """Whether a layer is a sum of weighted inputs, apart from its activation."""
    return isinstance(layer, tuple(_AFFINE))


def entry_of(layer: keras.Operation) -> str:
    """The name of the method through which Keras runs a layer: "call", or that of int8 weights."""
    return "call" if getattr(layer, "quantization_mode", None) is None else "quantized_call"


def children(layer: keras.Operation) -> list[keras.Operation]:
    """The layers and raw operations directly inside `layer`, inputs excluded."""
    if isinstance(layer, keras.Model):
        inside = getattr(layer, "operations", None) or layer.layers
    else:
        inside = getattr(layer, "_layers", [])
    return [child for child in inside if not isinstance(child, keras.layers.InputLayer)]


def walk(model: keras.Operation, prefix: str = "") -> Iterator[tuple[str, keras.Operation]]:
    """Yield `(path, layer)` for every layer and raw operation of `model`, at any depth, once.

    Paths are joined by "/", because layer names may contain dots.
    """
    seen: set[int] = set()
    stack = [(child, prefix) for child in reversed(children(model))]
    while stack:
        layer, prefix = stack.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        path = prefix + layer.name
        yield path, layer
        stack.extend((child, path + "/") for child in reversed(children(layer)))


def inside_attention(model: keras.Model) -> Iterator[keras.Operation]:
    """The layers that attention layers are made of."""
    for _, layer in walk(model):
        if isinstance(layer, ATTENTION):
            yield from (inner for _, inner in walk(layer))


def find_layer(model: keras.Model, reference: LayerReference) -> keras.Operation:
    """The layer of `model` that `reference` means.

    Args:
        model: Any built Keras model.
        reference: A layer of the model at any depth, its unique name, its path
            (`"backbone/block5_conv3"`), or an index into `model.layers`.

    Returns:
        The live layer.

    Raises:
        ValueError: If there is no such layer, or several of that name.

    Example:
        >>> find_layer(model, "backbone/block5_conv3").name
        'block5_conv3'
    """
    if isinstance(reference, int) and not isinstance(reference, bool):
        return _by_index(model, reference)
    layers = dict(walk(model))
    if isinstance(reference, str):
        return _by_name(layers, reference, model.name)
    if any(layer is reference for layer in layers.values()):
        return reference
    raise ValueError(
        f"Expected a layer of the model '{model.name}' (an object, name, path or index). "
        f"Received: {reference!r}, which is not in it. Take it from this very model, not a copy."
    )


def layer_path(model: keras.Model, layer: keras.Operation) -> str:
    """The path of a live layer inside `model`; its bare name if it is not found there."""
    return next((path for path, each in walk(model) if each is layer), layer.name)


def _by_index(model: keras.Model, index: int) -> keras.Operation:
    count = len(model.layers)
    if not -count <= index < count:
        raise ValueError(
            f"Expected a layer index between {-count} and {count - 1} in the model "
            f"'{model.name}'. Received: {index}. `kvis2.describe(model)` lists the layers."
        )
    return model.layers[index]


def _by_name(layers: dict[str, keras.Operation], name: str, model_name: str) -> keras.Operation:
    if name in layers:
        return layers[name]
    matches = [path for path, layer in layers.items() if layer.name == name]
    if len(matches) == 1:
        return layers[matches[0]]
    if matches:
        raise ValueError(
            f"Expected a layer name that is unique in the model '{model_name}'. "
            f"Received: '{name}', which is the name of {len(matches)} layers. "
            f"Give one of the paths {', '.join(repr(path) for path in matches)}."
        )
    candidates = {path: path for path in layers} | {v.name: path for path, v in layers.items()}
    close = [candidates[match] for match in difflib.get_close_matches(name, candidates, 5, 0.5)]
    advice = f"Close names: {', '.join(map(repr, dict.fromkeys(close)))}." if close else ""
    advice = advice or f"Its layers are: {', '.join(map(repr, list(layers)[-8:]))}."
    raise ValueError(
        f"Expected the name or path of a layer in the model '{model_name}'. "
        f"Received: '{name}'. {advice}"
    )


def data_format(model: keras.Model, layer: keras.Operation | None = None) -> str:
    """Where `layer` (or the whole model) keeps its channels: "channels_last" or "channels_first".

    A layer that says so itself is believed; otherwise the convolutions and poolings of the model
    are asked, and without any the Keras configuration.
    """
    own = getattr(layer, "data_format", None)
    if own is not None:
        return own
    for _, each in walk(model):
        found = getattr(each, "data_format", None)
        if found is not None and not isinstance(each, keras.layers.Flatten):
            return found
    return keras.config.image_data_format()


def spatial_axes(model: keras.Model, shape: Sequence[int | None], dtype: Any) -> list[int]:
    """The axes of an input of `model` that are space (or time).

    Args:
        model: The model.
        shape: The shape of the input, batch first.
        dtype: The dtype of the input. Integers of at most three axes are tokens, without
            channels; anything else has channels, or is a vector.

    Example:
        >>> spatial_axes(model, (None, 224, 224, 3), "float32")
        [1, 2]
    """
    rank = len(shape)
    name = getattr(dtype, "name", dtype)
    if rank <= 3 and name in ("int8", "int16", "int32", "int64"):
        return list(range(1, rank))
    first = data_format(model) == "channels_first"
    return list(range(2, rank) if first else range(1, rank - 1))


def check_built(model: keras.Model) -> None:
    """Raise a sentence if `model` has no weights yet."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"Expected a keras.Model. Received: {type(model).__name__}. "
            "Explainers take the model first: `GradCAM(model)(score, images)`."
        )
    if not model.built:
        raise ValueError(
            f"Expected a built model. Received: '{model.name}', which has no weights yet. "
            "Call it on one batch, or `model.build(input_shape)`, before you explain it."
        )


def check_finite(model: keras.Model) -> None:
    """Raise a sentence that names the weight, if one of `model` is NaN or infinite.

    For those who have found that something is not finite: it reads all weights.
    """
    for weight in model.weights:
        values = tf.convert_to_tensor(weight)
        if values.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(values))):
            raise ValueError(
                "Expected a model whose weights are finite. Received: NaN or infinity in "
                f"'{weight.path}' of '{model.name}' (a diverged training?). Go back to weights "
                "from before."
            )


def input_structure(model: keras.Model) -> Any:
    """The model's symbolic inputs in the structure it was built with; None if it declares none."""
    if isinstance(model, keras.Sequential):
        inputs = getattr(model, "inputs", None)
        return inputs[0] if inputs else None
    return getattr(model, "_inputs_struct", None)


def declared_inputs(model: keras.Model) -> list[Any] | None:
    """The symbolic inputs (shape, dtype, name) of a model that declares them, flat; else None."""
    structure = input_structure(model)
    if isinstance(structure, keras.KerasTensor):
        return [structure]
    return None if structure is None else keras.tree.flatten(structure)


def fixed_batch(model: keras.Model) -> int | None:
    """How many samples a model takes at once: None, or the number that its inputs declare.

    A model with `Input(batch_shape=(8, ...))` may count on it in any layer.

    Raises:
        ValueError: If its inputs declare different numbers.
    """
    found = {each.shape[0] for each in declared_inputs(model) or () if len(each.shape)} - {None}
    if len(found) > 1:
        raise ValueError(
            "Expected inputs with one fixed number of samples, or an open one. Received: "
            f"'{model.name}' with {sorted(found)}. Give all inputs the same `batch_shape`, or none."
        )
    return next(iter(found), None)


def output_count(model: keras.Model) -> int:
    """How many outputs the model declares; 1 for a subclassed model, which declares none."""
    if isinstance(model, keras.Sequential) or not hasattr(model, "_outputs_struct"):
        return 1
    return len(model.outputs)


def output_names(model: keras.Model) -> list[str] | None:
    """The names of the flat outputs; None for a model that does not know them."""
    if isinstance(model, keras.Sequential) or not hasattr(model, "_outputs_struct"):
        return None
    return list(model.output_names)


def flat_outputs(outputs: Any) -> list[Any]:
    """The tensors of what a model returned: of nested lists, dicts (sorted), and dataclasses."""
    return [tensor for _, tensor in _leaves(outputs, "")]


def output_paths(outputs: Any) -> list[str]:
    """Where each of `flat_outputs` stands, such as "class" or "features/0"."""
    return [path for path, _ in _leaves(outputs, "")]


def _leaves(outputs: Any, path: str) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        outputs = {x.name: getattr(outputs, x.name) for x in dataclasses.fields(outputs)}
    elif isinstance(outputs, tuple) and hasattr(outputs, "_asdict"):
        outputs = outputs._asdict()
    if isinstance(outputs, Mapping):
        items: list[tuple[Any, Any]] = [(name, outputs[name]) for name in sorted(outputs)]
    elif isinstance(outputs, list | tuple):
        items = list(enumerate(outputs))
    else:
        if hasattr(outputs, "shape") and hasattr(outputs, "dtype"):
            yield path, outputs
        return
    for name, each in items:
        yield from _leaves(each, f"{path}/{name}" if path else str(name))
