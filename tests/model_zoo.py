"""Every kind of Keras model and input that kvis2 explains, small, with what is expected of it.

A kind is one function with the decorator `@kind(group)`: it builds a model and inputs and says
what its maps must be. Most kinds are the same little network in another dress, with the same
weights, so their maps must be those of the plain functional model.
"""

import contextlib
import functools
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kvis2.models import token_grid
from kvis2.scores import (
    BinaryScore,
    CategoricalScore,
    InactiveScore,
    RegressionScore,
    SegmentationScore,
)

SIZE = (12, 10)
IMAGES = np.random.default_rng(0).random((3, *SIZE, 3), dtype="float32")
CLASSES = 3


@dataclass(frozen=True)
class Example:
    """One model with inputs, and what its explanations must be.

    Attributes:
        model: The model.
        inputs: Three samples, in the structure in which the model takes them.
        score: What is explained.
        options: Constructor arguments of every explainer.
        cheaper: Further ones by explainer, for a large model.
        may_be_blank: Whether a map may hold no evidence: the weights are random.
        maps: The shape of one sample's map, or the list of them by input (None: no map), for
            explainers that look at the input.
        cams: The same for those that look at a layer, where it is different.
        layer: Path of the layer that a CAM chooses by default.
        like: The kind whose maps this one must have (the same network in another dress).
        close: The correlation that "like" means in half precision, instead of 1e-5.
        transposed: Whether the inputs of the other kind have their channels moved.
        refused: For explainers that cannot explain this kind, by name or "*": the sentence.
    """

    model: keras.Model
    inputs: Any
    score: Any = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    cheaper: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    may_be_blank: bool = False
    maps: Any = SIZE
    cams: Any = None
    layer: str | None = None
    like: str | None = None
    close: float | None = None
    transposed: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)


KINDS: dict[str, Callable[[], Example]] = {}
GROUPS: dict[str, str] = {}
SLOW: set[str] = set()


def kind(group: str, name: str | None = None, slow: bool = False) -> Callable[..., Any]:
    """Register a function that builds an `Example`, under its own name unless another is given."""

    def register(build: Callable[[], Example]) -> Callable[[], Example]:
        key = name or build.__name__.replace("_", " ")
        KINDS[key] = functools.cache(build)
        GROUPS[key] = group
        if slow:
            SLOW.add(key)
        return KINDS[key]

    return register


def positive(seed: int = 5) -> keras.initializers.Initializer:
    """Weights of a head for which every feature is evidence, so that no map is blank."""
    return keras.initializers.RandomUniform(0.1, 1.0, seed=seed)


def weights() -> list[np.ndarray]:
    """The weights that all dresses of the little network have."""
    draw = np.random.default_rng(3)
    shapes = [(3, 3, 3, 4), (4,), (3, 3, 4, 5), (5,)]
    body = [draw.normal(0.0, 0.4, shape).astype("float32") for shape in shapes]
    head = draw.uniform(0.1, 1.0, (5, CLASSES)).astype("float32")
    return [*body, head, draw.normal(0.0, 0.2, CLASSES).astype("float32")]


def dressed(model: keras.Model, inputs: Any = IMAGES, **expected: Any) -> Example:
    """An example of the little network: its weights set, its maps those of the plain model."""
    model.set_weights(weights())
    expected = {"like": "functional", **expected}
    return Example(model, inputs, **expected)


def features(x: Any) -> Any:
    """The body of the little network."""
    x = layers.Conv2D(4, 3, activation="relu", name="early")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    return layers.Conv2D(5, 3, padding="same", activation="relu", name="late")(x)


def pooled(x: Any) -> Any:
    return layers.GlobalAveragePooling2D(name="gap")(features(x))


def head(activation: str | None = "softmax", units: int = CLASSES) -> layers.Dense:
    return layers.Dense(
        units, activation=activation, kernel_initializer=positive(), name="predictions"
    )


def backbone(shape: tuple[int | None, ...] = (*SIZE, 3), name: str = "backbone") -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, features(inputs), name=name)


def image_input(shape: tuple[int | None, ...] = (*SIZE, 3), **options: Any) -> Any:
    return keras.Input(shape, name="image", **options)


# --- How the model is made -------------------------------------------------------------------


@kind("model")
def functional() -> Example:
    inputs = image_input()
    model = keras.Model(inputs, head()(pooled(inputs)), name="plain")
    return dressed(model, like=None, layer="late")


