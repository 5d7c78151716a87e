"""Published architectures with random weights: Grad-CAM and the gradient, beside a GradientTape.

Marked `exhaustive`: `UPDATE_DOCS=1 pytest -m exhaustive tests/test_zoo.py` writes the table at the
end of docs/model_matrix.md, with kimm, keras-hub and zeromodels where they are installed.
"""

import importlib.metadata
import os
import signal
import warnings
from contextlib import contextmanager

import architectures
import model_matrix
import numpy as np
import pytest
import tensorflow as tf

import kvis2

SECONDS = 240
"""What one architecture may take, a traced pass and a tape included."""
FOUND = {}


@contextmanager
def no_longer_than(seconds):
    """Fail where tracing does not come to an end."""

    def stop(*_):
        raise TimeoutError(f"Expected an architecture to take {seconds} s at most.")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def by_tape(model, layer, index, inputs):
    """Output and gradient of a layer, and the gradient by the input, by a `tf.GradientTape`.

    Nothing of kvis2: `call` of the layer is wrapped while the model is traced. In a graph, as
    kvis2 runs it: eagerly TensorFlow rounds otherwise, and a ReLU of a deep model may change sides.
    """
    seen, call = [], layer.call
    by_name = isinstance(inputs, dict)

    @tf.function(autograph=False)
    def run(given):
        with tf.GradientTape(persistent=True) as tape:
            if not by_name:
                tape.watch(given)

            def watched(*arguments, **options):
                output = call(*arguments, **options)
                tape.watch(output)
                seen.append(output)
                return output

            layer.call = watched
            try:
                total = tf.reduce_sum(model(given, training=False)[:, index])
            finally:
                del layer.call
        by_input = tf.zeros([]) if by_name else tape.gradient(total, given)
        return seen[-1], tape.gradient(total, seen[-1]), by_input

    given = {k: tf.constant(v) for k, v in inputs.items()} if by_name else tf.constant(inputs)
    activations, gradients, by_input = (each.numpy() for each in run(given))
    return activations, gradients, None if by_name else by_input


def cam_of(activations, gradients):
    """Grad-CAM by its equation."""
    space = tuple(range(1, activations.ndim - 1))
    weights = gradients.mean(axis=space, keepdims=True)
    return np.maximum((weights * activations).sum(axis=-1), 0)


def off(found, expected):
    """The largest difference, as a share of the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def explained(model, inputs):
    """Grad-CAM at the layer that kvis2 chooses, and the gradient: at the embedding of tokens."""
    tokens = isinstance(inputs, dict)
    layer = "token_embedding" if tokens else None
    if tokens:
        paths = [path for path, _ in kvis2.models.walk(model)]
        layer = next(each for each in paths if each.endswith("token_embedding"))
    cam = kvis2.GradCAM(model, layer, normalize=False, resize=False)
    saliency = kvis2.Saliency(model, layer, normalize=False, resize=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index in range(architectures.CLASSES):
            found = flat(cam(index, inputs))
            if found.any():
                return cam.layer, index, found, flat(saliency(index, inputs))
    raise AssertionError("The map is blank for every class: nothing would be compared.")


def flat(maps):
    """The one map that there is: of the tokens, where there are inputs by name."""
    return maps["token_ids"] if isinstance(maps, dict) else maps


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("package", "name"), architectures.ARCHITECTURES, ids=map("/".join, architectures.ARCHITECTURES)
)
def test_an_architecture_is_explained_as_a_tape_does(package, name):
    with no_longer_than(SECONDS):
        model, inputs = architectures.made(package, name)
        layer, index, found, gradient = explained(model, inputs)
        activations, gradients, by_input = by_tape(model, layer, index, inputs)
        by_input = gradients if by_input is None else by_input
    errors = {
        "Grad-CAM": off(found, cam_of(activations, gradients)),
        "Gradient": off(gradient, np.abs(by_input).max(axis=-1)),
    }
    path = kvis2.models.layer_path(model, layer)
    grid = " x ".join(map(str, found.shape[1:]))
    FOUND[package, name] = [f"`{path}` {grid}", *(f"{each:.0e}" for each in errors.values())]
    # Batch normalisation is folded for the map; gradients jump at kinks where rounding differs.
    assert max(errors.values()) < 1e-3, errors


@pytest.mark.exhaustive
def test_the_page_holds_what_this_run_found():
    assert FOUND, "Run the whole file: no architecture was looked at."
    page = model_matrix.PAGE
    rows = model_matrix.zoo_rows(page.read_text(encoding="utf-8"))
    if os.environ.get("UPDATE_DOCS"):
        known = rows | FOUND
        rows = {each: known[each] for each in architectures.ARCHITECTURES if each in known}
        versions = {each: version(each) for each in dict.fromkeys(p for p, _ in rows)}
        model_matrix.write_zoo(rows, versions)
    assert FOUND.keys() <= rows.keys(), "UPDATE_DOCS=1 writes the table."
    assert all(rows[each][0] == FOUND[each][0] for each in FOUND)


def version(package):
    """The version of what an architecture was built by."""
    name = package.split(".")[0].replace("_", "-")
    return f"{name} {importlib.metadata.version(name)}"
