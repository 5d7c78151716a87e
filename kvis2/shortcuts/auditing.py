"""`audit(model, images, labels)`: which class is recognised by something that is not the class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvis2.explainers import Explainer, GradCAM
from kvis2.images import area_means
from kvis2.passes import Prediction
from kvis2.scores import BinaryScore, CategoricalScore
from kvis2.shortcuts.causes import Answered, Causes, Share, causes
from kvis2.shortcuts.grouping import Group, groups_of_maps, groups_of_patches
from kvis2.shortcuts.places import (
    Place,
    hottest_cells,
    named,
    place_of_each_class,
    region,
)

LEAST = 50
"""Pictures of a class below which nothing is said of it."""
LIFT = 0.6
"""The lift of a place from which it stands out."""
LOSS = 0.3
"""The share of a class' recognised pictures that a suspect's hidden place must lose."""
ALONE = 3.0
"""How many times as much as any other class it must lose."""
TURNED = 0.2
"""Or the share of other classes' pictures that it turns into its class, above that of a control."""

_CELLS = 12  # of the grid, along the longer side


class Finding(NamedTuple):
    """What was found of one class.

    Attributes:
        label: The class.
        name: What it is called.
        pictures: How many there are of it.
        place: Where its heat stands out most.
        where: That place in words.
        box: Its pixels, `[x0, y0, x1, y1]`.
        causes: What hiding and pasting it does; None where it does not stand out.
        suspect: Whether it stands out, and hurts its own class alone or turns others into it.
    """

    label: int
    name: str
    pictures: int
    place: Place
    where: str
    box: tuple[int, int, int, int]
    causes: Causes | None
    suspect: bool


class Audit(NamedTuple):
    """What an audit found; print it.

    Attributes:
        findings: Of each class with pictures enough, suspects first, then by lift.
        too_few: Names of classes with fewer pictures than are needed, and how many they have.
        groups: What lies under the heat, in groups; see `kvis2.shortcuts.Group`.
        map_groups: The maps in groups.
        maps: The maps by which places were found, float32 `(pictures, rows, columns)`.
        names: What the classes are called.
        blank: How many pictures have a map without heat; they are not counted.
        least: How many pictures a class must have.
    """

    findings: list[Finding]
    too_few: dict[str, int]
    groups: list[Group]
    map_groups: list[Group]
    maps: NDArray[np.float32]
    names: list[str]
    blank: int
    least: int

    @property
    def suspects(self) -> list[Finding]:
        """The findings that are suspects."""
        return [each for each in self.findings if each.suspect]

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def sentences(self, most: int = 5) -> list[str]:
        """What there is to say, a sentence for each suspect first."""
        lines = [sentence(each, self.names) for each in self.suspects]
        if not lines:
            lines = [f"No suspect in {len(self.findings)} classes."]
        cleared = [each for each in self.findings if each.causes is not None and not each.suspect]
        lines += [f"Cleared: {sentence(each, self.names)}" for each in cleared[:most]]
        if self.too_few:
            named_few = list(self.too_few.items())
            listed = ", ".join(f"{name} ({count})" for name, count in named_few[:most])
            more = f" and {len(named_few) - most} more" if len(named_few) > most else ""
            lines.append(
                f"Nothing is said of {listed}{more}: fewer than {self.least} pictures each."
            )
        if self.blank:
            lines.append(f"{self.blank} maps have no heat and are not counted.")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        return {
            "suspects": [each.name for each in self.suspects],
            "findings": [
                {
                    **each._asdict(),
                    "place": each.place._asdict(),
                    "causes": each.causes and _numbers(each.causes),
                }
                for each in self.findings
            ],
            "too_few": self.too_few,
            "groups": _typical(self.groups),
            "map_groups": _typical(self.map_groups),
            "blank": self.blank,
            "least": self.least,
        }


