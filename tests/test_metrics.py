"""Measures that run a model: slow formulas, the truth of linear models, every kind of model."""

import metric_references as references
import numpy as np
import pytest
import scipy.sparse.linalg
import tensorflow as tf
from keras import Model, Sequential, layers

import kvis2
from kvis2 import metrics
from kvis2.metrics import (
    AverageDrop,
    CompletenessGap,
    ConfidenceGain,
    Deletion,
    Infidelity,
    Insertion,
    MuFidelity,
    Road,
)
from kvis2.metrics.imputation import imputed
from kvis2.models import LinearOutput
from kvis2.passes import trace_count

pytestmark = pytest.mark.slow  # Together a minute and a half; the golden numbers are not.

RANDOM = np.random.default_rng(0)
MAPS = RANDOM.normal(size=(5, 16, 12)).astype(np.float32)


def probability(model, label):
    return lambda images: model(np.float32(images)).numpy()[:, label].astype(float)


def linear_model(shape=(8, 6, 2)):
    """A score that is a weighted sum of all values, and its weights."""
    model = Sequential([layers.Input(shape), layers.Flatten(), layers.Dense(1)])
    weights = np.random.default_rng(1).normal(size=(*shape, 1)).astype(np.float32)
    model.set_weights([weights.reshape(-1, 1), np.float32([0.5])])
    return model, weights[..., 0]


# -- slow formulas ---------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 5, 8])
def test_deletion_and_insertion_equal_one_pass_after_the_other(small_model, images, steps):
    found = {
        shows: measure(small_model, steps=steps, baseline=0.25)(2, images, MAPS)
        for shows, measure in ((False, Deletion), (True, Insertion))
    }
    fractions = [step * 192 // steps / 192 for step in range(steps + 1)]
    for shows, result in found.items():
        np.testing.assert_allclose(result.fractions, fractions, rtol=1e-6)
        for number, (image, heatmap) in enumerate(zip(images, MAPS, strict=True)):
            score = probability(small_model, 2)
            curve = references.curve(score, image, heatmap, 0.25, steps, shows)
            np.testing.assert_allclose(result.curve[number], curve, rtol=1e-5)
            expected = references.area(curve, fractions)
            np.testing.assert_allclose(result[number], expected, rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.95])
def test_imputation_equals_the_dense_linear_system(share):
    images = RANDOM.normal(size=(2, 13, 10, 3)).astype(np.float32)
    missing = RANDOM.random((2, 13, 10)) < share
    found = tf.function(imputed)(images, missing).numpy()
    for image, mask, filled in zip(images, missing, found, strict=True):
        np.testing.assert_allclose(filled, references.imputed(image, mask), atol=2e-6)
        np.testing.assert_array_equal(filled[~mask], image[~mask])


@pytest.mark.slow
@pytest.mark.parametrize("hole", ["large", "scattered", "one pixel left"])
def test_imputation_of_a_photograph_equals_a_sparse_direct_solver(hole):
    size = 160
    rows, columns = np.mgrid[:size, :size] / size
    image = np.stack([rows, np.sin(9 * columns), rows * columns], axis=-1).astype(np.float32)
    image += 0.1 * RANDOM.normal(size=image.shape).astype(np.float32)
    if hole == "large":
        missing = (rows - 0.4) ** 2 + (columns - 0.5) ** 2 < 0.3
    elif hole == "scattered":
        missing = RANDOM.random((size, size)) < 0.8
    else:
        missing = np.ones((size, size), bool)
        missing[20, 30] = False
    found = tf.function(imputed)(image[None], missing[None]).numpy()[0]
    number = np.cumsum(missing).reshape(missing.shape) - 1
    matrix = scipy.sparse.lil_matrix((missing.sum(), missing.sum()))
    wanted = np.zeros((missing.sum(), 3))
    for y, x in np.argwhere(missing):
        for dy, dx in [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]:
            if 0 <= y + dy < size and 0 <= x + dx < size:
                weight = 1 / 12 if dy and dx else 1 / 6
                matrix[number[y, x], number[y, x]] += weight
                if missing[y + dy, x + dx]:
                    matrix[number[y, x], number[y + dy, x + dx]] -= weight
                else:
                    wanted[number[y, x]] += weight * image[y + dy, x + dx]
    expected = scipy.sparse.linalg.spsolve(matrix.tocsc(), wanted)
    np.testing.assert_allclose(found[missing], expected, atol=1e-5 * np.ptp(image))


