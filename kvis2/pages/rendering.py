"""The pages, as templates of Jinja2 in which text is never markup."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import jinja2


def rendered(name: str, **values: Any) -> str:
    """A page.

    Args:
        name: The file of its template, beside this one.
        **values: What it shows; a name that it does not get raises.
    """
    return _templates().get_template(name).render(**values)


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: files(__package__).joinpath(name).read_text("utf-8")
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
