"""What a logger promises while a model trains: nothing changes, nothing is lost, nothing breaks."""

import copy
import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from trainings import (
    SHAPE,
    Subclassed,
    X,
    Y,
    compiled,
    dense,
    half_precision,
    nested,
    picture,
    stack,
    steps_by_tag,
    summaries,
    train,
)

from kvis2.callbacks import (
    ActivationLogger,
    CamLogger,
    ExplanationLogger,
    FilterLogger,
    Observation,
    Picture,
    PictureLogger,
    SaliencyLogger,
)
from kvis2.explainers import GradCAM
from kvis2.images import panel
from kvis2.localization import energy_in_box, pointing_game

pytestmark = [
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning"),  # Keras on itself
    pytest.mark.filterwarnings("ignore:.*__array__ implementation:DeprecationWarning"),  # Keras
]

PROBES = 4


def logger_of(log_dir, kind=CamLogger, **options):
    """A logger without the measures of maps, which have tests of their own."""
    usual = {"on_error": "raise", "metrics": [], **options}
    if "boxes" in options:
        usual["metrics"] = ["pointing_game", "energy_in_box"]
    return kind(log_dir, X[:PROBES], Y[:PROBES], **usual)


# Nothing changes.


def array_data():
    return X, Y


def shuffled_dataset():
    flip = keras.layers.RandomFlip(seed=4)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(24).batch(8)
    return data.map(lambda x, y: (flip(x, training=True), y)), None


def explanations(log_dir, source, **logging):
    options = {"max_images": PROBES, "on_error": "raise", **logging}
    return [
        CamLogger(log_dir, source, boxes=[[0, 0, 5, 6]] * PROBES, **options),
        SaliencyLogger(log_dir, source, **options),
    ]


def features(log_dir, source, **logging):
    options = {"on_error": "raise", **logging}
    return [
        FilterLogger(log_dir, maximize={"steps": 3}, input_range=(0, 1), **options),
        ActivationLogger(log_dir, source, max_images=PROBES, **options),
    ]