def test_road_equals_one_system_after_the_other(small_model, images):
    fractions = (0.1, 0.4, 0.75)
    found = Road(small_model, fractions=fractions, noise=0)(1, images, MAPS)
    for value, image, heatmap in zip(found, images, MAPS, strict=True):
        expected = references.road(probability(small_model, 1), image, heatmap, fractions)
        np.testing.assert_allclose(value, expected, atol=1e-6)
    np.testing.assert_allclose(found, found.curve.mean(axis=1), rtol=1e-6)


def test_noise_of_road_is_small_on_removed_pixels_only_and_the_same_in_any_batch():
    shown = Sequential([layers.Input((16, 12, 3)), layers.Flatten()])
    images = RANDOM.random((2, 16, 12, 3), dtype=np.float32)
    heatmap = np.arange(192, dtype=np.float32).reshape(1, 16, 12)
    values = []
    for unit in (0, 191 * 3):  # the first pixel is removed last, the last one first
        road = Road(shown, fractions=(0.5,), noise=0.1)
        values.append(road(unit, images, np.repeat(heatmap, 2, axis=0)).details)
    np.testing.assert_array_equal(values[0]["morf"][:, 0], images[:, 0, 0, 0])
    np.testing.assert_array_equal(values[1]["lerf"][:, 0], images[:, -1, -1, 0])
    quiet = Road(shown, fractions=(0.5,), noise=0)(0, images, np.repeat(heatmap, 2, axis=0))
    moved = values[0]["lerf"] - quiet.details["lerf"]
    ranges = np.ptp(images, axis=(1, 2, 3))
    np.testing.assert_allclose(moved[0] / ranges[0], moved[1] / ranges[1], rtol=1e-3)
    assert 0.001 < np.abs(moved[0] / ranges[0]) < 0.5
    alone = Road(shown, fractions=(0.5,), noise=0.1)(0, images[1:], heatmap)
    np.testing.assert_array_equal(alone.details["lerf"], values[0]["lerf"][1:])


@pytest.mark.parametrize("correlation", ["spearman", "pearson"])
def test_mu_fidelity_equals_one_subset_after_the_other(small_model, images, correlation):
    subsets = RANDOM.random((20, 16, 12)) < 0.2
    measure = MuFidelity(small_model, subsets=subsets, baseline=0.5, correlation=correlation)
    found = measure(3, images, MAPS)
    for value, image, heatmap in zip(found, images, MAPS, strict=True):
        score = before_softmax(small_model, 3)
        function = getattr(references, correlation)
        expected = references.mu_fidelity(score, image, heatmap, subsets, 0.5, function)
        np.testing.assert_allclose(value, expected, atol=1e-4)


def before_softmax(model, label):
    """The score before the softmax, from the weights of the last layer."""
    before = Model(model.input, model.layers[-2].output)
    kernel, bias = model.layers[-1].get_weights()
    return lambda images: (before(np.float32(images)).numpy() @ kernel + bias)[:, label]


def test_subsets_are_drawn_with_an_exact_number_of_cells(small_model, images):
    drawn = MuFidelity(small_model, subsets=30, grid=4, fraction=0.25)._subsets((16, 12))
    assert drawn.shape == (30, 16, 12)
    np.testing.assert_array_equal(drawn.sum(axis=(1, 2)), np.full(30, 4 * 4 * 3))
    np.testing.assert_array_equal(drawn[:, ::4, ::3].repeat(4, 1).repeat(3, 2), drawn)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", ["square", "given", "by image"])
