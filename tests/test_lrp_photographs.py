"""LRP of real weights on a photograph whose object has a box."""

import json

import keras
import numpy as np
import pytest

from kvis2 import lrp

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photograph(shared_data):
    """A model, the picture of one clear object, its class, and the mask of its box."""
    from PIL import Image

    model = keras.models.load_model(shared_data / "efficientnet_lite0.keras")
    photos = json.loads((shared_data / "boxes.json").read_text())["images"]
    photo = next(each for each in photos if each["id"] == "pomeranian")
    picture = Image.open(shared_data / photo["file"]).convert("RGB")
    pixels = np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC), np.float32)
    scale = 224 / np.array([*photo["size"], *photo["size"]])
    mask = np.zeros((224, 224), bool)
    for x0, y0, x1, y1 in np.rint(np.array(photo["objects"][0]["boxes"]) * scale).astype(int):
        mask[y0:y1, x0:x1] = True
    return model, pixels[None], photo["objects"][0]["class"], mask


def test_what_biases_do_to_the_sum_of_the_map(photograph):
    """What docs/methods.md says of conserved relevance."""
    model, images, label, _ = photograph
    lost = {}
    for bias in ("absorb", "ignore", "share"):
        explainer = lrp.LRP(model, bias=bias, normalize=False)
        explainer(label, images)
        lost[bias] = explainer.conservation_error[0]
    assert lost["absorb"] > 0.99
    assert 0.85 < lost["ignore"] < 0.97
    assert lost["share"] < 0.01


@pytest.mark.parametrize(
    "composite", [lrp.EpsilonPlusFlat(), lrp.EpsilonGammaBox(-1.0, 1.0)], ids=["flat", "box"]
)
def test_most_positive_relevance_is_on_the_object(photograph, composite):
    model, images, label, mask = photograph
    explainer = lrp.LRP(model, composite, normalize=False)
    heat = np.maximum(explainer(label, images)[0], 0)
    assert heat[mask].sum() / heat.sum() > 0.85
    assert mask.mean() < 0.35  # what a map without any knowledge would score
    # The batch normalisations shift much: what is lost is what they and the biases absorb.
    np.testing.assert_allclose(
        explainer.conservation_error, np.abs(explainer.bias_share), rtol=1e-3
    )
