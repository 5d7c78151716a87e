"""How long `import kvis2` takes on top of `import tensorflow, keras`, from bytecode.

What is measured is not the compiling of its sources, which an installation does once.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile

_PROGRAM = """
import time
start = time.perf_counter()
import keras, tensorflow
middle = time.perf_counter()
import kvis2
print(middle - start, time.perf_counter() - middle)
"""


def measured(repeats: int = 3) -> dict[str, float]:
    """Median seconds of both, each time in a new process."""
    both = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(1 + repeats):
            printed = subprocess.run(
                [sys.executable, "-c", _PROGRAM],
                capture_output=True,
                text=True,
                check=True,
                env=environment,
            )
            both.append([float(each) for each in printed.stdout.split()])
    both.pop(0)  # It compiled what it imported.
    before, ours = (statistics.median(each) for each in zip(*both, strict=True))
    return {"tensorflow_and_keras_seconds": before, "kvis2_seconds": ours}


if __name__ == "__main__":
    print(json.dumps(measured()))
