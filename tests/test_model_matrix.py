"""Every kind of model and input x every explainer: the map is right, and the model untouched.

A new explainer is one line in `explainers`, a new kind of model one function in `model_zoo`. The
outcomes are the table in docs/model_matrix.md; `UPDATE_DOCS=1 pytest -m ""` of this file writes it.
"""

import functools
import gc
import os
import pickle
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import keras
import model_matrix
import model_zoo
import numpy as np
import pytest
import tensorflow as tf
from explainers import EXPLAINERS, OF_TRANSFORMERS, public_explainers
from model_zoo import KINDS, SIZE

import kvis2
from kvis2 import scores
from kvis2.models import layers, token_grid
from kvis2.passes import Probe

QUICK = {"GradCAM", "Saliency"}
"""Explainers whose cells are all in the default run: one that watches a layer, one the input."""

REPRESENTATIVE = {*QUICK, "ScoreCAM"}
"""Explainers that the CI tries on every architecture of keras.applications; the others when the
table is written anew."""

INPUT_ONLY = {
    *("FullGrad", "Occlusion", "RISE", "ExtremalMask", "GuidedIG", "BlurIG"),
    *OF_TRANSFORMERS,
}
"""Explainers that take no layer."""
NOISY = {"SmoothGrad", "SmoothGradSquared", "VarGrad"}
"""Explainers by the input that draw noise: other noise where the axes of an input are moved."""

KIN = {
    "CAM",
    "SmoothGradCAMPlusPlus",
    "EigenGradCAM",
    "SegXResCAM",
    "ShapleyCAM",
    "OptiCAM",
    "FEM",
    "IDGI",
    "GuidedIG",
    "BlurIG",
    "LayerConductance",
    "LeGrad",
    "FullGrad",
    "GuidedGradCAM",
    "SmoothGradSquared",
    "VarGrad",
    "ExpectedGradients",
    "ExtremalMask",
}
"""Explainers made of what others here are made of: the CI tries them on the `TELLING` kinds."""
TELLING = {
    "functional",
    "subclassed",
    "TimeDistributed(backbone)",
    "siamese, last call",
    "batch normalisation and dropout",
    "vision transformer, tokens as a grid",
    "segmentation",
    "several outputs, dict",
    "model that declares uint8, layer named",
    "1-D signal",
    "image and vector, dict",
    "tokens (embedding)",
    "mixed float16",
    "channels first",
    "NumPy inside, run_eagerly=True",
}
"""Kinds of model and input that differ in more than how they are wrapped."""
ALWAYS = {*REPRESENTATIVE, "LayerCAM", "SmoothGrad", "IntegratedGradients", "LRP", "Occlusion"}
"""Explainers that the CI tries on every kind; the others on a third of the kinds that suit them."""
BY_DEFAULT = {
    ("functional", "FullGrad"),
    ("functional", "GuidedGradCAM"),
    ("functional", "AttentionRollout"),
    ("vision transformer, tokens as a grid", "GradientAttentionRollout"),
}
"""Some more cells of the default run."""
LAYER_OPTIONS = {"layer", "reshape", "call_index"}

OUTCOMES: dict[tuple[str, str], str] = {}


def cell(kind, method):
    big = kind in model_zoo.SLOW
    marks = []
    of_others = method in KIN and kind not in TELLING
    drawn = (list(KINDS).index(kind) + list(EXPLAINERS).index(method)) % 3 == 0
    if (big and method not in REPRESENTATIVE) or of_others:
        marks = [pytest.mark.exhaustive]
    elif not big and method not in ALWAYS and (kind, method) not in BY_DEFAULT and not drawn:
        marks = [pytest.mark.exhaustive]  # A third is tried, of every kind and every explainer.
    elif big or (method not in QUICK and (kind, method) not in BY_DEFAULT):
        marks = [pytest.mark.slow]
    return pytest.param(kind, method, marks=marks, id=f"{kind}-{method}")


CELLS = [cell(kind, method) for kind in KINDS for method in EXPLAINERS]


def explainer_for(kind, method):
    example = KINDS[kind]()
    options = {**example.options, **example.cheaper.get(method, {})}
    if method in INPUT_ONLY:
        options = {name: each for name, each in options.items() if name not in LAYER_OPTIONS}
    return EXPLAINERS[method](example.model, batch_size=2, normalize=False, **options)


@functools.cache
def explained(kind, method):
    """(the explainer, its raw maps of all samples by flat input)."""
    example = KINDS[kind]()
    explainer = explainer_for(kind, method)
    with warnings.catch_warnings():
        if example.may_be_blank:
            warnings.filterwarnings("ignore", ".* found no evidence")
        maps = explainer(example.score, example.inputs)
    return explainer, _flat(maps)


