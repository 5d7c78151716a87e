"""When a training is looked at, and what is seen: Keras callbacks that log pictures."""

from __future__ import annotations

import inspect
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kvis2.callbacks.probes import (
    class_labels,
    preserved_random_state,
    probe_names,
    take_probes,
)
from kvis2.callbacks.schedule import TENSORBOARD_STEPS, Schedule, check_every
from kvis2.callbacks.writers import FolderWriter, Picture, TensorBoardWriter, Writer
from kvis2.cam import GradCAM
from kvis2.images import displayable, normalize, overlay, panel
from kvis2.localization import Boxes, box_masks, energy_in_box, pointing_game
from kvis2.panels import ClassNames
from kvis2.saliency import Saliency
from kvis2.scores import BinaryScore, CategoricalScore
from kvis2.types import LayerReference

ExplainerFactory: TypeAlias = Callable[..., Any]
"""An explainer class, or a function `model -> explainer`."""


class Observation(NamedTuple):
    """What a logger saw at one step."""

    pictures: Sequence[Picture]
    scalars: Mapping[str, float] = {}


class PictureLogger(keras.callbacks.Callback):
    """Base of the loggers: when to look, and where the pictures go. `observe` says what is seen.

    Training with a logger is bit-identical to training without: weights, optimizer, metrics and
    the global random generators of Python and NumPy are left as they were.

    Args:
        log_dir: The directory that TensorBoard is started with.
        every: Log every n epochs (or batches); "auto" spreads ten steps over the training, the
            first and the last included, since TensorBoard keeps ten pictures of a tag.
        unit: "epoch" or "batch", what `every` counts. A step is the epoch's or batch's number
            from 0; batches count on over epochs.
        run: Name of the run directory below `log_dir`. If it holds event files already, `run_2`,
            `run_3`, ... is used, so that two trainings, or two loggers, never mix.
        save_dir: Also write the pictures here as PNG files, and at the end a GIF and a strip of
            each; files of an earlier training are replaced.
        on_error: "warn": an error while logging gives one warning and ends the logging, and the
            training goes on; "raise": it ends the training. A directory that cannot be written to
            is an error before the first batch in either case.

    Attributes:
        history: What was logged, lists of equal length by name: "step", "seconds" (what the step
            cost), and the scalars.
    """

    # Of one training:
    _schedule: Schedule | None
    _writers: list[Writer]
    _failed: bool
    _warned: set[tuple[type[Warning], str, int]]
    _first_batch: int  # the number of the epoch's first batch
    _next_batch: int
    _visited: int | None  # the last step that could have been logged
    _epoch_scalars: dict[str, float]

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        *,
        every: int | str = "auto",
        unit: str = "epoch",
        run: str = "kvis2",
        save_dir: str | os.PathLike[str] | None = None,
        on_error: str = "warn",
    ) -> None:
        super().__init__()
        check_every(every)
        _check_choice("unit", unit, ("epoch", "batch"))
        _check_choice("on_error", on_error, ("warn", "raise"))
        if not run or run in (".", "..", "train", "validation"):
            raise ValueError(
                f"Expected run to name a directory of the logger's own. Received: {run!r}. "
                "TensorBoard loses data where two writers share a run: use for example 'kvis2'."
            )
        self.log_dir = os.fspath(log_dir)
        self.every = every
        self.unit = unit
        self.run = run
        self.save_dir = save_dir
        self.on_error = on_error
        self.history: dict[str, list[float]] = {"step": [], "seconds": []}
        self._reset()

    def observe(self, step: int) -> Observation:
        """Look at `self.model`: the pictures and scalars of one step. Subclasses say what."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it observes.")

    @property
    def overhead(self) -> float:
        """Seconds that the logging of the last training took."""
        return sum(self.history["seconds"])

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forget the last training."""
        self._reset()
        self.history = {"step": [], "seconds": []}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Open the files before the first batch; the number of the first epoch is known here."""
        steps = self.params.get("steps")
        if self._schedule is None:
            self._schedule = self._planned(epoch, self.params.get("epochs"), steps)
            self._writers = self._opened()
        # Batches are counted where a dataset does not know how many it has.
        self._first_batch = self._next_batch if steps is None else epoch * steps
        self._epoch_scalars = {}

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Log if a batch is due; with `steps_per_execution` the hook sees each n-th batch only."""
        step = self._first_batch + batch
        self._next_batch = step + 1
        if self.unit == "batch":
            self._visit(step)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log if the epoch is due, and hand the scalars to the callbacks that come after."""
        if self.unit == "epoch":
            self._visit(epoch)
        if logs is not None:
            logs.update(
                {f"{self.run}_{name}": value for name, value in self._epoch_scalars.items()}
            )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Log the end of a training that stopped early, and close the files."""
        if self._schedule is not None and self._schedule.is_spread:
            self._log_last()
        writers, self._writers = self._writers, []
        for writer in writers:
            with self._guarded("when it finished"):
                writer.close()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to a training, so that a used logger can be copied."""
        return {**self.__dict__, "_model": None, "params": None, "_schedule": None, "_writers": []}

    def _reset(self) -> None:
        self._schedule = None
        self._writers = []
        self._failed = False
        self._warned = set()
        self._first_batch = self._next_batch = 0
        self._visited = None
        self._epoch_scalars = {}

    def _planned(self, epoch: int, epochs: int | None, steps: int | None) -> Schedule:
        first, last = epoch, None if epochs is None else epochs - 1
        if self.unit == "batch":
            first = epoch * (steps or 0)
            last = None if epochs is None or steps is None else epochs * steps - 1
        schedule = Schedule(self.every, first, last)
        planned = schedule.total()
        if planned is not None and planned > TENSORBOARD_STEPS:
            print(
                f"{type(self).__name__} will log {planned} steps, of which TensorBoard keeps "
                f"{TENSORBOARD_STEPS}: start it with `tensorboard --logdir {self.log_dir} "
                f"--samples_per_plugin images={planned}` to see them all."
            )
        return schedule

    def _opened(self) -> list[Writer]:
        writers: list[Writer] = []
        if self.save_dir is not None:
            writers.append(FolderWriter(self.save_dir, self.unit))
        return [TensorBoardWriter(self.log_dir, self.run), *writers]

    def _visit(self, step: int) -> None:
        assert self._schedule is not None
        self._visited = step
        if self._schedule.due(step):
            self._log(step)
        elif self._schedule.is_spread and self.model.stop_training:
            self._log(step)  # An early stop makes this the last step.

    def _log_last(self) -> None:
        steps = self.history["step"]
        if self._visited is not None and self._visited not in steps:
            self._log(self._visited)

    def _log(self, step: int) -> None:
        if self._failed:
            return
        started = time.perf_counter()
        with self._guarded(f"at {self.unit} {step}"):
            with preserved_random_state(), self._each_warning_once(step):
                observation = self.observe(step)
            for writer in self._writers:
                writer.write(step, *observation)
            self._remember(step, observation.scalars, time.perf_counter() - started)

    def _remember(self, step: int, scalars: Mapping[str, float], seconds: float) -> None:
        self._epoch_scalars = {tag.split("/")[-1]: value for tag, value in scalars.items()}
        for name, value in {"step": step, "seconds": seconds, **self._epoch_scalars}.items():
            self.history.setdefault(name, []).append(value)

    @contextmanager
    def _each_warning_once(self, step: int) -> Iterator[None]:
        """Let a warning that comes at every step, such as of an empty map, through once."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        for warning in caught:
            place = (warning.category, warning.filename, warning.lineno)
            if place not in self._warned:
                self._warned.add(place)
                message = f"{type(self).__name__} at {self.unit} {step}: {warning.message}"
                warnings.warn_explicit(message, *place)

    @contextmanager
    def _guarded(self, when: str) -> Iterator[None]:
        """Let the training survive an error: the first one is a warning, or raised if wanted."""
        try:
            yield
        except Exception as error:
            if self.on_error == "raise":
                raise
            if not self._failed:
                self._failed = True
                warnings.warn(
                    f"{type(self).__name__} failed {when} and logs no more in this training, "
                    f"which goes on: {type(error).__name__}: {error}",
                    RuntimeWarning,
                    stacklevel=3,
                )


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
            _check_choice("score", score, ("label", "predicted"))
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
            classes = np.argmax(_two_classes(probabilities), axis=1).tolist()
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


