"""Why kvis2 is not where it is to be, for the rows where that is so.

Keys are case names, `Case.name`, or such a name and a peer, "GradCAM vgg16 b8 / captum", or and
"first call". A key without the batch, or without the model, speaks for all of them.
"""

from __future__ import annotations

_ONE_CALL = (
    "the pass itself takes no longer than the floor; what one call adds in Python (checking the "
    "input, finding the compiled pass, handing arrays over) is some 0.3 ms"
)
_EPSILON_RULE = (
    "the epsilon rule adds, divides and multiplies in every layer, where a gradient only masks, "
    "and the sums that tell what biases absorb come on top, which counts where convolutions are "
    "small"
)
_FOLDED = (
    "the kernels are multiplied in every call, for weights may change between calls; for one image "
    "that takes as long as folding saves"
)
_GAP = (
    "how far the attributions are from complete takes the scores of image and baseline, two "
    "forward passes more, which is much beside 8 steps and little beside 64"
)
_TWO_TRACES = (
    "how far the attributions are from complete is a second pass to trace, beside that of the "
    "gradients"
)
_BETWEEN_RUNS = "runs of the same code differ by as much here: medians of {} were seen"

REASONS: dict[str, str] = {
    "GradCAM small": _ONE_CALL,
    "LRP": _EPSILON_RULE,
    "LRP small b1 / zennit": f"{_EPSILON_RULE}; and {_ONE_CALL}",
    "LRP vgg16 / zennit": "kvis2 is near the floor, and zennit not further from it here",
    "GradCAM mobilenetv2 b1": (
        "every call asks whether 155 layers are still what they were, half a millisecond, and "
        "multiplies the kernels that batch normalisation is folded into"
    ),
    "GradCAM resnet50 b1": _FOLDED,
    "GradCAM vgg16 b8": _BETWEEN_RUNS.format("0.89, 0.99 and 1.13"),
    "Saliency resnet50 b8": _BETWEEN_RUNS.format("1.01, 1.03 and 1.07"),
    "ScoreCAM 1280 mobilenetv2 b1 / tf-keras-vis": (
        "kvis2 is below its own goal of 0.7 floors, and the peer nearer to the floor than it was "
        "where the goal was set"
    ),
    "ScoreCAM / first call": (
        "two passes are traced, that of the activations and that of the masked images"
    ),
    "SmoothGrad 8 / tf-keras-vis": (
        "the goal is that of one image; on eight the peer runs eight rows at a time, not one"
    ),
    "IntegratedGradients 8 / xplique": _GAP,
    "IntegratedGradients 8": _GAP,
    "IntegratedGradients / first call": _TWO_TRACES,
    "Road / first call": "the first call solves the same systems of equations as every other",
    "Road": (
        "the floor imputes nothing: solving for the pixels that are taken away takes most of the "
        "time"
    ),
    "ActivationMaximization 200 small b16 / tf-keras-vis": (
        "kvis2 is near the floor, which is itself only so far from the peer where a batch fills "
        "the processor"
    ),
}


def reason(case_name: str, rival: str | None = None) -> str | None:
    """The reason on record: the longest key that the case starts with; None if there is none."""
    suffix = f" / {rival}" if rival else ""
    fitting = [key for key in REASONS if _fits(key, case_name, suffix)]
    return REASONS[max(fitting, key=len)] if fitting else None


def _fits(key: str, case_name: str, suffix: str) -> bool:
    if not suffix:
        return " / " not in key and f"{case_name} ".startswith(f"{key} ")
    return key.endswith(suffix) and f"{case_name} ".startswith(key.removesuffix(suffix) + " ")
