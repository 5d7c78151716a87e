"""The least that each method needs, written plainly: one compiled pass at the best chunk size.

No explainer is here: a floor is the forward and backward passes alone. What they yield is made
into a map in `result`, which is not timed and is what all rivals are compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.models import linear
from benchmarks.workers.protocol import Prepared, Task, ranking_maps

Pass = Callable[[Any, Any], list[tf.Tensor]]


def gradcam(task: Task) -> Prepared:
    """Activations of a layer and the gradients there."""
    model = linear(task.model)
    both = keras.Model(model.input, [model.get_layer(task.layer).output, model.output])

    @tf.function(autograph=False)
    def step(images: tf.Tensor, classes: tf.Tensor) -> list[tf.Tensor]:
        activations, logits = both(images, training=False)
        score = tf.gather(logits, classes, batch_dims=1)
        return [activations, tf.gradients(score, activations)[0]]

    images, classes = tf.constant(task.images), tf.constant(task.classes)

    def result() -> np.ndarray:
        activations, gradients = (each.numpy() for each in step(images, classes))
        weights = gradients.mean(axis=(1, 2), keepdims=True)
        return np.maximum((weights * activations).sum(axis=-1), 0)

    return Prepared(lambda: _finished(step(images, classes)), result)


def saliency(task: Task) -> Prepared:
    """The gradient by the input."""
    step = _input_gradient(linear(task.model))
    images, classes = tf.constant(task.images), tf.constant(task.classes)
    return Prepared(
        lambda: _finished(step(images, classes)),
        lambda: _largest(step(images, classes)[0].numpy()),
    )


def guided(task: Task) -> Prepared:
    """The same, with other gradients of the ReLUs."""
    model = linear(task.model)
    for layer in model.layers:
        if getattr(layer, "activation", None) is keras.activations.relu:
            layer.activation = _guided_relu
        elif isinstance(layer, keras.layers.ReLU):
            layer.call = _guided_relu if layer.max_value is None else _guided_relu6
    return saliency(task)


@tf.custom_gradient
def _guided_relu(x: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tf.Tensor]]:
    y = tf.nn.relu(x)
    return y, lambda up: tf.raw_ops.ReluGrad(gradients=tf.nn.relu(up), features=y)


@tf.custom_gradient
def _guided_relu6(x: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tf.Tensor]]:
    y = tf.nn.relu6(x)
    return y, lambda up: tf.raw_ops.Relu6Grad(gradients=tf.nn.relu(up), features=y)


def smoothgrad(task: Task) -> Prepared:
    """As many gradients as there are noisy copies."""
    step = _input_gradient(linear(task.model))
    rows = task.options["samples"] * len(task.images)
    return Prepared(
        _chunks(step, task, rows),
        lambda: _largest(step(task.images, task.classes)[0].numpy()),  # without noise
    )


def integrated(task: Task) -> Prepared:
    """As many gradients as there are steps, from a black image, by Gauss and Legendre's rule."""
    step = _input_gradient(linear(task.model))
    count = task.options["samples"]

    def result() -> np.ndarray:
        total = np.zeros_like(task.images)
        for point, weight in zip(*np.polynomial.legendre.leggauss(count), strict=True):
            part = np.float32((point + 1) / 2)
            gradient = step(part * task.images, task.classes)[0].numpy()
            total += np.float32(weight / 2) * gradient
        return _largest(task.images * total)

    return Prepared(_chunks(step, task, count * len(task.images)), result)


def scorecam(task: Task) -> Prepared:
    """As many forward passes as there are channels."""
    model = task.model
    both = keras.Model(model.input, [model.get_layer(task.layer).output, model.output])
    size = task.images.shape[1:3]

    @tf.function(autograph=False)
    def step(images: tf.Tensor, classes: tf.Tensor) -> list[tf.Tensor]:
        return [tf.gather(model(images, training=False), classes, batch_dims=1)]

    def weighted(image: np.ndarray, label: int, activations: np.ndarray) -> np.ndarray:
        variances = activations.var(axis=(0, 1))
        chosen = np.argsort(-variances)[: task.options["channels"]]
        weights = np.zeros(activations.shape[-1])
        for start in range(0, len(chosen), _rows(image)):
            channels = chosen[start : start + _rows(image)]
            masks = np.asarray(tf.image.resize(activations[..., channels], size))
            low, high = masks.min(axis=(0, 1)), masks.max(axis=(0, 1))
            # A channel that is constant is a mask of zeros, which the method does not weigh.
            span = np.where(high > low, high - low, 1)
            seen = np.moveaxis((masks - low) / span, -1, 0)[..., None] * image
            scores = step(seen.astype(np.float32), np.full(len(channels), label))[0]
            weights[channels] = np.where(high > low, scores, 0)
        return np.maximum((weights * activations).sum(axis=-1), 0)

    def result() -> np.ndarray:
        activations = both(task.images, training=False)[0].numpy()
        triples = zip(task.images, task.classes, activations, strict=True)
        return np.stack([weighted(*each) for each in triples])

    return Prepared(_chunks(step, task, task.options["channels"] * len(task.images)), result)


def lrp(task: Task) -> Prepared:
    """One gradient. LRP-0 of a ReLU network without biases is input times gradient."""
    step = _input_gradient(linear(task.model))
    images, classes = tf.constant(task.images), tf.constant(task.classes)

    def result() -> np.ndarray:
        return (task.images * step(images, classes)[0].numpy()).sum(axis=-1)

    return Prepared(lambda: _finished(step(images, classes)), result)


