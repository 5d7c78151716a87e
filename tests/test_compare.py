"""Comparisons: shared passes, the same numbers as one by one, ranks, intervals, tables."""

import csv
import functools

import numpy as np
import pytest
import tensorflow as tf
from keras import Sequential, layers

import kvis2
from kvis2 import metrics
from kvis2.metrics import Comparison, Measurement, compare

pytestmark = pytest.mark.slow  # Together a minute and a half; the golden numbers are not.

CAMS = [
    kvis2.GradCAM,
    kvis2.GradCAMPlusPlus,
    kvis2.LayerCAM,
    kvis2.XGradCAM,
    kvis2.HiResCAM,
    kvis2.CAM,
    kvis2.EigenCAM,
    kvis2.EigenGradCAM,
]
BOXES = [[2, 3, 9, 12]] * 5


COUNTS = {"forward": 0, "backward": 0}


class Counted(layers.Layer):
    """Counts how often it is traced forwards and backwards."""

    def call(self, inputs):
        COUNTS["forward"] += 1

        @tf.custom_gradient
        def identity(x):
            def gradient(upstream):
                COUNTS["backward"] += 1
                return upstream

            return tf.identity(x), gradient

        return identity(inputs)


def counted_model():
    stack = [layers.Conv2D(4, 3, activation="relu"), layers.Conv2D(5, 3, activation="relu")]
    head = [layers.GlobalAveragePooling2D(), Counted(), layers.Dense(3, activation="softmax")]
    model = Sequential([layers.Input((16, 12, 3)), *stack, *head])
    head[-1].kernel.assign(abs(head[-1].kernel))  # a blank map would be looked into by a pass
    COUNTS.update(forward=0, backward=0)
    return model


def test_eight_class_activation_maps_cost_one_pass_there_and_back(images):
    model = counted_model()
    compare(model, CAMS, images, score=1, metrics=[metrics.sparseness])
    assert COUNTS == {"forward": 1, "backward": 1}
    model = counted_model()
    for make in CAMS:
        make(model)(1, images)
    assert COUNTS["forward"] == 8


@pytest.mark.filterwarnings("ignore:.*found no evidence")
def test_shared_passes_change_no_map(small_model, images):
    more = [kvis2.Saliency, kvis2.InputXGradient, kvis2.ScoreCAM, kvis2.AblationCAM]
    more += [kvis2.SmoothGradCAMPlusPlus, lambda m: kvis2.LayerCAM(m, layers=["early", "late"])]
    more += [lambda m: kvis2.GradCAM(m, layer="early"), kvis2.FullGrad, kvis2.LRP]
    found = compare(small_model, [*CAMS, *more], images, metrics=[metrics.sparseness])
    for name, make in zip(found.explainers, [*CAMS, *more], strict=True):
        expected = make(small_model)(None, images)
        np.testing.assert_allclose(found.maps[name], expected, atol=2e-5, err_msg=name)
    assert "LayerCAM 2" in found.explainers


def test_numbers_are_those_of_the_measures(small_model, images):
    measures = [
        metrics.Deletion(small_model, steps=4),
        functools.partial(metrics.Insertion, steps=4),
        metrics.AverageDrop,
        functools.partial(metrics.MaxSensitivity, samples=2),
        metrics.complexity,
        metrics.energy_in_box,
    ]
    made = {"a": kvis2.GradCAM, "b": kvis2.Saliency(small_model)}
    found = compare(small_model, made, images, 2, BOXES, measures)
    assert found.measures == [
        "Deletion",
        "Insertion",
        "AverageDrop",
        "MaxSensitivity",
        "complexity",
        "energy_in_box",
    ]
    for name, explainer in (("a", kvis2.GradCAM(small_model)), ("b", made["b"])):
        maps = explainer(2, images)
        expected = [
            metrics.Deletion(small_model, steps=4)(2, images, maps),
            metrics.Insertion(small_model, steps=4)(2, images, maps),
            metrics.AverageDrop(small_model)(2, images, maps),
            metrics.MaxSensitivity(explainer, samples=2)(2, images),
            metrics.complexity(maps),
            metrics.energy_in_box(maps, BOXES),
        ]
        for measure, numbers in zip(found.measures, expected, strict=True):
            values = found.values[measure][name]
            np.testing.assert_allclose(values, numbers, rtol=1e-3, atol=1e-6)
    noise = metrics.random_maps((5, 16, 12), 1)[0]
    control = found.values["energy_in_box"]["random maps"]
    np.testing.assert_array_equal(control, metrics.energy_in_box(noise, BOXES))
    assert "random maps" not in found.values["MaxSensitivity"]


