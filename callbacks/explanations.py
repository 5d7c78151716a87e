"""When a training is looked at, and what is seen: Keras callbacks that log pictures."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models, tf_keras_vis
from kvis2.callbacks.cards import cards_of, explained_classes
from kvis2.callbacks.looked import Looked, at_layer, probabilities_of, scaled, shapes_of
from kvis2.callbacks.pictures import Observation, PictureLogger, check_choice
from kvis2.callbacks.predictions import explained_by
from kvis2.callbacks.probe_images import (
    MOST_PROBES,
    class_labels,
    count_of,
    probe_names,
    shown_inputs,
    take_probes,
)
from kvis2.callbacks.tab import TabCards, TabSummary
from kvis2.callbacks.writers import Picture
from kvis2.explainers import Explainer, GradCAM, Saliency
from kvis2.images import ClassNames, normalize, overlay, panel
from kvis2.localization import Boxes, box_masks, energy_in_box, pointing_game
from kvis2.passes import Prediction, resize
from kvis2.types import LayerReference

ExplainerFactory: TypeAlias = Callable[..., Any]
"""An explainer class, or a function `model -> explainer`."""


class ExplanationLogger(PictureLogger):
    """Log what any explainer shows of the same images, from epoch to epoch.

    At every logged step each probe image gets a panel in TensorBoard, under a tag of its own such
    as `GradCAM/00 cat`: the image, its heatmap, the true and the predicted class with probability
    bars. With `boxes`, the shares of the heat and of the hottest points that lie in them are
    logged as scalars.

    Place it last in `callbacks`, behind `EarlyStopping` or `SwapEMAWeights`, so that it sees what
    they do to the weights and whether they stop the training. Only callbacks that read its
    numbers come after it: with `boxes`, an epoch's `logs` hold `kvis2_pointing_game` and
    `kvis2_energy_in_box` (`kvis2` being `run`) when the epoch was logged, so give
    `EarlyStopping(monitor="kvis2_energy_in_box", mode="max")` a logger with `every=1`.

    Args:
        log_dir: The directory that TensorBoard is started with.
        images: The probe images as the model takes them, taken once, now: an array
            `(batch, height, width[, channels])`, a dict by name or a list of arrays for several
            inputs (each that can be drawn gets a picture), a pair `(images, labels)`, or a
            `tf.data.Dataset`, `keras.utils.PyDataset` or generator, as described at
            `kvis2.callbacks.take_probes`. A dataset that is trained on is safe to give; a
            generator is consumed.
        labels: The true classes: ints `(batch,)` or `(batch, 1)`, or one-hot `(batch, classes)`.
        explainer: A class such as `GradCAM`, or a function `model -> explainer`, where the
            explainer is called as `explainer(score, images) -> maps (batch, height, width)`;
            also of tf-keras-vis, whose copies of a model are made anew at every step.
        layer: Given to the explainer.
        score: "label" explains the true class, or the predicted one where there are no labels;
            "predicted" the class that is predicted at the step; or any score that the explainer
            takes. Other labels than classes are left out of the panels.
        class_names: Names by class index.
        display: Function that undoes the preprocessing of an image, for showing it.
        every: Log every n epochs (or batches); "auto" spreads ten steps over the training.
        unit: "epoch" or "batch", what `every` counts.
        boxes: For each image the box `[x0, y0, x1, y1]` of its object in pixels, or a list of
            boxes.
        run: Name of the run directory below `log_dir`.
        tag: What the tags start with; by default the name of the explainer.
        alpha: Weight of the heatmap in the overlay, 0..1.
        colormap: Name of a matplotlib colormap; for signed maps a diverging one, "RdBu_r".
        top_k: How many of the most probable classes get a bar.
        batch_size: How many images go through the model at once.
        max_images: How many probe images are taken at most, the first ones; 16 if not said.
        save_dir: Also write panels as PNG files, GIFs and strips here.
        on_error: "warn" or "raise".

    Attributes:
        images: The probe images.
        labels: Their true classes, or None.
        explainer: The explainer, once it has been built at the first logged step.
        history: Lists of equal length by name: "step", "seconds", "pointing_game" and
            "energy_in_box".

    Raises:
        ValueError: If an argument is not as described; nothing waits for the first epoch.
        OSError: At the start of the training, if `log_dir` cannot be written to.

    Example:
        >>> logger = CamLogger("logs", x_test[:8], y_test[:8], class_names=["cat", "dog"])
        >>> model.fit(x, y, epochs=10, callbacks=[keras.callbacks.TensorBoard("logs"), logger])
    """

    explainer: Any
    _forward: Callable[[np.ndarray], Any] | None

    _cards: TabCards | None

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        images: Any,
        labels: Any = None,
        *,
        explainer: ExplainerFactory = GradCAM,
        layer: LayerReference | None = None,
        score: Any = "label",
        class_names: ClassNames | None = None,
        display: Callable[[np.ndarray], np.ndarray] | None = None,
        every: int | str = "auto",
        unit: str = "epoch",
        boxes: Boxes | None = None,
        run: str = "kvis2",
        tag: str | None = None,
        alpha: float = 0.5,
        colormap: str = "jet",
        top_k: int = 3,
        batch_size: int = 32,
        max_images: int | None = None,
        save_dir: str | os.PathLike[str] | None = None,
        on_error: str = "warn",
    ) -> None:
        super().__init__(
            log_dir, every=every, unit=unit, run=run, save_dir=save_dir, on_error=on_error
        )
        if isinstance(score, str):
            check_choice("score", score, ("label", "predicted"))
        self.images, given = take_probes(images, labels, max_images=max_images)
        self._count = count_of(self.images)
        needs_classes = labels is not None or (isinstance(score, str) and score == "label")
        self.labels = class_labels(given, needs_classes)
        by_image = isinstance(score, list | tuple) and all(
            isinstance(index, int | np.integer) for index in score
        )
        if by_image and len(score) != self._count:
            raise ValueError(
                f"Expected a score for each of the {self._count} probe images. Received: "
                f"{len(score)}. Give as many as there are images, or one for all."
            )
        self.score = score
        self.layer = layer
        self.class_names = class_names
        self.display = display
        self.tag = tag
        self.alpha = alpha
        self.colormap = colormap
        self.top_k = top_k
        self.batch_size = batch_size
        self._factory = explainer
        self._options = self._options_of(explainer)
        self._shown = shown_inputs(self.images, display)
        self.boxes = None if boxes is None else self._checked_boxes(boxes, max_images)
        self._names = probe_names(self._count, self.labels, class_names)

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

    def observe(self, step: int) -> Observation:
        """Draw a panel of every probe image, and measure where the heat is."""
        looked = self._look()
        tag = self.tag or type(self.explainer).__name__
        drawn = [i for i, maps in enumerate(looked.maps) if maps is not None and i in self._shown]
        if not drawn:
            raise ValueError(
                "Expected an explainer that gives an image, a signal or a volume a map. Received: "
                "maps of vectors or tokens alone. Explain a model with an input that can be drawn."
            )
        pictures = [
            self._picture(row, self._tag_of(tag, index, drawn, name), index, looked)
            for index in drawn
            for row, name in enumerate(self._names)
        ]
        scalars = self._localization(tag, looked.maps[drawn[0]])
        return Observation(pictures, scalars, self._tab(tag, drawn[0], looked))

    def _tab(self, tag: str, index: int, looked: Looked) -> list[TabSummary]:
        """What the Explanations tab shows of the first input that can be drawn."""
        maps, raw = looked.maps[index], looked.raw[index]
        assert maps is not None
        assert raw is not None
        if maps.ndim > 4:
            return []
        if self._cards is None:
            boxes = self.boxes
            labels = looked.explained.labels
            cards = cards_of(self._names, self._shown[index], maps, labels, boxes)
            layer = getattr(getattr(self.explainer, "layer", None), "name", None)
            names = self.class_names
            self._cards = TabCards(tag, cards, class_names=names, layer=layer, top_k=self.top_k)
        heat = None if self.boxes is None else energy_in_box(maps, self.boxes)
        explained = explained_classes(looked.explained, looked.probabilities, self._count)
        return self._cards.summaries(
            raw, probabilities=looked.probabilities, explained=explained, heat_in_box=heat
        )

    def _tag_of(self, tag: str, index: int, drawn: Sequence[int], name: str) -> str:
        inputs = sorted(self.images) if isinstance(self.images, Mapping) else None
        own = "" if len(drawn) == 1 else f" {inputs[index] if inputs else index}"
        return f"{tag}{own}/{name}"

    def _look(self, probabilities: np.ndarray | None = None) -> Looked:
        """Explain and predict, in one pass where the explainer is one of kvis2."""
        if self.explainer is None or tf_keras_vis.has_own_model(self.explainer, self.model):
            self.explainer = self._factory(self.model, **self._options)
        model = getattr(self.explainer, "model", None)
        model = model if isinstance(model, keras.Model) else self.model
        explained = explained_by(model, self.score, self.labels)
        if isinstance(self.explainer, Explainer):
            raw, predicted = at_layer(self.explainer).with_predictions(explained.score, self.images)
            probabilities = probabilities_of(predicted, explained.output)
            found = self._checked(raw)
            maps = [self._finished(each, i) for i, each in enumerate(found)]
            return Looked(maps, probabilities, explained, found)
        else:
            if probabilities is None:
                predicted = Prediction(model, batch_size=self.batch_size).of(self.images)
                probabilities = probabilities_of(predicted, explained.output)
            score = explained.score
            if tf_keras_vis.is_one(self.explainer):
                score = tf_keras_vis.score_for(score, probabilities)
            found = self._checked(self.explainer(score, self.images))
        maps = [None if each is None else scaled(each) for each in found]
        return Looked(maps, probabilities, explained, found)

    def _finished(self, raw: np.ndarray | None, index: int) -> np.ndarray | None:
        """A raw map of the layer as the explainer gives it: at the input's size, and scaled."""
        if raw is None:
            return None
        assert isinstance(self.explainer, Explainer)
        settings, size = self.explainer.settings, self._size_of(index, raw.ndim - 1)
        if settings.resize and size is not None and raw.shape[1:] != size:
            raw = np.asarray(resize(tf.constant(raw), list(size)))
        return scaled(normalize(raw, settings.normalize))  # type: ignore[arg-type]

    def _size_of(self, index: int, rank: int) -> tuple[int, ...] | None:
        """The size of an input along `rank` spatial axes; None if it has not so many."""
        shape = shapes_of(self.images)[index][1:]
        if len(shape) == rank:
            return shape
        if len(shape) != rank + 1:
            return None
        assert isinstance(self.explainer, Explainer)
        first = models.data_format(self.explainer.model) == "channels_first"
        return shape[1:] if first else shape[:-1]

    def _checked(self, maps: Any) -> list[np.ndarray | None]:
        """The maps of the flat inputs, scaled where the explainer does not."""
        if isinstance(maps, Mapping):
            maps = [maps[name] for name in sorted(maps)]
        found: list[np.ndarray | None] = []
        for each in maps if isinstance(maps, list | tuple) else [maps]:
            array = None if each is None else np.asarray(each, dtype=np.float32)
            if array is not None and (array.shape[0] != self._count or array.ndim < 2):
                raise ValueError(
                    "Expected the explainer to return maps of shape (batch, height, width) for "
                    f"{self._count} images. Received: shape {array.shape}. Explain inputs, and "
                    "leave resize=True."
                )
            found.append(array)
        return found

    def _picture(self, row: int, tag: str, index: int, looked: Looked) -> Picture:
        maps, probabilities = looked.maps[index], looked.probabilities
        assert maps is not None
        image, heatmap = self._shown[index][row], maps[row]
        labels = looked.explained.labels
        box = None if self.boxes is None or index != min(self._shown) else self.boxes[row]
        drawn = panel(
            image,
            heatmap,
            probabilities=None if probabilities is None else probabilities[row],
            label=None if labels is None else int(labels[row]),
            class_names=self.class_names,
            top_k=self.top_k,
            box=box,
            alpha=self.alpha,
            colormap=self.colormap,
        )
        if self.save_dir is None or heatmap.ndim != 2:
            return Picture(tag, drawn)
        return Picture(tag, drawn, overlay(image, heatmap, self.alpha, self.colormap))

    def _localization(self, tag: str, maps: np.ndarray | None) -> dict[str, float]:
        if self.boxes is None or maps is None:
            return {}
        return {
            f"{tag}/pointing_game": float(pointing_game(maps, self.boxes).mean()),
            f"{tag}/energy_in_box": float(energy_in_box(maps, self.boxes).mean()),
        }

    def _reset(self) -> None:
        super()._reset()
        self.explainer = None
        self._cards = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the explainer and the cards as well."""
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

    def _checked_boxes(self, boxes: Boxes, max_images: int | None) -> Boxes:
        kept = boxes[: self._count] if self._count == (max_images or MOST_PROBES) else boxes
        if not self._shown:
            raise ValueError("Expected an image to have boxes. Received: inputs without any.")
        box_masks(kept, self._count, *self._shown[min(self._shown)].shape[1:3])
        return kept


class CamLogger(ExplanationLogger):
    """Log class activation maps: `ExplanationLogger` with its defaults, which are `GradCAM`'s.

    `explainer=LayerCAM`, `GradCAMPlusPlus` or `ScoreCAM` log the others of the family. All
    arguments are those of `ExplanationLogger`.
    """


class SaliencyLogger(ExplanationLogger):
    """Log the gradients to the input: `ExplanationLogger` with `Saliency` and its colours.

    `explainer=lambda model: Saliency(model, smooth_samples=20, seed=0)` logs SmoothGrad. All
    arguments are those of `ExplanationLogger`; the run is `kvis2_saliency`, next to a `CamLogger`.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        images: Any,
        labels: Any = None,
        *,
        explainer: ExplainerFactory = Saliency,
        run: str = "kvis2_saliency",
        colormap: str = "inferno",
        alpha: float = 0.7,
        **options: Any,
    ) -> None:
        super().__init__(
            log_dir,
            images,
            labels,
            explainer=explainer,
            run=run,
            colormap=colormap,
            alpha=alpha,
            **options,
        )
