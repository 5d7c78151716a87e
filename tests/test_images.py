"""Pictures: every number is computed by hand here, by matplotlib, or read back from the file."""

import doctest
import json
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from kvis2 import images
from kvis2.images import answers, colors, drawing, fonts, framing, painting, panels, sequences

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@pytest.fixture
def noise():
    return np.random.default_rng(0)


@pytest.fixture
def photo(noise):
    return noise.integers(0, 256, (48, 48, 3), dtype=np.uint8)


@pytest.fixture
def heat():
    y, x = np.mgrid[:48, :48]
    return np.exp(-((y - 20) ** 2 + (x - 30) ** 2) / 100).astype(np.float32)


def count(picture, color):
    return int((picture == np.array(color, np.uint8)).all(axis=-1).sum())


# normalize


def test_normalize_divides_by_each_maps_own_magnitude():
    maps = np.array([[[0.0, 2.0], [-4.0, 1.0]], [[0.0, 0.5], [0.25, 0.0]]])
    np.testing.assert_array_equal(
        images.normalize(maps), [[[0, 0.5], [-1, 0.25]], [[0, 1], [0.5, 0]]]
    )
    np.testing.assert_array_equal(
        images.normalize(maps, "batch"), [[[0, 0.5], [-1, 0.25]], [[0, 0.125], [0.0625, 0]]]
    )
    np.testing.assert_allclose(
        images.normalize(maps, "minmax"), [[[4 / 6, 1], [0, 5 / 6]], [[0, 1], [0.5, 0]]]
    )
    for unchanged in (None, False):
        np.testing.assert_array_equal(images.normalize(maps, unchanged), maps)


@pytest.mark.parametrize("mode", ["image", "batch", "minmax"])
@pytest.mark.parametrize("value", [0.0, 1e-45, 3e38])
def test_normalize_of_constant_and_extreme_maps_is_finite(mode, value):
    maps = np.zeros((2, 3, 3), np.float32)
    maps[1] = value
    scaled = images.normalize(maps, mode)
    assert scaled.dtype == np.float32
    expected = np.zeros((2, 3, 3))
    # "minmax" of a batch is per map, and a constant map has no evidence.
    expected[1] = 1.0 if value and mode != "minmax" else 0.0
    np.testing.assert_array_equal(scaled, expected)


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 4), (2, 2, 3, 4), (0, 3, 3)])
def test_normalize_takes_any_number_of_spatial_axes(noise, shape):
    maps = noise.random(shape)
    expected = maps / np.abs(maps).max(axis=tuple(range(1, len(shape))), keepdims=True, initial=0)
    np.testing.assert_allclose(images.normalize(maps), expected, rtol=1e-6)


def test_normalize_of_one_map_does_not_depend_on_its_neighbours(noise):
    maps = noise.normal(size=(4, 5, 5)) * np.array([1, 10, 100, 0.1])[:, None, None]
    np.testing.assert_array_equal(images.normalize(maps)[2:3], images.normalize(maps[2:3]))


# displayable


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.array([0, 1, 128, 255], np.uint8), [0, 1, 128, 255]),
        (np.array([0, 1, 1, 0], np.uint8), [0, 1, 1, 0]),  # uint8 is never guessed
        (np.array([0.0, 0.2, 0.6, 1.0], np.float32), [0, 51, 153, 255]),
        (np.array([0.0, 0.2, 0.6, 1.0], np.float16), [0, 51, 153, 255]),
        (np.array([0.0, 2.0, 99.6, 255.0]), [0, 2, 100, 255]),
        (np.array([0, 2, 99, 255], np.int64), [0, 2, 99, 255]),
        (np.array([False, True, True, False]), [0, 255, 255, 0]),
        (np.array([-1.0, 0.0, 1.0, 0.5]), [0, 128, 255, 191]),  # stretched; 127.5 -> 128
        (np.array([1000.0, 1000.0, 2000.0, 3000.0]), [0, 0, 128, 255]),
        (np.array([-1e-4, 0.2, 0.6, 1.0001]), [0, 51, 153, 255]),  # rounding of an undone scaling
        (np.full(4, -7.0), [0, 0, 0, 0]),
    ],
)
def test_displayable_guesses_the_range(given, expected):
    shown = images.displayable(given.reshape(1, 2, 2, 1))
    assert shown.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(shown[0, ..., channel].ravel(), expected)


def test_displayable_stretches_each_image_by_itself():
    batch = np.array([[[-1.0, 0.0, 3.0]], [[0.0, 10.0, 20.0]]])
    # Width 3 in a rank-3 array would be read as RGB, so the channel axis is given.
    shown = images.displayable(batch[..., None])
    np.testing.assert_array_equal(shown[..., 0], [[[0, 64, 255]], [[0, 128, 255]]])


def test_displayable_guesses_for_the_whole_batch():
    dark, bright = np.full((4, 4, 3), 1.0), np.full((4, 4, 3), 255.0)
    assert images.displayable(np.stack([dark, bright]))[0].max() == 1


