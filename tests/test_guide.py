"""Training with masks: the second loss is the one that is said; the training stays the user's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from trainings import SHAPE, summaries

from kvis2 import GradCAM
from kvis2.callbacks import CamLogger, CounterfactualLogger, MaskGuide, guide, masks

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*__array__ implementation:DeprecationWarning"),  # Keras
    pytest.mark.filterwarnings("ignore:.*found no evidence"),
    pytest.mark.filterwarnings("ignore:.*are flat"),
]
L = keras.layers
COUNT = 12
X = np.random.default_rng(0).random((24, *SHAPE)).astype(np.float32)
Y = np.arange(24) % 3
BOXES = [[2, 3, 8, 9]] * COUNT


def network(loss="sparse_categorical_crossentropy", **options):
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            L.Conv2D(4, 3, activation="relu", name="conv"),
            L.BatchNormalization(),
            L.GlobalAveragePooling2D(),
            L.Dense(3, activation="softmax"),
        ]
    )
    model.compile(options.pop("optimizer", "sgd"), loss, metrics=["accuracy"], **options)
    return model


def guided(loss="swap", **options):
    return MaskGuide(X[:COUNT], Y[:COUNT], BOXES, loss=loss, **{"batch_size": 8, **options})


def fit(model, *callbacks, epochs=2, **options):
    return model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=callbacks, **options)


def test_the_outside_is_exchanged_and_the_inside_kept():
    inside = np.zeros((2, 4, 5), bool)
    inside[:, 1:3, 2:4] = True
    a, b = np.zeros((2, 4, 5, 3)), np.ones((2, 4, 5, 3))
    found = np.asarray(masks.exchanged(a, inside, b))
    assert (found[:, 1:3, 2:4] == 0).all()
    assert found.sum() == 2 * 3 * (20 - 4)
    for count in (2, 3, 9):
        order = masks.shuffled(count, 3)
        assert sorted(order) == list(range(count))
        assert (order != np.arange(count)).all()


def test_the_figures_are_those_of_a_model_that_looks_at_one_place():
    """The class is the brightness inside, or outside: what exchanging it does is known."""
    inside = np.zeros((8, *SHAPE[:2]), bool)
    inside[:, 3:9, 2:8] = True
    labels = np.arange(8) % 2
    images = np.where(inside[..., None], labels[:, None, None, None], labels[:, None, None, None])
    images = np.broadcast_to(images, (8, *SHAPE)).astype(np.float32)

    def looks_at(places):
        weights = places[0].astype(np.float32)[..., None] / places[0].sum() / 3
        inputs = keras.Input(SHAPE)
        share = keras.ops.sum(inputs * weights, axis=(1, 2, 3))[:, None]
        return keras.Model(inputs, keras.ops.concatenate([1 - share, share], axis=-1))

    annotated = masks.Annotated(images, labels, inside)
    found = masks.counterfactual_figures(looks_at(inside), annotated)
    assert found == {"accuracy": 1.0, "exchanged_accuracy": 1.0, "flips": 0.0}
    found = masks.counterfactual_figures(looks_at(~inside), annotated, exchanges=4)
    other = np.mean([labels[masks.shuffled(8, k)] != labels for k in range(4)])
    assert found["accuracy"] == 1.0
    assert found["flips"] == pytest.approx(other)
    assert found["exchanged_accuracy"] == pytest.approx(1 - other)


@pytest.mark.parametrize("from_logits", [True, False])
def test_the_figures_go_by_what_the_unit_means(from_logits):
    """A unit of 0.3 everywhere: class 1 if it is a logit, class 0 if it is a probability."""
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, 0.3 + 0.0 * L.GlobalAveragePooling2D()(inputs)[:, :1])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=from_logits))
    found = masks.counterfactual_figures(model, masks.Annotated(X[:4], np.ones(4, int), BOXES[:4]))
    assert found["accuracy"] == found["exchanged_accuracy"] == float(from_logits)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Expected a classifier, whose answers can flip"):
        masks.counterfactual_figures(model, masks.Annotated(X[:4], np.ones(4, int), BOXES[:4]))


@pytest.mark.parametrize("loss", ["swap", "consistency", "gradients", "energy"])
def test_the_second_loss_is_the_formula(loss):
    model = network()
    images, targets = tf.constant(X[:4]), tf.constant(Y[:4])
    inside = np.zeros((4, *SHAPE[:2]), bool)
    inside[:, 3:9, 2:8] = True
    others = tf.constant(X[4:8])
    swapped = np.where(inside[..., None], X[:4], X[4:8])

    @tf.function
    def found():
        if loss == "energy":
            return guide._energy(model, images, targets, tf.constant(inside), "conv")
        return guide._LOSSES[loss](model, images, targets, tf.constant(inside), others)

    with keras.StatelessScope():  # Batch statistics without moving them.
        p, q = (np.asarray(model(each, training=True)) for each in (X[:4], swapped))
    if loss == "swap":
        expected = -np.log(q[np.arange(4), Y[:4]]).mean()
    elif loss == "consistency":
        both = np.concatenate([X[:4], swapped])
        with keras.StatelessScope():
            p, q = np.split(np.asarray(model(both, training=True)), 2)
        expected = (p * (np.log(p + 1e-7) - np.log(q + 1e-7))).sum(1).mean()
    elif loss == "gradients":
        with keras.StatelessScope(), tf.GradientTape() as tape:
            tape.watch(images)
            total = tf.reduce_sum(tf.math.log(model(images, training=True) + 1e-7))
        squares = np.square(tape.gradient(total, images) * ~inside[..., None])
        expected = squares.sum(axis=(1, 2, 3)).mean()
    else:
        maps = GradCAM(model, "conv", resize=False, normalize=False)(Y[:4].tolist(), X[:4])
        small = tf.image.resize(inside[..., None].astype("f"), maps.shape[1:], method="area")[
            ..., 0
        ]
        heat = maps.sum((1, 2))
        expected = ((maps * (1 - small)).numpy().sum((1, 2)) / (heat + 1e-7)).mean()
    assert float(found()) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["swap", "consistency", "gradients", "energy"])
def test_training_with_it_changes_the_weights_and_leaves_the_model_as_it_was(loss, tmp_path):
    plain, model = network(), network()
    fit(plain)
    before = set(vars(model))
    history = fit(model, guided(loss)).history
    assert set(vars(model)) - before <= {*vars(plain), "stop_predicting"}  # figures predict
    assert "compute_loss" not in vars(model)
    assert any(
        (a != b).any() for a, b in zip(plain.get_weights(), model.get_weights(), strict=True)
    )
    assert np.isfinite(history["loss"]).all()
    assert len(history["guide_flips"]) == len(history["guide_exchanged_accuracy"]) == 2
    assert len(model.weights) == len(plain.weights)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(X), model(X), atol=1e-6)
    # A training without the guide is again the user's own.
    model.set_weights(network().get_weights())
    model.optimizer.iterations.assign(0)
    fit(model, epochs=1)
    other = network()
    fit(other, epochs=1)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_several_losses_are_added_up():
    model = network()
    data = [tf.constant(each) for each in (X[:COUNT], Y[:COUNT])]
    data.append(tf.constant(np.ones((COUNT, *SHAPE[:2]), bool)))

    @tf.function
    def second(loss):
        return guided(loss)._second(model, data)

    weights, found = model.get_weights(), []
    for loss in (("swap", "energy"), "swap", "energy"):
        model.set_weights(weights)  # Batch statistics have moved.
        found.append(float(second(loss)))
    both, one, other = found
    assert both == pytest.approx(one + other, rel=1e-5)
    with pytest.raises(ValueError, match="Expected loss to be one of 'swap'"):
        guided(("swap", "heat"))


@pytest.mark.slow
def test_a_weight_of_zero_changes_nothing_but_batch_statistics():
    plain, model = network(), network()
    fit(plain)
    fit(model, guided(loss=lambda *given: tf.constant(3.0), weight=0.0))
    for a, b in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_a_loss_of_ones_own_sees_images_targets_and_masks():
    seen = []

    def loss(model, images, targets, inside):
        seen.append((images.shape, targets.shape, inside.shape, inside.dtype))
        return tf.reduce_mean(tf.square(model(images)))

    model = network()
    losses = fit(model, guided(loss, weight=100.0, batch_size=5), epochs=1).history["loss"]
    assert seen[0] == ((5, *SHAPE), (5,), (5, *SHAPE[:2]), tf.bool)
    assert losses[0] > 3  # 100 times about a ninth, and the user's own of about 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"jit_compile": True},
        {"steps_per_execution": 3},
        {"optimizer": "accumulating"},
        {"loss": "from_logits"},
        {"loss": "categorical_crossentropy"},
    ],
    ids=str,
)
def test_kinds_of_training(how):
    options = dict(how)
    labels = Y
    if options.get("optimizer"):
        options["optimizer"] = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    if options.get("loss") == "from_logits":
        options["loss"] = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if options.get("loss") == "categorical_crossentropy":
        labels = np.eye(3)[Y]
    model = network(**options)
    if how.get("loss") == "from_logits":
        model.layers[-1].activation = keras.activations.linear
        model.compile("sgd", options["loss"])
    callback = MaskGuide(X[:COUNT], labels[:COUNT], BOXES, loss="consistency")
    history = model.fit(X, labels, batch_size=8, epochs=2, verbose=0, callbacks=[callback]).history
    assert np.isfinite(history["loss"]).all()
    assert len(callback.history["flips"]) == 2


@pytest.mark.slow
def test_the_same_seed_is_the_same_training_and_no_global_generator_is_used():
    import random

    trained = []
    for _ in range(2):
        model = network()
        fit(model, guided(seed=3))
        trained.append((model.get_weights(), random.random(), np.random.rand()))  # noqa: NPY002
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
    for a, b in zip(trained[0][0], trained[1][0], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_it_works_beside_other_callbacks(tmp_path):
    model = network()
    logger = CamLogger(tmp_path, X[:4], Y[:4], every=1, metrics=[], on_error="raise")
    figures = CounterfactualLogger(tmp_path, X[COUNT:], Y[COUNT:], BOXES, every=1, on_error="raise")
    stop = keras.callbacks.EarlyStopping("guide_flips", mode="min", patience=5)
    keep = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", "guide_exchanged_accuracy", mode="max"
    )
    history = fit(model, guided(), logger, figures, stop, keep, epochs=3).history
    assert len(history["kvis2_counterfactual_flips"]) == 3
    assert history["kvis2_counterfactual_flips"] == figures.history["flips"]
    tags = {tag for _, tag, _ in summaries(tmp_path / "kvis2_counterfactual")}
    assert tags == {
        f"counterfactual/{name}" for name in ("accuracy", "exchanged_accuracy", "flips")
    }
    assert "compute_loss" not in vars(keras.saving.load_model(tmp_path / "best.keras"))


@pytest.mark.slow
def test_what_cannot_be_guided_is_refused_at_the_start():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(3)

        def call(self, x):
            return self.dense(keras.ops.mean(x, axis=(1, 2)))

        def train_step(self, data):
            return {"loss": tf.constant(0.0)}

    own = Own()
    own.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="Expected a model that trains by Keras' own train_step"):
        fit(own, guided())
    inputs = keras.Input(SHAPE)
    y = L.GlobalAveragePooling2D()(inputs)
    two = keras.Model(inputs, [L.Dense(3)(y), L.Dense(3)(y)])
    two.compile("sgd", ["mse", "mse"])
    with pytest.raises(ValueError, match="Expected a model with one output and one loss"):
        two.fit(X, [np.zeros((24, 3))] * 2, verbose=0, callbacks=[guided()])
    with pytest.raises(ValueError, match="Expected loss to be one of 'swap'"):
        guided("heat")
    with pytest.raises(ValueError, match="Expected at least two images"):
        MaskGuide(X[:1], Y[:1], BOXES[:1])
    with pytest.raises(ValueError, match="Expected a label for each of the 12 images"):
        MaskGuide(X[:12], Y[:3], BOXES)


@pytest.mark.slow
def test_an_interrupted_training_is_put_back():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model, callback = network(), guided()
    with pytest.raises(KeyboardInterrupt):
        fit(model, callback, Interrupt())
    callback.remove()
    assert "compute_loss" not in vars(model)
    other = network()
    fit(other, epochs=1)
    model.set_weights(network().get_weights())
    model.optimizer.iterations.assign(0)
    fit(model, epochs=1)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
