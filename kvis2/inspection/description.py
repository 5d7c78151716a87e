"""What a person needs to know of a model before they explain it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kvis2 import models
from kvis2.models import Batch, InputRange, Meaning, counted, specifications
from kvis2.passes import UNTRACEABLE, Probe, Survey
from kvis2.scores import FunctionScore


@dataclass(frozen=True)
class Output:
    """One output of a model: name, shape, the softmax or sigmoid that it ends in, its meaning."""

    name: str
    shape: tuple[int | None, ...]
    activation: str | None
    meaning: Meaning


@dataclass(frozen=True)
class Map:
    """A spatial feature map: the path of its layer, its spatial size, and its channels."""

    layer: str
    size: tuple[int | None, ...]
    channels: int | None


@dataclass(frozen=True)
class Description:
    """What a person needs to know of a model before they explain it; `str` of it is the text.

    Attributes:
        name: The model's name.
        kind: "functional", "sequential" or "subclassed".
        parameters: The number of weights.
        inputs: For each input (name, dtype, shape), the batch size None.
        outputs: The outputs.
        activations: How many activations of which name the model computes; None where the
            model runs eagerly only, so that they cannot be counted.
        maps: The feature maps that a CAM can look at, in the order of the pass.
        default: The layer that a CAM looks at if none is named; None if there is none.
        input_range: The range of images that the model expects, as far as its first layers tell.
    """

    name: str
    kind: str
    parameters: int
    inputs: tuple[tuple[str, str, tuple[int | None, ...]], ...]
    outputs: tuple[Output, ...]
    activations: Mapping[str, int] | None
    maps: tuple[Map, ...]
    default: str | None
    input_range: InputRange | None = None

    @classmethod
    def of(cls, model: keras.Model, inputs: Any = None) -> Description:
        """Describe a model; nothing is printed.

        Args:
            model: Any built Keras model. It runs once, forward, in a trace; it is not changed.
            inputs: A batch, for a subclassed model that does not know its inputs.

        Raises:
            ValueError: If the model is not built, or its inputs are not known.

        Example:
            >>> Description.of(keras.applications.VGG16()).default
            'block5_pool'
        """
        models.check_built(model)
        names, arrays, shapes, packing = _inputs(model, inputs)
        survey = _survey(model, arrays, shapes, packing)
        maps = tuple(
            Map(models.layer_path(model, call.layer), tuple(size), _channels(model, call))
            for call, size in zip(survey.calls, survey.sizes, strict=True)
        )
        dtypes = [each.dtype.name for each in arrays]
        return cls(
            name=model.name,
            kind=_kind(model),
            parameters=model.count_params(),
            inputs=tuple(zip(names, dtypes, shapes, strict=True)),
            outputs=_outputs(model, survey),
            activations=dict(counted(survey.operations)) if survey.operations else None,
            maps=maps,
            default=maps[-1].layer if maps else None,
            input_range=models.input_range(model),
        )

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.name}: {self.kind} model, {self.parameters:,} parameters",
                *_section("inputs", self._input_lines()),
                *_section(
                    "outputs", [line for each in self.outputs for line in _output_lines(each)]
                ),
                *_section("activations", [self._activation_line()]),
                *_section("maps", self._map_lines()),
            ]
        )

    def _repr_html_(self) -> str:
        """The text as a notebook shows it: its headings bold, in letters of one width."""
        lines = [html.escape(line) for line in str(self).splitlines()]
        shown = [line if line.startswith(" ") else f"<b>{line}</b>" for line in lines]
        return f"<pre>{chr(10).join(shown)}</pre>"

    def _input_lines(self) -> list[str]:
        listed = [f"{name}  {dtype} {_shape(shape)}" for name, dtype, shape in self.inputs]
        expects = [] if self.input_range is None else [f"expects values in {self.input_range}"]
        return [*listed, *expects]

    def _activation_line(self) -> str:
        if self.activations is None:
            return "not counted (the model runs eagerly only, so GuidedReLU cannot change them)"
        listed = ", ".join(f"{count} {name}" for name, count in self.activations.items()) or "none"
        reached = sum(self.activations.get(name, 0) for name in ("relu", "relu6"))
        return f"{listed} (GuidedReLU and DeconvReLU reach {reached or 'none'})"

    def _map_lines(self) -> list[str]:
        """The last map of every run of one size, and how many more there are."""
        pairs = zip(self.maps, [*self.maps[1:], None], strict=False)
        last = [each for each, after in pairs if after is None or after.size != each.size]
        shown = list(dict.fromkeys(last))
        if not shown:
            return ["none: a CAM needs `layer=` and `reshape=` (see kvis2.token_grid)"]
        width = max(len(each.layer) for each in shown)
        lines = [
            f"{each.layer:<{width}}  {_size((*each.size, each.channels))}"
            + ("  <- default" if each.layer == self.default else "")
            for each in shown
        ]
        more = len(set(self.maps)) - len(shown)
        return [*lines, *([f"({more} more in `.maps`)"] if more else [])]


def describe(model: keras.Model, inputs: Any = None) -> Description:
    """Print what a person needs to know of `model` before they explain it, and return it.

    `Description.of` does the same without printing.

    Args:
        model: Any built Keras model. It runs once, forward, in a trace; it is not changed.
        inputs: A batch, for a subclassed model that does not know its inputs.

    Returns:
        A `Description`, whose text is what was printed.

    Raises:
        ValueError: If the model is not built, or its inputs are not known.

    Example:
        >>> description = describe(keras.applications.VGG16())
        vgg16: functional model, 138,357,544 parameters
          inputs       keras_tensor  float32 (batch, 224, 224, 3)
          outputs      predictions  (batch, 1000), ends in a softmax (explained before it)
                       classes, by the softmax at its end
          activations  15 relu (GuidedReLU and DeconvReLU reach 15)
          maps         block1_conv2  224 x 224 x 64
                       block2_conv2  112 x 112 x 128
                       block3_conv3  56 x 56 x 256
                       block4_conv3  28 x 28 x 512
                       block5_conv3  14 x 14 x 512
                       block5_pool   7 x 7 x 512  <- default
                       (12 more in `.maps`)
        >>> description.default
        'block5_pool'
    """
    found = Description.of(model, inputs)
    print(found)
    return found


def _inputs(
    model: keras.Model, inputs: Any
) -> tuple[list[str], list[np.ndarray], list[tuple[int | None, ...]], Any]:
    """Names, one sample, declared shapes and packing of the model's flat inputs."""
    declared = specifications(model)
    if inputs is None and declared is None:
        raise ValueError(
            "Expected a batch of inputs for a model that does not know its own. Received: "
            f"'{model.name}' alone. Call `describe(model, images)`."
        )
    if inputs is not None:
        batch = Batch(model, inputs)
        names = [each.name for each in declared or ()] or _names(len(batch.shapes))
        arrays = batch.rows(0, 1)
        return names, arrays, [(batch.fixed, *each.shape[1:]) for each in arrays], batch.packing
    assert declared is not None
    fixed = models.fixed_batch(model)
    shapes = [(fixed, *getattr(each, "built_with", each.shape)[1:]) for each in declared]
    arrays = [
        np.zeros((fixed or 1, *(size or 32 for size in shape[1:])), each.dtype or "float32")
        for each, shape in zip(declared, shapes, strict=True)
    ]
    return [each.name for each in declared], arrays, shapes, 0


