"""What a layer's `call` reads may change in place: no kept pass goes on with the old value."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

import kvis2

IMAGES = np.random.default_rng(0).random((2, 8, 6, 3), dtype="float32")


class Settings:
    """A configuration as users have them."""

    def __init__(self):
        self.factor = 1.0
        self.inner = SimpleNamespace(factor=1.0, table=np.ones(3, "float32"))


class Configured(keras.layers.Layer):
    def __init__(self):
        super().__init__(name="configured")
        self.settings = Settings()
        self.factors = np.ones(3, "float32")
        self.nested = {"a": [1.0, {"b": 1.0}]}

    def call(self, x):
        inner = self.settings.inner
        factor = self.settings.factor * inner.factor * self.nested["a"][1]["b"]
        return keras.ops.tanh(x * factor * self.factors * inner.table)


def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 6, 3))
    x = keras.layers.GlobalAveragePooling2D()(Configured()(inputs))
    return keras.Model(inputs, keras.layers.Dense(2)(x))


def change_array(layer):
    layer.factors[:] = [0.1, 2.0, 3.0]


def change_settings(layer):
    layer.settings.factor = 5.0


def change_inner(layer):
    layer.settings.inner.factor = 5.0


def change_table(layer):
    layer.settings.inner.table[1] = 5.0


def change_nested(layer):
    layer.nested["a"][1]["b"] = 5.0


@pytest.mark.parametrize(
    "change", [change_array, change_settings, change_inner, change_table, change_nested]
)
def test_what_changes_in_place_is_seen(change):
    looked_at, fresh = model(), model()
    explainer = kvis2.Saliency(looked_at, normalize=False)
    before = explainer(1, IMAGES)
    traces = explainer.trace_count
    np.testing.assert_array_equal(explainer(1, IMAGES), before)
    assert explainer.trace_count == traces == 1
    for each in (looked_at, fresh):
        change(each.get_layer("configured"))
    expected = kvis2.Saliency(fresh, normalize=False)(1, IMAGES)
    assert np.abs(expected - before).max() > 0.1 * np.abs(before).max()
    np.testing.assert_allclose(explainer(1, IMAGES), expected, rtol=1e-6)
