"""What loggers measure of their maps while a model trains, and which images they choose."""

import itertools

import keras
import numpy as np
import pytest
from PIL import Image
from trainings import SHAPE, X, Y, compiled, picture, stack, summaries, train

from kvis2 import GradCAM, Saliency, metrics
from kvis2.callbacks import (
    ActivationLogger,
    CamLogger,
    ExplanationLogger,
    FilterLogger,
    Log,
    PanelStyle,
    SaliencyLogger,
)
from kvis2.images import Explanation, panel

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*__array__ implementation:DeprecationWarning"),  # Keras
    pytest.mark.filterwarnings("ignore:.*are flat"),
    pytest.mark.filterwarnings("ignore:.*found no evidence"),
]
PROBES = 4


class Snapshots(keras.callbacks.Callback):
    """The weights before the first batch and after each epoch."""

    def on_train_begin(self, logs=None):
        self.weights = [self.model.get_weights()]

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.get_weights())

    def maps(self, explainer, **options):
        """The maps of each of them, by a new model."""
        twin = keras.Sequential(stack())
        for weights in self.weights:
            twin.set_weights(weights)
            yield explainer(twin, normalize=False, **options)(Y[:PROBES].tolist(), X[:PROBES])


@pytest.mark.parametrize(
    ("kind", "explainer", "options"),
    [(CamLogger, GradCAM, {"resize": False}), (SaliencyLogger, Saliency, {})],
)
def test_the_curves_are_the_measures_of_the_maps_at_each_step(tmp_path, kind, explainer, options):
    snapshots = Snapshots()
    names = ["sparseness", "complexity", "drift", "untrained_similarity", "insertion_gain"]
    logger = kind(tmp_path, X[:PROBES], Y[:PROBES], every=1, metrics=names, on_error="raise")
    keras.utils.set_random_seed(3)
    model = compiled(keras.Sequential(stack()))
    logs = train(model, snapshots, logger).history
    maps = list(snapshots.maps(explainer, **options))
    expected = {
        "sparseness": [metrics.sparseness(each).mean() for each in maps[1:]],
        "complexity": [metrics.complexity(each).mean() for each in maps[1:]],
        "drift": [np.nan, *(metrics.drift(b, a).mean() for a, b in itertools.pairwise(maps[1:]))],
        "untrained_similarity": [
            metrics.untrained_similarity(each, maps[0]).mean() for each in maps[1:]
        ],
    }
    assert list(logger.history) == ["step", "seconds", *names]
    for name, values in expected.items():
        np.testing.assert_allclose(logger.history[name], values, atol=2e-3, err_msg=name)
    assert len(set(map(len, logger.history.values()))) == 1
    gain = metrics.insertion_gain(
        model, Y[:PROBES].tolist(), X[:PROBES], logger.explain(), model_modifier=None
    )
    assert logger.history["insertion_gain"][-1] == pytest.approx(gain.mean(), abs=1e-4)
    # In the logs of Keras and in the event file there is a number wherever there is one to have.
    run = logger.log.run
    assert logs[f"{run}_drift"] == pytest.approx(logger.history["drift"][1:])
    stored = {(step, tag) for step, tag, value in summaries(tmp_path / run) if value.ndim == 0}
    tag = explainer.__name__
    assert {step for step, name in stored if name == f"{tag}/drift"} == {1, 2}
    assert {step for step, name in stored if name == f"{tag}/sparseness"} == {0, 1, 2}


def test_auto_takes_insertion_only_where_it_is_cheap(tmp_path, monkeypatch):
    from kvis2.callbacks import curves

    def logged(look):
        model = compiled(keras.Sequential(stack()))
        logger = CamLogger(tmp_path, X[:PROBES], Y[:PROBES], every=1, on_error="raise")
        # The passes of 16 predictions, and the step: what is measured is put in their place.
        times = iter([9.0, 1.0, look])
        monkeypatch.setattr(curves, "_seconds", lambda run: next(times))
        train(model, logger, epochs=2)
        assert next(times, None) is None  # measured once
        return logger.history

    assert "insertion_gain" in logged(look=48.1)
    assert "insertion_gain" not in logged(look=47.9)


def test_a_second_training_compares_with_its_own_beginning(tmp_path):
    model = compiled(keras.Sequential(stack()))
    logger = CamLogger(tmp_path, X[:PROBES], Y[:PROBES], every=1, on_error="raise")
    train(model, logger, epochs=2)
    weights = model.get_weights()
    model.optimizer.learning_rate = 0.0
    train(model, logger, epochs=2)
    for before, after in zip(weights[:2], model.get_weights()[:2], strict=True):
        np.testing.assert_array_equal(before, after)
    assert np.isnan(logger.history["drift"][0])
    assert "insertion_gain" not in logger.history or len(logger.history["insertion_gain"]) == 2


def test_a_model_that_is_not_built_has_nothing_to_compare_with_before(tmp_path):
    model = compiled(keras.Sequential(stack(built=False)))
    logger = CamLogger(tmp_path, X[:PROBES], Y[:PROBES], every=1, on_error="raise")
    train(model, logger, epochs=2)
    assert np.isnan(logger.history["untrained_similarity"]).all()
    assert np.isfinite(logger.history["drift"][1])