def test_infidelity_equals_one_perturbation_after_the_other(small_model, images, kind, normalize):
    signed = RANDOM.normal(size=images.shape).astype(np.float32)
    if kind == "square":
        given, options = "square", {"grid": 4, "baseline": 0.5}
        # Cells are as many on both sides: 4 x 4, of which the columns are 3 pixels wide.
        weights = np.zeros((16, 5, 16, 12, 3))
        for number, (row, column) in enumerate(np.ndindex(4, 4)):
            part = (slice(None), slice(4 * row, 4 * row + 4), slice(3 * column, 3 * column + 3))
            weights[number][part] = (images - 0.5)[part]
    else:
        shape = (6, 16, 12, 3) if kind == "given" else (6, *images.shape)
        given = (0.1 * RANDOM.normal(size=shape)).astype(np.float32)
        weights = np.broadcast_to(given[:, None] if kind == "given" else given, (6, *images.shape))
        options = {}
    measure = Infidelity(small_model, perturbations=given, normalize=normalize, **options)
    found = measure(0, images, signed)
    for number, image in enumerate(images):
        moves = [each[number] for each in weights]
        expected = references.infidelity(
            before_softmax(small_model, 0), image, signed[number], moves, normalize
        )
        np.testing.assert_allclose(found[number], expected, rtol=1e-4)


def test_drop_and_gain_equal_the_score_behind_the_mask(small_model, images):
    drop, gain = AverageDrop(small_model), ConfidenceGain(small_model)
    drops, gains = drop(1, images, MAPS), gain(1, images, MAPS)
    for number, (image, heatmap) in enumerate(zip(images, MAPS, strict=True)):
        score = probability(small_model, 1)
        before, after = score(image[None])[0], references.masked_score(score, image, heatmap)
        expected = max(0, before - after) / before
        np.testing.assert_allclose(drops[number], expected, rtol=1e-4, atol=1e-6)
        expected = max(0, after - before) / (1 - before)
        np.testing.assert_allclose(gains[number], expected, rtol=1e-4, atol=1e-6)
        assert drops.details["increase"][number] == (after > before)


# -- axioms ----------------------------------------------------------------------------------------


def test_the_truth_of_a_linear_model_is_never_beaten():
    model, weights = linear_model()
    images = RANDOM.normal(size=(3, 8, 6, 2)).astype(np.float32)
    truth = ((images - 0.5) * weights).sum(axis=-1)
    rivals = [truth + noise for noise in RANDOM.normal(size=(6, 3, 8, 6))]
    options = {"baseline": 0.5, "steps": 12}
    best = [measure(model, **options)(0, images, truth) for measure in (Deletion, Insertion)]
    for rival in [*rivals, -truth]:
        assert (Deletion(model, **options)(0, images, rival) >= best[0]).all()
        assert (Insertion(model, **options)(0, images, rival) <= best[1]).all()
    for correlation in ("spearman", "pearson"):
        measure = MuFidelity(model, baseline=0.5, correlation=correlation, grid=4)
        np.testing.assert_allclose(measure(0, images, truth), np.ones(3), rtol=1e-5)
        np.testing.assert_allclose(measure(0, images, -truth), -np.ones(3), rtol=1e-5)
    gradients = np.broadcast_to(weights, images.shape)
    for kind in ("square", "noise"):
        for scale in (1.0, 7.0):
            measure = Infidelity(model, perturbations=kind, baseline=0.5, grid=4)
            np.testing.assert_allclose(measure(0, images, scale * gradients), 0, atol=1e-8)
        plain = Infidelity(model, perturbations=kind, grid=4, normalize=False)
        np.testing.assert_allclose(plain(0, images, gradients), 0, atol=1e-8)
        assert (plain(0, images, 7 * gradients) > 0.01).all()
    shares = Infidelity(model, baseline=0.5, grid=4, multiplies_inputs=True, normalize=False)
    np.testing.assert_allclose(shares(0, images, truth), 0, atol=1e-8)
    np.testing.assert_allclose(shares(0, images, (images - 0.5) * weights), 0, atol=1e-8)
    gap = CompletenessGap(model, baseline=0.5)
    np.testing.assert_allclose(gap(0, images, truth), 0, atol=1e-5)
    np.testing.assert_allclose(gap(0, images, 1.5 * truth), 0.5, atol=1e-4)


def test_order_alone_decides_in_deletion_insertion_and_road(small_model, images):
    for measure in (Deletion(small_model), Insertion(small_model), Road(small_model)):
        expected = measure(None, images, MAPS)
        for changed in (3 * MAPS - 1, np.exp(MAPS.astype(float)), np.arctan(MAPS.astype(float))):
            np.testing.assert_array_equal(measure(None, images, changed), expected)


def test_a_reversed_map_reverses_road(small_model, images):
    road = Road(small_model, noise=0)
    np.testing.assert_allclose(
        road(1, images, -MAPS), -np.asarray(road(1, images, MAPS)), atol=1e-7
    )