def _little_layers() -> list[Any]:
    return [
        layers.Conv2D(4, 3, activation="relu", name="early"),
        layers.MaxPooling2D(),
        layers.Conv2D(5, 3, padding="same", activation="relu", name="late"),
        layers.GlobalAveragePooling2D(),
        head(),
    ]


@kind("model")
def sequential() -> Example:
    model = keras.Sequential([keras.Input((*SIZE, 3)), *_little_layers()])
    return dressed(model, layer="late")


@kind("model")
def deferred_sequential() -> Example:
    model = keras.Sequential(_little_layers())
    model(IMAGES)
    return dressed(model, layer="late")


class Subclassed(keras.Model):
    """A model whose inputs nobody knows before it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _little_layers()[:-1]
        self.top = head()

    def call(self, x: Any) -> Any:
        for layer in self.body:
            x = layer(x)
        return self.top(x)


@kind("model")
def subclassed() -> Example:
    model = Subclassed()
    model(IMAGES)
    return dressed(model, layer="late")


@kind("model", "subclassed, call is a tf.function")
def subclassed_function() -> Example:
    class Traced(Subclassed):
        @tf.function
        def call(self, x: Any) -> Any:
            return super().call(x)

    model = Traced()
    model(IMAGES)
    return dressed(model, layer="late")


@kind("model", "custom layer without get_config")
def without_get_config() -> Example:
    class Body(layers.Layer):
        def __init__(self, filters: int, secret: object) -> None:
            super().__init__(name="body")
            self.early = layers.Conv2D(4, 3, activation="relu", name="early")
            self.late = layers.Conv2D(
                filters, 3, padding="same", activation=tf.nn.relu, name="late"
            )

        def call(self, x: Any) -> Any:
            return self.late(tf.nn.max_pool2d(self.early(x), 2, 2, "VALID"))

    inputs = image_input()
    x = layers.GlobalAveragePooling2D()(Body(5, object())(inputs))
    return dressed(keras.Model(inputs, head()(x)), layer="body/late")


@kind("model")
def backbone_in_sequential() -> Example:
    stack = [keras.Input((*SIZE, 3)), backbone(), layers.GlobalAveragePooling2D(), head()]
    return dressed(keras.Sequential(stack), layer="backbone/late")


@kind("model")
def backbone_in_functional() -> Example:
    inputs = image_input()
    x = layers.GlobalAveragePooling2D()(backbone()(inputs))
    return dressed(keras.Model(inputs, head()(x)), layer="backbone/late")


@kind("model", "backbone(x, training=False)")
def backbone_in_inference_mode() -> Example:
    inputs = image_input()
    x = layers.GlobalAveragePooling2D()(backbone()(inputs, training=False))
    return dressed(keras.Model(inputs, head()(x)), layer="backbone/late")


@kind("model", "backbone two levels deep")
def two_levels() -> Example:
    middle = keras.Input((*SIZE, 3))
    middle = keras.Model(middle, backbone()(middle), name="middle")
    inputs = image_input()
    x = layers.GlobalAveragePooling2D()(middle(inputs))
    return dressed(keras.Model(inputs, head()(x)), layer="middle/backbone/late")


# After the last layer this network is linear: no noise changes the gradient there.
CONSTANT = {"VarGrad": r"the same for all noisy copies"}


@kind("model", "backbone with dots in its name")
def dotted() -> Example:
    inputs = image_input()
    x = layers.GlobalAveragePooling2D()(backbone(name="mobilenetv2_1.00_224")(inputs))
    model = keras.Model(inputs, head()(x))
    options = {"layer": "mobilenetv2_1.00_224/late"}
    return dressed(model, options=options, like="backbone, layer named", refused=CONSTANT)


@kind("model", "backbone, layer named")
def layer_named() -> Example:
    return dressed(functional().model, options={"layer": "late"}, like=None, refused=CONSTANT)


class ClipHead(layers.Layer):
    """The mean over time of what the layer inside says of every frame."""

    def call(self, x: Any) -> Any:
        return keras.ops.mean(x, axis=1)


def _clips() -> np.ndarray:
    return np.random.default_rng(1).random((3, 2, *SIZE, 3), dtype="float32")


@kind("model", "TimeDistributed(backbone)")
def time_distributed() -> Example:
    clips = keras.Input((2, *SIZE, 3))
    inputs = keras.Input((*SIZE, 3))
    frames = keras.Model(inputs, pooled(inputs), name="frames")
    x = ClipHead()(layers.TimeDistributed(frames, name="every")(clips))
    model = keras.Model(clips, head()(x))
    return dressed(
        model,
        _clips(),
        maps=(2, *SIZE),
        layer="every/frames/late",
        like="TimeDistributed, layer by layer",
        refused=dict.fromkeys(
            ("AblationCAM", "ReciproCAM"), r"outside of a TimeDistributed.*such as GradCAM"
        ),
    )


@kind("model", "TimeDistributed, layer by layer")
def time_distributed_layers() -> Example:
    x = clips = keras.Input((2, *SIZE, 3))
    body = _little_layers()[:-1]
    for layer, name in zip(body, ["early", "pool", "late", "gap"], strict=True):
        x = layers.TimeDistributed(layer, name=f"every_{name}")(x)
    model = keras.Model(clips, head()(ClipHead()(x)))
    return dressed(model, _clips(), maps=(2, *SIZE), layer="every_late", like=None)


def _siamese() -> keras.Model:
    left, right = keras.Input((*SIZE, 3), name="left"), keras.Input((*SIZE, 3), name="right")
    inputs = keras.Input((*SIZE, 3))
    shared = keras.Model(inputs, pooled(inputs), name="shared")
    both = layers.Average()([shared(left), shared(right)])
    return keras.Model([left, right], head()(both))


@kind("model", "siamese, last call")
def siamese() -> Example:
    inputs = [IMAGES, IMAGES[::-1].copy()]
    maps = [SIZE, SIZE]
    return dressed(_siamese(), inputs, like=None, maps=maps, cams=[None, SIZE], layer="shared/late")


@kind("model", "siamese, first call")
def siamese_first_call() -> Example:
    return dressed(
        _siamese(),
        [IMAGES, IMAGES[::-1].copy()],
        like=None,
        options={"call_index": 0},
        maps=[SIZE, SIZE],
        cams=[SIZE, None],
        layer="shared/late",
    )


class Rectified(layers.Layer):
    """A custom layer that calls TensorFlow itself."""

    def call(self, x: Any) -> Any:
        return tf.nn.relu(x)


@kind("model")
def raw_operations() -> Example:
    inputs = image_input()
    x = inputs * 255.0
    x = layers.Conv2D(4, 3, name="early")(x / 255.0)
    x = layers.MaxPooling2D()(keras.ops.relu(x))
    x = Rectified(name="late")(layers.Conv2D(5, 3, padding="same")(x))
    x = keras.ops.mean(x, axis=(1, 2))
    outputs = keras.ops.softmax(head(None)(x))
    return dressed(keras.Model(inputs, outputs), layer="late")


@kind("model")
def frozen_layers() -> Example:
    inputs = image_input()
    frozen = backbone()
    frozen.trainable = False
    x = layers.GlobalAveragePooling2D()(frozen(inputs))
    return dressed(keras.Model(inputs, head()(x)), layer="backbone/late")


@kind("model")
def activity_regularizer() -> Example:
    inputs = image_input()
    x = pooled(inputs)
    outputs = layers.Dense(3, activation="softmax", activity_regularizer="l2")(x)
    return dressed(keras.Model(inputs, outputs), layer="late")


@kind("model", "batch normalisation and dropout")
def with_moving_averages() -> Example:
    inputs = image_input()
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    x = layers.Dropout(0.5)(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return Example(keras.Model(inputs, head()(x)), IMAGES, layer="batch_normalization")


@kind("model", "saved and loaded (.keras)")
def saved() -> Example:
    return dressed(_reloaded(".keras"), layer="late")


@kind("model", "saved and loaded (.h5)")
def saved_as_hdf5() -> Example:
    return dressed(_reloaded(".h5"), layer="late")


def _reloaded(suffix: str) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras reads HDF5 in a way that NumPy 2 warns of.
        path = Path(folder) / f"model{suffix}"
        with _quiet(logging.getLogger("absl")):
            functional().model.save(path)
        return keras.models.load_model(path, compile=False)


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Keras logs that .h5 is old; that is known here."""
    level = logger.level
    logger.setLevel("ERROR")
    yield
    logger.setLevel(level)


