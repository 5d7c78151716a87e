"""The probe images of a logger: taken once, before the training, without changing it.

This file is longer than others: every source of probes is read in one place.
"""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kvis2.callbacks.dataset_copies import without_shuffling
from kvis2.images import ClassNames, class_name, displayable

MOST_PROBES = 16
"""How many probe images are taken, where nobody says how many."""


class Probes(NamedTuple):
    """What is explained at every step, and the labels as they were given.

    Attributes:
        images: An array `(batch, ...)`, or a list or dict of them for a model of several inputs.
        labels: One per image, or None.
    """

    images: Any
    labels: np.ndarray | None


def take_probes(images: Any, labels: Any = None, *, max_images: int | None = None) -> Probes:
    """Take the first `max_images` images, once, as arrays of their own.

    Taking a batch must not change the training that follows:

    * a `tf.data.Dataset` is read through a copy without its `shuffle` and `cache` steps, since an
      iterator over `dataset.shuffle(...)` moves on the random numbers that the training would
      have drawn. So the probes are the first images of the unshuffled data, at every run. A
      dataset that calls Python code (`from_generator`, `py_function`) cannot be copied and is
      refused.
    * a `keras.utils.PyDataset` is asked for its first batches by index.
    * a generator is consumed: give the logger one of its own.

    The states of Python's and NumPy's global random generators are put back.

    Args:
        images: `(batch, height, width, channels)` or `(batch, height, width)` as the model takes
            them; for several inputs a dict by name or a list of arrays; a pair `(images, labels)`;
            or a `tf.data.Dataset`, `keras.utils.PyDataset` or generator of these, in batches or
            one by one. What is one and what is a batch is told by the labels, by the open first
            axis of a dataset, and otherwise by the rank: three axes are one picture.
        labels: One per image; for arrays and for sources that yield images alone.
        max_images: How many to take at most, at least 1; None takes 16, and says so where an
            array has more.

    Returns:
        The images and their labels, or None for the labels where there are none.

    Raises:
        ValueError: If there is no image, the labels do not fit, or the dataset cannot be copied.
    """
    warns = max_images is None
    max_images = MOST_PROBES if max_images is None else max_images
    if isinstance(max_images, bool) or not isinstance(max_images, int) or max_images < 1:
        raise ValueError(
            f"Expected max_images to be a whole number of at least 1. Received: {max_images!r}. "
            "It bounds how many probe images are logged."
        )
    with preserved_random_state():
        found, own_labels = _read(images, max_images)
    taken = count_of(found)
    if warns:
        _warn_of_more(images, taken)
    if labels is not None and own_labels is not None:
        raise ValueError(
            "Expected the labels once. Received: labels= and images that bring their own labels. "
            "Leave labels= out."
        )
    if labels is None:
        return Probes(found, own_labels)
    whole = images[0] if isinstance(images, tuple) else images
    is_data = isinstance(whole, list | Mapping) or hasattr(whole, "__array__")
    count = _length(whole) if is_data else taken
    return Probes(found, _labels_for(labels, taken, count))


def count_of(images: Any) -> int:
    """How many probes there are, in an array or a structure of arrays."""
    return len(keras.tree.flatten(images)[0])


def shown_inputs(
    images: Any, display: Callable[[np.ndarray], np.ndarray] | None
) -> dict[int, np.ndarray]:
    """The flat inputs that can be drawn, by their number: images, signals and volumes.

    Args:
        images: The probes.
        display: Undoes the preprocessing of images.
    """
    shown = {}
    for index, each in enumerate(_flattened(images)):
        if each.ndim == 4:
            shown[index] = displayable(each, display)
        elif each.ndim > 2:
            shown[index] = each
    return shown


def class_labels(labels: np.ndarray | None, required: bool) -> np.ndarray | None:
    """Return one class index per label, or None where there are no labels that name classes.

    Args:
        labels: The labels of the probes as they were given.
        required: Whether labels that are no classes are an error.

    Returns:
        int64 `(batch,)`, or None.

    Raises:
        ValueError: If classes are required and the labels are something else.
    """
    classes = None if labels is None else class_indices(labels)
    if labels is not None and classes is None and required:
        raise ValueError(
            "Expected labels that name one class for each image: ints (batch,) or (batch, 1), "
            f"or one-hot (batch, classes). Received: shape {labels.shape} of {labels.dtype}. "
            "Give the images alone; an explanation then needs score=."
        )
    return classes


