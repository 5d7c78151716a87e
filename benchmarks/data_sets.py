"""What explaining a data set costs: beside `model.predict` over the same pipeline, and a loop.

    python -m benchmarks.environments .venv/peers
    python -m benchmarks.data_sets --pictures 5000 --json docs/scale.json --markdown docs/scale.md

Each row has its turn on the same generated JPEG files; the loops over the peers are processes that
wait while the others have theirs. Memory is that of another process.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import environments
from benchmarks.cases import PEERS
from benchmarks.machine import about
from benchmarks.workers import Worker

_MARKS = ("<!-- measured -->", "<!-- end of measured -->")
_WARM = 64  # pictures before the clock starts, so that nothing is traced under it
_BATCH = 16
ROWS = {
    "predict": "`model.predict` over the same pipeline",
    "explain": "`kvis2 explain`, Grad-CAM, with thumbnails",
    "explain_bare": "`kvis2 explain`, Grad-CAM, `--thumbnails none`",
    "tf-keras-vis": "a loop over tf-keras-vis: `predict_on_batch`, then `Gradcam`",
    "grad-cam": "a loop over pytorch-grad-cam: `GradCAM(targets=None)`",
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


def in_turns(folder: Path, count: int, turn: int, peers: Path) -> dict[str, list[float]]:
    """Pictures in a second of each row, turn after turn, so that what else runs meets all alike."""
    import keras

    from benchmarks.models import write
    from kvis2 import GradCAM
    from kvis2.dataset import Reader, explain_dataset, pipeline, rows_of
    from kvis2.gallery import InputSpace

    folder_of_model = write("mobilenetv2", folder.parent / "photographs_models")
    model = keras.models.load_model(folder_of_model / "model.keras", compile=False)
    space = InputSpace.of_preprocessing(keras.applications.mobilenet_v2.preprocess_input)
    explainer, rows = GradCAM(model), rows_of(folder)[:count]

    def run(what: str, part: list) -> None:
        if what == "predict":
            batches = pipeline(part, Reader((224, 224), space), _BATCH, {})
            model.predict(batches.map(lambda number, picture, given: given), verbose=0)
            return
        thumbnails = 10**6 if what == "explain" else 0
        with tempfile.TemporaryDirectory() as out:
            explain_dataset(
                model, part, explainer, out=out, space=space, batch_size=_BATCH,
                thumbnails=thumbnails,
            )  # fmt: skip

    rates: dict[str, list[float]] = {what: [] for what in ROWS}
    parts = [rows[start : start + turn] for start in range(0, count, turn)]
    loops = loops_over_peers(folder_of_model, [rows[:_WARM], *parts], peers)
    for what in ROWS.keys() - loops.keys():
        run(what, rows[:_WARM])
    for part in parts:
        for what in ROWS:
            begin = time.perf_counter()
            if what in loops:
                loops[what].ask("time", repeats=1)
            else:
                run(what, part)
            rates[what].append(len(part) / (time.perf_counter() - begin))
    for loop in loops.values():
        loop.close()
    return rates


def loops_over_peers(model: Path, parts: list[list], peers: Path) -> dict[str, Worker]:
    """A process for each peer that has explained the first part, and waits for the next."""
    files = [[str(row.path) for row in part] for part in parts]
    found = {}
    for name in ("tf-keras-vis", "grad-cam"):
        python = environments.python(peers, PEERS[name].environment)
        found[name] = Worker([str(python), "-m", f"benchmarks.workers.{PEERS[name].worker}"])
        options = {"parts": files, "batch": _BATCH}
        found[name].ask("prepare", folder=str(model), method="folder", batch=1, options=options)
    return found


def memory(folder: Path, count: int) -> dict[str, float]:
    """The memory of one run over all pictures, in MB, after a fifth of them and at the end."""
    import keras

    from kvis2.dataset import explain_dataset, rows_of

    model, found = keras.applications.MobileNetV2(weights=None), {}
    rows = rows_of(folder)[:count]

    class Watched(io.StringIO):
        def isatty(self) -> bool:  # Told five times a second.
            return True

        def write(self, line: str) -> int:
            done = re.match(r"\r([\d,]+)/", line)
            if done:
                kind = "fifth" if int(done[1].replace(",", "")) <= count / 5 else "end"
                found[kind] = resident()
            return len(line)

    with tempfile.TemporaryDirectory() as out:
        explain_dataset(model, rows, out=out, batch_size=_BATCH, progress=Watched())
    return found


def on_ray(folder: Path, count: int) -> dict[str, float]:
    """Pictures in a second with one worker and with two, the start of Ray and of the workers in it.

    Run by a Python that has ray; beside it the same pictures on one machine without Ray.
    """
    import keras

    from kvis2.dataset import explain_dataset, rows_of

    model, rows, found = keras.applications.MobileNetV2(weights=None), rows_of(folder)[:count], {}
    for name, options in {
        "without": {},
        "1": {"ray": True, "workers": 1},
        "2": {"ray": True, "workers": 2},
    }.items():
        with tempfile.TemporaryDirectory() as out:
            done = explain_dataset(
                model, rows, out=out, batch_size=_BATCH, chunk_size=64, thumbnails=0, **options
            )
        found[name] = done.done / done.seconds
    return {"pictures": count, "load": about()["load"], "rates": found}


def resident() -> float:
    """The memory that this process has now, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def in_process(what: str, options: argparse.Namespace) -> dict:
    """`in_turns` or `memory` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.data_sets", "--one", what]
    command += ["--folder", str(options.folder), "--pictures", str(options.pictures)]
    command += ["--peers", str(options.peers), "--turn", str(options.turn)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def as_markdown(found: dict) -> str:
    """The table of the page."""
    machine, rates = found["machine"], found["rates"]
    turns = len(rates["predict"])
    lines = [
        f"{found['pictures']:,} JPEG files of 500 x 375 pixels, MobileNetV2 of 224 x 224, "
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load']}; the median of "
        f"{turns} turns, in brackets the slowest and the fastest:",
        "",
        "| | pictures a second | of `predict` |",
        "|---|---|---|",
    ]
    for name, words in ROWS.items():
        shares = [one / floor for one, floor in zip(rates[name], rates["predict"], strict=True)]
        rate, share = statistics.median(rates[name]), statistics.median(shares)
        least, most = min(rates[name]), max(rates[name])
        lines.append(f"| {words} | {rate:.1f} [{least:.1f} to {most:.1f}] | {share:.2f} |")
    used, hours = found["memory"], 1e6 / statistics.median(rates["explain"]) / 3600
    lines += [
        "",
        f"A run takes {used['fifth']:,.0f} MB of memory after a fifth of the pictures and "
        f"{used['end']:,.0f} MB at the end. By this measure a million pictures take {hours:.0f} "
        f"hours on this machine with thumbnails, a hundred million {100 * hours / 24:,.0f} days.",
    ]
    if "ray" in found:
        rates = found["ray"]["rates"]
        lines += [
            "",
            f"On Ray, with {found['ray']['pictures']:,} pictures and the start of the cluster in "
            f"it: {rates['1']:.1f} a second with one worker, {rates['2']:.1f} with two; "
            f"{rates['without']:.1f} without Ray (load {found['ray']['load']}). Both workers share "
            "the cores of one machine, so this says nothing of several machines.",
        ]
    return "\n".join(lines)


def all_measured(options: argparse.Namespace) -> dict:
    """All rows, the memory, and the machine."""
    return {
        "pictures": options.pictures,
        "machine": about(),
        "rates": in_process("turns", options),
        "memory": in_process("memory", options),
    }


def main() -> None:
    """Measure all rows, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "photographs"))
    parser.add_argument("--turn", type=int, default=500, help="pictures of one turn")
    parser.add_argument("--peers", type=Path, default=Path(".venv/peers"), help="environments")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ray", type=Path, help="JSON of `--one ray`, by a Python that has ray")
    parser.add_argument("--known", type=Path, help="write the page from this JSON")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--one", choices=("turns", "memory", "ray"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one == "turns":
        print(json.dumps(in_turns(options.folder, options.pictures, options.turn, options.peers)))
        return
    photographs(options.folder, options.pictures)
    if options.one == "ray":
        print(json.dumps(on_ray(options.folder, options.pictures)))
        return
    if options.one == "memory":
        print(json.dumps(memory(options.folder, options.pictures)))
        return
    found = json.loads(options.known.read_text()) if options.known else all_measured(options)
    if options.ray:
        found["ray"] = json.loads(options.ray.read_text())
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