def outcome(data, build, loggers=None, **logging):
    """Train, and return all that the training could have left behind."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(5)
    model = compiled(keras.Sequential(stack(built=build, noise=True)), "adam", metrics=["accuracy"])
    x, y = data()
    source = (x, y) if y is not None else x
    callbacks = loggers(source=source, **logging) if loggers else []
    history = model.fit(
        x, y, batch_size=8 if y is not None else None, epochs=3, verbose=0, callbacks=callbacks
    ).history
    assert all(callback.history["step"] for callback in callbacks)
    names = ("pointing_game", "energy_in_box", "sparseness", "drift")
    numbers = {name for name in history if name.startswith("kvis2")}
    assert numbers.issuperset(f"kvis2_{name}" for name in names if loggers is explanations)
    history = {name: values for name, values in history.items() if name not in numbers}
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    draws = (
        random.random(),
        np.random.rand(),  # noqa: NPY002
        float(tf.random.uniform([])),
        float(keras.random.uniform([])),
        keras.layers.Dense(1).name,
        keras.Sequential().name,
    )
    return history, {v.path: v.numpy() for v in variables}, draws


@pytest.mark.parametrize(
    ("loggers", "data", "build", "unit"),
    [
        pytest.param(explanations, array_data, True, "epoch", marks=pytest.mark.slow),
        (explanations, shuffled_dataset, False, "batch"),
        pytest.param(features, shuffled_dataset, False, "batch", marks=pytest.mark.slow),
        pytest.param(explanations, array_data, False, "batch", marks=pytest.mark.slow),
        pytest.param(explanations, shuffled_dataset, True, "epoch", marks=pytest.mark.slow),
        pytest.param(features, array_data, True, "epoch", marks=pytest.mark.slow),
    ],
)
def test_training_is_bit_identical_with_and_without_loggers(tmp_path, loggers, data, build, unit):
    history, variables, draws = outcome(data, build)
    logged_history, logged_variables, logged_draws = outcome(
        data, build, loggers, log_dir=tmp_path, unit=unit, every=1 if unit == "epoch" else 2
    )
    assert logged_history == history
    assert logged_draws == draws
    assert list(logged_variables) == list(variables)
    assert any("seed_generator" in path for path in variables)
    for path, value in variables.items():
        np.testing.assert_array_equal(logged_variables[path], value, err_msg=path)


# Nothing is lost.


@pytest.mark.parametrize("first", ["TensorBoard", "logger"])
def test_no_picture_is_lost_beside_tensorboard_with_update_freq(tmp_path, first):
    pytest.importorskip("tensorboard")
    board = keras.callbacks.TensorBoard(tmp_path, update_freq=3)
    logger = logger_of(tmp_path, boxes=[[0, 0, 5, 6]] * PROBES)
    callbacks = [board, logger] if first == "TensorBoard" else [logger, board]
    # 4 batches an epoch: TensorBoard records at the end of each third epoch only.
    train(compiled(keras.Sequential(stack())), *callbacks, epochs=6, batch_size=6)
    tags = steps_by_tag(tmp_path / "kvis2")
    assert set(tags) == {
        *(f"GradCAM/{i:02d} class {i % 3}" for i in range(PROBES)),
        "GradCAM/pointing_game",
        "GradCAM/energy_in_box",
    }
    assert all(steps == list(range(6)) for steps in tags.values())


def test_event_files_hold_the_panels_and_numbers_of_the_current_weights(tmp_path):
    model = compiled(keras.Sequential(stack()))
    names = ["cat", "dog", "owl"]
    boxes = [[0, 0, 5, 6], [2, 3, 10, 12], [[0, 0, 1, 1], [4, 4, 9, 9]], [1, 1, 2, 2]]
    expected = {}

    class Slow(keras.callbacks.Callback):
        """The same panels by a new model with a copy of the weights at that epoch."""

        def on_epoch_end(self, epoch, logs=None):
            twin = keras.Sequential(stack())
            twin.set_weights(self.model.get_weights())
            cam = GradCAM(twin)
            maps = cam(Y[:PROBES].tolist(), X[:PROBES])
            caption = f"{cam.layer.name} 10x8"
            predicted = twin(X[:PROBES], training=False).numpy()
            for i in range(PROBES):
                drawn = panel(
                    X[i], maps[i], probabilities=predicted[i], label=Y[i], class_names=names,
                    top_k=2, box=boxes[i], alpha=0.3, explained=Y[i], caption=caption,
                )  # fmt: skip
                expected[epoch, f"GradCAM/{i:02d} {names[Y[i]]}"] = drawn
            expected[epoch, "GradCAM/pointing_game"] = pointing_game(maps, boxes).mean()
            expected[epoch, "GradCAM/energy_in_box"] = energy_in_box(maps, boxes).mean()

    logger = logger_of(tmp_path, class_names=names, top_k=2, boxes=boxes, alpha=0.3)
    history = train(model, logger, Slow()).history
    found = {(step, tag): value for step, tag, value in summaries(tmp_path / "kvis2")}
    assert set(found) == set(expected)
    for (step, tag), value in found.items():
        if value.ndim == 0:
            assert value == pytest.approx(expected[step, tag], abs=1e-5)
            assert history[f"kvis2_{tag.split('/')[1]}"][step] == pytest.approx(value)
            continue
        assert (value[0], value[1]) == (b"350", str(len(expected[step, tag])).encode())
        difference = np.abs(picture(value).astype(int) - expected[step, tag])
        assert difference.max() <= 2  # float32 sums in another order, at a colour's border
    first, last = (picture(found[step, "GradCAM/00 cat"]) for step in (0, 2))
    assert first.shape == last.shape
    assert (first != last).any()


def test_one_trace_for_the_whole_training(tmp_path):
    logger = logger_of(tmp_path, every=1, batch_size=3, unit="batch")  # chunks of 3 and 1
    train(compiled(keras.Sequential(stack())), logger)
    assert logger.history["step"] == list(range(9))
    assert logger.explainer.trace_count == 1
    assert logger.explainer.layer.name == "batch_normalization"
    assert logger.overhead == sum(logger.history["seconds"]) > 0


def test_every_probe_is_explained_as_labelled_in_batches_of_any_size(tmp_path):
    model = compiled(keras.Sequential(stack()))
    one, all_at_once = logger_of(tmp_path, batch_size=1), logger_of(tmp_path)
    train(model, one, all_at_once, epochs=1)
    expected = GradCAM(model)(Y[:PROBES].tolist(), X[:PROBES])
    np.testing.assert_allclose(one.explain(), expected, atol=1e-5)
    np.testing.assert_allclose(all_at_once.explain(), expected, atol=1e-5)
    np.testing.assert_allclose(one.predict(), model(X[:PROBES]).numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("score", "explained"),
    [
        ("predicted", None),
        (None, None),
        (2, 2),
        ([2, 1, 0, 0], [2, 1, 0, 0]),
        (lambda output: output[:, 1] - output[:, 0], lambda output: output[:, 1] - output[:, 0]),
    ],
)
def test_other_scores(tmp_path, score, explained):
    model = compiled(keras.Sequential(stack()))
    logger = logger_of(tmp_path, score=score)
    train(model, logger, epochs=1)
    np.testing.assert_allclose(logger.explain(), GradCAM(model)(explained, X[:PROBES]), atol=1e-5)


# Nothing breaks.


MODELS = {
    "functional": (nested, {}),
    "nested layer": (nested, {"layer": "backbone/conv"}),
    "unbuilt": (lambda: keras.Sequential(stack(built=False)), {}),
    "subclassed": (Subclassed, {"layer": "conv"}),
    "mixed_float16": (half_precision, {}),
}


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, {}) for name in MODELS),
        ("unbuilt", {"run_eagerly": True}),
        pytest.param("subclassed", {"run_eagerly": True}, marks=pytest.mark.slow),
        ("functional", {"jit_compile": True}),
        pytest.param("subclassed", {"jit_compile": True}, marks=pytest.mark.slow),
        pytest.param("mixed_float16", {"run_eagerly": True}, marks=pytest.mark.slow),
    ],
)
def test_every_kind_of_model_and_of_compilation(tmp_path, name, how):
    make, options = MODELS[name]
    logger = logger_of(tmp_path, **options)
    train(compiled(make(), **how), logger, epochs=2)
    tags = steps_by_tag(tmp_path / "kvis2")
    assert len(tags) == PROBES
    assert all(steps == [0, 1] for steps in tags.values())
    assert logger.explain().max() == 1
    probabilities = logger.predict()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=2e-3)


@pytest.mark.slow
def test_mirrored_strategy_over_two_logical_devices(tmp_path):
    script = """
        import sys, warnings
        import keras, numpy as np, tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        from kvis2.callbacks import CamLogger
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        assert strategy.num_replicas_in_sync == 2
        x, y = np.random.default_rng(0).random((16, 12, 10, 3), dtype="f"), np.arange(16) % 3

        def weights(callbacks):
            keras.utils.set_random_seed(3)
            with strategy.scope():
                model = keras.Sequential([
                    keras.Input((12, 10, 3)), keras.layers.Conv2D(4, 3, activation="relu"),
                    keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D(),
                    keras.layers.Dropout(0.2), keras.layers.Dense(3, activation="softmax")])
                model.compile("adam", "sparse_categorical_crossentropy")
            model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=callbacks)
            return model.get_weights()

        logger = CamLogger(sys.argv[1], x[:3], y[:3], on_error="raise")
        for logged, plain in zip(weights([logger]), weights([]), strict=True):
            np.testing.assert_array_equal(logged, plain)
        assert logger.explainer.trace_count == 1
    """
    run_script(script, tmp_path)
    tags = steps_by_tag(tmp_path / "kvis2")
    assert tags.pop("GradCAM/drift") == [1, 2]
    assert len(tags) >= 3
    assert all(steps == [0, 1, 2] for steps in tags.values())


def run_script(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


@pytest.mark.slow
def test_every_step_written_before_a_kill_is_readable(tmp_path):
    script = """
        import os, sys, time
        import keras, numpy as np
        from kvis2.callbacks import CamLogger
        model = keras.Sequential([keras.Input((12, 10, 3)), keras.layers.Conv2D(4, 3),
            keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        x, y = np.random.default_rng(0).random((8, 12, 10, 3), dtype="f"), np.arange(8) % 3
        def wait(epoch, logs):
            open(os.path.join(sys.argv[1], "done"), "w").write(str(epoch))
            if epoch == 4:
                time.sleep(600)
        model.fit(x, y, epochs=9, verbose=0, callbacks=[
            CamLogger(sys.argv[1], x[:3], y[:3], every=1, on_error="raise"),
            keras.callbacks.LambdaCallback(on_epoch_end=wait)])
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), str(tmp_path)])
    done = tmp_path / "done"
    deadline = time.monotonic() + 120
    while not (done.exists() and done.read_text() == "4"):
        assert process.poll() is None, "the training ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    tags = steps_by_tag(tmp_path / "kvis2")
    assert tags.pop("GradCAM/drift") == [1, 2, 3, 4]
    assert len(tags) >= 3
    assert all(steps == [0, 1, 2, 3, 4] for steps in tags.values())


