"""The utilities of keras-vis: golden numbers of the original, and what was mended in them."""

import inspect

import keras
import numpy as np
import pytest
from PIL import Image

from kvis2.visualization import grad_modifiers, tools

REQUIRED = inspect.Parameter.empty

DOCUMENTED = {
    tools.set_random_seed: {"seed_value": 1337},
    tools.random_array: {"shape": REQUIRED, "mean": 128.0, "std": 20.0},
    tools.normalize: {"array": REQUIRED, "min_value": 0.0, "max_value": 1.0},
    tools.deprocess_input: {"input_array": REQUIRED, "input_range": (0, 255)},
    tools.stitch_images: {"images": REQUIRED, "margin": 5, "cols": 5},
    tools.get_img_shape: {"img": REQUIRED},
    tools.load_img: {"path": REQUIRED, "grayscale": False, "target_size": None},
    tools.lookup_imagenet_labels: {"indices": REQUIRED},
    tools.draw_text: {
        "img": REQUIRED,
        "text": REQUIRED,
        "position": (10, 10),
        "font": "FreeSans.ttf",
        "font_size": 14,
        "color": (0, 0, 0),
    },
    tools.bgr2rgb: {"img": REQUIRED},
    tools.apply_modifications: {"model": REQUIRED, "custom_objects": None},
    tools.find_layer_idx: {"model": REQUIRED, "layer_name": REQUIRED},
    tools.listify: {"value": REQUIRED},
    tools.reverse_enumerate: {"iterable": REQUIRED},
    tools.get_identifier: {
        "identifier": REQUIRED,
        "module_globals": REQUIRED,
        "module_name": REQUIRED,
    },
}


@pytest.mark.parametrize("function", DOCUMENTED, ids=lambda each: each.__name__)
def test_signatures_are_the_documented_ones(function):
    positional = {
        each.name: each.default
        for each in inspect.signature(function).parameters.values()
        if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    }
    assert list(positional.items()) == list(DOCUMENTED[function].items())


# -- arrays ---------------------------------------------------------------------------------------


def test_random_array_has_its_mean_and_deviation():
    noise = tools.random_array((1, 30, 20, 3), 127.5, 12.75)
    assert noise.shape == (1, 30, 20, 3)
    assert noise.mean() == pytest.approx(127.5)
    assert noise.std() == pytest.approx(12.75, rel=1e-6)
    assert np.abs(noise - 127.5).max() < 12.75 * np.sqrt(3) * 1.03
    tools.set_random_seed()
    first = tools.random_array((4,))
    assert not np.array_equal(tools.random_array((4,)), first)
    tools.set_random_seed(1337)
    np.testing.assert_array_equal(tools.random_array((4,)), first)


def test_random_array_leaves_the_global_generator_alone():
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    tools.random_array((4,))
    assert np.random.random() == expected  # noqa: NPY002


def test_normalize():
    np.testing.assert_allclose(tools.normalize([2, 4, 6]), [0, 0.5, 1], atol=1e-7)
    np.testing.assert_allclose(tools.normalize([2, 4, 6], -1, 3), [-1, 1, 3], atol=1e-6)
    assert tools.normalize([5, 5], 2, 3).tolist() == [2, 2]


def test_deprocess_input():
    values = [0.0, 1.0, 2.0, 3.0]
    np.testing.assert_allclose(
        tools.deprocess_input(values), [93.288163, 116.0960543, 138.9039457, 161.711837], rtol=1e-7
    )
    np.testing.assert_allclose(
        tools.deprocess_input(values, (0.0, 1.0)),
        [0.3658359, 0.4552786, 0.5447214, 0.6341641],
        atol=1e-7,
    )
    outlier = np.r_[np.zeros(1000), 1e6]
    assert tools.deprocess_input(outlier).max() == 255


