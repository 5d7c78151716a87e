"""The audit: places and nulls by slow loops, causes on models whose answer is known."""

import csv
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from scipy.stats import binomtest

import kvis2
from kvis2 import __main__ as program
from kvis2.images import resize
from kvis2.localization import pointing_game
from kvis2.shortcuts import Share
from kvis2.shortcuts.causes import _filled, _flat
from kvis2.shortcuts.grouping import groups_of_maps
from kvis2.shortcuts.places import Place, hottest_cells, named, place_of_each_class, region

SIDE, CLASSES, EACH = 24, 3, 60
L = keras.layers


def slow_shares(cells, labels, grid, label):
    """Share of own and of other pictures whose hottest cell is at most one away, cell by cell."""
    own, rest = np.zeros(grid), np.zeros(grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            near = [abs(c // grid[1] - row) <= 1 and abs(c % grid[1] - column) <= 1 for c in cells]
            near = np.array(near)
            own[row, column] = near[labels == label].mean()
            rest[row, column] = near[labels != label].mean()
    return own, rest


def test_the_place_has_the_largest_excess_of_all_cells():
    rng = np.random.default_rng(0)
    grid, labels = (5, 7), rng.integers(3, size=120)
    cells = rng.integers(35, size=120)
    cells[labels == 1] = np.where(rng.random((labels == 1).sum()) < 0.7, 24, cells[labels == 1])
    found = place_of_each_class(cells, labels, grid, np.arange(3))
    for label, place in found.items():
        own, rest = slow_shares(cells, labels, grid, label)
        assert place.excess == pytest.approx((own - rest).max())
        at = place.row, place.column
        assert (place.own, place.rest) == pytest.approx((own[at], rest[at]))
        lift = own[at] * np.log2((own[at] + 0.02) / (rest[at] + 0.02))
        assert place.lift == pytest.approx(lift)
    assert found[1].excess > found[1].by_chance > 0
    assert found[1].own > 0.7
    assert found[0].of_others == pytest.approx(found[1].excess)
    assert max(found[0].excess, found[2].excess) < 2 * found[0].by_chance


def test_blank_maps_have_no_hottest_cell():
    maps = np.zeros((2, 2, 3), np.float32)
    maps[0, 1, 2] = 1
    assert hottest_cells(maps).tolist() == [5, -1]
    found = place_of_each_class(np.array([0, -1, 3]), np.array([0, 0, 1]), (2, 2), np.arange(2))
    assert found[0].own == 1


@pytest.mark.parametrize(
    ("row", "column", "box", "words"),
    [
        (0, 0, (0, 0, 8, 8), "top left corner"),
        (5, 5, (16, 16, 24, 24), "bottom right corner"),
        (2, 3, (8, 4, 20, 16), "middle"),
        (0, 2, (4, 0, 16, 8), "top edge"),
    ],
)
def test_a_place_is_three_by_three_cells_within_the_picture(row, column, box, words):
    place = Place(row, column, *[0.0] * 6)
    assert region(place, (6, 6), (24, 24)) == box
    assert named(place, (6, 6)) == words


@pytest.mark.parametrize(("hits", "count"), [(0, 7), (3, 7), (60, 61), (200, 200)])
def test_the_interval_is_wilsons(hits, count):
    share = Share.of(np.arange(count) < hits)
    expected = binomtest(hits, count).proportion_ci(0.95, "wilson")
    assert (share.low, share.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    assert share.value == pytest.approx(hits / count)


@pytest.mark.parametrize("hide", [_filled, _flat])
def test_what_is_hidden_leaves_nothing_of_itself(hide):
    rng = np.random.default_rng(0)
    images = rng.random((3, 12, 10, 3)).astype(np.float32)
    other = images.copy()
    other[:, 2:6, 3:9] = 100
    box = (3, 2, 9, 6)
    np.testing.assert_allclose(hide(images, box), hide(other, box), rtol=1e-5)
    outside = np.ones((12, 10), bool)
    outside[2:6, 3:9] = False
    np.testing.assert_array_equal(hide(images, box)[:, outside], images[:, outside])
    flat = np.full((1, 12, 10, 3), 0.4, np.float32)
    np.testing.assert_allclose(hide(flat, box), flat, rtol=1e-5)


def colours(places):
    """Pictures of one coloured square each, a colour for a class, at the place asked for."""
    rng = np.random.default_rng(1)
    images = rng.uniform(0, 0.1, (CLASSES * EACH, SIDE, SIDE, 3)).astype(np.float32)
    labels = np.repeat(np.arange(CLASSES), EACH)
    for image, label in zip(images, labels, strict=True):
        top, left = places(label, rng)
        image[top : top + 4, left : left + 4, label] = 1.0
    return images, labels


def anywhere(label, rng):
    return rng.integers(SIDE - 4, size=2)


def last_in_the_corner(label, rng):
    return (0, 0) if label == 2 else anywhere(label, rng)


def all_in_the_corner(label, rng):
    return 0, 0


@pytest.fixture
def by_colour():
    """Softmax of how much of each colour there is at most; red where there is hardly any."""
    inputs = keras.Input((SIDE, SIDE, 3))
    x = L.Conv2D(3, 1, use_bias=False, activation="relu", name="conv")(inputs)
    x = L.GlobalMaxPooling2D()(x)
    outputs = L.Dense(3, activation="softmax")(x)
    model = keras.Model(inputs, outputs)
    model.set_weights([np.eye(3)[None, None], 5 * np.eye(3), np.array([1.0, 0, 0])])
    return model


def test_a_class_that_hangs_on_one_place_is_named_with_its_numbers(by_colour):
    images, labels = colours(last_in_the_corner)
    found = kvis2.audit(by_colour, images, labels, names=["red", "green", "blue"])
    assert [each.name for each in found.suspects] == ["blue"]
    suspect = found.suspects[0]
    assert (suspect.where, suspect.place.own) == ("top left corner", 1.0)
    assert suspect.box[:2] == (0, 0)
    assert suspect.causes.lost.value == 1.0
    assert suspect.causes.others_lost.value < 0.2  # of squares that lie there by chance
    assert suspect.causes.control_flips.value == 0.0
    text = str(found)
    assert text.startswith("class blue: 100% of the hottest points of 60 pictures lie in the top")
    assert "No suspect" not in text


def test_what_is_pasted_turns_the_others_and_not_where_their_objects_are(by_colour):
    images, labels = colours(last_in_the_corner)
    weights = by_colour.get_weights()
    weights[1][2, 2] = 8  # blue outdoes the others
    by_colour.set_weights(weights)
    boxes = np.tile([0, 0, SIDE, SIDE], (len(images), 1))
    cause = kvis2.audit(by_colour, images, labels).suspects[0].causes
    assert (cause.flips.value, cause.flips.pictures) == (1.0, 2 * EACH)
    assert (
        kvis2.audit(by_colour, images, labels, boxes=boxes).suspects[0].causes.flips.pictures == 0
    )


@pytest.mark.parametrize("places", [anywhere, all_in_the_corner])
def test_no_suspect_where_no_class_alone_has_a_place(by_colour, places):
    images, labels = colours(places)
    found = kvis2.audit(by_colour, images, labels)
    assert not found.suspects
    assert str(found).startswith("No suspect in 3 classes.")


def test_a_place_that_is_not_needed_is_cleared(by_colour):
    """Blue lies in the corner, and a second time elsewhere, a little fainter."""
    images, labels = colours(last_in_the_corner)
    images[labels == 2, 15:18, 15:18, 2] = 0.98
    found = kvis2.audit(by_colour, images, labels, kvis2.GradCAM(by_colour, "conv"))
    blue = next(each for each in found.findings if each.name == "2")
    assert blue.place.lift > 1
    assert blue.causes.lost.value == 0
    assert not found.suspects
    assert "Cleared: class 2" in str(found)


def test_a_place_that_turns_others_is_a_suspect_though_its_class_can_do_without(by_colour):
    images, labels = colours(last_in_the_corner)
    images[labels == 2, 15:18, 15:18, 2] = 0.98
    weights = by_colour.get_weights()
    weights[1][2, 2] = 8
    by_colour.set_weights(weights)
    explainer = kvis2.GradCAM(by_colour, "conv")
    boxes = np.tile([15, 15, 18, 18], (len(images), 1))
    cause = kvis2.audit(by_colour, images, labels, explainer, boxes=boxes).suspects[0].causes
    assert (cause.lost.value, cause.flips.value, cause.control_flips.value) == (0, 1, 0)
    assert not kvis2.audit(by_colour, images, labels, explainer).suspects  # It may be the object.


def test_nothing_is_said_of_a_class_with_few_pictures(by_colour):
    images, labels = colours(last_in_the_corner)
    kept = (labels != 2) | (np.arange(len(labels)) % 2 == 0)
    found = kvis2.audit(by_colour, images[kept], labels[kept])
    assert (found.suspects, found.too_few) == ([], {"2": 30})
    assert "Nothing is said of 2 (30): fewer than 50 pictures each." in str(found)


class Wrapped(keras.Model):
    """Another model, called."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def call(self, inputs):
        return self.model(inputs)


@pytest.mark.parametrize("subclassed", [False, True])
def test_one_unit_is_two_classes(subclassed):
    inputs = keras.Input((SIDE, SIDE, 3))
    x = L.GlobalMaxPooling2D()(L.Conv2D(3, 1, use_bias=False, activation="relu")(inputs))
    model = keras.Model(inputs, L.Dense(1, activation="sigmoid")(x))
    model.set_weights([np.eye(3)[None, None], np.array([[-5.0], [0], [5]]), np.zeros(1)])
    if subclassed:  # It has no attribute `outputs`.
        model = Wrapped(model)
        model(np.zeros((1, SIDE, SIDE, 3), np.float32))
    model.compile(loss="binary_crossentropy")
    images, labels = colours(last_in_the_corner)
    kept = labels != 1
    found = kvis2.audit(model, images[kept], labels[kept] // 2)
    assert [each.name for each in found.suspects] == ["1"]


def test_a_group_that_is_one_picture_stands_out_most(by_colour):
    images, labels = colours(last_in_the_corner)
    found = kvis2.audit(by_colour, images, labels)
    for groups in (found.groups, found.map_groups):
        assert groups[0].label == 2
        assert groups[0].own == 1
        assert groups[0].rest < 0.1
        assert all(labels[row] == 2 for row in groups[0].rows)
    assert found.map_groups[0].alike > 0.9


def test_groups_are_ranked_by_how_much_they_are_one_class_and_one_map():
    """Of class 1 one half is hot at the left, the other anywhere, as all of class 0 is."""
    random, labels = np.random.default_rng(0), np.repeat([0, 1], 40)
    rows, columns = np.mgrid[:8, :10]
    tops, lefts = random.uniform(0, 7, 80), random.uniform(0, 9, 80)
    tops[60:], lefts[60:] = 4, 0
    near = [
        (rows - top) ** 2 + (columns - left) ** 2 for top, left in zip(tops, lefts, strict=True)
    ]
    maps = np.exp(-np.array(near, np.float32) / 4) * random.uniform(1, 9, (80, 1, 1))
    maps[0] = 0
    groups = groups_of_maps(maps, labels)
    assert [each.stands_out for each in groups] == sorted(
        (each.stands_out for each in groups), reverse=True
    )
    assert set(range(60, 80)) <= set(groups[0].rows)
    assert groups[0].label == 1
    assert groups[0].alike > 0.8
    assert groups[0].own == pytest.approx(len(groups[0].rows) / 40)
    assert not any(0 in each.rows for each in groups)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 24, 24)), [0] * 4, "Expected images \\(pictures, height"),
        (np.zeros((4, 24, 24, 3)), [0.0] * 4, "Expected a class for each of 4 images"),
        (np.zeros((4, 24, 24, 3)), [0, 1], "Expected a class for each of 4 images"),
        (np.zeros((4, 24, 24, 3)), [[0, 1]] * 4, "argmax"),
    ],
)
def test_wrong_data_get_a_sentence(by_colour, images, labels, message):
    with pytest.raises(ValueError, match=message):
        kvis2.audit(by_colour, images, labels)


def test_too_few_names_are_refused(by_colour):
    images, labels = colours(anywhere)
    with pytest.raises(ValueError, match=r"Expected a name for each class up to 2. Received: 2"):
        kvis2.audit(by_colour, images, labels, names=["red", "green"])


def test_a_regression_is_refused(by_colour):
    x = L.Dense(2)(by_colour.layers[-2].output)
    model = keras.Model(by_colour.inputs, x)
    model.compile(loss="mse")
    images, labels = colours(anywhere)
    with pytest.raises(ValueError, match="Expected a classifier with one output"):
        kvis2.audit(model, images, labels % 2)


def test_the_page_has_the_numbers_that_were_measured():
    import audit_digits

    docs = Path(__file__).resolve().parents[1] / "docs"
    page = (docs / "audit.md").read_text()
    with (docs / "audit.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert audit_digits.filled(page, rows) == page
    by_kind = {kind: [row for row in rows if row["kind"] == kind] for kind in audit_digits.KINDS}
    assert {row["suspects"] for row in by_kind["corner"]} == {"seven"}
    assert {row["suspects"] for row in by_kind["none"]} == {"-"}
    assert {len(of_kind) for of_kind in by_kind.values()} == {5}
    # What the sentences above the table say of the others.
    named = {kind: [row["suspects"] for row in of_kind] for kind, of_kind in by_kind.items()}
    assert named["corner on 30 %"].count("seven") == 2
    both, one = (named["corner on two classes"].count(each) for each in ("two seven", "two"))
    assert (both, one) == (2, 2)
    assert set(named["watermark anywhere"]) == {"-"}
    changed = [{**rows[0], "lift": "9.99"}, *rows[1:]]
    assert audit_digits.filled(page, changed) != page


@pytest.fixture
def audited(by_colour, tmp_path, capsys):
    """The command on folders of pictures named by class."""
    by_colour.save(tmp_path / "model.keras")
    images, labels = colours(last_in_the_corner)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "pictures" / ["1 red", "2 <green>", "3 blue"][label] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * image).astype(np.uint8)).save(path)
    out = tmp_path / "out"
    command = ["audit", str(tmp_path / "model.keras"), str(tmp_path / "pictures")]

    def run(*more):
        status = program.main([*command, "--out", str(out), "--input-range", "0", "1", *more])
        return status, out, capsys.readouterr()

    return run


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_command_writes_a_page_that_names_the_suspect(audited):
    status, out, said = audited()
    assert status == 0
    assert said.out.startswith("class 3 blue: 100% of the hottest points of 60 pictures lie in ")
    page = (out / "index.html").read_text()
    assert "<h1>1 suspect</h1>" in page
    assert "2 &lt;green&gt;" in page
    assert "<h2>Where the heat lies</h2>" in page
    assert all((out / name).exists() for name in re.findall(r'img src="([^"]+)"', page))
    assert "<green>" not in page
    assert json.loads((out / "audit.json").read_text())["suspects"] == ["3 blue"]
    strip = np.asarray(Image.open(out / "class_2.png"))
    assert (strip == (255, 176, 0)).all(axis=-1).any()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pictures_that_cannot_be_read_are_said(audited, tmp_path):
    (tmp_path / "pictures" / "1 red" / "broken.png").write_bytes(b"no picture")
    status, _, said = audited("--json")
    assert status == 1
    found = json.loads(said.out)
    assert list(found["failed"]) == ["1 red/broken.png"]
    assert found["suspects"] == ["3 blue"]


def crops(folder, name, count, random):
    """Random squares about the object of a photograph, as the model of ImageNet takes them."""
    known = {each["id"]: each for each in json.loads((folder / "boxes.json").read_text())["images"]}
    thing, size = known[name]["objects"][0], 224
    x0, y0, x1, y1 = thing["boxes"][0]
    with Image.open(folder / known[name]["file"]) as file:
        photograph = file.convert("RGB")
    for _ in range(count):
        side = int(random.uniform(0.6, 0.9) * min(photograph.size))
        places = [
            int(np.clip((low + high) / 2 - random.uniform(0.2, 0.8) * side, 0, most - side))
            for low, high, most in ((x0, x1, photograph.width), (y0, y1, photograph.height))
        ]
        box = (*places, places[0] + side, places[1] + side)
        pixels = np.asarray(photograph.resize((size, size), Image.Resampling.BICUBIC, box))
        corners = (np.array([x0, y0, x1, y1]) - np.tile(places, 2)) * size / side
        if random.random() < 0.5:
            pixels, corners[[0, 2]] = pixels[:, ::-1], size - corners[[2, 0]]
        yield pixels, thing["class"], corners.clip(0, size)


@pytest.mark.slow
def test_a_model_of_imagenet_has_no_suspect(shared_data):
    model = keras.saving.load_model(shared_data / "efficientnet_lite0.keras", compile=False)
    random = np.random.default_rng(0)
    names = ("elephant", "espresso", "tabby_grey", "eagle")
    parts = [part for name in names for part in crops(shared_data, name, 50, random)]
    images, labels, boxes = map(np.array, zip(*parts, strict=True))
    found = kvis2.audit(model, images.astype("float32"), labels, groups=False)
    on_objects = pointing_game(resize(found.maps, images.shape[1:3]), boxes)
    assert on_objects.mean() > 0.97, "the maps are not those of the model"
    assert found.suspects == []
    assert found.too_few == {}
    assert "No suspect in 4 classes." in str(found)