def test_displayable_display_limits_and_function():
    batch = np.array([-1.0, 0.0, 0.6, 2.0]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(
        images.displayable(batch, (-1, 1))[0, ..., 0], [[0, 128], [204, 255]]
    )

    def undo_in_place(x):
        x += 1
        x *= 100
        return x

    before = batch.copy()
    shown = images.displayable(batch, undo_in_place)  # 0, 100, 160, 300: stretched
    np.testing.assert_array_equal(shown[0, ..., 1], [[0, 85], [136, 255]])
    np.testing.assert_array_equal(batch, before)  # the probe images are not changed


def test_displayable_channels(noise):
    seven = noise.random((2, 5, 4, 7))
    np.testing.assert_array_equal(
        images.displayable(seven), np.rint(seven[..., :3] * 255).astype(np.uint8)
    )
    two = noise.random((1, 5, 4, 2))
    np.testing.assert_array_equal(
        images.displayable(two)[..., 2], np.rint(two[..., 0] * 255).astype(np.uint8)
    )
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    # On white: 200 * .2 + 255 * .8 = 244; 100 -> 224; 0 -> 204.
    np.testing.assert_array_equal(
        images.displayable(rgba[None])[0, 0], [[200, 100, 0], [255, 255, 255], [244, 224, 204]]
    )
    signed = np.array([[[-1.0, 0.0, 1.0, 50.0]]])
    np.testing.assert_array_equal(images.displayable(signed[None])[0, 0], [[0, 128, 255]])


def test_displayable_adds_a_missing_batch_axis(photo):
    np.testing.assert_array_equal(images.displayable(photo)[0], photo)
    grey = photo[..., 0]
    for given in (grey, grey[..., None], grey[None], grey[None, ..., None]):
        np.testing.assert_array_equal(images.displayable(given)[0], np.stack([grey] * 3, -1))


# colorize and overlay


@pytest.mark.parametrize("name", ["jet", "viridis", "turbo", "gray", "tab10", "hot_r"])
def test_colorize_is_matplotlibs(noise, name):
    heat = np.concatenate([[0, 1, 0.5, 1 / 256, np.nextafter(1, 0)], noise.random(500)])
    for values in (heat, heat.astype(np.float32)):
        expected = matplotlib.colormaps[name](values, bytes=True)[..., :3]
        np.testing.assert_array_equal(images.colorize(values, name), expected)
        colormap = matplotlib.colormaps[name]
        np.testing.assert_array_equal(images.colorize(values, colormap), expected)


def test_colorize_puts_zero_of_signed_maps_in_the_middle(noise):
    signed = noise.uniform(-1, 1, (6, 7))
    expected = matplotlib.colormaps["jet"]((signed + 1) / 2, bytes=True)[..., :3]
    np.testing.assert_array_equal(images.colorize(signed, "jet"), expected)
    # A diverging colormap stays centred where no value happens to be negative.
    middle = matplotlib.colormaps["RdBu_r"](0.5, bytes=True)[:3]
    np.testing.assert_array_equal(images.colorize(np.zeros((1, 1)), "RdBu_r")[0, 0], middle)
    np.testing.assert_array_equal(images.colorize([-1e-7, 0.0, 1.0]), images.colorize([0, 0, 1]))


def test_colorize_limits_clip():
    shown = images.colorize([-5.0, 0.0, 10.0, 20.0, 90.0], "gray", limits=(0, 20))
    np.testing.assert_array_equal(shown[:, 0], [0, 0, 128, 255, 255])


def test_overlay_is_the_weighted_sum():
    image = np.array([[[10, 20, 30], [200, 100, 50]]], np.uint8)
    heat = np.array([[0.0, 1.0]])
    # jet(0) = (0, 0, 127), jet(1) = (127, 0, 0); .75 image + .25 colour, halves up.
    even = {"colormap": "jet", "opacity": "even"}
    np.testing.assert_array_equal(
        images.overlay(image, heat, 0.25, **even), [[[8, 15, 54], [182, 75, 38]]]
    )
    np.testing.assert_array_equal(images.overlay(image, heat, 0, **even), image)
    np.testing.assert_array_equal(
        images.overlay(image, heat, 1, **even), images.colorize(heat, "jet")
    )
    for same in (image / 255, image.astype(np.float32)):
        np.testing.assert_array_equal(
            images.overlay(same, heat, 0.25), images.overlay(image, heat, 0.25)
        )


def test_opacity_grows_with_the_heat_on_both_sides_of_zero(noise):
    image = noise.integers(0, 256, (1, 5, 3), dtype=np.uint8)
    heat = np.array([[-1.0, -0.25, 0.0, 0.5, 1.0]])
    weight = 0.8 * np.abs(heat)[..., None]
    expected = np.floor((1 - weight) * image + weight * images.colorize(heat, "RdBu_r") + 0.5)
    found = images.overlay(image, heat)  # signed, so the diverging colours are chosen
    assert np.abs(found - expected).max() <= 1
    np.testing.assert_array_equal(found[0, 2], image[0, 2])  # where there is no heat, the image


def test_default_colours_are_even_and_diverging_where_signed():
    unsigned, signed = np.array([[0.0, 1.0]]), np.array([[-1.0, 1.0]])
    np.testing.assert_array_equal(images.colorize(unsigned), images.colorize(unsigned, "inferno"))
    np.testing.assert_array_equal(images.colorize(signed), images.colorize(signed, "RdBu_r"))


def test_opacity_is_by_the_limits_and_not_by_the_map(noise):
    image = np.full((1, 2, 3), 100, np.uint8)
    weak = images.overlay(image, [[0.0, 0.1]], 1.0, "gray", limits=(0, 1))
    # gray(.1) = 25; weight .1: 90 + 2.5
    assert weak[0, 1, 0] in (92, 93)
    assert weak[0, 0, 0] == 100


def test_overlay_of_grey_and_non_square_images(noise):
    grey, heat = noise.random((3, 5)), noise.random((3, 5))
    expected = np.floor(
        0.5 * np.rint(grey * 255)[..., None] + 0.5 * images.colorize(heat, "hot") + 0.5
    )
    for image in (grey, grey[..., None], np.stack([grey] * 3, -1)):
        np.testing.assert_array_equal(
            images.overlay(image, heat, 0.5, "hot", opacity="even"), expected
        )


@pytest.mark.parametrize(
    ("mode", "keras_option"),
    [
        ("stretch", {}),
        ("crop", {"crop_to_aspect_ratio": True}),
        ("pad", {"pad_to_aspect_ratio": True}),
    ],
)
@pytest.mark.parametrize("size", [(60, 100), (100, 60), (64, 64)])
def test_framing_is_what_keras_does_and_leads_back(noise, mode, keras_option, size):
    """A bright square in the photograph: seen by Keras' resize, and found again in its place."""
    import keras

    top, left = size[0] // 2 - 5, size[1] // 2 - 10
    photo = np.zeros((*size, 1), np.float32)
    photo[top : top + 10, left : left + 12] = 255
    given = np.asarray(
        keras.ops.image.resize(photo[None], (48, 32), antialias=True, **keras_option)
    )[0]
    framing = images.Framing(mode)
    ours = framing.input_of(photo, (48, 32))
    assert ours.shape == (48, 32, 1)
    assert np.abs(ours - given).mean() < 2
    back = framing.of_photograph(given[..., 0], size)
    assert back.shape == size
    seen = np.nan_to_num(back) > 127
    expected = photo[..., 0] > 127
    assert (seen & expected).sum() / (seen | expected).sum() > 0.6
    outside = np.isnan(back)
    assert outside.any() == (mode == "crop")
    if mode == "crop":
        drawn = images.overlay(photo / 255, given[..., 0] / 255, framing=framing)
        np.testing.assert_array_equal(
            drawn[outside], images.displayable(photo[None] / 255)[0][outside]
        )


def test_framing_refuses_other_modes():
    with pytest.raises(ValueError, match="Expected mode to be 'stretch'"):
        images.Framing("fit")


def test_overlay_at_the_photographs_own_size(noise):
    photo = noise.integers(0, 256, (40, 80, 3), dtype=np.uint8)
    heat = np.zeros((4, 4))
    heat[:, 3] = 1
    drawn = images.overlay(photo, heat, 1.0, "gray", opacity="even")
    assert drawn.shape == photo.shape
    assert (drawn[:, 70:] == 255).all()
    assert (drawn[:, :50] == 0).all()


@pytest.mark.parametrize(
    ("values", "flat"),
    [([0.0, 0.0], True), ([1.0, 0.95], True), ([-1.0, -0.95], True), ([1.0, 0.85], False),
     ([0.0, 1e-9], False), ([-1.0, 1.0], False)],
)  # fmt: skip
def test_a_map_without_a_region_is_flat(values, flat):
    assert images.is_flat([values]) == flat


def test_single_pixels_are_seen_and_said_to_be_stronger(noise):
    """As gradients give: one pixel of 1, the others of a tenth; and a map of a region."""
    sparse = np.zeros((40, 40))
    sparse[::2, ::2] = 0.1 * noise.random((20, 20))
    sparse[10, 10] = 1
    share = np.percentile(sparse[sparse > 0], 99)
    assert share < 0.11
    assert images.color_ends(sparse) == (0.0, pytest.approx(share))
    assert images.color_ends(sparse, signed=True) == pytest.approx((-share, share))
    assert images.color_ends(-sparse) == pytest.approx((-share, share))
    black = np.zeros((40, 40, 3), np.uint8)
    drawn = images.overlay(black, sparse, 1.0, "gray", opacity="even")
    np.testing.assert_array_equal(
        drawn, images.overlay(black, np.clip(sparse / share, 0, 1), 1.0, "gray", opacity="even")
    )
    y, x = np.mgrid[:40, :40]
    for region in (np.exp(-((y - 20) ** 2 + (x - 9) ** 2) / 60), np.eye(40), np.zeros((40, 40))):
        assert images.color_ends(region) == (0.0, 1.0)
    head = images.panel(black, sparse, explained="a", caption="Saliency")[: drawing.LINE]
    canvas = Image.new("RGB", (350, drawing.LINE), WHITE)
    drawing.write(canvas, (4, 0), "why a", 200)
    drawing.write(canvas, (346, 0), f"Saliency x{1 / share:.2g}", 114, drawing.GREY, align="right")
    np.testing.assert_array_equal(head, np.array(canvas))


def test_resize_brings_maps_to_a_size_and_pictures_to_a_width(noise):
    maps = noise.random((2, 3, 4))
    large = images.resize(maps, (6, 8))
    assert large.shape == (2, 6, 8)
    # Bilinear with half-pixel centres, as tf.image.resize: (3/4)^2 a + 3/16 (b + c) + d / 16.
    a, b, c, d = maps[0, 0, 0], maps[0, 0, 1], maps[0, 1, 0], maps[0, 1, 1]
    assert large[0, 1, 1] == pytest.approx((9 * a + 3 * b + 3 * c + d) / 16, abs=1e-6)
    np.testing.assert_array_equal(images.resize(maps[0], (6, 8)), large[0])
    assert images.resize(np.zeros((10, 20, 3)), 40).shape == (20, 40, 3)
    with pytest.raises(ValueError, match="Expected maps"):
        images.resize(np.zeros((2, 3, 4, 5)), (6, 8))
    with pytest.raises(ValueError, match=r"\(10, 20, 3\), uint8. For a picture give the width"):
        images.resize(np.zeros((10, 20, 3), np.uint8), (6, 8))


# panel


def test_panel_without_resizing_holds_image_and_overlay(noise):
    photo = noise.integers(0, 256, (157, 157, 3), dtype=np.uint8)
    heat = noise.random((157, 157)).astype(np.float32)
    panel = images.panel(photo, heat, alpha=0.3, colormap="viridis")
    assert panel.shape == (215, 350, 3)
    np.testing.assert_array_equal(panel[:157, 4:161], photo)
    np.testing.assert_array_equal(panel[:157, 165:322], images.overlay(photo, heat, 0.3, "viridis"))


@pytest.mark.parametrize("size", [8, 32, 48, 224])
def test_panel_keeps_the_colours_when_it_resizes(size):
    image = np.zeros((size, size, 3), np.uint8)
    image[: size // 2] = (200, 40, 90)
    heat = np.zeros((size, size))
    heat[:, size // 2 :] = 1
    panel = images.panel(image, heat, alpha=1, colormap="gray", opacity="even")
    assert panel.shape[1] == 350
    assert tuple(panel[20, 60]) == (200, 40, 90)
    assert tuple(panel[140, 60]) == BLACK
    assert tuple(panel[60, 175]) == BLACK
    assert tuple(panel[60, 315]) == WHITE


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((40, 40)),
        np.zeros((40, 40, 1)),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((40, 40, 7)) - 3,
        np.zeros((10, 400, 3)),
        np.zeros((400, 10, 3)),
        np.zeros((1, 2, 3)),
        np.zeros((33, 3)),
        np.zeros((60,)),
        np.zeros((2,)),
        np.zeros((60, 2)),
        np.zeros((5, 12, 12)),
        np.zeros((5, 12, 12, 1)),
    ],
    ids=lambda image: str(image.shape),
)
@pytest.mark.parametrize("width", [120, 350, 351, 600])
def test_panel_takes_every_kind_of_image(image, width):
    spatial = {(60, 2): 1, (5, 12, 12): 3, (5, 12, 12, 1): 3}.get(image.shape, min(image.ndim, 2))
    heat = np.zeros(image.shape[:spatial])
    heat[..., heat.shape[-1] // 2 :] = 1
    panel = images.panel(
        image, heat, probabilities=[0.7, 0.3], label=0, title="t", width=width,
        explained=1, caption="conv 7x7", colormap="jet", alpha=0.5,
    )  # fmt: skip
    assert panel.dtype == np.uint8
    assert panel.shape[1:] == (width, 3)
    assert panel.shape[0] < 2 * width + 100
    # The hottest colour of the map, laid half over black, grey-black or white.
    assert count(panel, (64, 0, 0)) + count(panel, (191, 128, 128)) > 5


def test_panel_is_shown_pixel_by_pixel_in_every_tab(photo, heat):
    """Time Series brings all to a height of 215, Images to a width of 350, with hard pixels."""
    for shape in ((48, 48), (224, 224), (32, 64), (64, 32), (20, 100)):
        panel = images.panel(
            np.zeros(shape), np.eye(*shape), explained=1, caption="c", label=0,
            probabilities=np.full(10, 0.1),
        )  # fmt: skip
        assert panel.shape == (215, 350, 3)


@pytest.mark.filterwarnings("ignore:No font on this system")
def test_panel_size_does_not_depend_on_values(photo, heat):
    names = ["a", "a very long name of a class that nobody can read in a panel", "Köter ✓ 猫"]
    sizes = {
        images.panel(
            photo, level * heat, probabilities=p, label=k, class_names=names, title=f"{k}",
            explained=j, beside=images.Explanation(None if j == k else heat, k),
        ).shape
        for level in (0, 1)
        for p in ([1, 0, 0], [0.2, 0.5, 0.3], [0, 0, 1])
        for k in range(3)
        for j in range(3)
    }  # fmt: skip
    assert len(sizes) == 1


def line_of(panel):
    """The first line of a panel: what is explained."""
    return panel[: drawing.LINE]


def test_panel_says_what_is_explained_and_is_amber_where_something_else_is_predicted(photo, heat):
    names = ["eagle", "elephant"]

    def first(explained, probabilities):
        drawn = images.panel(
            photo, heat, explained=explained, probabilities=probabilities, class_names=names
        )
        return line_of(drawn)

    same, other = first(1, [0.2, 0.8]), first(1, [0.8, 0.2])
    assert count(same, drawing.AMBER) == 0
    assert count(other, drawing.AMBER) > 0.7 * other.shape[0] * other.shape[1]
    # The words are those of the line written by itself.
    for shown, text, ground in (
        (same, "why elephant", WHITE), (other, "why elephant, predicted eagle", drawing.AMBER),
    ):  # fmt: skip
        canvas = Image.new("RGB", (350, drawing.LINE), ground)
        drawing.write(canvas, (4, 0), text, 342)
        np.testing.assert_array_equal(shown, np.array(canvas))


def test_panel_has_a_second_heatmap_in_its_own_place(noise):
    photo, true, other = (noise.random((103, 103)) for _ in range(3))
    drawn = images.panel(
        photo, true, explained=0, beside=images.Explanation(other, 1), alpha=1, opacity="even"
    )
    empty = images.panel(photo, true, explained=0, beside=images.Explanation(None))
    assert drawn.shape == empty.shape
    width = (350 - 24 - 16) // 3
    for index, heat in enumerate((true, other)):
        left = 4 + (index + 1) * (width + 4)
        np.testing.assert_array_equal(
            drawn[18 : 18 + 103, left : left + 103], images.colorize(heat)
        )
    assert count(line_of(drawn), drawing.AMBER) > 1000
    assert count(empty, drawing.TRACK) > 100 * 100
    assert count(line_of(empty), drawing.AMBER) == 0


def test_panel_of_a_flat_map_is_grey_and_says_so(photo):
    photo[:] = (200, 10, 90)
    flat = images.panel(photo, np.full((48, 48), 0.98), colormap="jet")
    right = flat[:, 165:322]
    assert count(right, drawing.INK) > 1000  # the band with the words
    colored = right.astype(int)
    assert (colored.max(-1) - colored.min(-1))[:120].max() == 0
    blank = images.panel(photo, np.zeros((48, 48)))
    assert (blank[:130, :161] == flat[:130, :161]).all()
    assert (blank != flat).any()  # "no heat" and "flat: no region"


def test_panel_legend_has_the_colours_of_the_heat(photo, heat):
    drawn = images.panel(photo, heat, colormap="gray", alpha=1, opacity="even")
    bar = drawn[:157, 326:334]
    assert tuple(bar[0, 0]) == WHITE
    assert tuple(bar[-1, 0]) == BLACK
    assert (np.diff(bar[:, 0, 0].astype(int)) <= 0).all()
    signed = images.panel(photo, heat * 2 - 1)
    assert tuple(signed[78, 328]) == WHITE  # zero has no colour
    assert tuple(signed[1, 328]) != tuple(signed[155, 328])


def test_panel_prediction_is_green_if_right_red_if_wrong(photo, heat):
    photo[:] = 128

    def colours(probabilities, label):
        panel = images.panel(photo, heat, probabilities=probabilities, label=label, top_k=3)
        return [count(panel[159:], c) for c in (drawing.GREEN, drawing.RED, drawing.BLUE)]

    right, wrong, unknown = (colours([0.1, 0.7, 0.2], label) for label in (1, 0, None))
    assert right[0] > 800
    assert right[1:] == [0, 0]
    assert wrong[1] > 800
    assert wrong[0] == wrong[2] == 0
    assert unknown[2] > 800
    assert unknown[:2] == [0, 0]


def test_panel_bars_are_as_long_as_the_probabilities(photo, heat):
    panel = images.panel(photo, heat, probabilities=[0.05, 0.6, 0.1, 0.25], label=1, top_k=3)
    left, right = 4 + 140 + 4, 350 - 4 - 50
    for row, (share, color) in enumerate(
        [(0.6, drawing.GREEN), (0.25, drawing.GREY), (0.1, drawing.GREY)]
    ):
        line = panel[159 + 18 * row + 8, left:right]
        assert count(line, color) == round(share * (right - left))
        assert count(line, color) + count(line, drawing.TRACK) == right - left


def test_panel_full_bar_does_not_touch_its_percentage(photo, heat):
    panel = images.panel(photo, heat, probabilities=[1.0, 0.0])
    row = panel[161:179]
    inked = (row[:, 296:] != 255).any(-1).any(0)
    assert not inked[:3].any()  # a gap between the end of the bar and "100.0%"
    assert inked.any()


def test_panel_always_has_a_bar_for_the_true_class(photo, heat):
    def rows(label, top_k):
        answer = answers.Answer.of([0.5, 0.3, 0.15, 0.05], label, None, top_k)
        return [(row.true, row.name, row.share) for row in answer.rows]

    assert rows(3, 3) == [
        (False, "class 0", 0.5), (False, "class 1", 0.3), (True, "class 3", 0.05)
    ]  # fmt: skip
    assert rows(0, 1) == [(True, "class 0", 0.5), (False, "class 1", 0.3)]
    assert rows(2, 0) == [(False, "class 0", 0.5), (True, "class 2", 0.15)]
    assert rows(None, 0) == [(False, "class 0", 0.5)]


def test_panel_of_one_sigmoid_output_shows_two_classes(photo, heat):
    one = images.panel(photo, heat, probabilities=[0.3], label=0)
    np.testing.assert_array_equal(one, images.panel(photo, heat, probabilities=[0.7, 0.3], label=0))


def test_panel_class_names_may_be_a_mapping(photo, heat):
    given = {"probabilities": [0.3, 0.7], "label": np.int64(1)}
    np.testing.assert_array_equal(
        images.panel(photo, heat, class_names={0: "cat", 1: "dog"}, **given),
        images.panel(photo, heat, class_names=("cat", "dog"), **given),
    )


def test_panel_draws_the_box_on_both_pictures():
    image, heat = np.full((157, 157, 3), 90, np.uint8), np.eye(157) * 0.2
    bare = images.panel(image, heat)
    panel = images.panel(image, heat, box=(20, 30, 100, 120))
    for left in (4, 165):
        x0, y0, x1, y1 = 20 + left, 30, 100 + left, 120
        for inset, color in ((0, BLACK), (1, WHITE), (2, WHITE), (3, BLACK)):
            assert tuple(panel[y0 + inset, x0 + 40]) == color
            assert tuple(panel[y1 - 1 - inset, x0 + 40]) == color
            assert tuple(panel[y0 + 40, x0 + inset]) == color
            assert tuple(panel[y0 + 40, x1 - 1 - inset]) == color
        inside = np.s_[y0 + 4 : y1 - 4, x0 + 4 : x1 - 4]
        np.testing.assert_array_equal(panel[inside], bare[inside])
        bare[y0:y1, x0:x1] = panel[y0:y1, x0:x1]
    np.testing.assert_array_equal(panel, bare)  # nothing outside the boxes has changed


def test_panel_scales_the_box_with_the_image(photo, heat):
    photo[:] = 90
    one = images.panel(photo, heat, box=(12, 24, 36, 48))
    rows, columns = np.nonzero((one[:, :163] == 0).all(-1))
    assert (columns.min() - 4, rows.min()) == (round(12 * 157 / 48), round(24 * 157 / 48))
    assert (columns.max() - 3, rows.max() + 1) == (round(36 * 157 / 48), 157)
    several = images.panel(photo, heat, box=[(12, 24, 36, 48), (0, 0, 1, 1)])
    assert count(several, BLACK) > count(one, BLACK)


def test_panel_keeps_the_scale_of_a_signed_map(photo):
    # One negative pixel: reduced in size it is all but gone, and must not move the zero.
    heat = np.zeros((500, 500))
    heat[0, 0] = -1
    panel = images.panel(np.zeros((500, 500)), heat, alpha=1, colormap="gray", opacity="even")
    assert tuple(panel[90, 240]) == (128, 128, 128)


def test_panel_is_fast_enough_for_every_step(photo, heat):
    import time

    def seconds():
        start = time.process_time()
        images.panel(photo, heat, probabilities=[0.2, 0.8], label=1, box=(2, 2, 9, 9), title="t")
        return time.process_time() - start

    # 1.5 ms here; a matplotlib figure takes 50. The fastest of many is not disturbed by others.
    assert min(seconds() for _ in range(20)) < 0.015


# text


@pytest.mark.filterwarnings("ignore:No font on this system")
@pytest.mark.parametrize(
    "text", ["猫 🐱", "two\nlines\tand\x00\x1b", "\ud800", "", "é Ω Ж ✓", "x" * 5000]
)
def test_any_text_can_be_drawn(photo, heat, text):
    assert images.captioned(photo, text).shape == (48 + 18, 48, 3)
    assert images.panel(photo, heat, title=text, label=0, class_names=[text]).shape[1] == 350


@pytest.fixture
def own_fonts(monkeypatch):
    """Only the font that matplotlib carries; nothing is remembered."""
    from matplotlib import font_manager

    entries = [e for e in font_manager.fontManager.ttflist if e.name == "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", entries)
    monkeypatch.setattr(fonts, "_warned", [])
    for cached in (fonts._file_with, drawing._lettering):
        cached.cache_clear()
    yield entries
    for cached in (fonts._file_with, drawing._lettering):
        cached.cache_clear()


def test_letters_that_no_font_has_are_spelled_with_one_warning(own_fonts):
    assert fonts.drawable("chat é Ж قطة") == "chat é Ж قطة"
    with pytest.warns(UserWarning, match="No font on this system"):
        assert fonts.drawable("a 猫") == "a \\u732b"
    # Once: a second warning would be an error here.
    assert fonts.drawable("बिल्ली") == "बिल्ली".encode("ascii", "backslashreplace").decode()
    black = np.zeros((8, 200, 3))
    assert (images.captioned(black, "猫") != images.captioned(black, "犬")).any()


def test_letters_are_drawn_with_a_font_of_the_system_that_has_them(own_fonts, tmp_path):
    from matplotlib.font_manager import FontEntry

    path = tmp_path / "cat.ttf"
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "cat"])
    builder.setupCharacterMap({ord("猫"): "cat"})
    pen = TTGlyphPen(None)
    for point in ((0, 0), (0, 700), (900, 700), (900, 0)):
        (pen.lineTo if point != (0, 0) else pen.moveTo)(point)
    pen.closePath()
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "cat": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "cat": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Cat", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    own_fonts.append(FontEntry(fname=str(path), name="Cat", weight=400))
    assert fonts.drawable("猫") == "猫"
    drawn = images.captioned(np.zeros((8, 40, 3)), "猫")[8:, :, 0]
    assert (drawn < 128).sum() > 60  # the black square that the glyph is


