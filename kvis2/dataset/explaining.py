"""From batches of pictures to the rows of a chunk: maps, predictions, measures, and what failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2.callbacks import as_probabilities, at_layer, two_classes
from kvis2.dataset.classes import Classes
from kvis2.dataset.compact import CompactMap
from kvis2.dataset.measures import measured
from kvis2.dataset.reading import Read, Reader
from kvis2.dataset.store import Columns
from kvis2.explainers import Explainer
from kvis2.images import area_means
from kvis2.passes import Predicted
from kvis2.scores import BinaryScore

_DIVERGED = (
    "Expected outputs and gradients that are finite. Received: NaN or infinity in the output or "
    "the map of this picture. Look at its pixels, and at the weights of the model."
)
_UNLABELLED = (
    "Expected a label that is a class of the model, to explain it. Received: {!r}. Give --names, or"
    " labels that are numbers."
)


@dataclass(frozen=True)
class Explained:
    """A batch that has been explained.

    Attributes:
        read: The pictures.
        maps: Raw, float32 `(batch, height, width)`, zeros where there is an error.
        probabilities: `(batch, classes)`, or None where the model tells no classes apart.
        targets: For each picture the class that was explained, or None.
        errors: For each picture why there is no map, or "".
    """

    read: Read
    maps: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None
    targets: list[int | None]
    errors: list[str]


class Explaining:
    """How pictures are explained; the same pictures in the same batches give the same bytes.

    Args:
        explainer: The method.
        reader: How pictures are read.
        score: "predicted", "label" or a class; or what else the explainer takes as a score.
        classes: What labels mean.
        measures: Names of measures.
        map_size: How many places a kept map has along an axis at most.
        batch_size: How many pictures one pass holds.

    Raises:
        ValueError: If model, method and score do not fit.
    """

    def __init__(
        self,
        explainer: Explainer,
        reader: Reader,
        score: Any,
        classes: Classes,
        measures: Sequence[str],
        map_size: int,
        batch_size: int,
    ) -> None:
        self.explainer = at_layer(explainer)
        self.reader = reader
        self.classes = classes
        self.measures = tuple(measures)
        self.map_size = map_size
        self.batch_size = batch_size
        self.score = score
        self._binary = False
        self._try()

    def _try(self) -> None:
        """One pass over black pictures, which compiles it, and refuses what fits no picture."""
        shape = (self.batch_size, *self.reader.size, self.reader.space.channels)
        inputs = self.reader.space.encode(np.zeros(shape, np.uint8))
        first = self.explainer.model.outputs[0].shape
        score = 0 if self.score == "label" else self.score
        if isinstance(score, int):
            self._binary = len(first) == 2 and first[-1] == 1 and self._names_classes(inputs)
            score = BinaryScore(bool(score)) if self._binary else score
        maps, _ = self.explainer.with_predictions(
            None if score == "predicted" else score, inputs, checked=False
        )
        if not isinstance(maps, np.ndarray) or maps.ndim != 3:
            raise ValueError(
                "Expected a method with one map (height, width) for each picture. Received: "
                f"{type(self.explainer).__name__}, whose maps have shape "
                f"{getattr(maps, 'shape', None)}. Name a layer with two axes of space."
            )

    def _names_classes(self, inputs: NDArray[np.float32]) -> bool:
        self.explainer.with_predictions(None, inputs, checked=False)
        return self.explainer.meanings[0].names_classes

    def explain(self, read: Read) -> Explained:
        """Explain a batch; a picture that cannot be explained has an error, the others a map."""
        labels = [self.classes.number(entry.row.label) for entry in read.entries]
        errors = [entry.error for entry in read.entries]
        if self.score == "label":
            for index, label in enumerate(labels):
                if label is None and not errors[index]:
                    errors[index] = _UNLABELLED.format(read.entries[index].row.label)
        try:
            maps, predicted = self._explained(labels, read.inputs)
        except (ValueError, tf.errors.OpError):
            maps, predicted = self._one_by_one(labels, read.inputs, errors)
        outputs = np.asarray(predicted.outputs[0], np.float32)
        # A ReLU makes zero of NaN, as if there were no evidence: the outputs are asked as well.
        finite = _finite(maps) & _finite(outputs)
        for index in np.flatnonzero(~finite).tolist():
            errors[index] = errors[index] or _DIVERGED
        failed = np.array([bool(each) for each in errors])
        maps = np.where(failed[:, None, None], np.float32(0), maps)
        shares = as_probabilities(outputs, predicted.meanings[0])
        shares = None if shares is None else two_classes(shares)
        return Explained(read, maps, shares, self._targets(labels, shares), errors)

    def _explained(
        self, labels: Sequence[int | None], inputs: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], Predicted]:
        score: Any = None if self.score == "predicted" else self.score
        if score == "label":
            score = [label or 0 for label in labels]
        if self._binary:
            whether = [bool(each) for each in np.atleast_1d(score)]
            score = BinaryScore(whether if len(whether) > 1 else whether[0])
        return self.explainer.with_predictions(score, inputs, checked=False)

    def _one_by_one(
        self, labels: Sequence[int | None], inputs: NDArray[np.float32], errors: list[str]
    ) -> tuple[NDArray[np.float32], Predicted]:
        """A batch that raised, each picture by itself, so that one does not cost the others."""
        found: list[Any] = []
        for index in range(len(inputs)):
            try:
                found.append(self._explained(labels[index : index + 1], inputs[index : index + 1]))
            except (ValueError, tf.errors.OpError) as error:
                found.append(None)
                errors[index] = errors[index] or str(error).partition("\n")[0]
        example = next((each for each in found if each is not None), None)
        if example is None:
            blank = np.zeros((len(inputs), 1, 1), np.float32)
            units = self.explainer.model.outputs[0].shape[1:]
            return blank, Predicted(
                [np.full((len(inputs), *(n or 1 for n in units)), np.nan, np.float32)],
                self.explainer.meanings,
            )
        maps = [np.zeros_like(example[0]) if each is None else each[0] for each in found]
        output = example[1].outputs[0]
        outputs = [
            np.full_like(output, np.nan) if each is None else each[1].outputs[0] for each in found
        ]
        return np.concatenate(maps), Predicted([np.concatenate(outputs)], example[1].meanings)

    def _targets(
        self, labels: Sequence[int | None], shares: NDArray[np.float32] | None
    ) -> list[int | None]:
        if self.score == "label":
            return list(labels)
        if isinstance(self.score, int):
            return [self.score] * len(labels)
        if self.score == "predicted" and shares is not None:
            return [int(each) for each in shares.argmax(axis=1)]
        return [None] * len(labels)

    def columns(self, explained: Explained, first: int) -> Columns:
        """The rows of a batch, of which the first has this number in the source."""
        entries, errors = explained.read.entries, explained.errors
        small = area_means(explained.maps, (self.map_size, self.map_size))
        compact = [CompactMap.of(each) for each in small]
        there = [not error for error in errors]
        found: Columns = {
            "row": list(range(first, first + len(entries))),
            "id": [entry.row.id for entry in entries],
            "path": [entry.row.path for entry in entries],
            "label_name": [entry.row.label for entry in entries],
            "label": [self.classes.number(entry.row.label) for entry in entries],
            **self._predictions(explained),
            "height": [entry.size[0] or None for entry in entries],
            "width": [entry.size[1] or None for entry in entries],
            "boxes": [entry.row.boxes for entry in entries],
            "map": [each.values.tobytes() for each in compact],
            "map_height": [each.values.shape[0] for each in compact],
            "map_width": [each.values.shape[1] for each in compact],
            "scale": [each.scale for each in compact],
            "signed": [each.signed for each in compact],
        }
        measures = measured(self.measures, explained.maps, entries, self.reader)
        found |= {name: [float(value) for value in each] for name, each in measures.items()}
        of_map = ["map", "map_height", "map_width", "scale", "signed", "target", *self.measures]
        for name in of_map:
            pairs = zip(found[name], there, strict=True)
            found[name] = [value if known else None for value, known in pairs]
        return {**found, "error": list(errors)}

    def _predictions(self, explained: Explained) -> Columns:
        """What was predicted; None of pictures that were not read, and where it is not finite."""
        count = len(explained.errors)
        empty: list[Any] = [None] * count
        found: Columns = {"prediction": empty, "probability": list(empty)}
        if explained.probabilities is not None:
            best = explained.probabilities.argmax(axis=1)
            values = explained.probabilities[np.arange(count), best]
            read = [not entry.error for entry in explained.read.entries]
            known = np.isfinite(explained.probabilities).all(axis=1) & np.array(read)
            found["prediction"] = [
                int(each) if ok else None for each, ok in zip(best, known, strict=True)
            ]
            found["probability"] = [
                float(each) if ok else None for each, ok in zip(values, known, strict=True)
            ]
        return {**found, "target": list(explained.targets)}


def _finite(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(values).reshape(len(values), -1).all(axis=1))


def check_model(model: keras.Model) -> None:
    """Raise for a model of several outputs, whose predictions would be several."""
    if len(model.outputs or ()) != 1:
        raise ValueError(
            f"Expected a model of one output. Received: '{model.name}' with "
            f"{len(model.outputs or ())}. Build one of them: keras.Model(model.inputs, "
            "model.outputs[0])."
        )
