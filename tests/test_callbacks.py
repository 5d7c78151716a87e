"""The parts of the callbacks: probes, schedule, writers, and what a logger does with arguments."""

import contextlib
import copy
import io
import os
import random
import resource
import shutil
import subprocess
import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kvis2.callbacks import (
    CamLogger,
    ExplanationLogger,
    FolderWriter,
    Picture,
    PictureLogger,
    SaliencyLogger,
    Schedule,
    TensorBoardWriter,
    take_probes,
)
from kvis2.callbacks.predictions import as_probabilities
from kvis2.callbacks.probe_images import class_indices
from kvis2.callbacks.sentences import one_line
from kvis2.callbacks.tab import Card, TabCards
from kvis2.models import Meaning

# Most tests give more probes than are taken; one of them looks at what is said of it.
pytestmark = pytest.mark.filterwarnings("ignore:The first 16 of 20 probe images")

IMAGES = np.random.default_rng(0).random((20, 6, 5, 3)).astype(np.float32)
LABELS = np.arange(20) % 3


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        np.random.rand()  # noqa: NPY002 - an augmentation that draws from the global generator
        random.random()
        return IMAGES[rows], LABELS[rows]


def generator(batch=4):
    for start in range(0, 20, batch):
        yield IMAGES[start : start + batch], LABELS[start : start + batch]


def dataset():
    return tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))


SOURCES = {
    "pair": lambda: (IMAGES, LABELS),
    "pair of tensors": lambda: (tf.constant(IMAGES), tf.constant(LABELS)),
    "batched dataset": lambda: dataset().batch(3),
    "single images": lambda: dataset(),
    "shuffled dataset": lambda: dataset().shuffle(20).batch(3).prefetch(1),
    "endless dataset": lambda: dataset().repeat().batch(6),
    "cached dataset": lambda: dataset().cache().shuffle(20).batch(3),
    "with weights": lambda: tf.data.Dataset.zip(dataset(), tf.data.Dataset.range(20)).map(
        lambda pair, weight: (*pair, weight)
    ),
    "PyDataset": lambda: Batches(),
    "generator": generator,
}


@pytest.mark.parametrize("source", SOURCES)
def test_probes_are_the_first_images_and_labels_of_every_source(source):
    probes = take_probes(SOURCES[source](), max_images=7)
    np.testing.assert_array_equal(probes.images, IMAGES[:7])
    np.testing.assert_array_equal(probes.labels, LABELS[:7])


@pytest.mark.parametrize("kind", [np.asarray, list, tf.constant, lambda images: (images,)])
def test_images_alone_take_labels_from_the_argument(kind):
    probes = take_probes(kind(IMAGES), LABELS, max_images=4)
    np.testing.assert_array_equal(probes.images, IMAGES[:4])
    np.testing.assert_array_equal(probes.labels, LABELS[:4])


def test_probes_are_a_copy():
    images = IMAGES.copy()
    probes = take_probes(images)
    images[:] = 0
    np.testing.assert_array_equal(probes.images, IMAGES[:16])


def test_taking_probes_leaves_the_global_random_generators_alone():
    def draws():
        return random.random(), np.random.rand(), float(tf.random.uniform([]))  # noqa: NPY002

    data = dataset().shuffle(20).map(lambda x, y: (x + tf.random.uniform([]), y))
    keras.utils.set_random_seed(3)
    expected = draws()
    keras.utils.set_random_seed(3)
    take_probes(Batches())
    take_probes(data)
    assert draws() == expected


def brightened():
    brighten = keras.layers.RandomBrightness(0.5, seed=2)
    return lambda x, y: (brighten(x, training=True), y)


