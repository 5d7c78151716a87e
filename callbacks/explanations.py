"""When a training is looked at, and what is seen: Keras callbacks that log pictures."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from kvis2 import models, tf_keras_vis
from kvis2.callbacks.cards import cards_of, explained_classes
from kvis2.callbacks.curves import Curves
from kvis2.callbacks.looked import (
    Looked,
    at_layer,
    checked_maps,
    finished,
    probabilities_of,
    scaled,
    shapes_of,
)
from kvis2.callbacks.panels import Panels
from kvis2.callbacks.pictures import Observation, PictureLogger
from kvis2.callbacks.predictions import (
    Explained,
    explained_by,
    explained_predictions,
)
from kvis2.callbacks.probe_sets import Choice, ProbeSet, Probing
from kvis2.callbacks.settings import Log, PanelStyle, check_choice, parted
from kvis2.callbacks.tab import TabCards, TabSummary
from kvis2.explainers import Explainer, GradCAM, Saliency
from kvis2.images import ClassNames
from kvis2.localization import Boxes, energy_in_box
from kvis2.passes import Prediction
from kvis2.types import LayerReference

ExplainerFactory: TypeAlias = Callable[..., Any]
"""An explainer class, or a function `model -> explainer`."""


class ExplanationLogger(PictureLogger):
    """Log what any explainer shows of the same images, from epoch to epoch.

    At every logged step each probe image gets a panel in TensorBoard, under a tag of its own such
    as `GradCAM/00 cat`: the image, its heatmap, which class the heat explains, and the classes
    with probability bars. Scalars say how good the maps are, and how they change.

    Place it last in `callbacks`, behind `EarlyStopping` or `SwapEMAWeights`, so that it sees what
    they do to the weights and whether they stop the training. Only callbacks that read its
    numbers come after it: an epoch's `logs` hold `kvis2_drift`, `kvis2_sparseness`, with `boxes`
    `kvis2_energy_in_box` (`kvis2` being `run`) when the epoch was logged, so give
    `EarlyStopping(monitor="kvis2_energy_in_box", mode="max")` a logger with `every=1`.

    Args:
        log_dir: The directory that TensorBoard is started with, or a `Log`.
        images: The probe images as the model takes them, taken once, now: an array
            `(batch, height, width[, channels])`, a dict by name or a list of arrays for several
            inputs (each that can be drawn gets a picture), a pair `(images, labels)`, or a
            `tf.data.Dataset`, `keras.utils.PyDataset` or generator, as described at
            `kvis2.callbacks.take_probes`. A dataset that is trained on is safe to give; a
            generator is consumed.
        labels: The true classes: ints `(batch,)` or `(batch, 1)`, or one-hot `(batch, classes)`.
        explainer: A class such as `GradCAM`, or a function `model -> explainer`, where the
            explainer is called as `explainer(score, images) -> maps (batch, height, width)`;
            also of tf-keras-vis, whose copies of a model are made anew at every step. A function
            whose parameters are named `images`, `labels` or `boxes` as well gets those of the
            probes (labels as they were given, so also masks or targets); the losses are
            `model.loss`.
        layer: Given to the explainer.
        score: "label" explains the true class, or the predicted one where there are no labels;
            "predicted" the class that is predicted at the step; "both" the true one and, where it
            is another, the predicted one beside it; or any score that the explainer takes. Other
            labels than classes are left out of the panels.
        tag: What the tags start with; by default the name of the explainer.
        class_names: Names by class index; by default those of a dataset that Keras'
            `image_dataset_from_directory` returned.
        names: For each image what it is called in the tags, such as its file; by default the name
            of the file where the dataset knows it, else the number of the image.
        choose: Which images are probes: "first"; "per_class", as many of each class as fit;
            "worst", those whose true class the model finds least likely when a training begins;
            or a function `(images, labels) -> indices`. Chosen among the first 512.
        max_images: How many probe images are taken at most; 16 if not said.
        boxes: For each image the box `[x0, y0, x1, y1]` of its object in pixels, or a list of
            boxes; or masks, bool `(batch, height, width)`. With `choose`, for each image to
            choose from.
        metrics: What is logged as scalars, the mean over the probes: "auto", or a list of
            "sparseness", "complexity", "drift" (since the step before), "untrained_similarity" (to
            the maps before the first batch, of a model that is built by then), "insertion_gain"
            (8 steps, minus that of random orders) and, with boxes, "pointing_game",
            "energy_in_box", "relevance_rank" and "localization_auc"; see `kvis2.metrics`. "auto"
            takes the cheap ones, with boxes the first two of those, and "insertion_gain" where it
            makes a step at most a third longer.
        display: Function that undoes the preprocessing of an image, for showing it.
        batch_size: How many images go through the model at once.
        panel: How the panels look.
        **options: The further fields of `Log`: `every`, `unit`, `run`, `save_dir`, `on_error`; and
            those of `PanelStyle`: `alpha`, `colormap`, `opacity`, `top_k`, `width`.

    Attributes:
        images: The probe images; with `choose="worst"` once the training has begun.
        labels: Their true classes, or None.
        explainer: The explainer, once it has been built.
        history: Lists of equal length by name: "step", "seconds" (what the step cost, the first
            with what was looked at before the first batch) and the metrics, NaN where there is
            nothing to compare with.

    Raises:
        ValueError: If an argument is not as described; nothing waits for the first epoch.
        TypeError: If an argument is unknown.
        OSError: At the start of the training, if `log_dir` cannot be written to.

    Example:
        >>> logger = CamLogger("logs", x_test[:8], y_test[:8], class_names=["cat", "dog"])
        >>> model.fit(x, y, epochs=10, callbacks=[keras.callbacks.TensorBoard("logs"), logger])
    """

    option_kinds = (Log, PanelStyle)
    explainer: Any
    _cards: TabCards | None

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | Log,
        images: Any,
        labels: Any = None,
        *,
        explainer: ExplainerFactory = GradCAM,
        layer: LayerReference | None = None,
        score: Any = "label",
        tag: str | None = None,
        class_names: ClassNames | None = None,
        names: Sequence[str] | None = None,
        choose: Choice = "first",
        max_images: int | None = None,
        boxes: Boxes | None = None,
        metrics: str | Sequence[str] = "auto",
        display: Callable[[np.ndarray], np.ndarray] | None = None,
        batch_size: int = 32,
        panel: PanelStyle | None = None,
        **options: Any,
    ) -> None:
        logged, styled = parted(type(self).__name__, options, *self.option_kinds)
        super().__init__(log_dir, **logged)
        self.style = dataclasses.replace(panel or PanelStyle(), **styled)
        if class_names is None:
            class_names = getattr(images, "class_names", None)
        named = isinstance(score, str)
        if named:
            check_choice("score", score, ("label", "predicted", "both"))
        self._probing = Probing(
            images,
            labels,
            needs_classes=labels is not None or (named and score in ("label", "both")),
            class_names=class_names,
            names=names,
            choose=choose,
            max_images=max_images,
            boxes=boxes,
            display=display,
        )
        self.class_names = class_names
        self._take(self._probing.pool)
        if named and score == "both" and self.labels is None:
            raise ValueError(
                "Expected labels for score='both', the true and the predicted class. Received: "
                "none. Give labels=, or score='predicted'."
            )
        self._check_count(score)
        self.score = score
        self.layer = layer
        self.tag = tag
        self.batch_size = batch_size
        self._curves = Curves(metrics, self._probes.boxes is not None)
        self._factory = explainer
        self._options = self._options_of(explainer)

    def explain(self, probabilities: np.ndarray | None = None) -> np.ndarray:
        """Explain the probe images by the model as it is now.

        Args:
            probabilities: What the model predicts, `(batch, classes)`, for explainers that cannot
                find the predicted class themselves.

        Returns:
            float32 maps `(batch, height, width)` of the first input that has one, each within 0..1
            or -1..1.
        """
        looked = self._look(probabilities)
        return next(each for each in looked.maps if each is not None)

    def predict(self) -> np.ndarray | None:
        """Predict the probabilities of the probe images, `(batch, classes)`, or None without."""
        return self._look().probabilities

    def begin(self) -> None:
        """Choose the probes where the model has a say in it; keep the maps of the new model."""
        if self._probing.waits:
            self._take(self._probing.pool)
            self._take(self._probing.worst(self.predict()))
        if self._curves.compares_with_untrained and self.model.built:
            self._curves.remember_untrained(self._look())

    def observe(self, step: int) -> Observation:
        """Draw a panel of every probe image, and measure how good its map is."""
        looked = self._look()
        also = self._predicted(looked) if isinstance(self.score, str) else None
        tag = self.tag or type(self.explainer).__name__
        pictures = self._panels.pictures(tag, looked, also, self.explainer)
        model = self._explained_model()
        if isinstance(self.explainer, Explainer):
            self._curves.afford(model, self.images, self._look)
        numbers = self._curves.numbers(looked, model, self._probes)
        scalars = {f"{tag}/{name}": value for name, value in numbers.items()}
        return Observation(pictures, scalars, self._tab(tag, looked, numbers))

    @property
    def images(self) -> Any:
        """The probe images."""
        return self._probes.images

    @property
    def labels(self) -> np.ndarray | None:
        """Their true classes, or None."""
        return self._probes.labels

    @property
    def boxes(self) -> Boxes | None:
        """Where their objects are, or None."""
        return self._probes.boxes

    @property
    def _shown(self) -> dict[int, np.ndarray]:
        return self._probes.shown

    def _take(self, probes: ProbeSet) -> None:
        self._probes = probes
        thumbnails = self.log.save_dir is not None
        self._panels = Panels(probes, self.style, self.class_names, thumbnails)

    def _tab(self, tag: str, looked: Looked, numbers: Mapping[str, float]) -> list[TabSummary]:
        """What the Explanations tab shows of the first input that can be drawn."""
        index = looked.first
        maps, raw = looked.maps[index], looked.raw[index]
        assert maps is not None
        assert raw is not None
        if maps.ndim > 4:
            return []
        boxes, style = self.boxes, self.style
        if self._cards is None:
            labels = looked.explained.labels
            cards = cards_of(self._probes.names, self._shown[index], maps, labels, boxes)
            layer = getattr(getattr(self.explainer, "layer", None), "name", None)
            names = self.class_names
            self._cards = TabCards(tag, cards, class_names=names, layer=layer, top_k=style.top_k)
        heat = None if boxes is None else energy_in_box(maps, boxes)
        explained = explained_classes(looked.explained, looked.probabilities, len(maps))
        told = {k: v for k, v in numbers.items() if k not in ("drift", "energy_in_box")}
        return self._cards.summaries(
            raw,
            probabilities=looked.probabilities,
            explained=explained,
            heat_in_box=heat,
            scalars={name: value for name, value in told.items() if math.isfinite(value)},
        )

    def _explained_model(self) -> keras.Model:
        """The model that the explainer looks at, which may be a part of the one in training."""
        model = getattr(self.explainer, "model", None)
        return model if isinstance(model, keras.Model) else self.model

    def _look(self, probabilities: np.ndarray | None = None) -> Looked:
        """Explain and predict, in one pass where the explainer is one of kvis2."""
        if self.explainer is None or tf_keras_vis.has_own_model(self.explainer, self.model):
            self.explainer = self._factory(self.model, **self._options, **self._probe_options())
        score = "label" if isinstance(self.score, str) and self.score == "both" else self.score
        explained = explained_by(self._explained_model(), score, self.labels)
        return self._explained(explained, probabilities)

    def _explained(self, explained: Explained, probabilities: np.ndarray | None) -> Looked:
        if isinstance(self.explainer, Explainer):
            raw, predicted = at_layer(self.explainer).with_predictions(explained.score, self.images)
            probabilities = probabilities_of(predicted, explained.output)
            found = checked_maps(raw, self._probes.count)
            shapes = shapes_of(self.images)
            pairs = zip(found, shapes, strict=False)
            maps = [finished(self.explainer, each, shape) for each, shape in pairs]
        else:
            if probabilities is None:
                prediction = Prediction(self._explained_model(), batch_size=self.batch_size)
                probabilities = probabilities_of(prediction.of(self.images), explained.output)
            score = explained.score
            if tf_keras_vis.is_one(self.explainer):
                score = tf_keras_vis.score_for(score, probabilities)
            found = checked_maps(self.explainer(score, self.images), self._probes.count)
            maps = [None if each is None else scaled(each) for each in found]
        drawn = [i for i, each in enumerate(maps) if each is not None and i in self._shown]
        if not drawn:
            raise ValueError(
                "Expected an explainer that gives an image, a signal or a volume a map. Received: "
                "maps of vectors or tokens alone. Explain a model with an input that can be drawn."
            )
        return Looked(maps, probabilities, explained, found, drawn[0])

    def _predicted(self, looked: Looked) -> Looked | None:
        """With "both", what is seen of the predicted classes, where one is not the true one."""
        if self.score != "both":
            return None
        names = models.output_names(self._explained_model()) or ["output"]
        explained = explained_predictions(looked.explained, looked.probabilities, names)
        return looked if explained is None else self._explained(explained, looked.probabilities)

    def _reset(self) -> None:
        super()._reset()
        self.explainer = None
        self._cards = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget the maps of the last training as well."""
        super().on_train_begin(logs)
        self._curves.forget()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the explainer and the cards as well."""
        self._curves.forget()
        return {**super().__getstate__(), "explainer": None, "_cards": None}

    def _options_of(self, explainer: ExplainerFactory) -> dict[str, Any]:
        """Return the options that the explainer takes, among those that the logger has."""
        parameters = inspect.signature(explainer).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        is_own = isinstance(explainer, type) and issubclass(explainer, Explainer)
        if self.layer is not None and not (takes_any or "layer" in parameters):
            raise ValueError(
                "Expected an explainer that takes layer=. Received: "
                f"{getattr(explainer, '__name__', explainer)} and layer={self.layer!r}. Choose the "
                "layer inside: explainer=lambda model: GradCAM(model, layer)."
            )
        options = {} if self.layer is None else {"layer": self.layer}
        takes_size = is_own or "batch_size" in parameters
        return {**options, "batch_size": self.batch_size} if takes_size else options

    def _probe_options(self) -> dict[str, Any]:
        """What a function that makes an explainer wants to know of the probes."""
        if isinstance(self._factory, type):
            return {}
        parameters = inspect.signature(self._factory).parameters
        probes = self._probes
        known = {"images": probes.images, "labels": probes.given, "boxes": probes.boxes}
        return {name: value for name, value in known.items() if name in parameters}

    def _check_count(self, score: Any) -> None:
        by_image = isinstance(score, list | tuple) and all(
            isinstance(index, int | np.integer) for index in score
        )
        if by_image and len(score) != self._probes.count:
            raise ValueError(
                f"Expected a score for each of the {self._probes.count} probe images. Received: "
                f"{len(score)}. Give as many as there are images, or one for all."
            )


class CamLogger(ExplanationLogger):
    """Log class activation maps: `ExplanationLogger` with its defaults, which are `GradCAM`'s.

    `explainer=LayerCAM`, `GradCAMPlusPlus` or `ScoreCAM` log the others of the family. All
    arguments are those of `ExplanationLogger`.
    """


class SaliencyLogger(ExplanationLogger):
    """Log the gradients to the input: `ExplanationLogger` with `Saliency`.

    `explainer=lambda model: Saliency(model, smooth_samples=20, seed=0)` logs SmoothGrad. All
    arguments are those of `ExplanationLogger`; the run is `kvis2_saliency`, next to a `CamLogger`.
    """

    default_run = "kvis2_saliency"

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | Log,
        images: Any,
        labels: Any = None,
        *,
        explainer: ExplainerFactory = Saliency,
        **options: Any,
    ) -> None:
        super().__init__(log_dir, images, labels, explainer=explainer, **options)