def test_text_is_cut_with_an_ellipsis():
    assert drawing.fitting("cat", 100) == "cat"
    cut = drawing.fitting("German short-haired pointer", 100)
    assert cut.endswith("…")
    assert "German short-haired pointer".startswith(cut[:-1])
    assert 80 < drawing._font(cut).getlength(cut) <= 100
    assert drawing.fitting(" a\n b ", 100) == "a b"


def test_caption_is_below_the_picture_and_centred(photo):
    photo = np.repeat(np.repeat(photo, 4, 0), 4, 1)
    shown = images.captioned(photo, "epoch 1")
    np.testing.assert_array_equal(shown[:192], photo)
    dark = np.nonzero((shown[192:] < 128).all(-1))[1]
    assert abs((dark.min() + dark.max()) / 2 - 96) < 3


# sequences and volumes


def test_montage_spreads_the_slices():
    volume = np.arange(20)[:, None, None] * np.ones((1, 2, 3), int)
    shown = images.montage(volume, slices=5, columns=2)
    assert shown.shape == (6, 6)
    np.testing.assert_array_equal(shown[::2, ::3], [[0, 5], [10, 14], [19, 0]])
    np.testing.assert_array_equal(shown, np.kron(shown[::2, ::3], np.ones((2, 3), int)))
    assert images.montage(np.zeros((4, 5, 6, 2))).shape == (10, 12, 2)


