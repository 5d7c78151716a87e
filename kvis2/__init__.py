"""kvis2: see what a Keras model looks at, while it trains and after."""

from kvis2 import _backend, images  # noqa: F401 (refuses other backends)
from kvis2.attention import AttentionRollout, GradientAttentionRollout
from kvis2.cam import (
    CAM,
    ClassActivationMap,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    SmoothGradCAMPlusPlus,
    XGradCAM,
)
from kvis2.channels import AblationCAM, ScoreCAM
from kvis2.eigencam import EigenCAM, EigenGradCAM
from kvis2.explainer import Explainer
from kvis2.fullgrad import FullGrad
from kvis2.guided import GuidedGradCAM
from kvis2.integrated import ExpectedGradients, IntegratedGradients
from kvis2.modifiers import DeconvReLU, GuidedReLU, LinearOutput
from kvis2.noise import SmoothGrad, SmoothGradSquared, VarGrad
from kvis2.perturbation import RISE, ExtremalMask, Occlusion
from kvis2.saliency import InputXGradient, Saliency
from kvis2.scores import (
    BinaryScore,
    CategoricalScore,
    ContrastScore,
    InactiveScore,
    LayerScore,
    PredictedScore,
    Score,
)
from kvis2.version import __version__

__all__ = [
    "CAM",
    "RISE",
    "AblationCAM",
    "AttentionRollout",
    "BinaryScore",
    "CategoricalScore",
    "ClassActivationMap",
    "ContrastScore",
    "DeconvReLU",
    "EigenCAM",
    "EigenGradCAM",
    "ExpectedGradients",
    "Explainer",
    "ExtremalMask",
    "FullGrad",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientAttentionRollout",
    "GuidedGradCAM",
    "GuidedReLU",
    "HiResCAM",
    "InactiveScore",
    "InputXGradient",
    "IntegratedGradients",
    "LayerCAM",
    "LayerScore",
    "LinearOutput",
    "Occlusion",
    "PredictedScore",
    "Saliency",
    "Score",
    "ScoreCAM",
    "SmoothGrad",
    "SmoothGradCAMPlusPlus",
    "SmoothGradSquared",
    "VarGrad",
    "XGradCAM",
    "__version__",
    "images",
]
