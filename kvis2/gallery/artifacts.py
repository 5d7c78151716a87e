"""All artefacts of a gallery, each a function from a subject to its files.

To add one, write such a function and enter it in `ARTIFACTS`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from kvis2 import images
from kvis2.gallery import gradients, maps, optimized
from kvis2.gallery.pieces import Artifact, Made, Piece
from kvis2.gallery.subject import Subject


def photograph(subject: Subject) -> Iterator[Piece]:
    """The photograph as the model sees it."""
    picture = functools.partial(images.grid, [subject.picture], margin=0)
    yield Piece("photograph.png", lambda: Made(picture()))


ARTIFACTS: dict[str, Artifact] = {
    "photograph": photograph,
    "vanilla": gradients.vanilla,
    "guided": gradients.guided,
    "grad_cam": maps.grad_cam,
    "score_cam": maps.score_cam,
    "guided_grad_cam": gradients.guided_grad_cam,
    "integrated_gradients": gradients.integrated_gradients,
    "lrp": maps.lrp,
    "layer_cam": maps.layer_cam,
    "gradient_times_image": gradients.gradient_times_image,
    "smooth_grad": gradients.smooth_grad,
    "smooth_grad_sweep": gradients.smooth_grad_sweep,
    "filter_response": gradients.filter_response,
    "layer_sweep": gradients.layer_sweep,
    "filter_sweep": gradients.filter_sweep,
    "inversions": optimized.inversions,
    "deep_dream": optimized.deep_dream,
    "filter_images": optimized.filter_images,
    "class_images": optimized.class_images,
}
"""All artefacts, in the order in which they are made and shown."""

OF_THE_MODEL = frozenset({"filter_images", "class_images"})
"""Those that show the model itself and need no photograph."""
