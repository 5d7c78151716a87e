"""Segmentations: which region is explained, by closed forms on a small U-Net."""

import keras
import numpy as np
import pytest
import references
import tensorflow as tf
from references import assert_same

import kvis2
from kvis2 import GradCAM, HiResCAM, Saliency, SegmentationScore, SegXResCAM
from kvis2.metrics import Deletion
from kvis2.metrics.explained import definite
from kvis2.models import Batch
from kvis2.scores import Shows, as_scores

RAW = {"normalize": False, "resize": False}
SIZE = (8, 12)


def unet(classes=3, activation="softmax"):
    """encoder -> pool -> bottleneck -> up, joined with the encoder -> 1x1 convolution."""
    inputs = keras.Input((*SIZE, 2))
    early = keras.layers.Conv2D(3, 3, padding="same", activation="relu", name="encoder")(inputs)
    x = keras.layers.MaxPooling2D()(early)
    x = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="bottleneck")(x)
    x = keras.layers.UpSampling2D(name="up")(x)
    x = keras.layers.Concatenate()([x, early])
    x = keras.layers.Conv2D(classes, 1, name="logits")(x)
    outputs = keras.layers.Activation(activation, name="classes")(x)
    model = keras.Model(inputs, outputs)
    draw = np.random.default_rng(5)
    model.set_weights([draw.normal(0, 0.6, w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def model():
    return unet()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(3, *SIZE, 2)).astype(np.float32)


def read(model, images):
    """The bottleneck's activations, the logits and the last kernel `(channels, classes)`."""
    parts = [model.get_layer(name).output for name in ("bottleneck", "logits")]
    bottleneck, logits = (each.numpy() for each in keras.Model(model.input, parts)(images))
    return bottleneck.astype(float), logits, model.get_layer("logits").get_weights()[0][0, 0]


def in_closed_form(masks, kernel, classes):
    """d (mean over the mask of the logit) / d bottleneck: the kernel's column, times the share of
    the mask's pixels that a position is enlarged to."""
    samples, height, width = masks.shape
    blocks = masks.reshape(samples, height // 2, 2, width // 2, 2).sum(axis=(2, 4))
    shares = blocks / masks.sum(axis=(1, 2))[:, None, None]
    return shares[..., None] * kernel[:5, classes].T[:, None, None]


def regions(logits, classes):
    """The three regions that a word names, and one drawn by hand."""
    samples = range(len(classes))
    predicted = logits.argmax(axis=-1) == np.array(classes)[:, None, None]
    assert predicted.any(axis=(1, 2)).all()
    assert not predicted.all(axis=(1, 2)).any()
    single = np.zeros(logits.shape[:-1], bool)
    for n, label in zip(samples, classes, strict=True):
        single[n][np.unravel_index(logits[n, ..., label].argmax(), SIZE)] = True
    drawn = np.zeros(logits.shape[:-1], bool)
    drawn[:, 1:4, 2:7] = True
    return {"object": predicted, "single": single, "all": np.ones_like(predicted), "drawn": drawn}


@pytest.mark.filterwarnings("ignore:.*found no evidence")  # The ReLU leaves nothing of one.
@pytest.mark.parametrize(
    "region",
    [
        "object",
        "single",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("all", "drawn")),
    ],
)
def test_seg_grad_cam_and_seg_xres_cam_of_a_unet_in_closed_form(model, images, region):
    classes = [0, 2, 1]
    bottleneck, logits, kernel = read(model, images)
    masks = regions(logits, classes)
    gradients = in_closed_form(masks[region], kernel, classes)
    score = SegmentationScore(classes, masks["drawn"] if region == "drawn" else region)
    for explainer, expected in [
        (GradCAM(model, "bottleneck", **RAW), references.grad_cam(bottleneck, gradients)),
        (
            GradCAM(model, "bottleneck", batch_size=2, **RAW),
            references.grad_cam(bottleneck, gradients),
        ),
        (
            SegXResCAM(model, "bottleneck", pool_size=3, **RAW),
            references.seg_xres_cam(bottleneck, gradients, 3, "max"),
        ),
        (
            SegXResCAM(model, "bottleneck", pool_size=3, pooling="mean", **RAW),
            references.seg_xres_cam(bottleneck, gradients, 3, "mean"),
        ),
    ]:
        assert_same(explainer(score, images), expected)


@pytest.mark.slow
def test_seg_xres_cam_lies_between_hires_cam_and_grad_cam(model, images):
    score = SegmentationScore(1, "object")
    single = SegXResCAM(model, "bottleneck", pool_size=1, **RAW)(score, images)
    assert_same(single, np.maximum(HiResCAM(model, "bottleneck", **RAW)(score, images), 0))
    whole = SegXResCAM(model, "bottleneck", pool_size=6, pooling="mean", **RAW)(score, images)
    assert_same(whole, GradCAM(model, "bottleneck", **RAW)(score, images))


@pytest.mark.slow
def test_methods_without_gradients_keep_the_region_of_the_input_as_it_is(model, images):
    """ScoreCAM sees masked images, in which another region would be predicted."""
    logits = read(model, images)[1]
    mask = logits.argmax(axis=-1) == 1
    for method in kvis2.AblationCAM, kvis2.ScoreCAM:
        explainer = method(model, "bottleneck", **RAW)
        found = explainer(SegmentationScore(1, "object"), images)
        assert_same(found, explainer(SegmentationScore(1, mask), images))


class TestOneChannel:
    """A sigmoid says that class 1 is the object; so does a compiled loss, of logits."""

    @pytest.mark.parametrize("kind", ["sigmoid", "compiled logits"])
    @pytest.mark.parametrize("label", [0, 1])
    def test_object(self, images, kind, label):
        model = unet(1, "sigmoid" if kind == "sigmoid" else "linear")
        if kind != "sigmoid":
            model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
        bottleneck, logits, kernel = read(model, images)
        masks = (logits[..., 0] > 0) == bool(label)
        assert masks.any(axis=(1, 2)).all()
        assert not masks.all(axis=(1, 2)).any()
        kernel = np.concatenate([-kernel, kernel], axis=1)
        gradients = in_closed_form(masks, kernel, [label] * 3)
        maps = HiResCAM(model, "bottleneck", **RAW)(SegmentationScore(label, "object"), images)
        assert_same(maps, references.hires_cam(bottleneck, gradients))

    def test_a_number_is_not_taken_for_two_classes(self, images):
        model = unet(1, "linear")
        with (
            pytest.warns(UserWarning, match="taken for a number"),
            pytest.raises(ValueError, match="several classes, or one channel"),
        ):
            GradCAM(model, "bottleneck")(SegmentationScore(0, "object"), images)


def test_classes_that_do_not_exclude_each_other_are_predicted_above_one_half():
    probabilities = tf.constant([[[[0.6, 0.9], [0.4, 0.3]]]])
    by_size = SegmentationScore(0, "object").fixed(probabilities)
    np.testing.assert_array_equal(by_size.mask, [[[0, 1]]])
    labels = SegmentationScore(0, "object").fixed(probabilities, Shows(True, exclusive=False))
    np.testing.assert_array_equal(labels.mask, [[[1, 0]]])
    logits = tf.math.log(probabilities / (1 - probabilities))
    labels = SegmentationScore(0, "object").fixed(logits, Shows(False, exclusive=False))
    np.testing.assert_array_equal(labels.mask, [[[1, 0]]])


def test_labels_of_a_model_that_ends_in_several_sigmoids(images):
    model = unet(3, "sigmoid")
    logits = read(model, images)[1]
    mask = logits[..., 2] > 0
    assert (mask != (logits.argmax(axis=-1) == 2)).any()
    for modifier in (kvis2.LinearOutput(), None):
        explainer = Saliency(model, model_modifier=modifier, normalize=False)
        found = explainer(SegmentationScore(2, "object"), images)
        assert_same(found, explainer(SegmentationScore(2, mask), images))


@pytest.mark.parametrize("layer", ["logits", "classes"])
def test_the_layer_that_is_the_segmentation_is_refused(model, images, layer):
    with pytest.raises(ValueError, match=f"before the segmentation.*'{layer}'"):
        GradCAM(model, layer, model_modifier=None)(SegmentationScore(1), images)


def test_a_class_that_is_predicted_nowhere(model, images):
    gone = keras.models.clone_model(model)
    kernel, bias = model.get_layer("logits").get_weights()
    gone.set_weights(model.get_weights())
    gone.get_layer("logits").set_weights([kernel, bias - [0, 1e3, 0]])
    for explainer in GradCAM(gone, "bottleneck"), Saliency(gone), kvis2.Occlusion(gone):
        with pytest.raises(ValueError, match="predicts somewhere in every sample"):
            explainer(SegmentationScore(1, "object"), images)
    with pytest.raises(ValueError, match="predicts somewhere in every sample"):
        as_scores(SegmentationScore(1, "object"), 1)(tf.zeros([1, 2, 2, 2]))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SegmentationScore(1, "objects"), "one of 'object', 'all', 'single'"),
        (lambda: SegXResCAM(unet(), pool_size=0), "int of 1 or more"),
        (lambda: SegXResCAM(unet(), pooling="sum"), "'max' or 'mean'"),
    ],
)
def test_wrong_argument(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.slow
def test_a_classifier_has_no_region(small_model):
    with pytest.raises(ValueError, match=r"a segmentation.*Use CategoricalScore"):
        GradCAM(small_model)(SegmentationScore(1, "object"), np.zeros((1, 16, 12, 3), np.float32))


@pytest.mark.slow
def test_a_score_is_made_definite_for_measures_of_explainers(model, images):
    predicted = read(model, images)[1].argmax(axis=-1)
    batch = Batch(model, images)
    score = definite(Saliency(model), as_scores(SegmentationScore(1, "object"), 3), batch)
    np.testing.assert_array_equal(score.mask, predicted == 1)
    assert score.choices == ()
    finer = definite(Saliency(unet()), as_scores(kvis2.FinerScore(), 3), batch)
    assert finer.compared.shape == (3, 3)


@pytest.mark.slow
def test_measures_keep_the_region_of_the_input(model, images):
    mask = read(model, images)[1].argmax(axis=-1) == 1
    measure = Deletion(model, steps=4)
    maps = Saliency(model)(SegmentationScore(1, "object"), images)
    found = measure(SegmentationScore(1, "object"), images, maps)
    np.testing.assert_allclose(found, measure(SegmentationScore(1, mask), images, maps))
