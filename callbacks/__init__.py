"""Keras callbacks that log what a model looks at while it trains."""

from kvis2.callbacks.features import ActivationLogger, FeatureLogger, FilterLogger
from kvis2.callbacks.loggers import (
    CamLogger,
    ExplanationLogger,
    Observation,
    PictureLogger,
    SaliencyLogger,
)
from kvis2.callbacks.probes import Probes, take_probes
from kvis2.callbacks.schedule import Schedule
from kvis2.callbacks.writers import FolderWriter, Picture, TensorBoardWriter, Writer

__all__ = [
    "ActivationLogger",
    "CamLogger",
    "ExplanationLogger",
    "FeatureLogger",
    "FilterLogger",
    "FolderWriter",
    "Observation",
    "Picture",
    "PictureLogger",
    "Probes",
    "SaliencyLogger",
    "Schedule",
    "TensorBoardWriter",
    "Writer",
    "take_probes",
]
