"""kvis2: see what a Keras model looks at, while it trains and after."""

from kvis2 import (
    _backend,  # noqa: F401 (first: it refuses other backends)
    images,
    parametrizations,
    presets,
    regularizers,
    transforms,
)
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
from kvis2.description import Description, describe
from kvis2.dreaming import DeepDream
from kvis2.eigencam import EigenCAM, EigenGradCAM
from kvis2.explainer import Explainer
from kvis2.features import activations, kernel_sheet, kernels, top_patches
from kvis2.fullgrad import FullGrad
from kvis2.guided import GuidedGradCAM
from kvis2.integrated import ExpectedGradients, IntegratedGradients
from kvis2.inversion import FeatureInversion
from kvis2.lrp import LRP
from kvis2.maximization import ActivationMaximization
from kvis2.modifiers import DeconvReLU, GuidedReLU, LinearOutput
from kvis2.noise import SmoothGrad, SmoothGradSquared, VarGrad
from kvis2.objectives import DirectionScore, UnitsScore
from kvis2.perturbation import RISE, ExtremalMask, Occlusion
from kvis2.saliency import InputXGradient, Saliency
from kvis2.scores import (
    BinaryScore,
    CategoricalScore,
    ContrastScore,
    InactiveScore,
    LayerScore,
    PredictedScore,
    RegressionScore,
    Score,
    SegmentationScore,
)
from kvis2.tokens import TokenGrid, token_grid
from kvis2.version import __version__

__all__ = [
    "CAM",
    "LRP",
    "RISE",
    "AblationCAM",
    "ActivationMaximization",
    "AttentionRollout",
    "BinaryScore",
    "CategoricalScore",
    "ClassActivationMap",
    "ContrastScore",
    "DeconvReLU",
    "DeepDream",
    "Description",
    "DirectionScore",
    "EigenCAM",
    "EigenGradCAM",
    "ExpectedGradients",
    "Explainer",
    "ExtremalMask",
    "FeatureInversion",
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
    "RegressionScore",
    "Saliency",
    "Score",
    "ScoreCAM",
    "SegmentationScore",
    "SmoothGrad",
    "SmoothGradCAMPlusPlus",
    "SmoothGradSquared",
    "TokenGrid",
    "UnitsScore",
    "VarGrad",
    "XGradCAM",
    "__version__",
    "activations",
    "describe",
    "images",
    "kernel_sheet",
    "kernels",
    "parametrizations",
    "presets",
    "regularizers",
    "token_grid",
    "top_patches",
    "transforms",
]