def test_masks_say_where_the_objects_are(tmp_path):
    masks = np.zeros((PROBES, *SHAPE[:2]), bool)
    masks[:, 2:8, 3:9] = True
    boxes = [[3, 2, 9, 8]] * PROBES
    found = []
    for run, given in (("masks", masks), ("boxes", boxes)):
        keras.utils.set_random_seed(1)
        names = ["pointing_game", "energy_in_box", "relevance_rank", "localization_auc"]
        logger = CamLogger(
            tmp_path, X[:PROBES], Y[:PROBES], boxes=given, run=run, metrics=names, every=1,
            on_error="raise",
        )  # fmt: skip
        train(compiled(keras.Sequential(stack())), logger, epochs=1)
        found.append({name: logger.history[name] for name in names})
        found.append([v.tolist() for _, _, v in summaries(tmp_path / run) if v.ndim])
    assert found[0] == found[2]
    assert found[1] == found[3]


# Which images


def test_both_shows_the_predicted_class_beside_the_true_one(tmp_path):
    keras.utils.set_random_seed(2)
    model = compiled(keras.Sequential(stack()))
    logger = CamLogger(
        tmp_path, X[:PROBES], Y[:PROBES], score="both", every=1, metrics=[], on_error="raise"
    )
    train(model, logger, epochs=1)
    predicted = model.predict(X[:PROBES], verbose=0)
    classes = predicted.argmax(1)
    assert (classes != Y[:PROBES]).any()
    assert (classes == Y[:PROBES]).any()
    true, other = (GradCAM(model)(each.tolist(), X[:PROBES]) for each in (Y[:PROBES], classes))
    stored = [picture(value) for _, _, value in summaries(tmp_path / "kvis2") if value.ndim]
    for i, found in enumerate(stored):
        same = classes[i] == Y[i]
        beside = Explanation(None) if same else Explanation(other[i], int(classes[i]))
        drawn = panel(
            X[i], true[i], explained=int(Y[i]), beside=beside, probabilities=predicted[i],
            label=int(Y[i]), caption=f"{logger.explainer.layer.name} 10x8",
        )  # fmt: skip
        assert np.abs(found.astype(int) - drawn).max() <= 2
    assert len({each.shape for each in stored}) == 1


def names_of(logger):
    return logger._probes.names


@pytest.mark.slow
def test_probes_are_chosen_per_class_or_by_a_function(tmp_path):
    labels = np.array([2, 2, 2, 0, 1, 2, 0, 1])
    images = X[:8]
    logger = CamLogger(tmp_path, images, labels, choose="per_class", max_images=4)
    assert logger.labels.tolist() == [0, 0, 1, 2]
    np.testing.assert_array_equal(logger.images, images[[3, 6, 4, 0]])
    assert names_of(logger)[1] == "01 #6 class 0"
    boxes = [[0, 0, i + 1, i + 1] for i in range(8)]
    logger = CamLogger(
        tmp_path, images, labels, choose=lambda x, y: np.flatnonzero(y == 1), boxes=boxes
    )
    np.testing.assert_array_equal(logger.images, images[[4, 7]])
    assert logger.boxes == [boxes[4], boxes[7]]
    with pytest.warns(UserWarning, match="are of class 2"):
        CamLogger(tmp_path, images[:3], labels[:3], choose="per_class", max_images=2)


@pytest.mark.slow
def test_worst_are_those_of_the_least_likely_true_class_when_training_begins(tmp_path):
    keras.utils.set_random_seed(4)
    model = compiled(keras.Sequential(stack()))
    likely = model.predict(X, verbose=0)[np.arange(len(X)), Y]
    logger = CamLogger(tmp_path, X, Y, choose="worst", max_images=3, every=1, on_error="raise")
    train(model, logger, epochs=2)
    worst = np.argsort(likely)[:3]
    np.testing.assert_array_equal(logger.images, X[worst])
    assert [name.split()[1] for name in names_of(logger)] == [f"#{i}" for i in worst]
    tags = {tag for _, tag, value in summaries(tmp_path / "kvis2") if value.ndim}
    assert tags == {f"GradCAM/{name}" for name in names_of(logger)}


