"""The functions of keras-vis: the golden numbers of the original, and what was mended in it."""

import gc
import inspect
import weakref

import keras
import numpy as np
import pytest
from PIL import Image
from tiny_net import Case, TinyNet

from kvis2 import presets
from kvis2 import visualization as vis
from kvis2.ascent import ActivationMaximization
from kvis2.models import GuidedReLU
from kvis2.passes import trace_count
from kvis2.visualization import callbacks, graphs, input_modifiers, losses, tools
from kvis2.visualization.evaluation import Evaluation, LossModel

Parameter = inspect.Parameter
REQUIRED = Parameter.empty

DOCUMENTED = {
    vis.visualize_activation_with_losses: {
        "input_tensor": REQUIRED,
        "losses": REQUIRED,
        "wrt_tensor": None,
        "seed_input": None,
        "input_range": (0, 255),
    },
    vis.visualize_activation: {
        "model": REQUIRED,
        "layer_idx": REQUIRED,
        "filter_indices": None,
        "wrt_tensor": None,
        "seed_input": None,
        "input_range": (0, 255),
        "backprop_modifier": None,
        "grad_modifier": None,
        "act_max_weight": 1,
        "lp_norm_weight": 10,
        "tv_weight": 10,
    },
    vis.visualize_saliency_with_losses: {
        "input_tensor": REQUIRED,
        "losses": REQUIRED,
        "seed_input": REQUIRED,
        "wrt_tensor": None,
        "grad_modifier": "absolute",
        "keepdims": False,
    },
    vis.visualize_saliency: {
        "model": REQUIRED,
        "layer_idx": REQUIRED,
        "filter_indices": REQUIRED,
        "seed_input": REQUIRED,
        "wrt_tensor": None,
        "backprop_modifier": None,
        "grad_modifier": "absolute",
        "keepdims": False,
    },
    vis.visualize_cam_with_losses: {
        "input_tensor": REQUIRED,
        "losses": REQUIRED,
        "seed_input": REQUIRED,
        "penultimate_layer": REQUIRED,
        "grad_modifier": None,
    },
    vis.visualize_cam: {
        "model": REQUIRED,
        "layer_idx": REQUIRED,
        "filter_indices": REQUIRED,
        "seed_input": REQUIRED,
        "penultimate_layer_idx": None,
        "backprop_modifier": None,
        "grad_modifier": None,
    },
    vis.overlay: {"array1": REQUIRED, "array2": REQUIRED, "alpha": 0.5},
    vis.get_num_filters: {"layer": REQUIRED},
    vis.Optimizer: {
        "input_tensor": REQUIRED,
        "losses": REQUIRED,
        "input_range": (0, 255),
        "wrt_tensor": None,
        "norm_grads": True,
    },
    vis.Optimizer.minimize: {
        "self": REQUIRED,
        "seed_input": None,
        "max_iter": 200,
        "input_modifiers": None,
        "grad_modifier": None,
        "callbacks": None,
        "verbose": True,
    },
    vis.ActivationMaximization: {"layer": REQUIRED, "filter_indices": REQUIRED},
    vis.TotalVariation: {"img_input": REQUIRED, "beta": 2.0},
    vis.LPNorm: {"img_input": REQUIRED, "p": 6.0},
    vis.Jitter: {"jitter": 0.05},
    vis.GifGenerator: {"path": REQUIRED, "input_range": (0, 255)},
    vis.OptimizerCallback.callback: dict.fromkeys(
        ["self", "i", "named_losses", "overall_loss", "grads", "wrt_value"], REQUIRED
    ),
}


@pytest.mark.parametrize("function", DOCUMENTED, ids=lambda each: each.__qualname__)
def test_signatures_are_the_documented_ones(function):
    parameters = inspect.signature(function).parameters.values()
    positional = {
        each.name: each.default
        for each in parameters
        if each.kind is Parameter.POSITIONAL_OR_KEYWORD
    }
    assert list(positional.items()) == list(DOCUMENTED[function].items())
    extra = [each for each in parameters if each.kind is Parameter.KEYWORD_ONLY]
    assert all(each.default is not REQUIRED for each in extra)


def vector_model(size):
    inputs = keras.Input((size,))
    return keras.Model(inputs, keras.layers.Activation("linear")(inputs))


class Function(vis.Loss):
    """A loss of the input itself, as a user would write one."""

    def __init__(self, tensor, function):
        super().__init__()
        self.tensor, self.function = tensor, function

    def build_loss(self):
        return self.function(self.tensor)


class Record(vis.OptimizerCallback):
    def __init__(self):
        self.steps, self.totals, self.named, self.values, self.ended = [], [], [], [], 0

    def callback(self, i, named_losses, overall_loss, grads, wrt_value):
        self.steps.append(i)
        self.named.append(named_losses)
        self.totals.append(overall_loss)
        self.values.append(wrt_value)

    def on_end(self):
        self.ended += 1


