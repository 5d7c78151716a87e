"""The examples run where there is nothing but the clone and scikit-learn."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "two_photographs.py": ["--output", "out/both.png"],
    "explain_photo.py": ["--quick", "--only", "Grad-CAM", "LRP", "--output", "out/sheet.png"],
    "feature_gallery.py": ["--steps", "2", "--units", "2", "--out", "out", "--only", "units"],
    "keras_vis_scenarios_imagenet.py": [*["--steps", "2", "--filters", "2", "--out", "out"]],
    "which_method.py": ["--quick", "--output", "out"],
}


def run(folder, name):
    """Run an example of a copy of the clone's examples, as its first user does."""
    pytest.importorskip("sklearn")
    shutil.copytree(ROOT / "examples", folder / "examples", dirs_exist_ok=True)
    (folder / "out").mkdir(exist_ok=True)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, f"examples/{name}", *COMMANDS[name]]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_the_heat_of_both_classes_lies_where_they_are(tmp_path):
    said = run(tmp_path, "two_photographs.py")
    temple, flower = (float(each) for each in re.findall(r"(\d\.\d\d) of the heat", said))
    assert temple < 0.35
    assert flower > 0.65
    assert np.ptp(np.asarray(Image.open(tmp_path / "out" / "both.png"))) > 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("explain_photo.py", ["sheet.png"]),
        ("feature_gallery.py", ["both.png", "features.jpg"]),
        (
            "keras_vis_scenarios_imagenet.py",
            ["attention.png", "class_images.png", "filters.png"],
        ),
        ("which_method.py", ["which_method.md", "which_method.csv", "images/which_method.webp"]),
    ],
)
def test_examples_without_a_model_make_their_own(tmp_path, name, written):
    run(tmp_path, name)
    for each in written:
        assert (tmp_path / "out" / each).stat().st_size > 500, each


def test_examples_name_no_folder_that_a_clone_lacks():
    """Nothing is read from beside the repository, but where a sentence says so."""
    for path in (ROOT / "examples").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if re.search(r"\bparents\[2\]", text):
            assert "Expected photographs with boxes" in text, path.name
