"""Loggers of filters and feature maps: what their pictures show, and that a training bears them."""

import copy
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from sampled import rest_slow
from trainings import (
    SHAPE,
    Subclassed,
    X,
    Y,
    compiled,
    half_precision,
    nested,
    picture,
    stack,
    steps_by_tag,
    summaries,
    train,
)

import kvis2
from kvis2.callbacks import ActivationLogger, FilterLogger
from kvis2.callbacks.feature_sheets import color_bar
from kvis2.images import colorize
from kvis2.parametrizations import Pixels
from kvis2.passes import trace_count

pytestmark = [
    pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning"),  # Keras on itself
    pytest.mark.filterwarnings("ignore:.*__array__ implementation:DeprecationWarning"),  # Keras
]

WIDTH = 350
BAR = 18  # pixels, the height of the bar of colours
CAPTION = 18


def filter_logger(log_dir, **options):
    return FilterLogger(log_dir, **{"on_error": "raise", "every": 1, **options})


def activation_logger(log_dir, count=2, **options):
    given = {"on_error": "raise", "every": 1, **options}
    return ActivationLogger(log_dir, X[:count], Y[:count], **given)


def pictures(run):
    return {(step, tag): picture(value) for step, tag, value in summaries(run)}


def centres(side, cells):
    """Pixels in the middle of each of `cells` equal parts of `side` pixels."""
    return ((np.arange(cells) + 0.5) * side / cells).astype(int)


def tile_corners(count, columns, caption=0):
    """The upper left pixels of the tiles inside their frames, and their side, by the layout:
    2 pixels around each tile, of which the outer one is a frame, centred in 350."""
    side = (WIDTH - 2) // columns - 2
    left = (WIDTH - (columns * (side + 2) + 2)) // 2
    rows, places = np.divmod(np.arange(count), columns)
    tops = 2 + rows * (side + caption + 2)
    return list(zip(tops + 1, left + 2 + places * (side + 2) + 1, strict=True)), side - 2


def read_tiles(image, count, columns, cells, caption=0):
    """The colours of the cells of each tile, `(count, *cells, 3)`."""
    corners, side = tile_corners(count, columns, caption)
    height = round(side * cells[0] / cells[1])
    rows, places = centres(height, cells[0]), centres(side, cells[1])
    return np.stack([image[top + rows][:, left + places] for top, left in corners])


class Weights(keras.callbacks.Callback):
    """The kernels of a layer after each epoch."""

    def __init__(self, name):
        super().__init__()
        self.name, self.found = name, []

    def on_epoch_end(self, epoch, logs=None):
        self.found.append(np.array(self.model.get_layer(self.name).kernel.value))