@kind("model", "vision transformer, tokens as a grid")
def vision_transformer() -> Example:
    inputs = image_input((12, 12, 3))
    x = layers.Conv2D(8, 4, strides=4, name="patches")(inputs)
    x = layers.Reshape((9, 8))(x)
    x = ClassToken(name="class_token")(x)
    for block in range(2):
        y = layers.LayerNormalization(name=f"norm{block}")(x)
        x = x + layers.MultiHeadAttention(2, 4, name=f"attention{block}")(y, y)
        y = layers.LayerNormalization()(x)
        x = x + layers.Dense(8, activation="gelu")(y)
    x = layers.LayerNormalization(name="last_norm")(x)
    model = keras.Model(inputs, head()(x[:, 0]))
    images = np.random.default_rng(2).random((3, 12, 12, 3), dtype="float32")
    options = {"layer": "norm1", "reshape": token_grid(class_token=True)}
    refused = {
        "ScoreCAM": r"all evidence at 'norm1' is against",
        "OptiCAM": r"all evidence at 'norm1' is against",
        "CAM": r"only global average pooling",
        "GuidedGradCAM": r"at least one relu",
    }
    return Example(model, images, options=options, maps=(12, 12), refused=refused)


class ClassToken(layers.Layer):
    """A learned token before the others."""

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="random_normal")

    def call(self, x: Any) -> Any:
        first = tf.repeat(tf.cast(self.token.value, x.dtype), tf.shape(x)[0], axis=0)
        return tf.concat([first, x], axis=1)


