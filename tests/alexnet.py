"""A small AlexNet with its passes written out in NumPy, and its Keras twin.

Features: conv 11x11/4, pool 3x3/2, conv 5x5, pool, three conv 3x3, pool, each convolution with a
ReLU; then two dense layers. Forward, backward and relevance owe nothing to TensorFlow; only
`AlexNet.as_keras` knows Keras. Arrays are float64 `(samples, height, width, channels)`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from references import Array, relu, softmax

# The layers in order: for a convolution its kernel size, stride, padding and filters.
CONVOLUTIONS = {
    "conv1": (11, 4, 0, 4),
    "conv2": (5, 1, 2, 6),
    "conv3": (3, 1, 1, 6),
    "conv4": (3, 1, 1, 5),
    "conv5": (3, 1, 1, 5),
}
LAYERS = (
    "conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5",
    "flat", "dense1", "logits",
)  # fmt: skip
SIZE = (83, 75)  # not square; conv1 19 x 17, pool1 9 x 8, pool2 to conv5 4 x 3, pool5 1 x 1
HIDDEN, CLASSES = 8, 4


def convolve(images: Array, kernel: Array, bias: Any, stride: int, padding: int) -> Array:
    """Cross-correlation, one tap of the kernel after the other."""
    padded = np.pad(images, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    size = kernel.shape[0]
    height, width = ((n - size) // stride + 1 for n in padded.shape[1:3])
    total = np.zeros((len(images), height, width, kernel.shape[3])) + bias
    for y, x in np.ndindex(size, size):
        rows, columns = slice(y, y + stride * height, stride), slice(x, x + stride * width, stride)
        total += padded[:, rows, columns] @ kernel[y, x]
    return total


def convolve_backward(
    upstream: Array, kernel: Array, shape: tuple[int, ...], stride: int, padding: int
) -> Array:
    """Gradient of `sum(upstream * convolve(images, ...))` to images of this shape."""
    samples, height, width, channels = shape
    gradient = np.zeros((samples, height + 2 * padding, width + 2 * padding, channels))
    size, (high, wide) = kernel.shape[0], upstream.shape[1:3]
    for y, x in np.ndindex(size, size):
        rows, columns = slice(y, y + stride * high, stride), slice(x, x + stride * wide, stride)
        gradient[:, rows, columns] += upstream @ kernel[y, x].T
    return gradient[:, padding : padding + height, padding : padding + width]


def windows(images: Array) -> Array:
    """The nine values under each 3x3 window of stride 2, `(9, samples, ...)`."""
    height, width = ((n - 3) // 2 + 1 for n in images.shape[1:3])
    return np.stack(
        [
            images[:, y : y + 2 * height : 2, x : x + 2 * width : 2]
            for y, x in np.ndindex(3, 3)
        ]
    )  # fmt: skip


def pool_backward(images: Array, upstream: Array) -> Array:
    """What flows back through max pooling: all to the winner of each window."""
    winners = windows(images).argmax(axis=0)
    gradient = np.zeros(images.shape)
    for n, y, x, c in np.ndindex(upstream.shape):
        row, column = divmod(winners[n, y, x, c], 3)
        gradient[n, 2 * y + row, 2 * x + column, c] += upstream[n, y, x, c]
    return gradient


class AlexNet(NamedTuple):
    """The weights of each layer that has some: `{name: (kernel, bias)}`."""

    weights: Mapping[str, tuple[Array, Array]]

    @classmethod
    def random(cls, seed: int = 0) -> "AlexNet":
        draw = np.random.default_rng(seed).normal
        weights, channels = {}, 3
        for name, (size, _, _, filters) in CONVOLUTIONS.items():
            deviation = (2.0 / (size * size * channels)) ** 0.5
            weights[name] = (
                draw(0.0, deviation, (size, size, channels, filters)),
                draw(0.0, 0.1, filters),
            )
            channels = filters
        for name, inputs, units in (("dense1", channels, HIDDEN), ("logits", HIDDEN, CLASSES)):
            weights[name] = (draw(0.0, 0.7, (inputs, units)), draw(0.0, 0.1, units))
        return cls(weights)

    def affine(self, name: str, inputs: Array, weights: Any = None) -> Array:
        """What enters the activation of a layer."""
        kernel, bias = self.weights[name] if weights is None else weights
        if name in CONVOLUTIONS:
            _, stride, padding, _ = CONVOLUTIONS[name]
            return convolve(inputs, kernel, bias, stride, padding)
        return inputs @ kernel + bias

    def affine_backward(
        self, name: str, inputs: Array, upstream: Array, kernel: Any = None
    ) -> Array:
        """Gradient of `sum(upstream * affine(name, inputs))` to the inputs."""
        kernel = self.weights[name][0] if kernel is None else kernel
        if name in CONVOLUTIONS:
            _, stride, padding, _ = CONVOLUTIONS[name]
            return convolve_backward(upstream, kernel, inputs.shape, stride, padding)
        return upstream @ kernel.T

    def forward(self, output: NDArray[Any], start: str = "images") -> dict[str, Array]:
        """The output of each layer by its name, the images as "images", and "pre_" values.

        `"pre_conv3"` is what enters the ReLU of conv3.

        Args:
            output: Of the layer `start`: the images.
            start: The layers after this one are run.
        """
        output = np.asarray(output, np.float64)
        values = {start: output}
        for name in LAYERS[LAYERS.index(start) + 1 if start in LAYERS else 0 :]:
            if name in self.weights:
                values[f"pre_{name}"] = self.affine(name, output)
                output = values[f"pre_{name}"]
                output = output if name == "logits" else relu(output)
            elif name == "flat":
                output = output.reshape(len(output), -1)
            else:
                output = windows(output).max(axis=0)
            values[name] = output
        return values

    def probabilities(self, images: NDArray[Any]) -> Array:
        return softmax(self.forward(images)["logits"])

    def backward(
        self, values: Mapping[str, Array], upstream: Array, start: str, guided: bool = False
    ) -> dict[str, Array]:
        """Gradients by the images and by the output of each layer below `start`.

        Args:
            values: Of the forward pass.
            upstream: The gradient by what enters the activation of `start` (by its output, for
                a pool or the logits).
            start: The name of a layer.
            guided: Whether each ReLU lets only positive gradients through.
        """
        names = ["images", *LAYERS[: LAYERS.index(start) + 1]]
        gradients: dict[str, Array] = {}
        for name, below in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if name in self.weights:
                upstream = self.affine_backward(name, values[below], upstream)
            elif name == "flat":
                upstream = upstream.reshape(values[below].shape)
            else:
                upstream = pool_backward(values[below], upstream)
            gradients[below] = upstream
            if below in self.weights:
                upstream = (relu(upstream) if guided else upstream) * (values[below] > 0)
        return gradients

    def of_class(
        self, values: Mapping[str, Array], label: int, guided: bool = False
    ) -> dict[str, Array]:
        """Gradients of the score of a class before the softmax."""
        upstream = np.zeros_like(values["logits"])
        upstream[:, label] = 1.0
        return self.backward(values, upstream, "logits", guided)

    def relevance(self, values: Mapping[str, Array], label: int) -> dict[str, Array]:
        """cnn-visualizations, II.7: relevance at the output of each layer.

        `z_k = sum_j a_j rho(w_jk) + rho(b_k) + 1e-9`, `R_j = a_j sum_k rho(w_jk) R_k / z_k`,
        `rho(v) = v + 0.05 max(v, 0)`; a pool gives all to the winner.
        """
        relevance = np.zeros_like(values["logits"])
        relevance[:, label] = values["logits"][:, label]
        found = {}
        for name, below in zip(reversed(LAYERS[1:]), reversed(LAYERS[:-1]), strict=True):
            inputs = values[below]
            if name in self.weights:
                rho = [each + 0.05 * relu(each) for each in self.weights[name]]
                shares = relevance / (self.affine(name, inputs, rho) + 1e-9)
                relevance = inputs * self.affine_backward(name, inputs, shares, rho[0])
            elif name == "flat":
                relevance = relevance.reshape(inputs.shape)
            else:
                relevance = pool_backward(inputs, relevance)
            found[below] = relevance
        return found

    def as_keras(self) -> Any:
        """The same net as a Keras model with fused ReLUs, its layers of the same names."""
        import keras

        layers = keras.layers
        stack: list[Any] = [keras.Input((*SIZE, 3))]
        for name in LAYERS:
            if name in CONVOLUTIONS:
                size, stride, padding, filters = CONVOLUTIONS[name]
                border = "same" if padding else "valid"
                stack.append(
                    layers.Conv2D(filters, size, stride, border, activation="relu", name=name)
                )
            elif name == "flat":
                stack.append(layers.Flatten(name=name))
            elif name == "dense1":
                stack.append(layers.Dense(HIDDEN, activation="relu", name=name))
            elif name == "logits":
                stack.append(layers.Dense(CLASSES, activation="softmax", name=name))
            else:
                stack.append(layers.MaxPooling2D(3, 2, name=name))
        model = keras.Sequential(stack)
        model.set_weights([each for pair in self.weights.values() for each in pair])
        return model
