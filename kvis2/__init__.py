"""kvis2: see what a Keras model looks at, while it trains and after."""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "kvis2 expected Keras to run on TensorFlow. Received: "
        f"KERAS_BACKEND={keras.backend.backend()}. Set KERAS_BACKEND=tensorflow before Keras is "
        "imported."
    )

from kvis2 import images
from kvis2.cam import CAM, GradCAM, GradCAMPlusPlus, LayerCAM, ScoreCAM
from kvis2.explainer import Explainer
from kvis2.modifiers import DeconvReLU, GuidedReLU, LinearOutput
from kvis2.saliency import Saliency
from kvis2.scores import BinaryScore, CategoricalScore, InactiveScore, PredictedScore, Score
from kvis2.version import __version__

__all__ = [
    "CAM",
    "BinaryScore",
    "CategoricalScore",
    "DeconvReLU",
    "Explainer",
    "GradCAM",
    "GradCAMPlusPlus",
    "GuidedReLU",
    "InactiveScore",
    "LayerCAM",
    "LinearOutput",
    "PredictedScore",
    "Saliency",
    "Score",
    "ScoreCAM",
    "__version__",
    "images",
]
