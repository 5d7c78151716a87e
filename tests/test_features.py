"""Feature maps, kernels and favourite patches against a net that is written by hand."""

import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_net import TinyNet

import kvis2
from kvis2.inspection import activations, kernel_sheet, kernels, receptive_field, top_patches


@pytest.fixture(scope="module")
def net():
    return TinyNet.random(3, channels=3)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(2).normal(size=(11, 8, 9, 3)).astype(np.float32)


@pytest.mark.parametrize("rows", [None, 1, 4])
def test_activations_are_the_layers_output_in_any_batches(net, pictures, rows):
    model, values = net.as_keras(8, 9), net.forward(pictures)
    for layer, expected in [("conv1", values.conv1), ("pre2", values.pre2)]:
        found = activations(model, layer, pictures, batch_size=rows)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    early = activations(model, "conv1", pictures, pre_activation=True, batch_size=rows)
    np.testing.assert_allclose(early, values.pre1, rtol=1e-4, atol=1e-5)
    found = activations(model, "predictions", pictures, batch_size=rows)
    np.testing.assert_allclose(found, net.probabilities(pictures), rtol=1e-4)
    logits = activations(model, "predictions", pictures, pre_activation=True, batch_size=rows)
    np.testing.assert_allclose(logits, values.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "relu6", "elu", "silu", "tanh", "leaky_relu"])
@pytest.mark.parametrize("fused", [True, False])
def test_what_enters_an_activation_is_found(activation, fused, pictures):
    inputs = keras.Input((8, 9, 3))
    convolution = keras.layers.Conv2D(4, 3, activation=activation if fused else None, name="c")
    outputs = convolution(inputs)
    if not fused:
        outputs = keras.layers.Activation(activation, name="a")(outputs)
    model = keras.Model(inputs, outputs)
    found = activations(model, "c" if fused else "a", pictures, pre_activation=True)
    expected = keras.ops.conv(pictures, *convolution.get_weights()[:1])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_activations_inside_a_nested_model(net, pictures):
    inputs = keras.Input((8, 9, 3))
    model = keras.Model(inputs, net.as_keras(8, 9)(inputs))
    expected = net.forward(pictures).conv2
    found = activations(model, "conv2", pictures)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# -- kernels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "size", "shape"),
    [
        (keras.layers.Conv1D(5, 3), (9, 2), (5, 3, 2)),
        (keras.layers.Conv2D(5, (3, 4)), (9, 9, 3), (5, 3, 4, 3)),
        (keras.layers.Conv3D(2, 3), (5, 5, 5, 4), (2, 3, 3, 3, 4)),
        (keras.layers.Conv2DTranspose(5, 3), (9, 9, 2), (5, 3, 3, 2)),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), (9, 9, 4), (8, 3, 3, 1)),
        (keras.layers.SeparableConv2D(7, 3, depth_multiplier=2), (9, 9, 4), (8, 3, 3, 1)),
        (keras.layers.Dense(6), (4,), (6, 4)),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, keras.Layer) else None,
)
def test_kernels_have_their_filters_first(layer, size, shape):
    layer.build((None, *size))
    found = kernels(layer)
    assert found.shape == shape
    assert found.dtype == np.float32
    sheet = kernel_sheet(layer)
    assert sheet.dtype == np.uint8
    assert sheet.shape[-1] == 3


def test_each_kernel_is_that_of_its_filter():
    plain = keras.layers.Conv2D(4, 3, use_bias=False)
    patch = np.random.default_rng(0).normal(size=(1, 3, 3, 2)).astype(np.float32)
    response = plain(patch).numpy().ravel()
    np.testing.assert_allclose((kernels(plain) * patch).sum(axis=(1, 2, 3)), response, rtol=1e-4)

    depthwise = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)
    response = depthwise(patch).numpy().ravel()
    single = np.repeat(patch[0], 2, axis=-1)  # channel 0, 0, 1, 1
    by_hand = [(kernels(depthwise)[f, ..., 0] * single[..., f]).sum() for f in range(4)]
    np.testing.assert_allclose(by_hand, response, rtol=1e-4)


def test_a_sheet_shows_signs_by_colour():
    layer = keras.layers.Conv2D(2, 2, use_bias=False)
    layer.build((None, 5, 5, 3))
    kernel = np.zeros((2, 2, 3, 2), np.float32)
    kernel[0, 0, :, 0] = [0.5, 0.0, -0.5]
    layer.set_weights([kernel])
    sheet = kernel_sheet(layer, size=8)
    assert (sheet[4:8, 4:8] == [255, 127, 0]).all()
    assert (sheet[8:12, 8:12] == 127).all()
    with pytest.raises(ValueError, match="with a kernel"):
        kernels(keras.layers.ReLU())


# -- patches ---------------------------------------------------------------------------------------


