"""Activation maximisation: what is maximised, over which parameters, in one compiled loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kvis2 import models
from kvis2.ascent.callbacks import AscentCallback
from kvis2.ascent.loop import AUTOMATIC, AscentLoop
from kvis2.ascent.optimizers import as_optimizer
from kvis2.ascent.run import Ascent
from kvis2.models import Batch, LinearOutput
from kvis2.parametrizations import Parametrization
from kvis2.regularizers import Constraint, GradientModifier, Regularizer
from kvis2.scores import CategoricalScore, UnitsScore, as_objectives
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
        regularizers: Penalties of `kvis2.regularizers`, added to the loss.
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
        regularizers: Sequence[Regularizer] = (),
        transforms: Any = AUTOMATIC,
        constraints: Sequence[Constraint] = (),
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
        self.regularizers = tuple(each for each in regularizers if each.weight)
        self.constraints = tuple(constraints)
        several = isinstance(gradient_modifier, list | tuple)
        modifiers: Any = gradient_modifier if several else [gradient_modifier]
        self.gradient_modifiers = tuple(each for each in modifiers if each is not None)
        self.shapes: Any = _image_shapes(self.model, shape)
        self.ranges = _ranges(self.model, input_range, len(self.shapes or [0]))
        self.parametrization = parametrization
        self.transforms = transforms
        if transforms != AUTOMATIC:
            self.transforms = as_transforms(transforms)
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
        score, count = as_objectives(score, batch.size if batch else None, outputs)
        return Ascent(self, self._seeing(score), self.steps, score, batch, count).run(callbacks)

    def _seeing(self, score: Any) -> AscentLoop:
        """This method as it looks at what `score` scores: before the activation of single units."""
        sees_units = isinstance(score, CategoricalScore | UnitsScore)
        if self.pre_activation is not None or self.layer is None or not sees_units:
            return self
        found = self.with_settings(pre_activation=models.activation_of(self.layer) is not None)
        found.sees_units = True
        return found


def _with_linear(model_modifier: Any, linear: bool) -> list[Any]:
    given = model_modifier if isinstance(model_modifier, list | tuple) else [model_modifier]
    return [*(each for each in given if each is not None), *([LinearOutput()] if linear else [])]


def _image_shapes(model: keras.Model, shape: Any) -> list[tuple[int | None, ...]] | None:
    """Shape of one image of each input, channels last; None if neither model nor user says it."""
    structure = models.input_structure(model)
    if shape is not None:
        flat = list(shape.values()) if isinstance(shape, Mapping) else shape
        several = all(isinstance(each, Sequence) for each in flat)
        return [tuple(each) for each in flat] if several else [tuple(flat)]
    if structure is None:
        return None
    shapes = [tuple(each.shape[1:]) for each in keras.tree.flatten(structure)]
    if models.data_format(model) == "channels_first":
        return [(*each[1:], each[0]) if len(each) > 1 else each for each in shapes]
    return shapes


def _ranges(model: keras.Model, input_range: Any, count: int) -> tuple[tuple[Any, Any], ...]:
    """(low, high) for each flat input, each a number or a tuple over the channels."""
    if isinstance(input_range, Mapping):
        given: list[Any] = [input_range[name] for name in _input_names(model, input_range)]
    elif np.ndim(input_range[0]) and np.shape(input_range[0]) == (2,) and count > 1:
        given = list(input_range)
    else:
        given = [input_range] * count
    ranges = []
    for each in given:
        if len(each) != 2 or not np.all(np.asarray(each[0]) < np.asarray(each[1])):
            raise ValueError(
                "Expected `input_range` to be (low, high), low below high. Received: "
                f"{input_range!r}. It is what the model was trained on, such as (0, 255)."
            )
        ranges.append((_as_hashable(each[0]), _as_hashable(each[1])))
    return tuple(ranges)


def _input_names(model: keras.Model, given: Mapping[str, Any]) -> list[str]:
    structure = models.input_structure(model)
    names = [each.name for each in keras.tree.flatten(structure)] if structure else sorted(given)
    if set(names) != set(given):
        raise ValueError(
            f"Expected ranges for the inputs {names}. Received: {sorted(given)}. Name each input."
        )
    return names


def _as_hashable(value: Any) -> Any:
    return tuple(np.asarray(value, float).tolist()) if np.ndim(value) else float(value)