def _flat(maps):
    if isinstance(maps, dict):
        return [maps[name] for name in sorted(maps)]
    return list(maps) if isinstance(maps, list | tuple) else [maps]


def sentence_for(example, method):
    attends = any(
        isinstance(layer, keras.layers.MultiHeadAttention)
        for _, layer in layers.walk(example.model)
    )
    if method in OF_TRANSFORMERS and not attends:
        return r"with keras\.layers\.MultiHeadAttention layers"
    return example.refused.get(method, example.refused.get("*"))


@pytest.mark.parametrize(("kind", "method"), CELLS)
def test_cell(kind, method):
    example = KINDS[kind]()
    before = snapshot(example.model)
    sentence = sentence_for(example, method)
    if sentence:
        with pytest.raises((ValueError, UserWarning), match=sentence) as caught:
            explained(kind, method)
        OUTCOMES[kind, method] = str(caught.value)
    else:
        explainer, maps = explained(kind, method)
        check_shapes(example, explainer, maps)
        check_alone(example, explainer, maps)
        check_like(example, method, maps)
        OUTCOMES[kind, method] = model_matrix.GREEN
    check_untouched(example.model, before)


def check_shapes(example, explainer, maps):
    watches_layer = explainer.layer is not None
    expected = example.cams if watches_layer and example.cams is not None else example.maps
    expected = _flat(expected if isinstance(expected, list | dict) else [expected])
    if isinstance(explainer, kvis2.BlurIG):  # A vector has no space to blur.
        ranks = [np.ndim(each) for each in _flat(structured(example.inputs))]
        expected = [e if rank > 2 else None for e, rank in zip(expected, ranks, strict=True)]
    found = [None if each is None else each.shape[1:] for each in maps]
    assert found == expected
    for each in maps:
        assert each is None or np.isfinite(each).all()
        assert each is None or (each.dtype == np.float32 and len(each) == 3)
        blank = each is not None and np.abs(each).reshape(3, -1).max(axis=1).min() == 0
        assert example.may_be_blank or not blank
    if explainer.default_layer is not None and example.layer and "layer" not in example.options:
        assert layers.layer_path(example.model, explainer.layer) == example.layer


