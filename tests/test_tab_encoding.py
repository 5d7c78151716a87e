"""The data of the Explanations tab: how a step is encoded."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tab_logs
from tab_logs import maps_of

from kvis2.callbacks.tab import Card, TabCards


def decoded(summary):
    """Read a step back by the format's description: header, numbers by name, values."""
    header = json.loads(summary.blobs[0])
    rows = header["rows"]
    columns = {}
    for place, (name, kind) in enumerate(header["columns"]):
        columns[name] = np.frombuffer(summary.blobs[1], f"<{kind}4", rows, 4 * rows * place)
    levels = np.frombuffer(summary.blobs[2], np.uint8).astype(np.float64)
    levels = levels.reshape(rows, *header["grid"])
    shape = (rows, *[1] * len(header["grid"]))
    low, high = (columns[name].astype(np.float64).reshape(shape) for name in ("low", "high"))
    if header["signed"]:
        return header, columns, np.maximum(-low, high) * (levels - 128) / 127
    return header, columns, low + (high - low) * levels / 255


def cards(count, **card):
    return [Card(f"{row:02d}", **card) for row in range(count)]


@pytest.mark.parametrize("grid", [(7, 7), (12,), (4, 5, 6)])
def test_maps_come_back_within_half_a_level(grid):
    maps = 3 + maps_of(0, 4, grid)
    header, columns, values = decoded(TabCards("T", cards(4)).summaries(maps)[-1])
    flat = maps.reshape(4, -1)
    np.testing.assert_array_equal(columns["low"], flat.min(axis=1))
    np.testing.assert_array_equal(columns["high"], flat.max(axis=1))
    assert header["grid"] == header["source"] == list(grid)
    level = (flat.max(axis=1) - flat.min(axis=1)) / 255
    error = np.abs(values - maps).reshape(4, -1).max(axis=1)
    assert (error <= 0.501 * level).all()


def test_signed_maps_keep_zero_and_stay_signed():
    maps = maps_of(0, 3, signed=True)
    maps[:, 0, 0] = 0
    encoder = TabCards("T", cards(3))
    header, _, values = decoded(encoder.summaries(maps)[-1])
    assert header["signed"]
    assert (values[:, 0, 0] == 0).all()
    largest = np.abs(maps).max(axis=(1, 2), keepdims=True)
    assert (np.abs(values - maps) <= 0.501 * largest / 127).all()
    header, _, values = decoded(encoder.summaries(np.abs(maps))[-1])
    assert header["signed"]  # so that the colours do not change their meaning from step to step
    assert (np.abs(values - np.abs(maps)) <= 0.501 * largest / 127).all()


@pytest.mark.parametrize("value", [0.0, 2.5, -2.5])
def test_a_constant_map_keeps_its_value(value):
    _, _, values = decoded(TabCards("T", cards(1)).summaries(np.full((1, 3, 3), value))[-1])
    np.testing.assert_allclose(values, value)


def test_drift_is_the_share_of_heat_that_moved():
    encoder = TabCards("T", cards(4))
    before = np.array([[[2.0, 2]], [[1, 0]], [[1, 1]], [[0, 0]]])
    after = np.array([[[9.0, 9]], [[0, 5]], [[4, 0]], [[1, 0]]])
    _, first, _ = decoded(encoder.summaries(before)[-1])
    header, second, _ = decoded(encoder.summaries(after)[-1])
    assert np.isnan(first["drift"]).all()
    np.testing.assert_allclose(second["drift"], [0, 1, 0.5, 0.5])
    assert header["scalars"]["drift"] == pytest.approx(0.5)


def test_peak_is_the_largest_value_so_far():
    encoder = TabCards("T", cards(2))
    peaks = []
    for maps in ([[[1.0, -4]], [[1, 2]]], [[[2.0, 0]], [[3, 0]]], [[[0.0, 0]], [[-5, 0]]]):
        peaks.append(decoded(encoder.summaries(maps)[-1])[1]["peak"].tolist())
    assert peaks == [[4, 2], [4, 3], [4, 5]]