def test_a_map_behind_which_everything_is_seen_drops_nothing(small_model, images):
    almost = np.ones((5, 16, 12), np.float32)
    almost[:, 0, 0] = 0
    images = images.copy()
    images[:, 0, 0] = 0
    drop = AverageDrop(small_model)(1, images, almost)
    np.testing.assert_array_equal(drop, np.zeros(5))
    black = AverageDrop(small_model)(1, images, np.zeros_like(almost))
    np.testing.assert_allclose(
        black.details["after"], probability(small_model, 1)(0 * images), rtol=1e-6
    )


def test_a_blank_map_predicts_nothing(small_model, images):
    blank = np.zeros((5, 16, 12), np.float32)
    np.testing.assert_array_equal(MuFidelity(small_model, subsets=10)(1, images, blank), 0)


def test_a_score_that_does_not_move_has_no_fidelity_and_says_so():
    model, _ = linear_model()
    model.set_weights([0 * each for each in model.get_weights()])
    images = RANDOM.normal(size=(2, 8, 6, 2)).astype(np.float32)
    with pytest.warns(UserWarning, match=r"sample \[0, 1\] is the same without any of the sets"):
        found = MuFidelity(model, subsets=5)(0, images, images[..., 0])
    assert np.isnan(np.asarray(found)).all()


# -- what all share --------------------------------------------------------------------------------

MEASURES = {
    "Deletion": lambda model, **options: Deletion(model, steps=4, **options),
    "Insertion": lambda model, **options: Insertion(model, steps=4, **options),
    "Road": lambda model, **options: Road(model, fractions=(0.3, 0.6), **options),
    "MuFidelity": lambda model, **options: MuFidelity(model, subsets=12, **options),
    "Infidelity": lambda model, **options: Infidelity(model, grid=3, **options),
    "AverageDrop": AverageDrop,
    "ConfidenceGain": ConfidenceGain,
    "CompletenessGap": CompletenessGap,
}


@pytest.fixture(params=MEASURES)
def make(request):
    return MEASURES[request.param]


@pytest.mark.slow
def test_neither_chunks_nor_companions_change_a_number(small_model, images, make):
    expected = make(small_model)(None, images, MAPS)
    for size in (1, 2, 3, 50):
        found = make(small_model, batch_size=size)(None, images, MAPS)
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)
    alone = make(small_model)(None, images[3:4], MAPS[3:4])
    np.testing.assert_allclose(alone, expected[3:4], rtol=2e-4, atol=1e-6)


def test_the_predicted_class_is_that_of_the_whole_image(small_model, images, make):
    labels = small_model(images).numpy().argmax(axis=1).tolist()
    expected = make(small_model)(labels, images, MAPS)
    np.testing.assert_allclose(make(small_model)(None, images, MAPS), expected, rtol=1e-5)


def test_the_random_control_is_the_measure_of_random_maps(small_model, images, make):
    found = make(small_model, random_control=2)(1, images, MAPS)
    plain = make(small_model)
    np.testing.assert_allclose(found, plain(1, images, MAPS), rtol=1e-4, atol=1e-7)
    noise = metrics.random_maps(MAPS.shape, 2)
    expected = np.mean([plain(1, images, each) for each in noise], axis=0)
    np.testing.assert_allclose(found.random_control, expected, rtol=1e-4, atol=1e-7)
    sign = 1 if found.better == "higher" else -1
    np.testing.assert_allclose(found.gain, sign * (np.asarray(found) - expected), atol=1e-3)


def test_one_trace_serves_all_classes_and_batches_and_the_model_is_left_alone(
    small_model, images, make
):
    weights = small_model.get_weights()
    measure = make(small_model)
    measure(1, images, MAPS)
    before = trace_count(small_model)
    measure(2, images[:3], MAPS[:3])
    make(small_model)([3, 0], images[:2], MAPS[:2])
    assert trace_count(small_model) == before
    for now, then in zip(small_model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)


def test_new_weights_are_seen(small_model, images, make):
    measure = make(small_model)
    before = measure(1, images, MAPS)
    small_model.set_weights([each[::-1] for each in small_model.get_weights()])
    np.testing.assert_array_equal(measure(1, images, MAPS), make(small_model)(1, images, MAPS))
    same = np.array_equal(measure(1, images, MAPS), before)
    assert not same or not np.any(before)  # a gain may be zero before and after