def two_convolutions():
    """All ReLUs are on for grey images, so that every filter of the second has a gradient."""
    bright = keras.initializers.RandomUniform(-0.1, 0.3, seed=4)
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Conv2D(4, 3, activation="relu", kernel_initializer=bright, name="early"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(5, (2, 3), name="late"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


# Filters.


def test_colour_kernels_of_each_step_are_the_weights_of_that_step(tmp_path):
    weights = Weights("early")
    train(compiled(two_convolutions(), "adam"), filter_logger(tmp_path), weights)
    found = pictures(tmp_path / "kvis2_filters")
    assert {tag for _, tag in found} == {"Filters/early", "Filters/late"}
    for step, kernel in enumerate(weights.found):
        shown = found[step, "Filters/early"]
        scale = np.abs(kernel).max()
        expected = np.rint((np.moveaxis(kernel, -1, 0) / scale + 1) * 127.5)
        read = read_tiles(shown, 4, 2, (3, 3))
        assert np.abs(read - expected).max() <= 1
        bar = color_bar(-float(scale), float(scale), "gray")
        np.testing.assert_array_equal(shown[-BAR:], bar)
    assert np.abs(weights.found[0] - weights.found[2]).max() > 1e-3
    assert {each.shape for (_, tag), each in found.items() if tag == "Filters/early"} == {
        (350 + BAR, WIDTH, 3)
    }


def test_other_kernels_are_a_row_for_each_filter_on_one_scale_for_the_layer(tmp_path):
    weights = Weights("late")
    logger = filter_logger(tmp_path, layers=["late"], inputs=3, colormap="RdBu_r")
    train(compiled(two_convolutions(), "adam"), logger, weights, epochs=2)
    found = pictures(tmp_path / "kvis2_filters")
    assert set(found) == {(0, "Filters/late"), (1, "Filters/late")}
    for step, kernel in enumerate(weights.found):
        scale = float(np.abs(kernel).max())  # of all four inputs, though three are shown
        tiles = np.moveaxis(kernel[:, :, :3], [3, 2], [0, 1]).reshape(15, 2, 3)
        expected = colorize(tiles, "RdBu_r", (-scale, scale))
        _, side = tile_corners(1, 3)
        tall = round(side * 2 / 3) + 4  # tiles are lower than wide: rows are closer
        shown = found[step, "Filters/late"]
        for row in range(5):
            part = shown[row * tall : (row + 1) * tall]
            read = read_tiles(part, 3, 3, (2, 3))
            np.testing.assert_array_equal(read, expected[3 * row : 3 * row + 3])
        np.testing.assert_array_equal(shown[-BAR:], color_bar(-scale, scale, "RdBu_r"))


def test_the_filters_of_the_first_step_are_kept(tmp_path):
    model = compiled(two_convolutions())
    layer = model.get_layer("early")
    norms = np.array([1.0, 4.0, 2.0, 3.0], np.float32)

    class Reverse(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            kernel = np.ones((3, 3, 3, 4), np.float32)
            layer.kernel.assign(kernel * (norms if epoch == 0 else norms[::-1]))

    weights = Weights("early")
    logger = filter_logger(tmp_path, layers="early", filters=2)
    model.optimizer.learning_rate.assign(0.0)
    train(model, Reverse(), logger, weights, epochs=2)
    assert {path: each.tolist() for path, each in logger.shown.items()} == {"early": [1, 3]}
    first, second = (pictures(tmp_path / "kvis2_filters")[s, "Filters/early"] for s in (0, 1))
    assert [int(t[0, 0, 0]) for t in read_tiles(first, 2, 2, (3, 3))] == [255, 223]  # 4, 3 of 4
    assert [int(t[0, 0, 0]) for t in read_tiles(second, 2, 2, (3, 3))] == [191, 159]  # 2, 1 of 4


def test_a_kernel_of_zeros_is_mid_grey_on_the_scale_of_one(tmp_path):
    model = compiled(two_convolutions())
    model.optimizer.learning_rate.assign(0.0)
    model.get_layer("early").kernel.assign(tf.zeros((3, 3, 3, 4)))
    train(model, filter_logger(tmp_path, layers="early"), epochs=1)
    shown = pictures(tmp_path / "kvis2_filters")[0, "Filters/early"]
    assert np.unique(read_tiles(shown, 4, 2, (3, 3))).tolist() == [128]
    np.testing.assert_array_equal(shown[-BAR:], color_bar(-1.0, 1.0, "gray"))


@pytest.mark.parametrize(
    ("layer", "shape", "count"),
    [
        (keras.layers.Conv1D(4, 3), (9, 2), 8),
        (keras.layers.Conv3D(4, 3), (5, 5, 5, 2), 8),
        (keras.layers.Conv2DTranspose(4, 3), (6, 6, 2), 8),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 2), 4),
        (keras.layers.Dense(4), (5,), 4),
    ],
)
def test_every_kind_of_kernel_is_drawn(tmp_path, layer, shape, count):
    inputs = keras.Input(shape)
    logger = filter_logger(tmp_path, layers=0)
    logger.set_model(keras.Sequential([inputs, layer]))
    (shown,) = logger.observe(0).pictures
    assert shown.image.shape[1] == WIDTH
    frames = (shown.image == 150).all(axis=-1)
    assert len(logger.shown[layer.name]) == 4
    # Each tile has a frame: the upper left corners of all of them.
    corner = frames[:-1, :-1] & frames[1:, :-1] & frames[:-1, 1:]
    corner[1:] &= ~frames[:-2, :-1]
    corner[:, 1:] &= ~frames[:-1, :-2]
    assert corner.sum() == count


# Maximised filters.


@pytest.mark.slow
def test_maximised_filters_excite_their_filters_more_than_those_of_others(tmp_path):
    """Every 3 x 3 filter of one channel is a direction of its own; tiles are read back, shrunk
    to the input's size, and convolved with all filters by hand."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Conv2D(3, 3, use_bias=False, name="conv"),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    ramp = np.linspace(-1, 1, 3)
    kernels = np.stack(
        [np.tile(ramp, (3, 1)), np.tile(-ramp, (3, 1)), np.tile(ramp[:, None], (1, 3))], axis=-1
    )
    model.get_layer("conv").kernel.assign(kernels[:, :, None, :].astype(np.float32))
    logger = filter_logger(tmp_path, maximize={"steps": 48}, input_range=(-1, 1))
    logger.set_model(model)
    shown = {each.tag: each.image for each in logger.observe(0).pictures}
    assert set(shown) == {"Filters/conv", "Maximized/conv"}
    assert shown["Maximized/conv"].shape == (350, WIDTH, 3)
    tiles = read_tiles(shown["Maximized/conv"], 3, 2, (12, 12))[..., 0] / 127.5 - 1
    windows = np.lib.stride_tricks.sliding_window_view(tiles, (3, 3), axis=(1, 2))
    responses = np.einsum("nijkl,klf->nf", windows, kernels) / 100  # mean over 10 x 10 places
    assert (responses.argmax(axis=1) == [0, 1, 2]).all()
    assert (responses.diagonal() > 0.3).all()
    assert responses[0, 1] < 0
    assert responses[1, 0] < 0


@pytest.mark.slow
def test_maximised_filters_are_compiled_once_and_start_alike(tmp_path):
    model = compiled(two_convolutions())
    model.optimizer.learning_rate.assign(0.0)
    logger = filter_logger(
        tmp_path, layers=["late"], filters=3, maximize={"steps": 16}, input_range=(0, 1)
    )
    train(model, logger, epochs=3)
    assert trace_count(model) == 1
    found = pictures(tmp_path / "kvis2_filters")
    for step in (1, 2):  # The weights stay, so the pictures must.
        np.testing.assert_array_equal(found[step, "Maximized/late"], found[0, "Maximized/late"])
    tiles = read_tiles(found[0, "Maximized/late"], 3, 2, SHAPE[:2]).astype(int)
    assert all(np.abs(tiles[i] - tiles[j]).mean() > 5 for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.slow
def test_maximised_filters_follow_the_weights(tmp_path):
    model = compiled(two_convolutions())
    model.optimizer.learning_rate.assign(0.0)
    kernel = model.get_layer("late").kernel
    negate = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: kernel.assign(-kernel))
    options = {"layers": "late", "maximize": {"steps": 6}, "input_range": (0, 1)}
    train(model, negate, filter_logger(tmp_path, **options), epochs=2)
    found = pictures(tmp_path / "kvis2_filters")
    first, second = (found[step, "Maximized/late"].astype(int) for step in (0, 1))
    assert np.abs(first - second).mean() > 5
    again = filter_logger(tmp_path, **options)
    again.set_model(model)
    fresh = {each.tag: each.image for each in again.observe(0).pictures}
    np.testing.assert_array_equal(second, fresh["Maximized/late"])


# Feature maps.


class Maps(keras.callbacks.Callback):
    """The output of the first layer after each epoch, by hand."""

    def __init__(self, images):
        super().__init__()
        self.images, self.found = images, []

    def on_epoch_end(self, epoch, logs=None):
        kernel, bias = self.model.layers[0].get_weights()
        windows = np.lib.stride_tricks.sliding_window_view(self.images, (3, 3), axis=(1, 2))
        maps = np.einsum("nijckl,klcf->nijf", windows, kernel, optimize=True) + bias
        self.found.append(np.maximum(maps, 0))


@pytest.mark.slow
def test_feature_maps_of_each_step_are_those_of_the_current_weights(tmp_path):
    by_hand = Maps(X[:2])
    logger = activation_logger(tmp_path, layers=["early"], channels=3)
    model = compiled(two_convolutions(), "adam")
    train(model, logger, by_hand)
    found = pictures(tmp_path / "kvis2_activations")
    tags = ["Activations/early/00 class 0", "Activations/early/01 class 1"]
    assert set(found) == {(step, tag) for step in range(3) for tag in tags}
    strongest = np.argsort(-by_hand.found[0].std(axis=(0, 1, 2)))[:3]
    channels = sorted(strongest.tolist())
    assert logger.shown["early"].tolist() == channels
    # A map of 10 x 8 is higher in a tile of one width than the image of 12 x 10.
    _, side = tile_corners(1, 2)
    map_height, image_height = round(side * 10 / 8), round(side * 12 / 10)
    corners, _ = tile_corners(4, 2, CAPTION + map_height - side)
    rows, columns = centres(map_height, 10), centres(side, 8)
    image_rows = (map_height - image_height) // 2 + centres(image_height, 12)
    for step, maps in enumerate(by_hand.found):
        scale = maps[..., channels].max()  # one for both images
        expected = colorize(np.moveaxis(maps[..., channels], -1, 1), "viridis", (0.0, scale))
        bar = color_bar(0.0, float(scale), "viridis")
        for index, tag in enumerate(tags):
            shown = found[step, tag]
            assert (shown[-BAR:] != bar).any(axis=-1).mean() < 0.01  # a last digit may differ
            (top, left), *others = corners
            image = shown[top + image_rows][:, left + centres(side, 10)]
            assert np.abs(image - np.rint(X[index] * 255)).max() <= 1
            for place, (top, left) in enumerate(others):
                tile = shown[top + rows][:, left + columns]
                assert np.abs(tile.astype(int) - expected[index, place]).max() <= 3
    assert {each.shape for each in found.values()} == {next(iter(found.values())).shape}
    assert next(iter(found.values())).shape[1] == WIDTH


@pytest.mark.slow
def test_negative_activations_are_drawn_around_the_middle(tmp_path):
    model = compiled(two_convolutions())
    logger = activation_logger(tmp_path, 1, layers="late", channels=3)
    train(model, logger, epochs=1)
    maps = keras.Model(model.inputs[0], model.get_layer("late").output)(X[:1]).numpy()
    assert maps.min() < 0
    maps = maps[0][..., logger.shown["late"]]
    scale = float(np.abs(maps).max())
    (shown,) = pictures(tmp_path / "kvis2_activations").values()
    difference = (shown[-BAR:] != color_bar(-scale, scale, "seismic")).any(axis=-1)
    assert difference.mean() < 0.01
    # The strongest activation of all has a colour of the end, by its sign.
    end = colorize([-1.0, 1.0], "seismic")[int(maps.flat[np.abs(maps).argmax()] > 0)]
    tiles = shown[:-BAR].reshape(-1, 3)
    assert (tiles == end).all(axis=-1).sum() > 300


@pytest.mark.slow
def test_channels_of_the_first_step_are_kept_though_others_grow(tmp_path):
    model = compiled(two_convolutions())
    model.optimizer.learning_rate.assign(0.0)

    class Reverse(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            kernel = np.random.default_rng(0).random((3, 3, 3, 4), np.float32)
            factors = np.array([1, 8, 2, 9] if epoch == 0 else [9, 2, 8, 1], np.float32)
            model.get_layer("early").kernel.assign(kernel * factors)

    logger = activation_logger(tmp_path, layers="early", channels=2)
    train(model, Reverse(), logger, epochs=2)
    assert logger.shown["early"].tolist() == [1, 3]
    bars = [
        picture(value)[-BAR:]
        for _, tag, value in summaries(tmp_path / "kvis2_activations")
        if "00" in tag
    ]
    outputs = model.get_layer("early")(X[:2]).numpy()
    expected = color_bar(0.0, float(outputs[..., [1, 3]].max()), "viridis")
    assert (bars[1] != expected).any(axis=-1).mean() < 0.01  # of the channels shown, not of all
    assert (bars[0] != bars[1]).any()


@pytest.mark.slow
def test_one_trace_for_each_layer_whatever_the_batch_size(tmp_path):
    model = compiled(two_convolutions())
    logger = activation_logger(tmp_path, 3, batch_size=2, unit="batch")  # chunks of 2 and 1
    train(model, logger)
    assert logger.history["step"] == list(range(9))
    assert trace_count(model) == 2
    whole = activation_logger(tmp_path, 3, run="whole")
    whole.set_model(model)
    pairs = zip(whole.observe(0).pictures, logger.observe(0).pictures, strict=True)
    assert all(np.abs(a.image.astype(int) - b.image).mean() < 0.1 for a, b in pairs)


@pytest.mark.slow
def test_probes_from_a_dataset_and_names_of_classes(tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    names = ["cat", "dog", "owl"]
    logger = ActivationLogger(
        tmp_path, data, class_names=names, max_images=3, layers="conv", on_error="raise"
    )
    train(compiled(keras.Sequential(stack())), logger, epochs=1)
    assert set(steps_by_tag(tmp_path / "kvis2_activations")) == {
        f"Activations/conv/{i:02d} {name}" for i, name in enumerate(names)
    }


@pytest.mark.slow
def test_display_undoes_the_preprocessing(tmp_path):
    logger = activation_logger(tmp_path, 1, layers="conv", display=lambda images: 1 - images)
    logger.set_model(keras.Sequential(stack()))
    (shown,) = logger.observe(0).pictures
    read = read_tiles(shown.image, 1, 3, (12, 10))
    assert np.abs(read[0] - np.rint((1 - X[0]) * 255)).max() <= 1


# Both, in trainings.

KINDS = {
    "filters": lambda log_dir, **options: filter_logger(
        log_dir,
        maximize={"steps": 2, "shape": SHAPE, "parametrization": Pixels(), "transforms": None},
        input_range=(0, 1),
        **options,
    ),
    "activations": activation_logger,
}
RUNS = {"filters": "kvis2_filters", "activations": "kvis2_activations"}
MODELS = {
    "functional with a nested model": (nested, "backbone/conv"),
    "unbuilt": (lambda: keras.Sequential(stack(built=False)), "conv"),
    "subclassed": (Subclassed, "conv"),
    "mixed_float16": (half_precision, "conv"),
}


def expected_tags(kind, path):
    if kind == "filters":
        return {f"Filters/{path}", f"Maximized/{path}"}
    return {f"Activations/{path}/00 class 0", f"Activations/{path}/01 class 1"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", rest_slow(MODELS))
def test_every_kind_of_model(tmp_path, name, kind):
    make, path = MODELS[name]
    logger = KINDS[kind](tmp_path)
    model = compiled(make())
    train(model, logger, epochs=2)
    tags = steps_by_tag(tmp_path / RUNS[kind])
    assert set(tags) == expected_tags(kind, path)
    assert all(steps == [0, 1] for steps in tags.values())
    assert trace_count(model) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["run_eagerly", "jit_compile"])
def test_every_kind_of_compilation(tmp_path, kind, how):
    logger = KINDS[kind](tmp_path)
    train(compiled(keras.Sequential(stack()), **{how: True}), logger, epochs=1)
    assert set(steps_by_tag(tmp_path / RUNS[kind])) == expected_tags(kind, "conv")


@pytest.mark.slow
def test_no_picture_is_lost_beside_tensorboard_with_update_freq(tmp_path):
    pytest.importorskip("tensorboard")
    callbacks = [
        keras.callbacks.TensorBoard(tmp_path, update_freq=3),
        *(make(tmp_path) for make in KINDS.values()),
    ]
    # 4 batches an epoch: TensorBoard records at the end of each third epoch only.
    train(compiled(keras.Sequential(stack())), *callbacks, epochs=6, batch_size=6)
    for kind, run in RUNS.items():
        tags = steps_by_tag(tmp_path / run)
        assert set(tags) == expected_tags(kind, "conv")
        assert all(steps == list(range(6)) for steps in tags.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_fit_of_another_model_starts_anew_in_a_run_of_its_own(tmp_path, kind):
    logger = KINDS[kind](tmp_path, filters=2) if kind == "filters" else KINDS[kind](tmp_path)
    train(compiled(keras.Sequential(stack())), logger, epochs=1)
    first = copy.deepcopy(logger.shown)
    other = compiled(two_convolutions())
    train(other, logger, epochs=3, initial_epoch=1)
    assert set(first) == {"conv"}
    assert set(logger.shown) == {"early", "late"}
    assert {tuple(s) for s in steps_by_tag(tmp_path / RUNS[kind]).values()} == {(0,)}
    assert {tuple(s) for s in steps_by_tag(tmp_path / f"{RUNS[kind]}_2").values()} == {(1, 2)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_used_logger_can_be_copied_and_the_copy_used(tmp_path, kind):
    logger = KINDS[kind](tmp_path)
    train(compiled(keras.Sequential(stack())), logger, epochs=1)
    copied = copy.deepcopy(logger)
    train(compiled(keras.Sequential(stack(built=False))), copied, epochs=2)
    assert logger.history["step"] == [0]
    assert copied.history["step"] == [0, 1]
    assert {tuple(s) for s in steps_by_tag(tmp_path / f"{RUNS[kind]}_2").values()} == {(0, 1)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda path: FilterLogger(path, "missing"),
            "ValueError: Expected the name or path of a layer",
        ),
        (
            lambda path: FilterLogger(path, "batch_normalization"),
            "ValueError: Expected a built layer with a kernel",
        ),
        (
            lambda path: ActivationLogger(path, X[:1], layers="global_average_pooling2d"),
            "ValueError: Expected layers with feature maps .* shape \\(1, 4\\)",
        ),
    ],
)
def test_an_error_is_one_warning_and_training_goes_on(tmp_path, make, message):
    logger = make(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = train(compiled(keras.Sequential(stack())), logger, epochs=3).history
    assert len(history["loss"]) == 3
    own = [each for each in caught if issubclass(each.category, RuntimeWarning)]
    assert len(own) == 1
    failed = f"{type(logger).__name__} failed at epoch 0 and logs no more"
    assert str(own[0].message).startswith(failed)
    with pytest.raises(ValueError, match=message.removeprefix("ValueError: ")):
        logger.observe(0)


@pytest.mark.slow
def test_a_diverged_kernel_is_one_warning(tmp_path):
    logger = filter_logger(tmp_path, layers="conv", on_error="warn")
    model = compiled(keras.Sequential(stack()), run_eagerly=True)
    model.get_layer("conv").kernel.assign(tf.fill((3, 3, 3, 4), np.nan))
    with pytest.warns(RuntimeWarning, match="FilterLogger failed at epoch 0 .*NaN or infinity"):
        train(model, logger, epochs=2)


@pytest.mark.slow
def test_without_a_convolution_the_layers_must_be_named(tmp_path):
    logger = filter_logger(tmp_path)
    logger.set_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="dense")]))
    with pytest.raises(ValueError, match=r"Expected a model with a convolution.*`layers=`"):
        logger.observe(0)


@pytest.mark.slow
def test_the_default_layers_are_the_first_and_last_convolution(tmp_path):
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            *(keras.layers.Conv2D(2, 3, name=name) for name in ("a", "b", "c")),
            keras.layers.ReLU(),
        ]
    )
    for logger in (filter_logger(tmp_path), activation_logger(tmp_path)):
        logger.set_model(model)
        assert list(logger.watched()) == ["a", "c"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FilterLogger("x", []), "at least one layer. Received: none"),
        (lambda: FilterLogger("x", filters=0), "filters to be at least 1. Received: 0"),
        (lambda: FilterLogger("x", inputs=0), "inputs to be at least 1"),
        (lambda: FilterLogger("x", colormap="rainbo"), "name of a matplotlib colormap"),
        (lambda: FilterLogger("x", maximize=True), "input_range with maximize.*Received: None"),
        (lambda: FilterLogger("x", maximize={"step": 3}, input_range=(0, 1)), "Received: 'step'"),
        (lambda: FilterLogger("x", maximize={"layer": 3}, input_range=(0, 1)), "those of the log"),
        (lambda: FilterLogger("x", every=0), "Expected every to be 'auto'"),
        (lambda: ActivationLogger("x", X, channels=0), "channels to be at least 1"),
        (lambda: ActivationLogger("x", X, Y / 7), "labels that name one class"),
        (lambda: ActivationLogger("x", X, colormap="no"), "name of a matplotlib colormap"),
        (lambda: ActivationLogger("x", X, signed_colormap="no"), "name of a matplotlib colormap"),
    ],
)
def test_bad_arguments_get_a_sentence_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_the_bar_states_both_ends_and_runs_through_the_colours():
    bar = color_bar(-0.5, 0.5, "seismic")
    assert bar.shape == (BAR, WIDTH, 3)
    ramp = bar[BAR // 2, 72:-72]
    np.testing.assert_array_equal(ramp[[0, -1]], colorize([-1.0, 1.0], "seismic"))
    assert (np.diff(ramp[:, 2].astype(int))[: len(ramp) // 4] >= 0).all()
    assert not np.array_equal(bar[:, -66:], color_bar(-0.5, 0.25, "seismic")[:, -66:])
    np.testing.assert_array_equal(bar[:, :66], color_bar(-0.5, 0.25, "seismic")[:, :66])


@pytest.mark.slow
def test_feature_maps_over_one_axis_are_curves(tmp_path):
    inputs = keras.Input((40, 2))
    x = keras.layers.Conv1D(3, 5, activation="relu", name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling1D()(x)
    model = compiled(keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x)))
    series = np.random.default_rng(0).normal(size=(6, 40, 2)).astype(np.float32)
    logger = ActivationLogger(tmp_path, series[:2], channels=2, on_error="raise")
    model.fit(series, np.arange(6) % 3, epochs=1, verbose=0, callbacks=[logger])
    maps = kvis2.inspection.activations(model, "conv", series[:2])[..., logger.shown["conv"]]
    limits = (0.0, float(np.abs(maps).max()))
    (_, tag, _), *_ = found = summaries(tmp_path / "kvis2_activations")
    assert tag == "Activations/conv/00"
    for index, (_, _, value) in enumerate(found):
        drawn = kvis2.images.signal(
            maps[index, :, 0], maps[index, :, 0], colormap="viridis", limits=limits
        )
        side = (350 - 2) // 2 - 2 - 2
        tile = kvis2.images.resize(drawn, side)
        sheet = picture(value)
        left = 2 + side + 2 + 2 + 1  # the second tile, within its frame
        found_at = [
            top
            for top in range(sheet.shape[0] - tile.shape[0])
            if (sheet[top : top + tile.shape[0], left : left + side] == tile).all()
        ]
        assert len(found_at) == 1
