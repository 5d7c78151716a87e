"""What is explained: from the outputs of a model to one number per sample."""

from kvis2.scores.outputs import (
    BinaryScore,
    CategoricalScore,
    ClassScore,
    ContrastScore,
    FinerScore,
    FunctionScore,
    InactiveScore,
    LayerScore,
    PredictedScore,
    RegressionScore,
    ReSTScore,
    Score,
    Shows,
)
from kvis2.scores.parsing import (
    ScoreLike,
    as_objectives,
    as_scores,
    by_output,
    convert_with,
    flat,
    rows,
    take,
)
from kvis2.scores.segmentation import SegmentationScore
from kvis2.scores.units import DirectionScore, FeatureScore, UnitsScore

__all__ = [
    "BinaryScore",
    "CategoricalScore",
    "ClassScore",
    "ContrastScore",
    "DirectionScore",
    "FeatureScore",
    "FinerScore",
    "FunctionScore",
    "InactiveScore",
    "LayerScore",
    "PredictedScore",
    "ReSTScore",
    "RegressionScore",
    "Score",
    "ScoreLike",
    "SegmentationScore",
    "Shows",
    "UnitsScore",
    "as_objectives",
    "as_scores",
    "by_output",
    "convert_with",
    "flat",
    "rows",
    "take",
]
