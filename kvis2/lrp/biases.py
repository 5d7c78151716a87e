"""What becomes of the relevance that the biases of a layer would absorb."""

from __future__ import annotations

from dataclasses import replace

import tensorflow as tf

from kvis2.lrp.rules import Rule, Step


def without_bias(step: Step) -> Step:
    """The same call of a convolution or dense layer, as if it had no bias."""
    affine = step.affine
    assert affine is not None
    if affine.offset is None:
        return step
    output = affine.output - affine.offset
    bare = affine._replace(offset=None, output=output, rectified=None)
    return replace(step, affine=bare, output=output, rectified=None)


def shared_evenly(step: Step, rule: Rule, relevance: tf.Tensor) -> tf.Tensor:
    """The relevance of a layer's input, what its outputs keep spread over the inputs they see.

    `R_j = sum_k (s_jk + (1 - sum_i s_ik) / N_k) R_k`, `s_jk` the share by the rule and `N_k` the
    number of inputs of output k: with `a_j w_jk / z_k` for the share, `(a_j w_jk + b_k / N_k) /
    z_k`.

    Args:
        step: A call of a convolution or dense layer.
        rule: Its rule.
        relevance: That of the layer's output.
    """
    affine = step.affine
    assert affine is not None
    received = tf.identity(relevance)
    (shares,) = rule.relevance(step, received)
    # How much of each output's relevance arrives at any input: the shares are linear in it.
    (arrived,) = tf.gradients(shares, received, grad_ys=tf.ones_like(shares))
    kept = (1.0 - arrived) * received
    ones = tf.ones_like(affine.kernel)
    inputs = tf.identity(affine.inputs)
    count = affine.apply(tf.ones_like(inputs), ones)
    (spread,) = tf.gradients(affine.apply(inputs, ones), inputs, grad_ys=kept / count)
    return shares + spread
