"""Models and layers that explain: what they return is what the explainers return."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kvis2
from kvis2 import CAM, GradCAM, GuidedReLU, IntegratedGradients, LayerCAM, Saliency, ScoreCAM, lrp
from kvis2 import images as pictures
from kvis2.layers import CamLayer, DeconvReLU, Explained, Overlay, RandomJitter
from kvis2.layers import GuidedReLU as GuidedReLULayer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*found no evidence"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras
]
L = keras.layers


def convolutional(size=12):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((size, size, 3))
    x = L.BatchNormalization(name="norm")(L.Conv2D(6, 3, activation="relu", name="first")(inputs))
    x = L.Conv2D(8, 3, activation="relu", name="last")(x)
    outputs = L.Dense(4, activation="softmax")(L.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs, name="net")
    norm = model.get_layer("norm")
    norm.set_weights([each + 0.3 * (i + 1) for i, each in enumerate(norm.get_weights())])
    return model


@pytest.fixture(scope="module")
def model():
    return convolutional()


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).random((5, 12, 12, 3)).astype(np.float32)


EXPLAINERS: list = [
    (GradCAM, {}),
    (GradCAM, {"layer": "first", "resize": False, "normalize": False}),
    (LayerCAM, {"normalize": "minmax"}),
    (CAM, {}),
    (Saliency, {"model_modifier": [kvis2.LinearOutput(), GuidedReLU()]}),
    (Saliency, {"smooth_samples": 3, "seed": 4}),
    (IntegratedGradients, {"steps": 5}),
    (ScoreCAM, {}),
    (kvis2.LRP, {"composite": lrp.EpsilonPlus()}),
    (kvis2.Occlusion, {"window": 4}),
    (kvis2.RISE, {"samples": 8, "seed": 2}),
]


@pytest.mark.parametrize(
    ("explainer", "options"),
    [
        pytest.param(*each, marks=[] if i < 4 else pytest.mark.slow)
        for i, each in enumerate(EXPLAINERS)
    ],
)
def test_explained_returns_predictions_and_the_explainers_maps(model, x, explainer, options):
    explained = Explained(model, explainer, **options)
    result = explained(x)
    np.testing.assert_array_equal(result["predictions"], model(x, training=False))
    expected = explainer(model, fold_batch_norm=False, **options)(None, x)
    np.testing.assert_allclose(result["heatmap"], expected, atol=2e-6)
    assert np.abs(expected).max() > 0


def test_explained_predicts_in_batches_of_any_size_with_one_trace(model, x):
    explained = Explained(model, GradCAM)
    whole = explained(x)
    for size in (1, 2, 5):
        found = explained.predict(x, batch_size=size, verbose=0)
        np.testing.assert_allclose(found["heatmap"], whole["heatmap"], atol=1e-6)
        np.testing.assert_array_equal(found["predictions"], model.predict(x, size, verbose=0))
    assert explained._graph.experimental_get_tracing_count() <= 3


def test_shared_predictions_are_those_of_the_folded_pass(model, x):
    exact, shared = (Explained(model, GradCAM, predictions=p)(x) for p in ("exact", "shared"))
    np.testing.assert_allclose(shared["predictions"], exact["predictions"], atol=1e-5)
    np.testing.assert_allclose(shared["heatmap"], GradCAM(model)(None, x), atol=1e-6)


@pytest.mark.parametrize(
    "explainer",
    [
        GradCAM,
        IntegratedGradients,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (ScoreCAM, kvis2.RISE)),
    ],
)
def test_the_class_is_an_input(model, x, explainer):
    options = {"samples": 8} if explainer is kvis2.RISE else {}
    explained = Explained(model, explainer, score="input", **options)
    classes = np.array([0, 3, -1, 1, -1])
    predicted = model.predict(x, verbose=0).argmax(1)
    asked = np.where(classes < 0, predicted, classes)
    found = explained((x, classes))["heatmap"]
    made = explainer(model, **options)
    np.testing.assert_allclose(found, made(asked.tolist(), x), atol=1e-5)
    assert np.abs(found - made(None, x)).max() > 0.01
    with pytest.raises(ValueError, match=r"Expected \(inputs, classes\)"):
        explained(x)


@pytest.mark.parametrize("score", [2, [0, 1, 2, 3, 0], kvis2.ContrastScore(1, 2)])
def test_fixed_scores(model, x, score):
    found = Explained(model, GradCAM, score=score)(x)["heatmap"]
    np.testing.assert_allclose(found, GradCAM(model)(score, x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("explainer", "options"), [*EXPLAINERS[:2], *EXPLAINERS[4:5], EXPLAINERS[8]]
)
@pytest.mark.parametrize("score", ["predicted", "input", 2])
def test_saved_and_loaded(tmp_path, model, x, explainer, options, score):
    explained = Explained(model, explainer, score=score, name="both", **options)
    given = (x, np.array([0, 1, 2, 3, -1])) if score == "input" else x
    before = explained(given)
    explained.save(tmp_path / "both.keras")
    loaded = keras.saving.load_model(tmp_path / "both.keras")
    after = loaded(given)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])
    assert len(loaded.weights) == len(model.weights)
    assert loaded.name == "both"


def test_a_file_that_names_other_classes_is_refused():
    from kvis2.layers.configuration import from_config

    with pytest.raises(ValueError, match="Expected a class of kvis2 in the file"):
        from_config({"class": {"module": "os", "name": "system"}})
    with pytest.raises(ValueError, match="Expected the name of a class"):
        from_config({"class": {"module": "kvis2.images", "name": "np.save"}})


def test_functions_are_not_saved(tmp_path, model):
    explained = Explained(model, GradCAM, score=lambda output: output[:, 0])
    with pytest.raises(ValueError, match="Expected settings that a file can hold"):
        explained.get_config()


def test_nested_in_another_model(model, x):
    inputs = keras.Input((12, 12, 3))
    result = Explained(model, GradCAM)(inputs)
    drawn = Overlay(value_range=(0, 1))([inputs, result["heatmap"]])
    outer = keras.Model(inputs, [result["predictions"], drawn])
    predictions, picture = outer.predict(x, verbose=0)
    np.testing.assert_allclose(predictions, model.predict(x, verbose=0), atol=1e-6)
    for image, heatmap, found in zip(x, GradCAM(model)(None, x), picture, strict=True):
        expected = pictures.overlay(image, heatmap, limits=(0, 1))
        assert np.abs(found - expected).max() <= 6  # at the border of a colour
        assert np.abs(found - expected).mean() < 0.1


def test_open_image_size_and_mixed_precision(x):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((None, None, 3))
    y = L.Conv2D(4, 3, activation="relu", dtype="mixed_float16")(inputs)
    y = L.GlobalAveragePooling2D(dtype="mixed_float16")(y)
    model = keras.Model(inputs, L.Dense(3, activation="softmax", dtype="float32")(y))
    explained = Explained(model, GradCAM)
    for size in (12, 9):
        images = x[:, :size, :size]
        found = explained(images)
        assert found["heatmap"].shape == (5, size, size)
        np.testing.assert_allclose(found["heatmap"], GradCAM(model)(None, images), atol=2e-3)


@pytest.mark.slow
def test_several_inputs_and_outputs_keep_their_names(x):
    keras.utils.set_random_seed(3)
    image, record = keras.Input((12, 12, 3), name="image"), keras.Input((4,), name="record")
    y = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(image))
    y = L.Concatenate()([y, L.Dense(3)(record)])
    outputs = {"kind": L.Dense(3, activation="softmax")(y), "age": L.Dense(1)(y)}
    model = keras.Model({"image": image, "record": record}, outputs)
    given = {"image": x, "record": np.ones((5, 4), np.float32)}
    score = {"kind": 1, "age": kvis2.InactiveScore()}
    result = Explained(model, GradCAM, score=score)(given)
    assert set(result["predictions"]) == {"kind", "age"}
    for name, values in model(given).items():
        np.testing.assert_array_equal(result["predictions"][name], values)
    expected = GradCAM(model)(score, given)
    np.testing.assert_allclose(result["heatmap"]["image"], expected["image"], atol=1e-5)


@pytest.mark.slow
def test_explained_follows_the_weights_and_is_not_trained(x):
    model = convolutional()
    explained = Explained(model, GradCAM)
    explained(x)
    model.set_weights([0.5 * each for each in model.get_weights()])
    np.testing.assert_allclose(explained(x)["heatmap"], GradCAM(model)(None, x), atol=1e-5)
    with pytest.raises(ValueError, match="Expected to train 'net' itself"):
        explained.fit(x, np.zeros(5))


@pytest.mark.slow
def test_graph_is_refused_outside_of_a_graph(model, x):
    with pytest.raises(ValueError, match=r"Expected tensors of a `tf.function`"):
        GradCAM(model).graph(x)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GradCAM, {"score": "true"}), "Expected score to be 'predicted', 'input' or a score"),
        ((GradCAM, {"predictions": "fast"}), "Expected predictions to be 'exact' or 'shared'"),
        (("GradCAM", {}), "Expected a class of explainers"),
        ((kvis2.DeepDream, {}), "Expected a class of explainers"),
    ],
)
def test_wrong_arguments(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        Explained(model, arguments[0], **arguments[1])


@pytest.mark.slow
def test_one_unit_of_a_sigmoid_is_two_classes(x):
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [keras.Input((12, 12, 3)), L.Conv2D(4, 3, activation="relu"), L.GlobalAveragePooling2D()]
    )
    model.add(L.Dense(1, activation="sigmoid"))
    classes = np.array([0, 1, 0, 1, -1])
    found = Explained(model, CAM, score="input")((x, classes))["heatmap"]
    predicted = (model.predict(x, verbose=0)[:, 0] > 0.5).astype(int)
    asked = np.where(classes < 0, predicted, classes)
    np.testing.assert_allclose(found, CAM(model)(asked.tolist(), x), atol=1e-5)


# Layers


@pytest.mark.slow
def test_cam_layer_is_cam_and_shares_the_classifiers_weights(tmp_path, x):
    keras.utils.set_random_seed(5)
    inputs = keras.Input((12, 12, 3))
    features = L.Conv2D(6, 3, activation="relu", name="features")(inputs)
    dense = L.Dense(4, activation="softmax", name="classes")
    predictions = dense(L.GlobalAveragePooling2D()(features))
    maps = CamLayer(dense, name="maps")(features)
    model = keras.Model(inputs, [predictions, maps])
    plain = keras.Model(inputs, predictions)
    assert len(model.weights) == len(plain.weights)
    found = model(x)[1]
    assert found.shape == (5, 10, 10, 4)
    for index in range(4):
        expected = CAM(plain, resize=False, normalize=False)(index, x)
        np.testing.assert_allclose(found[..., index], expected, atol=1e-5)
    model.save(tmp_path / "cam.keras")
    loaded = keras.saving.load_model(tmp_path / "cam.keras")
    np.testing.assert_allclose(loaded(x)[1], found, atol=1e-6)
    assert loaded.get_layer("maps").dense is loaded.get_layer("classes")
    model.compile("sgd", ["sparse_categorical_crossentropy", None])
    before = np.array(dense.kernel)
    plain.compile("sgd", "sparse_categorical_crossentropy")
    plain.fit(x, np.arange(5) % 4, verbose=0)
    assert np.abs(np.array(model.get_layer("maps").dense.kernel) - before).max() > 0
    with pytest.raises(TypeError, match="Expected the Dense layer"):
        CamLayer(L.Conv2D(3, 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layer", "modifier"),
    [(GuidedReLULayer, kvis2.GuidedReLU()), (DeconvReLU, kvis2.DeconvReLU())],
)
def test_relus_have_the_gradients_of_the_modifiers(tmp_path, x, layer, modifier):
    def built(activation):
        keras.utils.set_random_seed(6)
        stack = [keras.Input((12, 12, 3)), L.Conv2D(5, 3), activation(), L.Conv2D(4, 3)]
        return keras.Sequential([*stack, activation(), L.Flatten(), L.Dense(2)])

    own, plain = built(layer), built(L.ReLU)
    np.testing.assert_allclose(own(x), plain(x), atol=1e-6)
    expected = Saliency(plain, model_modifier=modifier)(1, x)
    np.testing.assert_allclose(Saliency(own)(1, x), expected, atol=1e-5)
    assert np.abs(expected - Saliency(plain)(1, x)).max() > 0.05
    own.save(tmp_path / "own.keras")
    loaded = keras.saving.load_model(tmp_path / "own.keras")
    np.testing.assert_allclose(Saliency(loaded)(1, x), expected, atol=1e-5)
    own.compile("sgd", "mse")
    own.fit(x, np.zeros((5, 2)), verbose=0)
    assert own.compute_output_shape((None, 12, 12, 3)) == (None, 2)


@pytest.mark.slow
def test_random_jitter_rolls_whole_pixels_while_training(tmp_path, x):
    layer = RandomJitter(3, seed=1)
    np.testing.assert_array_equal(layer(x), x)
    rolled = np.asarray(layer(x, training=True))
    shifts = [
        (i, j)
        for i in range(-3, 4)
        for j in range(-3, 4)
        if np.array_equal(np.roll(x, (i, j), (1, 2)), rolled)
    ]
    assert len(shifts) == 1
    again = [np.asarray(layer(x, training=True)) for _ in range(6)]
    assert any(not np.array_equal(each, rolled) for each in again)
    model = keras.Sequential([keras.Input((12, 12, 3)), layer])
    model.save(tmp_path / "jitter.keras")
    assert keras.saving.load_model(tmp_path / "jitter.keras").layers[0].pixels == 3


@pytest.mark.slow
@pytest.mark.parametrize("signed", [False, True])
def test_overlay_is_that_of_images(tmp_path, signed):
    rng = np.random.default_rng(1)
    photos = rng.integers(0, 256, (3, 9, 7, 3)).astype(np.float32)
    maps = rng.random((3, 9, 7)).astype(np.float32) * (2 if signed else 1) - signed
    colormap = "RdBu_r" if signed else "inferno"
    layer = Overlay(0.6, colormap, signed)
    found = layer([photos, maps])
    limits = (-1, 1) if signed else (0, 1)
    for photo, heatmap, drawn in zip(photos.astype(np.uint8), maps, found, strict=True):
        expected = pictures.overlay(photo, heatmap, 0.6, colormap, limits=limits)
        assert np.abs(drawn - expected).max() <= 1
    model = keras.Model([a := keras.Input((9, 7, 3)), b := keras.Input((9, 7))], layer([a, b]))
    model.save(tmp_path / "overlay.keras")
    np.testing.assert_array_equal(
        keras.saving.load_model(tmp_path / "overlay.keras")([photos, maps]), found
    )
    with pytest.raises(ValueError, match="Expected alpha"):
        Overlay(2.0)


@pytest.mark.slow
def test_normalized_tensors_are_those_of_images():
    from kvis2.passes import normalized

    maps = np.random.default_rng(2).normal(size=(3, 4, 5)).astype(np.float32)
    maps[1] = 0
    for mode in ("image", "batch", "minmax", None, False):
        np.testing.assert_allclose(
            normalized(tf.constant(maps), mode), pictures.normalize(maps, mode), atol=1e-6
        )
