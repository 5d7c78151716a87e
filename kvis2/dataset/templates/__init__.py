"""The pages, as templates of Jinja2 in which text is never markup."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from kvis2.dataset.optional import jinja2


def rendered(name: str, **values: Any) -> str:
    """A page.

    Args:
        name: The file of its template, beside this one.
        **values: What it shows; a name that it does not get raises.

    Raises:
        ValueError: If jinja2 is not installed.
    """
    engine = jinja2("a page")
    text = files(__name__).joinpath(name).read_text("utf-8")
    pages = engine.Environment(autoescape=True, undefined=engine.StrictUndefined)
    return pages.from_string(text).render(**values)
