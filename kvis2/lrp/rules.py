"""The rules of layer-wise relevance propagation: what a layer hands down of the relevance it got.

A rule sees one call of one layer as a `Step` and says how the relevance `R_k` of its output is
shared among its inputs, `R_j`. All rules for layers with weights are one formula: the shares
`x_j w_jk`, for inputs `x` and weights `w` that the rule chooses, over their sum.

This file is longer than others: the rules are one family, and share one formula.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import keras
import tensorflow as tf

from kvis2.traced import Traced

Bound: TypeAlias = "float | Sequence[float] | None"
Terms: TypeAlias = "Sequence[tuple[tf.Tensor, tf.Tensor]]"


class Affine(NamedTuple):
    """A layer as `z = apply(inputs, kernel) + offset`, linear in the inputs and in the kernel.

    BatchNormalization right before or after the layer is part of `kernel` and `offset`.

    Attributes:
        inputs: What the kernel is applied to.
        kernel: The weights.
        offset: What is added, broadcast to the output; None for nothing.
        output: The sum `z`, as the forward pass computed it.
        apply: The part that is linear in both of its arguments.
        not_negative: Whether `inputs` are known to have no negative value, as after a ReLU.
        rectified: The ReLU of `output`, where what it sets to zero is known to get no relevance.
    """

    inputs: tf.Tensor
    kernel: tf.Tensor
    offset: tf.Tensor | None
    output: tf.Tensor
    apply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    not_negative: bool = False
    rectified: tf.Tensor | None = None


@dataclass(frozen=True)
class Step:
    """One call of one layer, as a rule sees it: float32 throughout.

    Attributes:
        path: Where the layer is in the model.
        layer: The live layer.
        inputs: The tensors that receive relevance.
        function: Computes the output from the inputs; an activation is left out, because
            relevance passes it unchanged.
        output: What the forward pass computed so. A rule that uses it, and not the value of
            `function`, costs no second forward pass.
        affine: Kernel and offset of a convolution or dense layer; None for other layers.
        rectified: The ReLU of `output`, where what it sets to zero is known to get no relevance.
    """

    path: str
    layer: keras.Operation
    inputs: list[tf.Tensor]
    function: Callable[..., tf.Tensor]
    output: tf.Tensor
    affine: Affine | None = None
    rectified: tf.Tensor | None = None


class Rule(Traced):
    """Base of all rules. A rule of your own is a subclass with `relevance`.

    Example:
        >>> class Halve(Rule):
        ...     def relevance(self, step, relevance):
        ...         return [relevance / 2]
    """

    def relevance(self, step: Step, relevance: tf.Tensor) -> list[tf.Tensor]:
        """The relevance of every input of a step.

        Args:
            step: The call of the layer.
            relevance: That of the layer's output, in its shape.

        Returns:
            One tensor for each of `step.inputs`, in its shape.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how to share relevance.")


class Pass(Rule):
    """`R_j = R_j`: the relevance of the output is that of the input, element by element.

    For activations and for layers that treat every element by itself, such as normalisation.
    """

    def relevance(self, step: Step, relevance: tf.Tensor) -> list[tf.Tensor]:
        """The same relevance for the one input of the same shape."""
        (inputs,) = step.inputs
        if not relevance.shape.is_compatible_with(inputs.shape):
            raise ValueError(
                "Expected a layer whose output has the shape of its one input, to pass relevance "
                f"through. Received: '{step.path}', {tuple(inputs.shape)} to "
                f"{tuple(relevance.shape)}. Give it another rule, for instance Norm()."
            )
        return [relevance]


class Epsilon(Rule):
    r"""`R_j = sum_k a_j w_jk / (z_k + epsilon sign(z_k)) R_k`, `z_k = sum_j a_j w_jk + b_k`.

    Relevance in proportion to the contributions, signed; a bias keeps its share `b_k / z_k`.
    With `epsilon=0` (LRP-0) this is gradient x input. It needs no kernel, so it fits every layer
    that is linear in its inputs; of a curved one it takes the tangent.

    Args:
        epsilon: Absorbs the relevance of outputs smaller than itself. `sign(0)` is 1.

    References:
        Bach et al. (2015), On Pixel-Wise Explanations for Non-Linear Classifier Decisions by
        Layer-Wise Relevance Propagation, eq. 58.
    """

    def __init__(self, epsilon: float = 1e-6) -> None:
        self.epsilon = _not_negative("epsilon", epsilon)

    def relevance(self, step: Step, relevance: tf.Tensor) -> list[tf.Tensor]:
        """The share of every input."""
        if step.rectified is None:
            total = stabilized(step.output, self.epsilon)
        else:
            total = step.rectified + self.epsilon
        return proportional(step.function, step.inputs, total, relevance)


