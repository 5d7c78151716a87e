"""A run that is killed at any moment goes on: nothing twice, nothing lost, no half file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvis2.dataset import read

ROOT = Path(__file__).parents[1]


def run(photos, out, kills):
    """What `kills.py` says."""
    command = [sys.executable, ROOT / "tests" / "kills.py", photos, out, str(kills), "7"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be killed")
def test_thirty_kills_lose_nothing_and_do_nothing_twice(tmp_path):
    random = np.random.default_rng(0)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(1500):
        pixels = random.integers(0, 256, (16, 12, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number:04d}.png")
    (photos / "0300.png").write_bytes(b"no picture")
    found = run(photos, tmp_path / "killed", 30)
    assert len(found["states"]) == 30
    counts = [each["chunks"] for each in found["states"]]
    assert counts == sorted(counts)  # What is written stays.
    assert counts[-1] < 375
    assert any(each["parts"] for each in found["states"])  # Some were struck while they wrote.
    assert found["summary"]["explained"] == 1499
    assert found["summary"]["failed"] == 1
    table = read(tmp_path / "killed")
    assert table["row"].tolist() == list(range(1500))
    assert table["id"].tolist() == [f"{number:04d}.png" for number in range(1500)]
    run(photos, tmp_path / "whole", 0)
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")
