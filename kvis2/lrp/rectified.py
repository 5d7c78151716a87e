"""Where a ReLU follows a layer, and relevance comes back only to what the ReLU let through.

A rule that hands out shares of `a_j w_jk` gives nothing to an `a_j` of zero. So nothing comes back
to the outputs that a ReLU set to zero, unless a rule of another kind follows it. The rule before it
then need not care for outputs below zero, which saves it much of its work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from kvis2.lrp.operations import LINEAR, MOVES, Dependence
from kvis2.lrp.recorder import RuledCall
from kvis2.lrp.rules import AlphaBeta, Epsilon, Gamma, Norm, Pass, ZPlus
from kvis2.shown import Shown

# Not their subclasses, which may hand out relevance by something else than the inputs.
_BY_INPUT = (AlphaBeta, Epsilon, Gamma, Norm, ZPlus)


class Rectified(Shown):
    """The calls of a traced pass whose negative outputs get no relevance.

    Args:
        graph: The graph, the forward pass already in it.
        calls: The calls by the operation that they end in, their rules chosen.
        dependence: What depends on the inputs.
    """

    def __init__(
        self, graph: tf.Graph, calls: Mapping[tf.Operation, RuledCall], dependence: Dependence
    ) -> None:
        self._calls = calls
        self._dependence = dependence
        operations = graph.get_operations()
        # A rule takes the place of all that a call computes, up to the identity that it ends in.
        self._inside = {each for c in calls.values() for each in operations[c.first : c.last - 1]}
        self._known: dict[Any, bool] = {}

    def output(self, call: RuledCall) -> tf.Tensor | None:
        """The ReLU of what `call` yields; None if what it sets to zero may get relevance."""
        end = call.output if call.after is None else call.after.output
        users = list(self._users(end))
        relu = self._relu(users[0], end) if len(users) == 1 else None
        return relu if relu is not None and self._zeros_get_nothing(relu) else None

    def _users(self, tensor: tf.Tensor) -> Iterator[tf.Operation]:
        """What hands relevance to `tensor`."""
        for each in tensor.consumers():
            if each not in self._dependence.on_inputs or each in self._inside:
                continue
            if any(output.dtype.is_floating for output in each.outputs):  # Not its shape.
                yield each

    def _relu(self, user: tf.Operation, tensor: tf.Tensor) -> tf.Tensor | None:
        """The ReLU of `tensor` that `user` passes the relevance of, if it does."""
        call = self._calls.get(user)
        if call is None:
            return user.outputs[0] if user.type == "Relu" else None
        made = user.inputs[0].op
        if not isinstance(call.rule, Pass) or made.type != "Relu":
            return None
        return user.outputs[0] if made.inputs[0] is tensor else None

    def _zeros_get_nothing(self, tensor: tf.Tensor) -> bool:
        """Whether the values of `tensor` that are zero get no relevance."""
        key = tensor.ref()
        if key not in self._known:
            users = self._users(tensor)
            self._known[key] = all(self._gives_zeros_nothing(each, tensor) for each in users)
        return self._known[key]

    def _gives_zeros_nothing(self, user: tf.Operation, tensor: tf.Tensor) -> bool:
        call = self._calls.get(user)
        relu = self._relu(user, tensor)
        if relu is not None:
            return self._zeros_get_nothing(relu)
        if call is not None and isinstance(call.rule, Pass):  # Such as dropout, at inference.
            return user.inputs[0] is tensor and self._zeros_get_nothing(user.outputs[0])
        if call is not None:
            return type(call.rule) in _BY_INPUT
        if user.type in MOVES:  # What was zero still is, wherever it is moved.
            moved = [each for each in user.outputs if each.dtype.is_floating]
            return all(self._zeros_get_nothing(each) for each in moved)
        return user.type in LINEAR and not self._dependence.is_by_literal(user)
