"""Training with masks: a loss beside the user's own, and figures that say whether it helped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kvis2.callbacks.masks import Annotated, counterfactual_figures, exchanged
from kvis2.callbacks.pictures import Observation, PictureLogger
from kvis2.callbacks.settings import Log
from kvis2.explainers import GradCAM
from kvis2.models import meaning_of
from kvis2.shown import Shown

Loss = Callable[[keras.Model, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""A loss of a user's own: `(model, images, targets, masks) -> scalar`."""

_SMALL = 1e-7


class CounterfactualLogger(PictureLogger):
    """Log what a model answers when the background of its images is exchanged.

    At every logged step the scalars `counterfactual/accuracy`, `counterfactual/exchanged_accuracy`
    and `counterfactual/flips`, the share of answers that another background changes, in
    TensorBoard, in `history` and in the `logs` of Keras. A model that looks at its objects loses
    little and flips little; a heatmap alone cannot say that.

    Args:
        log_dir: The directory that TensorBoard is started with, or a `Log`.
        images: Images as the model takes them, `(batch, height, width, channels)`, two or more.
        labels: Their classes.
        masks_or_boxes: Where the objects are: bool masks `(batch, height, width)`, or boxes.
        exchanges: With how many others each image is exchanged.
        seed: Which ones these are.
        **options: As for `PictureLogger`; the run is `kvis2_counterfactual`.

    Example:
        >>> logger = CounterfactualLogger("logs", x_test[:200], y_test[:200], boxes)
        >>> model.fit(x, y, epochs=5, callbacks=[logger])
    """

    default_run = "kvis2_counterfactual"

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | Log,
        images: Any,
        labels: Any,
        masks_or_boxes: Any,
        *,
        exchanges: int = 2,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(log_dir, **options)
        self.annotated = Annotated(images, labels, masks_or_boxes)
        self.exchanges = exchanges
        self.seed = seed

    def observe(self, step: int) -> Observation:
        """The figures, and no pictures."""
        found = counterfactual_figures(
            self.model, self.annotated, exchanges=self.exchanges, seed=self.seed
        )
        return Observation([], {f"counterfactual/{name}": each for name, each in found.items()})


