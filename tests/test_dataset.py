"""Explaining a data set: what is kept is what the explainer says, and failures are rows."""

import csv
import json
import math
import os
import re
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kvis2
from kvis2 import images
from kvis2.__main__ import main
from kvis2.dataset import explain_dataset, read, rows_of
from kvis2.gallery import InputSpace
from kvis2.images import Framing

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"  # Keras, when a model is saved
)
UNIT = InputSpace((0.0,) * 3, (1.0,) * 3)


@pytest.fixture
def pictures():
    """Twelve pictures, uint8 of several sizes, none of them that of the model."""
    random = np.random.default_rng(5)
    return [random.integers(0, 256, (20 + n, 14 + 2 * n, 3), np.uint8) for n in range(12)]


@pytest.fixture
def photos(pictures, tmp_path):
    """A folder of these, in class folders of three."""
    for number, picture in enumerate(pictures):
        path = tmp_path / "photos" / f"class{number % 4}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    return tmp_path / "photos"


def expected_input(picture, size=(16, 12)):
    """What the model takes of a picture, by Pillow alone."""
    resized = Image.fromarray(picture).resize(size[::-1], Image.Resampling.LANCZOS)
    return np.asarray(resized, np.float32) / np.float32(255)


def order_of(table):
    """Which of the fixture's pictures each row is."""
    return [int(name.rpartition("/")[2][:2]) for name in table["id"]]


def explained(model, source, tmp_path, explainer=None, **options):
    out = tmp_path / "explained"
    options = {"space": UNIT, "batch_size": 4, "chunk_size": 4, **options}
    return explain_dataset(model, source, explainer, out=out, **options), read(out)


