"""What the units of an output mean: by the loss of a compiled model, then by its graph."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from kvis2.models import layers

_OF_TWO = ("binarycrossentropy", "binaryfocalcrossentropy", "hinge", "squaredhinge")
_OF_MARGINS = ("hinge", "squaredhinge")
_OF_CLASSES = (
    *("categoricalcrossentropy", "sparsecategoricalcrossentropy", "categoricalhinge"),
    *("categoricalfocalcrossentropy", "kldivergence", "ctc"),
)
_OF_NUMBERS = (
    *("meansquarederror", "meanabsoluteerror", "meanabsolutepercentageerror", "huber", "logcosh"),
    *("meansquaredlogarithmicerror", "poisson", "cosinesimilarity"),
)


class Meaning(NamedTuple):
    """What the units of one output are taken for.

    Attributes:
        kind: "classes" that exclude each other; "two classes" of one unit; "labels" that do not
            exclude each other; or "numbers" of a regression.
        logits: Whether the model returns scores, and not probabilities: True, False, or None where
            nothing says so.
        because: What says so, for a sentence.
    """

    kind: str
    logits: bool | None
    because: str

    @property
    def names_classes(self) -> bool:
        """Whether a class index means something here."""
        return self.kind != "numbers"

    def __str__(self) -> str:
        return f"{self.kind}, by {self.because}"


def meaning_of(
    model: keras.Model,
    index: int,
    shape: tf.TensorShape,
    activation: str | None,
    path: str | None = None,
) -> Meaning:
    """What the units of one output of `model` mean.

    Args:
        model: The model; what it is compiled with is asked first.
        index: Which of its flat outputs.
        shape: The static shape of the output.
        activation: The "softmax" or "sigmoid" that it ends in, also inside functions, or None.
        path: Where the output stands in what the model returns, if that is known.
    """
    loss = loss_of(model, index, path)
    name, from_logits = _described(loss)
    single = shape.rank is not None and shape.rank > 0 and shape[-1] == 1
    said = f"the loss {getattr(loss, 'name', None) or name}"
    if name in _OF_TWO:
        logits = True if name in _OF_MARGINS else from_logits
        return Meaning("two classes" if single else "labels", logits, said)
    if name in _OF_CLASSES:
        return Meaning("classes", from_logits, said)
    if name in _OF_NUMBERS:
        return Meaning("numbers", None, said)
    if activation == "sigmoid":
        return Meaning("two classes" if single else "labels", False, "the sigmoid at its end")
    if activation == "softmax":
        return Meaning("classes", False, "the softmax at its end")
    if single:
        return Meaning("numbers", None, "its one unit without a sigmoid or a known loss")
    return Meaning("classes", None, "the number of its units")


def static_shape(shape: Any) -> tf.TensorShape:
    """A shape as Keras gives it, for `meaning_of`."""
    return tf.TensorShape(list(shape))


def loss_of(model: keras.Model, index: int, path: str | None = None) -> Any:
    """The loss of one flat output of a compiled model, or None.

    Args:
        model: The model.
        index: Which of its flat outputs.
        path: Where it stands in what the model returns, such as "class" or "boxes/0"; a model that
            declares its outputs knows that by itself.
    """
    loss = getattr(model, "loss", None)
    if path is None:
        paths = layers.output_paths(getattr(model, "_outputs_struct", None))
        path = paths[index] if index < len(paths) else None
    if isinstance(loss, Mapping):
        # By the keys of a model that returns a dict; by the names of layers of one with a list.
        found = None if path is None else _at(loss, path.split("/"))
        names = layers.output_names(model)
        if found is None and names is not None and index < len(names):
            found = loss.get(names[index])
        if found is None and path in (None, "") and len(loss) == 1:
            (found,) = loss.values()
        return found
    if isinstance(loss, Sequence) and not isinstance(loss, str):
        flat = keras.tree.flatten(loss)
        return flat[index] if index < len(flat) else None
    return loss


def _at(loss: Any, path: Sequence[str]) -> Any:
    """What stands at a path in nested dicts and lists of losses, or None."""
    for key in path:
        if isinstance(loss, Mapping):
            loss = loss.get(key)
        elif isinstance(loss, list | tuple) and key.isdecimal() and int(key) < len(loss):
            loss = loss[int(key)]
        else:
            return None
    return loss


def _described(loss: Any) -> tuple[str, bool | None]:
    """The name of a loss, lower case without underscores, and whether it takes logits."""
    from_logits: bool | None = getattr(loss, "from_logits", None)
    while isinstance(loss, functools.partial):
        from_logits = loss.keywords.get("from_logits", from_logits)
        loss = loss.func
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return loss.lower(), from_logits
    if loss is None:
        return "", None
    function = getattr(loss, "fn", None)
    kinds = [function, loss] if function is not None else [loss]
    for each in kinds:
        name = getattr(each, "__name__", type(each).__name__).replace("_", "").lower()
        if name in (*_OF_TWO, *_OF_CLASSES, *_OF_NUMBERS):
            return name, bool(from_logits) if from_logits is not None else False
    return type(loss).__name__.lower(), from_logits