# -- the optimiser --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compat", "best"), [(None, -0.2695701), ("keras-vis", 2.3783326)], ids=["mended", "original"]
)
def test_best_input_is_the_one_at_which_the_best_loss_was_measured(compat, best):
    x = vector_model(1).input
    record = Record()
    found, _, last = vis.Optimizer(
        x, [(Function(x, lambda t: keras.ops.sum(t**2)), 1)], compat=compat
    ).minimize([1.0], 4, callbacks=[record], verbose=False, deprocess="none")
    assert record.totals == pytest.approx([1, 12.0557, 0.0726680, 5.6565], rel=1e-4)
    assert [float(v[0, 0]) for v in record.values] == pytest.approx(
        [1, -3.4721317, -0.2695701, 2.3783326], rel=1e-5
    )
    assert found == pytest.approx([best], rel=1e-5)
    assert float(last[0, 0]) == pytest.approx(2.3783326, rel=1e-5)
    assert record.ended == 1


def test_steps_are_those_of_rmsprop_without_learning_rate():
    x = vector_model(2).input
    record = Record()
    loss = Function(x, lambda t: keras.ops.sum(t * np.float32([0.6, -0.8])))
    vis.Optimizer(x, [(loss, 1)]).minimize([10, 10], 4, callbacks=[record], verbose=False)
    values = np.concatenate(record.values)
    expected = [(-4.4721235, 4.4721290), (-3.2025585, 3.2025605), (-2.6479010, 2.6479022)]
    np.testing.assert_allclose(np.diff(values, axis=0), expected, atol=3e-6)
    np.testing.assert_allclose(values[-1], [-0.3225831, 20.3225916], atol=3e-6)


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({}, 4.4721 / 255),
        ({"scale_steps_to_range": False}, 4.4721),
        ({"learning_rate": 0.5}, 4.4721 / 510),
    ],
)
def test_steps_follow_the_input_range(options, first):
    x = vector_model(2).input
    record = Record()
    vis.Optimizer(x, [(Function(x, keras.ops.sum), 1)], (0.0, 1.0)).minimize(
        [0.5, 0.5], 2, callbacks=[record], verbose=False, **options
    )
    assert record.values[0] - record.values[1] == pytest.approx(first, rel=1e-4)


def test_seed_is_bounded_noise_in_the_middle_of_the_range():
    x = keras.Input((20, 20, 3))
    record = Record()
    vis.Optimizer(x, [(vis.LPNorm(x), 1)]).minimize(max_iter=1, callbacks=[record], verbose=False)
    seed = record.values[0]
    assert seed.shape == (1, 20, 20, 3)
    assert seed.mean() == pytest.approx(127.5, abs=1e-3)
    assert seed.std() == pytest.approx(12.74999, abs=1e-3)
    bound = 12.75 * np.sqrt(3) * 1.05
    assert np.abs(seed - 127.5).max() < bound


def test_open_input_size_needs_a_shape():
    x = keras.Input((None, None, 3))
    optimizer = vis.Optimizer(x, [(vis.LPNorm(x), 1)])
    with pytest.raises(ValueError, match=r"fixed input size.*shape=\(224, 224, 3\)"):
        optimizer.minimize(max_iter=1, verbose=False)
    found, _, _ = optimizer.minimize(max_iter=1, verbose=False, shape=(6, 5, 3))
    assert found.shape == (6, 5, 3)


def test_every_image_of_a_batch_is_returned_and_the_seed_is_left_alone():
    x = keras.Input((4, 4, 1))
    # The mean over the batch of a loss for each image: with one norm for each they stay apart.
    optimizer = vis.Optimizer(x, [(Function(x, lambda t: keras.ops.sum(t**2)), 1)])
    seeds = np.random.default_rng(0).normal(100, 20, (3, 4, 4, 1))
    kept = seeds.copy()
    options = {"max_iter": 3, "verbose": False, "deprocess": "none"}
    together, gradient, _ = optimizer.minimize(seeds, **options)
    assert together.shape == gradient.shape == (3, 4, 4, 1)
    for seed, found in zip(seeds, together, strict=True):
        np.testing.assert_allclose(optimizer.minimize(seed, **options)[0], found, rtol=1e-5)
    np.testing.assert_array_equal(seeds, kept)
    original = vis.Optimizer(
        x, [(Function(x, lambda t: keras.ops.sum(t**2)), 1)], compat="keras-vis"
    )
    _, gradient, _ = original.minimize(seeds, **options)
    assert np.linalg.norm(gradient) == pytest.approx(1, rel=1e-5)


def test_arguments_are_not_changed_and_every_step_is_printed(capsys):
    x = vector_model(2).input
    optimizer = vis.Optimizer(x, [(Function(x, keras.ops.sum), 2)])
    watchers = []
    optimizer.minimize([1.0, 2.0], 2, callbacks=watchers)
    assert watchers == []
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0] == ("Iteration: 1, named_losses: [('Unnamed Loss', 6.0)], overall loss: 6.0")


