"""The functions of keras-vis on Keras 3, with their names, arguments, defaults and meaning.

A script needs other imports only: `vis.visualization` is `kvis2.visualization`, `vis.utils.utils`
is `kvis2.visualization.tools`, and each other `vis.<module>` is `kvis2.visualization.<module>`.
`docs/from_keras_vis.md` says what has changed in the numbers.
"""

from kvis2.visualization.activation import visualize_activation, visualize_activation_with_losses
from kvis2.visualization.arrays import overlay
from kvis2.visualization.attention import (
    visualize_cam,
    visualize_cam_with_losses,
    visualize_saliency,
    visualize_saliency_with_losses,
)
from kvis2.visualization.callbacks import GifGenerator, OptimizerCallback, Print
from kvis2.visualization.graphs import get_num_filters
from kvis2.visualization.input_modifiers import InputModifier, Jitter
from kvis2.visualization.losses import ActivationMaximization, Loss
from kvis2.visualization.optimizer import Optimizer
from kvis2.visualization.regularizers import LPNorm, TotalVariation

__all__ = [
    "ActivationMaximization",
    "GifGenerator",
    "InputModifier",
    "Jitter",
    "LPNorm",
    "Loss",
    "Optimizer",
    "OptimizerCallback",
    "Print",
    "TotalVariation",
    "get_num_filters",
    "overlay",
    "visualize_activation",
    "visualize_activation_with_losses",
    "visualize_cam",
    "visualize_cam_with_losses",
    "visualize_saliency",
    "visualize_saliency_with_losses",
]
