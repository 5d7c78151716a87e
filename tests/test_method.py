"""What all that runs a model shares: one pass, declared settings, reports, kept passes."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from explainers import EXPLAINERS, public_explainers
from sampled import rest_slow

import kvis2
import kvis2.callbacks
import kvis2.metrics
from kvis2.inspection.feature_maps import Features
from kvis2.models import (
    ActivationKind,
    Batch,
    activations,
    layers,
    register_activation,
    register_affine,
)
from kvis2.passes import Method, Settings, trace_count


def net():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((16, 12, 3)),
            keras.layers.Conv2D(6, 3, activation="relu", name="early"),
            keras.layers.Conv2D(6, 3, activation="relu", name="late"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax", name="head"),
        ]
    )


# -- what is an explainer -------------------------------------------------------------------------


@pytest.mark.parametrize("wrapper", [kvis2.SmoothGrad, kvis2.SmoothGradSquared, kvis2.VarGrad])
@pytest.mark.parametrize(
    "make",
    [
        lambda model: kvis2.DeepDream(model, "late"),
        kvis2.ActivationMaximization,
        lambda model: Features(model, "late"),
        lambda model: model,
    ],
)
def test_wrappers_refuse_what_makes_no_map(small_model, wrapper, make):
    with pytest.raises(TypeError, match=r"Expected an explainer .*Received: .*Give for example"):
        wrapper(make(small_model))


def test_a_wrapper_looks_at_the_model_with_every_setting_of_its_explainer(small_model):
    chosen = {
        "call_index": 0,
        "resize": False,
        "normalize": "minmax",
        "batch_size": 3,
        "pre_activation": True,
        "jit_compile": True,
        "reshape": abs,
        "verbose": 0,
    }
    explainer = kvis2.Saliency(small_model, "late", model_modifier=kvis2.GuidedReLU(), **chosen)
    assert set(Settings.__dataclass_fields__) == {*chosen, "reference", "modifiers"}
    settings = kvis2.SmoothGrad(explainer).settings
    assert settings == explainer.settings
    assert settings.batch_size == 3  # Not compared: no pass depends on it.
    assert settings.normalize == "minmax"


def test_an_unknown_option_is_refused(small_model):
    with pytest.raises(TypeError, match=r"Received: 'batchsize'. All methods take batch_size, "):
        Features(small_model, "late", batchsize=3)


# -- one place that compiles ----------------------------------------------------------------------


@pytest.mark.parametrize("jit", rest_slow([False, True]))
def test_jit_compile_reaches_every_method_that_compiles(small_model, images, monkeypatch, jit):
    seen = []
    original = kvis2.passes.compilation.Compiled._traced

    def noted(self, specs, jit_compile):
        seen.append(jit_compile)
        return original(self, specs, jit_compile)

    monkeypatch.setattr(kvis2.passes.compilation.Compiled, "_traced", noted)
    kvis2.Saliency(small_model, jit_compile=jit)(1, images)
    list(Features(small_model, "late", jit_compile=jit).of(Batch(small_model, images)))
    dream = kvis2.DeepDream(small_model, "late", steps=1, octaves=1, jit_compile=jit)
    if jit:  # Its tiles have places that are known as it runs.
        with pytest.raises(ValueError, match=r"XLA can compile. Received: DeepDream .*Leave"):
            dream(None, images[0])
    else:
        dream(None, images[0])
    ascent = kvis2.ActivationMaximization(small_model, steps=1, jit_compile=jit, transforms=None)
    ascent([1, 2])
    assert seen == [jit] * 4


def test_another_seed_is_not_another_trace(small_model, images):
    makers = [
        lambda seed: kvis2.SmoothGradCAMPlusPlus(small_model, "early", samples=2, seed=seed),
        lambda seed: kvis2.SmoothGrad(kvis2.Saliency(small_model), 2, seed=seed),
        lambda seed: kvis2.RISE(small_model, samples=2, seed=seed),
    ]
    for make in makers:
        before = trace_count(small_model)
        first, second = (make(seed)(1, images) for seed in (1, 2))
        assert trace_count(small_model) == before + 1
        assert (first != second).any()


def test_a_seed_is_checked(small_model):
    for wrong in (-1, 2**31, 1.5, True):
        with pytest.raises(ValueError, match=r"Expected `seed` from 0 to 2147483647, or None"):
            kvis2.RISE(small_model, seed=wrong)


def test_reports_are_unknown_before_the_first_call(small_model, images):
    explainer = kvis2.IntegratedGradients(small_model, steps=4)
    with pytest.raises(AttributeError, match="known once the explainer has been called"):
        explainer.completeness_gap  # noqa: B018
    explainer(1, images)
    assert explainer.completeness_gap.shape == (5,)
    assert kvis2.LRP.reports() == ("conservation_error", "bias_share")
    assert Method.reports() == ()


# -- what a kept pass is valid for ----------------------------------------------------------------


def swap_activation(model):
    model.get_layer("early").activation = keras.activations.gelu


def another_head(model):
    model.pop()
    model.add(keras.layers.Dense(3, activation="softmax", kernel_initializer="ones"))


def lora(model):
    layer = model.get_layer("late")
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones(layer.lora_kernel_b.shape))
    layer.lora_kernel_a.assign(np.ones(layer.lora_kernel_a.shape))


def strides(model):
    model.get_layer("late").strides = (2, 2)


CHANGES = [swap_activation, another_head, strides]
if hasattr(keras.layers.Conv2D, "enable_lora"):
    CHANGES.append(lora)


@pytest.mark.parametrize("change", rest_slow(CHANGES, 2))
@pytest.mark.parametrize("fresh", [True, False])
def test_a_changed_model_is_explained_as_it_is_now(images, change, fresh):
    model, twin = net(), net()
    twin.set_weights(model.get_weights())
    old = kvis2.Saliency(model, normalize=False)
    before = old(1, images)
    for each in (model, twin):
        change(each)
        each(images)
    explainer = kvis2.Saliency(model, normalize=False) if fresh else old
    expected = kvis2.Saliency(twin, normalize=False)(1, images)
    found = explainer(1, images)
    assert np.abs(found - before).max() > 0.1 * np.abs(before).max()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_an_attribute_that_call_reads_is_followed(images):
    class Scaled(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = keras.layers.Conv2D(2, 3)
            self.factors = {"all": 1.0}
            self.traced = 0

        def call(self, x):
            self.traced += 1
            return self.factors["all"] * keras.ops.mean(self.conv(x), (1, 2))

    model = Scaled()
    model(images)
    explainer = kvis2.Saliency(model, normalize=False)
    once = explainer(1, images)
    model.factors["all"] = 3.0
    np.testing.assert_allclose(explainer(1, images), 3 * once, rtol=1e-5)
    traces = explainer.trace_count
    model(images)  # Counts up, as it does at every trace, which says nothing.
    explainer(0, images)
    assert explainer.trace_count == traces == 2


def test_training_does_not_make_passes_anew(images):
    model = net()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    explainer = kvis2.GradCAM(model)
    explainer(1, images)
    for _ in range(2):
        model.fit(images, np.array([0, 1, 2, 0, 1]), verbose=0)
        model.predict(images, verbose=0)
        model.evaluate(images, np.array([0, 1, 2, 0, 1]), verbose=0)
        explainer(1, images)
    assert explainer.trace_count == 1


# -- registering ----------------------------------------------------------------------------------


def test_an_activation_of_ones_own_is_known_everywhere(images, monkeypatch):
    @keras.saving.register_keras_serializable("kvis2_tests")
    class Snake(keras.layers.Layer):
        def call(self, x):
            return x + keras.ops.sin(x) ** 2

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 12, 3)),
            keras.layers.Conv2D(6, 3, name="conv"),
            Snake(name="snake"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )
    monkeypatch.setattr(activations, "_KINDS", list(activations._KINDS))
    with pytest.raises(ValueError, match="Expected a layer with an activation"):
        kvis2.GradCAM(model, "snake", pre_activation=True)(1, images)
    with pytest.raises(ValueError, match=r"'snake' \(Snake\)"):
        kvis2.LRP(model)(1, images)
    register_activation(ActivationKind("snake", layers=("Snake",)))
    before = kvis2.activations(model, "snake", images, pre_activation=True)
    np.testing.assert_allclose(before, kvis2.activations(model, "conv", images), rtol=1e-6)
    passed = kvis2.LRP(model, layer="snake", keepdims=True, normalize=False)(1, images)
    entered = kvis2.LRP(model, layer="conv", keepdims=True, normalize=False)(1, images)
    np.testing.assert_allclose(passed, entered, rtol=1e-6)


def test_an_affine_layer_of_ones_own_gets_the_rules_of_dense_ones(images, monkeypatch):
    class Linear(keras.layers.Layer):
        activation = None

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 4), initializer="glorot_uniform")
            self.bias = self.add_weight(shape=(4,), initializer="ones")

        def call(self, x):
            return keras.ops.matmul(x, self.kernel) + self.bias

    def of(head):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((16, 12, 3))
        x = keras.layers.Conv2D(6, 3, activation="relu")(inputs)
        x = head(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model(inputs, x)

    monkeypatch.setattr(layers, "_AFFINE", list(layers._AFFINE))
    model, twin = of(Linear()), of(keras.layers.Dense(4))
    twin.set_weights(model.get_weights())
    composite = kvis2.lrp.EpsilonPlus(epsilon=0.25)
    expected = kvis2.LRP(twin, composite, normalize=False)(1, images)
    register_affine(Linear)
    found = kvis2.LRP(model, composite, normalize=False)(1, images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


# -- a recipe of CONTRIBUTING, walked -------------------------------------------------------------


class MeanCAM(kvis2.ClassActivationMap):
    """A toy: `map = max(0, mean_k A_k)`."""

    def weights(self, trace):
        return tf.ones_like(trace.activations) / tf.cast(
            tf.shape(trace.activations)[-1], tf.float32
        )


def test_a_class_activation_map_of_ones_own_works_in_every_place_that_takes_one(
    small_model, images, tmp_path
):
    expected = np.maximum(kvis2.activations(small_model, "late", images).mean(axis=-1), 0)
    found = MeanCAM(small_model, resize=False, normalize=False)(1, images)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    # Batches, layers, fusion, normalisation, wrappers.
    one = MeanCAM(small_model, batch_size=2)(1, images)
    np.testing.assert_allclose(one, MeanCAM(small_model)(1, images), atol=1e-6)
    assert MeanCAM(small_model, layers=["early", "late"])(1, images).shape == (5, 16, 12)
    assert kvis2.SmoothGrad(MeanCAM(small_model), samples=2)(1, images).max() == 1
    # The loggers and the measures.
    small_model.compile("sgd", "sparse_categorical_crossentropy")
    logger = kvis2.callbacks.CamLogger(tmp_path, images, explainer=MeanCAM, on_error="raise")
    small_model.fit(images, np.arange(5) % 4, verbose=0, callbacks=[logger])
    assert next(p.tag for p in logger.observe(1).pictures) == "MeanCAM/00"
    drop = kvis2.metrics.AverageDrop(small_model)(1, images, MeanCAM(small_model)(1, images))
    assert drop.shape == (5,)
    # What forces a public explainer to be listed everywhere.
    assert set(EXPLAINERS) == public_explainers()
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    methods = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
    matrix = (Path(__file__).parents[1] / "docs" / "model_matrix.md").read_text(encoding="utf-8")
    for name in public_explainers():
        assert f"`{name}`" in readme or f"`{name}(" in readme, name
        assert name in methods, name
        assert name in matrix, name


@pytest.mark.parametrize(
    "make",
    [
        lambda model: kvis2.SmoothGrad(kvis2.Saliency(model), samples=2, noise=0.5),
        lambda model: kvis2.IntegratedGradients(model, steps=3),
        lambda model: kvis2.Occlusion(model, window=2, stride=2),
    ],
    ids=["SmoothGrad", "IntegratedGradients", "Occlusion"],
)
def test_what_is_predicted_is_of_the_images_and_not_of_what_was_made_of_them(
    make, small_model, images
):
    _, predicted = make(small_model).with_predictions(1, images)
    np.testing.assert_allclose(predicted.outputs[0], small_model(images), rtol=1e-5, atol=1e-6)