def test_a_second_fit_goes_to_a_run_of_its_own(tmp_path):
    model = compiled(keras.Sequential(stack()))
    logger = logger_of(tmp_path)
    train(model, logger, epochs=2)
    train(model, logger, epochs=5, initial_epoch=2)
    assert [*steps_by_tag(tmp_path / "kvis2").values()] == [[0, 1]] * PROBES
    assert [*steps_by_tag(tmp_path / "kvis2_2").values()] == [[2, 3, 4]] * PROBES
    assert logger.history["step"] == [2, 3, 4]
    # The same logger follows another model as well.
    other = compiled(keras.Sequential(stack(built=False)))
    train(other, logger, epochs=1)
    assert logger.explainer.model is other


def test_a_used_logger_can_be_copied_and_the_copy_used(tmp_path):
    logger = logger_of(tmp_path)
    train(compiled(keras.Sequential(stack())), logger, epochs=1)
    copied = copy.deepcopy(logger)
    train(compiled(keras.Sequential(stack())), copied, epochs=2)
    assert logger.history["step"] == [0]
    assert copied.history["step"] == [0, 1]
    assert [*steps_by_tag(tmp_path / "kvis2_2").values()] == [[0, 1]] * PROBES


@pytest.mark.parametrize("on_error", ["warn", "raise"])
def test_an_unwritable_log_dir_fails_before_the_first_batch(tmp_path, on_error):
    (tmp_path / "file").write_text("")
    batches = []
    counter = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda *_: batches.append(1))
    logger = logger_of(tmp_path / "file" / "logs", on_error=on_error)
    with pytest.raises(OSError, match=r"Expected a log_dir that can be written to.*Received: log_"):
        train(compiled(keras.Sequential(stack())), counter, logger)
    assert not batches