def test_by_default_localisation_is_measured_where_there_are_boxes(small_model, images):
    plain = compare(small_model, kvis2.GradCAM, images)
    assert plain.measures == ["Deletion", "Insertion", "Road", "sparseness"]
    boxed = compare(small_model, kvis2.GradCAM, images, boxes=BOXES)
    assert boxed.measures[4:] == [
        "pointing_game",
        "energy_in_box",
        "relevance_rank",
        "localization_auc",
    ]


def comparison():
    values = {
        "Deletion": {
            "first": Measurement([1.0, 3.0], "Deletion", better="lower"),
            "second": Measurement([1.0, 2.0], "Deletion", better="lower"),
            "third": Measurement([3.0, 1.0], "Deletion", better="lower"),
            "random maps": Measurement([4.0, 4.0], "Deletion", better="lower"),
        },
        "<b>|bold|": {
            name: Measurement([value, value], "x")
            for name, value in (("first", 1.0), ("second", 2.0), ("third", 3.0))
        },
    }
    maps = {name: np.eye(8)[None].repeat(2, 0) for name in ("first", "second", "third")}
    return Comparison(
        values,
        maps=maps,
        images=np.zeros((2, 8, 8, 3)),
        seconds=dict.fromkeys(maps, 0.5),
        measure_seconds={"Deletion": 0.25, "<b>|bold|": 0.0},
    )


def test_ranks_are_by_measure_with_shared_places():
    found = comparison()
    assert found.ranks("Deletion") == {"first": 2.5, "second": 1.0, "third": 2.5}
    assert found.ranks("<b>|bold|") == {"first": 3.0, "second": 2.0, "third": 1.0}


def test_intervals_are_of_the_mean_over_images():
    rng = np.random.default_rng(0)
    numbers = rng.normal(3, 2, 400)
    values = {"x": {"one": Measurement(numbers, "x")}}
    found = Comparison(
        values,
        maps={"one": np.zeros((400, 2, 2))},
        images=np.zeros((400, 2, 2, 3)),
        seconds={"one": 0.0},
        measure_seconds={"x": 0.0},
    )
    cell = found.cell("x", "one")
    error = 1.96 * numbers.std() / 20
    np.testing.assert_allclose(
        [cell.low, cell.high], [cell.mean - error, cell.mean + error], atol=0.03
    )
    constant = comparison().cell("<b>|bold|", "first")
    assert constant[:3] == (1.0, 1.0, 1.0)


def test_the_table_is_printed_and_written_with_what_it_shows_escaped(tmp_path):
    found = comparison()
    text = str(found)
    assert "Deletion ↓" in text
    assert "1.5 [1, 2] (1)" in text
    assert "random maps" in text
    assert "500.0" in text  # milliseconds
    page = found._repr_html_()
    assert "&lt;b&gt;|bold|" in page
    assert "<b>" not in page
    lines = found.to_markdown().splitlines()
    assert lines[0].startswith("| explainer | Deletion ↓ | \\<b\\>\\|bold\\| ↑ |")
    assert lines[2].startswith("| first | 2 \\[1, 3\\] (2.5) |")
    found.to_csv(tmp_path / "table.csv")
    with open(tmp_path / "table.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[1] == {
        "measure": "Deletion",
        "better": "lower",
        "explainer": "second",
        "mean": "1.5",
        "low": "1.0",
        "high": "2.0",
        "rank": "1.0",
        "random": "4.0",
        "seconds_of_maps": "0.5",
        "seconds_of_measure": "0.25",
    }


def test_images_are_rows_and_explainers_columns_with_the_measures_below():
    figure = comparison().plot(images=1)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[:4] == ["image", "first", "second", "third"]
    assert titles[4].startswith("Deletion\n(lower")
    assert [bar.get_height() for bar in figure.axes[4].patches] == [2.0, 1.5, 2.0]
    assert len(comparison().plot().axes) == 2 * 4 + 2
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_what_cannot_be_compared_is_named(small_model, images):
    other = Sequential([layers.Input((16, 12, 3)), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(ValueError, match="Expected explainers of 'small'"):
        compare(small_model, [kvis2.Saliency(other)], images)
    with pytest.raises(ValueError, match="at least one explainer"):
        compare(small_model, [], images)
    with pytest.raises(TypeError, match="Expected explainers, or classes"):
        compare(small_model, ["GradCAM"], images)
    with pytest.raises(TypeError, match="Expected measures"):
        compare(small_model, kvis2.GradCAM, images, metrics=["deletion"])
    with pytest.raises(ValueError, match="Expected `boxes` for pointing_game"):
        compare(small_model, kvis2.GradCAM, images, metrics=[metrics.pointing_game])
