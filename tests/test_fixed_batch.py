"""Models that declare how many samples they take at once: `Input(batch_shape=(4, ...))`.

The model counts on it: it reshapes by the number, so that any other would be refused by TensorFlow
or, worse, mix samples. What is found must be what the same weights give with an open batch.
"""

import keras
import numpy as np
import pytest
from explainers import EXPLAINERS, OF_TRANSFORMERS
from keras import layers

import kvis2
from kvis2 import metrics
from kvis2.callbacks import CamLogger

FIXED = 4
SIZE = (12, 10)


def network(samples):
    """conv -> pool -> reshape by the number of samples -> dense; `samples` None is open."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input(batch_shape=(samples, *SIZE, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = layers.GlobalAveragePooling2D()(x)
    shape = (-1, 4) if samples is None else (samples, -1)
    x = layers.Lambda(lambda x: keras.ops.reshape(x, shape), output_shape=(4,))(x)
    return keras.Model(inputs, layers.Dense(3, kernel_initializer="ones", name="out")(x))


@pytest.fixture(scope="module")
def models():
    fixed, free = network(FIXED), network(None)
    weights = np.random.default_rng(0)
    free.get_layer("out").set_weights([weights.uniform(0.1, 1, (4, 3)), np.zeros(3)])
    fixed.set_weights(free.get_weights())
    return fixed, free


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(1).random((6, *SIZE, 3), dtype="float32")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("GradCAM", "RISE") else pytest.mark.slow)
        for name in sorted(EXPLAINERS.keys() - OF_TRANSFORMERS)
    ],
)
def test_every_explainer_explains_as_with_an_open_batch(name, models, pictures):
    fixed, free = models
    options = {"layer": "conv"} if "CAM" in name or name == "FullGrad" else {}
    options = {} if name in ("GuidedGradCAM", "FullGrad") else options
    make = EXPLAINERS[name]
    found = make(fixed, normalize=False, **options)([0, 1, 2, 1, 0, 2], pictures)
    expected = make(free, normalize=False, **options)([0, 1, 2, 1, 0, 2], pictures)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_noise_around_relevance_is_as_with_an_open_batch(models, pictures):
    """The rows of a loop have no number that is known beforehand."""
    found, expected = (
        kvis2.SmoothGrad(kvis2.LRP(each), samples=3)(1, pictures[:3]) for each in models
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected).max() > 0


@pytest.mark.parametrize("count", [1, 4, 6])
def test_predictions_and_activations_are_of_the_samples_alone(count, models, pictures):
    fixed, free = models
    given = pictures[:count]
    _, predicted = kvis2.Saliency(fixed).with_predictions(0, given)
    np.testing.assert_allclose(predicted.outputs[0], free(given).numpy(), rtol=1e-5)
    seen, wanted = (kvis2.activations(each, "conv", given) for each in (fixed, free))
    np.testing.assert_allclose(seen, wanted, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "measure", [metrics.Deletion, metrics.Insertion, metrics.Infidelity, metrics.AverageDrop]
)
def test_measures_are_those_with_an_open_batch(measure, models, pictures):
    fixed, free = models
    maps = kvis2.Saliency(free)(1, pictures)
    found, expected = (measure(each)(1, pictures, maps) for each in (fixed, free))
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_ascents_make_the_same_images(models):
    images = [
        kvis2.ActivationMaximization(each, steps=3, transforms=())([0, 1, 2, 0, 1])
        for each in models
    ]
    assert images[0].shape == images[1].shape
    np.testing.assert_allclose(*images, atol=1e-3)
    assert np.ptp(images[0]) > 0


def test_a_description_says_the_same(models):
    fixed, free = (
        str(kvis2.describe(each)).replace("functional_1", "functional") for each in models
    )
    assert [line for line in fixed.splitlines() if "conv" in line]
    assert len(fixed.splitlines()) == len(free.splitlines())


def test_the_number_of_the_model_goes_before_batch_size(models, pictures):
    found, expected = (kvis2.Saliency(each, batch_size=3)(0, pictures) for each in models)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_dream_tile_by_tile_is_refused(models, pictures):
    dream = kvis2.DeepDream(models[0], "conv", octaves=1, steps=1)
    with pytest.raises(ValueError, match=r"Expected a pass of 4 samples.* Received: one of 1\."):
        dream(None, pictures[:1])


def test_inputs_that_declare_different_numbers_are_refused(pictures):
    first, second = keras.Input(batch_shape=(4, 3)), keras.Input(batch_shape=(2, 3))
    model = keras.Model([first, second], [layers.Dense(1)(first), layers.Dense(1)(second)])
    with pytest.raises(ValueError, match=r"Expected inputs with one fixed number.*\[2, 4\]"):
        kvis2.Saliency(model)([0, 0], [np.ones((4, 3)), np.ones((2, 3))])


def test_loggers_log_fewer_samples_than_the_model_takes(models, pictures, tmp_path):
    fixed, free = models
    histories = []
    for each in (fixed, free):
        each.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        each.get_layer("out").kernel.assign(free.get_layer("out").kernel)
        logger = CamLogger(
            tmp_path / each.name, pictures[:3], labels=[0, 1, 2], layer="conv", on_error="raise"
        )
        each.fit(pictures[:4], np.array([0, 1, 2, 0]), batch_size=4, verbose=0, callbacks=[logger])
        histories.append(logger.history)
    assert histories[0].keys() == histories[1].keys()
    for name in histories[0].keys() - {"seconds"}:
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-4)