class Broken:
    """An explainer that fails at its second call."""

    calls = 0

    def __init__(self, model):
        pass

    def __call__(self, score, images):
        type(self).calls += 1
        if type(self).calls == 2:
            raise ArithmeticError("the map went wrong")
        return np.broadcast_to(np.linspace(0, 1, 10, dtype=np.float32), images.shape[:3])


@pytest.fixture
def broken():
    Broken.calls = 0
    return Broken


def test_an_error_in_the_explainer_is_one_warning_and_training_goes_on(tmp_path, broken):
    model = compiled(keras.Sequential(dense()), run_eagerly=True)
    logger = logger_of(tmp_path, explainer=broken, on_error="warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = train(model, logger, epochs=5).history
    assert len(history["loss"]) == 5
    assert [str(each.message) for each in caught] == [
        "CamLogger failed at epoch 1 and logs no more in this training, which goes on: "
        "ArithmeticError: the map went wrong"
    ]
    assert broken.calls == 2
    assert [*steps_by_tag(tmp_path / "kvis2").values()] == [[0]] * PROBES
    train(model, logger, epochs=2)  # A new training is a new try.
    assert logger.history["step"] == [0, 1]


def test_a_warning_that_comes_at_every_step_is_given_once_a_training(tmp_path):
    class Noisy:
        def __call__(self, score, images):
            warnings.warn(f"empty map {np.random.rand()}", stacklevel=1)  # noqa: NPY002
            return np.zeros(images.shape[:3], np.float32)

    model = compiled(keras.Sequential(dense()), run_eagerly=True)
    logger = logger_of(tmp_path, explainer=lambda model: Noisy())
    for _ in range(2):
        with pytest.warns(UserWarning, match="CamLogger at epoch 0: empty map") as caught:
            train(model, logger, epochs=4)
        assert len(caught) == 1
        assert logger.history["step"] == [0, 1, 2, 3]


@pytest.mark.slow
def test_an_error_in_the_explainer_ends_the_training_if_that_is_wanted(tmp_path, broken):
    logger = logger_of(tmp_path, explainer=broken, on_error="raise")
    with pytest.raises(ArithmeticError, match="the map went wrong"):
        train(compiled(keras.Sequential(dense()), run_eagerly=True), logger)


@pytest.mark.slow
def test_a_disk_that_fills_up_is_one_warning_and_training_goes_on(tmp_path, monkeypatch, broken):
    logger = logger_of(tmp_path, explainer=broken, on_error="warn")
    monkeypatch.setattr(tf.summary, "write", lambda *arguments: None)
    with pytest.warns(RuntimeWarning, match=r"failed at epoch 0 .*grew by 0 of .*Make room") as got:
        history = train(compiled(keras.Sequential(dense()), run_eagerly=True), logger).history
    assert len(got) == 1
    assert len(history["loss"]) == 3


class Ending:
    """An explainer that ends more than itself at its second call."""

    def __init__(self, error):
        self.error, self.calls = error, 0

    def __call__(self, score, images):
        self.calls += 1
        if self.calls == 2:
            raise self.error
        return np.broadcast_to(np.linspace(0, 1, 10, dtype=np.float32), images.shape[:3])


def ended_by(folder, error, **options):
    ending = Ending(error)
    return logger_of(folder, explainer=lambda model: ending, save_dir=folder / "png", **options)


@pytest.mark.slow
def test_an_explainer_that_exits_does_not_end_the_training(tmp_path):
    model = compiled(keras.Sequential(dense()), run_eagerly=True)
    with pytest.warns(RuntimeWarning, match="at epoch 1 .* which goes on: SystemExit: 3"):
        history = train(model, ended_by(tmp_path, SystemExit(3), on_error="warn"), epochs=3).history
    assert len(history["loss"]) == 3
    logger = ended_by(tmp_path / "raised", SystemExit(3), on_error="raise")
    with pytest.raises(RuntimeError, match="CamLogger failed at epoch 1: SystemExit: 3"):
        train(model, logger, epochs=3)
    assert list((tmp_path / "raised").rglob("*.gif"))


@pytest.mark.slow
@pytest.mark.parametrize("on_error", ["warn", "raise"])
def test_an_interrupt_while_logging_ends_the_training_and_closes_the_files(tmp_path, on_error):
    logger = ended_by(tmp_path, KeyboardInterrupt(), on_error=on_error)
    with pytest.raises(KeyboardInterrupt):
        train(compiled(keras.Sequential(dense()), run_eagerly=True), logger)
    assert len(list((tmp_path / "png").rglob("*.gif"))) == PROBES
    assert [*steps_by_tag(tmp_path / "kvis2").values()] == [[0]] * PROBES


def interrupting(epoch):
    def interrupt(current, logs=None):
        if current == epoch:
            raise KeyboardInterrupt

    return keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)


