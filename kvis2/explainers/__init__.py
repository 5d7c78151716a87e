"""The explainers: from a score and a batch of inputs to one map per input."""

from kvis2.explainers.attention import AttentionRollout, GradientAttentionRollout
from kvis2.explainers.blur_ig import BlurIG
from kvis2.explainers.cam import (
    CAM,
    ClassActivationMap,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    SmoothGradCAMPlusPlus,
    XGradCAM,
)
from kvis2.explainers.conductance import LayerConductance
from kvis2.explainers.eigen_cam import EigenCAM, EigenGradCAM, first_projection
from kvis2.explainers.explainer import Explainer
from kvis2.explainers.extremal_mask import ExtremalMask
from kvis2.explainers.fem import FEM
from kvis2.explainers.full_grad import FullGrad
from kvis2.explainers.guided_grad_cam import GuidedGradCAM
from kvis2.explainers.guided_ig import GuidedIG
from kvis2.explainers.important_direction import IDGI
from kvis2.explainers.integrated_gradients import ExpectedGradients, IntegratedGradients
from kvis2.explainers.legrad import LeGrad
from kvis2.explainers.occlusion import RISE, Occlusion
from kvis2.explainers.opti_cam import OptiCAM
from kvis2.explainers.placement import feeds
from kvis2.explainers.recipro_cam import ReciproCAM
from kvis2.explainers.saliency import Attribution, InputXGradient, Saliency, gradients_of
from kvis2.explainers.score_cam import AblationCAM, ScoreCAM
from kvis2.explainers.seg_xres_cam import SegXResCAM
from kvis2.explainers.shapley_cam import ShapleyCAM
from kvis2.explainers.smooth_grad import SmoothGrad, SmoothGradSquared, VarGrad

__all__ = [
    "CAM",
    "FEM",
    "IDGI",
    "RISE",
    "AblationCAM",
    "AttentionRollout",
    "Attribution",
    "BlurIG",
    "ClassActivationMap",
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
    "GuidedIG",
    "HiResCAM",
    "InputXGradient",
    "IntegratedGradients",
    "LayerCAM",
    "LayerConductance",
    "LeGrad",
    "Occlusion",
    "OptiCAM",
    "ReciproCAM",
    "Saliency",
    "ScoreCAM",
    "SegXResCAM",
    "ShapleyCAM",
    "SmoothGrad",
    "SmoothGradCAMPlusPlus",
    "SmoothGradSquared",
    "VarGrad",
    "XGradCAM",
    "feeds",
    "first_projection",
    "gradients_of",
]