def _names(count: int) -> list[str]:
    return ["input"] if count == 1 else [f"input {index}" for index in range(count)]


def _survey(
    model: keras.Model,
    arrays: Sequence[np.ndarray],
    shapes: Sequence[tuple[int | None, ...]],
    packing: Any,
) -> Survey:
    """One forward pass, in a graph where the model can be traced."""
    found: list[Survey] = []
    score = FunctionScore(_sum)
    count = models.output_count(model)

    def run(*tensors: tf.Tensor) -> None:
        probe = Probe(model, models.LAST_SPATIAL, packing=packing)
        found.append(probe.survey([score] * count if count > 1 else score, list(tensors)))

    specs = [tf.TensorSpec(shape, each.dtype) for shape, each in zip(shapes, arrays, strict=True)]
    try:
        tf.function(run, input_signature=specs, autograph=False).get_concrete_function()
    except UNTRACEABLE:
        found.clear()
        run(*map(tf.constant, arrays))
    return found[-1]


def _sum(output: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(output, tf.float32), list(range(1, output.shape.rank)))


def _kind(model: keras.Model) -> str:
    if isinstance(model, keras.Sequential):
        return "sequential"
    return "functional" if models.input_structure(model) is not None else "subclassed"


def _channels(model: keras.Model, call: Any) -> int | None:
    output = call.output
    while isinstance(output, tuple):
        output = output[0]
    first = models.data_format(model, call.layer) == "channels_first"
    return output.shape[1 if first else -1]


def _outputs(model: keras.Model, survey: Survey) -> tuple[Output, ...]:
    names = models.output_names(model) or [
        "output" if len(survey.outputs) == 1 else f"output {index}"
        for index in range(len(survey.outputs))
    ]
    return tuple(
        Output(name, (None, *output.shape[1:]), activation, meaning)
        for name, output, activation, meaning in zip(
            names, survey.outputs, survey.activations, survey.meanings, strict=True
        )
    )


def _output_lines(output: Output) -> list[str]:
    end = {
        None: "no final softmax or sigmoid",
        "softmax": "ends in a softmax (explained before it)",
        "sigmoid": "ends in a sigmoid (explained before it)",
    }[output.activation]
    return [f"{output.name}  {_shape(output.shape)}, {end}", str(output.meaning)]


def _shape(shape: Sequence[int | None]) -> str:
    return f"({', '.join(['batch', *('any' if n is None else str(n) for n in shape[1:])])})"


def _size(size: Sequence[int | None]) -> str:
    return " x ".join("any" if each is None else str(each) for each in size)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"  {title if i == 0 else '':<12} {line}" for i, line in enumerate(lines)]