def test_large_maps_are_averaged_over_equal_parts():
    maps = maps_of(0, 2, (100, 224))
    header, _, values = decoded(TabCards("T", cards(2)).summaries(maps)[-1])
    # Each cell is cut into 64 parts, of which as many as the source has cells make a mean.
    fine = maps.astype(np.float64).repeat(64, axis=1).reshape(2, 64, 100, 224).mean(axis=2)
    expected = fine.repeat(64, axis=2).reshape(2, 64, 64, 224).mean(axis=3)
    assert (header["grid"], header["source"]) == ([64, 64], [100, 224])
    assert np.abs(values - expected).max() <= 0.501 * np.ptp(expected, axis=(1, 2)).max() / 255
    header, _, _ = decoded(TabCards("T", cards(1)).summaries(maps_of(0, 1, (100, 70, 3)))[-1])
    assert header["grid"] == [100, 64, 3]  # what one slides along is kept


def test_answers_are_kept_with_the_most_probable_classes_first():
    encoder = TabCards("T", cards(2, label=0), top_k=2)
    shares = [[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]
    step = encoder.summaries(
        np.ones((2, 3)), probabilities=shares, explained=[0, 2], heat_in_box=[0.25, np.nan]
    )[-1]
    header, columns, _ = decoded(step)
    assert [columns[f"class_{place}"].tolist() for place in (0, 1)] == [[1, 0], [2, 1]]
    np.testing.assert_allclose(columns["probability_0"], [0.5, 0.6])
    np.testing.assert_allclose(columns["label_probability"], [0.2, 0.6])
    assert columns["explained"].tolist() == [0, 2]
    assert header["scalars"] == pytest.approx(
        {"correct": 0.5, "label_probability": 0.4, "heat_in_box": 0.25}
    )


def test_one_output_is_that_of_the_second_of_two_classes():
    encoder = TabCards("T", cards(2, label=1))
    _, columns, _ = decoded(encoder.summaries(np.ones((2, 3)), probabilities=[[0.9], [0.3]])[-1])
    assert columns["class_0"].tolist() == [1, 0]
    np.testing.assert_allclose(columns["label_probability"], [0.9, 0.3])


def test_photographs_are_written_once():
    files = [tab_logs.png(image) for image in tab_logs.photographs(3)]
    given = [
        Card("a", files[0], (48, 64)),
        Card("b"),
        Card("c", files[1:], (48, 64)),
        Card("d", np.arange(6.0).reshape(3, 2)),
    ]
    encoder = TabCards("T", given, class_names={7: "owl"})
    first, second = (encoder.summaries(np.ones((4, 3))) for _ in range(2))
    assert [summary.tag for summary in first] == ["T/probes", "T/maps"]
    assert [summary.tag for summary in second] == ["T/maps"]
    header = json.loads(first[0].blobs[0])
    assert [card["photographs"] for card in header["cards"]] == [[0, 1], [1, 0], [1, 2], [3, 1]]
    assert [card["size"] for card in header["cards"]] == [[48, 64], None, [48, 64], [3, 2]]
    assert first[0].blobs[1:4] == files
    assert np.frombuffer(first[0].blobs[4], "<f4").tolist() == [0, 1, 2, 3, 4, 5]
    assert header["class_names"] == {"7": "owl"}
    assert sum(len(blob) for blob in second[0].blobs) < 500


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TabCards("T", []), "a name of their own"),
        (lambda: TabCards("T", [Card("a"), Card("a")]), "a name of their own"),
        (lambda: TabCards("T", cards(1), depth="time"), "'slice' or 'channel'"),
        (lambda: TabCards("T", [Card("a", b"\x89PNG")]), "Expected the size"),
        (lambda: TabCards("T", [Card("a", np.ones((2, 2, 2)))]), "bytes of a file"),
        (lambda: TabCards("T", [Card("a", label=-1)]), "class index from 0"),
        (lambda: TabCards("T", cards(2)).summaries(np.ones((3, 4))), "for 2 cards"),
        (lambda: TabCards("T", cards(2)).summaries(np.ones(2)), "one to three axes"),
        (lambda: TabCards("T", cards(1)).summaries([[np.nan]]), "not finite"),
        (lambda: TabCards("T", cards(1)).summaries([[1]], probabilities=[1]), "probabilities of"),
        (lambda: TabCards("T", cards(1)).summaries([[1]], explained=[1, 2]), "explained of shape"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.slow
def test_records_are_written_without_the_package_tensorboard(tmp_path):
    code = f"""
import sys
sys.modules["tensorboard"] = None
import numpy as np, tensorflow as tf
from kvis2.callbacks.tab import Card, TabCards, write_summaries
with tf.summary.create_file_writer({str(tmp_path)!r}).as_default():
    print(write_summaries(0, TabCards("T", [Card("a")]).summaries(np.ones((1, 7, 7)))))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size >= int(result.stdout)
