"""Keras layers and models that explain: to predict and explain in one, to train and build with."""

from kvis2.layers.activations import DeconvReLU, GuidedReLU
from kvis2.layers.cam_layer import CamLayer
from kvis2.layers.explained import Explained
from kvis2.layers.exporting import FORMATS, Exported, export
from kvis2.layers.jitter import RandomJitter
from kvis2.layers.overlay import Overlay

__all__ = [
    "FORMATS",
    "CamLayer",
    "DeconvReLU",
    "Explained",
    "Exported",
    "GuidedReLU",
    "Overlay",
    "RandomJitter",
    "export",
]
