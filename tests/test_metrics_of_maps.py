"""Measures of maps alone, ranking, similarity and results against loops, closed forms, axioms."""

import copy
import pickle

import metric_references as references
import numpy as np
import pytest

from kvis2.localization import energy_in_box, localization_auc, pointing_game, relevance_rank
from kvis2.metrics import (
    Measurement,
    completeness_gap,
    complexity,
    drift,
    effective_complexity,
    pearson,
    random_maps,
    ranks,
    sparseness,
    spearman,
    ssim,
    untrained_similarity,
)

MAPS = np.random.default_rng(0).normal(size=(3, 9, 11)).astype(np.float32)
OTHERS = np.random.default_rng(1).normal(size=(3, 9, 11)).astype(np.float32) + 0.5 * MAPS
MASKS = np.random.default_rng(2).random((3, 9, 11)) < 0.3


def by_image(function, *arrays):
    return [function(*each) for each in zip(*arrays, strict=True)]


def test_concentration_equals_the_sums_of_the_papers():
    np.testing.assert_allclose(sparseness(MAPS), by_image(references.gini, MAPS), rtol=1e-6)
    np.testing.assert_allclose(complexity(MAPS), by_image(references.entropy, MAPS), rtol=1e-6)
    counted = [(np.abs(m) > 0.25 * np.abs(m).max()).sum() for m in MAPS]
    np.testing.assert_array_equal(effective_complexity(MAPS, 0.25), counted)


def test_concentration_of_one_position_of_all_and_of_none():
    one, all_, none = np.eye(1, 20), np.ones((1, 20)), np.zeros((1, 20))
    np.testing.assert_allclose(sparseness(np.concatenate([one, all_, none])), [0.95, 0, 0])
    expected = [0, np.log(20), 0]
    np.testing.assert_allclose(
        complexity(np.concatenate([one, all_, none])), expected, rtol=1e-6, atol=1e-7
    )
    assert effective_complexity(none) == 0


def test_concentration_does_not_depend_on_scale_sign_place_or_the_other_maps():
    shuffled = np.random.default_rng(0).permutation(MAPS.reshape(3, -1), axis=1)
    for measure in (sparseness, complexity, effective_complexity):
        expected = measure(MAPS)
        np.testing.assert_allclose(measure(-1e-6 * shuffled), expected, rtol=1e-5)
        np.testing.assert_array_equal(measure(MAPS[1:2]), expected[1:2])
    assert MAPS.flags.writeable
    np.testing.assert_array_equal(
        MAPS, np.random.default_rng(0).normal(size=(3, 9, 11)).astype("f")
    )


def test_similarities_equal_counting_and_windows():
    tied = np.round(MAPS), np.round(OTHERS)
    expected = by_image(references.spearman, *tied)
    np.testing.assert_allclose(spearman(*tied), expected, rtol=1e-6)
    np.testing.assert_allclose(
        pearson(MAPS, OTHERS), by_image(references.pearson, MAPS, OTHERS), rtol=1e-6
    )
    np.testing.assert_allclose(
        ssim(MAPS, OTHERS), by_image(references.ssim, MAPS, OTHERS), rtol=1e-6
    )