PIPELINES = {
    "shuffle": lambda data: data.shuffle(20),
    "shuffle with seed": lambda data: data.shuffle(20, seed=5),
    "shuffle then cache": lambda data: data.shuffle(20).cache(),
    "shuffle inside interleave": lambda data: data.interleave(
        lambda x, y: tf.data.Dataset.from_tensors((x, y)).repeat(2).shuffle(2)
    ).shuffle(9),
    "random map": lambda data: data.map(lambda x, y: (x + tf.random.uniform([]), y)),
    "augmentation layer": lambda data: data.map(brightened()).shuffle(20),
}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_reading_probes_does_not_change_what_the_dataset_yields(pipeline):
    def two_epochs(read_before):
        keras.utils.set_random_seed(7)
        data = PIPELINES[pipeline](dataset()).batch(4)
        if read_before:
            take_probes(data)
        return [x.numpy() for _ in range(2) for x, _ in data]

    for read, untouched in zip(two_epochs(True), two_epochs(False), strict=True):
        np.testing.assert_array_equal(read, untouched)


def test_reading_probes_does_not_fill_the_cache_file(tmp_path):
    data = dataset().shuffle(20).cache(str(tmp_path / "cache")).batch(4)
    take_probes(data, max_images=2)
    assert not list(tmp_path.iterdir())
    assert len(list(data)) == 5


def test_a_dataset_that_calls_python_is_refused_with_the_way_out():
    data = tf.data.Dataset.from_generator(
        generator, output_signature=(tf.TensorSpec((None, 6, 5, 3)), tf.TensorSpec((None,)))
    )
    with pytest.raises(ValueError, match=r"Python code.*images=next\(iter\(dataset\)\)"):
        take_probes(data)
    assert len(take_probes(next(iter(data))).images) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": "photos"}, "Expected images as an array.*Received: str"),
        ({"images": 3}, "Expected images as an array.*Received: int"),
        ({"images": {"a": IMAGES, "b": IMAGES[:3]}}, r"same number of probes.*\[16, 3\]"),
        ({"images": None}, "Expected images as an array.*Received: NoneType"),
        ({"images": IMAGES[0, 0]}, r"Expected probe images as numbers.*\(5, 3\)"),
        ({"images": IMAGES[:0]}, "Expected at least one probe image"),
        ({"images": iter([])}, "generator that has not been used up"),
        ({"images": np.full((1, 4, 4, 1), np.nan)}, "without NaN.*Received: 16"),
        ({"images": IMAGES, "labels": LABELS[:3]}, "each of the 20 images.*shape \\(3,\\)"),
        ({"images": (IMAGES, LABELS[:3])}, "each of the 20 images.*shape \\(3,\\)"),
        ({"images": (IMAGES, LABELS), "labels": LABELS}, "Expected the labels once"),
        ({"images": (IMAGES, {"a": LABELS})}, "labels of several outputs"),
        ({"images": (IMAGES,) * 4}, "a tuple of 4"),
        ({"images": iter([(IMAGES[:2], LABELS[:2]), IMAGES[:2]])}, "2 labels for 4 images"),
        ({"images": IMAGES, "max_images": 0}, "max_images to be a whole number.*Received: 0"),
    ],
)
def test_bad_probes_get_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        take_probes(**arguments)


def due_steps(schedule, steps):
    return [step for step in steps if schedule.due(step)]


@pytest.mark.parametrize(
    ("every", "first", "last", "expected"),
    [
        ("auto", 0, 4, [0, 1, 2, 3, 4]),
        ("auto", 0, 9, list(range(10))),
        ("auto", 0, 99, [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]),
        ("auto", 90, 99, list(range(90, 100))),
        ("auto", 3, 3, [3]),
        (1, 0, 3, [0, 1, 2, 3]),
        (3, 0, 7, [0, 3, 6]),
        (3, 4, 12, [6, 9, 12]),
        (50, 0, 7, [0]),
    ],
)
def test_schedule_over_all_steps(every, first, last, expected):
    schedule = Schedule(every, first, last)
    assert schedule.total() == len(expected)
    assert due_steps(schedule, range(first, last + 1)) == expected