# --- What comes out ----------------------------------------------------------------------------


def _ending(end: Callable[[Any], Any], **expected: Any) -> Example:
    inputs = image_input()
    return dressed(keras.Model(inputs, end(pooled(inputs))), layer="late", **expected)


@kind("output", 'Activation("softmax")')
def activation_layer() -> Example:
    return _ending(lambda x: layers.Activation("softmax")(head(None)(x)))


@kind("output", "layers.Softmax")
def softmax_layer() -> Example:
    return _ending(lambda x: layers.Softmax()(head(None)(x)))


@kind("output", "keras.ops.softmax")
def softmax_operation() -> Example:
    return _ending(lambda x: keras.ops.softmax(head(None)(x)))


@kind("output", "log softmax")
def log_softmax() -> Example:
    refused = {"ScoreCAM": r"all evidence at 'late' is against"}  # Log probabilities are negative.
    return _ending(head("log_softmax"), like=None, refused=refused)


@kind("output", "logits")
def logits() -> Example:
    return _ending(lambda x: head(None)(x), like=None)


def _one_unit(activation: str, score: Any) -> Example:
    inputs = image_input()
    outputs = head(activation, 1)(pooled(inputs))
    return Example(keras.Model(inputs, outputs), IMAGES, score=score, layer="late")


@kind("output", "sigmoid, one unit, class 1")
def sigmoid() -> Example:
    return _one_unit("sigmoid", 1)


@kind("output", "sigmoid, one unit, class 0")
def sigmoid_class_zero() -> Example:
    inputs = image_input()
    top = layers.Dense(1, "sigmoid", kernel_initializer=keras.initializers.RandomUniform(-1, -0.1))
    model = keras.Model(inputs, top(pooled(inputs)))
    return Example(model, IMAGES, score=BinaryScore(False), layer="late")


@kind("output")
def multi_label() -> Example:
    inputs = image_input()
    model = keras.Model(inputs, head("sigmoid")(pooled(inputs)))
    return Example(model, IMAGES, score=[0, 2, 1], layer="late")


@kind("output", "regression, increase")
def regression() -> Example:
    return _one_unit("linear", RegressionScore())


@kind("output", "regression, decrease")
def regression_decrease() -> Example:
    inputs = image_input()
    top = layers.Dense(1, kernel_initializer=keras.initializers.RandomUniform(-1, -0.1))
    model = keras.Model(inputs, top(pooled(inputs)))
    return Example(model, IMAGES, score=RegressionScore("decrease"), layer="late")


@kind("output")
def segmentation() -> Example:
    inputs = image_input()
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="encoder")(inputs)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(5, 3, padding="same", activation="relu", name="bottleneck")(x)
    x = layers.UpSampling2D(name="up")(x)
    x = layers.Conv2D(3, 1, kernel_initializer=positive(), name="classes")(x)
    model = keras.Model(inputs, layers.Softmax()(x))
    mask = np.zeros((3, *SIZE), bool)
    mask[:, 3:8, 2:6] = True
    score = SegmentationScore(1, mask)
    refused = {"CAM": r"only global average pooling"}
    return Example(model, IMAGES, score=score, layer="up", refused=refused)