def maximization(task: Task) -> Prepared:
    """As many gradients of one image as there are steps: ascent with a rate of 0.1."""
    step = _input_gradient(linear(task.model))
    images, classes = tf.constant(task.images), tf.constant(task.classes)
    count = task.options["steps"]

    def run() -> None:
        for _ in range(count):
            _finished(step(images, classes))

    def result() -> np.ndarray:
        moving = task.images
        for _ in range(count):
            moving = moving + np.float32(0.1) * step(moving, task.classes)[0].numpy()
        return reached(task, moving)

    return Prepared(run, result)


def reached(task: Task, images: np.ndarray) -> np.ndarray:
    """How far an ascent came: the logit of its class for each image, `(batch,)`."""
    dense = task.model.layers[-1]
    features = keras.Model(task.model.input, dense.input).predict(images, verbose=0)
    logits = features @ dense.kernel.numpy() + dense.bias.numpy()
    return logits[np.arange(len(images)), task.classes]


def deletion(task: Task) -> Prepared:
    """As many forward passes as there are steps, and one."""
    return _removed_or_shown(task, shows=False)


def insertion(task: Task) -> Prepared:
    """The same."""
    return _removed_or_shown(task, shows=True)


def _removed_or_shown(task: Task, shows: bool) -> Prepared:
    step, steps = _probability(task.model), task.options["steps"]
    maps = ranking_maps(task.images).reshape(len(task.images), -1)

    def result() -> np.ndarray:
        places = np.argsort(np.argsort(-maps, axis=1), axis=1).reshape(task.images.shape[:3])
        curve = []
        for count in np.arange(steps + 1) * maps.shape[1] // steps:
            shown = ((places < count) == shows)[..., None]
            curve.append(step(np.where(shown, task.images, 0), task.classes)[0].numpy())
        return (np.array(curve[1:]) + np.array(curve[:-1])).mean(axis=0) / 2

    return Prepared(_chunks(step, task, (steps + 1) * len(task.images)), result)


def road(task: Task) -> Prepared:
    """Two forward passes for each fraction; the systems of equations are solved in `result`."""
    step, count = _probability(task.model), task.options["fractions"]
    maps = ranking_maps(task.images)

    def result() -> np.ndarray:
        scores = []
        for part in range(1, count + 1):
            removed = int(maps[0].size * part / (count + 1))
            holes = [each >= np.sort(each.ravel())[-removed] for each in maps]
            filled = [_imputed(*each) for each in zip(task.images, holes, strict=True)]
            scores.append(step(np.stack(filled), task.classes)[0].numpy())
        return np.mean(scores, axis=0)

    return Prepared(_chunks(step, task, 2 * count * len(task.images)), result)


def _imputed(image: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Missing pixels as weighted means of their neighbours, by a direct solver."""
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    number = np.full(np.add(missing.shape, 2), -2)
    number[1:-1, 1:-1] = np.where(missing, np.cumsum(missing).reshape(missing.shape) - 1, -1)
    padded = np.pad(image, [(1, 1), (1, 1), (0, 0)]).astype(np.float64)
    rows, columns = np.nonzero(missing)
    count = len(rows)
    wanted, diagonal = np.zeros((count, image.shape[-1])), np.zeros(count)
    entries: list[list[np.ndarray]] = [[], [], []]
    for y, x in ((y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)):
        weight = 1 / 6 if y == 1 or x == 1 else 1 / 12
        near = number[rows + y, columns + x]
        diagonal += weight * (near > -2)
        wanted += weight * (near == -1)[:, None] * padded[rows + y, columns + x]
        inside = np.flatnonzero(near >= 0)
        for each, values in zip(entries, (inside, near[inside], inside * 0 - weight), strict=True):
            each.append(values)
    own = np.arange(count)
    places = [np.concatenate([*each, own]) for each in entries[:2]]
    values = np.concatenate([*entries[2], diagonal])
    matrix = sparse.csc_matrix((values, places), shape=(count, count))
    filled = image.copy()
    filled[missing] = spsolve(matrix, wanted)
    return filled


def _probability(model: keras.Model) -> Pass:
    @tf.function(autograph=False)
    def step(images: tf.Tensor, classes: tf.Tensor) -> list[tf.Tensor]:
        return [tf.gather(model(images, training=False), classes, batch_dims=1)]

    return step


METHODS = {
    "gradcam": gradcam,
    "saliency": saliency,
    "guided": guided,
    "smoothgrad": smoothgrad,
    "integrated": integrated,
    "scorecam": scorecam,
    "lrp": lrp,
    "maximization": maximization,
    "deletion": deletion,
    "insertion": insertion,
    "road": road,
}


def _input_gradient(model: keras.Model) -> Pass:
    @tf.function(autograph=False)
    def step(images: tf.Tensor, classes: tf.Tensor) -> list[tf.Tensor]:
        score = tf.gather(model(images, training=False), classes, batch_dims=1)
        return tf.gradients(score, images)

    return step


def _chunks(step: Pass, task: Task, rows: int) -> Callable[[], None]:
    """Runs a pass over so many rows, the given images over and over again, in even chunks."""
    count = -(-rows // _rows(task.images[0]))
    size = -(-rows // count)
    repeats = -(-size // len(task.images))
    images = tf.constant(np.concatenate([task.images] * repeats)[:size])
    classes = tf.constant(np.concatenate([task.classes] * repeats)[:size])
    last = rows - size * (count - 1)

    def run() -> None:
        for _ in range(count - 1):
            _finished(step(images, classes))
        _finished(step(images[:last], classes[:last]))

    return run


def _rows(image: np.ndarray) -> int:
    """The chunk that was seen to be fastest: 16 rows of 224 x 224, 128 of 32 x 32."""
    return 16 if image.shape[0] > 64 else 128


def _finished(tensors: list[tf.Tensor]) -> None:
    for each in tensors:
        each.numpy()


def _largest(gradient: np.ndarray) -> np.ndarray:
    return np.abs(gradient).max(axis=-1)