@pytest.mark.parametrize("last", [10, 11, 23, 57, 400])
def test_auto_is_ten_steps_evenly_spread_with_both_ends(last):
    steps = due_steps(Schedule("auto", 0, last), range(last + 1))
    assert len(steps) == 10
    assert (steps[0], steps[-1]) == (0, last)
    assert max(np.diff(steps)) - min(np.diff(steps)) <= 1


def test_skipped_steps_do_not_skip_a_due_one():
    # steps_per_execution=4 shows the ends of the blocks only: 3, 7, 11, 15, 19.
    assert due_steps(Schedule(5, 0, 19), range(3, 20, 4)) == [3, 7, 11, 15]
    assert due_steps(Schedule("auto", 0, 399), range(3, 400, 4))[-1] == 399
    assert len(due_steps(Schedule("auto", 0, 399), range(3, 400, 4))) == 10


@pytest.mark.parametrize("every", [0, -1, 1.5, "often", None, True])
def test_every_is_checked_when_the_logger_is_made(every, tmp_path):
    with pytest.raises(ValueError, match=r"Expected every to be 'auto' or a whole number"):
        CamLogger(tmp_path, IMAGES, every=every)


def test_auto_needs_to_know_the_end():
    with pytest.raises(ValueError, match="steps_per_epoch"):
        Schedule("auto", 0, None)


def events(directory):
    for file in sorted(directory.glob("*tfevents*")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            yield from (
                (event.step, value)
                for event in [tf.compat.v1.Event.FromString(record)]
                for value in event.summary.value
            )


def test_tensorboard_writer_stores_tag_step_size_pixels_and_scalars(tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (11, 17, 3), dtype=np.uint8)
    writer = TensorBoardWriter(tmp_path, "kvis2")
    writer.write(3, [Picture("GradCAM/00 cat", image)], {"GradCAM/energy_in_box": 0.625})
    # Nothing is closed yet: what was written must be on disk when write returns.
    (step, picture), (scalar_step, scalar) = events(tmp_path / "kvis2")
    assert (step, picture.tag, picture.metadata.plugin_data.plugin_name) == (
        3,
        "GradCAM/00 cat",
        "images",
    )
    width, height, encoded = tf.make_ndarray(picture.tensor)
    assert (width, height) == (b"17", b"11")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), image)
    assert (scalar_step, scalar.tag) == (3, "GradCAM/energy_in_box")
    assert scalar.metadata.plugin_data.plugin_name == "scalars"
    assert float(tf.make_ndarray(scalar.tensor)) == 0.625
    writer.close()


def test_a_run_with_event_files_is_left_alone(tmp_path):
    names = []
    for _ in range(3):
        writer = TensorBoardWriter(tmp_path / "odd [name]*", "kvis2")
        names.append(writer.directory.rpartition("/")[2])
        writer.close()
    assert names == ["kvis2", "kvis2_2", "kvis2_3"]


