"""Grad-CAM of real weights on photographs whose objects have boxes."""

import json

import keras
import numpy as np
import pytest

import kvis2

pytestmark = pytest.mark.slow


def boxed_objects(shared_data):
    """For each boxed object its photograph's name and pixels, its class and its mask."""
    from PIL import Image

    images, classes, masks, names = [], [], [], []
    for photo in json.loads((shared_data / "boxes.json").read_text())["images"]:
        picture = Image.open(shared_data / photo["file"]).convert("RGB")
        pixels = np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC), np.float32)
        scale = 224 / np.array([*photo["size"], *photo["size"]])
        for item in photo["objects"]:
            mask = np.zeros((224, 224), bool)
            for x0, y0, x1, y1 in np.rint(np.array(item["boxes"]) * scale).astype(int):
                mask[y0:y1, x0:x1] = True
            images.append(pixels)
            classes.append(item["class"])
            masks.append(mask)
            names.append(photo["id"])
    return names, np.stack(images), classes, np.stack(masks)


@pytest.fixture(scope="module")
def photographs(shared_data):
    """Name, class and mask of each boxed object, and the map of its class."""
    names, images, classes, masks = boxed_objects(shared_data)
    model = keras.models.load_model(shared_data / "efficientnet_lite0.keras")
    maps = kvis2.GradCAM(model, layer="top_relu", batch_size=8)(classes, images)
    return names, classes, masks, maps


def share(heat, mask):
    return heat[mask].sum() / heat.sum()


def test_grad_cam_heats_the_objects_in_photographs(photographs):
    _, _, masks, maps = photographs
    assert np.mean([share(heat, mask) for heat, mask in zip(maps, masks, strict=True)]) >= 0.50
    assert masks.mean() < 0.35  # what a map without any knowledge would score


def test_each_object_gets_a_larger_share_from_the_map_of_its_own_class(photographs):
    """Compared between maps in one box: boxes that overlap or differ in size stay comparable."""
    names, classes, masks, maps = photographs
    pairs = [
        (i, j)
        for i in range(len(names))
        for j in range(len(names))
        if names[i] == names[j] and classes[i] != classes[j]
    ]
    assert len(pairs) == 8
    wrong = [
        (names[own], classes[own], classes[other])
        for own, other in pairs
        if share(maps[own], masks[own]) <= share(maps[other], masks[own])
    ]
    assert not wrong
