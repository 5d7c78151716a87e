"""Layer-wise relevance propagation: the explainer, its rules, and which layer gets which."""

from kvis2.lrp.composites import (
    Composite,
    EpsilonAlpha2Beta1,
    EpsilonGammaBox,
    EpsilonPlus,
    EpsilonPlusFlat,
    GammaEverywhere,
    register,
)
from kvis2.lrp.explainer import LRP
from kvis2.lrp.rectified import Rectified
from kvis2.lrp.rules import (
    AlphaBeta,
    DetachedVariance,
    Epsilon,
    Flat,
    Gamma,
    Norm,
    Pass,
    Rule,
    Step,
    WSquare,
    ZBox,
    ZPlus,
)

__all__ = [
    "LRP",
    "AlphaBeta",
    "Composite",
    "DetachedVariance",
    "Epsilon",
    "EpsilonAlpha2Beta1",
    "EpsilonGammaBox",
    "EpsilonPlus",
    "EpsilonPlusFlat",
    "Flat",
    "Gamma",
    "GammaEverywhere",
    "Norm",
    "Pass",
    "Rectified",
    "Rule",
    "Step",
    "WSquare",
    "ZBox",
    "ZPlus",
    "register",
]