def test_a_lost_write_is_reported(tmp_path):
    writer = TensorBoardWriter(tmp_path, "kvis2")
    image = np.zeros((8, 8, 3), np.uint8)
    writer.write(0, [Picture("a", image)], {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = os.path.getsize(writer.event_file)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))  # The disk is full, as it were.
    try:
        with pytest.raises(OSError, match=r"take step 1\. Received: .*File too large.*Make room"):
            writer.write(1, [Picture("a", image)], {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert writer._size() <= size + 20


def test_a_full_disk_is_reported_although_tensorflow_is_silent(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    rng = np.random.default_rng(0)
    try:
        writer = TensorBoardWriter(disk, "kvis2")
        noise = Picture("noise", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))  # 12 kB
        for step in range(5):
            writer.write(step, [noise], {})
        with pytest.raises(OSError, match=r"take step 5\. Received: it grew by \d+ of \d+ bytes"):
            writer.write(5, [noise], {})
        with contextlib.suppress(tf.errors.OpError):
            writer.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_picture_that_never_reached_the_file_is_reported(tmp_path, monkeypatch):
    writer = TensorBoardWriter(tmp_path, "kvis2")
    monkeypatch.setattr(tf.summary, "write", lambda *arguments: None)
    with pytest.raises(OSError, match=r"take step 7\. Received: it grew by 0 of \d+ bytes"):
        writer.write(7, [Picture("a", np.zeros((8, 8, 3), np.uint8))], {})


def test_folder_writer_makes_pngs_a_gif_and_a_strip(tmp_path):
    writer = FolderWriter(tmp_path / "new")
    rng = np.random.default_rng(2)
    steps = range(0, 36, 3)
    panels = [rng.integers(0, 256, (30, 40, 3), dtype=np.uint8) for _ in steps]
    for step, image in zip(steps, panels, strict=True):
        thumbnail = np.full((120, 100, 3), step, np.uint8)
        writer.write(step, [Picture("CAM/00 a/b: c", image, thumbnail)], {"ignored": 1.0})
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "new/CAM_00 a/b_ c/epoch 033.png")), panels[-1]
    )
    writer.close()
    with Image.open(tmp_path / "new/CAM_00 a/b_ c.gif") as gif:
        assert gif.n_frames == 12
        assert gif.size[0] == 40
    evolution = np.asarray(Image.open(tmp_path / "new/CAM_00 a/b_ c strip.png"))
    shown = [int(v) for v in dict.fromkeys(evolution[60, :, 0].tolist()) if v != 255]
    assert shown == [0, 3, 6, 12, 15, 18, 21, 27, 30, 33]  # ten of twelve, both ends included


def written(folder, steps, tags=("CAM/00 a",), shape=(30, 40, 3), writer=None):
    writer = writer or FolderWriter(folder)
    for step in steps:
        thumbnail = np.full((120, 100, 3), step, np.uint8)
        panels = [Picture(tag, np.full(shape, 4 * step, np.uint8), thumbnail) for tag in tags]
        writer.write(step, panels, {})
    return writer


def test_no_picture_stays_in_memory(tmp_path):
    tracemalloc.start()
    writer = written(tmp_path, range(3))
    before, _ = tracemalloc.get_traced_memory()
    written(tmp_path, range(3, 60), writer=writer)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 120 * 100 * 3  # one thumbnail
    writer.close()
    with Image.open(tmp_path / "CAM/00 a.gif") as gif:
        assert gif.n_frames == 60


def strip_steps(path):
    row = np.asarray(Image.open(path))[60, :, 0].tolist()
    return [value for value in dict.fromkeys(row) if value != 255]


def test_a_resumed_training_goes_on_in_gif_and_strip(tmp_path):
    written(tmp_path, range(8)).close()
    written(tmp_path, range(5, 9)).close()  # resumed from the end of step 4
    with Image.open(tmp_path / "CAM/00 a.gif") as gif:
        assert gif.n_frames == 9
    assert strip_steps(tmp_path / "CAM/00 a strip.png") == list(range(9))
    written(tmp_path, range(3)).close()  # from the start again: steps 3 to 8 were another training
    assert strip_steps(tmp_path / "CAM/00 a strip.png") == [0, 1, 2]


def test_panels_of_changing_height_are_animated(tmp_path):
    written(tmp_path, range(2), shape=(30, 40, 3)).close()
    written(tmp_path, range(2, 4), shape=(50, 36, 3)).close()
    with Image.open(tmp_path / "CAM/00 a.gif") as gif:
        assert (gif.n_frames, gif.size) == (4, (40, 50 + 18))
        first = np.asarray(gif.convert("RGB"))
    assert (first[:30] == 0).all()
    assert (first[30:50] >= 250).all()


