"""When a training is looked at, and what is seen: Keras callbacks that log pictures."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np

from kvis2.callbacks.pictures import Observation, PictureLogger, check_choice
from kvis2.callbacks.predictions import as_probabilities, forward_pass, two_classes
from kvis2.callbacks.probe_images import (
    class_labels,
    probe_names,
    take_probes,
)
from kvis2.callbacks.writers import Picture
from kvis2.explainers import GradCAM, Saliency
from kvis2.images import ClassNames, displayable, normalize, overlay, panel
from kvis2.localization import Boxes, box_masks, energy_in_box, pointing_game
from kvis2.scores import BinaryScore, CategoricalScore
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
            `(batch, height, width[, channels])`, a pair `(images, labels)`, or a
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
        max_images: How many probe images are taken at most, the first ones.
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
        max_images: int = 16,
        save_dir: str | os.PathLike[str] | None = None,
        on_error: str = "warn",
    ) -> None:
        super().__init__(
            log_dir, every=every, unit=unit, run=run, save_dir=save_dir, on_error=on_error
        )
        if isinstance(score, str):
            check_choice("score", score, ("label", "predicted"))
        self.images, given = take_probes(images, labels, max_images=max_images)
        needs_classes = labels is not None or (isinstance(score, str) and score == "label")
        self.labels = class_labels(given, needs_classes)
        by_image = isinstance(score, list | tuple) and all(
            isinstance(index, int | np.integer) for index in score
        )
        if by_image and len(score) != len(self.images):
            raise ValueError(
                f"Expected a score for each of the {len(self.images)} probe images. Received: "
                f"{len(score)}. Give as many as there are images, or one for all."
            )
        self.score = score
        self.layer = layer
        self.class_names = class_names
        self.display = display
        self.boxes = None if boxes is None else self._checked_boxes(boxes, max_images)
        self.tag = tag
        self.alpha = alpha
        self.colormap = colormap
        self.top_k = top_k
        self.batch_size = batch_size
        self._factory = explainer
        self._options = self._options_of(explainer)
        self._shown = displayable(self.images, display) if self.images.ndim == 4 else self.images
        self._names = probe_names(len(self.images), self.labels, class_names)

    def explain(self, probabilities: np.ndarray | None = None) -> np.ndarray:
        """Explain the probe images by the model as it is now.

        Args:
            probabilities: What the model predicts, `(batch, classes)`, for explainers that cannot
                find the predicted class themselves.

        Returns:
            float32 maps `(batch, height, width)`, each within 0..1 or -1..1.
        """
        if self.explainer is None or _has_own_model(self.explainer, self.model):
            self.explainer = self._factory(self.model, **self._options)
        maps = self.explainer(self._score(probabilities), self.images)
        maps = np.asarray(maps[0] if isinstance(maps, list) else maps, dtype=np.float32)
        if maps.shape[0] != len(self.images) or maps.ndim < 2:
            raise ValueError(
                f"Expected the explainer to return maps of shape (batch, height, width) for "
                f"{len(self.images)} images. Received: shape {maps.shape}. Explain inputs, and "
                "leave resize=True."
            )
        return normalize(maps) if np.abs(maps).max() > 1 else maps

    def predict(self) -> np.ndarray | None:
        """Predict the probabilities of the probe images, `(batch, classes)`, or None without."""
        if self._forward is None:
            self._forward = forward_pass(self.model, self.images)
        starts = range(0, len(self.images), self.batch_size)
        rows = [self._forward(self.images[i : i + self.batch_size]) for i in starts]
        if any(len(keras.tree.flatten(row)) != 1 for row in rows):
            return None
        outputs = [np.asarray(keras.tree.flatten(row)[0], dtype=np.float32) for row in rows]
        return as_probabilities(np.concatenate(outputs), self.model.loss)

    def observe(self, step: int) -> Observation:
        """Draw a panel of every probe image, and measure where the heat is."""
        probabilities = self.predict()
        maps = self.explain(probabilities)
        tag = self.tag or type(self.explainer).__name__
        pictures = [
            self._picture(index, f"{tag}/{name}", maps[index], probabilities)
            for index, name in enumerate(self._names)
        ]
        return Observation(pictures, self._localization(tag, maps))

    def _picture(
        self, index: int, tag: str, heatmap: np.ndarray, probabilities: np.ndarray | None
    ) -> Picture:
        image = self._shown[index]
        drawn = panel(
            image,
            heatmap,
            probabilities=None if probabilities is None else probabilities[index],
            label=None if self.labels is None else int(self.labels[index]),
            class_names=self.class_names,
            top_k=self.top_k,
            box=None if self.boxes is None else self.boxes[index],
            alpha=self.alpha,
            colormap=self.colormap,
        )
        if self.save_dir is None or heatmap.ndim != 2:
            return Picture(tag, drawn)
        return Picture(tag, drawn, overlay(image, heatmap, self.alpha, self.colormap))

    def _localization(self, tag: str, maps: np.ndarray) -> dict[str, float]:
        if self.boxes is None:
            return {}
        return {
            f"{tag}/pointing_game": float(pointing_game(maps, self.boxes).mean()),
            f"{tag}/energy_in_box": float(energy_in_box(maps, self.boxes).mean()),
        }

    def _score(self, probabilities: np.ndarray | None) -> Any:
        wants_predicted = isinstance(self.score, str) or self.score is None
        if isinstance(self.score, str) and self.score == "label" and self.labels is not None:
            classes = self.labels.tolist()
        elif not wants_predicted:
            return self.score
        elif not _is_tf_keras_vis(self.explainer) or probabilities is None:
            return None
        else:
            classes = np.argmax(two_classes(probabilities), axis=1).tolist()
        if not _is_tf_keras_vis(self.explainer):
            return classes
        binary = probabilities is not None and probabilities.shape[1] == 1
        return BinaryScore(classes) if binary else CategoricalScore(classes)

    def _reset(self) -> None:
        super()._reset()
        self.explainer = None
        self._forward = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the explainer and the compiled pass as well."""
        return {**super().__getstate__(), "explainer": None, "_forward": None}

    def _options_of(self, explainer: ExplainerFactory) -> dict[str, Any]:
        """Return the options that the explainer takes, among those that the logger has."""
        parameters = inspect.signature(explainer).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        if self.layer is not None and not (takes_any or "layer" in parameters):
            raise ValueError(
                "Expected an explainer that takes layer=. Received: "
                f"{getattr(explainer, '__name__', explainer)} and layer={self.layer!r}. Choose the "
                "layer inside: explainer=lambda model: GradCAM(model, layer)."
            )
        options = {} if self.layer is None else {"layer": self.layer}
        return {**options, "batch_size": self.batch_size} if "batch_size" in parameters else options

    def _checked_boxes(self, boxes: Boxes, max_images: int) -> Boxes:
        count = len(self.images)
        kept = boxes[:count] if count == max_images else boxes
        box_masks(kept, count, *self.images.shape[1:3])
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


def _is_tf_keras_vis(explainer: Any) -> bool:
    return any(base.__module__.startswith("tf_keras_vis") for base in type(explainer).__mro__)


def _has_own_model(explainer: Any, model: keras.Model) -> bool:
    """Whether the explainer holds a copy of the model, which does not see the new weights."""
    return _is_tf_keras_vis(explainer) and explainer.model is not model
