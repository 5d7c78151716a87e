"""Slow float64 NumPy versions of the papers' equations, written to be compared with kvis2.

Nothing here knows kvis2 or TensorFlow. Shapes: activations and gradients
`(samples, height, width, channels)`, maps `(samples, height, width)`. Maps are raw: neither
resized nor normalised, unless the function says so.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def relu(values: Array) -> Array:
    return np.where(values > 0, values, 0.0)


def softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def ratio(numerator: Array, denominator: Array) -> Array:
    """`numerator / denominator`, and 0 where the numerator is 0, 0 / 0 included."""
    safe = np.where(numerator == 0, 1.0, denominator)
    return np.where(numerator == 0, 0.0, numerator / safe)


# -- the CAM family -------------------------------------------------------------------------------


def weighted_sum(weights: Array, activations: Array) -> Array:
    """`sum_k w_k A_k` for weights per channel, `(samples, channels)`."""
    cam = np.zeros(activations.shape[:-1])
    for n, k in np.ndindex(weights.shape):
        cam[n] += weights[n, k] * activations[n, ..., k]
    return cam


def cam(activations: Array, dense_column: Array) -> Array:
    """Zhou 2016: `sum_k w_k^c A_k`, `w^c` the dense weights after the global average."""
    samples = len(activations)
    return weighted_sum(np.tile(dense_column, (samples, 1)), activations)


def grad_cam(activations: Array, gradients: Array) -> Array:
    """Selvaraju 2017, eq. 1 and 2: `ReLU(sum_k mean_ij(G_k) A_k)`."""
    return relu(weighted_sum(gradients.mean(axis=(1, 2)), activations))


def grad_cam_plus_plus_weights(activations: Array, gradients: Array) -> tuple[Array, Array]:
    """Chattopadhay 2018: `alpha_ijk` (eq. 19) and `relu(G)`, without the factor `exp(score)`.

    With `Y = exp(S)` and a piecewise linear net the n-th derivative of `Y` is `exp(S) G^n`, so
    `alpha = G^2 / (2 G^2 + sum_ab(A_ab) G^3)`. `exp(S)` cancels in alpha and multiplies the map
    of each sample by a positive number, which no normalised map shows.
    """
    total = activations.sum(axis=(1, 2), keepdims=True)
    alpha = ratio(gradients**2, 2 * gradients**2 + total * gradients**3)
    return alpha, relu(gradients)


def grad_cam_plus_plus(activations: Array, gradients: Array) -> Array:
    """Chattopadhay 2018: `ReLU(sum_k w_k A_k)`, `w_k = sum_ij alpha_ijk relu(G)`."""
    alpha, positive = grad_cam_plus_plus_weights(activations, gradients)
    return relu(weighted_sum((alpha * positive).sum(axis=(1, 2)), activations))


def smooth_grad_cam_plus_plus(activations: Array, noisy_gradients: Array) -> Array:
    """Omeiza 2019: Grad-CAM++ with `G`, `G^2` and `G^3` averaged over noisy inputs first.

    Args:
        activations: Of the clean input, `(samples, height, width, channels)`.
        noisy_gradients: `(draws, samples, height, width, channels)`.
    """
    first, second, third = ((noisy_gradients**power).mean(axis=0) for power in (1, 2, 3))
    total = activations.sum(axis=(1, 2), keepdims=True)
    alpha = ratio(second, 2 * second + total * third)
    return relu(weighted_sum((alpha * relu(first)).sum(axis=(1, 2)), activations))


def layer_cam(activations: Array, gradients: Array) -> Array:
    """Jiang 2021: `ReLU(sum_k relu(G_ijk) A_ijk)`."""
    return relu((relu(gradients) * activations).sum(axis=-1))


def x_grad_cam(activations: Array, gradients: Array) -> Array:
    """Fu 2020: `ReLU(sum_k w_k A_k)`, `w_k = sum_ij A_ijk G_ijk / sum_ij A_ijk`."""
    weights = ratio((activations * gradients).sum(axis=(1, 2)), activations.sum(axis=(1, 2)))
    return relu(weighted_sum(weights, activations))


def hires_cam(activations: Array, gradients: Array) -> Array:
    """Draelos 2020: `sum_k G_ijk A_ijk`; signed, since its faithfulness is the sum's."""
    return (activations * gradients).sum(axis=-1)


def seg_xres_cam(activations: Array, gradients: Array, size: int, pooling: str) -> Array:
    """Hasany 2023: `ReLU(sum_k P(G_k) A_k)`, `P` the maximum or mean of each block of positions."""
    weights = np.zeros_like(gradients)
    for n, y, x, k in np.ndindex(gradients.shape):
        top, left = y - y % size, x - x % size
        block = gradients[n, top : top + size, left : left + size, k]
        weights[n, y, x, k] = block.max() if pooling == "max" else block.mean()
    return relu((weights * activations).sum(axis=-1))


