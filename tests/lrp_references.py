"""The LRP rules written out in float64 NumPy, on layers written out as matrices.

Nothing here knows kvis2 or TensorFlow. A layer is `z = a @ W + b` with `W[j, k]` from input j to
output k, both flattened; `links[j, k]` is 1 where the layer connects j with k.
"""

from itertools import product

import numpy as np

# -- layers as matrices ---------------------------------------------------------------------------


def convolution_matrix(shape, kernel, strides=1, same=False, dilation=1, groups=1):
    """`(W, output shape)` of a convolution in any number of dimensions.

    Args:
        shape: `(*space, channels)` of the input.
        kernel: `(*window, channels / groups, filters)`.
    """
    space, window = shape[:-1], kernel.shape[:-2]
    filters = kernel.shape[-1]
    reach = [(k - 1) * dilation + 1 for k in window]
    if same:
        out_space = [-(-n // strides) for n in space]
        pads = [
            max((o - 1) * strides + r - n, 0) // 2
            for o, r, n in zip(out_space, reach, space, strict=True)
        ]
    else:
        out_space = [(n - r) // strides + 1 for n, r in zip(space, reach, strict=True)]
        pads = [0] * len(space)
    out_shape = (*out_space, filters)
    matrix = np.zeros((int(np.prod(shape)), int(np.prod(out_shape))))
    for out in product(*map(range, out_shape)):
        *position, filter_ = out
        group = filter_ // (filters // groups)
        for tap in product(*map(range, window)):
            source = [
                p * strides + t * dilation - pad
                for p, t, pad in zip(position, tap, pads, strict=True)
            ]
            if not all(0 <= s < n for s, n in zip(source, space, strict=True)):
                continue
            for channel in range(kernel.shape[-2]):
                j = np.ravel_multi_index((*source, group * kernel.shape[-2] + channel), shape)
                k = np.ravel_multi_index(out, out_shape)
                matrix[j, k] += kernel[(*tap, channel, filter_)]
    return matrix, out_shape


def depthwise_matrix(shape, kernel, strides=1, same=False):
    """`(W, output shape)` of a depthwise convolution, kernel `(*window, channels, multiplier)`."""
    channels, multiplier = kernel.shape[-2:]
    # The same as one group for each channel, whose filters stand side by side.
    grouped = kernel.reshape(*kernel.shape[:-2], 1, channels * multiplier)
    return convolution_matrix(shape, grouped, strides, same, groups=channels)


def transposed_matrix(shape, kernel, strides):
    """`(W, output shape)` of a valid transposed convolution, kernel `(*window, filters, channels)`.

    It is the transpose of the convolution that leads from its output back to its input.
    """
    out_space = [(n - 1) * strides + k for n, k in zip(shape[:-1], kernel.shape[:-2], strict=True)]
    out_shape = (*out_space, kernel.shape[-2])
    matrix, _ = convolution_matrix(out_shape, kernel, strides)
    return matrix.T, out_shape


# -- rules: relevance (in,) from inputs a (in,), W (in, out), b (out,) and relevance R (out,) ------


def positive(values):
    return np.where(values > 0, values, 0.0)


def negative(values):
    return np.where(values < 0, values, 0.0)


def shared(contributions, bias, relevance):
    """`R_j = sum_k c_jk / (sum_j c_jk + b_k) R_k`; nothing where nothing contributes."""
    result = np.zeros(len(contributions))
    for k in range(len(relevance)):
        total = contributions[:, k].sum() + bias[k]
        for j in range(len(contributions)):
            if contributions[j, k] != 0:
                result[j] += contributions[j, k] / total * relevance[k]
    return result


def epsilon(a, W, b, R, links, epsilon):
    result = np.zeros(len(a))
    for j, k in np.ndindex(W.shape):
        z = a @ W[:, k] + b[k]
        result[j] += a[j] * W[j, k] / (z + epsilon * (1 if z >= 0 else -1)) * R[k]
    return result


def alpha_beta(a, W, b, R, links, alpha, beta):
    contributions = a[:, None] * W
    plus = shared(positive(contributions), positive(b), R)
    return alpha * plus - beta * shared(negative(contributions), negative(b), R)


def z_plus(a, W, b, R, links):
    return alpha_beta(a, W, b, R, links, 1, 0)


def gamma(a, W, b, R, links, gamma):
    """Contributions and biases of the sign of the output count 1 + gamma times."""
    result = np.zeros(len(a))
    for k in range(len(R)):
        terms = np.append(a * W[:, k], b[k])
        agreeing = terms > 0 if terms.sum() >= 0 else terms < 0
        weighted = terms * (1 + gamma * agreeing)
        result += weighted[:-1] / weighted.sum() * R[k]
    return result


def flat(a, W, b, R, links):
    return shared(links, np.zeros(len(R)), R)


def w_square(a, W, b, R, links):
    return shared(W**2, np.zeros(len(R)), R)


def z_box(a, W, b, R, links, low, high):
    contributions = a[:, None] * W - low * positive(W) - high * negative(W)
    return shared(contributions, np.zeros(len(R)), R)