@pytest.mark.slow
def test_files_of_an_interrupted_training_are_closed_at_the_next_or_with_the_logger(tmp_path):
    model = compiled(keras.Sequential(dense()), run_eagerly=True)
    logger = Pixel(tmp_path, save_dir=tmp_path / "png", every=1)
    with pytest.raises(KeyboardInterrupt):
        train(model, logger, interrupting(2))
    gif = tmp_path / "png/_/pixel.gif"
    assert not gif.exists()
    train(model, logger, epochs=2, initial_epoch=1)
    assert gif.exists()
    gif.unlink()
    with pytest.raises(KeyboardInterrupt):
        train(model, logger, interrupting(2))
    model = logger = None
    gc.collect()
    assert gif.exists()


@pytest.mark.slow
def test_one_writer_that_cannot_finish_does_not_keep_the_others_open(tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(
        "kvis2.callbacks.pictures.FolderWriter.close", lambda self: closed.append("folder")
    )

    def fails(self):
        closed.append("events")
        raise OSError("disk full")

    monkeypatch.setattr("kvis2.callbacks.pictures.TensorBoardWriter.close", fails)
    logger = Pixel(tmp_path, save_dir=tmp_path / "png", on_error="raise")
    with pytest.raises(OSError, match="disk full"):
        train(compiled(keras.Sequential(dense()), run_eagerly=True), logger)
    assert sorted(closed) == ["events", "folder"]


# When. A logger of one grey pixel will do.


class Pixel(PictureLogger):
    def observe(self, step):
        return Observation([Picture("pixel", np.zeros((1, 1, 3), np.uint8))])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "fit", "expected"),
    [
        ({}, {"epochs": 12}, [0, 1, 2, 4, 5, 6, 7, 9, 10, 11]),
        ({"every": 2}, {"epochs": 5}, [0, 2, 4]),
        ({"every": 2}, {"epochs": 7, "initial_epoch": 3}, [4, 6]),
        ({"unit": "batch"}, {"epochs": 4}, [0, 1, 2, 4, 5, 6, 7, 9, 10, 11]),
        ({"unit": "batch", "every": 4}, {"epochs": 3}, [0, 4, 8]),
        ({"unit": "batch", "every": 4}, {"epochs": 3, "initial_epoch": 1}, [4, 8]),
    ],
)
def test_steps(tmp_path, options, fit, expected):
    logger = Pixel(tmp_path, **options)
    train(
        compiled(keras.Sequential(dense()), run_eagerly=True), logger, **fit
    )  # 3 batches an epoch
    assert logger.history["step"] == expected
    assert [*steps_by_tag(tmp_path / "kvis2").values()] == [expected]