def errors_of(folder):
    with open(folder / "errors.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("parquet", [True, False])
def test_maps_predictions_and_measures_are_those_of_the_explainer(
    small_model, photos, pictures, tmp_path, parquet
):
    explainer = kvis2.GradCAM(small_model)
    summary, table = explained(small_model, photos, tmp_path, explainer, parquet=parquet)
    assert (summary.explained, summary.failed, summary.done) == (12, 0, 12)
    assert sorted(order_of(table)) == list(range(12))
    inputs = np.stack([expected_input(pictures[n]) for n in order_of(table)])
    outputs = small_model.predict(inputs, verbose=0)
    np.testing.assert_array_equal(table["prediction"], outputs.argmax(axis=1))
    np.testing.assert_allclose(table["probability"], outputs.max(axis=1), atol=1e-5)
    maps, raw = explainer(inputs), explainer.with_settings(resize=False, normalize=False)(inputs)
    for index in range(12):
        kept = table.map(index, "grid", normalize=False)
        # Half a step of 255, as the bytes are rounded.
        np.testing.assert_allclose(kept, raw[index], atol=0.502 * raw[index].max() / 255)
        np.testing.assert_allclose(table.map(index), maps[index], atol=0.006)
        shares = raw[index].ravel().astype(float) / raw[index].sum()
        entropy = -sum(p * math.log(p) for p in shares if p > 0)
        assert table["complexity"][index] == pytest.approx(entropy, abs=1e-4)
        assert table["height"][index] == pictures[order_of(table)[index]].shape[0]
    assert table["label_name"].tolist() == [name.partition("/")[0] for name in table["id"]]
    assert table["label"].tolist() == [int(name[5]) for name in table["id"]]
    assert errors_of(tmp_path / "explained") == []


def test_the_score_is_the_label_or_a_class(small_model, photos, pictures, tmp_path):
    explainer = kvis2.GradCAM(small_model, normalize=False)
    _, by_label = explained(small_model, photos, tmp_path / "a", explainer, score="label")
    _, by_class = explained(small_model, photos, tmp_path / "b", explainer, score=2)
    inputs = np.stack([expected_input(pictures[n]) for n in order_of(by_label)])
    labels = [n % 4 for n in order_of(by_label)]
    assert by_label["target"].tolist() == labels
    assert by_class["target"].tolist() == [2] * 12
    for table, score in ((by_label, labels), (by_class, 2)):
        for index, expected in enumerate(explainer(score, inputs)):
            np.testing.assert_allclose(table.map(index), expected, atol=0.003 * expected.max())


def test_signed_maps_of_the_input_are_kept_as_area_means(small_model, photos, pictures, tmp_path):
    explainer = kvis2.Saliency(small_model, reduce="signed", normalize=False)
    _, table = explained(small_model, photos, tmp_path, explainer, map_size=8)
    inputs = np.stack([expected_input(pictures[n]) for n in order_of(table)])
    maps = explainer(inputs)
    for index in range(12):
        expected = np.zeros((8, 8))
        for i, j in np.ndindex(8, 8):  # 16 x 12 to 8 x 8: 2 rows, 1.5 columns
            for y in range(16):
                for x in range(12):
                    tall = max(0, min(y + 1, 2 * (i + 1)) - max(y, 2 * i))
                    wide = max(0, min(x + 1, 1.5 * (j + 1)) - max(x, 1.5 * j))
                    expected[i, j] += tall * wide * maps[index, y, x] / 3
        kept = table.kept_map(index)
        assert kept.signed
        step = np.abs(expected).max() / 127
        np.testing.assert_allclose(kept.heatmap, expected, atol=0.51 * step)


@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_a_framed_map_goes_back_to_the_photograph(small_model, photos, pictures, tmp_path, mode):
    explainer, framing = kvis2.GradCAM(small_model), Framing(mode)
    _, table = explained(small_model, photos, tmp_path, explainer, framing=framing)
    for index in (0, 7):
        picture = pictures[order_of(table)[index]]
        given = np.rint(framing.input_of(picture, (16, 12))) / np.float32(255)
        expected = framing.of_photograph(explainer(given[None])[0], picture.shape[:2])
        found = table.map(index, "photograph")
        assert found.shape == picture.shape[:2]
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        np.testing.assert_allclose(found, expected, atol=0.006)


@pytest.mark.parametrize("mode", ["stretch", "pad", "crop"])
def test_heat_in_the_box_is_counted_in_what_the_model_saw(small_model, pictures, tmp_path, mode):
    picture = pictures[9]  # 29 x 32
    Image.fromarray(picture).save(tmp_path / "one.png")
    (tmp_path / "boxes.json").write_text('{"one.png": [[4, 5, 20, 22]]}')
    explainer, framing = kvis2.GradCAM(small_model), Framing(mode)
    _, table = explained(
        small_model, [tmp_path / "one.png"], tmp_path, explainer, framing=framing,
        boxes=tmp_path / "boxes.json", measures=["energy_in_box"],
    )  # fmt: skip
    if mode == "stretch":
        scale, shift, given = (12 / 32, 16 / 29), (0, 0), expected_input(picture)
    else:
        given = np.rint(framing.input_of(picture, (16, 12))) / np.float32(255)
        tall = round(12 * 29 / 32)  # letterboxed: 11 rows of 16, from row 2
        scale, shift = (12 / 32, tall / 29), (0, (16 - tall) // 2)
        if mode == "crop":
            wide = round(29 * 12 / 16)  # 22 columns of 32, from column 5
            scale, shift = (12 / wide, 16 / 29), (-((32 - wide) // 2) * 12 / wide, 0)
    x0, x1 = (min(12, max(0, scale[0] * x + shift[0])) for x in (4, 20))
    y0, y1 = (scale[1] * y + shift[1] for y in (5, 22))
    heat = explainer(given[None])[0].astype(float)
    inside = heat[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)]
    assert table["energy_in_box"][0] == pytest.approx(inside.sum() / heat.sum(), abs=1e-3)


def archive(pictures, path):
    """The pictures as a WebDataset tar with labels."""
    with tarfile.open(path, "w") as tar:
        for number, picture in enumerate(pictures):
            for suffix, write in (
                ("png", lambda p, x=picture: Image.fromarray(x).save(p)),
                ("cls", lambda p, n=number: p.write_text(str(n % 4))),
            ):
                member = path.parent / f"{number:02d}.{suffix}"
                write(member)
                tar.add(member, member.name)
                member.unlink()
    return path


def records(pictures, path):
    """The pictures as a TFRecord with labels."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, picture in enumerate(pictures):
            encoded = tf.io.encode_png(picture).numpy()
            features = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                "image/class/label": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[number % 4])
                ),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    return path


def table_of(photos, path):
    """A CSV or Parquet file of paths and labels."""
    names = sorted(photos.rglob("*.png"), key=lambda each: each.name)
    rows = [(os.path.relpath(each, path.parent), int(each.name[:2]) % 4) for each in names]
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *rows])
    else:
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet

        columns = {"path": [row[0] for row in rows], "label": [row[1] for row in rows]}
        pyarrow.parquet.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["tar", "tfrecord", "csv", "parquet", "glob"])
def test_every_source_gives_the_same_maps(small_model, photos, pictures, tmp_path, kind):
    source = {
        "tar": lambda: archive(pictures, tmp_path / "all.tar"),
        "tfrecord": lambda: records(pictures, tmp_path / "all.tfrecord"),
        "csv": lambda: table_of(photos, tmp_path / "all.csv"),
        "parquet": lambda: table_of(photos, tmp_path / "all.parquet"),
        "glob": lambda: str(photos / "**" / "*.png"),
    }[kind]()
    explainer = kvis2.GradCAM(small_model, normalize=False)
    _, table = explained(small_model, source, tmp_path, explainer)
    order = order_of(table) if kind == "glob" else range(12)
    inputs = np.stack([expected_input(pictures[n]) for n in order])
    for index, expected in enumerate(explainer(inputs)):
        np.testing.assert_allclose(table.map(index), expected, atol=0.003 * expected.max())
    if kind != "glob":
        assert table["label_name"].tolist() == [str(n % 4) for n in range(12)]
        assert table["label"].tolist() == [n % 4 for n in range(12)]


def test_what_cannot_be_read_or_diverges_is_a_row_with_its_reason(
    small_model, photos, pictures, tmp_path
):
    (photos / "class1" / "01.png").write_bytes(b"no picture")
    (photos / "class2" / "02.png").write_bytes(b"")
    (photos / "class3" / "03.png").unlink()
    (photos / "class3" / "03.png").symlink_to("nowhere.png")
    inputs = small_model.input
    # Outputs are NaN where the first pixel of a picture is black.
    first = keras.ops.sum(inputs[:, 0, 0, :], axis=-1, keepdims=True)
    poison = 0 * keras.ops.log(keras.ops.minimum(first * 1e6 - 1, 1.0))
    model = keras.Model(inputs, small_model(inputs) + poison)
    black = pictures[4].copy()
    black[:6, :6] = 0
    Image.fromarray(black).save(photos / "class0" / "04.png")
    explainer = kvis2.GradCAM(model, "small/late", model_modifier=None)
    summary, table = explained(model, photos, tmp_path, explainer)
    assert (summary.pictures, summary.explained, summary.failed) == (12, 8, 4)
    failed = {name: error for name, error in zip(table["id"], table["error"], strict=True) if error}
    assert list(failed) == ["class0/04.png", "class1/01.png", "class2/02.png", "class3/03.png"]
    assert "NaN or infinity" in failed["class0/04.png"]
    assert "no picture that Pillow knows" in failed["class1/01.png"]
    assert "empty" in failed["class2/02.png"]
    assert "not there" in failed["class3/03.png"]
    assert [row["id"] for row in errors_of(tmp_path / "explained")] == list(failed)
    for index, error in enumerate(table["error"]):
        assert (table.map(index) is None) == bool(error)
        if not error:
            given = expected_input(pictures[order_of(table)[index]])
            np.testing.assert_allclose(table.map(index), explainer(given[None])[0], atol=0.006)


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_shards_and_a_run_that_goes_on_make_the_same_bytes(small_model, photos, tmp_path):
    explained(small_model, photos, tmp_path / "whole", overlays=5)
    whole = files_of(tmp_path / "whole" / "explained")
    assert len([name for name in whole if name.startswith("chunks/")]) == 3
    assert len([name for name in whole if name.startswith("overlays/")]) == 5
    assert len([name for name in whole if name.startswith("thumbnails/")]) == 12
    for shard in ((1, 2), (0, 2)):
        summary, _ = explained(
            small_model, photos, tmp_path / "parts", overlays=5, shard=shard, resume=True
        )
    assert (summary.done, summary.missing) == (8, 0)
    assert files_of(tmp_path / "parts" / "explained") == whole
    (tmp_path / "parts" / "explained" / "chunks" / "chunk-000001.parquet").unlink()
    before = (tmp_path / "parts" / "explained" / "chunks" / "chunk-000000.parquet").stat()
    summary, _ = explained(small_model, photos, tmp_path / "parts", overlays=5, resume=True)
    assert summary.done == 4
    assert files_of(tmp_path / "parts" / "explained") == whole
    after = (tmp_path / "parts" / "explained" / "chunks" / "chunk-000000.parquet").stat()
    assert after.st_mtime_ns == before.st_mtime_ns


def test_chunks_are_whole_batches(small_model, photos, pictures, tmp_path):
    explainer = kvis2.GradCAM(small_model, normalize=False)
    _, table = explained(small_model, photos, tmp_path, explainer, batch_size=4, chunk_size=5)
    chunks = sorted((tmp_path / "explained" / "chunks").iterdir())
    assert [path.name for path in chunks] == ["chunk-000000.parquet", "chunk-000001.parquet"]
    assert table.manifest["chunk_size"] == 8
    assert table["row"].tolist() == list(range(12))
    inputs = np.stack([expected_input(pictures[n]) for n in order_of(table)])
    for index, expected in enumerate(explainer(inputs)):
        np.testing.assert_allclose(table.map(index), expected, atol=0.003 * expected.max())


def test_a_run_goes_on_with_the_same_alone(small_model, photos, tmp_path):
    explained(small_model, photos, tmp_path)
    with pytest.raises(ValueError, match=r"Expected a new folder.*12 pictures"):
        explained(small_model, photos, tmp_path)
    with pytest.raises(ValueError, match=r"score = 'predicted'. Received: 1"):
        explained(small_model, photos, tmp_path, score=1, resume=True)
    with pytest.raises(ValueError, match=r"method.name = 'GradCAM'. Received: 'LayerCAM'"):
        explained(small_model, photos, tmp_path, kvis2.LayerCAM(small_model), resume=True)
    kernel = small_model.get_layer("late").kernel
    kernel.assign(kernel + 1e-3)
    with pytest.raises(ValueError, match=r"model.hash = "):
        explained(small_model, photos, tmp_path, resume=True)


def test_a_vanished_picture_is_told_and_tried_again(small_model, photos, tmp_path):
    explained(small_model, photos, tmp_path / "whole")
    gone = photos / "class1" / "05.png"
    found = gone.read_bytes()
    rows = rows_of(photos)
    gone.unlink()
    summary = explain_dataset(
        small_model, rows, out=tmp_path / "out", space=UNIT, batch_size=4, chunk_size=4
    )
    assert summary.failed == 1
    gone.write_bytes(found)
    options = {"space": UNIT, "batch_size": 4, "chunk_size": 4, "resume": True}
    assert explain_dataset(small_model, rows, out=tmp_path / "out", **options).done == 0
    summary = explain_dataset(small_model, rows, out=tmp_path / "out", retry=True, **options)
    assert (summary.done, summary.failed) == (4, 0)
    chunks = files_of(tmp_path / "out" / "chunks")
    assert chunks == files_of(tmp_path / "whole" / "explained" / "chunks")


def test_a_full_disk_leaves_whole_chunks_and_says_so(small_model, photos, tmp_path, monkeypatch):
    from kvis2.dataset import store

    write, written = store._write_parquet, []

    def full(path, columns):
        write(path, columns)
        written.append(path)
        if len(written) == 2:
            path.write_bytes(path.read_bytes()[:100])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write_parquet", full)
    with pytest.raises(OSError, match=r"No space left on device. 1 chunks are whole"):
        explained(small_model, photos, tmp_path)
    monkeypatch.undo()
    assert list(files_of(tmp_path / "explained" / "chunks")) == ["chunk-000000.parquet"]
    assert len(read(tmp_path / "explained")) == 4
    summary, table = explained(small_model, photos, tmp_path, resume=True)
    assert (summary.done, len(table)) == (8, 12)


@pytest.fixture
def saved(small_model, tmp_path):
    """The path of a saved model."""
    small_model.save(tmp_path / "small.keras")
    return str(tmp_path / "small.keras")


def test_the_command_tells_rate_result_and_status(saved, photos, tmp_path, capsys):
    out = str(tmp_path / "out")
    command = ["explain", saved, str(photos), "--out", out, "--input-range", "0", "1", "--resume"]
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["explained"] == 12
    assert "12/12 pictures" in said.err
    assert "a second" in said.err
    (photos / "class0" / "00.png").write_bytes(b"broken")
    assert main([*command, "--out", out + "2"]) == 1
    assert "11 of 12 pictures explained" in capsys.readouterr().out
    assert main(command) == 0  # It is done already.


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--method", "GradCamera"], "Expected a method, one of"),
        (["--score", "best"], "Expected predicted, label, or the number of a class"),
        (["--score", "7"], "from 0 to 3"),
        (["--layer", "nowhere"], "nowhere"),
        (["--metrics", "beauty"], "Expected measures among complexity"),
        (["--shard", "2/2"], "Expected i/n with i from 0"),
        (["--overlays", "some"], "Expected a number, all or none"),
        (["--labels", "none.csv"], "none.csv, which is not there"),
    ],
)
def test_wrong_arguments_exit_with_2_and_a_sentence(
    saved, photos, tmp_path, capsys, arguments, sentence
):
    command = ["explain", saved, str(photos), "--out", str(tmp_path / "out"), "--input-range"]
    with pytest.raises(SystemExit) as stopped:
        main([*command, "0", "1", *arguments])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["nowhere", "nowhere*.png", "empty"])
def test_a_source_without_pictures_is_refused(small_model, tmp_path, source):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Expected a (source with pictures|folder, a glob)"):
        rows_of(tmp_path / source)


@pytest.mark.slow
def test_compare_and_describe_are_commands(saved, photos, tmp_path, capsys):
    out = tmp_path / "compared"
    (photos / "class0" / "00.png").write_bytes(b"broken")
    command = ["compare", saved, str(photos), "--out", str(out), "--input-range", "0", "1"]
    assert main([*command, "--methods", "GradCAM", "LayerCAM", "--pictures", "6"]) == 1
    said = capsys.readouterr().out
    page = (out / "index.html").read_text(encoding="utf-8")
    with open(out / "comparison.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["explainer"] for row in rows} == {"GradCAM", "LayerCAM"}
    for row in rows:
        number = f"{float(row['mean']):.3g} ["
        assert number in said
        assert number in page
    assert "which is no picture that Pillow knows" in page
    assert images.read(out / "maps.png").shape[1] > 300
    assert main(["describe", saved]) == 0
    assert "late" in capsys.readouterr().out


def test_a_lambda_in_a_file_needs_trust(photos, tmp_path, capsys):
    model = keras.Sequential(
        [
            keras.Input((16, 12, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Lambda(lambda x: 2 * x),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    for name in ("code.keras", "code.h5"):
        path = tmp_path / name
        keras.saving.save_model(model, path)
        command = ["explain", str(path), str(photos), "--out", str(tmp_path / f"of_{name}")]
        command += ["--input-range", "0", "1"]
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 2
        assert "--trust" in capsys.readouterr().err
        assert main([*command, "--trust"]) == 0
        with pytest.raises(SystemExit) as stopped:
            main(["export", str(path), "--out", str(tmp_path / "served")])
        assert stopped.value.code == 2
        assert "--trust" in capsys.readouterr().err


def test_explainers_take_a_dataset_of_batches(small_model, images):
    explainer = kvis2.GradCAM(small_model)
    batches = tf.data.Dataset.from_tensor_slices((images, np.arange(5))).batch(2)
    found = list(explainer(2, batches))
    assert [len(each) for each in found] == [2, 2, 1]
    np.testing.assert_allclose(np.concatenate(found), explainer(2, images), atol=1e-6)
    alone = tf.data.Dataset.from_tensor_slices(images).batch(5)
    np.testing.assert_allclose(next(explainer(alone)), explainer(images), atol=1e-6)


def test_page_about_data_sets_runs(small_model, photos, tmp_path, monkeypatch):
    page = Path(__file__).parents[1] / "docs" / "scale.md"
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.S))
    names = {"model": small_model}
    exec(code, names)
    assert names["summary"].explained == 12
    assert len(names["table"]["probability"]) == 12