def _two_heads() -> tuple[Any, Any, Any]:
    inputs = image_input()
    x = pooled(inputs)
    kind_of = layers.Dense(3, activation="softmax", kernel_initializer=positive(), name="kind")(x)
    size_of = layers.Dense(1, kernel_initializer=positive(6), name="size")(x)
    return inputs, kind_of, size_of


@kind("output", "several outputs, list")
def several_outputs() -> Example:
    inputs, kind_of, size_of = _two_heads()
    model = keras.Model(inputs, [kind_of, size_of])
    score = [CategoricalScore([0, 1, 2]), InactiveScore()]
    return Example(model, IMAGES, score=score, layer="late")


@kind("output", "several outputs, dict")
def outputs_by_name() -> Example:
    inputs, kind_of, size_of = _two_heads()
    model = keras.Model(inputs, {"kind": kind_of, "size": size_of})
    return Example(model, IMAGES, score={"size": RegressionScore()}, layer="late")


# --- What goes in ------------------------------------------------------------------------------


def _given(inputs: Any) -> Example:
    return dressed(functional().model, inputs, layer="late")


@kind("input")
def float64_array() -> Example:
    return _given(IMAGES.astype("float64"))


@kind("input")
def float16_array() -> Example:
    example = _given(IMAGES.astype("float16"))
    return Example(**{**vars(example), "close": 0.99})


@kind("input")
def tensor() -> Example:
    return _given(tf.constant(IMAGES))


@kind("input")
def nested_list() -> Example:
    return _given(IMAGES.tolist())


@kind("input")
def uint8_array() -> Example:
    images = (255 * IMAGES).astype("uint8")
    # Values of 0..255 saturate the softmax of this net: no patch of 0 changes its probabilities.
    refused = {"Occlusion": r"no evidence"}
    return Example(functional().model, images, layer="late", refused=refused)


def _not_differentiable(dtype: str, layer: str, layer_named: bool = False) -> dict[str, str]:
    """What explainers say of integers: there is no gradient with respect to them."""
    methods = ["FullGrad", "GuidedGradCAM", "GuidedIG"]
    if not layer_named:
        methods += [
            "IDGI",
            "Saliency",
            "InputXGradient",
            "IntegratedGradients",
            "ExpectedGradients",
        ]
        methods += ["LRP", "VarGrad"]
    noisy = ("SmoothGrad", "SmoothGradSquared", "VarGrad", "SmoothGradCAMPlusPlus")
    return {
        **dict.fromkeys(noisy, r"to add noise to"),
        "BlurIG": r"to blur, of floats",
        "LayerConductance": r"an input of floats, to lay a line to",
        "OptiCAM": r"to be masked by degrees",
        **dict.fromkeys(methods, rf"inputs of type {dtype}.*`layer='{layer}'`"),
        "ExtremalMask": r"to be mixed with what hides it",
    }


@kind("input", "model that declares uint8")
def declared_uint8() -> Example:
    inputs = image_input(dtype="uint8")
    x = layers.Rescaling(1 / 255, name="rescaling")(inputs)
    model = keras.Model(inputs, head()(pooled(x)), name="uint8")
    refused = _not_differentiable("uint8", "rescaling")
    images = (255 * IMAGES).astype("uint8")
    return Example(model, images, layer="late", refused=refused)


@kind("input", "model that declares uint8, layer named")
def declared_uint8_layer_named() -> Example:
    example = declared_uint8()
    refused = _not_differentiable("uint8", "rescaling", layer_named=True)
    refused["CAM"] = r"only global average pooling"
    refused["FEM"] = r"so far above the mean of its channel"
    return Example(example.model, example.inputs, options={"layer": "rescaling"}, refused=refused)


def _channels(channels: int) -> Example:
    inputs = image_input((*SIZE, channels))
    images = np.random.default_rng(3).random((3, *SIZE, channels), dtype="float32")
    return Example(keras.Model(inputs, head()(pooled(inputs))), images, layer="late")


@kind("input", "grey")
def grey() -> Example:
    return _channels(1)