class MaskGuide(Shown, keras.callbacks.Callback):
    """Train with masks of the objects in some images: a second loss beside the user's own.

    At each step `batch_size` of the annotated images are drawn, and `weight * loss` of them is
    added. The model, its data, its metrics and what is saved of it stay as they are. The losses:

    * "swap": the user's loss on the images with all outside the masks exchanged with another
      one's, the label kept. It needs few masks, and changes the behaviour.
    * "consistency": `KL(p(x) || p(x'))` between an image and its exchanged one.
    * "gradients": right for the right reasons, `mean over samples of the sum of ((1 - mask) *
      d sum(log p) / d x)^2`.
    * "energy": the share of Grad-CAM's heat outside the masks. **It moves the heat and leaves the
      behaviour**: measured in docs/guidance.md; look at the counterfactual figures and not at the
      pictures.
    * a function `(model, images, targets, masks) -> scalar` of your own; or several of all these,
      which are added up.

    At the end of each epoch `logs` hold `guide_exchanged_accuracy` and `guide_flips`, measured on
    the annotated images with their backgrounds exchanged, so that a repair that is only cosmetic is
    seen; on images that were not trained on, `CounterfactualLogger` says more.

    Place it before callbacks that read these figures. It replaces `compute_loss` of the model while
    it trains; after a training that was interrupted, `remove()` puts it back.

    Args:
        images: The annotated images as the model takes them, `(batch, height, width, channels)`.
        labels: Their labels, as the model's loss takes them.
        masks_or_boxes: bool `(batch, height, width)`; or for each image a box `[x0, y0, x1, y1]` in
            pixels, or a list of boxes.
        loss: "swap", "consistency", "gradients", "energy", a function, or a list of these.
        weight: Of the second loss.
        batch_size: How many annotated images are taken at each step.
        layer: With "energy", the layer that Grad-CAM looks at.
        seed: Of what is drawn; the random generators of the training are left alone.

    Attributes:
        history: "epoch", "exchanged_accuracy" and "flips", lists of equal length.

    Raises:
        ValueError: If an argument is not as described; at the start of the training, if the model
            has a `train_step` of its own that does not call `compute_loss`, several outputs, or
            several replicas.

    References:
        Ross et al. (2017), Right for the Right Reasons. https://arxiv.org/abs/1703.03717

    Example:
        >>> guide = MaskGuide(x[:50], y[:50], boxes[:50])
        >>> model.fit(x, y, epochs=3, callbacks=[guide])
    """

    def __init__(
        self,
        images: Any,
        labels: Any,
        masks_or_boxes: Any,
        *,
        loss: str | Loss | Sequence[str | Loss] = "swap",
        weight: float = 1.0,
        batch_size: int = 16,
        layer: Any = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        names = [loss] if isinstance(loss, str) or callable(loss) else list(loss)
        if not names or not all(callable(each) or each in _LOSSES for each in names):
            raise ValueError(
                f"Expected loss to be one of {', '.join(map(repr, _LOSSES))}, a function (model, "
                f"images, targets, masks) -> scalar, or several of them. Received: {loss!r}."
            )
        self.annotated = Annotated(images, labels, masks_or_boxes)
        self.loss = loss
        self._losses = names
        self.weight = float(weight)
        self.batch_size = min(int(batch_size), len(self.annotated))
        self.layer = layer
        self.seed = int(seed)
        self.history: dict[str, list[float]] = {}
        self._guided: keras.Model | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Put the second loss beside the first."""
        self.remove()
        self.history = {"epoch": [], "exchanged_accuracy": [], "flips": []}
        model = self.model
        _check(model)
        original = model.compute_loss
        data = [
            tf.constant(self.annotated.images),
            tf.constant(self.annotated.targets),
            tf.constant(self.annotated.masks),
        ]

        def compute_loss(
            x: Any = None,
            y: Any = None,
            y_pred: Any = None,
            sample_weight: Any = None,
            training: bool = True,
        ) -> tf.Tensor:
            total = original(x, y, y_pred, sample_weight, training=training)
            if not training:
                return total
            return total + self.weight * tf.cast(self._second(model, data), total.dtype)

        model.compute_loss = compute_loss
        model._compute_loss_has_training_arg = True
        model.make_train_function(force=True)
        self._guided = model

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measure what the model answers when backgrounds are exchanged."""
        found = counterfactual_figures(self.model, self.annotated, seed=self.seed)
        self.history["epoch"].append(epoch)
        for name in ("exchanged_accuracy", "flips"):
            self.history[name].append(found[name])
            if logs is not None:
                logs[f"guide_{name}"] = found[name]

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leave the model as it was."""
        self.remove()

    def remove(self) -> None:
        """Take the second loss away; it is also taken away when the training ends."""
        if self._guided is not None:
            vars(self._guided).pop("compute_loss", None)
            self._guided.make_train_function(force=True)
            self._guided = None

    def _second(self, model: keras.Model, data: list[tf.Tensor]) -> tf.Tensor:
        """The second loss on images that are drawn for this step."""
        step = tf.cast(model.optimizer.iterations, tf.int32)
        seeds = tf.stack([self.seed, 0]) + tf.stack([0, step])
        order = tf.argsort(tf.random.stateless_uniform([len(self.annotated)], seeds))
        chosen = order[: self.batch_size]
        images, targets, masks = (tf.gather(each, chosen) for each in data)
        others = tf.gather(data[0], tf.roll(order, 1, axis=0)[: self.batch_size])
        found = []
        for loss in self._losses:
            if callable(loss):
                found.append(loss(model, images, targets, masks))
            elif loss == "energy":
                found.append(_energy(model, images, targets, masks, self.layer))
            else:
                found.append(_LOSSES[loss](model, images, targets, masks, others))
        return tf.add_n(found)


def _check(model: keras.Model) -> None:
    """Raise where the second loss would be left out, or be another."""
    if type(model).train_step is not keras.Model.train_step:
        raise ValueError(
            "Expected a model that trains by Keras' own train_step. Received: "
            f"'{model.name}' with one of its own, which may not call compute_loss. Train with "
            "`kvis2.callbacks.exchanged` in that train_step."
        )
    if isinstance(model.loss, dict | list | tuple) or len(model.outputs or [0]) > 1:
        raise ValueError(
            f"Expected a model with one output and one loss. Received: '{model.name}' with "
            "several. Give a function as loss=, and compile the model with one loss."
        )
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        raise ValueError(
            "Expected a training on one replica. Received: "
            f"{strategy.num_replicas_in_sync}. Guide on one device, where few masks are enough."
        )


def _user_loss(model: keras.Model, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    loss = keras.losses.get(model.loss)
    return tf.reduce_mean(loss(targets, outputs))


def _probabilities(model: keras.Model, outputs: tf.Tensor) -> tf.Tensor:
    """The outputs as probabilities of classes, `(batch, classes)`, by what the loss takes."""
    outputs = tf.cast(outputs, tf.float32)
    one = outputs.shape[-1] == 1
    if meaning_of(model, 0, outputs.shape, None).logits:
        outputs = tf.sigmoid(outputs) if one else tf.nn.softmax(outputs)
    return tf.concat([1 - outputs, outputs], axis=-1) if one else outputs


def _swap(model: Any, images: Any, targets: Any, masks: Any, others: Any) -> tf.Tensor:
    outputs = model(exchanged(images, masks, others), training=True)
    return _user_loss(model, targets, outputs)


def _consistency(model: Any, images: Any, targets: Any, masks: Any, others: Any) -> tf.Tensor:
    both = tf.concat([images, exchanged(images, masks, others)], axis=0)
    plain, swapped = tf.split(_probabilities(model, model(both, training=True)), 2)
    ratio = tf.math.log(plain + _SMALL) - tf.math.log(swapped + _SMALL)
    return tf.reduce_mean(tf.reduce_sum(plain * ratio, axis=-1))


def _gradients(model: Any, images: Any, targets: Any, masks: Any, others: Any) -> tf.Tensor:
    images = tf.cast(images, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(images)
        shares = _probabilities(model, model(images, training=True))
        total = tf.reduce_sum(tf.math.log(shares + _SMALL))
    outside = tf.cast(~masks, tf.float32)[..., tf.newaxis]
    squares = tf.square(outside * tape.gradient(total, images))
    return tf.reduce_mean(tf.reduce_sum(squares, axis=[1, 2, 3]))


def _energy(model: Any, images: Any, targets: Any, masks: Any, layer: Any) -> tf.Tensor:
    """The share of Grad-CAM's heat outside: masks are resized down to its grid, never maps up."""
    explainer = GradCAM(model, layer, resize=False, normalize=False, fold_batch_norm=False)
    one_hot = targets.shape.rank == 2 and targets.shape[-1] > 1
    classes = tf.argmax(targets, axis=-1) if one_hot else tf.reshape(targets, [-1])
    maps, _ = explainer.graph(images, tf.cast(classes, tf.int32))
    inside = tf.image.resize(
        tf.cast(masks, tf.float32)[..., tf.newaxis], maps.shape[1:3], method="area"
    )[..., 0]
    outside = tf.reduce_sum(maps * (1 - inside), axis=[1, 2])
    return tf.reduce_mean(outside / (tf.reduce_sum(maps, axis=[1, 2]) + _SMALL))


_LOSSES: dict[str, Any] = {
    "swap": _swap,
    "consistency": _consistency,
    "gradients": _gradients,
    "energy": _energy,
}
