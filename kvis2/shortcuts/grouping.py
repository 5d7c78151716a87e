"""Maps, and what lies under their heat, in groups that look alike: to read, not to judge by.

A group that is nearly one class alone and whose members are nearly one picture is worth a look: a
corner shows among the maps, a watermark at changing places among the patches, and so does what the
class is of. Which of these it is, the numbers cannot say.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from kvis2.extras import imported

_PATCH = 8  # pixels of a patch for comparing, each way
_PER_CLASS = 3  # groups for each class


class Group(NamedTuple):
    """Maps or patches that look alike.

    Attributes:
        label: The class that has most of its pictures here.
        own: Share of that class' pictures that are here, 0..1.
        rest: Share of the other classes' pictures.
        alike: 1 minus the variance within the group over that of all: 1 is one picture.
        rows: Pictures of that class in the group, the most typical first.
        stands_out: `(own - rest) * alike`, by which groups are ranked.
    """

    label: int
    own: float
    rest: float
    alike: float
    rows: list[int]
    stands_out: float


def groups_of_patches(
    images: NDArray[np.float32],
    cells: NDArray[np.int64],
    labels: NDArray[np.int64],
    grid: tuple[int, int],
    seed: int = 0,
) -> list[Group]:
    """Group what lies under the hottest points, those that stand out first.

    Args:
        images: `(pictures, height, width, channels)`.
        cells: As `hottest_cells` returns them.
        labels: The class of each picture.
        grid: Rows and columns of the cells.
        seed: For the clusters' beginnings.

    Returns:
        Groups, each once, under the class that has most of its pictures in it.

    Raises:
        ValueError: If scikit-learn is missing.

    References:
        Anders et al. (2022), Finding and removing Clever Hans: clusters of what is relevant.
    """
    seen = np.flatnonzero(cells >= 0)
    return _groups(_patches(images[seen], cells[seen], grid), seen, labels, seed)


def groups_of_maps(
    maps: NDArray[np.float32], labels: NDArray[np.int64], seed: int = 0
) -> list[Group]:
    """Group where the heat lies, each map divided by its sum; else as `groups_of_patches`.

    Args:
        maps: `(pictures, rows, columns)`, none below zero. Those without heat are in no group.
        labels: The class of each picture.
        seed: For the clusters' beginnings.

    References:
        Lapuschkin et al. (2019), Unmasking Clever Hans predictors: clusters of heatmaps.
    """
    flat = maps.reshape(len(maps), -1)
    seen = np.flatnonzero(flat.max(axis=1) > 0)
    return _groups(flat[seen] / flat[seen].sum(axis=1, keepdims=True), seen, labels, seed)


def _groups(
    vectors: NDArray[np.float32], seen: NDArray[np.int64], labels: NDArray[np.int64], seed: int
) -> list[Group]:
    """Groups of vectors that look alike; `seen` says of which pictures they are."""
    own_labels = labels[seen]
    classes = np.unique(own_labels)
    count = min(_PER_CLASS * len(classes), len(np.unique(vectors, axis=0)))
    if count < 2:
        return []
    found = _kmeans()(count, n_init=3, random_state=seed).fit(vectors)
    spread = float(vectors.var(axis=0).sum())
    result = []
    for number in range(count):
        inside = found.labels_ == number
        own = {int(c): float(inside[own_labels == c].mean()) for c in classes}
        label = max(own, key=lambda each: own[each])
        rest = float(inside[own_labels != label].mean()) if len(classes) > 1 else 0.0
        alike = max(0.0, 1 - float(vectors[inside].var(axis=0).sum()) / spread)
        members = np.flatnonzero(inside & (own_labels == label))
        distance = np.linalg.norm(vectors[members] - found.cluster_centers_[number], axis=1)
        rows = [int(seen[each]) for each in members[distance.argsort()]]
        stands_out = (own[label] - rest) * alike
        result.append(Group(label, own[label], rest, alike, rows, stands_out))
    return sorted(result, key=lambda group: -group.stands_out)


def _kmeans() -> Any:
    what = "groups of maps, and of what lies under the heat"
    return imported("sklearn.cluster", what, "audit", ", or `groups=False`").KMeans


def _patches(
    images: NDArray[np.float32], cells: NDArray[np.int64], grid: tuple[int, int]
) -> NDArray[np.float32]:
    """The three by three cells around each hottest point, as `(pictures, numbers)`."""
    rows, columns = np.divmod(cells, grid[1])
    boxes = np.stack(
        [(rows - 1) / grid[0], (columns - 1) / grid[1], (rows + 2) / grid[0],
         (columns + 2) / grid[1]], axis=1,
    )  # fmt: skip
    cut = tf.image.crop_and_resize(
        images, boxes.clip(0, 1).astype(np.float32), np.arange(len(images)), (_PATCH, _PATCH)
    )
    return cut.numpy().reshape(len(images), -1)
