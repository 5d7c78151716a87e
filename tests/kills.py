"""Explain a folder again and again, killed at random moments, until it is done.

    python kills.py PHOTOS OUT KILLS SEED

Run as a program of its own: it imports once and forks before TensorFlow computes anything, so that
thirty kills take a minute. Prints how often it killed, and in which state of the folder.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np

from kvis2 import GradCAM
from kvis2.dataset import explain_dataset

OPTIONS = {"batch_size": 2, "chunk_size": 4, "overlays": 40, "resume": True}


def small_model():
    """The same weights in every process."""
    inputs = keras.Input((16, 12, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x), name="small")
    draws = np.random.default_rng(0)
    model.set_weights([draws.normal(size=w.shape, scale=0.1) for w in model.get_weights()])
    return model


def explain(photos, out):
    """One run, to its end."""
    model = small_model()
    return explain_dataset(model, photos, GradCAM(model), out=out, **OPTIONS)


def chunks(out):
    """How many chunks are there."""
    return len(list(Path(out, "chunks").glob("chunk-*")))


def killed(photos, out, wait, more):
    """Kill a run `wait` seconds after it wrote `more` chunks; False if it was done before."""
    before = chunks(out)
    child = os.fork()
    if not child:
        os.close(2)
        explain(photos, out)
        os._exit(0)
    while chunks(out) < before + more:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.001)
    time.sleep(wait)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


def main(photos, out, kills, seed):
    """Kill as often as asked for, at the start, in the middle and anywhere, then run to the end."""
    moments, states = random.Random(seed), []
    for number in range(int(kills)):
        # The first ones strike before anything is written, the others while chunks are.
        more = 0 if number < 5 else moments.randrange(1, 4)
        wait = moments.uniform(0, 2) if number < 5 else moments.uniform(0, 0.03)
        if not killed(photos, out, wait, more):
            break
        parts = [path.name for path in Path(out).rglob("part-of-*")]
        states.append({"chunks": chunks(out), "parts": parts})
    print(json.dumps({"states": states, "summary": explain(photos, out).as_dict()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