def test_losses_without_weight_are_left_out():
    x = vector_model(2).input
    record = Record()
    terms = [(Function(x, keras.ops.sum), None), (vis.LPNorm(x, p=2), 3), (vis.LPNorm(x), 0)]
    vis.Optimizer(x, terms).minimize([3, 4], 1, callbacks=[record], verbose=False)
    assert record.named == [[("L-2 Norm Loss", pytest.approx(3 * 5 / 2))]]
    with pytest.raises(ValueError, match="Expected a loss with a weight that is not zero"):
        vis.Optimizer(x, [(Function(x, keras.ops.sum), None)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_iter": 0}, "Expected `max_iter` of at least 1. Received: 0"),
        ({"seed_input": [-1.0, 1.0]}, "Expected a finite loss. Received: NaN.* at step 1"),
        ({"grad_modifier": "np"}, "'negate', .*Received: 'np'"),
        ({"deprocess": "no"}, "deprocessing: 'standard', 'clip', 'none'"),
    ],
)
def test_what_cannot_be_minimised_is_said(options, message):
    x = vector_model(2).input
    optimizer = vis.Optimizer(x, [(Function(x, lambda t: keras.ops.sum(keras.ops.log(t))), 1)])
    with pytest.raises(ValueError, match=message):
        optimizer.minimize(**({"seed_input": [1.0, 1.0], "verbose": False} | options))


@pytest.mark.slow
def test_a_layer_is_differentiated_by_but_not_optimised():
    inputs = keras.Input((2,))
    middle = keras.layers.Dense(3, activation="relu", name="middle")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="end")(middle))
    loss = [(vis.ActivationMaximization(model.get_layer("end"), 0), -1)]
    optimizer = vis.Optimizer(inputs, loss, wrt_tensor=middle, norm_grads=False)
    _, gradient, value = optimizer.minimize([1.0, 2.0], 1, verbose=False)
    np.testing.assert_allclose(gradient[0], model.get_layer("end").kernel[:, 0])
    np.testing.assert_allclose(value, model.get_layer("middle")(np.float32([[1, 2]])), rtol=1e-6)
    with pytest.raises(ValueError, match="Expected the input to be optimised"):
        optimizer.minimize([1.0, 2.0])
    with pytest.raises(ValueError, match="Expected the input to be optimised"):
        vis.visualize_activation(model, -1, 0, wrt_tensor=middle, tv_weight=0)


@pytest.mark.slow
def test_callbacks_end_when_a_step_fails(tmp_path):
    x = keras.Input((8, 8, 1))
    gif = vis.GifGenerator(str(tmp_path / "progress"), width=90)

    class Fails(vis.OptimizerCallback):
        def callback(self, i, *rest):
            if i == 2:
                raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        vis.Optimizer(x, [(vis.LPNorm(x), 1)]).minimize(callbacks=[gif, Fails()], verbose=False)
    with Image.open(tmp_path / "progress.gif") as written:
        assert written.n_frames == 3
        assert written.size == (90, 90)


# -- losses and regularisers ----------------------------------------------------------------------


def value_of(loss, tensor, x):
    model, scores, _ = LossModel.of(tensor, [(loss, 1)])
    evaluation = Evaluation(model, norm_grads=False, norm_per_sample=True, model_modifier=None)
    losses, _, gradient = evaluation.measured(scores, x)
    return float(losses[0]), gradient


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "filters", "expected"),
    [
        ((1, 6), 2, -2.0),
        ((1, 6), [1, 2], -3.0),
        ((1, 6), (1, 2), -3.0),
        ((1, 6), range(1, 3), -3.0),
        ((1, 6), np.array([1, 2]), -3.0),
        ((1, 6), None, -2.5),
        ((1, 6), list(range(6)), -15.0),
        ((1, 2, 2, 2), 1, -4.0),
        ((1, 2, 2, 2), [0, 1], -7.0),
        ((1, 2, 2, 2), None, -3.5),
    ],
)
def test_activation_loss(shape, filters, expected):
    y = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    inputs = keras.Input(shape[1:])
    layer = keras.layers.Activation("linear")
    layer(inputs)
    loss = vis.ActivationMaximization(layer, filters)
    assert str(loss) == "ActivationMax Loss"
    assert value_of(loss, inputs, y)[0] == pytest.approx(expected)
    # The score of the explainers is the same, with the other sign.
    axis = graphs.channel_axis(layer, len(shape))
    assert float(losses.UnitSum(filters, axis)(y)[0]) == pytest.approx(-expected)


@pytest.mark.slow
@pytest.mark.parametrize("filters", [6, -1, [0, 9]])
def test_filters_that_are_not_there(filters):
    model = vector_model(6)
    loss = vis.ActivationMaximization(model.layers[-1], filters)
    with pytest.raises(ValueError, match=r"filter indices from 0 to 5.*has 6 filters"):
        loss.build_loss()
    with pytest.raises(ValueError, match=r"filter indices from 0 to 5.*has 6 filters"):
        vis.visualize_saliency(model, -1, filters, np.zeros(6))
    with pytest.raises(ValueError, match=r"Expected filter indices.*Received: 1.5"):
        vis.ActivationMaximization(model.layers[-1], 1.5)


