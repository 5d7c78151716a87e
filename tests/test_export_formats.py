"""A model with its explanation in LiteRT, ONNX and OpenVINO, opened by their own runtimes."""

import argparse
import importlib.util
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_examples import code_blocks
from test_layers import convolutional
from test_photographs import boxed_objects
from test_portable_gradients import network

import kvis2
from kvis2 import CAM, GradCAM, LayerCAM, Saliency, dataset, export

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*found no evidence"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras
]
L = keras.layers
SUFFIXES = {"litert": ".tflite", "onnx": ".onnx", "openvino": ".xml"}
PACKAGES = {
    "litert": ["ai_edge_litert"],
    "onnx": ["tf2onnx", "onnx", "onnxruntime"],
    "openvino": ["openvino"],
}


def needs(name):
    missing = [each for each in PACKAGES[name] if importlib.util.find_spec(each) is None]
    return pytest.param(
        name,
        marks=pytest.mark.skipif(
            bool(missing), reason=f"not installed: {', '.join(missing)} (pip install kvis2[export])"
        ),
    )


LITERT, ONNX, OPENVINO = map(needs, SUFFIXES)


def opened(path):
    """A file in its own runtime, without anything of kvis2."""
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path))
        names = [each.name for each in session.get_outputs()]
        return lambda **given: dict(zip(names, session.run(None, given), strict=True))
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda **given: {sorted(k.names)[0]: v for k, v in compiled(given).items()}


CASES: list = [
    (GradCAM, {}),
    (GradCAM, {"layer": "first"}),
    (kvis2.GradCAMPlusPlus, {"layer": "depthwise"}),
    (LayerCAM, {"layer": "pool"}),
    (CAM, {}),
    (Saliency, {}),
]


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).random((5, 24, 24, 3)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "explainer", "options"),
    [
        pytest.param(*format.values, *case, marks=format.marks)
        for format, cases in (
            (LITERT, CASES),
            (ONNX, CASES),
            (OPENVINO, CASES[1:2]),  # It takes twenty seconds to convert each.
        )
        for case in cases
    ],
)
def test_a_file_says_what_the_explainer_says(tmp_path, model, x, format, explainer, options):
    made = explainer(model, **options)
    path = tmp_path / f"served{SUFFIXES[format]}"
    report = export(made, path, format, class_input=True)
    assert report.difference < 1e-4
    assert report.prediction_difference < 1e-5
    assert report.inputs == ("images", "class_index")
    classes = np.array([0, 1, 2, 3, -1], np.int32)
    found = opened(path)(images=x, class_index=classes)  # The batch is open.
    predicted = model.predict(x, verbose=0).argmax(1)
    expected = made(np.where(classes < 0, predicted, classes).tolist(), x)
    np.testing.assert_allclose(found["heatmap"], expected, atol=1e-4)
    np.testing.assert_allclose(found["predictions"], model(x, training=False), atol=1e-5)
    assert not [each for each in report.operations if "Grad" in each or "FLEX" in each.upper()]
    left = {"served" + SUFFIXES[format], *(["served.bin"] if format == "openvino" else [])}
    assert {each.name for each in tmp_path.iterdir()} == left


@pytest.mark.slow
@pytest.mark.parametrize("format", [LITERT, ONNX])
def test_one_sample_at_once_and_one_size(tmp_path, x, format):
    inputs = keras.Input((None, None, 3))
    y = L.Conv2D(8, 3, strides=2, activation="relu", name="first")(inputs)
    y = L.Conv2D(8, 3, activation="relu")(y)
    model = keras.Model(inputs, L.Dense(5, activation="softmax")(L.GlobalAveragePooling2D()(y)))
    path = tmp_path / f"served{SUFFIXES[format]}"
    made = GradCAM(model, layer="first")
    with pytest.raises(ValueError, match=r"Expected images of one size.*Give `size=`"):
        export(made, path, format)
    report = export(made, path, format, batch=1, size=(24, 24), predictions="shared")
    assert report.inputs == ("images",)
    found = opened(path)(images=x[:1])
    np.testing.assert_allclose(found["heatmap"], made(None, x[:1]), atol=1e-4)


