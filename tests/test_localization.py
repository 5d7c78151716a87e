"""Pointing game and energy in the box against loops over pixels and closed forms."""

import numpy as np
import pytest

from kvis2.localization import box_masks, energy_in_box, pointing_game


def covers(box, row, column):
    x0, y0, x1, y1 = box
    return x0 < column + 1 and column < x1 and y0 < row + 1 and row < y1


def pointing_game_by_loops(heatmap, boxes):
    peak = heatmap.max()
    hottest = [p for p in np.ndindex(*heatmap.shape) if heatmap[p] == peak and peak > 0]
    inside = [p for p in hottest if any(covers(box, *p) for box in boxes)]
    return len(inside) / len(hottest) if hottest else 0.0


def energy_by_loops(heatmap, boxes):
    total = inside = 0.0
    for p in np.ndindex(*heatmap.shape):
        heat = max(float(heatmap[p]), 0.0)
        total += heat
        inside += heat * any(covers(box, *p) for box in boxes)
    return inside / total if total else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_numbers_equal_loops_over_pixels_also_for_signed_maps_and_ties(seed):
    random = np.random.default_rng(seed)
    maps = random.integers(-3, 4, (6, 7, 9)).astype(np.float32)
    boxes = []
    for _ in maps:
        x0, y0 = random.uniform(0, 8), random.uniform(0, 6)
        boxes.append([[x0, y0, random.uniform(x0 + 0.1, 9), random.uniform(y0 + 0.1, 7)]])
    boxes[0].append([0, 0, 2, 3])
    expected = [pointing_game_by_loops(m, b) for m, b in zip(maps, boxes, strict=True)]
    np.testing.assert_allclose(pointing_game(maps, boxes), expected, rtol=1e-6)
    expected = [energy_by_loops(m, b) for m, b in zip(maps, boxes, strict=True)]
    np.testing.assert_allclose(energy_in_box(maps, boxes), expected, rtol=1e-6)


def test_one_hot_pixel_inside_and_just_outside_the_end_of_a_box():
    maps = np.zeros((2, 4, 6))
    maps[0, 2, 3] = maps[1, 2, 4] = 1.0
    boxes = [[1, 1, 4, 3], [1, 1, 4, 3]]
    np.testing.assert_array_equal(pointing_game(maps, boxes), [1.0, 0.0])
    np.testing.assert_array_equal(energy_in_box(maps, boxes), [1.0, 0.0])


def test_a_uniform_map_gets_the_share_of_the_area():
    maps = np.full((1, 10, 8), 0.3)
    np.testing.assert_allclose(energy_in_box(maps, [[0, 0, 4, 5]]), [20 / 80])
    np.testing.assert_allclose(pointing_game(maps, [[0, 0, 4, 5]]), [20 / 80])


def test_overlapping_boxes_count_a_pixel_once_and_the_whole_image_holds_everything():
    maps = np.random.default_rng(0).random((1, 5, 5))
    both = [[[0, 0, 3, 3], [0, 0, 3, 3]]]
    np.testing.assert_array_equal(energy_in_box(maps, both), energy_in_box(maps, [[0, 0, 3, 3]]))
    np.testing.assert_allclose(energy_in_box(maps, [[0, 0, 5, 5]]), [1.0])


def test_a_map_of_zeros_points_nowhere():
    maps = np.zeros((1, 4, 4))
    assert pointing_game(maps, [[0, 0, 4, 4]]) == 0.0
    assert energy_in_box(maps, [[0, 0, 4, 4]]) == 0.0


def test_a_box_thinner_than_a_pixel_still_covers_the_pixel_it_touches():
    mask = box_masks([[1.2, 2.3, 1.4, 2.5]], 1, 4, 4)
    assert list(zip(*np.nonzero(mask[0]), strict=True)) == [(2, 1)]


@pytest.mark.parametrize("box", [[0, 0, 5, 2], [-1, 0, 2, 2], [2, 0, 2, 2], [0, 3, 2, 1]])
def test_a_box_outside_the_image_or_empty_is_named(box):
    with pytest.raises(ValueError, match=r"box of image 1 .* width 4 .* height 3.* Received: \["):
        energy_in_box(np.ones((2, 3, 4)), [[0, 0, 1, 1], box])


def test_nan_corners_are_outside():
    with pytest.raises(ValueError, match="Received: "):
        pointing_game(np.ones((1, 3, 4)), [[0, 0, np.nan, 2]])


@pytest.mark.parametrize("box", [[1, 2, 3], [], "cat", None, [[[1, 2, 3, 4]]]])
def test_what_is_not_a_box_is_named(box):
    with pytest.raises(ValueError, match=r"Expected a box .* image 0"):
        pointing_game(np.ones((1, 3, 4)), [box])


def test_a_wrong_number_of_boxes_is_never_cut():
    with pytest.raises(ValueError, match=r"each of the 2 images. Received: boxes for 1"):
        pointing_game(np.ones((2, 3, 4)), [[0, 0, 1, 1]])


def test_maps_of_the_wrong_rank_and_nan_are_named():
    with pytest.raises(ValueError, match=r"\(batch, height, width\). Received: shape \(3, 4\)"):
        energy_in_box(np.ones((3, 4)), [[0, 0, 1, 1]])
    with pytest.raises(ValueError, match="Received: 1 NaN"):
        energy_in_box([[[np.nan, 1.0]]], [[0, 0, 1, 1]])