GOLDEN = np.float32([[[(5, 1), (2, 3), (4, 5)], [(6, 7), (8, 9), (10, -4)]]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "name", "expected"),
    [
        (lambda x: vis.TotalVariation(x), "TV(2.0) Loss", 10.8333333),
        (lambda x: vis.TotalVariation(x, beta=1.5), "TV(1.5) Loss", 4.4449714),
        (lambda x: vis.LPNorm(x), "L-6.0 Norm Loss", 0.9352389),
        (lambda x: vis.LPNorm(x, p=2), "L-2 Norm Loss", 1.7199806),
        (lambda x: vis.LPNorm(x, p=float("inf")), "L-inf Norm Loss", 0.8333333),
    ],
)
def test_regularizers(make, name, expected):
    inputs = keras.Input((2, 3, 2))
    loss = make(inputs)
    assert loss.name == name
    assert value_of(loss, inputs, GOLDEN)[0] == pytest.approx(expected, rel=1e-6)
    flat, gradient = value_of(make(inputs), inputs, np.zeros_like(GOLDEN))
    assert flat == pytest.approx(0, abs=1e-3)
    assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_regularizers_of_other_ranks_and_batches():
    line = keras.Input((4, 1))
    assert value_of(vis.TotalVariation(line), line, np.float32([[[0], [1], [3], [2]]]))[
        0
    ] == pytest.approx(1.5)
    inputs = keras.Input((2, 3, 2))
    negative = -np.abs(GOLDEN)
    largest = value_of(vis.LPNorm(inputs, float("inf")), inputs, negative)[0]
    assert largest == pytest.approx(0.8333333)
    photograph = keras.Input((224, 224, 3))
    grey = np.full((1, 224, 224, 3), 128, "float32")
    assert value_of(vis.LPNorm(photograph), photograph, grey)[0] == pytest.approx(0.0062, abs=5e-5)
    # The batch is in the sums, not in the number of values.
    pair = np.concatenate([GOLDEN, GOLDEN])
    assert value_of(vis.TotalVariation(inputs), inputs, pair)[0] == pytest.approx(2 * 10.8333333)
    assert value_of(vis.LPNorm(inputs, p=2), inputs, pair)[0] == pytest.approx(2**0.5 * 1.7199806)
    with pytest.raises(ValueError, match="p from 1"):
        vis.LPNorm(inputs, p=0.5)
    vector = keras.Input((4,))
    with pytest.raises(ValueError, match="spatial axis"):
        value_of(vis.TotalVariation(vector), vector, np.zeros((1, 4), "float32"))


# -- activation maximisation ----------------------------------------------------------------------


def linear(model):
    """The model with logits for probabilities, as keras-vis users make it."""
    model.layers[-1].activation = keras.activations.linear
    return tools.apply_modifications(model)


@pytest.mark.slow
def test_activation_rises_and_falls(small_model):
    model = linear(small_model)
    seed = np.full((16, 12, 3), 0.5)
    options = {
        "seed_input": seed,
        "input_range": (0.0, 1.0),
        "lp_norm_weight": 0,
        "tv_weight": None,
        "max_iter": 100,
        "deprocess": "none",
    }

    def logit(image):
        return float(model(np.float32(image)[None])[0, 2])

    up = vis.visualize_activation(model, -1, 2, **options)
    assert logit(up) > logit(seed) + 0.1
    # Negated, the descent goes up: the lowest loss is the first.
    record = Record()
    down = vis.visualize_activation(
        model, -1, 2, grad_modifier="negate", callbacks=[record], **options
    )
    assert logit(record.values[-1][0]) < logit(seed) - 0.1
    np.testing.assert_allclose(down, seed, atol=1e-6)


@pytest.mark.slow
def test_activation_is_its_losses(small_model):
    model = linear(small_model)
    seed = np.random.default_rng(0).uniform(0, 255, (16, 12, 3))
    terms = [
        (vis.ActivationMaximization(model.layers[-1], [1, 3]), 1),
        (vis.LPNorm(model.input), 10),
        (vis.TotalVariation(model.input), 10),
    ]
    record = Record()
    by_losses = vis.visualize_activation_with_losses(
        model.input, terms, seed_input=seed, max_iter=3, callbacks=[record]
    )
    by_filters = vis.visualize_activation(model, -1, [1, 3], seed_input=seed, max_iter=3)
    np.testing.assert_array_equal(by_losses, by_filters)
    assert by_losses.dtype == np.uint8
    names = ["ActivationMax Loss", "L-6.0 Norm Loss", "TV(2.0) Loss"]
    assert [name for name, _ in record.named[0]] == names
    logits = model(np.float32(seed)[None]).numpy()[0]
    assert record.named[0][0][1] == pytest.approx(-logits[1] - logits[3], rel=1e-4)
    assert record.totals[0] == pytest.approx(sum(value for _, value in record.named[0]), rel=1e-5)


@pytest.mark.slow
def test_the_loop_on_the_device_arrives_at_the_same_image(small_model):
    seed = np.random.default_rng(0).uniform(0, 255, (16, 12, 3))
    options = {"max_iter": 20, "deprocess": "none", "input_range": (0.0, 255.0)}
    here = vis.visualize_activation(small_model, "late", 2, seed_input=seed, **options)
    there = ActivationMaximization(small_model, "late", **presets.keras_vis(steps=20))(2, seed)
    assert np.abs(here - seed).mean() > 10
    np.testing.assert_allclose(here, there[0], atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("input_range", "dtype"),
    [
        ((0, 255), np.uint8),
        ((0, 1), np.float32),
        ((-128, 127), np.float32),
        ((0.0, 255.0), np.float32),
        ((0, 256), np.float32),
    ],
)
def test_only_grey_levels_become_integers(small_model, input_range, dtype):
    image = vis.visualize_activation(small_model, "early", 1, input_range=input_range, max_iter=2)
    assert image.dtype == dtype
    assert image.min() >= input_range[0]
    assert image.max() <= input_range[1]
    assert image.std() > 0.05 * (input_range[1] - input_range[0])