def test_settings_are_in_the_result(small_model, images):
    found = Deletion(small_model, steps=4, baseline=0.5)(1, images, MAPS)
    assert found.settings["steps"] == 4
    assert found.settings["baseline"] == 0.5
    assert found.settings["score"] == 1
    assert "steps=4, baseline=0.5" in repr(found)
    assert found.random_control is None


def test_the_ends_of_the_curves_are_shared_with_the_random_control(small_model, images):
    rows = []

    class Counted(layers.Layer):
        def call(self, inputs):
            return tf.ensure_shape(tf.py_function(self.count, [inputs], tf.float32), inputs.shape)

        def count(self, inputs):
            rows.append(len(inputs))
            return inputs

    model = Sequential([layers.Input((16, 12, 3)), Counted(), small_model])
    gains = metrics.insertion_gain(model, 1, images, MAPS, steps=8)
    assert sum(rows) == 5 * 2 * 8
    found = Insertion(small_model, steps=8, random_control=1)(1, images, MAPS)
    np.testing.assert_allclose(gains, found.gain, rtol=1e-4, atol=1e-6)
    curves = found.curve, found.random_control.curve
    np.testing.assert_allclose(curves[0][:, [0, -1]], curves[1][:, [0, -1]], rtol=1e-6)


# -- baselines -------------------------------------------------------------------------------------


