"""A model with its explanation in a file: it is run where neither kvis2 nor Keras is."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_layers import convolutional

import kvis2
from kvis2 import GradCAM, LayerCAM, Saliency, export

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*found no evidence"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras
]
L = keras.layers


@pytest.fixture(scope="module")
def model():
    return convolutional()


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).random((5, 12, 12, 3)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("explainer", "options"),
    [
        (GradCAM, {}),
        (LayerCAM, {"layer": "first"}),
        (Saliency, {}),
        (kvis2.IntegratedGradients, {"steps": 4}),
        (kvis2.LRP, {}),
    ],
)
def test_a_saved_model_says_what_the_explainer_says(tmp_path, model, x, explainer, options):
    made = explainer(model, **options)
    report = export(made, tmp_path / "served", class_input=True, sample=x)
    assert report.difference < 1e-4
    assert report.prediction_difference == 0
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    classes = np.array([0, 1, 2, 3, -1], np.int32)
    found = serve(images=tf.constant(x), class_index=tf.constant(classes))
    predicted = model.predict(x, verbose=0).argmax(1)
    expected = made(np.where(classes < 0, predicted, classes).tolist(), x)
    np.testing.assert_allclose(found["heatmap"], expected, atol=1e-4)
    np.testing.assert_array_equal(found["predictions"], model(x, training=False))
    assert report.inputs == ("images", "class_index")
    assert "serving_default: images, class_index -> heatmap, predictions" in str(report)


@pytest.mark.slow
def test_it_runs_in_a_process_without_kvis2_and_without_keras(tmp_path, model, x):
    export(GradCAM(model), tmp_path / "served")
    np.save(tmp_path / "x.npy", x)
    script = """
        import sys
        import numpy as np, tensorflow as tf
        class Refused:  # From here on: TensorFlow itself looks for Keras when it is imported.
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("kvis2", "keras"):
                    raise ImportError(name)
        for name in [each for each in sys.modules if each.split(".")[0] == "keras"]:
            del sys.modules[name]
        sys.meta_path.insert(0, Refused())
        x = np.load(sys.argv[1] + "/x.npy")
        serve = tf.saved_model.load(sys.argv[1] + "/served").signatures["serving_default"]
        found = serve(images=tf.constant(x[:3]))
        assert "kvis2" not in sys.modules and "keras" not in sys.modules
        np.savez(sys.argv[1] + "/found.npz", **{k: v.numpy() for k, v in found.items()})
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_allclose(found["heatmap"], GradCAM(model)(None, x[:3]), atol=1e-5)
    np.testing.assert_allclose(found["predictions"], model(x[:3]), atol=1e-6)


@pytest.mark.slow
def test_weights_are_in_the_file_once(tmp_path):
    inputs = keras.Input((8, 8, 3))
    y = L.GlobalAveragePooling2D()(L.Conv2D(64, 3, activation="relu")(inputs))
    model = keras.Model(inputs, L.Dense(4, activation="softmax")(L.Dense(9000)(y)))
    report = export(GradCAM(model), tmp_path / "served")
    held = 4 * model.count_params()
    assert held < report.bytes < 1.3 * held


@pytest.mark.slow
def test_several_inputs_and_outputs_have_names(tmp_path, x):
    keras.utils.set_random_seed(3)
    image, record = keras.Input((12, 12, 3), name="image"), keras.Input((4,), name="record")
    y = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(image))
    y = L.Concatenate()([y, L.Dense(3)(record)])
    model = keras.Model([image, record], L.Dense(3, activation="softmax")(y))
    export(GradCAM(model), tmp_path / "served")
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    rows = np.ones((5, 4), np.float32)
    found = serve(image=tf.constant(x), record=tf.constant(rows))
    assert set(found) == {"predictions", "heatmap_image"}
    expected = GradCAM(model)(None, {"image": x, "record": rows})
    np.testing.assert_allclose(found["heatmap_image"], expected["image"], atol=1e-5)


@pytest.mark.slow
def test_an_older_file_is_replaced_and_nothing_else_is(tmp_path, model):
    export(GradCAM(model), tmp_path / "served")
    export(Saliency(model), tmp_path / "served")
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    assert serve(images=tf.zeros([1, 12, 12, 3]))["heatmap"].shape == (1, 12, 12)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="which holds something else"):
        export(GradCAM(model), tmp_path / "mine")
    assert {each.name for each in tmp_path.iterdir()} == {"served", "mine"}


def test_what_differs_is_refused_and_not_left_behind(tmp_path, model):
    with pytest.raises(ValueError, match="Expected the file to say what Saliency says"):
        export(Saliency(model, smooth_samples=2, seed=None), tmp_path / "served")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="Expected format to be one of 'saved_model', 'litert'"):
        export(GradCAM(model), tmp_path / "served", "torch")
    with pytest.raises(ValueError, match="Expected predictions"):
        export(GradCAM(model), tmp_path / "served", predictions="fast")
