"""What a model's features become while it trains: loggers of its filters and feature maps."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kvis2 import models
from kvis2.ascent import ActivationMaximization
from kvis2.callbacks.feature_sheets import color_bar, color_limits, feature_sheet
from kvis2.callbacks.pictures import Observation, PictureLogger
from kvis2.callbacks.probe_images import class_labels, probe_names, take_probes
from kvis2.callbacks.writers import Picture
from kvis2.images import (
    ClassNames,
    at_least_one,
    color_table,
    colorize,
    displayable,
    signal,
)
from kvis2.inspection import activations, kernels, planes
from kvis2.types import LayerReference

_ASCENT = {"steps": 32, "seed": 0}
_SERIES_COLUMNS = 2  # curves are wide


class FeatureLogger(PictureLogger):
    """Base of the loggers that look into layers: which layers, and which of their channels.

    Args:
        log_dir: The directory that TensorBoard is started with.
        layers: A layer at any depth (name, path, index or object), or a list of them; by default
            the first and the last convolution of the model.
        **options: `every`, `unit`, `run`, `save_dir` and `on_error`, as for `PictureLogger`.

    Attributes:
        shown: For each layer, by its path, the channels that are shown, in ascending order. They
            are chosen at the first logged step of a training and kept, so that steps compare.

    Raises:
        ValueError: If `layers` is empty, or an option is not as described.
    """

    _watched: dict[str, keras.Operation]

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        layers: LayerReference | Sequence[LayerReference] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(log_dir, **options)
        if layers is not None and not isinstance(layers, list | tuple):
            layers = [layers]
        if layers is not None and not layers:
            raise ValueError(
                "Expected at least one layer. Received: none. Leave `layers` out for the first and "
                "the last convolution."
            )
        self.layers: Sequence[LayerReference] | None = layers

    def watched(self) -> Mapping[str, keras.Operation]:
        """The layers that are looked at, by their paths in the model."""
        if not self._watched:
            self._watched = _layers(self.model, self.layers)
        return self._watched

    def chosen(self, path: str, strengths: np.ndarray, count: int) -> np.ndarray:
        """The channels of a layer that are shown: at the first step the strongest ones.

        Args:
            path: The layer's path.
            strengths: How strong each channel is now, `(channels,)`.
            count: How many are shown at most.
        """
        if path not in self.shown:
            self.shown[path] = np.sort(np.argsort(-strengths, kind="stable")[:count])
        return self.shown[path]

    def _reset(self) -> None:
        super()._reset()
        self.shown: dict[str, np.ndarray] = {}
        self._watched = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the layers of the model as well."""
        return {**super().__getstate__(), "_watched": {}}


