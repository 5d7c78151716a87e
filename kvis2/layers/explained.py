"""One model that predicts and explains."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kvis2 import models
from kvis2.explainers import Explainer, GradCAM
from kvis2.layers.configuration import as_config, from_config


@keras.saving.register_keras_serializable(package="kvis2")
class Explained(keras.Model):
    """A model whose call returns its predictions and the heatmaps that explain them, in one pass.

    `explained(x)` is `{"predictions": model(x), "heatmap": explainer(score, x)}`. It works in
    `predict`, nested in other models, at any image size that the model takes, and is saved and
    loaded as a `.keras` file. The weights are those of the model, shared and not copied.

    Args:
        model: Any built Keras model that can be traced into a graph.
        explainer: A class of explainers, such as `GradCAM`.
        score: "predicted" explains each sample's predicted class; "input" a class that is given
            with each sample: the call then takes `(inputs, classes)`, classes an int tensor
            `(batch,)`, -1 for the predicted one; or any score that explainers take, for all.
        predictions: "exact": bit for bit those of the model. "shared": those of the pass with
            batch normalisation folded, which is faster for models that have it, and about 1e-7
            off.
        name: Of the new model.
        **options: As for the explainer: `layer`, `resize`, `normalize`, `model_modifier` and so
            on. What is saved must be data: no functions.

    Returns:
        From a call, a dict: "predictions", in the structure that the model returns; "heatmap",
        float32 `(batch, *spatial)`, in the structure of the inputs if there are several.

    Raises:
        ValueError: If the model is not built, or an argument is not as described.

    Example:
        >>> explained = Explained(model, GradCAM)
        >>> result = explained.predict(images)
        >>> result["predictions"].shape, result["heatmap"].shape
        ((8, 1000), (8, 224, 224))
    """

    def __init__(
        self,
        model: keras.Model,
        explainer: type[Explainer] = GradCAM,
        *,
        score: Any = "predicted",
        predictions: str = "exact",
        name: str | None = None,
        **options: Any,
    ) -> None:
        models.check_built(model)
        if not (isinstance(explainer, type) and issubclass(explainer, Explainer)):
            raise ValueError(
                f"Expected a class of explainers. Received: {explainer!r}. Give for example "
                "`Explained(model, GradCAM, layer='conv5')`."
            )
        if predictions not in ("exact", "shared"):
            raise ValueError(
                f"Expected predictions to be 'exact' or 'shared'. Received: {predictions!r}."
            )
        if isinstance(score, str) and score not in ("predicted", "input"):
            raise ValueError(
                f"Expected score to be 'predicted', 'input' or a score. Received: {score!r}. "
                "A class is an int."
            )
        super().__init__(name=name)
        self.model = model
        self.explainer = explainer
        self.score = score
        self.predictions = predictions
        self.options = dict(options)
        if predictions == "exact":
            options = {**options, "fold_batch_norm": False}
        self._explainer = explainer(model, **options)
        self._graph = tf.function(self._compute, autograph=False, reduce_retracing=True)
        self.built = True

    def build(self, input_shape: Any = None) -> None:
        """Nothing: the model is built."""
        self.built = True

    def call(self, inputs: Any) -> dict[str, Any]:
        """Predictions and heatmaps of a batch."""
        return self._graph(inputs)

    def _compute(self, inputs: Any) -> dict[str, Any]:
        score: Any = self.score
        if isinstance(score, str) and score == "input":
            if not isinstance(inputs, list | tuple) or len(inputs) != 2:
                raise ValueError(
                    "Expected (inputs, classes), as score='input' says. Received: "
                    f"{type(inputs).__name__}. Give an int for each sample, -1 for the predicted "
                    "class."
                )
            inputs, score = inputs
        elif isinstance(score, str):
            score = None
        maps, outputs = self._explainer.graph(inputs, score)
        return {"predictions": self._packed(outputs), "heatmap": maps}

    def _packed(self, outputs: list[tf.Tensor]) -> Any:
        """The flat outputs in the structure that the model returns them in."""
        structure = getattr(self.model, "_outputs_struct", None)
        if structure is None or len(outputs) == 1:
            return outputs[0] if len(outputs) == 1 else outputs
        return keras.tree.pack_sequence_as(structure, outputs)

    def fit(self, *arguments: Any, **options: Any) -> Any:
        """Refused: gradients would go through the explanation and not through the training."""
        raise ValueError(
            f"Expected to train '{self.model.name}' itself. Received: fit of a model that explains "
            "it, at inference. Train `explained.model`: the weights are the same."
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        return {
            "name": self.name,
            "model": keras.saving.serialize_keras_object(self.model),
            "explainer": as_config(self.explainer, self.model),
            "score": as_config(self.score, self.model),
            "predictions": self.predictions,
            "options": as_config(self.options, self.model),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Explained:
        """The model of `get_config`."""
        model = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        return cls(
            model,
            from_config(config["explainer"]),
            score=from_config(config["score"]),
            predictions=config["predictions"],
            name=config["name"],
            **from_config(config["options"]),
        )