@pytest.mark.slow
def test_channels_first_images_come_back_channels_last():
    keras.config.set_image_data_format("channels_first")
    try:
        inputs = keras.Input((3, 6, 5))
        pooled = keras.layers.GlobalAveragePooling2D()(inputs)
        model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
        assert vis.visualize_activation(model, -1, 0, max_iter=2).shape == (6, 5, 3)
        assert vis.get_num_filters(model.layers[0]) == 3
        heatmap = vis.visualize_saliency(model, -1, 0, np.zeros((6, 5, 3)), keepdims=True)
        assert heatmap.shape == (6, 5, 3)
        # The same gradient at every pixel: the maps of the channels are constants.
        assert np.ptp(heatmap, axis=(0, 1)).max() == 0
    finally:
        keras.config.set_image_data_format("channels_last")


# -- saliency -------------------------------------------------------------------------------------


@pytest.fixture
def case():
    keras.utils.set_random_seed(0)
    return Case.of(TinyNet.random())


def minmax(array):
    return (array - array.min()) / (array.max() - array.min() + 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grad_modifier", "function"),
    [
        ("absolute", np.abs),
        (None, lambda g: g),
        ("relu", lambda g: np.maximum(g, 0)),
        ("negate", np.negative),
        (np.square, np.square),
    ],
)
def test_saliency_of_a_net_done_by_hand(case, grad_modifier, function):
    model = linear(case.model)
    maps = vis.visualize_saliency(model, -1, 2, case.images, grad_modifier=grad_modifier)
    gradients = case.net.gradients(case.images, [2] * len(case.images)).images
    assert maps.shape == (3, 7, 9)
    for found, gradient in zip(maps, gradients, strict=True):
        np.testing.assert_allclose(found, minmax(function(gradient).max(-1)), atol=2e-5)
    alone = vis.visualize_saliency(model, -1, 2, case.images[1], grad_modifier=grad_modifier)
    np.testing.assert_array_equal(alone, maps[1])
    kept = vis.visualize_saliency(
        model, -1, 2, case.images, grad_modifier=grad_modifier, keepdims=True
    )
    np.testing.assert_allclose(kept[0], minmax(function(gradients[0])), atol=2e-5)


@pytest.mark.slow
def test_saliency_by_losses_and_by_layers(case):
    model = linear(case.model)
    image = case.images[0]
    loss = [(vis.ActivationMaximization(model.layers[-1], [0, 1]), -1)]
    np.testing.assert_allclose(
        vis.visualize_saliency_with_losses(model.inputs[0], loss, image),
        vis.visualize_saliency(model, -1, [0, 1], image),
        atol=1e-6,
    )
    by_layer = vis.visualize_saliency(
        model, -1, 1, image, wrt_tensor=model.get_layer("conv1").output, grad_modifier="relu"
    )
    gradient = case.net.gradients(case.images, [1, 1, 1]).conv1[0]
    np.testing.assert_allclose(by_layer, minmax(np.maximum(gradient, 0).max(-1)), atol=2e-5)
    # The filter of a convolution in the middle: its gradient is that of its mean.
    mean = vis.visualize_saliency(model, tools.find_layer_idx(model, "pre2"), 3, image)
    kernel = case.net.kernel2[..., 3]
    upstream = np.full((3, 5, 1), 1 / 15)
    inside = np.zeros((5, 7, 4))
    for y, x in np.ndindex(3, 5):
        inside[y : y + 3, x : x + 3] += upstream[y, x] * kernel
    inside *= case.values.pre1[0] > 0
    by_input = np.zeros((7, 9, 2))
    for y, x in np.ndindex(5, 7):
        by_input[y : y + 3, x : x + 3] += np.einsum("f,ijcf->ijc", inside[y, x], case.net.kernel1)
    np.testing.assert_allclose(mean, minmax(np.abs(by_input).max(-1)), atol=2e-5)


def two_neurons(separate):
    inputs = keras.Input((2,))
    hidden = keras.layers.Dense(2, activation=None if separate else "relu", use_bias=False)
    x = hidden(inputs)
    if separate:
        x = keras.layers.ReLU()(x)
    end = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, end(x))
    hidden.set_weights([np.float32([[-1, 1], [-1, 1]])])
    end.set_weights([np.float32([[-1], [1]])])
    return model


def input_gradients(model, seeds, backprop_modifier):
    loss = vis.ActivationMaximization(model.layers[-1], 0)
    optimizer = vis.Optimizer(
        model.inputs[0], [(loss, -1)], norm_grads=False, backprop_modifier=backprop_modifier
    )
    return [optimizer.minimize(seed, 1, verbose=False)[1].tolist() for seed in seeds]