def test_stitch_images():
    images = [np.full((4, 6, 3), i + 1, np.uint8) for i in range(7)]
    sheet = tools.stitch_images(images)
    assert sheet.shape == (13, 50, 3)
    assert sheet.dtype == np.uint8
    expected = np.zeros((13, 50, 3), np.uint8)
    for index in range(7):
        top, left = index // 5 * 9, index % 5 * 11
        expected[top : top + 4, left : left + 6] = index + 1
    np.testing.assert_array_equal(sheet, expected)
    assert tools.stitch_images(images[:2]).shape == (4, 17, 3)
    assert tools.stitch_images([image[..., 0] for image in images], margin=0, cols=3).shape == (
        12,
        18,
    )
    assert tools.stitch_images([]) is None
    with pytest.raises(ValueError, match="Expected images of one shape"):
        tools.stitch_images([images[0], images[0][:2]])


def test_image_shapes_and_slices_in_either_format():
    image = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert tools.get_img_shape(image) == (2, 5, 3, 4)
    assert tools.get_img_shape(keras.Input((None, 8, 3))) == (None, 3, None, 8)
    np.testing.assert_array_equal(image[tools.slicer[:, 1, ...]], image[..., 1])
    np.testing.assert_array_equal(image[tools.slicer[0, :, 2, 1]], image[0, 2, 1, :])
    keras.config.set_image_data_format("channels_first")
    try:
        assert tools.get_img_shape(image) == (2, 3, 4, 5)
        np.testing.assert_array_equal(image[tools.slicer[:, 1, ...]], image[:, 1])
    finally:
        keras.config.set_image_data_format("channels_last")


def test_bgr2rgb_and_small_aliases():
    assert tools.bgr2rgb([[[1, 2, 3]]]).tolist() == [[[3, 2, 1]]]
    assert tools.listify([1]) == [1]
    assert tools.listify((1, 2)) == [(1, 2)]
    assert list(tools.reverse_enumerate("abc")) == [(2, "c"), (1, "b"), (0, "a")]
    assert tools.add_defaults_to_kwargs({"a": 1, "b": 2}, b=3) == {"a": 1, "b": 3}
    assert tools.get_identifier("f", {"f": len}, "function") is len
    assert tools.get_identifier(max, {"f": len}, "function") is max
    with pytest.raises(ValueError, match=r"name of a function: 'f'. Received: 'np'"):
        tools.get_identifier("np", {"f": len}, "function")
    with pytest.raises(TypeError, match="Expected a function: one of 'f'"):
        tools.get_identifier(3, {"f": len}, "function")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("negate", [2, 0, -4]),
        ("absolute", [2, 0, 4]),
        ("relu", [0, 0, 4]),
        ("invert", [-0.5, 1e7, 0.25]),
        ("small_values", [0.5, 1e7, 0.25]),
        (None, [-2, 0, 4]),
        (np.sign, [-1, 0, 1]),
    ],
)
def test_gradient_modifiers(name, expected):
    gradient = np.float32([-2, 0, 4])
    np.testing.assert_allclose(grad_modifiers.get(name)(gradient), expected, rtol=1e-6)
    assert gradient.tolist() == [-2, 0, 4]


def test_invert_holds_where_the_original_divides_by_zero():
    assert np.isfinite(grad_modifiers.invert(np.float64([-1e-7]))).all()
    with pytest.raises(ValueError, match="'negate', 'absolute', 'invert', 'relu', 'small_values'"):
        grad_modifiers.get("np")


# -- pictures -------------------------------------------------------------------------------------