def class_indices(labels: np.ndarray) -> np.ndarray | None:
    """Return one class index per label, or None where the labels are not classes.

    Args:
        labels: ints `(batch,)` or `(batch, 1)`, or one-hot or smoothed rows `(batch, classes)`.

    Returns:
        int64 `(batch,)`.

    Example:
        >>> class_indices(np.array([[0.0, 1.0], [1.0, 0.0]]))
        array([1, 0])
    """
    if labels.dtype.kind not in "fiub":
        return None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1 and np.all(labels >= 0) and np.array_equal(labels, np.rint(labels)):
        return labels.astype(np.int64)
    if labels.ndim == 2 and np.all(labels >= 0) and np.allclose(labels.sum(axis=1), 1, atol=1e-3):
        return labels.argmax(axis=1)
    return None


def probe_names(
    count: int, labels: np.ndarray | None = None, class_names: ClassNames | None = None
) -> list[str]:
    """Name the probe images for tags, which TensorBoard sorts as text.

    Args:
        count: How many images there are.
        labels: Their class indices.
        class_names: Names by class index.

    Raises:
        ValueError: If a class has no name.

    Example:
        >>> probe_names(2, np.array([1, 0]), ["cat", "dog"])
        ['00 dog', '01 cat']
    """
    digits = max(2, len(str(count - 1)))
    names = [f"{index:0{digits}d}" for index in range(count)]
    if labels is None:
        return names
    classes = [class_name(int(label), class_names) for label in labels]
    return [f"{name} {label}" for name, label in zip(names, classes, strict=True)]


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Put Python's and NumPy's global random generators back where they were."""
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _read(images: Any, max_images: int) -> tuple[Any, np.ndarray | None]:
    if isinstance(images, tf.data.Dataset):
        batched = _is_batched(images.element_spec)
        return _gather(without_shuffling(images), max_images, batched)
    if isinstance(images, keras.utils.PyDataset):
        return _gather(_batches_of(images), max_images, True)
    if isinstance(images, tuple):
        x, y = _pair(images)
        found = _arrays(x, max_images)
        return found, None if y is None else _labels_for(y, count_of(found), _length(x))
    if isinstance(images, list | Mapping) or hasattr(images, "__array__"):
        found = _arrays(images, max_images)
        return found, None
    if isinstance(images, Iterable) and not isinstance(images, str | bytes):
        return _gather(images, max_images, None)
    raise ValueError(
        "Expected images as an array, a dict or list of arrays for several inputs, a pair (images, "
        "labels), a tf.data.Dataset, a keras.utils.PyDataset or a generator. Received: "
        f"{_described(images)}. Give the images as the model takes them."
    )


def _warn_of_more(images: Any, kept: int) -> None:
    whole = images[0] if isinstance(images, tuple) else images
    is_data = isinstance(whole, list | Mapping) or hasattr(whole, "__array__")
    given = _length(whole) if is_data else kept
    if given > kept:
        warnings.warn(
            f"The first {kept} of {given} probe images are logged. Give `max_images={given}` to "
            "log them all, or fewer images.",
            stacklevel=4,
        )


def _length(images: Any) -> int:
    """How many images there are, in what a user gave."""
    if isinstance(images, Mapping):
        return len(next(iter(images.values())))
    return len(images[0]) if _is_several(images) else len(images)


def _is_several(images: Any) -> bool:
    """Whether a list or tuple holds an array for each input, and not one image after the other."""
    if not isinstance(images, list | tuple) or len(images) < 2:
        return False
    shapes = [getattr(each, "shape", None) for each in images]
    known = [tuple(shape) for shape in shapes if shape is not None and len(shape)]
    if len(known) < len(shapes) or len({shape[0] for shape in known}) > 1:
        return False
    return len(set(known)) > 1 or len(known[0]) > 3


def _is_batched(spec: Any) -> bool | None:
    """Whether the elements of a dataset are batches: their first axis is open; None if unsure."""
    x, y = _pair(spec) if isinstance(spec, tuple) else (spec, None)
    shapes = [each.shape for each in keras.tree.flatten(x)]
    if any(shape.rank is None or shape.rank == 0 for shape in shapes):
        return None
    if all(shape[0] is None for shape in shapes):
        labels = [] if y is None else keras.tree.flatten(y)
        scalar = any(each.shape.rank == 0 for each in labels)
        # Images of open size, one by one, have an open first axis too.
        return not scalar and (bool(labels) or shapes[0].rank != 3 or shapes[0][1] is not None)
    labels = [] if y is None else keras.tree.flatten(y)
    return False if any(each.shape.rank == 0 for each in labels) else None


def _batches_of(dataset: keras.utils.PyDataset) -> Iterator[Any]:
    count = dataset.num_batches  # None: endless.
    return (dataset[index] for index in (itertools.count() if count is None else range(count)))


def _is_single(x: Any, y: Any) -> bool:
    """Whether an element of unknown kind is one image, by its label, else by its rank."""
    first = keras.tree.flatten(x)[0]
    shape = np.shape(first)
    if y is not None and not isinstance(y, Mapping | tuple | list):
        if np.ndim(y) == 0:
            return True
        image = len(shape) == 3 and shape[-1] <= 4
        one_hot = np.ndim(y) == 1 and np.asarray(y).dtype.kind == "f" and np.sum(y) == 1
        if len(shape) and len(y) == shape[0]:
            return image and bool(one_hot)
        return True
    return len(shape) <= 3


def _gather(
    elements: Iterable[Any], max_images: int, batched: bool | None
) -> tuple[Any, np.ndarray | None]:
    """Collect from batches, or from single images, until there are enough."""
    images: list[list[np.ndarray]] = []
    labels: list[np.ndarray] = []
    structure: Any = None
    for element in elements:
        x, y = _pair(element)
        single = _is_single(x, y) if batched is None else not batched
        structure = x
        flat = [np.asarray(each) for each in _flattened(x)]
        batch = [
            _array(each[np.newaxis] if single else each, max_images, len(flat) == 1)
            for each in flat
        ]
        images = images or [[] for _ in batch]
        for kept, each in zip(images, batch, strict=True):
            kept.extend(each)
        if y is not None:
            count = 1 if single else len(flat[0])
            labels.extend(_labels_for([y] if single else y, len(batch[0]), count))
        if len(images[0]) >= max_images:
            break
    if not images:
        raise ValueError(
            "Expected at least one probe image. Received: images that yield nothing. Give a "
            "source with data, and a generator that has not been used up."
        )
    count = len(images[0])
    if labels and len(labels) != count:
        raise ValueError(
            f"Expected a label for every image or for none. Received: {len(labels)} labels for "
            f"{count} images. Let every element be (images, labels)."
        )
    arrays = [np.stack(each[:max_images]) for each in images]
    return _packed(structure, arrays), np.stack(labels[:max_images]) if labels else None


def _pair(element: Any) -> tuple[Any, Any]:
    """Split what Keras calls a batch, `images` or `(images, labels[, sample_weights])`."""
    if not isinstance(element, tuple):
        return element, None
    if not 1 <= len(element) <= 3:
        raise ValueError(
            "Expected (images,), (images, labels) or (images, labels, sample_weights). "
            f"Received: a tuple of {len(element)}. Several inputs are a dict by name, or a list or "
            "tuple in the place of the images."
        )
    return element[0], element[1] if len(element) > 1 else None


def _flattened(images: Any) -> list[Any]:
    """The arrays of one input or several, in the order in which Keras flattens them."""
    if isinstance(images, Mapping):
        return [images[name] for name in sorted(images)]
    return list(images) if isinstance(images, tuple) or _is_several(images) else [images]


def _packed(structure: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(structure, Mapping):
        return dict(zip(sorted(structure), arrays, strict=True))
    return arrays if isinstance(structure, tuple) or _is_several(structure) else arrays[0]


def _arrays(images: Any, max_images: int) -> Any:
    """Copies of the first images, in the structure of the inputs."""
    flat = _flattened(images)
    found = [_array(each, max_images, len(flat) == 1) for each in flat]
    if len({len(each) for each in found}) > 1:
        raise ValueError(
            "Expected inputs with the same number of probes. Received: "
            f"{[len(each) for each in found]}. Give as many of each."
        )
    return _packed(images, found)


def _array(images: Any, max_images: int, alone: bool) -> np.ndarray:
    """Copy the first images into an array of their own; vectors only beside other inputs."""
    try:
        array = np.array(images[:max_images])
    except (TypeError, ValueError, KeyError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "fiub" or array.ndim < (3 if alone else 2):
        raise ValueError(
            "Expected probe images as numbers of shape (batch, height, width, channels) or "
            f"(batch, height, width). Received: {_described(images)}. Give one array of images of "
            "one size, also where there is a single image: images[np.newaxis]."
        )
    if not len(array):
        raise ValueError(
            f"Expected at least one probe image. Received: {_described(images)}. Give the images "
            "whose heatmaps you want to see."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(
            "Expected probe images without NaN and infinity. Received: "
            f"{int((~np.isfinite(array)).sum())} such values. Replace them first."
        )
    return array


def _labels_for(labels: Any, wanted: int, images: int) -> np.ndarray:
    """Return the labels of the first images, given those of all."""
    if isinstance(labels, Mapping | tuple):
        raise ValueError(
            "Expected one array of labels. Received: labels of several outputs, "
            f"{type(labels).__name__}. Give the images as an array, and labels= of the output that "
            "you mean."
        )
    array = np.asarray(labels)
    if array.ndim < 1 or len(array) != images:
        raise ValueError(
            f"Expected a label for each of the {images} images. Received: {_described(labels)}. "
            "Give as many labels as images."
        )
    return array[:wanted].copy()


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    size = f" of {len(value)}" if isinstance(value, Sized) else ""
    return f"{type(value).__name__}{size}"
