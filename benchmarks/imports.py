"""How long `import kvis2` takes on top of `import tensorflow, keras`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

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
    for _ in range(repeats):
        printed = subprocess.run(
            [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
        )
        both.append([float(each) for each in printed.stdout.split()])
    before, ours = (statistics.median(each) for each in zip(*both, strict=True))
    return {"tensorflow_and_keras_seconds": before, "kvis2_seconds": ours}


if __name__ == "__main__":
    print(json.dumps(measured()))