@pytest.mark.slow
def test_batches_with_steps_per_execution(tmp_path):
    model = compiled(keras.Sequential(dense()), steps_per_execution=4)
    logger = Pixel(tmp_path, unit="batch", every=5)
    model.fit(X, Y, batch_size=2, epochs=2, verbose=0, callbacks=[logger])  # 12 batches an epoch
    assert logger.history["step"] == [3, 7, 11, 15, 23]


@pytest.mark.slow
def test_no_batch_is_counted_beyond_the_epoch(tmp_path):
    model = compiled(keras.Sequential(dense()), steps_per_execution=5)
    logger = Pixel(tmp_path, unit="batch", every=1)
    model.fit(X, Y, batch_size=2, epochs=2, verbose=0, callbacks=[logger])  # 12 batches an epoch
    assert logger.history["step"] == [4, 9, 11, 16, 21, 23]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras, of an unknown size
def test_batches_of_a_dataset_of_unknown_size(tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8).filter(lambda x, y: True)
    model = compiled(keras.Sequential(dense()), run_eagerly=True)
    logger = Pixel(tmp_path, unit="batch", every=2)
    model.fit(data, epochs=3, verbose=0, callbacks=[logger])
    assert logger.history["step"] == [0, 2, 4, 6, 8]
    with pytest.raises(ValueError, match="steps_per_epoch"):
        model.fit(data, verbose=0, callbacks=[Pixel(tmp_path, unit="batch")])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("accumulated", [None, 2])
def test_executions_over_a_dataset_of_unknown_size(tmp_path, accumulated):
    """Nine batches, four at a time: the last execution of an epoch has one."""
    count = [0]

    def counted(x, y):
        count[0] += 1
        return x, y

    data = tf.data.Dataset.from_tensor_slices((X[:18], Y[:18])).batch(2)
    data = data.map(lambda x, y: tf.numpy_function(counted, [x, y], [x.dtype, y.dtype]))
    data = data.map(lambda x, y: (tf.ensure_shape(x, [2, *X.shape[1:]]), tf.ensure_shape(y, [2])))
    data = data.filter(lambda x, y: True)
    model = keras.Sequential(dense())
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=accumulated)
    model.compile(optimizer, "sparse_categorical_crossentropy", steps_per_execution=4)
    logger = Pixel(tmp_path, unit="batch", every=1)
    model.fit(data, epochs=3, verbose=0, callbacks=[logger])
    assert logger.history["step"] == [3, 7, 8, 12, 16, 17, 21, 25, 26]
    assert count == [27]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [None, "scaled"])
def test_batches_that_cannot_be_counted_are_refused(tmp_path, optimizer):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2).filter(lambda x, y: True)
    model = compiled(keras.Sequential(dense()), steps_per_execution=4)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    model.optimizer = None if optimizer is None else scaled
    with pytest.raises(ValueError, match=r"Expected batches that can be counted.*Received: .*=4"):
        model.fit(data, verbose=0, callbacks=[Pixel(tmp_path, unit="batch", every=2)])


@pytest.mark.slow
@pytest.mark.parametrize("order", ["logger first", "logger last"])
def test_the_last_epoch_of_an_early_stop_is_logged(tmp_path, order):
    logger = Pixel(tmp_path)
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 4)
    )
    model = compiled(keras.Sequential(dense()), run_eagerly=True)
    callbacks = [logger, stop] if order == "logger first" else [stop, logger]
    train(model, *callbacks, epochs=40)
    assert logger.history["step"] == [0, 4]