@pytest.mark.slow
@pytest.mark.parametrize("separate", [False, True], ids=["fused", "layer"])
@pytest.mark.parametrize(
    ("backprop_modifier", "positive", "zero", "negative"),
    [
        (None, 1, 0, 1),
        ("guided", 1, 0, 0),
        (GuidedReLU(("relu",)), 1, 0, 0),
        # No gate of the forward value: the second neuron passes everywhere, the first nowhere.
        ("rectified", 1, 1, 1),
        ("relu", 1, 1, 1),
        ("deconv", 1, 1, 1),
    ],
)
def test_backprop_modifiers_on_two_neurons(separate, backprop_modifier, positive, zero, negative):
    model = two_neurons(separate)
    seeds = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [-1.0, -1.0]]
    expected = [zero, *[positive] * 3, *[negative] * 3]
    found = input_gradients(model, seeds, backprop_modifier)
    assert found == [[[each, each]] for each in expected]


@pytest.mark.slow
def test_backprop_modifiers_that_do_not_fit():
    model = two_neurons(False)
    with pytest.raises(ValueError, match="'guided', 'rectified', 'relu', 'deconv'"):
        vis.visualize_saliency(model, -1, 0, [1.0, 0.0], backprop_modifier="np")
    with pytest.raises(TypeError, match="returns a modified copy"):
        vis.visualize_saliency(model, -1, 0, [1.0, 0.0], backprop_modifier=lambda model: None)
    with pytest.raises(TypeError, match=r"beside symbolic losses. Received: the function"):
        input_gradients(model, [], tools.apply_modifications)


@pytest.mark.slow
def test_a_function_makes_the_model_that_is_explained(small_model):
    def other_class(model):
        kernel = model.layers[-1].get_weights()
        copied = tools.apply_modifications(model)
        copied.layers[-1].set_weights([each[..., ::-1] for each in kernel])
        return copied

    image = np.random.default_rng(0).random((16, 12, 3))
    np.testing.assert_allclose(
        vis.visualize_saliency(small_model, -1, 0, image, backprop_modifier=other_class),
        vis.visualize_saliency(small_model, -1, 3, image),
        atol=1e-5,
    )


# -- Grad-CAM -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_cam_of_a_net_done_by_hand():
    case = Case.of(TinyNet.random(2))
    model = linear(case.model)
    stretched = {}
    for modifier, function in (
        (None, lambda g: g),
        ("negate", np.negative),
        ("small_values", lambda g: 1 / (np.abs(g) + 1e-7)),
    ):
        maps = vis.visualize_cam(
            model, -1, 1, case.images, tools.find_layer_idx(model, "conv1"), None, modifier
        )
        gradients = function(case.net.gradients(case.images, [1, 1, 1]).conv1)
        for found, gradient, values in zip(maps, gradients, case.values.conv1, strict=True):
            heat = np.maximum((values * gradient.mean((0, 1))).sum(-1), 0)
            np.testing.assert_allclose(found, minmax(enlarged(heat, 7, 9)), atol=2e-3)
        stretched[modifier] = maps
        alone = vis.visualize_cam(model, -1, 1, case.images[2], "conv1", None, modifier)
        np.testing.assert_array_equal(alone, maps[2])
    loss = [(vis.ActivationMaximization(model.layers[-1], 1), -1)]
    by_loss = vis.visualize_cam_with_losses(
        model.inputs[0], loss, case.images[0], model.get_layer("conv1")
    )
    np.testing.assert_allclose(by_loss, stretched[None][0], atol=1e-5)


def enlarged(heat, height, width):
    """Linear interpolation with half-pixel centres, one pixel after the other."""
    out = np.zeros((height, width))
    for y, x in np.ndindex(out.shape):
        py = np.clip((y + 0.5) * heat.shape[0] / height - 0.5, 0, heat.shape[0] - 1)
        px = np.clip((x + 0.5) * heat.shape[1] / width - 0.5, 0, heat.shape[1] - 1)
        for j, i in np.ndindex(heat.shape):
            out[y, x] += max(0, 1 - abs(py - j)) * max(0, 1 - abs(px - i)) * heat[j, i]
    return out


@pytest.fixture
def negative_everywhere():
    """A = [[(1,0),(2,1)],[(0,3),(1,1)]] for a 4 x 4 input, every gradient -(0.5, 1)."""
    inputs = keras.Input((4, 4, 2))
    x = keras.layers.AveragePooling2D(2, name="pool")(inputs)
    end = keras.layers.Dense(1, use_bias=False)
    model = keras.Model(inputs, end(keras.layers.Flatten()(x)))
    end.set_weights([np.tile(np.float32([[-0.5], [-1]]), (4, 1))])
    activations = np.float32([[(1, 0), (2, 1)], [(0, 3), (1, 1)]])
    return model, activations.repeat(2, 0).repeat(2, 1)


@pytest.mark.slow
def test_a_map_of_negative_gradients_is_blank(negative_everywhere):
    model, image = negative_everywhere
    with pytest.warns(UserWarning, match="all evidence at 'pool' is against this score"):
        heatmap = vis.visualize_cam(model, -1, 0, image)
    np.testing.assert_array_equal(heatmap, np.zeros((4, 4)))


