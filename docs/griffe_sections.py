"""For the site: the section that docstrings call "Example:" is read as code, like "Examples:"."""

import re
from typing import Any

import griffe


class ExampleSections(griffe.Extension):
    """Rename the heading before docstrings are parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.M
            )
