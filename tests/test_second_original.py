"""The formulas of pytorch-cnn-visualizations on a small AlexNet, and its golden numbers.

The net, its backward pass and its relevance are those of `alexnet`, in NumPy.
"""

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from alexnet import CLASSES, SIZE, AlexNet
from PIL import Image
from references import assert_same

import kvis2
from kvis2 import images, lrp, presets
from kvis2.ascent import ActivationMaximization, DeepDream, FeatureInversion, Snapshots
from kvis2.gallery import InputSpace
from kvis2.images import gradients as gradient_pictures
from kvis2.passes import normal

pytestmark = pytest.mark.slow

RAW = {"resize": False, "normalize": False}
COLORS = {"keepdims": True, "normalize": False}
GUIDED = [kvis2.LinearOutput(), kvis2.GuidedReLU()]
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
FEATURES = ["conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"]


@pytest.fixture(scope="module")
def net():
    return AlexNet.random(4)


@pytest.fixture(scope="module")
def model(net):
    return net.as_keras()


@pytest.fixture(scope="module")
def photograph():
    """A random image in the normalised space of the original, `(1, height, width, 3)`."""
    return np.random.default_rng(2).normal(size=(1, *SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def values(net, photograph):
    return net.forward(photograph)


@pytest.fixture(scope="module")
def label(values):
    return int(values["logits"][0].argmax())


@pytest.fixture(scope="module")
def gradients(net, values, label):
    return net.of_class(values, label)


@pytest.fixture(scope="module")
def guided(net, values, label):
    return net.of_class(values, label, guided=True)


def test_the_keras_twin_is_the_same_function_and_alive(net, model, photograph, values, label):
    found = model(photograph).numpy()
    np.testing.assert_allclose(found, net.probabilities(photograph), rtol=1e-4)
    for name in FEATURES:
        assert (values[name].max(axis=(0, 1, 2)) > 0).sum() >= 3, name
    assert values["logits"][0, label] > 0  # II.7 strengthens what is positive
    assert 0 <= label < CLASSES


@pytest.mark.parametrize("place", ["images", "conv1", "conv3", "conv5"])
def test_the_backward_pass_is_the_slope_of_the_forward_pass(net, values, label, gradients, place):
    rng = np.random.default_rng(3)
    step = 1e-6 * rng.normal(size=values[place].shape)

    def score(output):
        return net.forward(output, place)["logits"][0, label]

    slope = score(values[place] + step) - score(values[place] - step)
    expected = 2 * (gradients[place] * step).sum()
    np.testing.assert_allclose(slope, expected, rtol=1e-4)


# -- II.1, II.2, II.5, II.6, II.9, II.10: gradients by the image ----------------------------------


def test_vanilla_backprop(model, photograph, label, gradients):
    assert_same(kvis2.Saliency(model, **COLORS)(label, photograph), gradients["images"])


def test_guided_backprop(model, photograph, label, guided, gradients):
    found = kvis2.Saliency(model, model_modifier=GUIDED, **COLORS)(label, photograph)
    assert_same(found, guided["images"])
    assert np.abs(guided["images"] - gradients["images"]).max() > 1e-3


def test_guided_grad_cam(model, photograph, label, values, gradients, guided):
    cam = references.grad_cam(values["conv5"], gradients["conv5"])
    expected = references.resize(cam, SIZE)[..., None] * guided["images"]
    found = kvis2.GuidedGradCAM(model, "conv5", **COLORS)(label, photograph)
    assert_same(found, expected)


@pytest.mark.parametrize("multiplied", [False, True])
def test_integrated_gradients_from_the_mean_colour(net, model, photograph, label, multiplied):
    """The mean colour is 0 in normalised space; the weights of the path add up to 1."""
    places, weights = np.polynomial.legendre.leggauss(6)
    expected = np.zeros(photograph.shape)
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        expected += weight * net.of_class(net.forward(place * photograph), label)["images"]
    expected *= photograph if multiplied else 1
    found = kvis2.IntegratedGradients(
        model, steps=6, multiply_by_inputs=multiplied, **COLORS
    )(label, photograph)  # fmt: skip
    assert_same(found, expected)


def test_gradient_times_image(model, photograph, label, gradients, guided):
    vanilla = kvis2.InputXGradient(model, **COLORS)(label, photograph)
    assert_same(vanilla, photograph * gradients["images"])
    found = kvis2.InputXGradient(model, model_modifier=GUIDED, **COLORS)(label, photograph)
    assert_same(found, photograph * guided["images"])


@pytest.mark.parametrize("is_guided", [False, True])
def test_smooth_grad(net, model, photograph, label, is_guided):
    """The signed mean; the deviation is a fraction of the range, not its inverse squared."""
    draws = normal(tf.range(3), photograph.shape[1:], tf.constant(0)).numpy()
    noisy = [photograph + 0.15 * np.ptp(photograph) * draw for draw in draws]
    expected = np.mean(
        [net.of_class(net.forward(x), label, is_guided)["images"] for x in noisy], axis=0
    )
    modifier = GUIDED if is_guided else kvis2.LinearOutput()
    saliency = kvis2.Saliency(model, model_modifier=modifier, **COLORS)
    assert_same(kvis2.SmoothGrad(saliency, samples=3, noise=0.15)(label, photograph), expected)


# -- II.3, II.4, II.8: class activation maps ------------------------------------------------------


@pytest.mark.parametrize("layer", ["conv5", "conv3"])
def test_grad_cam(model, photograph, label, values, gradients, layer):
    expected = references.grad_cam(values[layer], gradients[layer])
    assert_same(kvis2.GradCAM(model, layer, **RAW)(label, photograph), expected)


def test_grad_cam_has_the_size_of_an_image_that_is_not_square(
    model, photograph, label, values, gradients
):
    raw = references.grad_cam(values["conv5"], gradients["conv5"])
    expected = references.normalize(references.resize(raw, SIZE), "minmax")
    found = kvis2.GradCAM(model, "conv5", normalize="minmax")(label, photograph)
    assert_same(found, expected)


def test_grad_cam_starts_from_zero():
    """Sums (-2, -.5, .5, 1) give (0, 0, .5, 1); the original's 1 + sum gave (0, .25, .75, 1)."""
    model = keras.Sequential(
        [
            keras.Input((1, 4, 1)),
            keras.layers.Conv2D(1, 1, use_bias=False, name="map"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1, use_bias=False),
        ]
    )
    model.set_weights([np.ones((1, 1, 1, 1)), np.ones((1, 1))])
    sums = np.array([-2, -0.5, 0.5, 1], np.float32).reshape(1, 1, 4, 1)
    np.testing.assert_allclose(kvis2.GradCAM(model, "map")(0, sums)[0, 0], [0, 0, 0.5, 1])


def test_score_cam(net, model, photograph, label, values):
    """Each weight is the softmax of the image seen through one map; nothing is subtracted."""
    expected = references.score_cam(
        photograph, values["conv5"], lambda x: net.probabilities(x)[:, label]
    )
    assert_same(kvis2.ScoreCAM(model, "conv5", **RAW)(label, photograph), expected)


@pytest.mark.parametrize("layer", ["pool1", "conv2", "pool2", "conv4"])
def test_layer_cam_at_every_depth(model, photograph, label, values, gradients, layer):
    expected = references.layer_cam(values[layer], gradients[layer])
    assert_same(kvis2.LayerCAM(model, layer, **RAW)(label, photograph), expected)


# -- II.7: relevance ------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["conv1", "conv3", "pool5", "dense1"])
def test_relevance_at_the_layers(net, model, photograph, label, values, layer):
    expected = net.relevance(values, label)[layer]
    explainer = lrp.LRP(model, lrp.GammaEverywhere(), layer, **COLORS)
    found = explainer(label, photograph)
    assert_same(found, expected, 1e-3)
    lost = 1 - expected.sum() / values["logits"][0, label]
    np.testing.assert_allclose(explainer.conservation_error, [abs(lost)], atol=1e-3)


# -- II.11 to II.15: images that are optimised ----------------------------------------------------


def response(net, values, layer, filter_):
    """Gradient of the mean response of a filter before its ReLU, by the image."""
    upstream = np.zeros_like(values[f"pre_{layer}"])
    upstream[..., filter_] = 1.0 / upstream[0, ..., filter_].size
    return net.backward(values, upstream, layer)["images"]


def test_filter_images(net, model):
    """Adam (0.1) on -mean response + 1e-6 z as the gradient's decay, in standard units."""
    start = np.random.default_rng(1).uniform(0, 1, (1, *SIZE, 3)).astype(np.float32)
    z = (start - MEAN) / DEVIATION
    first, second, measured, moved = 0.0, 0.0, [], np.ones(z.shape, bool)
    for step in range(3):
        measured.append(MEAN + DEVIATION * z)
        gradient = -response(net, net.forward(measured[-1]), "conv3", 2) * DEVIATION
        moved &= np.abs(gradient) > 1e-4
        gradient = gradient + 1e-6 * z
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        mean, square = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
        z = z - 0.1 * mean / (np.sqrt(square) + 1e-8)
    snapshots = Snapshots(every=1)
    ascent = ActivationMaximization(
        model, "conv3", input_range=(0, 1), **presets.filter_image(steps=3)
    )
    ascent(2, start, callbacks=[snapshots])
    for image, by_hand in zip(snapshots.images, measured, strict=True):
        # Keras adds Adam's epsilon elsewhere, which shows where the decay alone moves a pixel, and
        # where the tiny difference lets a ReLU switch.
        assert (np.abs(image - by_hand)[moved] < 1e-3).mean() > 0.99
    assert moved.mean() > 0.3
    assert (np.abs(measured[-1] - measured[0])[moved] > 0.01).mean() > 0.9


@pytest.mark.parametrize("layer", ["conv1", "conv3", "conv5"])
def test_the_response_of_a_filter_by_guided_backprop(net, model, photograph, values, layer):
    """score = sum |A_{layer, filter}| before the ReLU of the layer; ReLUs below are guided."""
    upstream = np.zeros_like(values[f"pre_{layer}"])
    upstream[..., 1] = np.sign(values[f"pre_{layer}"][..., 1])
    expected = net.backward(values, upstream, layer, guided=True)["images"]
    # At conv1 there is no ReLU below, and nothing for GuidedReLU to change.
    modifier = None if layer == "conv1" else kvis2.GuidedReLU()
    saliency = kvis2.Saliency(model, model_modifier=modifier, **COLORS)
    score = kvis2.LayerScore(layer, 1, pre_activation=True)
    assert_same(saliency(score, photograph), expected)


@pytest.mark.parametrize("layer", ["pool1", "conv3"])
def test_inverted_representations(net, model, layer):
    """0.1 |phi - phi0|^2 / |phi0|^2 + 1e-7 sum z^6 + 1e-8 TV(z) by momentum."""
    rng = np.random.default_rng(1)
    target, start = (rng.uniform(0, 1, (1, *SIZE, 3)).astype(np.float32) for _ in range(2))
    phi = f"pre_{layer}" if layer in net.weights else layer
    wanted = net.forward(target)[phi]
    z, velocity, measured = (start - MEAN) / DEVIATION, 0.0, []
    for step in range(3):
        measured.append(MEAN + DEVIATION * z)
        reached = net.forward(measured[-1])
        upstream = 0.2 * (reached[phi] - wanted) / (wanted**2).sum()
        gradient = net.backward(reached, upstream, layer)["images"] * DEVIATION + 6e-7 * z**5
        down, right = z[:, 1:, :-1] - z[:, :-1, :-1], z[:, :-1, 1:] - z[:, :-1, :-1]
        gradient[:, 1:, :-1] += 2e-8 * down
        gradient[:, :-1, 1:] += 2e-8 * right
        gradient[:, :-1, :-1] -= 2e-8 * (down + right)
        velocity = 0.9 * velocity - (1e3 if step == 0 else 1e2) * gradient
        z = z + velocity
    assert np.abs(measured[-1] - measured[0]).max() > 0.01
    snapshots = Snapshots(every=1)
    settings = presets.mahendran_vedaldi(first_rate=1e3, steps=3)
    inversion = FeatureInversion(model, layer, input_range=(0, 1), **settings)
    inversion(target, start, callbacks=[snapshots])
    for image, by_hand in zip(snapshots.images, measured, strict=True):
        np.testing.assert_allclose(image, by_hand, atol=1e-3)


def test_deep_dream(net, model):
    """z <- z - 12 (g + 1e-4 z) from grey; the preset steps in the units of 0..255."""
    inputs = keras.Input((*SIZE, 3))
    scaled = keras.Model(inputs, model(keras.layers.Rescaling(1 / 255)(inputs)))
    image = np.random.default_rng(5).uniform(0, 255, (*SIZE, 3)).astype(np.float32)
    expected = image[None].astype(float)
    for _ in range(3):
        gradient = response(net, net.forward(expected / 255), "conv5", 1) / 255
        step = 12 * (255 * DEVIATION) ** 2 * gradient
        expected = expected + step - 12e-4 * (expected - 127.5)
    found = DeepDream(scaled, "conv5", **presets.plain_dream(steps=3))(1, image)
    assert np.abs(expected[0] - image).max() > 1
    np.testing.assert_allclose(found, expected[0], atol=0.02)


def test_class_images(net, model, label):
    """z <- z + 6 df/dz, eight bits at each step."""
    start = np.random.default_rng(1).integers(0, 256, (1, *SIZE, 3)).astype(np.float32) / 255
    picture, measured = start.astype(float), []
    for _ in range(3):
        picture = np.round(255 * np.clip(picture, 0, 1)) / 255
        measured.append(picture)
        gradient = net.of_class(net.forward(picture), label)["images"] * DEVIATION
        picture = picture + DEVIATION * 6 * gradient
    assert np.abs(measured[-1] - measured[0]).max() > 1 / 255
    snapshots = Snapshots(every=1)
    ascent = ActivationMaximization(model, input_range=(0, 1), **presets.class_image(steps=3))
    ascent(label, start, callbacks=[snapshots])
    for image, by_hand in zip(snapshots.images, measured, strict=True):
        # A value halfway between two levels may be rounded either way.
        assert np.abs(image - by_hand).max() < 1.01 / 255
        assert (np.abs(image - by_hand) < 1e-4).mean() > 0.98


# -- II.0.3, II.7: the golden numbers of the picture writers --------------------------------------

EXAMPLE = np.array([[1, -2, 0, 4], [-1, 1, 3, 0], [2, 0, -2, 1]], float)
EXAMPLE = np.moveaxis(EXAMPLE.reshape(3, 2, 2), 0, -1)


def channels_first(values):
    return np.moveaxis(values, -1, 0).ravel()


def test_gray_saliency():
    assert np.abs(EXAMPLE).sum(axis=-1).tolist() == [[4, 3], [5, 5]]
    np.testing.assert_allclose(gradient_pictures.gray_saliency(EXAMPLE), [[0.5, 0], [1, 1]])
    picture = gradient_pictures.gray_picture(EXAMPLE)
    assert picture.tolist() == [[[127] * 3, [0] * 3], [[255] * 3, [255] * 3]]


def test_gray_saliency_is_cut_at_the_99th_percentile():
    gradients = np.arange(201.0).reshape(3, 67, 1)
    found = gradient_pictures.gray_saliency(gradients)
    np.testing.assert_allclose(found, np.minimum(gradients[..., 0] / 198, 1))


def test_positive_and_negative_saliency():
    positive = [0.25, 0, 0, 1, 0, 0.25, 0.75, 0, 0.5, 0, 0, 0.25]
    negative = [0, 1, 0, 0, 0.5, 0, 0, 0, 0, 0, 1, 0]
    found = gradient_pictures.positive_saliency(EXAMPLE)
    np.testing.assert_allclose(channels_first(found), positive)
    picture = gradient_pictures.positive_picture(EXAMPLE)
    assert channels_first(picture).tolist() == [int(255 * each) for each in positive]
    found = gradient_pictures.negative_saliency(EXAMPLE)
    np.testing.assert_allclose(channels_first(found), negative)
    picture = gradient_pictures.negative_picture(EXAMPLE)
    assert channels_first(picture).tolist() == [int(255 * each) for each in negative]


def test_gradients_in_colour_are_stretched_over_all_channels_and_cut_to_eight_bits():
    expected = np.floor(255 * (EXAMPLE + 2) / 6)
    np.testing.assert_array_equal(gradient_pictures.color_picture(EXAMPLE), expected)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0])