def check_alone(example, explainer, maps):
    """The map of a sample does not depend on what it is batched with."""
    last = keras.tree.map_structure(lambda each: np.asarray(each)[2:], structured(example.inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = _flat(explainer(score_of(example, 2), last))
    for one, all_of_them in zip(alone, maps, strict=True):
        if one is not None:
            np.testing.assert_allclose(one[0], all_of_them[2], rtol=1e-4, atol=1e-6)


def structured(inputs):
    """Nested lists of numbers are one input."""
    nested = isinstance(inputs, list) and isinstance(inputs[0], list)
    return np.asarray(inputs) if nested else inputs


def score_of(example, sample):
    """The score of one sample."""
    score = scores.as_scores(example.score, 3, layers.output_count(example.model))
    return scores.rows(score, sample, sample + 1)


def check_like(example, method, maps):
    """The maps are those of the same network in another dress."""
    if example.like is None or (example.transposed and method in NOISY):
        return
    for map_, twin in zip(maps, explained(example.like, method)[1], strict=True):
        if example.close is not None:
            for one, other in zip(map_, twin, strict=True):
                assert np.corrcoef(one.ravel(), other.ravel())[0, 1] >= example.close
        else:
            scale = np.abs(twin).max()
            tolerance = 3e-5 if example.transposed else 1e-5  # Other sums in another order.
            np.testing.assert_allclose(map_ / scale, twin / scale, atol=tolerance)


def snapshot(model):
    """All that a model holds: every attribute of every layer by identity, weights by value."""
    named = [("", model), *layers.walk(model)]
    attributes = {
        (path, name): (id(value), _inside(value))
        for path, layer in named
        for name, value in vars(layer).items()
    }
    return attributes, model.get_weights()


def _inside(value):
    return list(map(id, value)) if isinstance(value, list | tuple | set | dict) else None


def check_untouched(model, before):
    after = snapshot(model)
    assert [key for key in before[0] | after[0] if before[0].get(key) != after[0].get(key)] == []
    for one, other in zip(after[1], before[1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in EXPLAINERS],
)
def test_batch_of_33_in_chunks(method):
    """33 samples in chunks of 8 are 33 samples at once; a single image needs no batch axis."""
    kind = "vision transformer, tokens as a grid" if method in OF_TRANSFORMERS else "functional"
    model = KINDS[kind]().model
    size = model.input_shape[1:3]
    images = np.random.default_rng(11).random((33, *size, 3), dtype="float32")
    classes = [n % 3 for n in range(33)]
    chunked = EXPLAINERS[method](model, batch_size=8)
    maps = chunked(classes, images)
    np.testing.assert_allclose(maps, EXPLAINERS[method](model)(classes, images), atol=1e-5)
    alone = chunked(classes[32], images[32])
    assert alone.shape == (1, *size)
    np.testing.assert_allclose(alone[0], maps[32], atol=1e-5)


def test_no_public_explainer_is_left_out():
    assert public_explainers() == set(EXPLAINERS)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras, HDF5.
@pytest.mark.parametrize(
    "kind", ["functional", "subclassed", "backbone two levels deep", "TimeDistributed(backbone)"]
)
def test_untouched_after_an_exception(kind, tmp_path):
    example = KINDS[kind]()

    def failing(output):
        raise RuntimeError("the score fails in the middle of the pass")

    example.model.save_weights(tmp_path / "before.weights.h5")
    before = snapshot(example.model)
    with pytest.raises(RuntimeError, match="in the middle"):
        kvis2.GradCAM(example.model)(failing, example.inputs)
    check_untouched(example.model, before)
    example.model.save_weights(tmp_path / "after.weights.h5")
    saved = [(tmp_path / f"{name}.weights.h5").read_bytes() for name in ("before", "after")]
    assert saved[0] == saved[1]


def test_one_trace_for_images_of_all_sizes():
    model = KINDS["variable size (None, None, 3)"]().model
    for explainer in kvis2.GradCAM(model), kvis2.Saliency(model):
        for height, width in [(12, 10), (20, 16), (9, 31)]:
            images = np.random.default_rng(0).random((2, height, width, 3))
            assert explainer(1, images).shape == (2, height, width)
        assert explainer.trace_count == 1


def test_both_calls_of_a_shared_layer():
    """The two branches of a siamese net add up to what the score depends on."""
    example = KINDS["siamese, last call"]()
    first = explained("siamese, first call", "GradCAM")[1]
    last = explained("siamese, last call", "GradCAM")[1]
    assert last[0] is None
    assert first[1] is None
    # The head is the same for both branches, so a branch alone is the plain network.
    plain = explained("functional", "GradCAM")[1][0]
    np.testing.assert_allclose(first[0], plain / 2, atol=1e-6)
    np.testing.assert_allclose(last[1][::-1], plain / 2, atol=1e-6)
    with pytest.raises(ValueError, match="`call_index` below 2"):
        kvis2.GradCAM(example.model, call_index=2)(1, example.inputs)


def test_time_distributed_over_an_open_number_of_steps():
    clips = keras.Input((None, *SIZE, 3))
    frames = KINDS["TimeDistributed(backbone)"]().model.get_layer("every").layer
    x = keras.layers.TimeDistributed(frames, name="every")(clips)
    model = keras.Model(clips, model_zoo.head()(model_zoo.ClipHead()(x)))
    video = np.random.default_rng(1).random((2, 3, *SIZE, 3), dtype="float32")
    with pytest.raises(ValueError, match=r"'every/frames/late'.*fix the number of time steps"):
        kvis2.GradCAM(model, layer="every/frames/late")(1, video)
    assert kvis2.Saliency(model)(1, video).shape == (2, 3, *SIZE)


def test_model_that_cannot_be_traced_is_explained_eagerly_with_one_warning():
    model = model_zoo.EagerOnly()
    model(model_zoo.IMAGES)
    model.set_weights(model_zoo.weights())
    explainer = kvis2.GradCAM(model, normalize=False)
    with pytest.warns(UserWarning, match="explained eagerly") as caught:
        maps = explainer(1, model_zoo.IMAGES)
    assert len(caught) == 1
    explainer(2, model_zoo.IMAGES)  # Another warning would be an error.
    np.testing.assert_allclose(maps, explained("functional", "GradCAM")[1][0], atol=1e-6)
    with (
        pytest.warns(UserWarning, match="explained eagerly"),
        pytest.raises(ValueError, match="can be traced into a graph"),
    ):
        kvis2.Saliency(model, model_modifier=kvis2.GuidedReLU())(1, model_zoo.IMAGES)


def test_tokens_need_a_layer_and_a_grid_that_fits():
    example = KINDS["vision transformer, tokens as a grid"]()
    grid = example.options["reshape"]
    with pytest.raises(ValueError, match="`layer=` together with `reshape=`"):
        kvis2.GradCAM(example.model, reshape=grid)
    with pytest.raises(ValueError, match="a square number of tokens after 0 leading"):
        kvis2.GradCAM(example.model, layer="norm1", reshape=token_grid(False))(1, example.inputs)
    assert grid == pickle.loads(pickle.dumps(grid))
    assert hash(grid) == hash(token_grid(class_token=True))


def test_token_grid_is_row_by_row():
    tokens = tf.reshape(tf.range(2 * 7 * 1), (2, 7, 1))
    np.testing.assert_array_equal(
        token_grid(class_token=True, shape=(2, 3))(tokens)[1, ..., 0], [[8, 9, 10], [11, 12, 13]]
    )
    square = token_grid(class_token=3)(tokens)
    np.testing.assert_array_equal(square[0, ..., 0], [[3, 4], [5, 6]])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["GradCAM", "ScoreCAM", "Saliency"])
def test_500_calls_with_changing_classes(method):
    """One trace, and memory stays flat."""
    model = model_zoo.functional.__wrapped__().model
    explainer = EXPLAINERS[method](model)

    def calls(count):
        for n in range(count):
            explainer(n % 3, model_zoo.IMAGES)
        gc.collect()
        return resident_megabytes()

    warm = calls(50)
    assert calls(500) - warm < 20
    assert explainer.trace_count == 1


def resident_megabytes():
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("resident memory is read from /proc")
    return int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text())[1]) / 1024


