"""A probe for several methods in one pass: what one has asked for is not computed for the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kvis2.passes.probe import Probe, Trace
from kvis2.types import Tensors


class SharedProbe(Probe):
    """A probe that answers the same question once: traces, activations, scores, definite scores.

    Args:
        probe: What it asks. Probes that are derived from it, which watch something else, share
            nothing with it but with their like.

    Attributes:
        passes: How many forward passes, with or without one back, have been traced.
    """

    def __init__(self, probe: Probe) -> None:
        vars(self).update(vars(probe))
        self._answers: dict[Any, Any] = {}
        self._counted = [0]

    @property
    def passes(self) -> int:
        """How many different questions have led to a pass."""
        return self._counted[0]

    def __call__(self, score: Any, inputs: Tensors) -> Trace:
        """One forward pass, and one backward pass as far as the watched layer; once."""
        return self._once("trace", super().__call__, score, inputs)

    def activations(self, score: Any, inputs: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        """Activations of the watched layer and the scores: of the trace, which others ask for.

        A graph leaves the backward pass of a trace out if nothing takes its gradients.
        """
        trace = self(score, inputs)
        return trace.activations, trace.scores

    def scores(self, score: Any, inputs: Tensors) -> tf.Tensor:
        """The scores alone; of the trace, if there is one."""
        trace = self._answers.get(self._question("trace", score, inputs))
        if trace is not None:
            return trace[0].scores
        return self._once("scores", super().scores, score, inputs)

    def fixed(self, score: Any, inputs: Tensors) -> Any:
        """`score` with the predicted classes of `inputs` made definite; once."""
        return self._once("fixed", super().fixed, score, inputs)

    def _question(self, kind: str, score: Any, inputs: Tensors) -> Any:
        looks = (self._runner, self._seen, self._reshape)
        # A graph inside the graph, such as the body of a loop, has answers of its own.
        where = tf.compat.v1.get_default_graph() if not tf.executing_eagerly() else None
        return (kind, *map(id, (*looks, where, score, *inputs)))

    def _once(self, kind: str, ask: Callable[..., Any], score: Any, inputs: Tensors) -> Any:
        question = self._question(kind, score, inputs)
        if question not in self._answers:
            # What the question names is kept, so that no other object gets its identity.
            kept = (self._runner, self._seen, self._reshape, score, list(inputs))
            self._answers[question] = (ask(score, inputs), kept)
            self._counted[0] += 1
        return self._answers[question][0]
