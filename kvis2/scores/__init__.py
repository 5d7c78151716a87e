"""What is explained: from the outputs of a model to one number per sample."""

from kvis2.scores.outputs import (
    BinaryScore,
    CategoricalScore,
    ClassScore,
    ContrastScore,
    FunctionScore,
    InactiveScore,
    LayerScore,
    PredictedScore,
    RegressionScore,
    Score,
    SegmentationScore,
)
from kvis2.scores.parsing import (
    ScoreLike,
    as_objectives,
    as_scores,
    by_output,
    convert_with,
    filled,
    flat,
    rows,
    take,
)
from kvis2.scores.units import DirectionScore, FeatureScore, UnitsScore

__all__ = [
    "BinaryScore",
    "CategoricalScore",
    "ClassScore",
    "ContrastScore",
    "DirectionScore",
    "FeatureScore",
    "FunctionScore",
    "InactiveScore",
    "LayerScore",
    "PredictedScore",
    "RegressionScore",
    "Score",
    "ScoreLike",
    "SegmentationScore",
    "UnitsScore",
    "as_objectives",
    "as_scores",
    "by_output",
    "convert_with",
    "filled",
    "flat",
    "rows",
    "take",
]