def test_signal_ground_has_the_colours_of_the_map():
    heat = np.array([0.0, 1.0])
    shown = images.signal(
        [1.0, 1.0], heat, width=100, height=40, alpha=0.5, colormap="gray", opacity="even"
    )
    np.testing.assert_array_equal(shown[2, :50], np.full((50, 3), 128))
    np.testing.assert_array_equal(shown[2, 50:], np.full((50, 3), 255))
    assert count(shown[20:21], drawing.INK) >= 40  # a constant is a level line in the middle


def test_signal_line_rises_with_the_values():
    shown = images.signal(np.arange(50), np.zeros(50), width=100, height=60, alpha=0)
    ink_rows = [np.nonzero(shown[:, x, 0] < 100)[0].mean() for x in (10, 50, 90)]
    assert ink_rows[0] > 45
    assert abs(ink_rows[1] - 30) < 2
    assert ink_rows[2] < 15


# grid, strip, files, figure


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(0, 8, 3), (8, 0), (0, 0, 3)])
def test_pictures_without_pixels_are_refused(tmp_path, dtype, shape):
    empty = np.zeros(shape, dtype)
    for call in (
        lambda: images.grid([empty]),
        lambda: images.resize(empty, 10),
        lambda: images.captioned(empty, "x"),
        lambda: images.save(tmp_path / "a.png", empty),
        lambda: images.save_gif(tmp_path / "a.gif", [empty]),
        lambda: images.panel(empty, np.zeros(shape[:2])),
    ):
        with pytest.raises(ValueError, match="Expected at least one image"):
            call()
    assert not list(tmp_path.iterdir())