def test_rank_correlation_is_blind_to_monotone_changes_and_of_blank_maps_alike():
    np.testing.assert_allclose(spearman(MAPS, np.exp(3 * MAPS)), [1, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(spearman(MAPS, -(MAPS**3)), [-1, -1, -1], rtol=1e-6)
    blank = np.zeros_like(MAPS)
    for similarity in (spearman, pearson):
        np.testing.assert_array_equal(similarity(MAPS, blank), [0, 0, 0])
        np.testing.assert_array_equal(similarity(blank, blank), [1, 1, 1])
    np.testing.assert_array_equal(ssim(blank, blank), [1, 1, 1])


def test_drift_is_none_for_the_same_order_and_two_for_the_reverse():
    np.testing.assert_allclose(drift(MAPS, 2 * MAPS + 1), np.zeros(3), atol=1e-6)
    np.testing.assert_allclose(drift(MAPS, -MAPS), np.full(3, 2), rtol=1e-6)
    expected = by_image(references.spearman, np.abs(MAPS), np.abs(OTHERS))
    np.testing.assert_allclose(untrained_similarity(MAPS, OTHERS), expected, rtol=1e-6)
    np.testing.assert_allclose(untrained_similarity(MAPS, -MAPS), np.ones(3), rtol=1e-6)


def test_maps_of_different_images_are_named():
    with pytest.raises(ValueError, match=r"shapes \(3, 9, 11\) and \(2, 9, 11\)"):
        drift(MAPS, MAPS[:2])
    with pytest.raises(ValueError, match="NaN"):
        spearman(MAPS, np.full_like(MAPS, np.nan))
    with pytest.raises(ValueError, match=r"at least 7 x 7. Received: shape \(3, 9, 5\)"):
        ssim(MAPS[..., :5], MAPS[..., :5])
    with pytest.raises(ValueError, match=r"\(batch, \*spatial\). Received: shape \(4,\)"):
        sparseness(np.ones(4))
    with pytest.raises(ValueError, match="finite maps"):
        complexity([[np.inf, 1.0]])


def test_completeness_gap_is_relative_to_what_there_is_to_share():
    maps = np.array([[1.0, 2.0], [1.0, -1.0], [0.5, 0.0], [1.0, 1.0]])
    gaps = completeness_gap(maps, [5.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(gaps, [0.25, 0.0, 0.5, np.inf])
    absolute = completeness_gap(maps, [5.0, 0.0, 1.0, 1.0], relative=False)
    np.testing.assert_allclose(absolute, [2.0, 0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match="one score for each of the 4 maps"):
        completeness_gap(maps, [1.0])


# -- localisation by masks ------------------------------------------------------------------------


def test_ranks_and_area_on_masks_equal_counting_of_pairs():
    np.testing.assert_allclose(
        relevance_rank(MAPS, MASKS), by_image(references.relevance_rank, MAPS, MASKS), rtol=1e-6
    )
    tied = np.round(MAPS)
    expected = by_image(references.auc, tied, MASKS)
    np.testing.assert_allclose(localization_auc(tied, MASKS), expected, rtol=1e-6)


def test_order_alone_decides_where_ranks_are_measured():
    for measure in (relevance_rank, localization_auc):
        exact = MAPS.astype(float)  # in float32 some of these would make ties
        for changed in (np.exp(exact), exact**3, 1e-3 * exact - 5):
            np.testing.assert_array_equal(measure(changed, MASKS), measure(MAPS, MASKS))


def test_tied_positions_share_the_last_places_of_the_ranking():
    heatmap = np.array([[[9.0, 1.0, 1.0, 1.0, 0.0]]])
    mask = np.array([[[True, True, False, False, True]]])
    # 9 is in; two of the three tied are, of which one is on the object: (1 + 2 / 3) / 3.
    np.testing.assert_allclose(relevance_rank(heatmap, mask), [(1 + 2 / 3) / 3], rtol=1e-6)


def test_a_map_equal_to_the_mask_is_perfect_and_its_opposite_worst():
    for measure in (pointing_game, energy_in_box, relevance_rank, localization_auc):
        np.testing.assert_array_equal(measure(MASKS.astype(float), MASKS), np.ones(3))
        np.testing.assert_array_equal(measure((~MASKS).astype(float), MASKS), np.zeros(3))
        np.testing.assert_array_equal(measure(np.zeros_like(MAPS), MASKS), np.zeros(3))


def test_masks_and_boxes_of_the_same_pixels_agree():
    boxes = [[1, 2, 5, 8], [[0, 0, 3, 3], [4, 4, 11, 9]], [10, 0, 11, 9]]
    masks = np.zeros((3, 9, 11), bool)
    masks[0, 2:8, 1:5] = masks[1, :3, :3] = masks[1, 4:9, 4:] = masks[2, :, 10] = True
    for measure in (pointing_game, energy_in_box, relevance_rank, localization_auc):
        expected = measure(MAPS, boxes)
        for given in (masks, masks.astype(int), masks.astype(np.float32), list(masks)):
            np.testing.assert_array_equal(measure(MAPS, given), expected)
        shared = measure(MAPS, masks[0])
        np.testing.assert_array_equal(shared, measure(MAPS, np.repeat(masks[:1], 3, axis=0)))


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2, 4.2])
def test_tolerance_is_the_distance_between_pixels(tolerance):
    for row, column in np.ndindex(9, 11):
        heatmap = np.zeros((1, 9, 11))
        heatmap[0, row, column] = 1
        distances = [np.hypot(y - row, x - column) for y, x in np.argwhere(MASKS[0])]
        expected = float(min(distances) <= tolerance)
        assert pointing_game(heatmap, MASKS[:1], tolerance) == expected


def test_masks_that_cannot_be_used_are_named():
    empty = MASKS.copy()
    empty[1] = False
    for measure in (pointing_game, energy_in_box, relevance_rank, localization_auc):
        with pytest.raises(ValueError, match=r"empty mask for image \[1\]"):
            measure(MAPS, empty)
        with pytest.raises(ValueError, match=r"\(batch, 9, 11\), the size of the maps"):
            measure(MAPS, MASKS[:, :5])
        with pytest.raises(ValueError, match=r"each of the 3 images. Received: 2 masks"):
            measure(MAPS, MASKS[:2])
    with pytest.raises(ValueError, match=r"fills image \[0, 1, 2\]"):
        localization_auc(MAPS, np.ones((9, 11), bool))
    with pytest.raises(ValueError, match=r"`tolerance` in pixels, from 0. Received: -1"):
        pointing_game(MAPS, MASKS, -1)


# -- ranking and results --------------------------------------------------------------------------


def test_every_place_is_taken_once_and_ties_are_drawn_by_the_seed_alone():
    relu = np.maximum(MAPS, 0)
    places = ranks(relu)
    for each, heatmap in zip(places, relu, strict=True):
        assert sorted(each.ravel()) == list(range(99))
        assert (np.diff(heatmap.ravel()[np.argsort(each.ravel())]) <= 0).all()
    np.testing.assert_array_equal(ranks(relu[2:]), places[2:])
    np.testing.assert_array_equal(ranks(relu, 0), places)
    assert (ranks(relu, 1) != places).any()
    zeros = ranks(np.zeros((1, 10000)))[0]
    assert abs(np.corrcoef(zeros, np.arange(10000))[0, 1]) < 0.05  # not from the top left
    np.testing.assert_array_equal(ranks(MAPS, lowest_first=True), 98 - ranks(MAPS))


def test_random_maps_are_the_same_for_every_image_and_batch():
    drawn = random_maps((3, 9, 11), 2)
    assert drawn.shape == (2, 3, 9, 11)
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 2])
    np.testing.assert_array_equal(drawn[:, :1], random_maps((1, 9, 11), 2))
    assert (drawn[0] != drawn[1]).all()


def result():
    control = Measurement([0.5, 0.25], "Deletion", better="lower")
    return Measurement(
        [0.25, 0.5],
        "Deletion",
        better="lower",
        settings={"steps": 4, "baseline": np.zeros((2, 2)), "function": np.mean},
        curve=np.ones((2, 5)),
        fractions=np.linspace(0, 1, 5),
        random_control=control,
    )


def test_a_result_is_a_float32_array_and_what_is_made_of_it_a_plain_one():
    made = result()
    assert made.dtype == np.float32
    assert made.shape == (2,)
    for plain in (made + 1, made - made, made[:1], made[made > 0.3], np.sort(made[:])):
        assert type(plain) is np.ndarray
    assert made.mean() == 0.375
    assert float(made[0]) == 0.25
    np.testing.assert_array_equal(made.gain, [0.25, -0.25])


def test_a_result_says_what_it_is():
    text = repr(result())
    assert text.startswith("<Deletion: mean 0.375, random maps 0.375, lower is better; [0.25 0.5 ]")
    assert "steps=4, baseline=array(2, 2), function=mean" in text
    with pytest.raises(ValueError, match="`random_control=1`"):
        _ = result().random_control.gain


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))]
)
def test_a_copy_of_a_result_keeps_everything(copied):
    made = result()
    made.settings.pop("function")
    other = copied(made)
    np.testing.assert_array_equal(other, made)
    np.testing.assert_array_equal(other.curve, made.curve)
    np.testing.assert_array_equal(other.gain, made.gain)
    assert other.settings["steps"] == 4
    assert repr(other) == repr(made)


def test_a_result_draws_its_curves_or_its_numbers():
    from matplotlib.figure import Figure

    made = result()
    ax = made.plot(ax=Figure().add_subplot())
    lines = ax.get_lines()
    assert len(lines) == 3  # two images and their mean; the control has no curve
    np.testing.assert_array_equal(lines[-1].get_ydata(), np.ones(5))
    plain = Measurement([1.0, 3.0], "sparseness", random_control=Measurement([2.0, 2.0], "x"))
    ax = plain.plot(ax=Figure().add_subplot())
    assert [bar.get_height() for bar in ax.patches] == [1.0, 3.0]
    assert list(ax.get_lines()[0].get_ydata()) == [2.0, 2.0]