@pytest.mark.slow
def test_names_lead_back_to_the_file(tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for i in range(3):
            path = tmp_path / "photos" / kind / f"{kind}_{i}.png"
            Image.fromarray(np.full((*SHAPE[:2], 3), 40 * i, np.uint8)).save(path)
    data = keras.utils.image_dataset_from_directory(
        tmp_path / "photos", image_size=SHAPE[:2], batch_size=2, seed=3, verbose=False
    )
    logger = CamLogger(tmp_path, data, max_images=6)
    by_name = dict(zip(names_of(logger), logger.images, strict=True))
    assert sorted(name.split()[1] for name in by_name) == sorted(
        f"{kind}_{i}.png" for kind in ("cat", "dog") for i in range(3)
    )
    for name, image in by_name.items():
        file, label = name.split()[1:]
        assert image[0, 0, 0] == 40 * int(file[4])
        assert file.startswith(label)  # the class names come from the folders
    given = CamLogger(tmp_path, X[:2], Y[:2], names=["left.png", "right.png"])
    assert names_of(given) == ["00 left.png class 0", "01 right.png class 1"]


# Settings


@pytest.mark.slow
def test_log_and_panel_style_are_the_same_as_their_fields(tmp_path):
    log = Log(tmp_path, every=3, run="own", on_error="raise")
    one = CamLogger(log, X[:2], panel=PanelStyle(alpha=0.3, top_k=1))
    other = CamLogger(tmp_path, X[:2], every=3, run="own", on_error="raise", alpha=0.3, top_k=1)
    assert one.log == other.log
    assert one.style == other.style
    assert CamLogger(log, X[:2], every=5).log.every == 5
    kinds = {
        "kvis2": CamLogger(tmp_path, X[:2]),
        "kvis2_saliency": SaliencyLogger(tmp_path, X[:2]),
        "kvis2_filters": FilterLogger(tmp_path),
        "kvis2_activations": ActivationLogger(tmp_path, X[:2]),
    }
    assert {name: each.log.run for name, each in kinds.items()} == {name: name for name in kinds}
    assert FilterLogger(log).log.run == SaliencyLogger(log, X[:2]).log.run == "own"
    with pytest.raises(TypeError, match=r"Expected arguments that CamLogger .*Received: aplha"):
        CamLogger(tmp_path, X[:2], aplha=0.3)


@pytest.mark.slow
def test_a_function_that_makes_an_explainer_gets_what_it_names(tmp_path):
    masks = (X[:PROBES, ..., 0] > 0.5).astype(np.float32)
    seen = {}

    def explainer(model, labels, images, boxes):
        seen.update(labels=labels, images=images, boxes=boxes, loss=model.loss)
        return GradCAM(model)

    model = compiled(keras.Sequential(stack()))
    logger = ExplanationLogger(
        tmp_path, (X[:PROBES], masks), explainer=explainer, score="predicted", every=1,
        on_error="raise",
    )  # fmt: skip
    train(model, logger, epochs=1)
    np.testing.assert_array_equal(seen["labels"], masks)
    np.testing.assert_array_equal(seen["images"], X[:PROBES])
    assert seen["boxes"] is None
    assert seen["loss"] == "sparse_categorical_crossentropy"


@pytest.mark.slow
def test_flat_maps_are_said_once_and_drawn_in_grey(tmp_path):
    model = compiled(keras.Sequential(stack()))
    logger = ExplanationLogger(
        tmp_path, X[:PROBES], Y[:PROBES], every=1, metrics=[],
        explainer=lambda model: lambda score, images: np.full(images.shape[:3], 0.7, np.float32),
    )  # fmt: skip
    with pytest.warns(
        UserWarning, match="maps of 4 of 4 images, such as '00 class 0', are flat"
    ) as w:
        train(model, logger, epochs=3)
    assert len([each for each in w if "flat" in str(each.message)]) == 1
    shown = picture(summaries(tmp_path / "kvis2")[0][2]).astype(int)[20:100, 165:320]
    assert (shown.max(-1) - shown.min(-1)).max() == 0


@pytest.mark.slow
def test_a_map_that_once_was_signed_keeps_its_scale(tmp_path):
    step = iter((-1.0, 0.0))

    def explain(score, images):
        ramp = np.linspace(next(step), 1, images.shape[2], dtype=np.float32)
        return np.broadcast_to(ramp, images.shape[:3])

    model = compiled(keras.Sequential(stack()))
    logger = ExplanationLogger(
        tmp_path, X[:1], Y[:1], every=1, metrics=[], explainer=lambda model: explain
    )
    train(model, logger, epochs=2)
    legends = [picture(v)[18:150, 326:334] for _, _, v in summaries(tmp_path / "kvis2") if v.ndim]
    np.testing.assert_array_equal(legends[0], legends[1])


@pytest.mark.slow
def test_guided_gradients_stay_and_grad_cam_falls(tmp_path):
    """What `untrained_similarity` is for: the sanity check of Adebayo et al. (2018)."""
    from sklearn.datasets import load_digits

    from kvis2 import GuidedReLU

    digits = load_digits()
    x, y = digits.images[..., None].astype(np.float32) / 16, digits.target
    x = np.repeat(np.repeat(x, 3, 1), 3, 2)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(x.shape[1:]),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    compiled(model, keras.optimizers.Adam(5e-3))
    guided = ExplanationLogger(
        tmp_path, x[:16], y[:16], run="guided", every=1,
        explainer=lambda model: Saliency(model, model_modifier=GuidedReLU()),
    )  # fmt: skip
    cam = CamLogger(tmp_path, x[:16], y[:16], every=1)
    model.fit(x, y, epochs=8, batch_size=32, verbose=0, callbacks=[guided, cam])
    stays, falls = (each.history["untrained_similarity"] for each in (guided, cam))
    print(stays, falls)
    # Measured: .59 to .52, and -.03 to -.10.
    assert min(stays) > 0.4
    assert max(falls) < 0.2
