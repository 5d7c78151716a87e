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
    pages = engine.Environment(
        loader=engine.FunctionLoader(
            lambda page: files(__name__).joinpath(page).read_text("utf-8")
        ),
        autoescape=True,
        undefined=engine.StrictUndefined,
    )
    return pages.get_template(name).render(**values)
