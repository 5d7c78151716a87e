"""What a gallery is of: a model, a photograph, and how much is computed for them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import keras
import numpy as np
from numpy.typing import NDArray

from kvis2 import models
from kvis2.gallery.input_space import InputSpace
from kvis2.inspection import Map, kernels
from kvis2.parametrizations import Fourier, Standardized
from kvis2.scores import LayerScore

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is computed for the gallery.

    Args:
        steps: Steps of every optimisation; None is what each recipe takes by itself.
        samples: Noisy copies of an image for SmoothGrad.
        path: Points on the path of integrated gradients.
        channels: Channels that Score-CAM tries; None is all of them.
        depths: Layers shown of LayerCAM and filters; inversions show half as many again.
        filters: Filters shown of each layer.
        frames: Most pictures in an animation; four times as many filters.
    """

    steps: int | None = None
    samples: int = 50
    path: int = 100
    channels: int | None = None
    depths: int = 4
    filters: int = 3
    frames: int = 16


QUICK = Effort(steps=8, samples=4, path=8, channels=16, depths=2, filters=1, frames=3)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is shown: a model, and a photograph unless the model itself is shown.

    Args:
        model: The model.
        space: Its input space.
        size: Height and width of its input.
        labels: The classes to explain; of a photograph there is one.
        maps: Its spatial feature maps, in the order of the pass.
        effort: How much is computed.
        recipe: "kvis2", or "original" for the settings of pytorch-cnn-visualizations.
        colormap: Of the class activation maps.
        layers: Layers shown in the place of those chosen by depth.
        picture: The photograph, uint8 `(height, width, channels)`, in the size of the input.
        original: The photograph in its own size.
        names: Of the classes, where they are known.
    """

    model: keras.Model
    space: InputSpace
    size: tuple[int, int]
    labels: tuple[int, ...]
    maps: tuple[Map, ...]
    effort: Effort = Effort()
    recipe: str = "kvis2"
    colormap: str = "turbo"
    layers: tuple[str, ...] = ()
    picture: Any = None
    original: Any = None
    names: tuple[str, ...] = ()

    @property
    def label(self) -> int:
        """The class that is explained."""
        return self.labels[0]

    @functools.cached_property
    def batch(self) -> NDArray[np.float32]:
        """The photograph as the model takes it, `(1, height, width, channels)`."""
        return self.space.encode(self.picture[None])

    def named(self, label: int) -> int | str:
        """A class with its name, where that is known."""
        return f"{label} {self.names[label]}" if self.names else label

    def outputs(self, batch: NDArray[np.float32]) -> NDArray[np.float64]:
        """The mean over all places of the first output of the model, `(units,)`."""
        whole = models.Batch(self.model, batch).whole(batch)
        # A model of one input may have been built to take it in a list, or a dict.
        given = keras.tree.map_structure(lambda _: whole, models.input_structure(self.model))
        outputs = models.flat_outputs(self.model(given, training=False))
        first = np.asarray(outputs[0], np.float64)[: len(batch)]
        return first.reshape(-1, first.shape[-1]).mean(axis=0)

    def output(self, batch: NDArray[np.float32], label: int) -> float:
        """What the model says of a class; of a model with one unit, that unit."""
        outputs = self.outputs(batch)
        return round(float(outputs[min(label, len(outputs) - 1)]), 3)

    def pictures(self, found: Any) -> NDArray[np.uint8]:
        """uint8 pictures of images that were optimised, in the structure of the model's input."""
        return self.space.decode(keras.tree.flatten(found)[0])

    def depths(self, count: int) -> list[str]:
        """Feature maps at `count` depths: the last of each size, the smallest sizes."""
        if self.layers:
            return list(self.layers)
        last = {each.size: each.layer for each in self.maps}
        return list(last.values())[-count:]

    def convolutions(self, count: int) -> list[str]:
        """Convolutions at `count` depths from the first to the last; any maps without them."""
        if self.layers:
            return list(self.layers)
        paths = list(dict.fromkeys(each.layer for each in self.maps))
        kinds = (keras.layers.Conv2D, keras.layers.SeparableConv2D)
        found = [path for path in paths if isinstance(self.layer(path), kinds)]
        return evenly(found or paths, count)

    def layer(self, path: str) -> keras.Operation:
        """The layer of a path."""
        return models.find_layer(self.model, path)

    def filter_count(self, path: str) -> int:
        """How many channels a feature map has."""
        channels = next((each.channels for each in self.maps if each.layer == path), None)
        if channels is None:
            raise ValueError(
                "Expected a spatial feature map that the score depends on. Received: "
                f"'{path}'. Choose among {', '.join(each.layer for each in self.maps[-8:])}."
            )
        return channels

    def filters(self, path: str, count: int) -> list[int]:
        """At most `count` filters of a layer, evenly spread over those that are alive.

        A filter is dead whose kernel is less than 1e-5 of the longest in the layer; if all are,
        and of a layer without kernels, each counts as alive.
        """
        total = self.filter_count(path)
        alive = list(range(total))
        if hasattr(self.layer(path), "kernel") or hasattr(self.layer(path), "depthwise_kernel"):
            values = kernels(self.layer(path))
            lengths = np.linalg.norm(values.reshape(len(values), -1), axis=1)
            if len(lengths) == total and lengths.max() > 0:
                alive = np.flatnonzero(lengths > 1e-5 * lengths.max()).tolist()
        return [alive[place] for place in middles(len(alive), count)]

    def response(self, path: str, filters: int | Sequence[int]) -> LayerScore:
        """The response of filters, before the activation that is fused into their layer."""
        activation = getattr(self.layer(path), "activation", None)
        fused = activation not in (None, keras.activations.linear)
        return LayerScore(path, filters, pre_activation=fused)

    @property
    def follows_original(self) -> bool:
        """Whether the settings are those of pytorch-cnn-visualizations."""
        return self.recipe == "original"

    def steps(self, default: int) -> int:
        """The number of steps of an optimisation."""
        return self.effort.steps or default

    def fourier(self) -> Fourier:
        """The coordinates in which kvis2 optimises images by default."""
        return Fourier(decorrelate="bgr" if self.space.blue_first else True)

    def ascent(self, preset: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of a preset, in the colours and the range of this model."""
        chart = preset["parametrization"]
        assert isinstance(chart, Standardized)
        chart = dataclasses.replace(
            chart,
            offset=self.space.in_order(chart.offset),
            scale=self.space.in_order(chart.scale),
        )
        return {**preset, "parametrization": chart, **self.image}

    @property
    def image(self) -> dict[str, Any]:
        """Range and shape of an image, as gradient ascent takes them."""
        return {"input_range": self.space.bounds, "shape": (*self.size, self.space.channels)}


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, evenly spread from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def middles(total: int, count: int) -> list[int]:
    """At most `count` of `total` filters, evenly spread away from both ends."""
    places = (np.arange(count) + 0.5) * total / count
    return list(dict.fromkeys(int(place) for place in places))