def audit(
    model: keras.Model,
    images: ArrayLike,
    labels: ArrayLike,
    explainer: Explainer | None = None,
    *,
    boxes: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    least: int = LEAST,
    groups: bool = True,
    batch_size: int | None = None,
    seed: int = 0,
) -> Audit:
    """Look for classes that a model recognises by something that is not the class.

    For each class, the place where its pictures have their hottest point more often than the
    other classes do; it stands out if its `lift` is .6 or more and its `excess` is above that of
    labels in random order. What stands out is hidden in all pictures, and pasted onto those of
    other classes. A suspect loses .3 or more of the class' recognised pictures when it is
    hidden, and three times what any other class loses. Where boxes say that what is pasted is not
    the object itself, it is one as well if it turns .2 more of the others into the class than the
    same place of yet others does. `docs/audit.md` has what this was measured to find and to miss:
    it finds a shortcut that is at one place, and not one that is at changing places.

    Args:
        model: A classifier of images, with one input.
        images: `(pictures, height, width, channels)`, as the model takes them; some 50 of each
            class or more, best with what it was trained on, or data collected the same way.
        labels: Their classes, ints `(pictures,)`.
        explainer: Makes the maps; `GradCAM(model)` by default.
        boxes: The objects, `(pictures, 4)`, `[x0, y0, x1, y1]` in pixels: no place is pasted
            from one or over one.
        names: What the classes are called.
        least: Pictures that a class must have for something to be said of it.
        groups: Whether maps, and what lies under the heat, are grouped (scikit-learn is needed).
        batch_size: Pictures in one pass.
        seed: For labels in random order, and for which picture is pasted onto which.

    Returns:
        What was found; `print` it, or `report_audit` it as a page.

    Raises:
        ValueError: If the model is no classifier of images, or the data do not fit.

    References:
        Lapuschkin et al. (2019), Unmasking Clever Hans predictors and assessing what machines
        really learn.

    Example:
        >>> print(audit(model, images, labels))
        class seven: 97% of the hottest points of 201 pictures lie in the top left corner, ...
    """
    pictures = np.asarray(images, np.float32)
    classes = _checked(pictures, labels)
    called = _named_classes(names, int(classes.max()))
    explainer = GradCAM(model, batch_size=batch_size) if explainer is None else explainer
    prediction = Prediction(model, batch_size=batch_size)

    def predict(batch: NDArray[np.float32]) -> NDArray[np.int64]:
        return _classes_of(prediction.of(batch))

    said = prediction.of(pictures)
    given = None if boxes is None else np.asarray(boxes, np.float64).reshape(-1, 4)
    answered = Answered(pictures, classes, _classes_of(said), given)
    maps = _maps(explainer, pictures, classes, one_unit=said.outputs[0].shape[1] == 1)
    grid = maps.shape[1], maps.shape[2]
    cells = hottest_cells(maps)
    counts = {int(each): int((classes == each).sum()) for each in np.unique(classes)}
    enough = np.array([each for each, count in counts.items() if count >= least], np.int64)
    places = place_of_each_class(cells, classes, grid, enough, seed)
    findings = []
    for label, place in places.items():
        box = region(place, grid, pictures.shape[1:3])
        out = place.lift >= LIFT and place.excess > place.by_chance
        found = causes(predict, answered, label, box, seed=seed) if out else None
        where = named(place, grid)
        suspect = found is not None and (hurts_alone(found) or turns_others(found))
        findings.append(
            Finding(label, called[label], counts[label], place, where, box, found, suspect)
        )
    findings.sort(key=lambda each: (not each.suspect, -each.place.lift))
    groups = groups and len(enough) > 0
    return Audit(
        findings,
        {called[each]: count for each, count in counts.items() if count < least},
        groups_of_patches(pictures, cells, classes, grid, seed) if groups else [],
        groups_of_maps(maps, classes, seed) if groups else [],
        maps,
        called,
        int((cells < 0).sum()),
        least,
    )


def hurts_alone(found: Causes) -> bool:
    """Whether hiding a place hurts its own class, and no other nearly as much."""
    others = found.others_lost.value if found.others_lost.pictures else 0.0
    return found.lost.pictures > 0 and found.lost.value >= max(LOSS, ALONE * others)