def test_load_img(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(picture).save(path)
    np.testing.assert_array_equal(tools.load_img(path), picture)
    assert tools.load_img(path, target_size=(12, 5)).shape == (12, 5, 3)
    grey = tools.load_img(path, grayscale=True, target_size=(12, 18))
    assert (grey.shape, grey.dtype) == ((12, 18), np.uint8)
    weights = picture @ [0.299, 0.587, 0.114]
    assert grey.mean() == pytest.approx(weights.mean(), abs=2)


def test_imagenet_labels():
    assert tools.lookup_imagenet_labels([20, 2, 999]) == [
        "water_ouzel",
        "great_white_shark",
        "toilet_tissue",
    ]
    assert tools.lookup_imagenet_labels(np.int64(0)) == ["tench"]
    with pytest.raises(ValueError, match=r"0 to 999. Received: \[1000\]"):
        tools.lookup_imagenet_labels([1, 1000])


@pytest.mark.parametrize("shape", [(40, 90), (40, 90, 1), (40, 90, 3)])
def test_draw_text(shape):
    dark = np.zeros(shape, np.uint8)
    drawn = tools.draw_text(dark, "Step 1", font=None, color=(255, 255, 255))
    assert drawn.shape == shape
    assert drawn.max() == 255
    rows, columns = np.nonzero(drawn.reshape(40, 90, -1).max(-1))[:2]
    assert rows.min() >= 10
    assert columns.min() >= 10
    assert dark.max() == 0
    # Black on black is seen by its outline only.
    assert tools.draw_text(dark, "Step 1", font=None).max() == 0
    assert tools.draw_text(dark, "Step 1", font=None, outline=(255, 255, 255)).max() == 255


def test_a_font_that_is_missing_is_said():
    with pytest.warns(UserWarning, match=r"Received: 'no such font.ttf', which was not found"):
        tools.draw_text(np.zeros((40, 90, 3), np.uint8), "Step", font="no such font.ttf")
    with pytest.raises(ValueError, match="Expected a uint8 picture"):
        tools.draw_text(np.zeros((40, 90, 3)), "Step", font=None)


# -- models ---------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kvis2-tests")
class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


class Unregistered(keras.layers.Layer):
    def call(self, inputs):
        return 3 * inputs


def test_modifications_are_in_force_in_the_copy(small_model):
    inputs = keras.Input((16, 12, 3))
    x = Doubled()(small_model(inputs))
    x = Unregistered()(x)
    outputs = keras.layers.Dense(3, activation="softmax", name="end")(x)
    model = keras.Model(inputs, outputs)
    images = np.random.default_rng(0).random((2, 16, 12, 3), dtype="float32")
    before = model(images).numpy()
    model.get_layer("end").activation = keras.activations.linear
    copied = tools.apply_modifications(model, custom_objects={"Unregistered": Unregistered})
    logits = copied(images).numpy()
    np.testing.assert_allclose(keras.ops.softmax(logits), before, atol=1e-6)
    assert np.abs(logits - before).max() > 0.1
    # The copy has weights of its own.
    copied.set_weights([np.zeros_like(each) for each in copied.get_weights()])
    np.testing.assert_allclose(keras.ops.softmax(model(images)), before, atol=1e-6)


class Subclassed(keras.Model):
    def __init__(self, units=2, **options):
        super().__init__(**options)
        self.units, self.dense = units, keras.layers.Dense(units)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class NotSerializable(Subclassed):
    def __init__(self, function):
        super().__init__()
        self.function = function


def test_modifications_of_subclassed_models():
    x = np.float32([[1, 2, 3]])
    model = Subclassed(3)
    expected = model(x)
    copied = tools.apply_modifications(model, {"Subclassed": Subclassed})
    np.testing.assert_array_equal(copied(x), expected)
    assert copied is not model
    broken = NotSerializable(len)
    broken(x)
    with pytest.raises(ValueError, match="Keras can clone from its configuration"):
        tools.apply_modifications(broken)
    with pytest.raises(ValueError, match="Expected a built model"):
        tools.apply_modifications(Subclassed())


def test_layers_are_found_by_name(small_model):
    assert tools.find_layer_idx(small_model, "late") == 3
    with pytest.raises(ValueError, match=r"Received: 'lat'.*Close names: 'late'"):
        tools.find_layer_idx(small_model, "lat")
    inputs = keras.Input((16, 12, 3))
    nested = keras.Model(inputs, keras.layers.Dense(2)(small_model(inputs)))
    with pytest.raises(ValueError, match=r"inside a nested model. Pass 'small/late'"):
        tools.find_layer_idx(nested, "late")