def test_grid_places_pictures_in_rows():
    pictures = [np.full((2, 3), level, np.uint8) for level in range(1, 6)]
    shown = images.grid(pictures, columns=2, margin=1)
    expected = np.full((3 * 3 + 1, 2 * 4 + 1), 255)
    for index in range(5):
        row, column = divmod(index, 2)
        expected[row * 3 + 1 : row * 3 + 3, column * 4 + 1 : column * 4 + 4] = index + 1
    np.testing.assert_array_equal(shown, np.stack([expected] * 3, -1))
    assert images.grid(pictures).shape == images.grid(pictures, columns=3).shape


def test_grid_centres_smaller_pictures():
    large, small = np.zeros((6, 6), np.uint8), np.full((2, 4), 7, np.uint8)
    shown = images.grid([large, small], columns=2, margin=0)
    assert shown.shape == (6, 12, 3)
    np.testing.assert_array_equal(shown[2:4, 7:11], np.full((2, 4, 3), 7))
    assert count(shown, (7, 7, 7)) == 8


def test_strip_is_one_row_with_captions(photo):
    shown = images.strip([photo, photo[::-1]], ["epoch 1", "epoch 2"])
    assert shown.shape == (4 + 48 + 18 + 4, 2 * 52 + 4, 3)
    np.testing.assert_array_equal(shown[4:52, 4:52], photo)
    np.testing.assert_array_equal(shown[4:52, 56:104], photo[::-1])
    assert (shown[52:70] < 100).any()
    assert images.strip([photo] * 3, width=100).shape == (108, 316, 3)