@pytest.mark.slow
def test_the_hint_for_more_than_ten_steps_is_logged_once(tmp_path, caplog, capsys):
    model = compiled(keras.Sequential(dense()), run_eagerly=True)
    train(model, Pixel(tmp_path), epochs=11)
    assert not caplog.records
    train(model, Pixel(tmp_path, every=1), epochs=11)
    (said,) = caplog.records
    assert (said.name, said.levelname) == ("kvis2", "WARNING")
    assert said.getMessage().count("--samples_per_plugin images=11") == 1
    assert "samples_per_plugin" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_hint_is_seen_where_nobody_has_set_up_logging_and_can_be_silenced(tmp_path):
    script = """
import logging, sys, keras, numpy as np
from kvis2.callbacks import SaliencyLogger
if sys.argv[2] == "silent":
    logging.getLogger("kvis2").setLevel(logging.ERROR)
model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)])
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
x, y = np.random.default_rng(0).random((4, 4, 4, 1)), [0, 1, 0, 1]
logger = SaliencyLogger(sys.argv[1], x, y, every=1, metrics=[])
model.fit(x, np.array(y), epochs=11, verbose=0, callbacks=[logger])
"""
    for how, count in [("shown", 1), ("silent", 0)]:
        command = [sys.executable, "-c", script, str(tmp_path / how), how]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert result.stderr.count("--samples_per_plugin images=11") == count
        assert not result.stdout


# What.


@pytest.mark.slow
def test_localization_is_in_the_logs_of_later_callbacks_when_the_epoch_is_logged(tmp_path):
    seen = []
    later = keras.callbacks.LambdaCallback(on_epoch_end=lambda _, logs: seen.append(dict(logs)))
    logger = logger_of(tmp_path, boxes=[[0, 0, 5, 6]] * PROBES, every=2)
    train(compiled(keras.Sequential(stack())), logger, later)
    assert ["kvis2_energy_in_box" in logs for logs in seen] == [True, False, True]
    logged = [logs["kvis2_energy_in_box"] for logs in seen[::2]]
    assert logger.history["energy_in_box"] == logged
    assert 0 < logged[0] < 1


@pytest.mark.slow
def test_early_stopping_uses_the_localization(tmp_path):
    logger = logger_of(tmp_path, boxes=[[0, 0, 5, 6]] * PROBES, every=1)
    stop = keras.callbacks.EarlyStopping("kvis2_energy_in_box", mode="max", baseline=2, patience=2)
    history = train(compiled(keras.Sequential(stack())), logger, stop, epochs=9).history
    assert len(history["loss"]) == 3  # the first, and two that were no better


@pytest.mark.slow
def test_saliency_logger_beside_cam_logger(tmp_path):
    train(
        compiled(keras.Sequential(stack())),
        logger_of(tmp_path),
        logger_of(tmp_path, SaliencyLogger),
    )
    for run, name in (("kvis2", "GradCAM"), ("kvis2_saliency", "Saliency")):
        tags = steps_by_tag(tmp_path / run)
        assert set(tags) == {f"{name}/{i:02d} class {i % 3}" for i in range(PROBES)}


@pytest.mark.slow
def test_an_explainer_can_be_any_function_of_the_model(tmp_path):
    logger = logger_of(
        tmp_path, ExplanationLogger, explainer=lambda model: GradCAM(model, "conv"), tag="mine/x"
    )
    train(compiled(keras.Sequential(stack())), logger, epochs=1)
    assert "mine/x/00 class 0" in steps_by_tag(tmp_path / "kvis2")


@pytest.mark.slow
def test_maps_of_the_wrong_shape_are_named(tmp_path):
    logger = logger_of(tmp_path, explainer=lambda model: lambda score, images: np.ones((2, 3, 3)))
    with pytest.raises(ValueError, match=r"for 4 images. Received: shape \(2, 3, 3\)"):
        train(compiled(keras.Sequential(stack())), logger, epochs=1)


@pytest.mark.slow
def test_raw_maps_are_scaled_for_the_picture(tmp_path):
    raw = np.random.default_rng(1).normal(size=(PROBES, *SHAPE[:2])) * 50
    logger = logger_of(tmp_path, explainer=lambda model: lambda score, images: raw, tag="raw")
    train(compiled(keras.Sequential(stack())), logger, epochs=1)
    scaled = raw / np.abs(raw).max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(logger.explain(), scaled, rtol=1e-5)


