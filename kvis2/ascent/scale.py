"""What a change of a score is measured by: how much it differs from one unit to another."""

from __future__ import annotations

import copy
from typing import Any

import tensorflow as tf

from kvis2 import scores
from kvis2.ascent.loop import AscentLoop
from kvis2.passes import Probe
from kvis2.types import Tensors

_MOST_SHIFTS = 64


class ScoreScale(AscentLoop):
    r"""The largest change of a score when the units that it sees change places.

    `scale_n = max over s of |score(roll_s(y))_n - score(y)_n|`, `y` what the score sees, and
    `roll_s` each unit in the place of the one `s` before it: all shifts, or 64 that are evenly
    spread. For a unit it is how far the others of the layer are from it, for a function of one's
    own the same in its own measure: no factor in front of it matters.

    Args:
        loop: The ascent whose images are looked at.
    """

    def __init__(self, loop: AscentLoop) -> None:
        vars(self).update(vars(copy.copy(loop)))

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor]:
        """The scale of each image, `(images,)`, for the parameters of each input."""
        images = [self._in_layout(each, probe) for each in self.images(inputs)]
        seen = [
            (part, output)
            for part, output in probe.seen_by(score, images, self._responses())
            if not isinstance(part, scores.InactiveScore)
        ]
        counts = [tf.shape(output)[-1] for _, output in seen]
        most = tf.minimum(_MOST_SHIFTS, tf.reduce_max(counts) - 1)

        def shifted(number: tf.Tensor) -> tf.Tensor:
            rolled = [
                (part, tf.roll(output, 1 + number * (count - 1) // tf.maximum(most, 1), -1))
                for (part, output), count in zip(seen, counts, strict=True)
            ]
            return tf.abs(_total(rolled) - own)

        own = _total(seen)
        changes = tf.map_fn(
            shifted, tf.range(most), fn_output_signature=tf.float32, parallel_iterations=1
        )
        # Of one unit alone there is no other place: the maximum of nothing is below zero.
        return [tf.maximum(tf.reduce_max(changes, axis=0), 0.0)]


def _total(pairs: list[tuple[Any, tf.Tensor]]) -> tf.Tensor:
    return tf.add_n([tf.cast(part(output), tf.float32) for part, output in pairs])
