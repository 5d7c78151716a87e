"""Settings of other toolkits and papers for `ActivationMaximization` and `FeatureInversion`.

Each function returns keyword arguments: `ActivationMaximization(model, layer, **keras_vis())`.
"""

from __future__ import annotations

from typing import Any

import keras

from kvis2.ascent import KerasVisRMSProp
from kvis2.parametrizations import MagnitudeConstrained, Pixels, Standardized
from kvis2.regularizers import (
    AlphaNorm,
    BlurEvery,
    ClipGradient,
    L1Decay,
    L2Decay,
    LpNorm,
    NormalizeGradient,
    Quantize,
    Regularizer,
    TotalVariation,
)
from kvis2.transforms import RandomCrop

# Uniform noise over the whole range has this standard deviation, as a fraction of the range.
_UNIFORM = 12.0**-0.5


def keras_vis(
    lp_norm_weight: float = 10.0, tv_weight: float = 10.0, steps: int = 200
) -> dict[str, Any]:
    """As `visualize_activation` of keras-vis.

    Pixels from faint noise, the L6 norm and total variation as penalties, each image's gradient
    divided by its norm, RMSProp without a learning rate. The image is not clipped. keras-vis
    maximises the layer's output as it is, and lets the user take the softmax off.

    Args:
        lp_norm_weight: Weight of the L6 norm.
        tv_weight: Weight of the total variation.
        steps: Its `max_iter`.
    """
    return {
        "steps": steps,
        "parametrization": Pixels(mean=0.5, deviation=0.05),
        "optimizer": KerasVisRMSProp(),
        "regularizers": [LpNorm(lp_norm_weight, p=6), TotalVariation(tv_weight, beta=2)],
        "gradient_modifier": NormalizeGradient(),
        "transforms": None,
        "pre_activation": False,
    }


def class_image(
    decay: str | None = None,
    weight: float = 1e-4,
    blur_every: int = 0,
    blur_deviation: float = 1.0,
    clip: float | None = None,
    steps: int = 149,
) -> dict[str, Any]:
    """As the class images of pytorch-cnn-visualizations.

    Uniform noise, gradient descent with rate 6 on standardised pixels, rounded to 8 bits at each
    step. The regularised ones of the original are `class_image("l2", blur_every=4, clip=0.1)`;
    its clipping did not reach the image's gradient, this one does.

    Args:
        decay: None, "l1" or "l2".
        weight: Weight of the decay.
        blur_every: Blur the image before every n-th step; 0 never.
        blur_deviation: In pixels.
        clip: Largest norm of the gradient; None does not clip.
        steps: How many.
    """
    decays: dict[str | None, list[Regularizer]] = {
        None: [],
        "l1": [L1Decay(weight)],
        "l2": [L2Decay(weight)],
    }
    if decay not in decays:
        raise ValueError(f"Expected `decay` to be None, 'l1' or 'l2'. Received: {decay!r}.")
    blur = [BlurEvery(blur_every, blur_deviation)] if blur_every else []
    return {
        "steps": steps,
        "parametrization": Standardized(mean=0.5, deviation=_UNIFORM),
        "optimizer": keras.optimizers.SGD(6.0),
        "regularizers": decays[decay],
        "constraints": [Quantize(), *blur],
        "gradient_modifier": None if clip is None else ClipGradient(clip),
        "transforms": None,
        "pre_activation": True,
    }


def filter_image(steps: int = 30) -> dict[str, Any]:
    """As the filter images of pytorch-cnn-visualizations: Adam 0.1 from light noise.

    Args:
        steps: How many.
    """
    return {
        "steps": steps,
        "parametrization": Standardized(mean=165 / 255, deviation=30 / 255 * _UNIFORM),
        "optimizer": keras.optimizers.Adam(0.1, epsilon=1e-8),
        "regularizers": [L2Decay(1e-6)],
        "transforms": None,
        "pre_activation": True,
    }


def magnitude_constrained(steps: int = 256, decorrelate: bool | str = True) -> dict[str, Any]:
    """As MaCo: only the phases move, and the model sees random parts of the image.

    References:
        Fel et al. (2023), Unlocking Feature Visualization for Deeper Networks with MAgnitude
        Constrained Optimization. https://arxiv.org/abs/2306.06805

    Args:
        steps: How many.
        decorrelate: As for `kvis2.parametrizations.Fourier`: "bgr" if blue comes first.
    """
    return {
        "steps": steps,
        "parametrization": MagnitudeConstrained(decorrelate=decorrelate),
        "optimizer": keras.optimizers.Adam(0.3),
        "transforms": [RandomCrop(0.3, 0.9)],
    }


def mahendran_vedaldi(first_rate: float = 1e4, steps: int = 201) -> dict[str, Any]:
    """As the inverted representations of pytorch-cnn-visualizations, for `FeatureInversion`.

    Momentum 0.9 at a rate that is divided by 10 after the steps 0, 40, 80, ..., on
    `0.1 ||phi(x) - phi0||^2 / ||phi0||^2 + 1e-7 sum x^6 + 1e-8 TV(x)`, the total variation taken
    over rows and columns.

    Args:
        first_rate: The rate of the first step; each one after it is at most a tenth.
        steps: How many.
    """
    boundaries = [0, *range(40, steps, 40)]
    rates = [first_rate * 0.1**i for i in range(len(boundaries) + 1)]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)
    return {
        "steps": steps,
        "score_weight": 0.1,
        "parametrization": Standardized(mean=0.485, deviation=0.1 * 0.229),
        "optimizer": keras.optimizers.SGD(schedule, momentum=0.9),
        "regularizers": [AlphaNorm(1e-7, alpha=6), TotalVariation(1e-8, mean=False)],
        "transforms": None,
    }


def plain_dream(steps: int = 250) -> dict[str, Any]:
    """As the deep dream of pytorch-cnn-visualizations, for `DeepDream`: plain gradient ascent.

    One octave, no shifts, no scaling of the gradient, no clipping; rate 12 and decay 1e-4 on
    pixels that are standardised, here in units of 0..255.

    Args:
        steps: How many.
    """
    deviations = [58.395, 57.12, 57.375]
    return {
        "steps": steps,
        "step_size": [12.0 * each**2 for each in deviations],
        "decay": 12.0 * 1e-4,
        "octaves": 1,
        "jitter": False,
        "normalize": False,
        "clip": False,
        "pre_activation": True,
    }
