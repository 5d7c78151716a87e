"""The pure steps against golden numbers and against the Keras optimizers themselves."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kvis2.ascent import KerasOptimizer, KerasVisRMSProp


def descend(optimizer, start, gradient_of, steps):
    parameters, slots = [tf.constant(start)], optimizer.slots([start])
    points = []
    for _ in range(steps):
        parameters, slots = optimizer.step(parameters, [gradient_of(parameters[0])], slots)
        points.append(parameters[0].numpy())
    return np.array(points), slots


def test_rmsprop_of_keras_vis_has_its_golden_numbers():
    gradient = tf.constant([[0.6, -0.8]])
    points, caches = descend(
        KerasVisRMSProp(), np.array([[10.0, 10.0]], np.float32), lambda _: gradient, 3
    )
    np.testing.assert_allclose(points[-1], [[-0.3225831, 20.3225916]], rtol=1e-5)
    np.testing.assert_allclose(caches[0], [[0.051345, 0.09128]], rtol=1e-5)
    steps = -np.diff(np.concatenate([[[[10.0, 10.0]]], points]), axis=0)[:, 0]
    expected = [[4.4721235, -4.4721290], [3.2025585, -3.2025605], [2.6479010, -2.6479022]]
    np.testing.assert_allclose(steps, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.1),
        lambda: keras.optimizers.Adam(0.1, amsgrad=True, clipvalue=0.5),
        lambda: keras.optimizers.AdamW(0.1, weight_decay=0.05),
        lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.RMSprop(0.1, centered=True),
        lambda: keras.optimizers.Adagrad(0.1),
        lambda: keras.optimizers.Adadelta(1.0),
        lambda: keras.optimizers.Adamax(0.1),
        lambda: keras.optimizers.Ftrl(0.1),
        lambda: keras.optimizers.Lion(0.05),
        lambda: keras.optimizers.SGD(
            keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.1, 0.05, 0.01])
        ),
    ],
)
def test_a_keras_optimizer_steps_as_it_does_in_training(make):
    start = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    points, _ = descend(KerasOptimizer.of(make()), start, lambda x: 2.0 * (x - 0.3), 6)

    own, variable = make(), keras.Variable(start)
    own.build([variable])
    for point in points:
        own.apply([2.0 * (variable.value - 0.3)], [variable])
        np.testing.assert_allclose(point, variable.numpy(), rtol=1e-5, atol=1e-6)


def test_the_users_optimizer_is_left_alone():
    own = keras.optimizers.Adam(0.1)
    descend(KerasOptimizer.of(own), np.ones((1, 2), np.float32), lambda x: x, 3)
    assert int(own.iterations.numpy()) == 0
    assert not own.built


@pytest.mark.parametrize(
    "optimizer",
    [keras.optimizers.Adam(clipnorm=1.0), keras.optimizers.Nadam(), keras.optimizers.Lamb()],
    ids=lambda each: type(each).__name__,
)
def test_an_optimizer_that_mixes_images_is_refused(optimizer):
    with pytest.raises(ValueError, match=r"each image is optimised by itself. Received: \w+"):
        KerasOptimizer.of(optimizer)