def opti_cam(
    images: Array,
    activations: Array,
    score: Callable[[Array], Array],
    steps: int,
    learning_rate: float,
    match: bool = False,
) -> Array:
    """Zhang 2024: Adam on the logits of the channels' weights, gradients by central differences.

    Args:
        images: `(samples, height, width, channels)`.
        activations: The layer's output.
        score: Images -> the score of each sample, `(samples,)`.
        steps: Number of steps.
        learning_rate: Their size.
        match: Whether the score of the image as it is is aimed at, and not the highest.
    """

    def map_of(logits: Array) -> Array:
        return relu(weighted_sum(softmax(logits), activations))

    def objective(logits: Array) -> Array:
        masks = normalize(resize(map_of(logits), images.shape[1:3]), "minmax")
        shown = score(images * masks[..., None])
        return -np.abs(score(images) - shown) if match else shown

    logits = np.zeros((len(images), activations.shape[-1]))
    first, second = np.zeros_like(logits), np.zeros_like(logits)
    for number in range(1, steps + 1):
        gradient = np.zeros_like(logits)
        for k in range(logits.shape[1]):
            step = 1e-5 * np.eye(logits.shape[1])[k]
            gradient[:, k] = (objective(logits + step) - objective(logits - step)) / 2e-5
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        move = first / (1 - 0.9**number) / (np.sqrt(second / (1 - 0.999**number)) + 1e-8)
        logits = logits + learning_rate * move
    return map_of(logits)


def fem(activations: Array, deviations: float = 2.0) -> Array:
    """Fuad 2020: `sum_k mu_k [A_k > mu_k + 2 sigma_k]`."""
    maps = np.zeros(activations.shape[:-1])
    for n, sample in enumerate(activations):
        for k in range(sample.shape[-1]):
            channel = sample[..., k]
            far = channel > channel.mean() + deviations * channel.std()
            maps[n] += channel.mean() * far
    return maps


def recipro_cam(
    activations: Array, score: Callable[[Array], Array], gaussian: bool = True
) -> Array:
    """Byun 2024: `score(A * m_ij)` for every position, `m_ij` a 3 x 3 Gaussian or ij alone.

    Args:
        activations: The layer's output.
        score: Activations of the layer -> probability of each sample's class, `(samples,)`.
        gaussian: Whether the neighbours are shown as well.
    """
    kernel = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    samples, height, width, _ = activations.shape
    maps = np.zeros((samples, height, width))
    for y, x in np.ndindex(height, width):
        mask = np.zeros((height + 2, width + 2))
        if gaussian:
            mask[y : y + 3, x : x + 3] = kernel
        else:
            mask[y + 1, x + 1] = 1
        maps[:, y, x] = score(activations * mask[1:-1, 1:-1, None])
    return maps


def first_projection(features: Array) -> Array:
    """Each sample's `(positions, channels)` matrix times its first right singular vector.

    A singular vector has no sign. Here the map agrees with the plain sum over the channels:
    `sum_ij map_ij sum_k X_ijk >= 0`. For `X >= 0` that is the sign in which the map is `>= 0`
    (Perron and Frobenius). The matrix is not centred, as in the paper.
    """
    maps = np.zeros(features.shape[:-1])
    for n, sample in enumerate(features):
        matrix = sample.reshape(-1, sample.shape[-1])
        _, vectors = np.linalg.eigh(matrix.T @ matrix)  # ascending eigenvalues
        projection = matrix @ vectors[:, -1]
        agreement = projection @ matrix.sum(axis=1)
        maps[n] = (projection if agreement >= 0 else -projection).reshape(sample.shape[:-1])
    return maps


def eigen_cam(activations: Array) -> Array:
    """Muhammad 2020: `A V_1` of `A = U S V^T`; it does not depend on the class."""
    return first_projection(activations)


def eigen_grad_cam(activations: Array, gradients: Array) -> Array:
    """Eigen-CAM of `A * G` (pytorch-grad-cam; no paper of its own), clipped at zero."""
    return relu(first_projection(activations * gradients))


def ablation_cam(activations: Array, score: Callable[[Array], Array]) -> Array:
    """Desai 2020: `ReLU(sum_k w_k A_k)`, `w_k = (y - y_k) / |y|`.

    The paper divides by `y`, which it takes to be positive.

    Args:
        activations: The layer's output.
        score: Activations of the layer -> the class score `(samples,)`; `y_k` is the score
            with map `k` set to zero.
    """
    complete = score(activations)
    weights = np.zeros((activations.shape[0], activations.shape[-1]))
    for k in range(activations.shape[-1]):
        ablated = activations.copy()
        ablated[..., k] = 0
        weights[:, k] = (complete - score(ablated)) / np.abs(complete)
    return relu(weighted_sum(weights, activations))