class Norm(Epsilon):
    """`R_j = a_j w_jk / z_k R_k` for layers without weights: sums and averages.

    The epsilon rule with an epsilon that only guards against 0 / 0.
    """

    def __init__(self) -> None:
        super().__init__(1e-9)


class _KernelRule(Rule):
    """Base of the rules that need to see the kernel."""

    epsilon = 1e-9

    def relevance(self, step: Step, relevance: tf.Tensor) -> list[tf.Tensor]:
        """The share of the one input."""
        if step.affine is None:
            raise ValueError(
                f"Expected a convolution or dense layer for the rule {type(self).__name__}. "
                f"Received: '{step.path}' ({type(step.layer).__name__}). Give it Norm(), Pass() "
                "or a rule of your own."
            )
        return [self.shares(step.affine, relevance)]

    def shares(self, layer: Affine, relevance: tf.Tensor) -> tf.Tensor:
        """The share of the layer's input in the `relevance` of its output."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to share relevance.")


class AlphaBeta(_KernelRule):
    """`R_j = sum_k (alpha (a_j w_jk)+ / z_k+ - beta (a_j w_jk)- / z_k-) R_k`.

    `z_k+` is the sum of the positive contributions and the positive bias, `z_k-` that of the
    negative ones; inputs may have either sign. Relevance is conserved where an output has both
    kinds of contributions.

    Args:
        alpha: Weight of the positive contributions, at least 1.
        beta: Weight of the negative ones, `alpha - 1`.

    References:
        Bach et al. (2015), On Pixel-Wise Explanations ..., eq. 60.
    """

    def __init__(self, alpha: float = 2.0, beta: float = 1.0) -> None:
        if abs(alpha - beta - 1) > 1e-6 or beta < 0:
            raise ValueError(
                "Expected alpha - beta = 1 and beta >= 0, so that relevance is conserved. "
                f"Received: alpha={alpha}, beta={beta}. Give for example alpha=2, beta=1."
            )
        self.alpha = float(alpha)
        self.beta = float(beta)

    def shares(self, layer: Affine, relevance: tf.Tensor) -> tf.Tensor:
        """Positive and negative contributions, each over their own sum."""
        w_plus, w_minus = _parts(layer.kernel)
        b_plus, b_minus = _offset_parts(layer)
        plus = _signed_terms(layer, w_plus, w_minus)
        shares = self.alpha * redistributed(layer, plus, b_plus, relevance, self.epsilon)
        if not self.beta:
            return shares
        minus = _signed_terms(layer, w_minus, w_plus)
        return shares - self.beta * redistributed(layer, minus, b_minus, relevance, self.epsilon)


class ZPlus(AlphaBeta):
    """`R_j = sum_k (a_j w_jk)+ / z_k+ R_k`: positive contributions only (alpha 1, beta 0).

    References:
        Montavon et al. (2017), Explaining NonLinear Classification Decisions with Deep Taylor
        Decomposition.
    """

    def __init__(self) -> None:
        super().__init__(1.0, 0.0)


class Gamma(_KernelRule):
    r"""`R_j = sum_k a_j (w_jk + gamma w_jk+) / (z_k + gamma z_k+) R_k`: favours what agrees.

    What agrees with an output `z_k > 0` are the positive contributions `(a_j w_jk)+`, with an
    output `z_k < 0` the negative ones, whatever the sign of the input; they are counted `1 + gamma`
    times, and so is a bias that agrees. `gamma=0` is LRP-0, a large one tends to `ZPlus`.

    Args:
        gamma: How much more the agreeing contributions count, for instance 0.25.
        epsilon: Added to the magnitude of the denominator.

    References:
        Montavon et al. (2019), Layer-Wise Relevance Propagation: An Overview.
        Andéol et al. (2021), Learning Domain Invariant Representations by Joint Wasserstein
        Distance Minimization (the rule for either sign).
    """

    def __init__(self, gamma: float = 0.25, epsilon: float = 1e-9) -> None:
        self.gamma = _not_negative("gamma", gamma)
        self.epsilon = _not_negative("epsilon", epsilon)

    def shares(self, layer: Affine, relevance: tf.Tensor) -> tf.Tensor:
        """Contributions that agree with the sign of the output are strengthened."""
        w_plus, w_minus = _parts(layer.kernel)
        b_plus, b_minus = _offset_parts(layer)
        strong_plus = layer.kernel + self.gamma * w_plus
        strong_minus = layer.kernel + self.gamma * w_minus
        agreeing = _signed_terms(layer, strong_plus, strong_minus)
        if layer.rectified is not None:
            return self._agreeing(layer, agreeing, b_plus, relevance)
        positive = layer.output >= 0
        zero = tf.zeros_like(relevance)
        opposite = _signed_terms(layer, strong_minus, strong_plus)
        return self._agreeing(
            layer, agreeing, b_plus, tf.where(positive, relevance, zero)
        ) + self._agreeing(layer, opposite, b_minus, tf.where(positive, zero, relevance))

    def _agreeing(
        self,
        layer: Affine,
        terms: Terms,
        favoured_offset: tf.Tensor | None,
        relevance: tf.Tensor,
    ) -> tf.Tensor:
        offset = None
        if layer.offset is not None and favoured_offset is not None:
            offset = layer.offset + self.gamma * favoured_offset
        return redistributed(layer, terms, offset, relevance, self.epsilon)


class Flat(_KernelRule):
    """`R_j = sum_k R_k / n_k`: every input of an output gets the same, `n_k` inputs in all.

    References:
        Lapuschkin et al. (2019), Unmasking Clever Hans Predictors and Assessing What Machines
        Really Learn.
    """

    def shares(self, layer: Affine, relevance: tf.Tensor) -> tf.Tensor:
        """Equal shares, whatever the weights and inputs are."""
        terms = [(tf.ones_like(layer.inputs), tf.ones_like(layer.kernel))]
        return redistributed(layer, terms, None, relevance, self.epsilon)


class WSquare(_KernelRule):
    """`R_j = sum_k w_jk^2 / (sum_j w_jk^2) R_k`: by the weights, whatever the inputs are.

    References:
        Montavon et al. (2017), Explaining NonLinear Classification Decisions with Deep Taylor
        Decomposition.
    """

    def shares(self, layer: Affine, relevance: tf.Tensor) -> tf.Tensor:
        """Shares by the squared weights."""
        terms = [(tf.ones_like(layer.inputs), tf.square(layer.kernel))]
        return redistributed(layer, terms, None, relevance, self.epsilon)


class ZBox(_KernelRule):
    """`R_j = sum_k (x_j w_jk - l_j w_jk+ - h_j w_jk-) / (sum_j ...) R_k`, for inputs in a box.

    For the first layer, whose input is known to be in `[low, high]`.

    Args:
        low: Smallest value the layer's input can have (after any rescaling inside the model): one
            number, or one per channel (last axis); None takes the smallest of each sample.
        high: Largest value, likewise.

    References:
        Montavon et al. (2017), Explaining NonLinear Classification Decisions with Deep Taylor
        Decomposition.
    """

    def __init__(self, low: Bound = None, high: Bound = None) -> None:
        self.low = _bound(low)
        self.high = _bound(high)

    def shares(self, layer: Affine, relevance: tf.Tensor) -> tf.Tensor:
        """Shares by how far the inputs are from the corner that contributes least."""
        axes = list(range(1, layer.inputs.shape.rank))
        low = tf.reduce_min(layer.inputs, axes, keepdims=True) if self.low is None else self.low
        high = tf.reduce_max(layer.inputs, axes, keepdims=True) if self.high is None else self.high
        ones = tf.ones_like(layer.inputs)
        w_plus, w_minus = _parts(layer.kernel)
        terms = [
            (layer.inputs, layer.kernel),
            (-ones * low, w_plus),
            (-ones * high, w_minus),
        ]
        return redistributed(layer, terms, None, relevance, self.epsilon)


class DetachedVariance(Rule):
    """`R_j` in proportion to the contributions to `(a - mean(a)) / sigma * scale + shift`.

    For LayerNormalization, with `sigma` held constant: subtracting the mean mixes relevance. By
    default relevance passes LayerNormalization unchanged (Achtibat et al. 2024).

    References:
        Ali et al. (2022), XAI for Transformers: Better Explanations through Conservative
        Propagation.
    """

    def relevance(self, step: Step, relevance: tf.Tensor) -> list[tf.Tensor]:
        """The shares of the centred inputs."""
        layer = step.layer
        if not isinstance(layer, keras.layers.LayerNormalization):
            raise ValueError(
                "Expected a LayerNormalization for the rule DetachedVariance. Received: "
                f"'{step.path}' ({type(layer).__name__}). Give it Pass()."
            )
        (inputs,) = step.inputs
        axes = [axis % inputs.shape.rank for axis in keras.tree.flatten(layer.axis)]
        variance = tf.math.reduce_variance(inputs, axes, keepdims=True)
        shape = [inputs.shape[i] if i in axes else 1 for i in range(inputs.shape.rank)]
        scale = tf.math.rsqrt(variance + layer.epsilon)
        if layer.gamma is not None:
            scale *= tf.reshape(tf.convert_to_tensor(layer.gamma), shape)

        def normalized(values: tf.Tensor) -> tf.Tensor:
            centred = values - tf.reduce_mean(values, axes, keepdims=True)
            output = centred * tf.stop_gradient(scale)
            if layer.beta is None:
                return output
            return output + tf.reshape(tf.convert_to_tensor(layer.beta), shape)

        return proportional(normalized, [inputs], stabilized(step.output, 1e-9), relevance)


def proportional(
    function: Callable[..., tf.Tensor],
    inputs: Sequence[tf.Tensor],
    total: tf.Tensor,
    relevance: tf.Tensor,
) -> list[tf.Tensor]:
    """`a_j sum_k dz_k/da_j R_k / total_k` for every input of a function.

    `total` is `z = function(*inputs)`, stabilised; the function is traced for its gradient only.
    """
    # Fresh names cut the inputs off from each other, where one is computed from another.
    inputs = [tf.identity(tf.stop_gradient(each)) for each in inputs]
    ratio = tf.math.divide_no_nan(relevance, total)
    gradients = tf.gradients(function(*inputs), inputs, grad_ys=ratio, unconnected_gradients="zero")
    return [a * g for a, g in zip(inputs, gradients, strict=True)]


def redistributed(
    layer: Affine,
    terms: Terms,
    offset: tf.Tensor | None,
    relevance: tf.Tensor,
    epsilon: float,
) -> tf.Tensor:
    """`R_j = sum_terms x_j sum_k w_jk R_k / (z_k + epsilon sign(z_k))`.

    `z_k = sum_terms sum_j x_j w_jk + offset_k` for `terms` of (inputs x, kernel w).
    """
    products = [layer.apply(x, kernel) for x, kernel in terms]
    total = tf.add_n(products)
    total = total if offset is None else total + offset
    ratio = tf.math.divide_no_nan(relevance, stabilized(total, epsilon))
    sources = [x for x, _ in terms]
    gradients = [
        tf.gradients(product, x, grad_ys=ratio)[0]
        for product, x in zip(products, sources, strict=True)
    ]
    return tf.add_n([x * g for x, g in zip(sources, gradients, strict=True)])


def stabilized(values: tf.Tensor, epsilon: float) -> tf.Tensor:
    """`values` moved away from zero by `epsilon`, in their own direction; 0 becomes `epsilon`."""
    return values + tf.where(values >= 0, epsilon, -epsilon)


def _parts(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The positive and the negative part, `values = plus + minus`."""
    return tf.maximum(values, 0.0), tf.minimum(values, 0.0)


def _signed_terms(layer: Affine, for_plus: tf.Tensor, for_minus: tf.Tensor) -> Terms:
    """The positive inputs with one kernel, the negative ones, where there are any, with another."""
    if layer.not_negative:
        return [(layer.inputs, for_plus)]
    plus, minus = _parts(layer.inputs)
    return [(plus, for_plus), (minus, for_minus)]


def _offset_parts(layer: Affine) -> tuple[tf.Tensor | None, tf.Tensor | None]:
    return (None, None) if layer.offset is None else _parts(layer.offset)


def _not_negative(name: str, value: float) -> float:
    if not value >= 0:
        raise ValueError(
            f"Expected `{name}` not to be negative. Received: {value!r}. Give for example 0.1."
        )
    return float(value)


def _bound(value: Bound) -> float | tuple[float, ...] | None:
    """A bound as something hashable, because it is part of the trace."""
    if value is None or isinstance(value, int | float):
        return value if value is None else float(value)
    return tuple(float(each) for each in value)