def test_baselines_are_in_the_input_space_of_the_model(small_model, images):
    whole = {
        "mean": np.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape),
        0.3: np.full_like(images, 0.3),
        "array": images[::-1].copy(),
    }
    for name, array in whole.items():
        given = array if name == "array" else name
        found = Insertion(small_model, steps=2, baseline=given)(1, images, MAPS)
        expected = probability(small_model, 1)(array)
        np.testing.assert_allclose(found.curve[:, 0], expected, rtol=1e-5)
    function = Insertion(small_model, steps=2, baseline=lambda x: x[::-1])(1, images, MAPS)
    np.testing.assert_allclose(function, found, rtol=1e-6)
    blurred = Insertion(small_model, steps=2, baseline="blur")(1, images, MAPS)
    occluded = kvis2.passes.blur(tf.constant(images), 16 / 20, [1, 2]).numpy()
    expected = probability(small_model, 1)(occluded)
    np.testing.assert_allclose(blurred.curve[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("baseline", ["black", None, np.full((16, 12, 3), np.nan), np.ones((4, 4))])
def test_what_is_no_baseline_is_named(small_model, images, baseline):
    with pytest.raises(ValueError, match=r"Expected .*baseline"):
        Deletion(small_model, baseline=baseline)(1, images, MAPS)


# -- every kind of model ---------------------------------------------------------------------------


def references_agree(model, score, images, maps, own):
    """Deletion and insertion of any model against loops; `own` scores arrays in NumPy."""
    for measure, shows in ((Deletion, False), (Insertion, True)):
        found = measure(model, steps=3, baseline=0.25)(score, images, maps)
        for number, (image, heatmap) in enumerate(zip(images, maps, strict=True)):
            curve = references.curve(lambda x, n=number: own(x, n), image, heatmap, 0.25, 3, shows)
            np.testing.assert_allclose(found.curve[number], curve, rtol=1e-5, atol=1e-6)


def test_nested_and_subclassed_models(small_model, images):
    nested = Sequential([layers.Input((16, 12, 3)), small_model])

    class Subclassed(Model):
        def __init__(self):
            super().__init__()
            self.inner = small_model

        def call(self, inputs):
            return self.inner(inputs)

    subclassed = Subclassed()
    subclassed(images)
    for make in MEASURES.values():
        expected = make(small_model)(None, images, MAPS)
        for model in (nested, subclassed):
            np.testing.assert_allclose(
                make(model)(None, images, MAPS), expected, rtol=1e-4, atol=1e-6
            )


def body(filters=4):
    return [layers.Conv2D(filters, 3, activation="relu"), layers.GlobalAveragePooling2D()]


def test_one_unit_sigmoid_has_two_classes(images):
    model = Sequential([layers.Input((16, 12, 3)), *body(), layers.Dense(1, activation="sigmoid")])
    for label in (0, 1):

        def own(x, _, label=label):
            p = model(np.float32(x)).numpy()[:, 0]
            return p if label else 1 - p

        references_agree(model, label, images, MAPS, own)


def test_regression_in_both_directions(images):
    model = Sequential([layers.Input((16, 12, 3)), *body(), layers.Dense(1)])
    score = kvis2.RegressionScore("decrease")
    references_agree(model, score, images, MAPS, lambda x, _: -model(np.float32(x)).numpy()[:, 0])
    model.layers[-1].bias.assign([-50.0])
    with pytest.raises(ValueError, match=r"scores above 0, .* Received: -\d+.* for sample \[0, 1"):
        AverageDrop(model)(kvis2.RegressionScore(), images, MAPS)


def test_segmentation_in_the_region_of_each_image(images):
    stack = [layers.Conv2D(4, 3, padding="same", activation="relu")]
    model = Sequential(
        [layers.Input((16, 12, 3)), *stack, layers.Conv2D(3, 1, activation="softmax")]
    )
    regions = RANDOM.random((5, 16, 12)) < 0.4

    def own(x, number):
        return model(np.float32(x)).numpy()[:, regions[number], 2].mean(axis=1)

    score = kvis2.SegmentationScore(2, regions)
    references_agree(model, score, images, MAPS, own)
    chunked = Deletion(model, steps=3, baseline=0.25, batch_size=2)(score, images, MAPS)
    whole = Deletion(model, steps=3, baseline=0.25)(score, images, MAPS)
    np.testing.assert_allclose(chunked, whole, rtol=1e-5)


def two_inputs():
    left, right = layers.Input((16, 12, 3), name="left"), layers.Input((6,), name="right")
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(left))
    x = layers.Concatenate()([pooled, layers.Dense(3)(right)])
    return Model([left, right], layers.Dense(3, activation="softmax")(x))


def test_two_inputs_go_together_or_one_alone(images):
    model = two_inputs()
    vectors = RANDOM.normal(size=(5, 6)).astype(np.float32)
    features = RANDOM.normal(size=(5, 6)).astype(np.float32)

    def score(left, right):
        return model([np.float32(left)[None], np.float32(right)[None]]).numpy()[0, 1]

    both = Deletion(model, steps=4, baseline=[0.25, -1.0])(1, [images, vectors], [MAPS, features])
    by_name = {"left": images, "right": vectors}
    named = Deletion(model, steps=4, baseline=0.25)(1, by_name, {"left": MAPS})
    one = Deletion(model, steps=4, baseline=0.25)(1, [images, vectors], [MAPS, None])
    np.testing.assert_allclose(named, one, rtol=1e-6)
    for n in range(5):
        for step in range(5):
            pixels = references.first(MAPS[n], step * 192 // 4)
            image = np.where(pixels[..., None], 0.25, images[n])
            gone = references.first(features[n], step * 6 // 4)
            vector = np.where(gone, -1.0, vectors[n])
            np.testing.assert_allclose(both.curve[n, step], score(image, vector), rtol=1e-5)
            np.testing.assert_allclose(one.curve[n, step], score(image, vectors[n]), rtol=1e-5)
    with pytest.raises(ValueError, match=r"map of one input. Received: maps of 2 inputs"):
        Road(model)(1, [images, vectors], [MAPS, features])
    with pytest.raises(ValueError, match=r"at least one input. Received: None"):
        Deletion(model)(1, [images, vectors], [None, None])


@pytest.mark.parametrize("shape", [(20, 2), (5, 6, 4, 1)])
def test_signals_and_volumes(shape):
    rank = len(shape) - 1
    convolution = {1: layers.Conv1D, 3: layers.Conv3D}[rank]
    stack = [convolution(3, 3, padding="same", activation="relu"), layers.Flatten()]
    model = Sequential([layers.Input(shape), *stack, layers.Dense(3, activation="softmax")])
    inputs = RANDOM.normal(size=(2, *shape)).astype(np.float32)
    maps = RANDOM.normal(size=(2, *shape[:-1])).astype(np.float32)
    references_agree(
        model, 1, inputs, maps, lambda x, _: model(np.float32(x)).numpy()[:, 1].astype(float)
    )
    for name in ("MuFidelity", "Infidelity", "AverageDrop", "ConfidenceGain", "CompletenessGap"):
        assert np.isfinite(np.asarray(MEASURES[name](model)(1, inputs, maps))).all()
    with pytest.raises(ValueError, match=r"eight neighbours. Received: shape .* Use Deletion"):
        Road(model)(1, inputs, maps)


def test_tokens_are_replaced_by_a_token():
    model = Sequential([layers.Input((7,), dtype="int32"), layers.Embedding(9, 4)])
    model.add(layers.Flatten())
    model.add(layers.Dense(2, activation="softmax"))
    tokens = RANDOM.integers(1, 9, (3, 7))
    maps = RANDOM.normal(size=(3, 7)).astype(np.float32)
    found = Deletion(model, steps=7, baseline=0)(1, tokens, maps)
    for n in range(3):
        for step in range(8):
            gone = references.first(maps[n], step)
            expected = model(np.where(gone, 0, tokens[n])[None]).numpy()[0, 1]
            np.testing.assert_allclose(found.curve[n, step], expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"int32 tokens. Give the baseline as a token"):
        Deletion(model)(1, tokens, maps)


def test_channels_first_is_the_same_with_the_axes_moved():
    def pooled(layout, shape):
        pooling = layers.GlobalAveragePooling2D(data_format=layout)
        head = layers.Dense(3, activation="softmax")
        model = Sequential([layers.Input(shape), pooling, head])
        model.set_weights([np.float32([[2, -1, 0], [0, 3, -2], [1, 1, 1]]), np.zeros(3)])
        return model

    images = RANDOM.random((3, 8, 6, 3), dtype=np.float32)
    maps = RANDOM.random((3, 8, 6), dtype=np.float32)
    last = pooled("channels_last", (8, 6, 3))
    first = pooled("channels_first", (3, 8, 6))
    for name, make in MEASURES.items():
        options = {"noise": 0} if name == "Road" else {}
        expected = make(last, **options)(1, images, maps)
        found = make(first, **options)(1, images.transpose(0, 3, 1, 2), maps)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6, err_msg=name)
    subsets = RANDOM.random((4, 3, 8, 6)) < 0.3  # of three images, or of three channels?
    with pytest.raises(ValueError, match="as many images as channels"):
        MuFidelity(first, subsets=subsets)(1, images.transpose(0, 3, 1, 2), maps)


# -- bad input -------------------------------------------------------------------------------------


def test_maps_that_do_not_fit_are_named(small_model, images, make):
    with pytest.raises(ValueError, match=r"Expected maps of shape \(5, 16, 12\).* `resize=True`"):
        make(small_model)(1, images, MAPS[:, :8])
    with pytest.raises(ValueError, match=r"Expected maps of shape \(5, 16, 12\)"):
        make(small_model)(1, images, MAPS[:2])
    with pytest.raises(ValueError, match="finite maps"):
        make(small_model)(1, images, np.full_like(MAPS, np.inf))
    single = make(small_model)(1, images[0], MAPS[0])
    assert single.shape == (1,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Deletion(m, steps=0), "`steps` to be a positive int. Received: 0"),
        (lambda m: Deletion(m, batch_size=0), "`batch_size` to be a positive int"),
        (lambda m: Deletion(m, random_control=-1), "number of random maps, from 0"),
        (lambda m: Road(m, fractions=(0.5, 0.2)), "ascending fractions between 0 and 1"),
        (lambda m: Road(m, fractions=(0.5, 1.0)), "ascending fractions between 0 and 1"),
        (lambda m: Road(m, noise=-1), "`noise` as a fraction"),
        (lambda m: MuFidelity(m, correlation="kendall"), "'spearman' or 'pearson'"),
        (lambda m: MuFidelity(m, fraction=1.0), "`fraction` between 0 and 1"),
        (lambda m: Infidelity(m, perturbations="blur"), "'square', 'noise', or an array"),
    ],
)
def test_settings_that_make_no_sense_are_named(small_model, make, message):
    with pytest.raises(ValueError, match=message):
        make(small_model)


def test_probabilities_are_asked_for_where_shares_of_them_are_taken(small_model, images):
    linear = LinearOutput()
    with pytest.raises(ValueError, match="Expected probabilities"):
        ConfidenceGain(small_model, model_modifier=linear)(kvis2.ContrastScore(0, 1), images, MAPS)
