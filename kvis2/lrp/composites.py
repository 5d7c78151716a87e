"""Which layer gets which rule: by name, by depth, by kind."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any

import keras

from kvis2 import models
from kvis2.lrp.rules import AlphaBeta, Bound, Epsilon, Flat, Gamma, Pass, Rule, ZBox, ZPlus
from kvis2.traced import Traced

_ATTENTION = ("softmax", "detached")

_REGISTERED: dict[type, Rule] = {
    keras.layers.BatchNormalization: Pass(),
    keras.layers.LayerNormalization: Pass(),
    keras.layers.GroupNormalization: Pass(),
    keras.layers.UnitNormalization: Pass(),
    keras.layers.Normalization: Pass(),
    keras.layers.Rescaling: Pass(),
}
if hasattr(keras.layers, "RMSNormalization"):  # Keras 3.9
    _REGISTERED[keras.layers.RMSNormalization] = Pass()


def register(layer_class: type, rule: Rule) -> None:
    """Give all layers of a class, and of its subclasses, a rule, in every composite.

    The entries of a composite come first, so a composite can still say otherwise.

    Args:
        layer_class: A subclass of `keras.Layer` or `keras.Operation`. The layers inside such a
            layer are left to it: relevance goes from its output to its inputs by this rule.
        rule: The rule, for instance `Pass()`, `Epsilon()` or an instance of a subclass of `Rule`.

    Example:
        >>> lrp.register(Swiglu, lrp.Epsilon())
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Operation)):
        raise TypeError(
            f"Expected a class of Keras layers. Received: {layer_class!r}. For one layer of a "
            "model give the composite an entry with its name."
        )
    _REGISTERED[layer_class] = _checked(rule)


class Composite(Traced):
    """Which rule each layer gets; the first of these that fits: name, depth, class, kind.

    Only convolution and dense layers need a choice. All else has one way: activations and
    normalisations pass relevance on, sums and averages share it in proportion to what they add,
    max pooling gives it to the winner, a gate gives it all to the signal that it scales, and
    what only moves values moves their relevance.

    Args:
        dense: The rule of Dense and EinsumDense layers.
        convolution: The rule of convolutions of every kind.
        first: The rule of the layers with no convolution or dense layer between them and the
            input; None treats them like the others.
        layers: Rules by layer name or path, which may hold wildcards (`"backbone/stem_*"`), or
            by layer class. A name fits before a class.
        depths: Rules by depth: how many convolution and dense layers a value has passed on the
            longest way from the input, so 0 is nearest the input, -1 nearest the output. A key
            is an int or a range (`range(0, 5)`).
        attention: "softmax" shares relevance between attention weights and values, half each
            (Achtibat et al. 2024); "detached" holds the weights constant, so that values
            get all of it and relevance is conserved (Ali et al. 2022).

    References:
        Kohlbrenner et al. (2020), Towards Best Practice in Explaining Neural Network Decisions
        with LRP.
        Achtibat et al. (2024), AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for
        Transformers.

    Example:
        >>> Composite(convolution=Gamma(0.25), first=Flat(), layers={"head/*": Epsilon(0.1)})
    """

    def __init__(
        self,
        dense: Rule | None = None,
        convolution: Rule | None = None,
        *,
        first: Rule | None = None,
        layers: Mapping[str | type, Rule] | None = None,
        depths: Mapping[int | range, Rule] | None = None,
        attention: str = "softmax",
    ) -> None:
        if attention not in _ATTENTION:
            raise ValueError(
                f"Expected `attention` to be one of {', '.join(map(repr, _ATTENTION))}. "
                f"Received: {attention!r}. 'detached' conserves relevance."
            )
        self.dense = _checked(Epsilon() if dense is None else dense)
        self.convolution = _checked(Epsilon() if convolution is None else convolution)
        self.first = None if first is None else _checked(first)
        entries = list((layers or {}).items())
        self.names = tuple((k, _checked(v)) for k, v in entries if isinstance(k, str))
        self.classes = tuple((k, _checked(v)) for k, v in entries if not isinstance(k, str))
        self.depths = tuple((k, _checked(rule)) for k, rule in (depths or {}).items())
        self.attention = attention
        for key, _ in self.classes:
            if not isinstance(key, type):
                raise TypeError(
                    "Expected the keys of `layers` to be names, paths or layer classes. "
                    f"Received: {key!r}. Use the name of the layer."
                )

    def validate(self, model: keras.Model) -> None:
        """Raise if a name or pattern of this composite fits no layer of `model`."""
        layers = list(models.walk(model))
        for pattern, _ in self.names:
            if any(_fits(pattern, path, layer) for path, layer in layers):
                continue
            if not set("*?[") & set(pattern):
                models.find_layer(model, pattern)  # Raises, with the close names.
            raise ValueError(
                "Expected the composite's patterns to fit a layer. Received: "
                f"{pattern!r}, which fits none of '{model.name}'. Patterns fit names or paths."
            )

    def validate_depths(self, levels: int) -> None:
        """Raise if a depth of this composite is none of a model with so many `levels`."""
        for key, _ in self.depths:
            if not set(_range(key, levels)) & set(range(levels)):
                raise ValueError(
                    f"Expected depths from 0 to {levels - 1}, or -1 to {-levels} from the output. "
                    f"Received: {key!r}. Depth counts convolution and dense layers only."
                )

    def own_rule(self, path: str, layer: keras.Operation) -> Rule | None:
        """The rule that this composite has for a layer by its name or class."""
        for pattern, rule in self.names:
            if _fits(pattern, path, layer):
                return rule
        for kind, rule in self.classes:
            if isinstance(layer, kind):
                return rule
        return None

    def rule(self, path: str, layer: keras.Operation) -> Rule | None:
        """The rule of a layer that is neither a convolution nor dense; None if it has none."""
        return self.own_rule(path, layer) or registered_rule(layer)

    def linear_rule(self, path: str, layer: keras.Operation, depth: int, levels: int) -> Rule:
        """The rule of a convolution or dense layer.

        Args:
            path: Where the layer is in the model.
            layer: The layer.
            depth: Its depth.
            levels: How many depths the model has.
        """
        for pattern, rule in self.names:
            if _fits(pattern, path, layer):
                return rule
        for key, rule in self.depths:
            if depth in _range(key, levels):
                return rule
        if depth == 0 and self.first is not None:
            return self.first
        rule = self.rule(path, layer)  # type: ignore[assignment]
        if rule is not None:
            return rule
        return self.convolution if isinstance(layer, models.CONVOLUTIONS) else self.dense