def test_files_stay_below_the_folder_and_apart_whatever_the_tags(tmp_path):
    long = "é" * 300
    tags = ["../up", "/etc/x", "CAM/a:b", "CAM/a?b", "CAM/A:B", "CAM/x", "CAM/x.gif", "CAM/x strip"]
    tags += [f"CAM/{long}1", f"CAM/{long}2", "CAM/\ud800", "CAM/nul", "CAM/..", "x\0"]
    written(tmp_path / "box" / "out", range(2), tags).close()
    assert [path.name for path in (tmp_path / "box").iterdir()] == ["out"]
    gifs = list((tmp_path / "box").rglob("*.gif"))
    folders = {path for path in gifs if path.is_dir()}
    assert len(gifs) - len(folders) == len(tags)
    assert len(list((tmp_path / "box").rglob("* strip.png"))) == len(tags)
    assert len(list((tmp_path / "box").rglob("epoch 001.png"))) == len(tags)
    assert {path.name for path in (tmp_path / "box/out/CAM").glob("a_*.gif")} == {
        "a_b.gif",
        "a_b_2.gif",
    }


def test_tensorboard_takes_any_tag_and_keeps_them_apart(tmp_path):
    writer = TensorBoardWriter(tmp_path, "kvis2")
    tags = ["CAM/00 \ud800", "CAM/00 \ud801", "CAM/00 " + "é" * 300]
    writer.write(0, [Picture(tag, np.zeros((4, 4, 3), np.uint8)) for tag in tags], {tags[0]: 1.0})
    found = [value.tag for _, value in events(tmp_path / "kvis2")]
    assert found == ["CAM/00 \\ud800", "CAM/00 \\ud801", tags[2], "CAM/00 \\ud800"]


def test_records_for_the_tab_are_written_with_their_step_and_counted(tmp_path, monkeypatch):
    cards = TabCards("CAM", [Card("00 a")])
    summaries = cards.summaries(np.arange(6.0).reshape(1, 2, 3))
    writer = TensorBoardWriter(tmp_path, "kvis2")
    writer.write(4, [], {}, summaries)
    found = list(events(tmp_path / "kvis2"))
    assert [(step, value.tag) for step, value in found] == [(4, each.tag) for each in summaries]
    for (_, value), each in zip(found, summaries, strict=True):
        assert tf.make_ndarray(value.tensor).tolist() == each.blobs
    FolderWriter(tmp_path / "folder").write(4, [], {}, summaries)
    assert not list((tmp_path / "folder").iterdir())
    payload = sum(len(blob) for each in summaries for blob in each.blobs)
    monkeypatch.setattr(tf.summary, "write", lambda *arguments: None)
    with pytest.raises(OSError, match=f"it grew by 0 of {payload} bytes"):
        writer.write(5, [], {}, summaries)


@pytest.mark.parametrize(
    "run",
    ["../x", "a/../../x", "/tmp/x", "C:/x", r"..\x", "a//b", "a\0", "\ud800", "é" * 200, "nul"],
)
def test_a_run_stays_below_the_log_dir(tmp_path, run):
    for make in (TensorBoardWriter, lambda path, run: PictureLogger(path, run=run)):
        with pytest.raises(ValueError, match="Expected run to name a directory below log_dir"):
            make(tmp_path / "logs", run)
    assert not list(tmp_path.iterdir())
    PictureLogger(tmp_path, run="model a/fold 2, 12:30")


def test_a_picture_without_pixels_is_refused(tmp_path):
    empty = [Picture("CAM/00", np.zeros((0, 8, 3), np.uint8))]
    for writer in (TensorBoardWriter(tmp_path, "kvis2"), FolderWriter(tmp_path)):
        with pytest.raises(ValueError, match=r"with pixels\. Received: shape \(0, 8, 3\)"):
            writer.write(0, empty, {})


