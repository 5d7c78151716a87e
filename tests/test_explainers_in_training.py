"""Every public explainer watches a training: its pictures are written, and it changes nothing."""

import warnings

import keras
import model_zoo
import numpy as np
import pytest
from explainers import EXPLAINERS, OF_TRANSFORMERS
from trainings import X, Y, compiled, picture, stack, summaries

from kvis2.callbacks import ExplanationLogger
from kvis2.callbacks.looked import place_of
from kvis2.images import panel

pytestmark = pytest.mark.slow

PROBES = 2


def convolutional():
    return keras.Sequential(stack(noise=True)), X, EXPLAINERS.keys() - OF_TRANSFORMERS


def transformer():
    """The vision transformer of the model zoo, new, and images of its size."""
    images = np.random.default_rng(3).random((len(X), 12, 12, 3)).astype(np.float32)
    return model_zoo.vision_transformer.__wrapped__().model, images, OF_TRANSFORMERS


NETWORKS = {"convolutional": convolutional, "transformer": transformer}


class Training:
    """Two epochs, and what they left behind."""

    def __init__(self, network, log_dir=None):
        keras.backend.clear_session()
        keras.utils.set_random_seed(5)
        model, images, names = NETWORKS[network]()
        self.loggers = {
            name: ExplanationLogger(
                log_dir,
                images[:PROBES],
                Y[:PROBES],
                explainer=EXPLAINERS[name],
                run=name,
                tag=name,
                metrics=[],
                every=1,
                on_error="raise",
            )
            for name in sorted(names)
            if log_dir is not None
        }
        compiled(model, "adam", metrics=["accuracy"])
        callbacks = list(self.loggers.values())
        self.history = model.fit(
            images, Y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks
        ).history
        variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        self.variables = {each.path: each.numpy() for each in variables}
        self.images, self.log_dir = images[:PROBES], log_dir


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return request.param


@pytest.fixture(scope="module")
def logged(network, tmp_path_factory):
    with warnings.catch_warnings():
        # A network that has hardly been trained may have nothing to say for a class.
        warnings.filterwarnings("ignore", ".*found no evidence")
        warnings.filterwarnings("ignore", ".*are flat")
        return Training(network, tmp_path_factory.mktemp(network))


def test_training_is_bit_identical_with_a_logger_of_each_explainer(network, logged):
    plain = Training(network)
    assert logged.history == plain.history
    assert list(logged.variables) == list(plain.variables)
    for path, value in plain.variables.items():
        np.testing.assert_array_equal(logged.variables[path], value, err_msg=path)


@pytest.mark.filterwarnings("ignore:.*found no evidence")
def test_each_explainer_logs_every_epoch_from_one_trace(logged):
    for name, logger in logged.loggers.items():
        assert logger.history["step"] == [0, 1], name
        assert logger.explainer.trace_count == 1, name
        written = {(step, tag): value for step, tag, value in summaries(logged.log_dir / name)}
        expected = {
            (step, f"{name}/{i:02d} class {Y[i]}") for step in (0, 1) for i in range(PROBES)
        }
        assert set(written) == expected, name
        maps, looked = logger.explain(), logger._look()
        caption = place_of(logger.explainer, looked.raw[looked.first])
        # Colours that were signed once stay so, that steps compare.
        limits = (-1.0, 1.0) if logger._panels._signed else (0.0, 1.0)
        for i, image in enumerate(logged.images):
            last = picture(written[1, f"{name}/{i:02d} class {Y[i]}"]).astype(int)
            shown = panel(
                image,
                maps[i],
                explained=int(Y[i]),
                probabilities=looked.probabilities[i],
                label=int(Y[i]),
                caption=caption,
                limits=limits,
            )
            assert np.abs(last - shown).max() <= 2, name