def test_save_round_trip(tmp_path, photo):
    path = images.save(tmp_path / "new" / "a.png", photo)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), photo)
    images.save(str(tmp_path / "b.png"), photo[..., 0] / 255)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png"))[..., 1], photo[..., 0])


def test_save_gif_round_trip(tmp_path):
    frames = np.zeros((3, 20, 30, 3), np.uint8)
    for index in range(3):
        frames[index, index * 5 : index * 5 + 5] = (250, 40 * index, 10)
    path = images.save_gif(tmp_path / "new" / "a.gif", frames, duration_ms=120)
    with Image.open(path) as gif:
        assert gif.n_frames == 3
        assert gif.info["loop"] == 0  # for ever
        for index in range(3):
            gif.seek(index)
            assert gif.info["duration"] == 120
            np.testing.assert_array_equal(np.asarray(gif.convert("RGB")), frames[index])


def test_save_gif_keeps_photographic_panels_close(tmp_path, heat):
    y, x = np.mgrid[:48, :48] / 48
    image = np.stack([x, y, 1 - x], -1)
    panels_ = [images.panel(image, heat**k, probabilities=[0.9, 0.1], label=0) for k in (1, 3)]
    with Image.open(images.save_gif(tmp_path / "a.gif", panels_)) as gif:
        for index in range(2):
            gif.seek(index)
            off = np.abs(np.asarray(gif.convert("RGB")).astype(int) - panels_[index])
            assert off.mean() < 4.5  # all frames share one palette
            assert off.max() < 40  # no false colours: 83 without k-means