def test_receptive_fields_are_measured(net):
    model = net.as_keras(12, 13)
    assert receptive_field(model, "conv1", (12, 13)) == [3, 3]
    assert receptive_field(model, "conv2", (12, 13)) == [5, 5]
    assert receptive_field(model, "predictions", (12, 13)) == [12, 13]


def by_hand(net, pictures, unit, count):
    maps = net.forward(pictures).conv2[..., unit]
    peaks = [(m.max(), n, np.unravel_index(m.argmax(), m.shape)) for n, m in enumerate(maps)]
    return sorted(peaks, key=lambda each: -each[0])[:count]


def datasets(pictures):
    labels = np.arange(len(pictures))
    data = tf.data.Dataset.from_tensor_slices((pictures, labels)).batch(4)
    return [pictures, data, (pictures[i : i + 3] for i in range(0, len(pictures), 3))]


@pytest.mark.parametrize("kind", range(3))
def test_the_strongest_patches_of_a_dataset(net, pictures, kind):
    found = top_patches(net.as_keras(8, 9), "conv2", [1, 4], datasets(pictures)[kind], count=5)
    for unit in (1, 4):
        expected = by_hand(net, pictures, unit, 5)
        assert len(found[unit]) == 5
        for patch, (value, image, position) in zip(found[unit], expected, strict=True):
            assert patch.value == pytest.approx(value, rel=1e-4)
            if value > 0:  # among responses of zero any order will do
                assert (patch.image, patch.position) == (image, tuple(position))
            rows, columns = (slice(*each) for each in patch.box)
            np.testing.assert_array_equal(patch.pixels, pictures[patch.image][rows, columns])
            assert patch.pixels.shape == (5, 5, 3)


def test_patches_are_ranked_by_what_a_unit_does_for_a_class(net, pictures):
    """By activation times gradient of class 2, written out in NumPy, and not by the activation."""
    model = net.as_keras(8, 9)
    values = net.forward(pictures).conv1
    parts = (values * net.gradients(pictures, [2] * len(pictures)).conv1)[..., 0]
    order = np.argsort(-parts.max(axis=(1, 2)))[:4]
    assert parts.max(axis=(1, 2))[order].min() > 0
    assert order.tolist() != np.argsort(-values[..., 0].max(axis=(1, 2)))[:4].tolist()

    by = kvis2.InputXGradient(model, layer="conv1", keepdims=True)
    found = top_patches(model, "conv1", 0, pictures, count=4, by=by, score=2)[0]

    assert [each.image for each in found] == order.tolist()
    for patch in found:
        place = np.unravel_index(parts[patch.image].argmax(), parts.shape[1:])
        assert patch.position == tuple(place)
        assert patch.value == pytest.approx(parts[patch.image].max(), rel=1e-4)
    relevance = kvis2.LRP(
        model, kvis2.lrp.Composite(kvis2.lrp.Epsilon(0)), layer="conv1", keepdims=True
    )
    # LRP-0 is activation times gradient.
    same = top_patches(model, "conv1", 0, pictures, count=4, by=relevance, score=2)[0]
    assert [each.image for each in same] == order.tolist()


def test_an_explainer_of_another_layer_ranks_no_patches(net, pictures):
    model = net.as_keras(8, 9)
    for by in (kvis2.Saliency(model, "conv2", keepdims=True), kvis2.Saliency(model, "conv1")):
        with pytest.raises(ValueError, match="same model and layer that keeps the channels"):
            top_patches(model, "conv1", 0, pictures, by=by)


def test_a_dataset_is_not_kept(net, pictures):
    """When a batch is asked for, no array of an earlier one is held, whatever was found in it."""
    given = []

    def batches():
        for start in range(0, 9, 3):
            assert all(each() is None for each in given[:-1])  # the loop still names the last one
            batch = pictures[start : start + 3].copy()
            given.append(weakref.ref(batch))
            yield batch

    found = top_patches(net.as_keras(8, 9), "conv2", [1, 4], batches(), count=2)
    assert len(given) == 3
    assert all(each() is None for each in given)
    assert [len(each) for each in found.values()] == [2, 2]


def test_a_patch_alone_excites_its_unit_as_much(net, pictures):
    """The patch is the receptive field: run by itself it gives the same response."""
    found = top_patches(net.as_keras(8, 9), "conv2", 1, pictures, count=3)[1]
    for patch in found:
        if patch.box == tuple((i, i + 5) for i in patch.position):
            response = net.forward(patch.pixels[None]).conv2[0, 0, 0, 1]
            assert response == pytest.approx(patch.value, rel=1e-4)


def test_mistakes_are_answered_in_one_sentence(net, pictures):
    model = net.as_keras(8, 9)
    with pytest.raises(ValueError, match="units from 0 to 4"):
        top_patches(model, "conv2", 5, pictures)
    with pytest.raises(ValueError, match="at least one image"):
        top_patches(model, "conv2", 0, iter(()))
