"""A small net whose forward and backward pass are written out in NumPy, and its Keras twin.

Only `TinyNet.as_keras` knows Keras; the gradients owe nothing to TensorFlow.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from references import Array, relu, softmax


def convolve(images: Array, kernel: Array, bias: Array) -> Array:
    """Valid 3x3 (or any size) cross-correlation with stride 1, one window after the other."""
    samples, height, width, _ = images.shape
    rows, columns, _, filters = kernel.shape
    out = np.zeros((samples, height - rows + 1, width - columns + 1, filters))
    for n, y, x, f in np.ndindex(out.shape):
        window = images[n, y : y + rows, x : x + columns, :]
        out[n, y, x, f] = np.sum(window * kernel[..., f]) + bias[f]
    return out


def convolve_backward(upstream: Array, kernel: Array) -> Array:
    """Gradient of `sum(upstream * convolve(images, kernel, bias))` to the images."""
    samples, height, width, _ = upstream.shape
    rows, columns, channels, _ = kernel.shape
    gradient = np.zeros((samples, height + rows - 1, width + columns - 1, channels))
    for n, y, x, f in np.ndindex(upstream.shape):
        gradient[n, y : y + rows, x : x + columns, :] += upstream[n, y, x, f] * kernel[..., f]
    return gradient


class Activations(NamedTuple):
    """Forward values of a `TinyNet`, from the input to the logits."""

    images: Array
    pre1: Array
    conv1: Array
    pre2: Array
    conv2: Array
    logits: Array


class Gradients(NamedTuple):
    """Gradients of one logit per sample to the forward values of the same name."""

    images: Array
    pre1: Array
    conv1: Array
    pre2: Array
    conv2: Array


class TinyNet(NamedTuple):
    """conv 3x3 -> ReLU -> conv 3x3 -> ReLU -> global average -> dense, with softmax in Keras.

    The gradient is constant over space at `conv2` and varies over space at `conv1`.
    """

    kernel1: Array
    bias1: Array
    kernel2: Array
    bias2: Array
    dense: Array
    bias: Array

    @classmethod
    def random(cls, seed: int = 0, channels: int = 2, classes: int = 3) -> "TinyNet":
        draw = np.random.default_rng(seed).normal
        return cls(
            draw(0.0, 0.5, (3, 3, channels, 4)),
            draw(0.0, 0.3, 4),
            draw(0.0, 0.5, (3, 3, 4, 5)),
            draw(0.0, 0.3, 5),
            draw(0.0, 0.3, (5, classes)),
            draw(0.0, 0.3, classes),
        )

    def head(self, conv1: Array) -> Array:
        """The logits as a function of the first feature map (for ablations)."""
        conv2 = relu(convolve(conv1, self.kernel2, self.bias2))
        return conv2.mean(axis=(1, 2)) @ self.dense + self.bias

    def forward(self, images: NDArray[Any]) -> Activations:
        inputs = np.asarray(images, np.float64)
        pre1 = convolve(inputs, self.kernel1, self.bias1)
        pre2 = convolve(relu(pre1), self.kernel2, self.bias2)
        return Activations(inputs, pre1, relu(pre1), pre2, relu(pre2), self.head(relu(pre1)))

    def probabilities(self, images: NDArray[Any]) -> Array:
        return softmax(self.forward(images).logits)

    def gradients(self, images: NDArray[Any], classes: Sequence[int]) -> Gradients:
        """Backward pass of the logit `classes[n]` of sample `n`."""
        values = self.forward(images)
        _, height, width, _ = values.conv2.shape
        per_position = self.dense[:, list(classes)].T / (height * width)
        conv2 = np.ones_like(values.conv2) * per_position[:, None, None, :]
        pre2 = conv2 * (values.pre2 > 0)
        conv1 = convolve_backward(pre2, self.kernel2)
        pre1 = conv1 * (values.pre1 > 0)
        return Gradients(convolve_backward(pre1, self.kernel1), pre1, conv1, pre2, conv2)

    def as_keras(self, height: int, width: int) -> Any:
        """The same net as a Keras model, its layers named like the fields of `Activations`."""
        import keras

        model = keras.Sequential(
            [
                keras.Input((height, width, self.kernel1.shape[2])),
                keras.layers.Conv2D(self.kernel1.shape[3], 3, name="pre1"),
                keras.layers.ReLU(name="conv1"),
                keras.layers.Conv2D(self.kernel2.shape[3], 3, name="pre2"),
                keras.layers.ReLU(name="conv2"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(len(self.bias), activation="softmax", name="predictions"),
            ]
        )
        model.set_weights(list(self))
        return model


class Case(NamedTuple):
    """A net, its Keras twin, and one class per image, with both passes done by hand."""

    net: TinyNet
    model: Any
    images: NDArray[np.float32]
    classes: list[int]
    values: Activations
    gradients: Gradients

    @classmethod
    def of(cls, net: TinyNet, seed: int = 64, classes: Sequence[int] = (0, 2, 1)) -> "Case":
        shape = (len(classes), 7, 9, net.kernel1.shape[2])
        images = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        values, gradients = net.forward(images), net.gradients(images, classes)
        return cls(net, net.as_keras(7, 9), images, list(classes), values, gradients)

    def logit(self, images: NDArray[Any]) -> Array:
        return self.net.forward(images).logits[np.arange(len(images)), self.classes]

    def probability(self, images: NDArray[Any]) -> Array:
        return self.net.probabilities(images)[np.arange(len(images)), self.classes]
