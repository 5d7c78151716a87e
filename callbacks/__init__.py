"""Keras callbacks that log what a model looks at while it trains."""

from kvis2.callbacks.explanations import CamLogger, ExplanationLogger, SaliencyLogger
from kvis2.callbacks.features import ActivationLogger, FeatureLogger, FilterLogger
from kvis2.callbacks.guide import CounterfactualLogger, MaskGuide
from kvis2.callbacks.looked import at_layer
from kvis2.callbacks.masks import Annotated, counterfactual_figures, exchanged
from kvis2.callbacks.pictures import Observation, PictureLogger
from kvis2.callbacks.predictions import as_probabilities, two_classes
from kvis2.callbacks.probe_images import Probes, take_probes
from kvis2.callbacks.schedule import Schedule
from kvis2.callbacks.settings import Log, PanelStyle
from kvis2.callbacks.writers import FolderWriter, Picture, TensorBoardWriter, Writer

__all__ = [
    "ActivationLogger",
    "Annotated",
    "CamLogger",
    "CounterfactualLogger",
    "ExplanationLogger",
    "FeatureLogger",
    "FilterLogger",
    "FolderWriter",
    "Log",
    "MaskGuide",
    "Observation",
    "PanelStyle",
    "Picture",
    "PictureLogger",
    "Probes",
    "SaliencyLogger",
    "Schedule",
    "TensorBoardWriter",
    "Writer",
    "as_probabilities",
    "at_layer",
    "counterfactual_figures",
    "exchanged",
    "take_probes",
    "two_classes",
]