@kind("input", "grey without the channel axis")
def grey_without_channel() -> Example:
    example = grey()
    return Example(example.model, example.inputs[..., 0], layer="late")


@kind("input", "7 channels")
def seven_channels() -> Example:
    return _channels(7)


@kind("input", "variable size (None, None, 3)")
def variable_size() -> Example:
    inputs = image_input((None, None, 3))
    return dressed(keras.Model(inputs, head()(pooled(inputs))), layer="late")


@kind("input", "1-D signal")
def signal() -> Example:
    inputs = keras.Input((20, 2))
    x = layers.Conv1D(4, 3, activation="relu")(inputs)
    x = layers.Conv1D(5, 3, activation="relu", name="late")(x)
    x = layers.GlobalAveragePooling1D()(x)
    signals = np.random.default_rng(4).normal(size=(3, 20, 2)).astype("float32")
    return Example(keras.Model(inputs, head()(x)), signals, maps=(20,), layer="late")


@kind("input", "3-D volume")
def volume() -> Example:
    inputs = keras.Input((6, 5, 4, 1))
    x = layers.Conv3D(3, 3, activation="relu", padding="same")(inputs)
    x = layers.MaxPooling3D()(x)
    x = layers.Conv3D(4, 2, activation="relu", padding="same", name="late")(x)
    x = layers.GlobalAveragePooling3D()(x)
    volumes = np.random.default_rng(5).random((3, 6, 5, 4, 1), dtype="float32")
    return Example(keras.Model(inputs, head()(x)), volumes, maps=(6, 5, 4), layer="late")


@kind("input", "two images, list")
def two_images() -> Example:
    left, right = keras.Input((8, 6, 3), name="left"), keras.Input((10, 7, 1), name="right")
    x = layers.Conv2D(4, 3, activation="relu", name="on_left")(left)
    y = layers.Conv2D(4, 3, activation="relu", name="on_right")(right)
    x, y = layers.GlobalAveragePooling2D()(x), layers.GlobalAveragePooling2D()(y)
    model = keras.Model([left, right], head()(layers.Concatenate()([x, y])))
    draw = np.random.default_rng(6)
    images = [draw.random((3, 8, 6, 3)), draw.random((3, 10, 7, 1))]
    return Example(model, images, maps=[(8, 6), (10, 7)], cams=[(8, 6), None], layer="on_left")


def _image_and_vector() -> keras.Model:
    image, vector = image_input(), keras.Input((4,), name="vector")
    x = layers.Concatenate()([pooled(image), vector])
    return keras.Model({"image": image, "vector": vector}, head()(x))


@kind("input", "image and vector, dict")
def image_and_vector() -> Example:
    inputs = {"vector": np.ones((3, 4)), "image": IMAGES}
    maps = {"vector": (4,), "image": SIZE}
    cams = {"vector": None, "image": SIZE}
    model = _image_and_vector()
    return Example(model, inputs, maps=maps, cams=cams, layer="late", refused=CONSTANT)


@kind("input", "image and vector, list")
def image_and_vector_as_list() -> Example:
    image, vector = image_input(), keras.Input((4,), name="vector")
    x = layers.Concatenate()([pooled(image), vector])
    model = keras.Model([image, vector], head()(x))
    inputs = [IMAGES, np.ones((3, 4))]
    maps, cams = [SIZE, (4,)], [SIZE, None]
    return Example(model, inputs, maps=maps, cams=cams, layer="late", refused=CONSTANT)


