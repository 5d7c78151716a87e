"""Sums over many copies of a batch, in chunks, whatever is known of their shapes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvis2
from kvis2.passes import total

COUNT = 7


def squares(batch, spec, rows, chunks):
    """Sums over the copies i of (i + 1) * batch, with None among them, and how chunks were cut."""

    @tf.function(input_signature=[tf.TensorSpec(spec)], autograph=False)
    def run(batch):
        def chunk_total(indices):
            factors = tf.cast(indices + 1, tf.float32)
            count = tf.size(indices)
            tf.py_function(lambda n: chunks.append(int(n)), [count], [])
            ones = tf.ones_like(batch)[..., 0]
            return [tf.reduce_sum(factors) * batch, None, tf.cast(count, tf.float32) * ones]

        return [x for x in total(COUNT, rows, batch, chunk_total) if x is not None]

    return run(batch)


@pytest.mark.parametrize("spec", [(None, 4, 3), (None, None, 3), (2, 4, 3)])
@pytest.mark.parametrize(("rows", "sizes"), [(1, [1] * 7), (6, [3, 3, 1]), (100, [7])])
def test_every_copy_counts_once(spec, rows, sizes):
    batch = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    chunks = []

    weighted, ones = squares(batch, spec, rows, chunks)

    np.testing.assert_allclose(weighted, 28 * batch, rtol=1e-6)  # 1 + 2 + ... + 7
    np.testing.assert_allclose(ones, np.full((2, 4), COUNT))
    assert chunks == sizes


def test_images_of_any_size_get_the_same_map():
    def model(side):
        inputs = keras.Input((side, side, 3))
        x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
        x = keras.layers.GlobalAveragePooling2D()(x)
        return keras.Model(inputs, keras.layers.Dense(3)(x))

    images = np.random.default_rng(0).normal(size=(2, 9, 9, 3)).astype(np.float32)
    fixed, free = model(9), model(None)
    free.set_weights(fixed.get_weights())

    maps = [kvis2.SmoothGrad(kvis2.Saliency(each), samples=6)(1, images) for each in (fixed, free)]

    np.testing.assert_allclose(maps[1], maps[0], atol=1e-5)


def test_a_pass_of_known_shapes_is_in_the_graph_once():
    """A second copy, beside that in the loop, would double the time of the first call."""

    @tf.function(input_signature=[tf.TensorSpec((None, 4))], autograph=False)
    def run(batch):
        return total(3, 1, batch, lambda indices: [tf.sin(batch)])

    graph = run.get_concrete_function().graph

    def passes(graph):
        return sum(each.type.endswith("PartitionedCall") for each in graph.get_operations())

    bodies = [
        graph._get_function(each.get_attr("body").name).graph
        for each in graph.get_operations()
        if "While" in each.type
    ]
    assert passes(graph) + sum(map(passes, bodies)) == 1