@pytest.mark.slow
def test_the_original_turns_a_map_of_negative_gradients_round(negative_everywhere):
    model, image = negative_everywhere
    expected = [
        (0, 0.1556, 0.4444, 0.6),
        (0.2593, 0.3342, 0.4733, 0.5481),
        (0.7407, 0.6658, 0.5267, 0.4519),
        (1, 0.8444, 0.5556, 0.4),
    ]
    heatmap = vis.visualize_cam(model, -1, 0, image, compat="keras-vis")
    np.testing.assert_allclose(heatmap, expected, atol=6e-5)


@pytest.mark.slow
def test_the_penultimate_layer_is_the_last_before():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, name="c0")(inputs)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.Conv2D(2, 3, name="c1")(x)
    dense = keras.layers.Dense(2)(x)
    pooled = keras.layers.GlobalAveragePooling2D()(dense)
    model = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    for layer_idx in (4, 5, 6, -1):
        assert graphs.penultimate_layer(model, layer_idx, None).name == "c1"
    assert graphs.penultimate_layer(model, 3, None).name == "c0"
    assert graphs.penultimate_layer(model, -1, 1).name == "c0"
    with pytest.raises(ValueError, match="Expected a convolution or pooling layer before layer 1"):
        graphs.penultimate_layer(model, 1, None)
    with pytest.raises(ValueError, match=r"not after layer 2.*Received: layer 4"):
        graphs.penultimate_layer(model, 2, 4)


@pytest.mark.slow
def test_the_penultimate_layer_in_wrappers_and_nested_models(small_model):
    time = keras.Input((3, 8, 8, 1))
    x = keras.layers.TimeDistributed(keras.layers.Conv2D(2, 3, name="inside"))(time)
    x = keras.layers.Flatten()(x)
    wrapped = keras.Model(time, keras.layers.Dense(1)(x))
    assert graphs.penultimate_layer(wrapped, -1, None).name == "inside"
    outer = keras.Input((16, 12, 3))
    nested = keras.Model(outer, keras.layers.Dense(2)(small_model(outer)))
    assert graphs.penultimate_layer(nested, -1, None) is small_model.get_layer("late")
    image = np.random.default_rng(0).random((16, 12, 3))
    by_path = vis.visualize_cam(nested, -1, 0, image, "small/late")
    np.testing.assert_array_equal(vis.visualize_cam(nested, -1, 0, image), by_path)
    assert by_path.max() == pytest.approx(1, abs=1e-5)


# -- what holds for all of them -------------------------------------------------------------------


@pytest.mark.slow
def test_one_trace_serves_all_classes_and_no_model_is_kept(small_model):
    images = np.random.default_rng(0).random((2, 16, 12, 3))
    before = trace_count(small_model)
    for filters in range(4):
        vis.visualize_saliency(small_model, -1, filters, images)
        vis.visualize_cam(small_model, -1, filters, images)
    assert trace_count(small_model) == before + 2
    part = graphs.part_of(small_model, small_model.get_layer("late"))
    assert graphs.part_of(small_model, small_model.get_layer("late")) is part
    copied = tools.apply_modifications(small_model)
    vis.visualize_saliency(copied, "late", 0, images[0])
    gone = weakref.ref(copied)
    del copied
    gc.collect()
    assert gone() is None


@pytest.mark.slow
def test_maps_follow_the_weights(small_model):
    image = np.random.default_rng(0).random((16, 12, 3))
    options = {"backprop_modifier": "guided"}
    before = vis.visualize_saliency(small_model, -1, 0, image, **options)
    kernel, bias = small_model.layers[-1].get_weights()
    small_model.layers[-1].set_weights([kernel[:, ::-1], bias[::-1]])
    after = vis.visualize_saliency(small_model, -1, 3, image, **options)
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert np.abs(vis.visualize_saliency(small_model, -1, 0, image, **options) - before).max() > 0.1


@pytest.mark.slow
def test_models_without_one_symbolic_input_are_refused():
    a, b = keras.Input((2,)), keras.Input((2,))
    model = keras.Model([a, b], keras.layers.Add()([a, b]))
    with pytest.raises(TypeError, match="Expected one symbolic input tensor"):
        vis.visualize_saliency(model, -1, 0, np.zeros(2))
    with pytest.raises(ValueError, match="Expected losses that are computed from the input tensor"):
        vis.Optimizer(a, [(vis.LPNorm(b), 1)])
    with pytest.raises(ValueError, match=r"Expected `compat` to be None or 'keras-vis'"):
        vis.Optimizer(a, [(vis.LPNorm(a), 1)], compat="keras")


@pytest.mark.slow
def test_filters_are_counted(small_model):
    counts = [vis.get_num_filters(layer) for layer in small_model.layers]
    assert counts == [3, 6, 6, 8, 8, 4]
    shared = keras.layers.Dense(3)
    shared(keras.Input((2,)))
    shared(keras.Input((5, 2)))
    assert vis.get_num_filters(shared) == 3
    with pytest.raises(ValueError, match="never called on a symbolic input"):
        vis.get_num_filters(keras.layers.Flatten())


