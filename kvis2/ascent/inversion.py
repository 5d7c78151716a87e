"""Feature inversion: the image that a layer cannot tell from a given one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from kvis2 import models
from kvis2.ascent.callbacks import AscentCallback
from kvis2.ascent.maximization import ActivationMaximization
from kvis2.inspection import activations
from kvis2.regularizers import Regularizer
from kvis2.scores import FeatureScore
from kvis2.shown import Shown
from kvis2.types import LayerReference


class FeatureInversion(Shown):
    r"""What is left of an image at a layer, found by inverting the layer.

    Minimises `score_weight ||phi(x) - phi(image)||^2 / ||phi(image)||^2 + penalties`, phi the
    layer's output. What the inversion does not bring back, the layer has thrown away: the deeper
    the layer, the more. `presets.mahendran_vedaldi()` has the settings of the paper.

    Args:
        model: Any built Keras model. It is neither copied nor changed.
        layer: The layer to invert.
        steps: How many steps are taken.
        regularizers: Penalties; none by default, for Fourier coordinates are smooth enough.
        transforms: As for `ActivationMaximization`; none by default, for places matter.
        score_weight: What the relative squared error is multiplied by.
        pre_activation: Whether what enters the layer's activation is compared; None, the default,
            where it has one.
        **options: As for `ActivationMaximization`.

    References:
        Mahendran and Vedaldi (2015), Understanding Deep Image Representations by Inverting Them.
        https://arxiv.org/abs/1412.0035

    Example:
        >>> inversion = FeatureInversion(model, "block4b_add")
        >>> pictures = inversion(images)
        >>> inversion.errors  # relative errors of the features, one for each image
    """

    def __init__(
        self,
        model: keras.Model,
        layer: LayerReference,
        *,
        steps: int = 256,
        regularizers: Sequence[Regularizer] = (),
        transforms: Any = None,
        score_weight: float = 1.0,
        pre_activation: bool | None = None,
        **options: Any,
    ) -> None:
        if pre_activation is None:
            pre_activation = models.activation_of(models.find_layer(model, layer)) is not None
        self._pre_activation = pre_activation
        self._ascent = ActivationMaximization(
            model,
            layer,
            steps=steps,
            regularizers=regularizers,
            transforms=transforms,
            pre_activation=self._pre_activation,
            **options,
        )
        self._score_weight = score_weight
        self.errors: np.ndarray | None = None

    @property
    def layer(self) -> Any:
        """The layer that is inverted."""
        return self._ascent.layer

    def __call__(
        self, images: Any, seed_input: Any = None, *, callbacks: Sequence[AscentCallback] = ()
    ) -> Any:
        """Invert the layer's features of each image.

        Args:
            images: What the model takes, `(batch, ...)`.
            seed_input: Images to start from; by default noise.
            callbacks: As for `ActivationMaximization`.

        Returns:
            float32 images in the input range. `errors` holds `||phi(x) - phi(image)|| /
            ||phi(image)||` of each.
        """
        target = self._features(images)
        score = FeatureScore(target, self._score_weight)
        inverted = self._ascent(score, seed_input, callbacks=callbacks)
        reached = self._features(inverted)
        axes = tuple(range(1, target.ndim))
        lengths = np.sqrt(np.sum(np.square(target), axes))
        self.errors = np.sqrt(np.sum(np.square(reached - target), axes)) / np.maximum(
            lengths, 1e-12
        )
        return inverted

    def _features(self, images: Any) -> np.ndarray:
        ascent = self._ascent
        return activations(
            ascent.model,
            ascent.layer,
            images,
            pre_activation=self._pre_activation,
            call_index=ascent.settings.call_index,
            batch_size=ascent.settings.batch_size,
        )