def test_save_gif_captions(tmp_path, photo):
    captions = ["epoch 1", "epoch 2"]
    path = images.save_gif(tmp_path / "a.gif", [photo, photo], captions=captions, width=96)
    with Image.open(path) as gif:
        assert gif.size == (96, 96 + 18)
        assert gif.n_frames == 2  # equal pictures, other captions
        first = np.asarray(gif.convert("RGB"))[96:]
        gif.seek(1)
        second = np.asarray(gif.convert("RGB"))[96:]
    assert (first < 100).any()
    assert (first != second).any()


def test_show_is_a_figure_that_a_notebook_can_draw(photo, heat):
    figure = images.show(np.stack([photo] * 3), np.stack([heat] * 3), ["a", "b", "c"], columns=2)
    assert isinstance(figure, matplotlib.figure.Figure)
    assert len(figure.axes) == 3 + 3 + 1
    titles = [ax.get_title() for ax in figure.axes]
    assert [t for t in titles if t] == ["a", "b", "c"]
    drawn = [ax.get_images()[0].get_array() for ax in figure.axes[:-1]]
    np.testing.assert_array_equal(drawn[0], photo)
    np.testing.assert_array_equal(drawn[2], images.overlay(photo, heat))
    assert figure.axes[-1].get_ylim() == (0, 1)
    assert figure._repr_png_().startswith(b"\x89PNG")
    signed = images.show(photo, heat * 2 - 1, colormap="RdBu_r")
    assert signed.axes[-1].get_ylim() == (-1, 1)


# Bad input gets a sentence


