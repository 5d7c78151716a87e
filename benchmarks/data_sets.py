"""What explaining a data set costs: beside `model.predict` over the same pipeline, and a loop.

    python -m benchmarks.data_sets --pictures 5000 --json docs/scale.json --markdown docs/scale.md

Each row is measured in a process of its own, on the same generated JPEG files.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import about

_MARKS = ("<!-- measured -->", "<!-- end of measured -->")
_WARM = 64  # pictures before the clock starts, so that nothing is traced under it
ROWS = {
    "predict": "`model.predict` over the same pipeline",
    "explain": "`kvis2 explain`, Grad-CAM, with thumbnails",
    "explain_bare": "`kvis2 explain`, Grad-CAM, `--thumbnails none`",
    "saliency": "`kvis2 explain`, Saliency, `--thumbnails none`",
}


def photographs(folder: Path, count: int) -> None:
    """JPEG files of 500 x 375 pixels with the detail of photographs: noise of all scales."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(list(folder.glob("*.jpg"))), count):
        picture = np.zeros((375, 500, 3), np.float32)
        for side in (3, 8, 24, 72, 216):
            noise = random.normal(size=(side, side * 4 // 3, 3)) * 60 / side**0.4
            for channel in range(3):
                layer = Image.fromarray(noise[..., channel].astype(np.float32))
                picture[..., channel] += np.asarray(layer.resize((500, 375)))
        pixels = np.clip(picture + 118, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:06d}.jpg", quality=88)


def measured(what: str, folder: Path, count: int) -> dict[str, float]:
    """Pictures in a second and the most memory, of one row."""
    import keras

    from kvis2 import GradCAM, Saliency
    from kvis2.dataset import Reader, explain_dataset, pipeline, rows_of
    from kvis2.gallery import InputSpace

    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None)
    space = InputSpace.of_preprocessing(keras.applications.mobilenet_v2.preprocess_input)
    rows = rows_of(folder)[:count]
    explainer = Saliency(model) if what == "saliency" else GradCAM(model)

    def run(rows: list) -> None:
        if what == "predict":
            batches = pipeline(rows, Reader((224, 224), space), 16, {})
            model.predict(batches.map(lambda number, picture, given: given), verbose=0)
            return
        with tempfile.TemporaryDirectory() as out:
            thumbnails = 10**6 if what == "explain" else 0
            explain_dataset(
                model, rows, explainer, out=out, space=space, batch_size=16, thumbnails=thumbnails
            )

    run(rows[:_WARM])
    memory = [peak()]
    start = time.perf_counter()
    run(rows)
    seconds = time.perf_counter() - start
    memory.append(peak())
    return {"rate": len(rows) / seconds, "before": memory[0], "after": memory[1]}


def peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def in_process(what: str, folder: Path, count: int) -> dict[str, float]:
    """`measured` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data_sets", "--one", what]
    command += ["--folder", str(folder), "--pictures", str(count)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def as_markdown(found: dict) -> str:
    """The table of the page."""
    floor = found["rows"]["predict"]["rate"]
    lines = [
        f"{found['pictures']:,} JPEG files of 500 x 375 pixels, MobileNetV2, 224 x 224, "
        f"{found['machine']['processor']}, {found['machine']['cores']} cores:",
        "",
        "| | pictures a second | of `predict` | memory at most |",
        "|---|---|---|---|",
    ]
    for name, row in found["rows"].items():
        share, memory = row["rate"] / floor, row["after"]
        lines.append(f"| {ROWS[name]} | {row['rate']:.1f} | {share:.2f} | {memory:,.0f} MB |")
    return "\n".join(lines)


def main() -> None:
    """Measure all rows, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "photographs"))
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--one", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one, options.folder, options.pictures)))
        return
    photographs(options.folder, options.pictures)
    rows = {name: in_process(name, options.folder, options.pictures) for name in options.rows}
    found = {"pictures": options.pictures, "machine": about(), "rows": rows}
    print(as_markdown(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        text = options.markdown.read_text(encoding="utf-8")
        table = f"{_MARKS[0]}\n{as_markdown(found)}\n{_MARKS[1]}"
        text = re.sub(f"{_MARKS[0]}.*?{_MARKS[1]}", lambda _: table, text, flags=re.S)
        options.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