@pytest.mark.slow
def test_overlay():
    top, below = np.uint8([0, 101, 255]), np.uint8([255, 100, 0])
    mixed = vis.overlay(top, below)
    assert mixed.dtype == np.uint8
    assert mixed.tolist() == [127, 100, 127]
    assert vis.overlay(top, below, 0.7).tolist() == [76, 100, 178]
    assert vis.overlay(top / 255, below, 0).tolist() == [255.0, 100.0, 0.0]
    with pytest.raises(ValueError, match=r"`alpha` from 0 to 1. Received: 1.5"):
        vis.overlay(top, below, 1.5)
    with pytest.raises(ValueError, match=r"one shape. Received: \(3,\) and \(2,\)"):
        vis.overlay(top, below[:2])


# -- callbacks and input modifiers ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("jitter", "sizes", "expected"),
    [
        (0.05, (10, 224), (0, 11)),
        (16, (100, 100), (16, 16)),
        (1.0, (100, 100), (1, 1)),
        ([0.1, 3], (50, 100), (5, 3)),
    ],
)
def test_jitter_limits(jitter, sizes, expected):
    assert vis.Jitter(jitter).limits((1, *sizes, 3)) == expected


@pytest.mark.slow
def test_jitter_rolls_round_the_edges_and_back():
    line = np.arange(6.0).reshape(1, 6, 1)
    shifts = set()
    jitter, wandering = vis.Jitter(2), vis.Jitter(2, unjitter=False)
    tools.set_random_seed()
    for _ in range(100):
        moved = jitter.pre(line)
        shift = int(moved.argmin())
        shifts.add(shift)
        np.testing.assert_array_equal(moved.ravel(), [(i - shift) % 6 for i in range(6)])
        np.testing.assert_array_equal(jitter.post(moved), line)
        moved = wandering.pre(line)
        assert wandering.post(moved) is moved
    assert shifts == {0, 1, 2, 4, 5}
    with pytest.raises(ValueError, match="not negative"):
        vis.Jitter(-1)
    with pytest.raises(ValueError, match=r"one for each of 2 spatial axes. Received: 3"):
        vis.Jitter([1, 2, 3]).pre(np.zeros((1, 4, 4, 1)))


@pytest.mark.slow
def test_jitter_shifts_axes_apart_and_leaves_channels():
    tools.set_random_seed()
    picture = np.arange(5 * 7 * 2.0).reshape(1, 5, 7, 2)
    found = set()
    for _ in range(60):
        moved = vis.Jitter([1, 2]).pre(picture)
        y, x = np.argwhere(moved[0, :, :, 0] == 0)[0]
        found.add((int(y), int(x)))
        np.testing.assert_array_equal(moved[..., 1] - moved[..., 0], 1)
        np.testing.assert_array_equal(moved, np.roll(picture, (y, x), (1, 2)))
    assert found == {(y, x) for y in (4, 0, 1) for x in (5, 6, 0, 1, 2)}


@pytest.mark.slow
def test_input_modifiers_are_undone_in_reverse():
    class Log(input_modifiers.InputModifier):
        def __init__(self, name, log):
            self.name, self.log = name, log

        def pre(self, inp):
            self.log.append(f"pre {self.name}")
            return inp

        def post(self, inp):
            self.log.append(f"post {self.name}")
            return inp

    log = []
    x = vector_model(2).input
    optimizer = vis.Optimizer(x, [(vis.LPNorm(x), 1)])
    optimizer.minimize([1.0, 2.0], 1, input_modifiers=[Log("f", log), Log("g", log)], verbose=False)
    assert log == ["pre f", "pre g", "post g", "post f"]


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("input_range", [(0, 255), (0.0, 1.0), (-1.0, 1.0)])
def test_frames_of_a_gif(tmp_path, channels, input_range):
    low, high = input_range
    image = np.random.default_rng(0).uniform(low, high, (1, 60, 90, channels))
    gif = callbacks.GifGenerator(str(tmp_path / "frames.gif"), input_range)
    for step in range(3):
        gif.callback(step, [], 0.0, image, image + step * 0.01)
    gif.on_end()
    with Image.open(tmp_path / "frames.gif") as written:
        assert (written.n_frames, written.size, written.info["loop"]) == (3, (90, 60), 1)
        frame = np.array(written.convert("L"), float)
    # Below the text the frame is the deprocessed image, whatever the range.
    shown = tools.deprocess_input(image[0], (0, 255)).mean(-1)
    assert np.abs(frame[40:] - shown[40:]).mean() < 16
    assert frame[10:24, 10:50].max() > 240
    assert frame[10:24, 10:50].min() < 15


@pytest.mark.slow
def test_frames_of_channels_first_are_the_same(tmp_path):
    image = np.random.default_rng(0).uniform(0, 255, (1, 60, 90, 3))
    frames = {}
    for data_format in ("channels_last", "channels_first"):
        keras.config.set_image_data_format(data_format)
        try:
            gif = callbacks.GifGenerator(tmp_path / data_format)
            gif.callback(0, [], 0.0, image, image)
            gif.on_end()
        finally:
            keras.config.set_image_data_format("channels_last")
        with Image.open(tmp_path / f"{data_format}.gif") as written:
            frames[data_format] = np.array(written.convert("RGB"))
        image = np.moveaxis(image, -1, 1)
    assert frames["channels_last"].shape == (60, 90, 3)
    np.testing.assert_array_equal(frames["channels_first"], frames["channels_last"])
