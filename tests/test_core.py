"""The core: overrides leave no trace, passes are traced once, read live weights, and die."""

import gc
import random
import weakref

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from sampled import rest_slow

from kvis2 import GradCAM, GuidedReLU, LayerCAM, LinearOutput, Saliency, ScoreCAM
from kvis2.models import overriding
from kvis2.passes import compilation, resize, trace_count
from kvis2.types import Override

EXPLAINERS = [GradCAM, LayerCAM, ScoreCAM, Saliency]


def state(model):
    """Everything an explanation must not touch, layer by layer."""
    return {layer.name: dict(vars(layer)) for layer in model._flatten_layers()}


def same(before, after):
    assert before.keys() == after.keys()
    for name, attributes in before.items():
        assert attributes.keys() == after[name].keys()
        for key, value in attributes.items():
            assert after[name][key] is value or after[name][key] == value, (name, key)


def test_overrides_stack_and_are_undone():
    layer = keras.layers.Dense(2, activation="relu")
    before = dict(vars(layer))
    plus_one = Override(layer, "activation", lambda old: lambda x: old(x) + 1)
    doubled = Override(layer, "activation", lambda old: lambda x: 2 * old(x))
    with overriding([plus_one, doubled]):
        assert layer.activation(3) == 8
    assert vars(layer) == before


def test_overrides_are_undone_after_an_error():
    layer = keras.layers.Dense(2)
    before = dict(vars(layer))

    def fail(_):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError), overriding([Override(layer, "call", lambda f: f)]):
        fail(layer)
    with (
        pytest.raises(RuntimeError),
        overriding([Override(layer, "call", lambda f: f), Override(layer, "activation", fail)]),
    ):
        pass
    assert vars(layer) == before


@pytest.mark.parametrize("explainer", EXPLAINERS)
def test_model_is_untouched(small_model, images, explainer):
    small_model.get_layer("late").activity_regularizer = keras.regularizers.L2(0.1)
    outputs = small_model(images).numpy()
    before = state(small_model)
    losses = [float(loss) for loss in small_model.losses]
    weights = [w.numpy() for w in small_model.weights]
    explainer(small_model)([0, 1, 2, 3, 0], images)
    with pytest.raises(ValueError, match="layer"):
        GradCAM(small_model, layer="gap")(0, images)
    same(before, state(small_model))
    assert [float(loss) for loss in small_model.losses] == losses
    for old, new in zip(weights, small_model.weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    np.testing.assert_array_equal(small_model(images).numpy(), outputs)


def drawn():
    """The next random numbers of every global generator."""
    return (
        random.random(),
        np.random.random(),  # noqa: NPY002 (the global state is the point)
        float(tf.random.uniform([])),
        float(keras.random.uniform([])),
    )


def test_random_state_and_layer_seeds_are_untouched(images):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((16, 12, 3)),
            keras.layers.RandomFlip(),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.BatchNormalization(beta_initializer="ones"),
            keras.layers.Dropout(0.5),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, kernel_initializer="ones"),
        ]
    )
    before = [v.numpy() for v in model.variables]
    keras.utils.set_random_seed(1)
    expected = drawn()
    keras.utils.set_random_seed(1)
    tf.function(lambda x: model(x, training=False))(images)
    if drawn() != expected:  # Keras 3.3
        pytest.skip("a RandomFlip of this Keras draws from the global generator at inference too")
    keras.utils.set_random_seed(1)
    for explainer in (*EXPLAINERS, lambda m: Saliency(m, smooth_samples=4, seed=None)):
        explainer(model)(None, images)
    assert drawn() == expected
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, new.numpy())


@pytest.mark.parametrize("explainer", rest_slow(EXPLAINERS, 2))
def test_one_trace_for_all_classes_batches_and_weights(small_model, images, explainer):
    explain = explainer(small_model, normalize=False)
    first = explain(1, images)
    for index in range(4):
        explain(index, images)
        explain([index] * 3, images[:3])
        explainer(small_model, normalize=False)(index, images[:1])
    small_model.get_layer("late").kernel.assign(small_model.get_layer("late").kernel * 1.5)
    changed = explain(1, images)
    assert explain.trace_count == 1
    assert trace_count(small_model) == 1
    assert np.abs(changed - first).max() > 1e-6
    twin = keras.models.clone_model(small_model)
    twin.set_weights(small_model.get_weights())
    np.testing.assert_allclose(explainer(twin, normalize=False)(1, images), changed, atol=1e-6)