NAN = np.array([[0.0, np.nan]])
FLAT = np.zeros((4, 4))
REFUSED = {
    "nan map": (lambda: images.colorize(NAN), "1 of 2 values are not finite.*\\(0, 1\\)"),
    "nan map in a panel": (lambda: images.panel(NAN, NAN), "heatmap without NaN"),
    "nan image in a panel": (lambda: images.panel(NAN, NAN * 0 + 1), "without NaN"),
    "nan maps": (lambda: images.normalize(NAN), "maps without NaN"),
    "nan image": (lambda: images.displayable(NAN), "images without NaN"),
    "inf image": (lambda: images.displayable(FLAT + np.inf), "16 of 16"),
    "nan probabilities": (lambda: images.panel(FLAT, FLAT, probabilities=[np.nan]), "without NaN"),
    "no batch axis": (lambda: images.normalize([1.0]), r"\(batch, \*spatial\).*shape \(1,\)"),
    "mode": (lambda: images.normalize(FLAT, "max"), "\"image\".*Received: 'max'"),
    "rank 5": (lambda: images.displayable(np.zeros((1, 2, 2, 2, 3))), "montage"),
    "empty batch": (lambda: images.displayable(np.zeros((0, 4, 4, 3))), "at least one image"),
    "limits": (lambda: images.displayable(FLAT, (1, 1)), "low < high.*Received: \\(1, 1\\)"),
    "display drops the batch": (
        lambda: images.displayable(np.zeros((5, 4, 4, 3)), lambda x: x[0]),
        "as many images as it gets, 5. Received: 1",
    ),
    "unscaled map": (lambda: images.colorize([0.0, 37.5]), "from 0 to 37.5.*normalize"),
    "colormap": (lambda: images.colorize([0.0], "virids"), "'virids'.*viridis"),
    "alpha": (lambda: images.overlay(FLAT, FLAT, alpha=2), "alpha within 0..1.*Received: 2"),
    "map rank": (
        lambda: images.overlay(np.zeros((4, 4)), np.zeros((2, 4, 4))),
        r"a heatmap \(height, width\). Received: shape \(2, 4, 4\)",
    ),
    "opacity": (
        lambda: images.overlay(np.zeros((4, 4)), np.zeros((4, 4)), opacity="strong"),
        'Expected opacity to be "heat" or "even". Received: \'strong\'',
    ),
    "panel sizes": (
        lambda: images.panel(np.zeros((4, 4, 3)), np.zeros((7, 7))),
        r"image \(4, 4, 3\) and heatmap \(7, 7\)",
    ),
    "batch of maps": (lambda: images.panel(FLAT, FLAT[None]), "one map of the batch"),
    "width": (lambda: images.panel(FLAT, FLAT, width=50), "120 pixels. Received: 50"),
    "logits": (
        lambda: images.panel(FLAT, FLAT, probabilities=[-3.0, 9.0]),
        "from -3 to 9. Apply the softmax",
    ),
    "batch of probabilities": (
        lambda: images.panel(FLAT, FLAT, probabilities=[[0.5, 0.5]]),
        r"\(classes,\).*\(1, 2\)",
    ),
    "label": (lambda: images.panel(FLAT, FLAT, probabilities=[0.5, 0.5], label=2), "0 below 2"),
    "negative label": (lambda: images.panel(FLAT, FLAT, label=-1), "integer from 0. Received: -1"),
    "float label": (lambda: images.panel(FLAT, FLAT, label=1.5), "Received: 1.5"),
    "names": (
        lambda: images.panel(FLAT, FLAT, label=2, class_names=["a", "b"]),
        "name class 2. Received: 2 names",
    ),
    "box outside": (
        lambda: images.panel(FLAT, FLAT, box=(0, 0, 5, 4)),
        r"x1 <= 4.*Received: \[0.0, 0.0, 5.0, 4.0\]",
    ),
    "nan box": (lambda: images.panel(FLAT, FLAT, box=(0, 0, np.nan, 4)), "Expected boxes"),
    "box shape": (lambda: images.panel(FLAT, FLAT, box=(0, 0, 4)), r"Received: shape \(3,\)"),
    "box of a volume": (
        lambda: images.panel(np.zeros((3, 4, 4)), np.zeros((3, 4, 4)), box=(0, 0, 2, 2)),
        "no box",
    ),
    "signal": (lambda: images.signal(np.zeros(4), np.zeros(5)), r"\(4,\) and \(5,\)"),
    "montage": (lambda: images.montage(FLAT), r"volume.*Received: shape \(4, 4\)"),
    "slices": (lambda: images.montage(np.zeros((3, 4, 4)), slices=0), "slices to be at least 1"),
    "empty grid": (lambda: images.grid([]), "at least one image. Received: none"),
    "columns": (lambda: images.grid([FLAT], columns=0), "columns to be at least 1"),
    "margin": (lambda: images.grid([FLAT], margin=-1), "margin of 0 or more"),
    "a batch in a list": (lambda: images.grid([np.zeros((2, 4, 4, 3))]), "one image of the batch"),
    "captions": (lambda: images.strip([FLAT], ["a", "b"]), "as many captions as images, 1"),
    "suffix": (lambda: images.save("picture", FLAT), "Received: 'picture'. Add .png"),
    "gif suffix": (lambda: images.save_gif("a.png", [FLAT]), "ends in .gif. Received: 'a.png'"),
    "gif sizes": (
        lambda: images.save_gif("a.gif", [FLAT, np.zeros((5, 4))]),
        r"one size, \(4, 4\).*Received: \(5, 4\) at index 1",
    ),
    "gif duration": (lambda: images.save_gif("a.gif", [FLAT], 5), "at least 20 ms. Received: 5"),
    "maps for images": (
        lambda: images.show(FLAT, np.zeros((2, 4, 4))),
        "as many maps as images, 1",
    ),
    "titles": (lambda: images.show(FLAT, FLAT, ["a", "b"]), "as many titles as images, 1"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_gets_a_sentence(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    text = str(caught.value)
    assert text.startswith("Expected ")
    assert "Received: " in text


# The modules themselves


@pytest.mark.parametrize("module", [colors, drawing, framing, images, painting, panels, sequences])
def test_examples_of_the_docstrings(module):
    names = {**vars(images), "np": np}
    failed, _ = doctest.testmod(module, extraglobs=names)
    assert failed == 0


def test_importing_pictures_imports_no_matplotlib_and_no_model_code():
    code = (
        "import json, sys, types, importlib.util as u;"
        "spec = u.find_spec('kvis2');"
        "package = types.ModuleType('kvis2'); package.__path__ = spec.submodule_search_locations;"
        "sys.modules['kvis2'] = package; import kvis2.images;"
        "print(json.dumps([m for m in ('tensorflow', 'keras', 'matplotlib') if m in sys.modules]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(result.stdout) == []