def _text() -> keras.Model:
    tokens = keras.Input((9,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 6, name="embedding")(tokens)
    x = layers.Conv1D(5, 3, activation="relu", padding="same", name="late")(x)
    return keras.Model(tokens, head()(layers.GlobalMaxPooling1D()(x)), name="text")


TOKENS = np.random.default_rng(7).integers(0, 20, (3, 9))


@kind("input", "tokens (embedding)")
def tokens() -> Example:
    refused = {
        **_not_differentiable("int32", "embedding"),
        "ScoreCAM": r"can be masked",
        "CAM": r"only global average pooling",
    }
    return Example(_text(), TOKENS, maps=(9,), layer="late", refused=refused)


@kind("input", "tokens, layer=embedding")
def tokens_at_embedding() -> Example:
    refused = {
        **_not_differentiable("int32", "embedding", layer_named=True),
        "FEM": r"so far above the mean of its channel",
        "ScoreCAM": r"can be masked",
        "CAM": r"only global average pooling",
    }
    return Example(_text(), TOKENS, maps=(9,), options={"layer": "embedding"}, refused=refused)


# --- Precision, layout and the way it runs -----------------------------------------------------


@contextlib.contextmanager
def _precision(policy: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    yield
    keras.config.set_dtype_policy(before)


def _in_precision(policy: str, close: float) -> Example:
    with _precision(policy):
        inputs = image_input()
        model = keras.Model(
            inputs, layers.Activation("softmax", dtype="float32")(head(None)(pooled(inputs)))
        )
    return dressed(model, layer="late", close=close)


@kind("precision and layout")
def mixed_float16() -> Example:
    return _in_precision("mixed_float16", close=0.99)


@kind("precision and layout")
def mixed_bfloat16() -> Example:
    return _in_precision("mixed_bfloat16", close=0.95)  # 8 bits of a float16's 11.


@kind("precision and layout")
def channels_first() -> Example:
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    inputs = image_input((3, *SIZE))
    model = keras.Model(inputs, head()(pooled(inputs)))
    keras.config.set_image_data_format(before)
    return dressed(
        model, np.ascontiguousarray(np.moveaxis(IMAGES, -1, 1)), layer="late", transposed=True
    )


@kind("precision and layout", "jit_compile=True", slow=True)
def compiled_by_xla() -> Example:
    example = functional()
    loops = ("SmoothGrad", "SmoothGradSquared", "VarGrad", "SmoothGradCAMPlusPlus")
    loops += ("Occlusion", "RISE", "IntegratedGradients", "ExpectedGradients", "IDGI", "BlurIG")
    refused = dict.fromkeys(loops, r"that XLA can compile")
    return dressed(example.model, options={"jit_compile": True}, layer="late", refused=refused)


@kind("precision and layout", "model.compile(run_eagerly=True)")
def run_eagerly() -> Example:
    model = sequential.__wrapped__().model
    model.compile(run_eagerly=True, loss="mse")
    return dressed(model, layer="late")


class EagerOnly(Subclassed):
    """Calls NumPy in the middle."""

    def call(self, x: Any) -> Any:
        scale = 1.0 if float(np.asarray(x).sum()) > -1e9 else 2.0
        return super().call(x * scale)


@kind("precision and layout", "NumPy inside, run_eagerly=True")
def numpy_inside() -> Example:
    model = EagerOnly()
    model(IMAGES)
    model.compile(run_eagerly=True, loss="mse")
    refused = {
        "LRP": r"that can be traced into a graph, for LRP",
        "ShapleyCAM": r"that can be traced into a graph, for second derivatives",
        "GuidedGradCAM": r"that can be traced into a graph, to change the gradient",
    }
    return dressed(model, layer="late", refused=refused)


# --- keras.applications ------------------------------------------------------------------------


_REFUSED = {
    "VGG16": {"CAM": r"only global average pooling"},
    "MobileNetV3Small": {"GuidedGradCAM": r"left 28 hard_sigmoid as they are"},  # A warning.
    "EfficientNetB0": {"GuidedGradCAM": r"at least one relu"},
    "ConvNeXtTiny": {"GuidedGradCAM": r"at least one relu"},
}


def _application(name: str, size: int, layer: str | None) -> None:
    @kind("keras.applications", name, slow=True)
    def build() -> Example:
        make = getattr(keras.applications, name)
        model = make(weights=None, input_shape=(size, size, 3), classes=5)
        images = np.random.default_rng(8).random((3, size, size, 3), dtype="float32")
        return Example(
            model,
            images,
            score=None,
            cheaper={"Occlusion": {"window": size // 2, "stride": size // 2}},
            may_be_blank=True,
            maps=(size, size),
            layer=layer,
            refused=_REFUSED.get(name, {}),
        )


for _name, _size, _layer in [
    ("VGG16", 64, "block5_pool"),
    ("ResNet50V2", 64, "post_relu"),
    ("DenseNet121", 64, "relu"),
    ("MobileNetV2", 64, "out_relu"),
    ("MobileNetV3Small", 64, None),
    ("EfficientNetB0", 64, "top_activation"),
    ("ConvNeXtTiny", 64, None),
    ("InceptionV3", 128, "mixed10"),
]:
    _application(_name, _size, _layer)
