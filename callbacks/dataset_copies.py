"""A copy of a dataset that shares no state with it, so that reading it changes no training."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def without_shuffling(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Copy a dataset, leaving out its shuffle and cache steps.

    The copy shares no random state with the original, and fills no cache of it.

    Args:
        dataset: Any dataset that does not call Python code.

    Returns:
        A dataset with the same elements, in the order they had before any shuffling.

    Raises:
        ValueError: If the dataset calls Python code or is too large to be copied (2 GB of arrays).
    """
    variant = tf.data.experimental.to_variant(dataset)
    serialized = tf.raw_ops.DatasetToGraphV2(
        input_dataset=variant,
        external_state_policy=tf.data.experimental.ExternalStatePolicy.IGNORE.value,
    ).numpy()
    if not serialized:
        raise ValueError(
            "Expected images from a tf.data.Dataset that holds less than 2 GB of arrays. Received: "
            f"{dataset!r}. Pass the probe images as an array: images=x[:8], labels=y[:8]."
        )
    graph = tf.compat.v1.GraphDef.FromString(serialized)
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    if any(node.op in _PYTHON_CALLS for body in bodies for node in body):
        raise ValueError(
            "Expected images from a tf.data.Dataset that does not call Python code, since reading "
            f"it could change the training. Received: {dataset!r}. Pass one batch of a dataset "
            "that is not trained on: images=next(iter(dataset))."
        )
    for body in bodies:
        _bypass(body, _ORDER_AND_CACHE)
    copy = tf.raw_ops.DatasetFromGraph(graph_def=graph.SerializeToString())
    return tf.data.experimental.from_variant(copy, dataset.element_spec)


_PYTHON_CALLS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


_ORDER_AND_CACHE = {
    "ShuffleDataset",
    "ShuffleDatasetV2",
    "ShuffleDatasetV3",
    "CacheDataset",
    "CacheDatasetV2",
}


def _bypass(nodes: Any, operations: set[str]) -> None:
    """Let the consumers of these operations read the operation's first input instead."""
    source = {node.name: node.input[0] for node in nodes if node.op in operations}
    for node in nodes:
        for position, reference in enumerate(node.input):
            # In a graph an input reads "name" or "name:0", in a function "name:output:0".
            while (name := reference.split(":")[0]) in source:
                reference = source[name]
            node.input[position] = reference
