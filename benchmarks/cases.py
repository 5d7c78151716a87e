"""What is measured: which method, on which model, on how many images, and against whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One row of the benchmark.

    Attributes:
        method: A key of `METHODS`.
        model: A key of `benchmarks.models.BUILDERS`.
        batch: How many images one call explains.
        options: What the method needs besides, such as `samples` or `channels`.
    """

    method: str
    model: str
    batch: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as "GradCAM mobilenetv2 b8", or "SmoothGrad 50 small b1"."""
        count = next(iter(self.options.values()), "")
        return " ".join(f"{METHODS[self.method].title} {count} {self.model} b{self.batch}".split())


@dataclass(frozen=True)
class Method:
    """How a method is called in the table, what its floor is, and how its results are compared."""

    title: str
    floor: str
    agreement: str  # a key of `benchmarks.agreement.COMPARISONS`


METHODS = {
    "gradcam": Method("GradCAM", "forward + backward of the head", "map"),
    "saliency": Method("Saliency", "forward + backward", "gradient"),
    "guided": Method("Guided", "forward + backward", "gradient"),
    "smoothgrad": Method("SmoothGrad", "samples x (forward + backward)", "gradient"),
    "integrated": Method("IntegratedGradients", "steps x (forward + backward)", "gradient"),
    "scorecam": Method("ScoreCAM", "channels x forward", "map"),
    "lrp": Method("LRP", "forward + backward", "gradient"),
    "maximization": Method("ActivationMaximization", "steps x (forward + backward)", "score"),
    "deletion": Method("Deletion", "(steps + 1) x forward", "score"),
    "insertion": Method("Insertion", "(steps + 1) x forward", "score"),
    "road": Method("Road", "2 x fractions x forward, nothing imputed", "score"),
}

FLOOR, OURS, BEFORE = "floor", "kvis2", "kvis2 before"


@dataclass(frozen=True)
class Peer:
    """Another package: the module of its worker, its environment, and what it can do."""

    worker: str
    environment: str
    methods: Sequence[str]


PEERS = {
    "tf-keras-vis": Peer(
        "tf_keras_vis",
        "tensorflow",
        ("gradcam", "saliency", "smoothgrad", "scorecam", "maximization"),
    ),
    "xplique": Peer(
        "xplique",
        "tensorflow",
        ("gradcam", "saliency", "guided", "smoothgrad", "integrated", "deletion", "insertion"),
    ),
    "captum": Peer(
        "captum", "torch", ("gradcam", "saliency", "guided", "smoothgrad", "integrated")
    ),
    "grad-cam": Peer("grad_cam", "torch", ("gradcam", "scorecam", "road")),
    "zennit": Peer("zennit", "torch", ("lrp",)),
}


def _each(method: str, model: str, batches: Sequence[int], **options: Any) -> list[Case]:
    return [Case(method, model, batch, options) for batch in batches]


QUICK = [
    *_each("gradcam", "mobilenetv2", (1, 8)),
    *_each("gradcam", "small", (1, 32)),
    *_each("saliency", "small", (32,)),
    *_each("guided", "small", (8,)),
    *_each("smoothgrad", "small", (8,), samples=50),
    *_each("integrated", "small", (8,), samples=64),
    *_each("scorecam", "small", (8,), channels=128),
    *_each("lrp", "small", (32,)),
    *_each("maximization", "small", (1,), steps=50),
    *_each("deletion", "small", (8,), steps=28),
]

# What takes longest comes last; the table has an order of its own.
FULL = [
    *_each("gradcam", "mobilenetv2", (1, 8, 32)),
    *_each("gradcam", "small", (1, 8, 32)),
    *_each("saliency", "mobilenetv2", (1, 8)),
    *_each("saliency", "small", (1, 32)),
    *_each("guided", "mobilenetv2", (8,)),
    *_each("guided", "small", (32,)),
    *_each("lrp", "small", (1, 32)),
    *_each("lrp", "vgg16", (1,)),
    *_each("gradcam", "resnet50", (1, 8)),
    *_each("gradcam", "vgg16", (1, 8)),
    *_each("maximization", "small", (1, 16), steps=200),
    *_each("smoothgrad", "small", (1, 8), samples=50),
    *_each("integrated", "small", (1, 8), samples=64),
    *_each("scorecam", "small", (1, 32), channels=128),
    *_each("saliency", "resnet50", (8,)),
    *_each("guided", "resnet50", (8,)),
    *_each("saliency", "vgg16", (1,)),
    *_each("maximization", "vgg16", (1,), steps=8),
    *_each("integrated", "mobilenetv2", (1,), samples=64),
    *_each("smoothgrad", "mobilenetv2", (1,), samples=50),
    *_each("scorecam", "mobilenetv2", (8,), channels=32),
    *_each("integrated", "mobilenetv2", (8,), samples=8),
    *_each("smoothgrad", "mobilenetv2", (8,), samples=8),
    *_each("deletion", "small", (8,), steps=28),
    *_each("insertion", "small", (8,), steps=28),
    *_each("deletion", "mobilenetv2", (8,), steps=28),
    *_each("insertion", "mobilenetv2", (8,), steps=28),
    *_each("road", "mobilenetv2", (4,), fractions=4),
    *_each("saliency", "mobilenetv2", (32,)),
    *_each("gradcam", "resnet50", (32,)),
    *_each("scorecam", "mobilenetv2", (1,), channels=1280),
]

_FOLDED = {
    ("gradcam", "mobilenetv2"): 0.75,
    ("gradcam", "resnet50"): 0.92,
    ("scorecam", "mobilenetv2"): 0.70,
}


def floor_goal(case: Case) -> float:
    """The ratio to the floor that kvis2 is to stay below."""
    by_size = 1.15 if case.batch == 1 or case.model == "small" else 1.05
    return _FOLDED.get((case.method, case.model), by_size)


_AHEAD = {
    ("gradcam", "mobilenetv2", "tf-keras-vis"): 4.5,
    ("gradcam", "small", "tf-keras-vis"): 4.5,
    ("gradcam", "resnet50", "tf-keras-vis"): 3.7,
    ("gradcam", "vgg16", "tf-keras-vis"): 3.0,
    ("smoothgrad", "mobilenetv2", "tf-keras-vis"): 8.0,
    ("smoothgrad", "small", "tf-keras-vis"): 8.0,
    ("scorecam", "mobilenetv2", "tf-keras-vis"): 4.5,
    ("scorecam", "small", "tf-keras-vis"): 2.8,
    ("maximization", "small", "tf-keras-vis"): 6.0,
    ("maximization", "vgg16", "tf-keras-vis"): 1.8,
    ("lrp", "small", "zennit"): 2.5,
    ("lrp", "vgg16", "zennit"): 2.5,
}


def peer_goal(case: Case, peer: str) -> float:
    """How many times the time of kvis2 a peer is to take, at least."""
    return _AHEAD.get((case.method, case.model, peer), 1.0)
