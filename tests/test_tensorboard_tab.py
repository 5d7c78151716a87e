"""The data of the Explanations tab: how it is encoded, and how TensorBoard serves it."""

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import tab_logs
import tensorflow as tf
from tab_logs import STEPS, get, get_json, maps_of

from kvis2.callbacks.tab import Card, TabCards, write_summaries

pytestmark = pytest.mark.filterwarnings("ignore:html5lib:DeprecationWarning")  # TensorBoard's


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


def test_every_step_is_kept_unless_the_user_says_how_many():
    loader = pytest.importorskip("tensorboard_plugin_kvis2").ExplanationsLoader()
    for given, expected in [
        ({}, {"kvis2": 0}),
        (None, {"kvis2": 0}),
        ({"images": 50}, {"images": 50, "kvis2": 0}),
        ({"kvis2": 7}, {"kvis2": 7}),
    ]:
        flags = argparse.Namespace(samples_per_plugin=given)
        loader.fix_flags(flags)
        assert flags.samples_per_plugin == expected


def test_importing_the_tab_imports_nothing_heavy(tmp_path):
    code = """
import sys
import tensorboard_plugin_kvis2
print(sorted({"tensorflow", "kvis2", "keras", "numpy", "werkzeug"} & set(sys.modules)))
import tensorboard_plugin_kvis2.plugin
print(sorted({"tensorflow", "kvis2", "keras", "numpy"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, capture_output=True, text=True, env=tab_logs.environment(tmp_path), cwd=tmp_path
    )
    assert result.stdout.split() == ["[]", "[]"], result.stderr


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tab")
    tab_logs.write_run(folder / "logs" / "adam", tags=("GradCAM", "LRP"))
    tab_logs.write_run(folder / "logs" / "sgd")
    tab_logs.write_series_and_volume(folder / "logs" / "other")
    tab_logs.write_pictures_only(folder / "logs" / "old")
    with tf.summary.create_file_writer(str(folder / "logs" / "many")).as_default():
        encoder = TabCards("GradCAM", cards(1))
        for step in range(30):
            write_summaries(step, encoder.summaries(maps_of(step, 1)))
    return folder / "logs"


@pytest.fixture(scope="module")
def client(log_dir):
    """A client of the WSGI application, without a server."""
    testing = pytest.importorskip("werkzeug.test")
    from tensorboard import program
    from tensorboard.backend import application
    from tensorboard.backend.event_processing import data_ingester
    from tensorboard.plugins.core import core_plugin
    from tensorboard.plugins.image import images_plugin

    from tensorboard_plugin_kvis2 import ExplanationsLoader

    loaders = [core_plugin.CorePluginLoader(), images_plugin.ImagesPlugin, ExplanationsLoader]
    board = program.TensorBoard(plugins=loaders)
    board.configure(
        argv=["", f"--logdir={log_dir}", "--path_prefix=/under/this", "--reload_interval=0"]
    )
    ingester = data_ingester.LocalDataIngester(board.flags)
    ingester.start()
    loaders = [loader() if isinstance(loader, type) else loader for loader in board.plugin_loaders]
    app = application.TensorBoardWSGIApp(board.flags, loaders, ingester.data_provider)
    client = testing.Client(app)
    deadline = time.monotonic() + 60
    while len(answer(client, "log").json["series"]) < 6 and time.monotonic() < deadline:
        time.sleep(0.1)
    return client


def answer(client, path, **query):
    return client.get(f"/under/this/data/plugin/kvis2/{path}", query_string=query)


def test_the_log_is_listed_with_every_step(client):
    listed = answer(client, "log").json
    steps = {(each["run"], each["tag"]): [s for s, _ in each["steps"]] for each in listed["series"]}
    assert steps[("many", "GradCAM")] == list(range(30))
    assert steps[("adam", "LRP")] == list(STEPS)
    assert set(steps) == {
        ("adam", "GradCAM"),
        ("adam", "LRP"),
        ("many", "GradCAM"),
        ("other", "Signals"),
        ("other", "Volumes"),
        ("sgd", "GradCAM"),
    }
    assert all(each["readable"] for each in listed["series"])
    assert listed["without"] == ["old"]


def test_cards_are_listed_a_page_at_a_time(client):
    query = {"run": "adam", "tag": "GradCAM"}
    first = answer(client, "probes", **query, count=2).json
    rest = answer(client, "probes", **query, count=2, **{"from": 2}).json
    assert (first["total"], len(first["cards"]), len(rest["cards"])) == (3, 2, 1)
    assert first["class_names"] == {"0": "cat", "1": "dog", "2": "owl"}
    assert "class_names" not in rest
    assert rest["cards"][0]["name"] == "02 owl"
    assert rest["cards"][0]["boxes"] == [[4, 6, 32, 40]]


def test_data_is_served_by_step_and_row(client):
    query = {"run": "adam", "tag": "GradCAM"}
    headers = {each["step"]: each for each in answer(client, "headers", **query).json["headers"]}
    assert headers[5]["layer"] == "late"
    columns = [name for name, _ in headers[5]["columns"]]
    numbers = np.frombuffer(answer(client, "numbers", **query, step=5).data, "<f4").reshape(-1, 3)
    maps = maps_of(5, 3)
    np.testing.assert_array_equal(numbers[columns.index("high")], maps.max(axis=(1, 2)))
    history = np.frombuffer(answer(client, "series", **query, row=1).data, "<f4")
    history = history.reshape(len(STEPS), len(columns))
    np.testing.assert_array_equal(history[1], numbers[:, 1])
    served = answer(client, "maps", **query, rows="0,2", steps="9,5").data
    served = np.frombuffer(served, np.uint8).reshape(2, 2, 3, 4)
    chosen = maps[[0, 2]]
    low, high = (end(axis=(1, 2), keepdims=True) for end in (chosen.min, chosen.max))
    np.testing.assert_array_equal(served[1], np.rint((chosen - low) / (high - low) * 255))
    whole = answer(client, "maps", **query, rows="0-2", steps="5").data
    assert whole[:12] + whole[24:] == served[1].tobytes()


def test_photographs_are_served_as_what_they_are(client):
    response = answer(client, "photograph", run="adam", tag="GradCAM", place=1, written=3)
    assert response.data == tab_logs.png(tab_logs.photographs(2)[1])
    assert response.content_type == "image/png"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "max-age" in response.headers["Cache-Control"]
    signal = answer(client, "photograph", run="other", tag="Signals", place=0)
    assert signal.content_type == "application/octet-stream"
    assert "no-cache" in signal.headers["Cache-Control"]
    np.testing.assert_allclose(np.frombuffer(signal.data, "<f4"), np.sin(np.linspace(0, 9, 50)))


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("probes", {}, 400),
        ("probes", {"run": "no", "tag": "GradCAM"}, 404),
        ("numbers", {"run": "adam", "tag": "GradCAM", "step": 4}, 404),
        ("numbers", {"run": "adam", "tag": "GradCAM", "step": "x"}, 400),
        ("series", {"run": "adam", "tag": "GradCAM", "row": 3}, 404),
        ("maps", {"run": "adam", "tag": "GradCAM", "rows": "3", "steps": "5"}, 404),
        ("maps", {"run": "adam", "tag": "GradCAM", "rows": "0-9999999999", "steps": "5"}, 400),
        ("maps", {"run": "adam", "tag": "GradCAM", "rows": "a", "steps": "5"}, 400),
        ("photograph", {"run": "adam", "tag": "GradCAM", "place": 3}, 404),
        ("photograph", {"run": "adam", "tag": "GradCAM", "place": -1}, 404),
    ],
)
def test_what_is_not_there_is_said_so_in_plain_text(client, path, query, status):
    response = answer(client, path, **query)
    assert response.status_code == status
    assert response.content_type.startswith("text/plain")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert client.post(f"/under/this/data/plugin/kvis2/{path}").status_code == 405


def test_the_page_is_served_with_its_types_and_only_relative_addresses(client):
    static = tab_logs.ROOT / "tensorboard_plugin_kvis2" / "static"
    for path in sorted(static.iterdir()):
        response = answer(client, path.name)
        kind = {".js": "text/javascript", ".css": "text/css"}[path.suffix]
        assert response.content_type.startswith(kind)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]:
            assert word not in response.text, path.name
        assert '"/' not in response.text.replace('"/"', ""), path.name  # "/" is a key
    entry = client.get("/under/this/data/plugin_entry.html?name=kvis2")
    assert 'import("./index.js")' in entry.text


@pytest.mark.slow
@pytest.mark.parametrize("fast", ["true", "false"])
def test_both_ways_of_reading_logs_serve_the_same(fast, log_dir, tmp_path, client):
    if fast == "true":
        pytest.importorskip("tensorboard_data_server")
    with tab_logs.served(log_dir, tmp_path, f"--load_fast={fast}", prefix="/a/b") as address:
        assert get_json(address, "log")["without"] == ["old"]
        listed = {each["tag"]: each for each in get_json(address, "log")["series"]}
        assert len(get_json(address, "log")["series"]) == 6
        assert [step for step, _ in listed["LRP"]["steps"]] == list(STEPS)
        query = {"run": "many", "tag": "GradCAM"}
        assert len(get_json(address, "headers", **query)["headers"]) == 30
        query = {"run": "adam", "tag": "LRP"}
        for path, more in [
            ("numbers", {"step": 5}),
            ("series", {"row": 2}),
            ("maps", {"rows": "0-2", "steps": "0,9"}),
            ("photograph", {"place": 2}),
        ]:
            expected = answer(client, path, **query, **more).data
            assert get(address, path, **query, **more) == expected
            assert expected


@pytest.mark.slow
def test_tensorboard_starts_with_another_keras_backend(log_dir, tmp_path):
    with tab_logs.served(log_dir, tmp_path, KERAS_BACKEND="jax") as address:
        assert len(get_json(address, "log")["series"]) == 6


@pytest.mark.slow
def test_a_number_of_steps_that_the_user_typed_is_kept_to(log_dir, tmp_path):
    flag = "--samples_per_plugin=kvis2=5"
    with tab_logs.served(log_dir, tmp_path, "--load_fast=false", flag) as address:
        query = {"run": "many", "tag": "GradCAM"}
        steps = [each["step"] for each in get_json(address, "headers", **query)["headers"]]
        assert len(steps) == 5
        assert steps[-1] == 29
        assert get_json(address, "probes", **query)["total"] == 1  # lost with no sampling