def turns_others(found: Causes) -> bool:
    """Whether pasting a place makes its class of others, and pasting that of others does not.

    Never without boxes: an object that is pasted turns others into its class, as it should.
    """
    if not found.beside_objects or not found.flips.pictures:
        return False
    return found.flips.value - found.control_flips.value >= TURNED


def sentence(found: Finding, names: Sequence[str]) -> str:
    """A finding in words."""
    place, cause = found.place, found.causes
    text = (
        f"class {found.name}: {place.own:.0%} of the hottest points of {found.pictures} pictures "
        f"lie in the {found.where} (of other classes {place.rest:.0%}, by chance at most "
        f"{place.by_chance:.0%} more)"
    )
    if cause is None:
        return f"{text}."
    most = "" if cause.most_hurt is None else f" ({names[cause.most_hurt]})"
    return (
        f"{text}; hiding it loses {cause.lost} of those it recognised, and of another class at "
        f"most {cause.others_lost}{most}; pasting it turns {cause.flips} of the others into "
        f"{found.name}, and pasting that of yet others {cause.control_flips}."
    )


def _checked(images: NDArray[np.float32], labels: ArrayLike) -> NDArray[np.int64]:
    classes = np.asarray(labels)
    if images.ndim != 4:
        raise ValueError(
            "Expected images (pictures, height, width, channels). Received: shape "
            f"{images.shape}. Read them with kvis2.images.read, and stack them."
        )
    if classes.shape != (len(images),) or classes.dtype.kind not in "iu" or (classes < 0).any():
        raise ValueError(
            f"Expected a class for each of {len(images)} images: ints from 0. Received: "
            f"{classes.dtype} of shape {classes.shape}. One-hot labels: labels.argmax(axis=1)."
        )
    return classes.astype(np.int64)


def _named_classes(names: Sequence[str] | None, highest: int) -> list[str]:
    if names is None:
        return [str(each) for each in range(highest + 1)]
    if len(names) <= highest:
        raise ValueError(
            f"Expected a name for each class up to {highest}. Received: {len(names)} names. Give "
            "them in the order of the model's outputs."
        )
    return list(names)


def _classes_of(predicted: Any) -> NDArray[np.int64]:
    values, meaning = predicted.outputs[0], predicted.meanings[0]
    if len(predicted.outputs) > 1 or values.ndim != 2 or meaning.kind in ("labels", "numbers"):
        raise ValueError(
            "Expected a classifier with one output of classes that exclude each other. Received: "
            f"{len(predicted.outputs)} outputs, the first of shape {values.shape} ({meaning}). Cut "
            "the model so that it returns the classes alone."
        )
    if values.shape[1] == 1:
        return (values[:, 0] > (0.0 if meaning.logits else 0.5)).astype(np.int64)
    return values.argmax(axis=1).astype(np.int64)


def _maps(
    explainer: Explainer,
    images: NDArray[np.float32],
    labels: NDArray[np.int64],
    one_unit: bool,
) -> NDArray[np.float32]:
    """The mean heat of each cell for the picture's own class, `(pictures, rows, columns)`."""
    found = []
    for start in range(0, len(images), 256):  # Maps at full size are not all kept.
        rows = slice(start, start + 256)
        own = labels[rows].tolist()
        score: Any = BinaryScore([each > 0 for each in own]) if one_unit else CategoricalScore(own)
        found.append(_means(np.maximum(explainer(score, images[rows]), 0)))
    return np.concatenate(found)


def _means(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = maps.shape[1:]
    cell = max(height, width) / _CELLS
    rows, columns = max(1, round(height / cell)), max(1, round(width / cell))
    return area_means(maps, (rows, columns))


def _typical(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """For JSON, with the first pictures of each group."""
    return [each._replace(rows=each.rows[:9])._asdict() for each in groups]


def _numbers(found: Causes) -> dict[str, Any]:
    return {
        name: _share(value) if isinstance(value, Share) else value
        for name, value in found._asdict().items()
    }


def _share(found: Share) -> dict[str, Any]:
    """For JSON, which has no nan."""
    return {**found._asdict(), "value": found.value if found.pictures else None}
