"""It is safe to explain while other threads call, train, save or explain the same model."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from explainers import EXPLAINERS, OF_TRANSFORMERS

import kvis2
from kvis2.models import overriding
from kvis2.types import Override


class Meanwhile(keras.layers.Layer):
    """Runs something in another thread, to its end, at the n-th time that it is traced here."""

    def __init__(self, **options):
        super().__init__(**options)
        self._todo = []

    def at_trace(self, number, function):
        self._todo = [None] * (number - 1) + [function]

    def call(self, inputs):
        main = threading.current_thread() is threading.main_thread()
        if main and self._todo and tf.is_symbolic_tensor(inputs):
            todo = self._todo.pop(0)
            if todo is not None:
                thread = threading.Thread(target=todo)
                thread.start()
                thread.join()
        return inputs


def network(regularizer=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 12, 3))
    meanwhile = Meanwhile()
    x = keras.layers.Conv2D(6, 3, activation="relu", activity_regularizer=regularizer)(inputs)
    x = meanwhile(x)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(5, 3, use_bias=False)(x))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    outputs = keras.layers.Dense(4, activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    return model, meanwhile


METHODS = {
    "LRP": kvis2.LRP,
    "GradCAM": kvis2.GradCAM,
    "AblationCAM": kvis2.AblationCAM,
    "FullGrad": kvis2.FullGrad,
    "pre-activation": lambda model: kvis2.GradCAM(model, "re_lu", pre_activation=True),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("LRP", "GradCAM") else pytest.mark.slow)
        for name in METHODS
    ],
)
@pytest.mark.parametrize("at", [1, *(pytest.param(at, marks=pytest.mark.slow) for at in (2, 3))])
def test_a_call_and_a_prediction_while_a_pass_is_traced_are_what_they_always_are(name, at, images):
    keras.utils.clear_session()
    expected, _ = network()
    right, maps = expected(images).numpy(), METHODS[name](expected)(1, images)
    keras.utils.clear_session()
    model, meanwhile = network()
    before = {path: dict(vars(layer)) for path, layer in kvis2.models.walk(model)}
    seen = {}

    def other_thread():
        seen["call"] = model(images).numpy()
        seen["predict"] = model.predict(images, verbose=0)
        seen["config"] = model.get_config()
        seen["map"] = METHODS[name](model)(1, images)
        seen["vars"] = {path: dict(vars(layer)) for path, layer in kvis2.models.walk(model)}

    meanwhile.at_trace(at, other_thread)
    found = METHODS[name](model)(1, images)
    if not seen:
        pytest.skip("the method traces the model fewer times")
    np.testing.assert_allclose(seen["call"], right, atol=1e-6)
    np.testing.assert_allclose(seen["predict"], right, atol=1e-6)
    assert seen["config"] == model.get_config()
    for each in (found, seen["map"], METHODS[name](model)(1, images)):
        np.testing.assert_allclose(each, maps, atol=1e-5)
    np.testing.assert_allclose(model.predict(images, verbose=0), right, atol=1e-6)
    for path, attributes in before.items():
        for key in ("call", "activation", "_losses", "_loss_ids"):
            assert attributes.get(key) is seen["vars"][path].get(key), (path, key)


def test_a_training_that_compiles_meanwhile_keeps_its_activity_regularizer(images):
    targets = np.eye(4, dtype="float32")[[0, 1, 2, 3, 0]]

    def fit(model):
        model.compile("sgd", "mse")
        return model.fit(images, targets, epochs=2, verbose=0, shuffle=False).history["loss"]

    expected = fit(network(keras.regularizers.L2(1.0))[0])
    model, meanwhile = network(keras.regularizers.L2(1.0))
    losses = []
    meanwhile.at_trace(1, lambda: losses.append(fit(model)))
    kvis2.GradCAM(model)(1, images)
    np.testing.assert_allclose(losses[0], expected, rtol=1e-5)


def test_overrides_are_seen_by_their_own_thread_and_leave_the_instance_alone():
    layer = keras.layers.Dense(2, activation="relu")
    layer.build((None, 3))
    attributes, of_class = dict(vars(layer)), dict(vars(keras.layers.Dense))
    linear = Override(layer, "activation", lambda old: keras.activations.linear)
    twice = Override(layer, "call", lambda call: lambda x: 2.0 * call(x))
    with ThreadPoolExecutor(1) as other, overriding([linear, twice]):
        assert layer.activation is keras.activations.linear
        assert other.submit(lambda: layer.activation).result() is keras.activations.relu
        x = -np.ones((1, 3), "float32")
        assert float(tf.reduce_max(tf.abs(layer(x)))) > 0
        np.testing.assert_array_equal(other.submit(lambda: layer(x)).result() >= 0, True)
        assert dict(vars(layer)).keys() == attributes.keys()
        assert keras.layers.Dense(4, activation="tanh").activation is keras.activations.tanh
    assert layer.activation is keras.activations.relu
    assert dict(vars(keras.layers.Dense)) == of_class


def test_an_override_is_put_back_after_an_error_and_a_subclass_reaches_its_parent():
    class Doubled(keras.layers.Dense):
        def call(self, inputs):
            return 2.0 * super().call(inputs)

    layer, plain = Doubled(2), keras.layers.Dense(2)
    x = np.ones((1, 3), "float32")
    expected = layer(x).numpy(), plain(x).numpy()
    plus = [Override(each, "call", lambda call: lambda x: call(x) + 1.0) for each in (layer, plain)]
    with overriding(plus):
        np.testing.assert_allclose(layer(x), expected[0] + 1.0)
        np.testing.assert_allclose(plain(x), expected[1] + 1.0)
    with contextlib.suppress(RuntimeError), overriding(plus):
        raise RuntimeError
    np.testing.assert_array_equal(layer(x), expected[0])
    np.testing.assert_array_equal(plain(x), expected[1])


def test_reports_belong_to_the_call_of_their_thread(images):
    model, _ = network()
    lrp = kvis2.LRP(model)
    lrp(0, images)
    lrp(1, images[:1])
    alone = [lrp(0, images) is not None and lrp.conservation_error.copy()]
    turns = threading.Barrier(2)

    def of(rows):
        turns.wait()
        lrp(0, images[rows])
        turns.wait()  # Both have been called before either reads.
        return lrp.conservation_error

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(of, (slice(0, 2), slice(2, 5)))
    np.testing.assert_allclose(first, alone[0][:2], rtol=1e-5)
    np.testing.assert_allclose(second, alone[0][2:], rtol=1e-5)
    assert lrp.conservation_error.shape == (5,)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found no evidence")
def test_every_method_while_others_call_predict_and_fit(images):
    """200 rounds of predictions and trainings beside explanations with every method."""
    model, _ = network()
    twin, _ = network()
    twin.set_weights(model.get_weights())
    right = model(images).numpy()
    names = [each for each in EXPLAINERS if each not in OF_TRANSFORMERS]
    expected = {name: EXPLAINERS[name](twin)(1, images) for name in names}
    assert sum(np.abs(each).max() > 0 for each in expected.values()) > 15
    wrong, over = [], threading.Event()

    def serve():
        rounds = 0
        while rounds < 200 or not over.is_set():
            rounds += 1
            for found in (model(images).numpy(), model.predict_on_batch(images)):
                if np.abs(found - right).max() > 1e-5:
                    wrong.append(f"prediction {rounds}")

    def train():
        for _ in range(5):
            other, _ = network(keras.regularizers.L2(1.0))
            other.compile("sgd", "mse")
            other.fit(images, right, epochs=2, verbose=0)

    threads = [threading.Thread(target=each) for each in (serve, train)]
    for thread in threads:
        thread.start()

    def explained(name):
        return name, EXPLAINERS[name](model)(1, images)

    with ThreadPoolExecutor(2) as explaining:
        for name, found in explaining.map(explained, names):
            if np.abs(found - expected[name]).max() > 1e-4:
                wrong.append(name)
    over.set()
    for thread in threads:
        thread.join()
    assert not wrong
