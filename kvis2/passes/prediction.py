"""What a model predicts, by the same compiled passes as everything else."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kvis2.models import Batch, Meaning
from kvis2.passes.method import Method
from kvis2.passes.probe import Probe
from kvis2.types import Tensors


class Predicted(NamedTuple):
    """What a model said of a batch.

    Attributes:
        outputs: The flat outputs as the model returns them, `(batch, ...)` each.
        meanings: What their units are taken for.
    """

    outputs: list[np.ndarray]
    meanings: list[Meaning]


class Prediction(Method):
    """The outputs of a model at inference.

    Example:
        >>> Prediction(model).of(images).outputs[0].shape
        (8, 1000)
    """

    def __init__(self, model: keras.Model, **settings: Any) -> None:
        super().__init__(model, model_modifier=None, **settings)

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor]:
        """The outputs."""
        return probe.predictions(inputs)

    def of(self, seed_input: Any) -> Predicted:
        """Predict for what the model takes."""
        batch = Batch(self.model, seed_input)
        outputs = [each for each in self.results([], batch) if each is not None]
        return Predicted(outputs, self.meanings)