def heavy():
    """Nearly all weights are in a product and a convolution that gradients go through."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((8, 8, 3))
    y = L.Conv2D(64, 3, activation="relu", name="first")(inputs)
    y = L.Conv2D(512, 1, activation="relu")(y)
    y = L.Conv2D(32, 3, padding="same", activation="relu")(y)
    y = L.GlobalAveragePooling2D()(y)
    return keras.Model(inputs, L.Dense(3000, activation="softmax")(y))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "layer", "most"),
    [
        pytest.param("litert", None, 1.2, marks=LITERT.marks),
        # LiteRT has no product with transposed weights: those on the way back are there twice.
        pytest.param("litert", "first", 1.8, marks=LITERT.marks),
        pytest.param("onnx", None, 1.2, marks=ONNX.marks),
        pytest.param("onnx", "first", 1.2, marks=ONNX.marks),
    ],
)
def test_weights_are_in_the_file_once(tmp_path, format, layer, most):
    model = heavy()
    report = export(GradCAM(model, layer=layer), tmp_path / f"a{SUFFIXES[format]}", format)
    held = 4 * model.count_params()
    assert 0.95 * held < report.bytes < most * held  # Biases are zeros, which some leave out.


@pytest.mark.slow
@pytest.mark.parametrize("format", [LITERT])
def test_cam_in_int8_hands_out_raw_maps(tmp_path, model, x, format):
    images = np.random.default_rng(1).random((40, 24, 24, 3)).astype(np.float32)
    raw = CAM(model, normalize=False)
    path = tmp_path / "cam.tflite"
    report = export(raw, path, format, representative=images, class_input=True, batch=1)
    assert report.correlation > 0.99
    serve = opened(path)
    details = serve._interpreter.get_tensor_details() if hasattr(serve, "_interpreter") else []
    assert not details or any(each["dtype"] == np.int8 for each in details)
    for image, label in zip(x, (0, 1, 2, 3, -1), strict=True):
        found = serve(images=image[None], class_index=np.int32([label]))["heatmap"]
        expected = raw(None if label < 0 else label, image[None])
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    with pytest.raises(ValueError, match=r"Expected raw maps.*`CAM\(model, normalize=False\)`"):
        export(CAM(model), path, format, representative=images)
    cam = kvis2.ReciproCAM(model, normalize=False)
    with pytest.raises(ValueError, match=r"Expected operations that LiteRT int8 has.*While"):
        export(cam, tmp_path / "b.tflite", format, representative=images)


@pytest.mark.slow
@pytest.mark.parametrize("format", [LITERT, ONNX, OPENVINO])
def test_what_a_format_has_no_operation_for_is_refused_by_its_name(tmp_path, model, format):
    path = tmp_path / f"served{SUFFIXES[format]}"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"Received: .*DepthwiseConv2dNativeBackprop") as refusal:
        export(kvis2.LRP(model), path, format)
    assert "format='saved_model'" in str(refusal.value)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("format", [LITERT, ONNX])
def test_every_operation_that_is_missing_is_named(tmp_path, model, format):
    with pytest.raises(ValueError, match=r"Received: .*SelfAdjointEigV2.*, which it has not"):
        export(kvis2.EigenCAM(model), tmp_path / f"served{SUFFIXES[format]}", format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("format", [LITERT, ONNX])
def test_what_differs_is_refused_and_not_left_behind(tmp_path, model, format):
    noisy = Saliency(model, smooth_samples=2, seed=None)
    with pytest.raises(
        ValueError, match=r"Expected the file to say what Saliency says|Expected operations"
    ):
        export(noisy, tmp_path / f"served{SUFFIXES[format]}", format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", SUFFIXES)
def test_files_have_their_endings(tmp_path, model, format):
    with pytest.raises(ValueError, match=f"ends in '{SUFFIXES[format]}'"):
        export(GradCAM(model), tmp_path / "served", format)
    if format != "litert":
        with pytest.raises(ValueError, match="Expected no `representative` data"):
            export(GradCAM(model), tmp_path / f"a{SUFFIXES[format]}", format, representative=[1])


def test_packages_that_are_missing_are_named(tmp_path, model, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"tf2onnx, onnx, onnxruntime for files of ONNX.*kvis2\[export\]"
    ):
        export(GradCAM(model), tmp_path / "served.onnx", "onnx")


@pytest.mark.slow
@pytest.mark.parametrize("format", [LITERT, ONNX])
def test_it_runs_in_a_process_without_tensorflow(tmp_path, model, x, format):
    path = tmp_path / f"served{SUFFIXES[format]}"
    export(GradCAM(model), path, format)
    np.save(tmp_path / "x.npy", x)
    script = """
        import sys
        import numpy as np
        class Refused:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("kvis2", "keras", "tensorflow"):
                    raise ImportError(name)
        sys.meta_path.insert(0, Refused())
        path, folder = sys.argv[1:]
        x = np.load(folder + "/x.npy")
        if path.endswith(".tflite"):
            from ai_edge_litert.interpreter import Interpreter
            found = Interpreter(path).get_signature_runner("serving_default")(images=x)
        else:
            import onnxruntime
            session = onnxruntime.InferenceSession(path)
            names = [each.name for each in session.get_outputs()]
            found = dict(zip(names, session.run(None, {"images": x})))
        np.savez(folder + "/found.npz", **found)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path), str(tmp_path)]
    subprocess.run(command, check=True)
    found = np.load(tmp_path / "found.npz")
    np.testing.assert_allclose(found["heatmap"], GradCAM(model)(None, x), atol=1e-5)
    np.testing.assert_allclose(found["predictions"], model(x), atol=1e-6)


