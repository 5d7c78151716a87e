"""From what a user hands in as `score` to one `Score` for each output, and its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.scores.outputs import (
    CategoricalScore,
    ChosenScore,
    FunctionScore,
    InactiveScore,
    LayerScore,
    PredictedScore,
    Score,
)
from kvis2.scores.units import DirectionScore, UnitsScore
from kvis2.traced import fields, with_fields

ScoreLike: TypeAlias = (
    "Score | int | Sequence[Any] | np.ndarray | Mapping[str, Any] | "
    "Callable[[tf.Tensor], Any] | None"
)
"""What a user may give as a score: see `as_scores`."""

_CONVERSIONS: list[Callable[[Any], Score | None]] = []


def convert_with(convert: Callable[[Any], Score | None]) -> None:
    """Let scores of another toolkit be taken: `convert` returns None for what is not one."""
    _CONVERSIONS.append(convert)


def as_scores(score: ScoreLike, batch: int, outputs: int = 1) -> Any:
    """A user's `score` as `Score` objects with one field per sample.

    Args:
        score: What explainers accept: an int, one int per sample, None (predicted class), a
            `Score` of kvis2 or tf-keras-vis, a function, or a list or dict of these by output.
        batch: How many samples the score is for.
        outputs: How many outputs the model has: a list is by output if there are several.

    Returns:
        A `Score`, or a list or dict of them.

    Raises:
        ValueError: If there is not one number per sample.
        TypeError: If it is none of these.
    """
    if isinstance(score, Mapping):
        return {name: _for_batch(_as_score(each), batch) for name, each in score.items()}
    if isinstance(score, list | tuple) and (outputs > 1 or not all(map(_is_integer, score))):
        return [_for_batch(_as_score(each), batch) for each in score]
    return _for_batch(_as_score(score), batch)


def as_tensors(score: ScoreLike, batch: tf.Tensor, outputs: int = 1) -> Any:
    """A user's `score` inside a graph: its fields are tensors, with a row for every sample.

    Args:
        score: As for `as_scores`; or an int tensor `(batch,)` of classes, -1 for the predicted one.
        batch: How many samples there are, a scalar tensor.
        outputs: How many outputs the model has.

    Returns:
        A `Score`, or a list or dict of them.
    """
    if isinstance(score, Mapping):
        return {name: as_tensors(each, batch) for name, each in score.items()}
    if isinstance(score, list | tuple) and (outputs > 1 or not all(map(_is_integer, score))):
        return [as_tensors(each, batch) for each in score]
    if tf.is_tensor(score):
        return ChosenScore(score)
    found = _as_score(score)

    def row(value: Any) -> tf.Tensor:
        tensor = tf.convert_to_tensor(value)
        size = tf.concat([[batch], tf.shape(tensor)[1:]], axis=0)
        return tf.broadcast_to(tensor, size) if tensor.shape[0] == 1 else tensor

    return with_fields(found, {name: row(value) for name, value in fields(found).items()})


def flat(score: Any) -> list[Score]:
    """The scores of `as_scores`, one for each explained output."""
    return keras.tree.flatten(score) if isinstance(score, list | dict) else [score]


def _is_integer(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _as_score(score: Any) -> Score:
    if score is None:
        return PredictedScore()
    if isinstance(score, Score):
        return score
    for convert in _CONVERSIONS:
        converted = convert(score)
        if converted is not None:
            return converted
    if isinstance(score, tf.Tensor):
        score = score.numpy()
    if isinstance(score, np.ndarray) and score.dtype.kind == "f":
        raise TypeError(
            f"Expected a score: a class index, a list of them, a Score, a function or None. "
            f"Received: a float array of shape {score.shape}. "
            "The score comes first and the images second: `explainer(score, images)`."
        )
    if _is_integer(score) or isinstance(score, list | tuple | np.ndarray | range):
        return CategoricalScore(score)
    if callable(score) and not isinstance(score, type):
        return FunctionScore(score)
    raise TypeError(
        "Expected a score: a class index, a list of them, a Score, a function or None. "
        f"Received: {score!r}. The score comes first: `explainer(score, images)`."
    )


def _for_batch(score: Score, batch: int) -> Score:
    values = {}
    for name, array in fields(score).items():
        if len(array) not in (1, batch):
            raise ValueError(
                f"Expected a score for every sample: {batch} of them (or one for all). "
                f"Received: {len(array)} {name}. Give as many as there are samples."
            )
        if len(array) != batch:
            values[name] = np.broadcast_to(array, (batch, *array.shape[1:]))
    return with_fields(score, values) if values else score


def by_output(score: Any, outputs: Any, names: Sequence[str] | None) -> list[Score]:
    """One score for each flat output.

    Args:
        score: A `Score`, or a list or dict of them, as `as_scores` returns.
        outputs: The model's outputs, in its own structure.
        names: The names of the flat outputs, where the model knows them.

    Raises:
        ValueError: If scores and outputs do not match.
    """
    paths = models.output_paths(outputs)
    known = list(names) if names is not None and len(names) == len(paths) else paths
    if isinstance(score, Mapping):
        unknown = set(score) - set(known) - set(paths)
        if unknown:
            raise ValueError(
                f"Expected scores for outputs named {known}. "
                f"Received: {sorted(unknown)}. Outputs that are not named are left out."
            )
        both = zip(known, paths, strict=True)
        return [score.get(name, score.get(path, InactiveScore())) for name, path in both]
    outputs = paths
    parts = list(score) if isinstance(score, list) else [score]
    if len(parts) > 1 and any(isinstance(part, LayerScore) for part in parts):
        raise ValueError(
            "Expected a LayerScore alone, in the place of scores of the outputs. Received: a list "
            f"of {len(parts)} scores. Pass it as the score itself."
        )
    if len(parts) != len(outputs):
        raise ValueError(
            f"Expected one score for each of the model's {len(outputs)} outputs. Received: "
            f"{len(parts)}. Give a list (or a dict by output name); InactiveScore() leaves one out."
        )
    return parts


def rows(score: Any, start: int, stop: int) -> Any:
    """`score` for the samples from `start` to `stop`."""
    return _map_fields(score, lambda field: field[start:stop])


def filled(score: Any, size: int) -> Any:
    """`score` for as many samples as a model takes at once: that of the last one is repeated."""

    def whole(field: Any) -> Any:
        missing = max(0, size - len(field))
        return np.concatenate([field, np.repeat(np.asarray(field)[-1:], missing, axis=0)])

    return _map_fields(score, whole)


def take(score: Any, indices: tf.Tensor) -> Any:
    """`score` for the samples at `indices`, inside a traced pass."""
    return _map_fields(score, lambda field: tf.gather(field, indices))


def _map_fields(score: Any, function: Callable[[Any], Any]) -> Any:
    def mapped(part: Score) -> Score:
        return with_fields(part, {name: function(each) for name, each in fields(part).items()})

    return keras.tree.map_structure(mapped, score)


def as_objectives(score: ScoreLike, images: int | None, outputs: int) -> tuple[Any, int]:
    """A user's `score` as `Score` objects with one field per image, and the number of images.

    Args:
        score: A unit; a list, range or array of them, one image each; a list of lists: one image
            for the mean of each; a float vector, or one per row: a direction; a `Score` or a
            function; a list or dict of these for several outputs.
        images: How many images are started from, if seeds are given.
        outputs: How many outputs are scored.

    Raises:
        ValueError: If the numbers of scores and of seeds differ.
        TypeError: If it is none of these.
    """
    if score is None:
        raise TypeError(
            "Expected a unit (or several, a Score, or a function of the output) to maximise. "
            "Received: None. An image that is not there yet has no predicted class; give one."
        )
    if isinstance(score, Mapping):
        score = {name: _objective(each) for name, each in score.items()}
    elif outputs > 1 and isinstance(score, list | tuple):
        score = [_objective(each) for each in score]
    else:
        score = _objective(score)
    counts = {
        len(field)
        for part in keras.tree.flatten(score)
        for field in fields(as_scores(part, 1) if not isinstance(part, Score) else part).values()
    }
    count = max([*counts, images or 1])
    return as_scores(score, count, outputs), count


def _objective(score: Any) -> Any:
    if isinstance(score, list | tuple) and score and isinstance(score[0], list | tuple | range):
        return UnitsScore(score)
    if isinstance(score, np.ndarray) and score.dtype.kind == "f":
        return DirectionScore(score)
    if isinstance(score, int | np.integer | list | tuple | range | np.ndarray):
        return CategoricalScore(score)  # type: ignore[arg-type]
    return score