def score_cam(
    images: Array,
    activations: Array,
    score: Callable[[Array], Array],
    max_channels: int | None = None,
) -> Array:
    """Wang 2020 with the weights of the authors' code: `ReLU(sum_k p_c(X * M_k) A_k)`.

    `M_k` is map `k` upsampled to the input and min-max normalised; a constant map has no such
    mask and gets no weight. The paper's text goes further: the weight is the increase of
    confidence over a baseline, `s_k = f_c(X * M_k) - f_c(X_b)`, and in Algorithm 1 of the later
    version `softmax(s)` over the channels. The first version of the paper and the authors' code
    do neither and weigh by the probability of the class, as tf-keras-vis and kvis2 do.

    Args:
        images: `(samples, height, width, channels)`.
        activations: The layer's output.
        score: Images -> probability of each sample's class, `(samples,)`.
        max_channels: Only that many maps with the highest variance, chosen for each sample.
    """
    samples, *_, channels = activations.shape
    weights = np.zeros((samples, channels))
    for n in range(samples):
        variances = activations[n].var(axis=(0, 1))
        for k in np.argsort(-variances)[:max_channels]:
            mask = resize(activations[n : n + 1, ..., k], images.shape[1:3])
            if mask.max() > mask.min():
                mask = (mask - mask.min()) / (mask.max() - mask.min())
                masked = images.copy()
                masked[n] = images[n] * mask[0, ..., None]
                weights[n, k] = score(masked)[n]
    return relu(weighted_sum(weights, activations))


def full_grad(parts: Iterable[Array], size: Sequence[int]) -> Array:
    """Srinivas 2019 at the input's size: `sum_parts sum_c upsample(rescale(|part_c|))`.

    Args:
        parts: `x * dS/dx` and, for each layer with a bias, `b * dS/dz` with `z` the layer's
            output before its activation, each `(samples, height, width, channels)`. Together
            they add up to the score. `rescale` is min-max per sample and channel.
        size: Height and width of the input.
    """
    channels = [channel for part in parts for channel in np.moveaxis(np.abs(part), -1, 0)]
    return np.sum([resize(normalize(channel, "minmax"), size) for channel in channels], axis=0)


# -- gradients to the input -----------------------------------------------------------------------


def saliency(gradients: Array) -> Array:
    """Simonyan 2013, section 3: `max_c |dS/dx_c|`."""
    return np.abs(gradients).max(axis=-1)


def smooth_grad(images: Array, gradient: Callable[[Array], Array], noise: Array) -> Array:
    """Smilkov 2017: the signed mean of the gradients at `images + noise[i]`.

    Args:
        images: `(samples, height, width, channels)`.
        gradient: Images -> gradients of the same shape.
        noise: `(draws, *images.shape)`, already at its standard deviation (a fraction of each
            image's `max - min`).
    """
    return np.mean([gradient(images + one) for one in noise], axis=0)


def input_times_gradient(images: Array, gradients: Array) -> Array:
    """Shrikumar 2016: `sum_c x_c dS/dx_c`, signed."""
    return (images * gradients).sum(axis=-1)


def integrated_gradients(
    images: Array, baseline: Array, gradient: Callable[[Array], Array], steps: int
) -> Array:
    """Sundararajan 2017, per channel, by the midpoint rule (not a rule of kvis2)."""
    difference = images - baseline
    path = [gradient(baseline + (i + 0.5) / steps * difference) for i in range(steps)]
    return difference * np.mean(path, axis=0)


# -- from raw maps to what a user sees ------------------------------------------------------------


def resize(maps: Array, size: Sequence[int]) -> Array:
    """Multilinear resize with half-pixel centres for 1, 2 or 3 spatial axes after the batch.

    Output position `o` reads the source at `(o + 0.5) * old / new - 0.5`, held at the border.
    """
    maps = np.asarray(maps, np.float64)
    out = np.zeros((len(maps), *size))
    for position in np.ndindex(*size):
        target = (slice(None), *position)
        corners = []  # per axis: two (index, weight)
        for o, new, old in zip(position, size, maps.shape[1:], strict=True):
            place = min(max((o + 0.5) * old / new - 0.5, 0.0), old - 1.0)
            low = int(place)
            corners.append(((low, low + 1 - place), (min(low + 1, old - 1), place - low)))
        for corner in product(*corners):
            source = (slice(None), *(i for i, _ in corner))
            out[target] += maps[source] * np.prod([w for _, w in corner])
    return out


def normalize(maps: Array, mode: str = "image") -> Array:
    """By the largest magnitude ("image": per map; "batch": of all) or to 0..1 ("minmax")."""
    out = np.zeros(maps.shape)
    for n, one in enumerate(maps):
        if mode == "minmax":
            out[n] = ratio(one - one.min(), np.ptp(one))
        else:
            out[n] = ratio(one, np.abs(maps if mode == "batch" else one).max())
    return out


def assert_same(values: NDArray[Any], expected: Array, relative: float = 1e-4) -> None:
    """Equal up to a fraction of the largest expected value, which must not be zero."""
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(values, expected, rtol=relative, atol=relative * scale)
