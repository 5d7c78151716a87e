"""Which parameters of a test the default run tries: the first ones; CI tries all."""

from collections.abc import Iterable
from typing import Any

import pytest


def rest_slow(values: Iterable[Any], keep: int = 1) -> list[Any]:
    """The values for `parametrize`, those after the first `keep` marked slow.

    A tuple holds one value for each of several names.
    """
    values = list(values)
    return values[:keep] + [_slow(value) for value in values[keep:]]


def _slow(value: Any) -> Any:
    if isinstance(value, type(pytest.param())):
        return pytest.param(*value.values, marks=[*value.marks, pytest.mark.slow], id=value.id)
    arguments = value if isinstance(value, tuple) else (value,)
    return pytest.param(*arguments, marks=pytest.mark.slow)
