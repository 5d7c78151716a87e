"""What other tools get of a data set: regions, boxes, run lengths, outlines, overlays."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

import kvis2
from kvis2 import images
from kvis2.dataset import (
    explain_dataset,
    read,
    to_coco,
    to_fiftyone,
    to_label_studio,
    to_overlays,
)
from kvis2.gallery import InputSpace
from kvis2.images import Framing


def flooded(mask, corners=False):
    """The regions of a mask by flooding, one pixel after the other, over `corners` as well."""
    left, found = mask.copy(), []
    while left.any():
        part, waiting = np.zeros_like(mask), [tuple(np.argwhere(left)[0])]
        while waiting:
            y, x = waiting.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and left[y, x]:
                left[y, x], part[y, x] = False, True
                waiting += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
                if corners:
                    waiting += [(y + i, x + j) for i in (-1, 1) for j in (-1, 1)]
        found.append(part)
    return found


def filled(part):
    """A region with its holes filled: what cannot be flooded from outside."""
    outside = flooded(~np.pad(part, 1), corners=True)
    reached = next(each for each in outside if each[0, 0])
    return ~reached[1:-1, 1:-1]


def decoded(segmentation):
    """A mask of its run lengths down the columns."""
    flat, value = [], False
    for count in segmentation["counts"]:
        flat += [value] * count
        value = not value
    return np.array(flat).reshape(segmentation["size"], order="F")


def inside_polygon(points, shape, width, height):
    """Which pixel centres lie in a polygon of percentages, by the even-odd rule."""
    found = np.zeros(shape, bool)
    for i, j in np.ndindex(*shape):
        x, y = (j + 0.5) / shape[1] * 100, (i + 0.5) / shape[0] * 100
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
            if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                found[i, j] = not found[i, j]
    return found


@pytest.fixture(params=["stretch", "crop"])
def table(request, small_model, tmp_path):
    """Six photographs of 40 x 31 pixels, explained with signed maps; one is broken."""
    random = np.random.default_rng(4)
    (tmp_path / "photos").mkdir()
    for number in range(6):
        picture = Image.fromarray(random.integers(0, 256, (40, 31, 3), np.uint8))
        ImageDraw.Draw(picture).rectangle((4 + number, 5, 15 + number, 20), fill=(255, 0, 0))
        picture.save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "3.png").write_bytes(b"broken")
    explain_dataset(
        small_model, tmp_path / "photos", kvis2.CAM(small_model, "late"), out=tmp_path / "out",
        framing=Framing(request.param), space=InputSpace((0.0,) * 3, (1.0,) * 3),
        class_names=["a", "b", "c", "d"],
    )  # fmt: skip
    return read(tmp_path / "out")


def heat_of(table, index):
    return np.nan_to_num(table.map(index, "photograph", normalize="image"))


def test_coco_has_the_regions_that_flooding_finds(table, tmp_path):
    found = to_coco(table, tmp_path / "coco.json", threshold=0.4)
    assert json.loads((tmp_path / "coco.json").read_text()) == found
    assert [each["id"] for each in found["images"]] == [0, 1, 2, 4, 5]
    names = {each["id"]: each["name"] for each in found["categories"]}
    assert found["annotations"]
    for image in found["images"]:
        index = image["id"]
        assert (image["height"], image["width"]) == (40, 31)
        heat = heat_of(table, index)
        expected = {part.tobytes(): part for part in flooded(heat >= 0.4 * heat.max())}
        of_image = [each for each in found["annotations"] if each["image_id"] == index]
        assert {decoded(each["segmentation"]).tobytes() for each in of_image} == set(expected)
        for each in of_image:
            part = decoded(each["segmentation"])
            rows, columns = np.nonzero(part)
            x, y, wide, high = each["bbox"]
            assert (x, y, x + wide - 1, y + high - 1) == (
                columns.min(), rows.min(), columns.max(), rows.max(),
            )  # fmt: skip
            assert each["area"] == part.sum()
            assert each["score"] == pytest.approx(heat[part].mean(), abs=1e-4)
            assert names[each["category_id"]] == table.class_names[table["target"][index]]


def test_polygons_enclose_the_same_pixels(table):
    tasks = to_label_studio(table, threshold=0.4)  # No photograph is larger than an outline.
    assert len(tasks) == 5
    for task, index in zip(tasks, (0, 1, 2, 4, 5), strict=True):
        heat = heat_of(table, index)
        expected = {filled(part).tobytes() for part in flooded(heat >= 0.4 * heat.max())}
        results = task["predictions"][0]["result"]
        found = [
            inside_polygon(each["value"]["points"], heat.shape, 31, 40).tobytes()
            for each in results
        ]
        assert len(found) == len(flooded(heat >= 0.4 * heat.max()))
        assert set(found) == expected
        assert task["data"]["image"] == str(table["path"][index])
        assert results[0]["value"]["polygonlabels"] == [table.named(table["target"][index])]


@pytest.mark.parametrize("seed", range(20))
def test_outlines_of_any_mask_enclose_its_regions(seed):
    from kvis2.dataset.regions import outline, regions

    mask = np.random.default_rng(seed).random((7, 9)) < 0.55
    parts = regions(mask)
    assert {part.tobytes() for part in parts} == {part.tobytes() for part in flooded(mask)}
    for part in parts:
        points = [(100 * x / 9, 100 * y / 7) for x, y in outline(part)]
        np.testing.assert_array_equal(inside_polygon(points, (7, 9), 9, 7), filled(part))


def test_fiftyone_gets_the_map_over_the_photograph(table):
    samples = to_fiftyone(table, resolution=64)
    assert len(samples) == 5
    json.dumps(samples)
    for sample, index in zip(samples, (0, 1, 2, 4, 5), strict=True):
        heat = heat_of(table, index)
        np.testing.assert_allclose(sample["heatmap"]["map"], heat, atol=1e-4)
        assert sample["heatmap"]["range"] == [-1.0 if heat.min() < 0 else 0.0, 1.0]
        assert sample["filepath"] == str(table["path"][index])
        assert sample["prediction"]["confidence"] == pytest.approx(table["probability"][index])
    assert np.shape(to_fiftyone(table, [0], resolution=8)[0]["heatmap"]["map"]) == (8, 6)


def test_overlays_are_those_of_the_photographs(table, tmp_path):
    paths = to_overlays(table, tmp_path / "overlays", [0, 3, 5], alpha=0.6)
    assert [path.name for path in paths] == ["00000000_0.jpg", "00000005_5.jpg"]
    expected = images.overlay(table.photograph(5), heat_of(table, 5), alpha=0.6)
    found = images.read(paths[1])
    images.save(tmp_path / "expected.jpg", expected)
    np.testing.assert_array_equal(found, images.read(tmp_path / "expected.jpg"))
