"""Symbolic tensors of a functional model: where they come from, and models between them.

A model made here shares its layers with the user's: nothing is copied, the weights are live.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kvis2 import models
from kvis2.types import LayerReference

_CONVOLUTIONS_AND_POOLINGS = tuple(
    getattr(keras.layers, f"{kind}{rank}D{suffix}")
    for kind, ranks, suffix in (
        ("Conv", (1, 2, 3), ""),
        ("Conv", (1, 2, 3), "Transpose"),
        ("SeparableConv", (1, 2), ""),
        ("DepthwiseConv", (1, 2), ""),
        ("AveragePooling", (1, 2, 3), ""),
        ("MaxPooling", (1, 2, 3), ""),
    )
    for rank in ranks
)


def output_of(layer: keras.Operation, model: keras.Model | None = None) -> keras.KerasTensor:
    """The symbolic output of `layer`, in the graph of `model` where that is given.

    A model that is a layer of another has an output in either graph; `layer.output` is the one
    inside.

    Raises:
        ValueError: If there is none, or the layer has several.
    """
    if model is None:
        outputs = keras.tree.flatten(getattr(layer, "output", None))
        place = "it was never called on a symbolic input"
    else:
        nodes = [n for n in _nodes(model) if n.operation is layer]
        outputs = list(nodes[-1].output_tensors) if nodes else []
        place = f"it has none in '{model.name}', which is not functional or does not reach it"
    if len(outputs) != 1 or outputs[0] is None:
        reason = f"which has {len(outputs)} outputs" if len(outputs) > 1 else place
        raise ValueError(
            "Expected a layer with one symbolic output. Received: "
            f"'{getattr(layer, 'name', layer)}': {reason}. Choose a layer of a Sequential or "
            "functional model; for other models use the explainers of kvis2, such as Saliency."
        )
    return outputs[0]


def _nodes(model: keras.Model) -> list[Any]:
    """The calls that a Sequential or functional model consists of, in their order."""
    graph = getattr(model, "_functional", None) or model
    by_depth = getattr(graph, "_nodes_by_depth", {})
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def call_of(tensor: keras.KerasTensor, model: keras.Model) -> tuple[keras.Operation, int]:
    """The operation that made a symbolic tensor, and which of its calls in `model` that was.

    The second number is for `call_index` of an explainer; -1 inside a nested model.
    """
    operation, index, _ = tensor._keras_history
    calls = [node for node in _nodes(model) if node.operation is operation]
    made = operation._inbound_nodes[index]
    return operation, next((i for i, node in enumerate(calls) if node is made), -1)


def single_input(input_tensor: Any) -> keras.KerasTensor:
    """The one symbolic tensor that is meant by `model.input` or `model.inputs`.

    Raises:
        TypeError: If it is not one symbolic tensor.
    """
    tensors = keras.tree.flatten(input_tensor)
    if len(tensors) != 1 or not isinstance(tensors[0], keras.KerasTensor):
        raise TypeError(
            "Expected one symbolic input tensor, such as `model.inputs[0]`. Received: "
            f"{input_tensor!r}. For a model with several inputs use the explainers of kvis2, "
            "such as Saliency."
        )
    return tensors[0]


def model_input(model: keras.Model) -> keras.KerasTensor:
    """The symbolic input of a model with one input.

    Raises:
        TypeError: If the model declares none or several.
    """
    models.check_built(model)
    return single_input(getattr(model, "inputs", None))


# The models share their layers with the model they lie in and do not hold it: they go with it.
_PARTS: weakref.WeakKeyDictionary[keras.Model, dict[int, keras.Model]] = weakref.WeakKeyDictionary()


def part_of(model: keras.Model, layer: keras.Operation) -> keras.Model:
    """The part of `model` that ends in `layer`; `model` itself if that is its end."""
    output = output_of(layer, model)
    if len(model.outputs) == 1 and model.outputs[0] is output:
        return model
    parts = _PARTS.setdefault(model, {})
    if id(output) not in parts:
        parts[id(output)] = keras.Model(model_input(model), output, name=f"{model.name}_part")
    return parts[id(output)]


def penultimate_layer(
    model: keras.Model, layer_idx: LayerReference, penultimate_layer_idx: LayerReference | None
) -> keras.Operation:
    """The layer whose activations a Grad-CAM of the layer `layer_idx` weights.

    Args:
        model: The model.
        layer_idx: The layer that is explained.
        penultimate_layer_idx: A layer, by index, name or path; None takes the last convolution or
            (not global) pooling before `layer_idx`, looking into wrappers and nested models.

    Raises:
        ValueError: If there is none, or if it comes after `layer_idx`.
    """
    stop = model.layers.index(models.find_layer(model, layer_idx))
    if penultimate_layer_idx is None:
        found = _last_spatial(model.layers[:stop])
        if found is None:
            raise ValueError(
                f"Expected a convolution or pooling layer before layer {stop} of the model "
                f"'{model.name}'. Received: none. Name one with `penultimate_layer_idx=`."
            )
        return found
    layer = models.find_layer(model, penultimate_layer_idx)
    if layer in model.layers[stop + 1 :]:
        raise ValueError(
            f"Expected a penultimate layer that is not after layer {stop}, which is explained. "
            f"Received: layer {model.layers.index(layer)}. Choose an earlier one."
        )
    return layer


def _last_spatial(layers: Sequence[keras.Operation]) -> keras.Operation | None:
    for layer in reversed(layers):
        if isinstance(layer, keras.Model):
            found = _last_spatial(layer.layers)
            if found is not None:
                return found
        inner = layer.layer if isinstance(layer, keras.layers.Wrapper) else layer
        if isinstance(inner, _CONVOLUTIONS_AND_POOLINGS):
            return inner
    return None


def channel_axis(layer: keras.Operation, rank: int) -> int:
    """The axis of the units of a layer's output: 1 for channels_first, else the last."""
    own = getattr(layer, "data_format", None) or keras.config.image_data_format()
    return 1 if own == "channels_first" and rank > 2 else rank - 1