@pytest.mark.parametrize("kind", ["color", "gray", "positive", "negative"])
def test_constant_gradients_give_an_even_picture(kind, value):
    picture = getattr(gradient_pictures, f"{kind}_picture")(np.full((2, 3, 3), value))
    assert picture.dtype == np.uint8
    assert picture.shape == (2, 3, 3)
    assert np.ptp(picture) == 0


def test_gradients_of_a_batch_are_answered_in_a_sentence():
    with pytest.raises(ValueError, match=r"gradients of one image.*Received: shape \(1, 2, 2, 3\)"):
        gradient_pictures.color_picture(EXAMPLE[None])


def test_the_limits_and_the_colours_of_relevance():
    relevance = np.array([[1.0, -2.0, 3.0]])
    assert gradient_pictures.relevance_limit(relevance) == pytest.approx(22.8942849)
    shares = relevance / 22.8942849
    seismic = images.colorize(shares, "seismic", (-1, 1))
    picture = gradient_pictures.relevance_picture(relevance)
    np.testing.assert_array_equal(picture, np.floor(0.85 * seismic))
    red, _, blue = picture[0].astype(int).transpose()
    assert red[0] > blue[0]
    assert red[1] < blue[1]
    assert red[2] - blue[2] > red[0] - blue[0]
    assert np.ptp(gradient_pictures.relevance_picture(np.zeros((2, 2)))) <= 1