@pytest.mark.slow
def test_inside_mirrored_strategy():
    """Two replicas on two logical CPUs, after a step of training."""
    code = """
        import numpy as np, tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
        import keras, kvis2, model_zoo
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            model = model_zoo.functional().model
            model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(model_zoo.IMAGES[:2], np.array([0, 1]), batch_size=2, verbose=0)
        outside = [e(model)(1, model_zoo.IMAGES) for e in (kvis2.GradCAM, kvis2.Saliency)]
        with strategy.scope():
            inside = [e(model)(1, model_zoo.IMAGES) for e in (kvis2.GradCAM, kvis2.Saliency)]
        plain = model_zoo.Subclassed()
        plain(model_zoo.IMAGES)
        plain.set_weights(model.get_weights())
        for e, a, b in zip((kvis2.GradCAM, kvis2.Saliency), outside, inside, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
            np.testing.assert_allclose(a, e(plain)(1, model_zoo.IMAGES), atol=1e-5)
        print("two replicas", strategy.num_replicas_in_sync)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert "two replicas 2" in result.stdout, result.stderr[-2000:]


def test_layout_of_channels_first_layers_that_this_cpu_cannot_run():
    """The layout is read from the layer, whatever the machine: a stub for a channels_first net."""
    layer = keras.layers.Conv2D(2, 3, data_format="channels_first", name="first")
    model = keras.Sequential([keras.Input((3, 8, 9)), layer])
    assert layers.data_format(model, layer) == "channels_first"
    assert layers.spatial_axes(model, (None, 3, 8, 9), "float32") == [2, 3]
    probe = Probe(model, layer)
    stub = tf.reshape(tf.range(2 * 2 * 3 * 4, dtype=tf.float32), (2, 2, 3, 4))
    np.testing.assert_array_equal(probe._channels_last(stub), np.moveaxis(stub, 1, -1))


def test_table_is_read_back_as_it_was_written():
    sentence = "Expected this. Received: that. Do something."
    outcomes = {
        ("functional", "A"): model_matrix.GREEN,
        ("functional", "B"): sentence,
        ("grey", "A"): "",
        ("grey", "B"): sentence,
    }
    assert model_matrix.parsed(model_matrix.rendered(outcomes)) == outcomes


def test_docs_hold_the_table_of_this_run():
    """The committed table says what was seen: last of the file, after the cells that it is of."""
    assert OUTCOMES or os.environ.get("UPDATE_DOCS"), "Run the whole file: no cell was looked at."
    committed = model_matrix.PAGE.read_text(encoding="utf-8") if model_matrix.PAGE.exists() else ""
    table = model_matrix.parsed(committed)
    if os.environ.get("UPDATE_DOCS"):
        table = {
            tuple(each.values): (table | OUTCOMES).get(tuple(each.values), "") for each in CELLS
        }
        zoo = model_matrix.zoo_part(committed)
        page = model_matrix.rendered(table) + ("\n" + zoo if zoo else "")
        model_matrix.PAGE.write_text(page, encoding="utf-8")
    assert set(table) == {tuple(each.values) for each in CELLS}, "UPDATE_DOCS=1 writes the table."
    exhaustive = {tuple(each.values) for each in CELLS if pytest.mark.exhaustive in each.marks}
    assert {each for each, outcome in table.items() if not outcome} <= exhaustive
    assert {cell: table[cell] for cell in OUTCOMES} == OUTCOMES
