"""Environments of the peers, whose pins conflict: `python -m benchmarks.environments [folder]`."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import venv
from pathlib import Path

# What is installed, one call of pip after another. The peers come without their dependencies
# where these pin another TensorFlow, or need torchvision for what is not measured.
_INSTALLED = {
    "tensorflow": [
        ["tensorflow=={tensorflow}", "keras=={keras}", "tf-keras-vis", "packaging", "scipy"],
        ["einops", "deprecated", "scikit-image", "scikit-learn", "tensorflow-probability[tf]"],
        ["opencv-python-headless", "matplotlib"],
        ["--no-deps", "xplique"],
    ],
    "torch": [
        ["torch==2.13.0"],
        ["numpy", "tqdm", "pillow", "matplotlib", "ttach", "scikit-learn", "scipy", "packaging"],
        ["opencv-python-headless", "click"],
        ["--no-deps", "captum", "grad-cam", "zennit"],
    ],
}


def python(folder: Path, environment: str | None) -> Path:
    """The interpreter of an environment in `folder`; this one if it was not made, or for None."""
    found = folder.absolute() / (environment or "") / "bin" / "python"
    return found if environment and found.exists() else Path(sys.executable)


def make(folder: Path) -> None:
    """Make all environments that are not there yet."""
    versions = {name: importlib.metadata.version(name) for name in ("tensorflow", "keras")}
    for environment, steps in _INSTALLED.items():
        target = folder / environment
        if target.exists():
            continue
        print(f"Making the environment {target}", flush=True)
        venv.create(target, with_pip=True)
        for step in steps:
            packages = [each.format(**versions) for each in step]
            command = [target / "bin" / "python", "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(list(map(str, command)), check=True)


if __name__ == "__main__":
    make(Path(sys.argv[1] if len(sys.argv) > 1 else ".venv/peers"))
