"""A data set on a Ray cluster of two workers: the same bytes, also if one of them is killed."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("ray", reason="the extra ray is not installed")
ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras
]


@pytest.fixture
def command(small_model, tmp_path):
    """Explains 240 pictures, one of them broken, in 20 chunks."""
    random = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(240):
        pixels = random.integers(0, 256, (20, 14, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:03d}.png")
    (tmp_path / "photos" / "100.png").write_bytes(b"broken")
    keras.saving.save_model(small_model, tmp_path / "small.keras")
    arguments = ["explain", str(tmp_path / "small.keras"), str(tmp_path / "photos")]
    arguments += ["--input-range", "0", "1", "--batch-size", "4", "--chunk-size", "12", "--json"]
    return [sys.executable, "-m", "kvis2", *arguments, "--overlays", "30"]


def started(command, out, *more, mark="none"):
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "KVIS2_TEST": mark,
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }  # fmt: skip
    return subprocess.Popen(
        [*command, "--out", str(out), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def ended(process):
    out, error = process.communicate(timeout=240)
    assert process.returncode == 1, error  # One picture is broken.
    return json.loads(out)


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def workers_of(mark):
    """The processes of the actors of the run with this mark."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            named = folder.name.isdigit() and (folder / "cmdline").read_bytes()
            ours = named and f"KVIS2_TEST={mark}".encode() in (folder / "environ").read_bytes()
            if ours and b"ray::MapWorker" in named:
                found.append(int(folder.name))
        except OSError:  # It has ended meanwhile.
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the workers by /proc")
def test_two_workers_write_the_bytes_of_one_machine_though_one_is_killed(command, tmp_path):
    alone = ended(started(command, tmp_path / "alone"))
    assert (alone["explained"], alone["failed"]) == (239, 1)
    mark = uuid.uuid4().hex
    process = started(command, tmp_path / "ray", "--ray", "--workers", "2", mark=mark)
    chunks, killed = tmp_path / "ray" / "chunks", None
    while process.poll() is None and killed is None:
        if len(list(chunks.glob("chunk-*"))) >= 3:
            workers = workers_of(mark)
            assert len(workers) == 2
            killed = workers[0]
            os.kill(killed, signal.SIGKILL)
            left = len(list(chunks.glob("chunk-*")))
        time.sleep(0.005)
    told = ended(process)
    assert killed is not None
    assert left < 20  # It was killed in the middle.
    assert {**told, "seconds": 0, "folder": ""} == {**alone, "seconds": 0, "folder": ""}
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "alone")
