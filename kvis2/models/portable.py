"""Gradients in forward operations, for runtimes that have no operations of gradients.

LiteRT, ONNX and OpenVINO know convolutions and pooling, and not what TensorFlow writes for their
gradients. Every gradient here is made of padding, slices, products, selections and forward
convolutions; sizes but that of the batch have to be known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from kvis2.models.feature_maps import ancestors
from kvis2.models.modifiers import Modifier
from kvis2.models.window_gradients import (
    average_pool_gradient,
    convolution_gradient,
    depthwise_gradient,
    known_sizes,
    max_pool_gradient,
    refused,
)

Gradient: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class PortableGradients(Modifier):
    r"""Express the gradients of the pass in forward operations; their values stay what they are.

    `kvis2.export` takes it for LiteRT, ONNX and OpenVINO, whose runtimes have no operations such
    as `ReluGrad`, `MaxPoolGrad` or `DepthwiseConv2dNativeBackpropInput`. A convolution's gradient
    is a convolution of the upstream, zeros between its values, with the kernel turned around;
    that of an activation is its derivative, written out; that of pooling goes back window by
    window, the first of equal maxima taking all, as in TensorFlow.

    Raises:
        ValueError: While a pass is traced, of an operation that has a gradient in TensorFlow and
            none in forward operations (mirrored padding, pooling over open sizes), by its name.

    Example:
        >>> portable = [LinearOutput(), PortableGradients()]
        >>> maps = GradCAM(model, layer="first", model_modifier=portable)(243, images)
    """

    def gradients(self) -> Mapping[str, str]:
        """The name of the gradient in forward operations for every type of operation."""
        return _NAMES


def _of_element(slope: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Gradient:
    """The gradient `upstream * slope(input, output)` of what works element by element."""
    return lambda operation, upstream: upstream * slope(operation.inputs[0], operation.outputs[0])


def _gated(open_: Callable[[tf.Tensor], tf.Tensor]) -> Gradient:
    """The gradient of a ReLU: the upstream where its output is not cut off."""
    return lambda operation, upstream: tf.where(
        open_(operation.outputs[0]), upstream, tf.zeros_like(upstream)
    )


def _leaky_relu(operation: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    return tf.where(operation.inputs[0] > 0, upstream, operation.get_attr("alpha") * upstream)


_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_SCALE_ALPHA = 1.7580993408473768599402175208123


def _selu(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.where(y < 0, y + _SELU_SCALE_ALPHA, _SELU_SCALE * tf.ones_like(y))


def _softmax(operation: tf.Operation, upstream: tf.Tensor) -> tf.Tensor:
    y = operation.outputs[0]
    return (upstream - tf.reduce_sum(upstream * y, -1, keepdims=True)) * y


# -- operations of two tensors that are broadcast ------------------------------------------------


def _summed_to(gradient: tf.Tensor, source: tf.Tensor) -> tf.Tensor:
    """A gradient summed over the axes along which `source` was broadcast."""
    missing = gradient.shape.rank - source.shape.rank
    pairs = enumerate(zip(source.shape, gradient.shape[missing:], strict=True), start=missing)
    stretched = [axis for axis, (own, whole) in pairs if own == 1 and whole != 1]
    if stretched:
        gradient = tf.reduce_sum(gradient, stretched, keepdims=True)
    return tf.reduce_sum(gradient, list(range(missing))) if missing else gradient


def _of_two(
    first: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
    second: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
) -> Gradient:
    """The gradients of what takes two tensors, each `(upstream, x, y) -> gradient`."""

    def gradient(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
        x, y = operation.inputs
        return [
            _summed_to(each(upstream, x, y), source) if _is_of_data(source) else None
            for each, source in ((first, x), (second, y))
        ]

    return gradient


def _is_of_data(tensor: tf.Tensor) -> bool:
    """Whether a tensor depends on an input of the graph, and not on weights and constants alone."""
    outside = {inner.ref(): outer for outer, inner in getattr(tensor.graph, "captures", ())}
    for operation in ancestors(tensor):
        if operation.type != "Placeholder" or operation.outputs[0].dtype == tf.resource:
            continue
        captured = outside.get(operation.outputs[0].ref())
        if captured is None or (tf.is_symbolic_tensor(captured) and _is_of_data(captured)):
            return True
    return False


def _chosen(is_first: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Gradient:
    return _of_two(
        lambda up, x, y: tf.where(is_first(x, y), up, tf.zeros_like(up)),
        lambda up, x, y: tf.where(is_first(x, y), tf.zeros_like(up), up),
    )


def _select(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    condition, x, y = operation.inputs
    zero = tf.zeros_like(upstream)
    pairs = ((x, tf.where(condition, upstream, zero)), (y, tf.where(condition, zero, upstream)))
    return [None, *(_summed_to(g, each) if _is_of_data(each) else None for each, g in pairs)]


def _bias_add(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    _check_weights(operation, operation.inputs[1])
    return [upstream, None]


def _check_weights(operation: tf.Operation, weights: tf.Tensor) -> None:
    if _is_of_data(weights):
        raise refused(operation, "whose weights are computed from the input")


# -- products -------------------------------------------------------------------------------------


def _matmul(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    x, w = operation.inputs
    names = {"MatMul": ("transpose_a", "transpose_b")}.get(operation.type, ("adj_x", "adj_y"))
    left, right = (operation.get_attr(each) for each in names)
    found: list[tf.Tensor | None] = [None, None]
    chosen = _one_hot(upstream)
    if _is_of_data(x):
        if chosen is not None and not (left or right or _is_of_data(w)) and w.shape.rank == 2:
            # A product with one-hot rows is a column of the weights. They are transposed first, as
            # LiteRT keeps them for the product itself, so that the file holds them once.
            indices, scale = chosen
            found[0] = tf.gather(tf.transpose(w), indices) * scale
        else:
            dx = tf.matmul(upstream, w, transpose_b=not right)
            found[0] = _summed_to(tf.linalg.matrix_transpose(dx) if left else dx, x)
    if _is_of_data(w):
        dw = tf.matmul(x, upstream, transpose_a=not left)
        found[1] = _summed_to(tf.linalg.matrix_transpose(dw) if right else dw, w)
    return found


def _one_hot(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor] | None:
    """Indices `(batch,)` and scale `(batch, 1)` of an upstream that is one-hot, as of a class."""
    while upstream.op.type in ("Identity", "Cast"):
        upstream = upstream.op.inputs[0]
    if upstream.op.type != "Mul":
        return None
    scale, rows = upstream.op.inputs
    if rows.op.type != "OneHot" or rows.shape.rank != 2 or scale.shape[1:] != [1]:
        return None
    return rows.op.inputs[0], scale


# -- operations that reduce and move ---------------------------------------------------------------


def _kept(operation: tf.Operation, tensor: tf.Tensor) -> tuple[tf.Tensor, list[int]]:
    """A reduced tensor with an axis of one for each that was reduced, and these axes."""
    rank = operation.inputs[0].shape.rank
    axes = tf.get_static_value(operation.inputs[1])
    if axes is None:
        raise refused(operation, "over axes that are computed")
    reduced = sorted({int(each) % rank for each in np.atleast_1d(axes)})
    if not operation.get_attr("keep_dims"):
        for axis in reduced:
            tensor = tf.expand_dims(tensor, axis)
    return tensor, reduced


def _sum(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    kept, _ = _kept(operation, upstream)
    return [tf.broadcast_to(kept, tf.shape(operation.inputs[0])), None]


def _mean(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    x = operation.inputs[0]
    kept, axes = _kept(operation, upstream)
    sizes = [x.shape[axis] for axis in axes]
    if any(each is None for each in sizes):
        raise refused(operation, "over sizes that are open")
    return [tf.broadcast_to(kept / float(np.prod(sizes)), tf.shape(x)), None]


def _largest(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    kept, axes = _kept(operation, upstream)
    best = tf.cast(operation.inputs[0] == _kept(operation, operation.outputs[0])[0], kept.dtype)
    return [kept / tf.reduce_sum(best, axes, keepdims=True) * best, None]


def _transpose(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    order = tf.get_static_value(operation.inputs[1])
    if order is None:
        raise refused(operation, "in an order that is computed")
    return [tf.transpose(upstream, np.argsort(order)), None]


def _concat(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    *parts, axis_input = operation.inputs
    axis = int(tf.get_static_value(axis_input)) % upstream.shape.rank
    lengths = [each.shape[axis] for each in parts]
    if any(each is None for each in lengths):
        raise refused(operation, "of parts whose sizes are open")
    ends = np.cumsum(lengths)
    return [
        *(
            _sliced(upstream, axis, int(end - n), int(end))
            for end, n in zip(ends, lengths, strict=True)
        ),
        None,
    ]


def _sliced(tensor: tf.Tensor, axis: int, start: int, stop: int) -> tf.Tensor:
    return tensor[(slice(None),) * axis + (slice(start, stop),)]


def _pad(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    x, *others = operation.inputs
    amounts = tf.get_static_value(others[0])
    for axis, (before, after) in enumerate(amounts):
        if before or after:
            size = known_sizes(operation, x, [axis])[0]
            upstream = _sliced(upstream, axis, int(before), int(before) + size)
    return [upstream, *[None] * len(others)]


def _strided_slice(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    x, *others = operation.inputs
    begin, end, strides = (tf.get_static_value(each) for each in others)
    if begin is None or end is None or strides is None or (strides != 1).any():
        raise refused(operation, "with steps, or of places that are computed")
    amounts, axis = [[0, 0]] * x.shape.rank, 0
    for index, (start, stop) in enumerate(zip(begin.tolist(), end.tolist(), strict=True)):
        if _has(operation, "ellipsis_mask", index):
            left = range(index + 1, len(begin))
            axis = x.shape.rank - sum(not _has(operation, "new_axis_mask", i) for i in left)
            continue
        if _has(operation, "new_axis_mask", index):
            upstream = tf.squeeze(upstream, [axis])
            continue
        shrunk = _has(operation, "shrink_axis_mask", index)
        start = None if _has(operation, "begin_mask", index) and not shrunk else start
        stop = None if _has(operation, "end_mask", index) and not shrunk else stop
        if shrunk:
            upstream, stop = tf.expand_dims(upstream, axis), int(begin[index]) + 1 or None
        if start is not None or stop is not None:
            (size,) = known_sizes(operation, x, [axis])
            first, last, _ = slice(start, stop).indices(size)
            amounts[axis] = [first, size - last]
        axis += 1
    return [tf.pad(upstream, amounts), None, None, None]


def _has(operation: tf.Operation, mask: str, index: int) -> bool:
    return bool(operation.get_attr(mask) >> index & 1)


def _resized(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    """Resizing is a matrix along each axis: its gradient is the transposed one."""
    sizes = known_sizes(operation, operation.inputs[0], [1, 2])
    target = known_sizes(operation, operation.outputs[0], [1, 2])
    options = {each: operation.get_attr(each) for each in ("align_corners", "half_pixel_centers")}
    resize = getattr(tf.raw_ops, operation.type)
    with tf.init_scope():  # What it makes of unit vectors is its matrix.
        rows, columns = (
            np.float32(
                resize(images=np.eye(n, dtype=np.float32)[None, :, :, None], size=size, **options)
            )
            for n, size in ((sizes[0], [target[0], sizes[0]]), (sizes[1], [target[1], sizes[1]]))
        )
    upstream = tf.einsum("bhwc,hy->bywc", upstream, rows[0, :, :, 0])
    return [tf.einsum("bhwc,wx->bhxc", upstream, columns[0, :, :, 0]), None]


# -- convolutions, pooling and normalisation -------------------------------------------------------


def _with_weights(compute: Callable[[tf.Operation, tf.Tensor], tf.Tensor]) -> Gradient:
    """The gradient of a layer by its input; its weights are not asked for."""

    def gradient(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
        for each in operation.inputs[1:]:
            _check_weights(operation, each)
        return [compute(operation, upstream), *[None] * (len(operation.inputs) - 1)]

    return gradient


def _normalized(operation: tf.Operation, *upstream: tf.Tensor) -> list[tf.Tensor | None]:
    _, scale, _, _, variance = operation.inputs
    if operation.get_attr("is_training"):
        raise refused(operation, "that normalises by the batch itself")
    slope = scale * tf.math.rsqrt(variance + operation.get_attr("epsilon"))
    if operation.get_attr("data_format") != b"NHWC":
        slope = tf.reshape(slope, [1, -1, 1, 1])
    return [upstream[0] * slope, *[None] * 4]


def _mirrored(operation: tf.Operation, upstream: tf.Tensor) -> Any:
    raise refused(operation, "whose gradient adds up what was mirrored")


_GRADIENTS: dict[str, Gradient] = {
    "Relu": _gated(lambda y: y > 0),
    "Relu6": _gated(lambda y: (y > 0) & (y < 6)),
    "LeakyRelu": _leaky_relu,
    "Elu": _of_element(lambda x, y: tf.where(y < 0, y + 1.0, tf.ones_like(y))),
    "Selu": _of_element(_selu),
    "Softplus": _of_element(lambda x, y: tf.sigmoid(x)),
    "Softsign": _of_element(lambda x, y: 1.0 / tf.square(1.0 + tf.abs(x))),
    "Sigmoid": _of_element(lambda x, y: y * (1.0 - y)),
    "Tanh": _of_element(lambda x, y: 1.0 - tf.square(y)),
    "Rsqrt": _of_element(lambda x, y: -0.5 * y * y * y),
    "Sqrt": _of_element(lambda x, y: 0.5 / y),
    "Softmax": _softmax,
    **dict.fromkeys(("Add", "AddV2"), _of_two(lambda up, x, y: up, lambda up, x, y: up)),
    "Sub": _of_two(lambda up, x, y: up, lambda up, x, y: -up),
    "Mul": _of_two(lambda up, x, y: up * y, lambda up, x, y: up * x),
    "RealDiv": _of_two(lambda up, x, y: up / y, lambda up, x, y: -up * x / (y * y)),
    "SquaredDifference": _of_two(
        lambda up, x, y: 2.0 * up * (x - y), lambda up, x, y: -2.0 * up * (x - y)
    ),
    "Maximum": _chosen(lambda x, y: x >= y),
    "Minimum": _chosen(lambda x, y: x <= y),
    "SelectV2": _select,
    "BiasAdd": _bias_add,
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2"), _matmul),
    "Sum": _sum,
    "Mean": _mean,
    **dict.fromkeys(("Max", "Min"), _largest),
    "Transpose": _transpose,
    "ConcatV2": _concat,
    **dict.fromkeys(("Pad", "PadV2"), _pad),
    "MirrorPad": _mirrored,
    "StridedSlice": _strided_slice,
    **dict.fromkeys(("ResizeBilinear", "ResizeNearestNeighbor"), _resized),
    **dict.fromkeys(("Conv2D", "Conv3D"), _with_weights(convolution_gradient)),
    "DepthwiseConv2dNative": _with_weights(depthwise_gradient),
    "MaxPool": max_pool_gradient,
    "AvgPool": average_pool_gradient,
    "FusedBatchNormV3": _normalized,
}


def _register(operation_type: str, gradient: Gradient) -> str:
    name = f"Kvis2Portable{operation_type}"
    # A reloaded module finds its name taken: TensorFlow's registry outlives it.
    with contextlib.suppress(KeyError):
        tf.RegisterGradient(name)(gradient)
    return name


_NAMES = {each: _register(each, gradient) for each, gradient in _GRADIENTS.items()}