def get_num_filters(layer: keras.Layer) -> int | None:
    """How many filters, or units, a layer has: the length of the channel axis of its output.

    Args:
        layer: A layer that was called on a symbolic input.

    Returns:
        The number; None if the layer leaves it open.

    Raises:
        ValueError: If the layer was never called, or if its calls differ in this.

    Example:
        >>> get_num_filters(model.layers[1])
        64
    """
    calls = [node.output_tensors[0] for node in getattr(layer, "_inbound_nodes", [])]
    tensors = calls or [output_of(layer)]
    counts = {each.shape[channel_axis(layer, len(each.shape))] for each in tensors}
    if len(counts) > 1:
        raise ValueError(
            "Expected a layer whose calls all have as many filters. Received: "
            f"'{layer.name}' with {sorted(map(str, counts))}. Ask for the shape of the call."
        )
    return counts.pop()


def find_layer_idx(model: keras.Model, layer_name: str) -> int:
    """The index in `model.layers` of a layer by its name.

    Raises:
        ValueError: If there is none of that name at the top level.

    Example:
        >>> layer_idx = find_layer_idx(model, "predictions")
    """
    names = [layer.name for layer in model.layers]
    if layer_name in names:
        return names.index(layer_name)
    layer = models.find_layer(model, layer_name)  # Raises, with close names, if there is none.
    raise ValueError(
        f"Expected a layer at the top level of '{model.name}'. Received: {layer_name!r}, which is "
        f"inside a nested model. Pass '{models.layer_path(model, layer)}' as the layer instead "
        "of an index: `penultimate_layer_idx` takes names and paths."
    )


def apply_modifications(
    model: keras.Model, custom_objects: Mapping[str, Any] | None = None
) -> keras.Model:
    """A copy of the model, its weights included, in which edits of layer attributes are in force.

    Keras 3 takes an edit such as `layer.activation = keras.activations.linear` up at the next
    call; a pass that kvis2 has compiled does not. A copy has no such past.

    Args:
        model: A built model. It is left alone.
        custom_objects: Custom classes and functions by name, where they are not registered.

    Returns:
        The copy.

    Raises:
        ValueError: If Keras cannot make the model again from its configuration.

    Example:
        >>> model.layers[-1].activation = keras.activations.linear
        >>> model = apply_modifications(model)
    """
    models.check_built(model)
    with keras.saving.custom_object_scope(custom_objects or {}):
        return models.cloned(
            model,
            "Give its classes a `get_config`, or explain the logits without a copy: "
            "`kvis2.LinearOutput()`.",
        )