class FilterLogger(FeatureLogger):
    r"""Log the filters of layers while they are learned.

    At every logged step each layer gets a picture of its kernels in TensorBoard, under a tag such
    as `Filters/block1_conv1`. A weight w has the colour of `w / s`, where s, the layer's largest
    magnitude at the step, is written below: all filters of a layer have one scale, and 0 is its
    middle. Kernels over three channels are shown in colour with 0 as mid-grey, one tile for each
    filter; others as a row for each filter with a tile for each input channel.

    With `maximize` the images that the same filters want to see come as a second picture,
    `Maximized/block1_conv1`, in the same order. All of them are optimised at once, from the same
    noise at every step, in a loop that is compiled once.

    Args:
        log_dir: The directory that TensorBoard is started with.
        layers: Layers with a kernel, as for `FeatureLogger`.
        filters: How many filters of a layer are shown at most: those whose kernels have the
            largest L2 norm at the first logged step.
        inputs: How many input channels of a kernel are shown at most, the first ones.
        colormap: Any diverging colormap of matplotlib, for kernels that are not shown in colour.
        maximize: True adds the maximised filters; a dict, which a function of `kvis2.presets`
            returns, adds them with these arguments of `ActivationMaximization`. Without them 32
            steps are taken, with seed 0. A model that does not declare its input needs
            `{"shape": (height, width, channels)}`.
        input_range: Lowest and highest value of the images that the model is trained on, such as
            `(0, 1)`; black and white of the maximised filters. Needed with `maximize`.
        **options: The further fields of `Log`: `every`, `unit`, `run`, `save_dir`, `on_error`.

    Attributes:
        shown: For each layer, by its path, the filters that are shown.

    Raises:
        ValueError: If an argument is not as described.
        OSError: At the start of the training, if `log_dir` cannot be written to.

    Example:
        >>> logger = FilterLogger("logs", ["early", "late"], maximize=True, input_range=(0, 1))
        >>> model.fit(x, y, epochs=10, callbacks=[logger])
    """

    default_run = "kvis2_filters"
    _ascents: dict[str, ActivationMaximization]

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        layers: LayerReference | Sequence[LayerReference] | None = None,
        *,
        filters: int = 32,
        inputs: int = 16,
        colormap: str = "seismic",
        maximize: bool | Mapping[str, Any] = False,
        input_range: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(log_dir, layers, **options)
        color_table(colormap)
        self.filters = at_least_one(filters, "filters")
        self.inputs = at_least_one(inputs, "inputs")
        self.colormap = colormap
        self.maximize = maximize
        self._ascent: dict[str, Any] = {}
        if maximize is not False:
            self._ascent = _ascent_options({} if maximize is True else maximize, input_range)

    def observe(self, step: int) -> Observation:
        """Draw the kernels of every layer, and what they want to see."""
        pictures = []
        for path, layer in self.watched().items():
            pictures.append(Picture(f"Filters/{path}", self._kernels(path, layer)))
            if self._ascent:
                pictures.append(Picture(f"Maximized/{path}", self._maximized(path, layer)))
        return Observation(pictures)

    def _kernels(self, path: str, layer: keras.Operation) -> np.ndarray:
        values = kernels(layer)
        shown = self.chosen(
            path, np.linalg.norm(values.reshape(len(values), -1), axis=1), self.filters
        )
        tiles = planes(values[shown])
        colored = tiles.shape[-1] == 3
        colormap = "gray" if colored else self.colormap
        limits = color_limits(values, signed=True)
        if colored:
            return feature_sheet(displayable(tiles, limits), bar=color_bar(*limits, colormap))
        columns = min(self.inputs, tiles.shape[-1])
        painted = [
            colorize(tile[..., channel], colormap, limits)
            for tile in tiles
            for channel in range(columns)
        ]
        return feature_sheet(
            painted, columns if columns > 1 else None, bar=color_bar(*limits, colormap)
        )

    def _maximized(self, path: str, layer: keras.Operation) -> np.ndarray:
        if path not in self._ascents:
            self._ascents[path] = ActivationMaximization(self.model, layer, **self._ascent)
        ascent = self._ascents[path]
        images = ascent(self.shown[path].tolist())
        if not isinstance(images, np.ndarray) or images.ndim != 4:
            raise ValueError(
                "Expected a model with one input of images, to show what maximises its filters. "
                f"Received: '{self.model.name}'. Leave `maximize` out."
            )
        low, high = np.asarray(ascent.ranges[0], np.float32)
        return feature_sheet(displayable((images - low) / (high - low), (0.0, 1.0)))

    def _reset(self) -> None:
        super()._reset()
        self._ascents = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the compiled ascents as well."""
        return {**super().__getstate__(), "_ascents": {}}


class ActivationLogger(FeatureLogger):
    r"""Log the feature maps of the same images, from epoch to epoch.

    At every logged step each probe image gets a picture for each layer in TensorBoard, under a
    tag such as `Activations/block1_conv1/00 cat`: the image, and the maps of the channels that
    are written below them. An activation a has the colour of `a / s`, where s, the largest
    magnitude of the layer's shown channels over all probe images at the step, is written below:
    dark is 0 and bright is s, or, where a value is negative, the middle is 0. Maps over one axis,
    of a Conv1D, are drawn as curves over the same colours.

    Args:
        log_dir: The directory that TensorBoard is started with.
        images: The probe images as the model takes them, taken once, now: as for
            `kvis2.callbacks.take_probes`.
        labels: Their classes, which name the tags: ints `(batch,)` or `(batch, 1)`, or one-hot
            `(batch, classes)`.
        layers: Layers with feature maps, as for `FeatureLogger`.
        channels: How many channels of a layer are shown at most: those whose maps vary most,
            by their standard deviation over all probe images at the first logged step.
        class_names: Names by class index.
        display: Function that undoes the preprocessing of an image, for showing it.
        colormap: Any colormap of matplotlib, for layers without negative values.
        signed_colormap: Any diverging colormap, for the others.
        batch_size: How many images go through the model at once; None chooses by their size.
        max_images: How many probe images are taken at most, the first ones.
        **options: The further fields of `Log`: `every`, `unit`, `run`, `save_dir`, `on_error`.

    Attributes:
        images: The probe images.
        labels: Their classes, or None.
        shown: For each layer, by its path, the channels that are shown.

    Raises:
        ValueError: If an argument is not as described.
        OSError: At the start of the training, if `log_dir` cannot be written to.

    Example:
        >>> logger = ActivationLogger("logs", x_test[:4], y_test[:4], layers="late", channels=9)
        >>> model.fit(x, y, epochs=10, callbacks=[logger])
    """

    default_run = "kvis2_activations"

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        images: Any,
        labels: Any = None,
        *,
        layers: LayerReference | Sequence[LayerReference] | None = None,
        channels: int = 16,
        class_names: ClassNames | None = None,
        display: Callable[[np.ndarray], np.ndarray] | None = None,
        colormap: str = "viridis",
        signed_colormap: str = "seismic",
        batch_size: int | None = None,
        max_images: int = 16,
        **options: Any,
    ) -> None:
        super().__init__(log_dir, layers, **options)
        color_table(colormap)
        color_table(signed_colormap)
        self.images, given = take_probes(images, labels, max_images=max_images)
        self.labels = class_labels(given, required=labels is not None)
        self.channels = at_least_one(channels, "channels")
        self.class_names = class_names
        self.display = display
        self.colormap = colormap
        self.signed_colormap = signed_colormap
        self.batch_size = batch_size
        grey = self.images.ndim == 3
        self._shown = displayable(self.images[..., np.newaxis] if grey else self.images, display)
        self._names = probe_names(len(self.images), self.labels, class_names)

    def observe(self, step: int) -> Observation:
        """Draw the feature maps of every probe image in every layer."""
        pictures: list[Picture] = []
        for path, layer in self.watched().items():
            maps = self._maps(path, layer)
            signed = bool(maps.min() < 0)
            limits = color_limits(maps, signed)
            colormap = self.signed_colormap if signed else self.colormap
            bar = color_bar(*limits, colormap)
            captions = ["image", *map(str, self.shown[path])]
            for index, (name, own) in enumerate(zip(self._names, maps, strict=True)):
                channels = np.moveaxis(own, -1, 0)
                if channels.ndim == 2:
                    drawn = [signal(c, c, colormap=colormap, limits=limits) for c in channels]
                else:
                    drawn = list(colorize(channels, colormap, limits))
                tiles = [self._probe(index, is_series=channels.ndim == 2), *drawn]
                columns = _SERIES_COLUMNS if channels.ndim == 2 else None
                sheet = feature_sheet(tiles, columns, captions=captions, bar=bar)
                pictures.append(Picture(f"Activations/{path}/{name}", sheet))
        return Observation(pictures)

    def _probe(self, index: int, is_series: bool) -> np.ndarray:
        """The picture of a probe: a series, `(length, channels)`, is drawn as its lines."""
        if not (is_series and self.images.ndim == 3):
            return self._shown[index]
        values = self.images[index]
        return signal(values, np.zeros(len(values), np.float32), colormap="gray_r")

    def _maps(self, path: str, layer: keras.Operation) -> np.ndarray:
        """The maps that are shown of one layer, `(batch, [height,] width, channels)`."""
        maps = activations(self.model, layer, self.images, batch_size=self.batch_size)
        if maps.ndim not in (3, 4):
            raise ValueError(
                "Expected layers with feature maps (batch, height, width, channels) or (batch, "
                f"length, channels). Received: '{path}', whose output has the shape {maps.shape}. "
                "Choose a convolution over one or two axes."
            )
        axes = tuple(range(maps.ndim - 1))
        shown = self.chosen(path, maps.std(axis=axes, dtype=np.float64), self.channels)
        return maps[..., shown]


def _layers(
    model: keras.Model, references: Sequence[LayerReference] | None
) -> dict[str, keras.Operation]:
    """The layers meant, by path: without references the first and the last convolution."""
    if references is not None:
        found = [models.find_layer(model, reference) for reference in references]
        return {models.layer_path(model, layer): layer for layer in found}
    convolutions = [
        (path, layer)
        for path, layer in models.walk(model)
        if isinstance(layer, models.CONVOLUTIONS)
    ]
    if not convolutions:
        raise ValueError(
            f"Expected a model with a convolution. Received: '{model.name}', which has none. Name "
            "the layers to look at with `layers=`."
        )
    return dict([convolutions[0], convolutions[-1]])


def _ascent_options(given: Mapping[str, Any], input_range: Any) -> dict[str, Any]:
    """The arguments of `ActivationMaximization`, checked as far as they can be without a model."""
    options = {**_ASCENT, **given}
    if input_range is not None:
        options["input_range"] = input_range
    unknown = set(options) - set(inspect.signature(ActivationMaximization).parameters)
    if unknown or options.keys() & {"model", "layer"}:
        wrong = sorted(unknown | (options.keys() & {"model", "layer"}))
        raise ValueError(
            "Expected maximize to be True or options of ActivationMaximization. Received: "
            f"{', '.join(map(repr, wrong))}. The layers are those of the logger."
        )
    if "input_range" not in options:
        raise ValueError(
            "Expected input_range with maximize, the lowest and highest value of the images that "
            "the model is trained on. Received: None. Give for example input_range=(0, 1)."
        )
    return options