def forward_pass(model: keras.Model, images: np.ndarray) -> Callable[[np.ndarray], Any]:
    """Return `images -> model outputs` at inference, in one trace for all batch sizes.

    The weights are read at each call; a model compiled with `run_eagerly` stays eager.
    """

    def forward(batch: tf.Tensor) -> Any:
        return model(batch, training=False)

    dtype = tf.as_dtype(keras.config.floatx() if images.dtype.kind == "f" else images.dtype)
    if not model.run_eagerly:
        forward = tf.function(forward, [tf.TensorSpec((None, *images.shape[1:]), dtype)])
    return lambda batch: forward(tf.cast(batch, dtype))


def as_probabilities(outputs: np.ndarray, loss: Any = None) -> np.ndarray | None:
    """Turn the outputs of a classifier into probabilities.

    Args:
        outputs: `(batch, classes)`; probabilities stay as they are, logits go through a softmax,
            or a sigmoid where the loss is a binary one.
        loss: The model's loss, whose `from_logits` decides; without it, outputs outside of 0..1
            are logits.

    Returns:
        float32 `(batch, classes)`, or None where the outputs are not those of a classifier.
    """
    if outputs.ndim != 2:
        return None
    from_logits = getattr(loss, "from_logits", None)
    if from_logits is None:
        from_logits = outputs.min() < -1e-3 or outputs.max() > 1 + 1e-3
        if from_logits and outputs.shape[1] == 1:
            return None  # One number of any size: more likely a regression.
    if not from_logits:
        return outputs
    if outputs.shape[1] == 1 or isinstance(loss, keras.losses.BinaryCrossentropy):
        return 1 / (1 + np.exp(-outputs))
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _two_classes(probabilities: np.ndarray) -> np.ndarray:
    """Return a column for each class, also for the one output of a binary classifier."""
    if probabilities.shape[1] > 1:
        return probabilities
    return np.concatenate([1 - probabilities, probabilities], axis=1)


def _is_tf_keras_vis(explainer: Any) -> bool:
    return any(base.__module__.startswith("tf_keras_vis") for base in type(explainer).__mro__)


def _has_own_model(explainer: Any, model: keras.Model) -> bool:
    """Whether the explainer holds a copy of the model, which does not see the new weights."""
    return _is_tf_keras_vis(explainer) and explainer.model is not model


def _check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(
            f"Expected {name} to be one of {', '.join(map(repr, choices))}. Received: {value!r}."
        )
