"""Which class a label means: by its number, by its name, or by the order of the folders."""

from __future__ import annotations

from collections.abc import Sequence


class Classes:
    """Turns labels as they were found into numbers of the model's classes.

    * Names of the classes, where given, decide: a label that is one of them is that class.
    * A label that is a whole number is that class.
    * Else, if there are as many different labels as classes, they are these in alphabetical order,
      as `keras.utils.image_dataset_from_directory` has them.
    * Else a label stays a word, and nothing is called wrong by it.

    Args:
        labels: All labels of the source; "" is none.
        names: The names of the classes in the order of the model's outputs, or none.
        units: How many classes the model has.
    """

    def __init__(self, labels: Sequence[str], names: Sequence[str], units: int) -> None:
        found = sorted(set(labels) - {""})
        self.units = units
        self.names = tuple(names)
        self._numbers = {name: number for number, name in reversed(list(enumerate(names)))}
        unknown = [each for each in found if each not in self._numbers and not each.isdigit()]
        if not names and len(found) == units and unknown:
            self._numbers = {name: number for number, name in enumerate(found)}
            self.names = tuple(found)

    def number(self, label: str) -> int | None:
        """The class of a label; None where it is not one of the model's."""
        if label in self._numbers:
            return self._numbers[label]
        if label.isdigit() and int(label) < self.units:
            return int(label)
        return None

    def named(self, number: int | None) -> str:
        """The name of a class, or its number where it has none; "" for None."""
        if number is None:
            return ""
        return self.names[number] if number < len(self.names) else str(number)