class EpsilonPlus(Composite):
    """`Epsilon` in dense layers, `ZPlus` in convolutions.

    Args:
        epsilon: As for `Epsilon`.
        **options: As for `Composite`.
    """

    def __init__(self, epsilon: float = 1e-6, **options: Any) -> None:
        super().__init__(Epsilon(epsilon), ZPlus(), **options)


class EpsilonPlusFlat(Composite):
    """`Epsilon` in dense layers, `ZPlus` in convolutions, `Flat` nearest the input.

    Args:
        epsilon: As for `Epsilon`.
        **options: As for `Composite`.
    """

    def __init__(self, epsilon: float = 1e-6, **options: Any) -> None:
        super().__init__(Epsilon(epsilon), ZPlus(), **{"first": Flat(), **options})


class EpsilonAlpha2Beta1(Composite):
    """`Epsilon` in dense layers, `AlphaBeta(2, 1)` in convolutions.

    Args:
        epsilon: As for `Epsilon`.
        **options: As for `Composite`.
    """

    def __init__(self, epsilon: float = 1e-6, **options: Any) -> None:
        super().__init__(Epsilon(epsilon), AlphaBeta(2, 1), **options)


class EpsilonGammaBox(Composite):
    """`Epsilon` in dense layers, `Gamma` in convolutions, `ZBox` nearest the input.

    Args:
        low: As for `ZBox`.
        high: As for `ZBox`.
        epsilon: As for `Epsilon`.
        gamma: As for `Gamma`.
        **options: As for `Composite`.
    """

    def __init__(
        self,
        low: Bound = None,
        high: Bound = None,
        epsilon: float = 1e-6,
        gamma: float = 0.25,
        **options: Any,
    ) -> None:
        options = {"first": ZBox(low, high), **options}
        super().__init__(Epsilon(epsilon), Gamma(gamma), **options)


class GammaEverywhere(Composite):
    """`Gamma` in every layer with weights, as in pytorch-cnn-visualizations (gamma 0.05).

    Args:
        gamma: As for `Gamma`.
        epsilon: As for `Gamma`.
        **options: As for `Composite`.
    """

    def __init__(self, gamma: float = 0.05, epsilon: float = 1e-9, **options: Any) -> None:
        rule = Gamma(gamma, epsilon)
        super().__init__(rule, rule, **options)


def registered_rule(layer: keras.Operation) -> Rule | None:
    """The rule registered for the class of a layer, the nearest base class first.

    An activation passes relevance on, unless it is one that classifiers end in.
    """
    found = next((_REGISTERED[each] for each in type(layer).__mro__ if each in _REGISTERED), None)
    kind = models.kind_of_layer(layer) if isinstance(layer, keras.Layer) else None
    return Pass() if found is None and kind is not None and kind.final is None else found


def registered() -> tuple[tuple[type, Rule], ...]:
    """All registered rules."""
    return tuple(_REGISTERED.items())


def _fits(pattern: str, path: str, layer: keras.Operation) -> bool:
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(layer.name, pattern)


def _range(key: int | range, levels: int) -> range:
    if isinstance(key, range):
        return key
    start = key if key >= 0 else levels + key
    return range(start, start + 1)


def _checked(rule: Rule) -> Rule:
    if isinstance(rule, type) or not isinstance(rule, Rule):
        raise TypeError(
            f"Expected a rule such as Epsilon() or Pass(). Received: {rule!r}. A rule of your own "
            "is an instance of a subclass of kvis2.lrp.Rule."
        )
    return rule