def test_a_model_and_its_passes_die_together(images):
    model = keras.Sequential(
        [keras.Input((16, 12, 3)), keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D()]
    )
    for explainer in EXPLAINERS:
        explainer(model, layer=None)(lambda output: output[:, 0], images)
    reference, layer = weakref.ref(model), weakref.ref(model.layers[0])
    del model
    gc.collect()
    assert reference() is None
    gc.collect()  # What the model's passes held becomes garbage with the model.
    assert layer() is None


def test_new_score_functions_do_not_pile_up(small_model, images, monkeypatch):
    monkeypatch.setattr(compilation, "_MOST_PASSES", 4)
    for index in range(6):
        GradCAM(small_model)(lambda output, i=index: output[:, i % 4] * 2.0, images[:1] + 1)
    assert len(compilation._PASSES[small_model]._kept) == 4


@pytest.mark.parametrize(
    "explainer", rest_slow([lambda m, **k: Saliency(m, smooth_samples=3, **k), *EXPLAINERS], 2)
)
def test_chunks_and_batch_mates_do_not_matter(small_model, images, explainer):
    classes = [0, 3, 2, 1, 0]
    whole = explainer(small_model, normalize=False)(classes, images)
    chunked = explainer(small_model, normalize=False, batch_size=2)(classes, images)
    alone = explainer(small_model, normalize=False)(classes[3], images[3])
    scale = np.abs(whole).max()
    np.testing.assert_allclose(chunked, whole, atol=1e-6 * scale)
    np.testing.assert_allclose(alone[0], whole[3], atol=1e-6 * scale)


def test_predicted_class_is_explained_for_none(small_model, images):
    predicted = small_model(images).numpy().argmax(axis=1).tolist()
    for explainer in (*EXPLAINERS, lambda m: Saliency(m, smooth_samples=3)):
        np.testing.assert_allclose(
            explainer(small_model)(None, images),
            explainer(small_model)(predicted, images),
            atol=1e-6,
        )


def test_default_layer_is_the_last_spatial_map(small_model, images):
    cam = GradCAM(small_model)
    assert cam.layer is None
    cam(0, images)
    assert cam.layer is small_model.get_layer("late")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("image", [[0.5, 1.0], [0.25, 1.0]]),
        ("batch", [[0.25, 0.5], [0.25, 1.0]]),
        ("minmax", [[0.0, 1.0], [0.0, 1.0]]),
        (False, [[1.0, 2.0], [1.0, 4.0]]),
    ],
)
def test_normalization_modes(mode, expected):
    inputs = keras.Input((2, 1))
    doubled = keras.layers.Activation("linear", name="map")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalMaxPooling1D()(doubled))
    signal = np.array([[[1.0], [2.0]], [[1.0], [4.0]]], "float32")
    cam = LayerCAM(model, layer="map", normalize=mode)
    # Gradient one at the maximum only: ask for the sum instead, whose gradient is one everywhere.
    model = keras.Model(inputs, keras.ops.sum(doubled, axis=1))
    cam = LayerCAM(model, layer="map", normalize=mode)
    np.testing.assert_allclose(cam(None, signal), expected)


@pytest.mark.parametrize("size", [(13, 7), (3, 20), (5, 6), (2, 2), (64, 65), (100, 6)])
def test_resize_is_bilinear_with_half_pixel_centres(size):
    maps = np.random.default_rng(0).random((3, 5, 6), dtype="float32")
    expected = references.resize(maps, size)
    np.testing.assert_allclose(resize(tf.constant(maps), size), expected, atol=1e-6)


def test_modifiers_do_not_share_a_pass(small_model, images):
    plain = Saliency(small_model, normalize=False)(0, images)
    guided = Saliency(small_model, normalize=False, model_modifier=[LinearOutput(), GuidedReLU()])(
        0, images
    )
    softmax = Saliency(small_model, normalize=False, model_modifier=None)(0, images)
    assert trace_count(small_model) == 3
    assert np.abs(plain - guided).max() > 1e-6
    assert np.abs(plain - softmax).max() > 1e-6


def test_same_seed_same_bytes_and_none_is_fresh(small_model, images):
    def smooth(seed):
        return Saliency(small_model, smooth_samples=5, seed=seed)(0, images)

    assert smooth(3).tobytes() == smooth(3).tobytes()
    assert smooth(3).tobytes() != smooth(4).tobytes()
    assert smooth(None).tobytes() != smooth(None).tobytes()


def test_score_cam_leaves_constant_channels_out_without_changing_the_map(small_model, images):
    bias = small_model.get_layer("late").bias
    bias.assign(np.array([-100.0] * 4 + [0.0] * 4))
    all_channels = ScoreCAM(small_model, normalize=False)(0, images)
    only_live = ScoreCAM(small_model, normalize=False, max_channels=4)(0, images)
    np.testing.assert_allclose(all_channels, only_live, atol=1e-6)