IN_USER_CODE = """in user code:

    File "model.py", line 3, in call  *
        return self.heads[3](x)

    IndexError: list index out of range
"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("short", "short"),
        ("one\n  two", "one two"),
        ("lost\nTraceback (most recent call last):\n  File 'x'\nKeyError: 3", "lost"),
        (IN_USER_CODE, "IndexError: list index out of range"),
        ("\x1b[1mbad {{node a/b}} shape\x1b[0m\n\nArguments received by F:\n x", "bad shape"),
        ("word " * 400, ("word " * 120)[:-1] + "…"),
    ],
)
def test_an_error_is_told_in_one_line(message, line):
    assert one_line(message) == line


@pytest.mark.parametrize("option", ["log_dir", "save_dir"])
def test_directories_below_a_file_are_named(tmp_path, option):
    (tmp_path / "file").write_text("")
    make = {"log_dir": lambda path: TensorBoardWriter(path, "run"), "save_dir": FolderWriter}
    with pytest.raises(OSError, match=rf"Expected a {option} that can be written to.*is not|ot a"):
        make[option](tmp_path / "file" / "logs")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([2, 0, 1], [2, 0, 1]),
        ([[2], [0]], [2, 0]),
        ([2.0, 0.0], [2, 0]),
        ([True, False], [1, 0]),
        ([[0, 1, 0], [1, 0, 0]], [1, 0]),
        ([[0.05, 0.9, 0.05]], [1]),
        ([0.3, 1.7], None),
        ([-1, 2], None),
        ([[1, 1, 0]], None),
        (["cat"], None),
    ],
)
def test_class_indices(labels, expected):
    found = class_indices(np.array(labels))
    assert (None if found is None else found.tolist()) == expected


def test_probabilities_of_every_kind_of_classifier():
    logits = np.array([[1.0, -2.0, 0.5]], np.float32)
    softmax = tf.nn.softmax(logits).numpy()
    unknown = Meaning("classes", None, "the number of its units")
    np.testing.assert_allclose(as_probabilities(logits, unknown), softmax, rtol=1e-6)
    np.testing.assert_array_equal(as_probabilities(softmax, unknown), softmax)
    small = np.array([[0.1, 0.9]], np.float32)  # logits that look like probabilities
    told = Meaning("classes", True, "the loss")
    np.testing.assert_allclose(as_probabilities(small, told), tf.nn.softmax(small), rtol=1e-6)
    labels = Meaning("labels", True, "the loss")
    np.testing.assert_allclose(as_probabilities(logits, labels), tf.sigmoid(logits), rtol=1e-6)
    assert as_probabilities(np.array([[0.5]]), Meaning("numbers", None, "the loss")) is None
    assert as_probabilities(np.zeros((1, 4, 4, 3)), unknown) is None


def test_more_probes_than_are_taken_are_told():
    with pytest.warns(UserWarning, match="The first 16 of 20 .* `max_images=20` to log them all"):
        assert len(take_probes(IMAGES).images) == 16
    assert len(take_probes(IMAGES, max_images=20).images) == 20


TABLE = np.random.default_rng(1).random((20, 5)).astype(np.float32)
SEVERAL = {
    "dict": lambda: take_probes({"scan": IMAGES, "record": TABLE}, LABELS, max_images=7),
    "list": lambda: take_probes([IMAGES, TABLE], LABELS, max_images=7),
    "pair of a dict": lambda: take_probes(
        ({"scan": IMAGES, "record": TABLE}, LABELS), max_images=7
    ),
    "dataset of dicts": lambda: take_probes(
        tf.data.Dataset.from_tensor_slices(({"scan": IMAGES, "record": TABLE}, LABELS)).batch(3),
        max_images=7,
    ),
    "dataset of tuples": lambda: take_probes(
        tf.data.Dataset.from_tensor_slices(((IMAGES, TABLE), LABELS)), max_images=7
    ),
}


@pytest.mark.parametrize("source", SEVERAL)
def test_probes_of_several_inputs_keep_their_structure(source):
    images, labels = SEVERAL[source]()
    scan, record = (images["scan"], images["record"]) if isinstance(images, dict) else images
    np.testing.assert_array_equal(scan, IMAGES[:7])
    np.testing.assert_array_equal(record, TABLE[:7])
    np.testing.assert_array_equal(labels, LABELS[:7])


@pytest.mark.parametrize("shape", [(28, 28), (100, 3), (12, 12, 3), (6, 5, 4, 1)])
@pytest.mark.parametrize("batch", [None, 4])
def test_a_batch_is_told_from_one_sample(shape, batch):
    data = np.random.default_rng(0).random((20, *shape)).astype(np.float32)
    dataset = tf.data.Dataset.from_tensor_slices((data, LABELS))
    found = take_probes(dataset if batch is None else dataset.batch(batch), max_images=6)
    np.testing.assert_array_equal(found.images, data[:6])
    np.testing.assert_array_equal(found.labels, LABELS[:6])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unit": "step"}, "Expected unit to be one of 'epoch', 'batch'"),
        ({"on_error": "ignore"}, "Expected on_error to be one of 'warn', 'raise'"),
        ({"score": "true"}, "Expected score to be one of 'label', 'predicted', 'both'"),
        ({"score": "both"}, "Expected labels for score='both'"),
        ({"choose": "best"}, "Expected choose to be 'first', 'per_class', 'worst' or a function"),
        ({"choose": "worst"}, "Expected labels for choose='worst'"),
        ({"choose": lambda images, labels: [99]}, "indices from 0 to 19"),
        ({"choose": lambda images, labels: None}, "to return indices of images"),
        ({"names": ["a"]}, "a name for each of the 16 probe images. Received: 1"),
        ({"metrics": ["speed"]}, "Expected metrics to be 'auto' or some of .*Received: 'speed'"),
        ({"metrics": ["energy_in_box"]}, "Expected boxes= for energy_in_box"),
        ({"alpha": 2}, "Expected alpha within 0..1"),
        ({"colormap": "jett"}, "Expected the name of a matplotlib colormap"),
        ({"top_k": -1}, "Expected top_k to be a number of classes"),
        ({"width": 50}, "Expected a width of at least 120"),
        ({"score": [1, 2]}, "a score for each of the 16 probe images. Received: 2"),
        ({"run": ""}, "Expected run to name a directory"),
        ({"run": "train"}, "Expected run to name a directory of the logger's own"),
        ({"labels": LABELS / 7}, "labels that name one class"),
        ({"labels": LABELS, "class_names": ["a"]}, "class_names to name class 1"),
        ({"boxes": [[0, 0, 9, 3]] * 16}, "inside its image of width 5 and height 6"),
        ({"boxes": [[0, 0, 2, 3]]}, "each of the 16 images. Received: boxes for 1"),
        ({"explainer": lambda model: None, "layer": "conv"}, "an explainer that takes layer="),
    ],
)
def test_bad_arguments_get_a_sentence_at_once(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        CamLogger(tmp_path, IMAGES, **arguments)


def test_labels_that_are_no_classes_are_left_out_where_they_are_not_explained(tmp_path):
    distances = (LABELS / 7).astype(np.float32)
    logger = CamLogger(tmp_path, (IMAGES, distances), score=lambda output: output[:, 0])
    assert logger.labels is None


def test_the_default_explainers_and_runs_of_the_loggers_differ(tmp_path):
    cam, saliency = CamLogger(tmp_path, IMAGES), SaliencyLogger(tmp_path, IMAGES)
    assert isinstance(cam, ExplanationLogger)
    assert cam.log.run != saliency.log.run


def test_the_base_says_that_it_observes_nothing(tmp_path):
    with pytest.raises(NotImplementedError, match="does not say what it observes"):
        PictureLogger(tmp_path).observe(0)


def test_a_fresh_logger_can_be_copied(tmp_path):
    logger = CamLogger(tmp_path, IMAGES, LABELS)
    np.testing.assert_array_equal(copy.deepcopy(logger).images, logger.images)
