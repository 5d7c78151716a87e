"""Activation maximisation: what is maximised, over which parameters, in one compiled loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kvis2 import models
from kvis2.ascent.arguments import functions, image_shapes, parts, ranges
from kvis2.ascent.callbacks import AscentCallback
from kvis2.ascent.loop import AUTOMATIC, AscentLoop
from kvis2.ascent.optimizers import as_optimizer
from kvis2.ascent.run import Ascent
from kvis2.models import Batch, LinearOutput
from kvis2.parametrizations import Parametrization
from kvis2.regularizers import GradientModifier, as_regularizers
from kvis2.scores import CategoricalScore, Score, UnitsScore, as_objectives
from kvis2.traced import Seed
from kvis2.transforms import as_transforms
from kvis2.types import LayerReference


class ActivationMaximization(AscentLoop):
    r"""The image that a unit wants to see, found by gradient ascent.

    Minimises `loss = -score(layer(transform(x))) + sum_r weight_r penalty_r(x)` over the
    parameters z of the image `x = parametrization(z)`, and returns for each image the x at which
    the lowest loss was measured. All images are optimised at once, each by itself: it is the same
    whatever it is batched with, and every unit starts from the same noise.

    The defaults follow Olah et al. (2017): whitened Fourier coordinates in decorrelated colours,
    random shifts, zooms and turns (larger ones for classes), Adam; no penalty.
    `kvis2.presets` has the settings of other toolkits:
    `ActivationMaximization(model, layer, **presets.keras_vis())`.

    Args:
        model: Any built Keras model. It is neither copied nor changed.
        layer: The layer whose units are maximised, at any depth, dense or convolutional (the
            mean over space); None is the model's output.
        steps: How many steps are taken.
        optimizer: A Keras optimizer (name, config or object) that treats each number by itself,
            or one of `kvis2.ascent.optimizers`.
        regularizers: Penalties of `kvis2.regularizers`, or functions `images -> (batch,)`, added
            to the loss: one, several, or None. These, `transforms` and `constraints` are for all
            inputs; of a model with several inputs also a dict of them by name (an input that is
            not named has none), or a list with a list for each input.
        transforms: What is done to the image at random before the model sees it: transforms of
            `kvis2.transforms`, Keras random layers, or functions `(images, seed) -> images`.
        constraints: What is done to the image itself before each step: functions
            `(images, step, (low, high)) -> images`, such as `BlurEvery(4)`.
        gradient_modifier: A function of the loss' gradient by the parameters, `(batch, ...)`, or
            several in order, such as `NormalizeGradient()`.
        parametrization: `Fourier()`, `MagnitudeConstrained()` or `Pixels()`; by default Fourier
            for inputs with space, and pixels for vectors.
        input_range: Lowest and highest value of the input, numbers or one for each channel; for
            several inputs a list or dict of pairs. It must be the range the model was trained on.
        pre_activation: True maximises what enters the final ReLU, softmax or other activation of
            the layer, False the layer's output. None, the default, is True for classes and units
            of vectors; of a filter the positive responses count, and the negative ones a tenth
            (whether a ReLU follows or not), so that it always has a gradient and yet looks for
            its pattern rather than for a mean; other scores see the layer's output.
        shape: Shape of one image, `(*spatial, channels)`, for a model that leaves it open.
        seed: The same seed gives the same bytes on a CPU; None draws another at every call.
        model_modifier: As for `kvis2.Explainer`, such as `GuidedReLU()`.
        clone: As for `kvis2.Explainer`.
        call_index: Which call of a layer that the model calls more than once.
        batch_size: How many images one pass of the model holds; None chooses by their size.
        jit_compile: Compile the loop with XLA.

    References:
        Erhan et al. (2009), Visualizing Higher-Layer Features of a Deep Network.
        Olah et al. (2017), Feature Visualization. https://distill.pub/2017/feature-visualization

    Example:
        >>> flamingo = ActivationMaximization(model)(130)
        >>> filters = ActivationMaximization(model, "block3_conv1")(range(64))
        >>> filters.shape
        (64, 224, 224, 3)
    """

    untraced = AscentLoop.untraced | {"steps", "pre_activation"}

    def __init__(
        self,
        model: keras.Model,
        layer: LayerReference | None = None,
        *,
        steps: int = 128,
        optimizer: Any = None,
        regularizers: Any = (),
        transforms: Any = AUTOMATIC,
        constraints: Any = (),
        gradient_modifier: GradientModifier | Sequence[GradientModifier] | None = None,
        parametrization: Parametrization | None = None,
        input_range: Any = (0.0, 255.0),
        pre_activation: bool | None = None,
        shape: Any = None,
        seed: int | None = 0,
        model_modifier: Any = None,
        clone: bool = True,
        call_index: int = -1,
        batch_size: int | None = None,
        jit_compile: bool = False,
    ) -> None:
        super().__init__(
            model,
            layer,
            model_modifier=_with_linear(
                model_modifier, layer is None and pre_activation is not False
            ),
            clone=clone,
            call_index=call_index,
            pre_activation=bool(pre_activation) and layer is not None,
            batch_size=batch_size,
            jit_compile=jit_compile,
        )
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(
                f"Expected `steps` to be a positive int. Received: {steps!r}. Give for example 256."
            )
        self.steps = steps
        self.optimizer = as_optimizer(
            keras.optimizers.Adam(0.1) if optimizer is None else optimizer
        )
        several = isinstance(gradient_modifier, list | tuple)
        modifiers: Any = gradient_modifier if several else [gradient_modifier]
        self.gradient_modifiers = functions(
            [each for each in modifiers if each is not None],
            "gradient_modifier",
            "NormalizeGradient()",
        )
        self.shapes: Any = image_shapes(self.model, shape)
        count = len(self.shapes or [0])
        self.ranges = ranges(self.model, input_range, count)
        self.parametrization = parametrization
        found = parts(self.model, regularizers, as_regularizers, count, "regularizers")
        self.regularizers = tuple(each for each in found if each.value.weight)
        self.constraints = parts(self.model, constraints, _as_constraints, count, "constraints")
        self.transforms = transforms
        if not (isinstance(transforms, str) and transforms == AUTOMATIC):
            self.transforms = parts(self.model, transforms, as_transforms, count, "transforms")
        self.pre_activation = pre_activation
        self.seed = Seed(seed)

    def __call__(
        self, score: Any, seed_input: Any = None, *, callbacks: Sequence[AscentCallback] = ()
    ) -> Any:
        """Optimise one image for every unit.

        Args:
            score: A unit (class, filter); several, `[3, 5]` or `range(64)`, one image each;
                lists of units, `[[1, 7]]`, for their mean; a float vector, or one per row, for a
                direction in activation space; a `kvis2.scores.Score`, or a function `output ->
                (batch,)`. A list or dict of these for a model with several outputs.
            seed_input: Images to start from, as the model takes them; one does for all units.
                By default noise, the same for every unit.
            callbacks: Such as `History()`, `ProgressBar()`, `Snapshots(50)`, `GifWriter(path)`.

        Returns:
            float32 images `(images, *spatial, channels)` in the input range, channels last; a
            list or dict of them for a model with several inputs.

        Raises:
            ValueError: If the score or the seed do not fit the model, if the score does not
                depend on the input, or if the loss is not finite.
        """
        self._follow()
        batch = None if seed_input is None else Batch(self.model, seed_input)
        outputs = models.output_count(self.model) if self.settings.reference is None else 1
        score, count = as_objectives(_sole(score, outputs), batch.size if batch else None, outputs)
        return Ascent(self, self._seeing(score), self.steps, score, batch, count).run(callbacks)

    def _seeing(self, score: Any) -> AscentLoop:
        """This method as it looks at what `score` scores: before the activation of single units."""
        sees_units = isinstance(score, CategoricalScore | UnitsScore)
        if self.pre_activation is not None or self.layer is None or not sees_units:
            return self
        found = self.with_settings(pre_activation=models.activation_of(self.layer) is not None)
        found.sees_units = True
        return found


def _as_constraints(given: Any) -> Sequence[Any]:
    return functions(given, "constraints", "BlurEvery(4)")


def _with_linear(model_modifier: Any, linear: bool) -> list[Any]:
    given = model_modifier if isinstance(model_modifier, list | tuple) else [model_modifier]
    return [*(each for each in given if each is not None), *([LinearOutput()] if linear else [])]


def _sole(score: Any, outputs: int) -> Any:
    """The score in a list of one, as of a model with one output; a unit in a list stays there."""
    if outputs == 1 and isinstance(score, list | tuple) and len(score) == 1:
        inner = score[0]
        return inner if isinstance(inner, Score) or callable(inner) else score
    return score