@pytest.mark.slow
def test_a_saved_model_shows_its_signature_to_the_tool_of_tensorflow(tmp_path):
    export(GradCAM(convolutional()), tmp_path / "served", class_input=True)
    np.save(tmp_path / "x.npy", np.ones((2, 12, 12, 3), np.float32))
    np.save(tmp_path / "c.npy", np.int32([0, -1]))
    tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    which = ["--tag_set", "serve", "--signature_def", "serving_default"]
    given = f"images={tmp_path}/x.npy;class_index={tmp_path}/c.npy"
    run = [*tool, "run", "--dir", str(tmp_path / "served"), *which, "--inputs", given]
    subprocess.run(
        [*run, "--outdir", str(tmp_path)],
        check=True,
        capture_output=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    expected = GradCAM(convolutional())(0, np.load(tmp_path / "x.npy"))
    np.testing.assert_allclose(np.load(tmp_path / "heatmap.npy")[0], expected[0], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("format", [LITERT, ONNX, OPENVINO])
def test_objects_in_photographs_are_found_by_a_file_as_well(tmp_path, shared_data, format):
    _, images, classes, masks = boxed_objects(shared_data)
    classes = np.int32(classes)
    made = GradCAM(keras.models.load_model(shared_data / "efficientnet_lite0.keras"))
    path = tmp_path / f"lite0{SUFFIXES[format]}"
    export(made, path, format, class_input=True, sample=images[:2])
    serve = opened(path)
    expected = made(classes.tolist(), images)
    found = np.concatenate(
        [
            np.array(serve(images=images[i : i + 1], class_index=classes[i : i + 1])["heatmap"])
            for i in range(len(images))
        ]
    )

    def shares(maps):
        return np.array([m[mask].sum() / m.sum() for m, mask in zip(maps, masks, strict=True)])

    assert np.abs(shares(found) - shares(expected)).max() < 0.01
    assert shares(found).mean() >= 0.5


@pytest.mark.slow
def test_code_of_the_guide_runs(tmp_path, monkeypatch, images, small_model):
    """With all formats, where the packages of all of them are installed."""
    packages = [each for names in PACKAGES.values() for each in names]
    if any(importlib.util.find_spec(each) is None for each in packages):
        pytest.skip("not all formats are installed (pip install kvis2[export])")
    monkeypatch.chdir(tmp_path)
    names = {"model": small_model, "images": images, "GradCAM": GradCAM, "export": export}
    for block in code_blocks("docs/deploy.md"):
        if ".tflite" in block:
            exec(block, names)
    np.testing.assert_allclose(
        names["found"]["heatmap"], GradCAM(small_model)(3, images), atol=1e-5
    )
    assert (tmp_path / "cam.tflite").exists()
    assert (tmp_path / "served.onnx").exists()


def commanded(*arguments):
    parser = argparse.ArgumentParser()
    dataset.add_export_arguments(parser)
    return dataset.run_export(parser.parse_args([str(each) for each in arguments]))


@pytest.mark.slow
@pytest.mark.parametrize("format", [LITERT])
def test_the_command_writes_a_file_and_prints_the_report(tmp_path, model, x, format, capsys):
    model.save(tmp_path / "net.keras")
    out = tmp_path / "net.tflite"
    given = [tmp_path / "net.keras", "--method", "LayerCAM", "--layer", "pool", "--out", out]
    assert commanded(*given, "--format", format, "--class-input", "--raw") == 0
    assert "serving_default: images, class_index -> heatmap, predictions" in capsys.readouterr().out
    found = opened(out)(images=x, class_index=np.int32([2] * 5))["heatmap"]
    expected = LayerCAM(model, layer="pool", normalize=False)(2, x)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras
def test_the_command_refuses_what_is_no_explainer_of_a_model(tmp_path, model):
    model.save(tmp_path / "net.keras")
    for name, said in (("token_grid", "Expected a method, one of"), ("SmoothGrad", "model alone")):
        with pytest.raises(ValueError, match=rf"{said}.*Received: --method {name}"):
            commanded(tmp_path / "net.keras", "--method", name, "--out", tmp_path / "a")
    with pytest.raises(ValueError, match="which is not there"):
        commanded(tmp_path / "none.keras", "--out", tmp_path / "a")


def test_the_batch_of_a_loop_is_open(tmp_path, model):
    with pytest.raises(ValueError, match=r"Expected an open batch for IntegratedGradients"):
        export(kvis2.IntegratedGradients(model, steps=2), tmp_path / "served", batch=1)
    assert list(tmp_path.iterdir()) == []


def test_several_samples_at_once_and_no_more(tmp_path):
    export(GradCAM(convolutional()), tmp_path / "served", batch=3)
    serve = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"]
    assert serve(images=tf.ones([3, 12, 12, 3]))["heatmap"].shape == (3, 12, 12)
    with pytest.raises(ValueError, match=r"Expected a sample of shape \(3, 12, 12, 3\)"):
        export(GradCAM(convolutional()), tmp_path / "b", batch=3, sample=np.ones((2, 12, 12, 3)))