# -- II.0.1: the input space ----------------------------------------------------------------------


def test_pictures_of_normalised_images():
    """x = (-1, 0, 2) is (65, 116, 218)."""
    low, high = (tuple((each - MEAN) / DEVIATION) for each in (0, 1))
    space = InputSpace(low, high)
    assert space.decode(np.array([[[-1.0, 0.0, 2.0]]])).tolist() == [[[65, 116, 218]]]
    np.testing.assert_allclose(space.mean_color, 0, atol=1e-6)


def test_the_space_of_a_preprocessing_is_found():
    def caffe(x):
        return x[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)

    pictures = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    for preprocess in (caffe, lambda x: x / 127.5 - 1, lambda x: x):
        space = InputSpace.of_preprocessing(preprocess)
        encoded = space.encode(pictures)
        np.testing.assert_allclose(encoded, preprocess(pictures.astype(np.float32)), atol=1e-4)
        np.testing.assert_array_equal(space.decode(encoded), pictures)
    vgg = InputSpace.of_preprocessing(keras.applications.vgg16.preprocess_input)
    assert vgg.blue_first
    np.testing.assert_allclose(vgg.low, [-103.939, -116.779, -123.68])
    with pytest.raises(ValueError, match="scales and shifts each channel"):
        InputSpace.of_preprocessing(lambda x: x**2)


def test_grey_and_transparent_files_are_read(tmp_path):
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    Image.fromarray(levels).save(tmp_path / "grey.png")
    color = np.stack([levels, levels // 2, 255 - levels, levels], axis=-1)
    Image.fromarray(color).save(tmp_path / "transparent.png")
    np.testing.assert_array_equal(
        InputSpace().read(tmp_path / "grey.png", None), np.repeat(levels[..., None], 3, axis=-1)
    )
    read = InputSpace().read(tmp_path / "transparent.png", None)
    np.testing.assert_array_equal(read, color[..., :3])
    grey = InputSpace((0.0,), (1.0,)).read(tmp_path / "grey.png", (6, 8))
    assert grey.shape == (6, 8, 1)