@pytest.mark.slow
def test_a_binary_classifier_explains_the_true_class(tmp_path):
    labels = (Y % 2)[:, np.newaxis]
    model = keras.Sequential([*stack()[:-1], keras.layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    logger = CamLogger(tmp_path, X[:PROBES], labels[:PROBES], on_error="raise")
    model.fit(X, labels, verbose=0, callbacks=[logger])
    expected = GradCAM(model)((Y[:PROBES] % 2).tolist(), X[:PROBES])
    np.testing.assert_allclose(logger.explain(), expected, atol=1e-5)
    assert logger.predict().shape == (PROBES, 1)


@pytest.mark.slow
def test_one_hot_labels_and_integer_images(tmp_path):
    pixels = (X * 255).astype(np.uint8)
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(1 / 255), *stack()[1:]])
    model.compile("adam", "categorical_crossentropy")
    one_hot = keras.utils.to_categorical(Y)
    logger = CamLogger(tmp_path, pixels[:PROBES], one_hot[:PROBES], on_error="raise")
    model.fit(pixels, one_hot, verbose=0, callbacks=[logger])
    assert logger.labels.tolist() == Y[:PROBES].tolist()
    np.testing.assert_allclose(
        logger.predict(), model(pixels[:PROBES].astype("f")).numpy(), atol=1e-6
    )


@pytest.mark.slow
def test_display_undoes_the_preprocessing_in_the_panel(tmp_path):
    logger = logger_of(tmp_path, display=lambda images: 1 - images)
    train(compiled(keras.Sequential(stack())), logger, epochs=1)
    shown = panel(
        1 - X[0],
        logger.explain()[0],
        probabilities=logger.predict()[0],
        label=int(Y[0]),
        explained=int(Y[0]),
        caption=f"{logger.explainer.layer.name} 10x8",
    )
    _, _, value = summaries(tmp_path / "kvis2")[0]
    assert np.abs(picture(value).astype(int) - shown).max() <= 2


@pytest.mark.slow
def test_save_dir_holds_panels_gifs_and_strips(tmp_path):
    logger = logger_of(tmp_path / "logs", save_dir=tmp_path / "pictures")
    train(compiled(keras.Sequential(stack())), logger)
    folder = tmp_path / "pictures" / "GradCAM"
    stored = summaries(tmp_path / "logs" / "kvis2")
    saved = np.asarray(Image.open(folder / "01 class 1" / "epoch 002.png"))
    (value,) = [v for step, tag, v in stored if (step, tag) == (2, "GradCAM/01 class 1")]
    np.testing.assert_array_equal(saved, picture(value))
    with Image.open(folder / "01 class 1.gif") as gif:
        assert gif.n_frames == 3
    with Image.open(folder / "01 class 1 strip.png") as strip:
        assert strip.width > 3 * 96


@pytest.mark.slow
def test_a_logger_of_ones_own_is_one_method(tmp_path):
    class KernelLogger(PictureLogger):
        def observe(self, step):
            kernel = self.model.layers[0].kernel.numpy()
            image = np.uint8(255 * (kernel[..., 0] > 0))
            return Observation(
                [Picture("kernels/00", image)], {"kernels/norm": float(kernel.std())}
            )

    logger = KernelLogger(tmp_path, every=2, run="kernels")
    train(compiled(keras.Sequential(stack())), logger)
    assert steps_by_tag(tmp_path / "kernels") == {"kernels/00": [0, 2], "kernels/norm": [0, 2]}
    assert len(logger.history["norm"]) == 2


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_visualizer_of_tf_keras_vis(tmp_path):
    gradcam = pytest.importorskip("tf_keras_vis.gradcam")
    linear = pytest.importorskip("tf_keras_vis.utils.model_modifiers").ReplaceToLinear
    scores = pytest.importorskip("tf_keras_vis.utils.scores")
    inputs = keras.Input(SHAPE)
    model = inputs
    for layer in stack()[1:]:
        model = layer(model)
    model = compiled(keras.Model(inputs, model))
    plain = logger_of(tmp_path, explainer=gradcam.Gradcam)
    cloned = logger_of(
        tmp_path, explainer=lambda model: gradcam.Gradcam(model, linear()), score="predicted"
    )
    train(model, plain, cloned)
    assert set(steps_by_tag(tmp_path / "kvis2")) == {
        f"Gradcam/{i:02d} class {i % 3}" for i in range(4)
    }
    expected = gradcam.Gradcam(model)(scores.CategoricalScore(Y[:PROBES].tolist()), X[:PROBES])
    np.testing.assert_allclose(plain.explain(), expected, atol=1e-5)
    predicted = model.predict(X[:PROBES], verbose=0).argmax(axis=1).tolist()
    expected = gradcam.Gradcam(model, linear())(scores.CategoricalScore(predicted), X[:PROBES])
    np.testing.assert_allclose(cloned.explain(cloned.predict()), expected, atol=1e-5)
