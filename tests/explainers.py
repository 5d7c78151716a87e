"""Every public explainer by name, with few samples and steps."""

import functools
import inspect

import kvis2


def over_noise(statistic):
    """What makes `statistic` of the gradients on few noisy copies."""
    return lambda model, **options: statistic(kvis2.Saliency(model, **options), samples=3)


EXPLAINERS = {
    "CAM": kvis2.CAM,
    "GradCAM": kvis2.GradCAM,
    "GradCAMPlusPlus": kvis2.GradCAMPlusPlus,
    "SmoothGradCAMPlusPlus": functools.partial(kvis2.SmoothGradCAMPlusPlus, samples=3),
    "LayerCAM": kvis2.LayerCAM,
    "XGradCAM": kvis2.XGradCAM,
    "HiResCAM": kvis2.HiResCAM,
    "EigenCAM": kvis2.EigenCAM,
    "EigenGradCAM": kvis2.EigenGradCAM,
    "ScoreCAM": functools.partial(kvis2.ScoreCAM, max_channels=3),
    "AblationCAM": functools.partial(kvis2.AblationCAM, max_channels=3),
    "SegXResCAM": kvis2.SegXResCAM,
    "ReciproCAM": kvis2.ReciproCAM,
    "ShapleyCAM": kvis2.ShapleyCAM,
    "OptiCAM": functools.partial(kvis2.OptiCAM, steps=3),
    "FEM": kvis2.FEM,
    "FullGrad": kvis2.FullGrad,
    "Saliency": kvis2.Saliency,
    "GuidedGradCAM": kvis2.GuidedGradCAM,
    "SmoothGrad": over_noise(kvis2.SmoothGrad),
    "SmoothGradSquared": over_noise(kvis2.SmoothGradSquared),
    "VarGrad": over_noise(kvis2.VarGrad),
    "InputXGradient": kvis2.InputXGradient,
    "IntegratedGradients": functools.partial(kvis2.IntegratedGradients, steps=3),
    "ExpectedGradients": functools.partial(kvis2.ExpectedGradients, baseline=[0.0, 0.5], samples=4),
    "IDGI": functools.partial(kvis2.IDGI, steps=3),
    "LayerConductance": functools.partial(kvis2.LayerConductance, steps=3),
    "GuidedIG": functools.partial(kvis2.GuidedIG, steps=3),
    "BlurIG": functools.partial(kvis2.BlurIG, steps=3),
    "LRP": kvis2.LRP,
    "Occlusion": kvis2.Occlusion,
    "RISE": functools.partial(kvis2.RISE, samples=8),
    "ExtremalMask": functools.partial(kvis2.ExtremalMask, steps=3, cells=3),
    "AttentionRollout": kvis2.AttentionRollout,
    "GradientAttentionRollout": kvis2.GradientAttentionRollout,
    "LeGrad": kvis2.LeGrad,
}

OF_TRANSFORMERS = {"AttentionRollout", "GradientAttentionRollout", "LeGrad"}
"""Explainers of models with attention layers alone."""


def public_explainers():
    """The names of all that explain an input: not the bases, nor what draws pictures of its own."""
    public = {name: getattr(kvis2, name) for name in kvis2.__all__}
    others = {"Explainer", "ClassActivationMap"}
    return {
        name
        for name, each in public.items()
        if inspect.isclass(each) and issubclass(each, kvis2.Explainer) and name not in others
    }
