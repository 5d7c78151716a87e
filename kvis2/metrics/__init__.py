"""How good a map is: measures of maps, of maps with their model, and of explainers.

Settings go to the constructor, data to the call, and one float32 number per image comes back. No
single number decides: report several, each beside that of random maps (`random_control=`).
"""

from kvis2.localization import (
    energy_in_box,
    localization_auc,
    object_masks,
    pointing_game,
    relevance_rank,
)
from kvis2.metrics.compare import compare
from kvis2.metrics.comparison import Cell, Comparison
from kvis2.metrics.deletion import Deletion, Insertion, insertion_gain
from kvis2.metrics.fidelity import MuFidelity
from kvis2.metrics.infidelity import Infidelity
from kvis2.metrics.maps import (
    completeness_gap,
    complexity,
    drift,
    effective_complexity,
    sparseness,
    untrained_similarity,
)
from kvis2.metrics.masking import AverageDrop, CompletenessGap, ConfidenceGain
from kvis2.metrics.measure import Measure
from kvis2.metrics.randomization import ParameterRandomization, RandomLogit
from kvis2.metrics.ranking import random_maps, ranks
from kvis2.metrics.result import Measurement
from kvis2.metrics.road import Road
from kvis2.metrics.sensitivity import MaxSensitivity
from kvis2.metrics.similarity import pearson, spearman, ssim

__all__ = [
    "AverageDrop",
    "Cell",
    "Comparison",
    "CompletenessGap",
    "ConfidenceGain",
    "Deletion",
    "Infidelity",
    "Insertion",
    "MaxSensitivity",
    "Measure",
    "Measurement",
    "MuFidelity",
    "ParameterRandomization",
    "RandomLogit",
    "Road",
    "compare",
    "completeness_gap",
    "complexity",
    "drift",
    "effective_complexity",
    "energy_in_box",
    "insertion_gain",
    "localization_auc",
    "object_masks",
    "pearson",
    "pointing_game",
    "random_maps",
    "ranks",
    "relevance_rank",
    "sparseness",
    "spearman",
    "ssim",
    "untrained_similarity",
]
