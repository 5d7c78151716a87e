"""The Explanations tab within TensorBoard: how it is found, and what it serves."""

import argparse
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
        encoder = TabCards("GradCAM", [Card("00")])
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


@pytest.mark.slow
def test_a_new_step_is_there_as_soon_as_it_is_listed(tmp_path):
    encoder = TabCards("T", [Card("00")])
    writer = tf.summary.create_file_writer(str(tmp_path / "logs" / "run"))
    with writer.as_default():
        write_summaries(0, encoder.summaries(maps_of(0, 1)))
    with tab_logs.served(tmp_path / "logs", tmp_path, "--reload_interval=1") as address:
        query = {"run": "run", "tag": "T"}
        assert len(get(address, "numbers", **query, step=0)) > 0
        with writer.as_default():
            write_summaries(1, encoder.summaries(maps_of(1, 1)))
        deadline = time.monotonic() + 30
        while len(get_json(address, "log")["series"][0]["steps"]) < 2:
            assert time.monotonic() < deadline
            get(address, "numbers", **query, step=0)
        assert len(get(address, "numbers", **query, step=1)) > 0
