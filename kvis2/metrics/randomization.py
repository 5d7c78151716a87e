"""Sanity checks: does a map depend on what the model has learned, and on the class?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2 import models, scores
from kvis2.explainers import Explainer
from kvis2.metrics.explained import OfExplainer, joined, raw, raw_maps
from kvis2.metrics.maps import complexity
from kvis2.metrics.similarity import as_similarity
from kvis2.models import Batch
from kvis2.passes import Method, Probe
from kvis2.scores import CategoricalScore
from kvis2.types import LayerReference, Tensors

_ORDERS = ("top_down", "bottom_up", "independent")
_VARIANTS = ("plain", "smooth", "efficient")
_INITIALIZATIONS = ("permuted", "initializer")


class Randomized(Explainer):
    """An explainer of its model with other values in some of its weights, for the pass alone.

    Args:
        explainer: Any explainer.
        indices: Which of `model.weights` have other values.
        values: These values, fed to the pass: all values share one trace.
    """

    def __init__(
        self, explainer: Explainer, indices: Sequence[int], values: Sequence[NDArray[Any]]
    ) -> None:
        self._look_as(explainer)
        self.explainer = explainer.with_settings(verbose=0)
        self.indices = tuple(indices)
        self.values = list(values)

    def explain(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor | None]:
        """The maps of the explainer."""
        variables = probe.model.weights
        pairs = [(variables[i], each) for i, each in zip(self.indices, self.values, strict=True)]
        # What reads a weight beside the forward pass, such as a rule of LRP, sees the same.
        with keras.StatelessScope(pairs):
            maps = self.explainer.explain(probe.with_values(pairs), score, inputs)
        return maps[: len(inputs)]


class ParameterRandomization(OfExplainer):
    r"""Parameter randomisation: how alike the maps of the trained and of a randomised model are.

    `mean over stages of similarity(|map|, |map of the model with randomised layers|)`. Each layer
    with weights is randomised: "top_down" from the output on, each in addition to those before,
    "bottom_up" from the input on, "independent" each alone. Low is good: a map that stays shows
    the image, whatever the model has learned. Even so some similarity remains where the input
    itself is in the map.

    The weights of the model are never touched: the pass reads other values in their place, at any
    depth. What is explained is the score of the model as it is.

    "smooth" takes the mean of the maps of noisy copies of the image for every map, against the
    noise of gradients. "efficient" randomises all layers at once and measures the relative rise of
    the maps' complexity, `(H' - H) / H`; there high is good.

    Args:
        explainer: Any explainer; its `normalize` does not count.
        order: "top_down", "bottom_up" or "independent".
        similarity: "spearman", "pearson", "ssim" (of images, each map divided by its maximum), or
            a function of two batches of maps.
        variant: "plain", "smooth" or "efficient".
        layers: The layers that are randomised, from the input to the output; by default all that
            have weights of their own, in the order in which the model lists them. Name them where
            a subclassed model makes its layers in another order than it calls them.
        stages: Into how many stages the layers are divided, as evenly as can be; None gives each
            its own.
        initialization: "permuted" shuffles the values of every weight, which keeps their
            distribution; "initializer" draws from the layer's own initialisers.
        samples: How many noisy copies "smooth" takes.
        noise: Their standard deviation, as a fraction of the range of each image's values.
        seed: Seed of the weights, the same for each layer, and of the noise.

    Returns:
        From a call: float32 `(batch,)`; `curve` holds the similarity after each stage
        `(batch, stages)`, `fractions` the share of the layers, `details["layers"]` the
        paths of the layers of each stage.

    Raises:
        ValueError: If an argument is none of these.

    References:
        Adebayo et al. (2018), Sanity Checks for Saliency Maps. https://arxiv.org/abs/1810.03292
        Hedstroem et al. (2024), A Fresh Look at Sanity Checks for Saliency Maps ("smooth",
        "efficient"). https://arxiv.org/abs/2405.02383

    Example:
        >>> result = ParameterRandomization(GradCAM(model), stages=10)(None, images)
        >>> result.curve.mean(axis=0)
    """

    def __init__(
        self,
        explainer: Explainer,
        *,
        order: str = "top_down",
        similarity: Any = "spearman",
        variant: str = "plain",
        layers: Sequence[LayerReference] | None = None,
        stages: int | None = None,
        initialization: str = "permuted",
        samples: int = 50,
        noise: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(explainer)
        _check_choice("order", order, _ORDERS)
        _check_choice("variant", variant, _VARIANTS)
        _check_choice("initialization", initialization, _INITIALIZATIONS)
        as_similarity(similarity)
        if stages is not None and not (isinstance(stages, int) and stages > 0):
            raise ValueError(
                f"Expected `stages` to be a positive int or None. Received: {stages!r}. None "
                "randomises one layer at a time."
            )
        self.better = "higher" if variant == "efficient" else "lower"
        self.order = order
        self.similarity = similarity
        self.variant = variant
        self.layers = layers
        self.stages = stages
        self.initialization = initialization
        self.samples = samples
        self.noise = noise
        self.seed = seed

    def measured(self, score: Any, batch: Batch, images: Any) -> dict[str, Any]:
        """The similarity after each stage, or the rise of the complexity after all."""
        model = self.explainer.model
        owned = self._owned(model)
        indices = [index for _, own in owned for index in own]
        trained = {index: model.weights[index].numpy() for index in indices}
        random = self._random(model, owned)

        def maps(values: dict[int, NDArray[Any]]) -> NDArray[np.float64]:
            every = [values.get(index, trained[index]) for index in indices]
            return self._maps(Randomized(raw(self.explainer), indices, every), score, batch)

        before = maps({})
        if self.variant == "efficient":
            own, after = complexity(before), complexity(maps(random))
            rise = np.divide(after - own, own, out=np.zeros_like(own), where=own > 0)
            details = {
                "layers": [path for path, _ in owned],
                "complexity": own,
                "randomized": after,
            }
            return {"values": rise, "details": details}
        alike = as_similarity(self.similarity)
        stages = self._stages(owned)
        curve = []
        for randomized, _ in stages:
            chosen = {index: random[index] for index in randomized}
            curve.append(alike(before, maps(chosen)))
        stacked = np.stack(curve, axis=1)
        return {
            "values": stacked.mean(axis=1),
            "curve": stacked,
            "fractions": np.arange(1, len(stages) + 1) / len(stages),
            "details": {"layers": [paths for _, paths in stages]},
        }

    def _maps(self, explainer: Explainer, score: Any, batch: Batch) -> NDArray[np.float64]:
        """The magnitudes of the raw maps; those of noisy copies, averaged, if smooth."""
        arrays = batch.arrays
        if self.variant != "smooth":
            inputs = batch.restored(arrays)
            return np.abs(joined(raw_maps(explainer, score, inputs, quiet=True))).astype(float)
        total: Any = 0.0
        for sample in range(self.samples):
            draw = np.random.default_rng([self.seed, sample])
            noisy = batch.restored([_noisy(each, self.noise, draw) for each in arrays])
            total = total + joined(raw_maps(explainer, score, noisy, quiet=True)).astype(float)
        return np.abs(total) / self.samples

    def _owned(self, model: keras.Model) -> list[tuple[str, list[int]]]:
        """The layers that are randomised, from input to output, and the weights of each."""
        owners = _owners(model)
        if self.layers is not None:
            paths = [models.layer_path(model, models.find_layer(model, x)) for x in self.layers]
            without = [path for path in paths if path not in owners]
            if without:
                raise ValueError(
                    "Expected layers with weights of their own. Received: "
                    f"{', '.join(map(repr, without))}. Give layers such as convolutions."
                )
            owners = {path: owners[path] for path in paths}
        if not owners:
            raise ValueError(
                f"Expected a model with weights. Received: '{model.name}', which has none. There "
                "is nothing to randomise."
            )
        return list(owners.items())

    def _random(
        self, model: keras.Model, owned: list[tuple[str, list[int]]]
    ) -> dict[int, NDArray[Any]]:
        """Random values of the weights of each layer, drawn in their order."""
        drawn: dict[int, NDArray[Any]] = {}
        for path, indices in owned:
            draw = np.random.default_rng(self.seed)
            for number, index in enumerate(indices):
                variable = model.weights[index]
                if self.initialization == "initializer":
                    layer = models.find_layer(model, path)
                    drawn[index] = _initialized(layer, path, variable, self.seed + number)
                    continue
                values = variable.numpy()
                drawn[index] = values.ravel()[draw.permutation(values.size)].reshape(values.shape)
        return drawn

    def _stages(
        self, owned: list[tuple[str, list[int]]]
    ) -> list[tuple[list[int], tuple[str, ...]]]:
        """For each stage the weights that are random in it, and the layers that it adds."""
        ordered = owned if self.order == "bottom_up" else owned[::-1]
        if self.order == "independent":
            ordered = owned
        number = min(self.stages or len(ordered), len(ordered))
        parts = np.array_split(np.arange(len(ordered)), number)
        stages: list[tuple[list[int], tuple[str, ...]]] = []
        before: list[int] = []
        for part in parts:
            own = [index for place in part for index in ordered[place][1]]
            before = own if self.order == "independent" else [*before, *own]
            stages.append((before, tuple(ordered[place][0] for place in part)))
        return stages


class RandomLogit(OfExplainer):
    r"""Random logit: how alike the maps of a class and of another class are.

    `similarity(map of the class, map of another class)`. Low is good: a method whose maps hardly
    differ does not explain the class. Methods that do not look at the class, such as EigenCAM and
    AttentionRollout, score 1 by definition. A blank map of the other class, of which a warning
    tells, is alike to nothing: 0.

    Args:
        explainer: Any explainer; its `normalize` does not count.
        classes: The other class of each image: an int for all, or one for each; None draws one.
        similarity: "spearman", "pearson", "ssim", or a function of two batches of maps.
        seed: Seed of the other classes.

    Returns:
        From a call: float32 `(batch,)`; `details["classes"]` says which the other classes were.

    Raises:
        ValueError: If the score is not that of one class of a classifier.

    References:
        Sixt et al. (2020), When Explanations Lie: Why Many Modified BP Attributions Fail.
        https://arxiv.org/abs/1912.09818

    Example:
        >>> result = RandomLogit(GradCAM(model))(None, images)
    """

    def __init__(
        self,
        explainer: Explainer,
        *,
        classes: Any = None,
        similarity: Any = "spearman",
        seed: int = 0,
    ) -> None:
        super().__init__(explainer)
        as_similarity(similarity)
        self.classes = classes
        self.similarity = similarity
        self.seed = seed

    def measured(self, score: Any, batch: Batch, images: Any) -> dict[str, Any]:
        """The similarity of the two maps."""
        if not isinstance(score, CategoricalScore):
            raise ValueError(
                "Expected the score of one class: an index, one per image, or None for the "
                f"predicted one. Received: {type(score).__name__}. Other scores have no other "
                "class to compare with."
            )
        others = self._others(score, batch)
        explainer = raw(self.explainer)
        maps = [
            joined(raw_maps(explainer, each, images))
            for each in (score, CategoricalScore(others.tolist()))
        ]
        alike = as_similarity(self.similarity)
        return {"values": alike(maps[0], maps[1]), "details": {"classes": others}}

    def _others(self, score: CategoricalScore, batch: Batch) -> NDArray[np.int32]:
        if self.classes is not None:
            given = scores.as_scores(CategoricalScore(self.classes), batch.size)
            same = np.flatnonzero(given.indices == score.indices)
            if same.size:
                raise ValueError(
                    "Expected `classes` other than those explained. Received: the class of sample "
                    f"{same.tolist()} itself. Give another one."
                )
            return given.indices
        count = int(_Classes(self.explainer).results(score, batch)[0][0])  # type: ignore[index]
        if count < 2:
            raise ValueError(
                "Expected a classifier of at least two classes. Received: one output. There is no "
                "other class to compare with."
            )
        drawn = np.random.default_rng(self.seed).integers(0, count - 1, batch.size)
        return (drawn + (drawn >= score.indices)).astype(np.int32)


class _Classes(Method):
    """How many classes the scored output has."""

    def __init__(self, method: Method) -> None:
        self._look_as(method, verbose=0, reference=None, reshape=None, pre_activation=False)

    def compute(self, probe: Probe, score: Any, inputs: Tensors) -> list[tf.Tensor]:
        probe.scores(score, inputs)
        units = probe.output_shapes[0][-1]
        return [tf.fill(tf.shape(inputs[0])[:1], units or 0)]


def _owners(model: keras.Model) -> dict[str, list[int]]:
    """By path, in the order of the model, the indices of the weights that each layer owns itself.

    A weight belongs to the deepest layer that holds it; seeds and counters belong to none.
    """
    numbers = {id(each): index for index, each in enumerate(model.weights)}
    owner: dict[int, str] = {}
    for path, layer in models.walk(model):
        for each in getattr(layer, "weights", ()):
            if id(each) in numbers and keras.backend.is_float_dtype(each.dtype):
                owner[numbers[id(each)]] = path  # The layers inside follow their parent.
    found: dict[str, list[int]] = {}
    for path, _ in models.walk(model):
        own = [index for index, each in owner.items() if each == path]
        if own:
            found[path] = sorted(own)
    return found


def _initialized(layer: Any, path: str, variable: keras.Variable, seed: int) -> NDArray[Any]:
    """A weight as the layer itself would initialise it."""
    initializer = getattr(layer, f"{variable.name}_initializer", None)
    if initializer is None:
        raise ValueError(
            f"Expected a layer with an initialiser for its '{variable.name}'. Received: '{path}', "
            "which has none. Use `initialization='permuted'`."
        )
    config = initializer.get_config()
    if "seed" in config:
        initializer = type(initializer).from_config({**config, "seed": seed})
    return np.asarray(initializer(variable.shape, dtype=variable.dtype))


def _noisy(array: np.ndarray, noise: float, draw: np.random.Generator) -> np.ndarray:
    """An input with the noise that every image gets, in units of its own range."""
    if array.dtype.kind != "f":
        return array
    spread = np.ptp(array, axis=tuple(range(1, array.ndim)), keepdims=True)
    drawn = draw.normal(size=array.shape[1:]).astype(np.float32)
    return (array + noise * spread * drawn).astype(array.dtype)


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"Expected `{name}` to be one of {', '.join(map(repr, choices))}. Received: "
            f"{value!r}. The usual one is {choices[0]!r}."
        )
