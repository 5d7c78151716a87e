"""Gradient ascent on the input: what a unit, a layer or a feature wants to see."""

from kvis2.ascent.callbacks import (
    AscentCallback,
    GifWriter,
    History,
    ProgressBar,
    Snapshots,
    gif_path,
)
from kvis2.ascent.dreaming import DeepDream
from kvis2.ascent.inversion import FeatureInversion
from kvis2.ascent.loop import automatic_transforms
from kvis2.ascent.maximization import ActivationMaximization
from kvis2.ascent.optimizers import KerasOptimizer, KerasVisRMSProp

__all__ = [
    "ActivationMaximization",
    "AscentCallback",
    "DeepDream",
    "FeatureInversion",
    "GifWriter",
    "History",
    "KerasOptimizer",
    "KerasVisRMSProp",
    "ProgressBar",
    "Snapshots",
    "automatic_transforms",
    "gif_path",
]
