"""The code in the guides for users of keras-vis and pytorch-cnn-visualizations: all of it runs."""

import re
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
from small_vgg import small_vgg

import kvis2
from kvis2 import visualization
from kvis2.gallery import ARTIFACTS
from kvis2.visualization import tools

DOCS = Path(__file__).parents[1] / "docs"


def text_of(guide):
    return (DOCS / guide).read_text(encoding="utf-8")


def blocks(guide):
    """The headings of a guide and the Python code below each."""
    parts = re.split(r"^## ", text_of(guide), flags=re.M)[1:]
    return {
        part.splitlines()[0]: "".join(re.findall(r"```python\n(.*?)```", part, re.S))
        for part in parts
    }


KERAS_VIS = {title: code for title, code in blocks("from_keras_vis.md").items() if code}


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What a script for keras-vis has at hand, and the model with logits."""
    monkeypatch.chdir(tmp_path)
    model = small_vgg(classes=30)
    model.layers[-1].activation = keras.activations.linear
    model = tools.apply_modifications(model)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    losses = [
        (visualization.ActivationMaximization(model.layers[-1], 20), 1),
        (visualization.TotalVariation(model.input), 10),
    ]
    return {
        **{name: getattr(visualization, name) for name in visualization.__all__},
        **{"np": np, "cm": matplotlib.cm, "keras": keras, "K": keras.ops},
        **{"kvis2": kvis2, "utils": tools, "model": model, "layer_idx": -1, "losses": losses},
        **{"images": images, "img": images[0].astype(np.uint8), "heatmap": np.eye(32)},
    }


def test_the_guide_has_code_for_every_function():
    for name in visualization.__all__:
        assert any(f"{name}(" in code or f"({name})" in code for code in KERAS_VIS.values()), name
    guide = text_of("from_keras_vis.md")
    for name in tools.__all__:
        assert f"`{name}" in guide, name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*all evidence at")  # of random weights
@pytest.mark.parametrize("title", KERAS_VIS)
def test_code_of_the_guide_from_keras_vis(title, names):
    code = re.sub(r"max_iter=\d+", "max_iter=2", KERAS_VIS[title])
    exec(code.replace("keras_vis()", "keras_vis(steps=2)"), names)
    for result in ("img", "imgs", "grads", "maps", "heatmap", "heatmaps", "picture", "shown"):
        found = np.asarray(names.get(result, 0.0))
        assert np.isfinite(found).all(), result
    if title == "Losses and regularizers":
        found = names["visualize_activation_with_losses"](
            names["model"].input, names["losses"], max_iter=2
        )
        assert found.shape == (32, 32, 3)


def rows():
    """For each script in the guide the calls that stand for it."""
    table = text_of("from_pytorch_cnn_visualizations.md").split("## Scripts")[1].split("\n## ")[0]
    found = {}
    for script, calls in re.findall(r"^\| `(\w+\.py)` \| (.*?) \| ", table, re.M):
        found[script] = re.findall(r"`(kvis2\..*?)`(?=;| |$)", calls)
    return found


SCRIPTS = rows()


def test_every_script_has_a_call():
    assert len(SCRIPTS) == 16
    assert all(SCRIPTS.values())
    # And the gallery's table has every artefact.
    table = text_of("from_pytorch_cnn_visualizations.md").split("pictures in the gallery")[1]
    assert set(re.findall(r"`(\w+)`", table)) >= set(ARTIFACTS) - {"photograph"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*all evidence at")  # of random weights
@pytest.mark.parametrize("script", SCRIPTS)
def test_code_of_the_guide_from_the_second_original(script):
    model = small_vgg(classes=250, size=64)
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    baseline = np.broadcast_to(images.mean((1, 2), keepdims=True), images.shape)
    space = {"kvis2": kvis2, "model": model, "layer": "block5_pool", "baseline": baseline}
    space |= {"images": images, "image": images[0]}
    exec(blocks("from_pytorch_cnn_visualizations.md")["Scripts"], space)
    for call in SCRIPTS[script]:
        # The narrow net has four filters in a layer.
        call = re.sub(r"\((5|94)([,)])", r"(3\2", call).replace('_conv1", 5', '_conv1", 3')
        found = eval(call, space)
        assert np.isfinite(found).all(), call
        assert np.ptp(found) > 0 or "CAM" in call, call
