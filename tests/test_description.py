"""describe: what it says of many kinds of models, and that it is true."""

import keras
import model_zoo
import numpy as np
import pytest

from kvis2 import GradCAM
from kvis2.inspection import Description, describe
from kvis2.models import layers

TEXT = """\
functional: functional model, 315 parameters
  inputs       image  float32 (batch, 12, 10, 3)
  outputs      predictions  (batch, 3), ends in a softmax (explained before it)
               classes, by the softmax at its end
  activations  2 relu (GuidedReLU and DeconvReLU reach 2)
  maps         early  10 x 8 x 4
               late   5 x 4 x 5  <- default
               (1 more in `.maps`)
"""


def described(kind) -> Description:
    return Description.of(model_zoo.KINDS[kind]().model)


def test_text_is_printed_and_returned(capsys):
    model = model_zoo.functional.__wrapped__().model
    found = describe(model)
    text = TEXT.replace("functional:", f"{model.name}:")
    assert capsys.readouterr().out == text
    assert f"{found}\n" == text


@pytest.mark.parametrize(
    ("kind", "outputs", "activations", "default"),
    [
        ("deferred sequential", ["softmax"], {"relu": 2}, "late"),
        ("subclassed", ["softmax"], {"relu": 2}, "late"),
        ("subclassed, call is a tf.function", ["softmax"], {"relu": 2}, "late"),
        ("custom layer without get_config", ["softmax"], {"relu": 2}, "body/late"),
        ("backbone two levels deep", ["softmax"], {"relu": 2}, "middle/backbone/late"),
        ("TimeDistributed(backbone)", ["softmax"], {"relu": 4}, "every/frames/late"),
        ("siamese, last call", ["softmax"], {"relu": 4}, "shared/late"),
        ("raw operations", ["softmax"], {"relu": 2}, "late"),
        ("vision transformer, tokens as a grid", ["softmax"], {"gelu": 2}, "patches"),
        ("log softmax", ["softmax"], {"relu": 2}, "late"),
        ("logits", [None], {"relu": 2}, "late"),
        ("multi label", ["sigmoid"], {"relu": 2}, "late"),
        ("segmentation", ["softmax"], {"relu": 2}, "up"),
        ("several outputs, dict", ["softmax", None], {"relu": 2}, "late"),
        ("image and vector, dict", ["softmax"], {"relu": 2}, "late"),
        ("tokens (embedding)", ["softmax"], {"relu": 1}, "late"),
        ("1-D signal", ["softmax"], {"relu": 2}, "late"),
        ("3-D volume", ["softmax"], {"relu": 2}, "late"),
        ("mixed float16", ["softmax"], {"relu": 2}, "late"),
        ("channels first", ["softmax"], {"relu": 2}, "late"),
        ("NumPy inside, run_eagerly=True", ["softmax"], None, "late"),
    ],
)
def test_what_is_found(kind, outputs, activations, default):
    found = described(kind)
    assert [each.activation for each in found.outputs] == outputs
    assert found.activations == activations
    assert found.default == default
    assert default in str(found).split("<- default")[0].splitlines()[-1]


def test_default_is_the_layer_that_a_cam_uses():
    for kind in ("segmentation", "backbone two levels deep", "two images, list"):
        example = model_zoo.KINDS[kind]()
        cam = GradCAM(example.model)
        cam(example.score, example.inputs)
        assert described(kind).default == layers.layer_path(example.model, cam.layer)


def test_map_sizes_are_those_of_the_layers():
    model = model_zoo.functional().model
    for each in described("functional").maps:
        layer = layers.find_layer(model, each.layer)
        assert (None, *each.size, each.channels) == layer.output.shape
    assert [each.size for each in described("3-D volume").maps][-1] == (3, 2, 2)


def test_sizes_that_are_open():
    text = str(described("variable size (None, None, 3)"))
    assert "image  float32 (batch, any, any, 3)" in text
    assert "late  any x any x 5  <- default" in text


def test_inputs_by_name():
    found = described("image and vector, dict").inputs
    assert found == (
        ("image", "float32", (None, 12, 10, 3)),
        ("vector", "float32", (None, 4)),
    )


def test_no_map_at_all():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="tanh")])
    found = describe(model)
    assert found.default is None
    assert "none: a CAM needs `layer=` and `reshape=`" in str(found)
    assert "1 tanh (GuidedReLU and DeconvReLU reach none)" in str(found)


def test_model_that_does_not_know_its_inputs():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = keras.layers.Conv2D(2, 3)
            self.top = keras.layers.Dense(2)

        def call(self, inputs):
            image, vector = inputs
            return self.top(vector) + self.top(keras.ops.mean(self.conv(image), (1, 2)))

    model, batch = Two(), [np.ones((3, 8, 6, 1), "float32"), np.ones((3, 2), "float32")]
    model(batch)
    found = describe(model, batch)
    assert found.default == "conv2d"
    assert [shape for _, _, shape in found.inputs] == [(None, 8, 6, 1), (None, 2)]


def test_model_that_is_not_built():
    with pytest.raises(ValueError, match="Expected a built model"):
        describe(keras.Sequential([keras.layers.Dense(2)]))


def test_describe_leaves_the_model_as_it_is():
    model = model_zoo.functional.__wrapped__().model
    before = {name: id(value) for name, value in vars(model).items()}, model.get_weights()
    describe(model)
    assert {name: id(value) for name, value in vars(model).items()} == before[0]
    for one, other in zip(model.get_weights(), before[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_describe_prints(capsys):
    model = model_zoo.functional.__wrapped__().model
    silent = Description.of(model)
    assert capsys.readouterr().out == ""
    assert describe(model) == silent
    assert capsys.readouterr().out == f"{silent}\n"


@pytest.mark.slow
def test_example_of_the_docstring(capsys):
    describe(keras.applications.VGG16(weights=None))
    example = describe.__doc__.split("VGG16())\n")[1].split("        >>>")[0]
    lines = [line.removeprefix("        ") for line in example.splitlines()]
    assert capsys.readouterr().out.splitlines() == lines
