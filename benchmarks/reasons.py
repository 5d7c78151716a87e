"""Why kvis2 is not where it is to be, for the rows where that is so.

Keys are case names, `Case.name`, or such a name and a peer, "GradCAM vgg16 b8 / captum". A key
without the batch, or without the model, speaks for all of them.
"""

from __future__ import annotations

REASONS: dict[str, str] = {}


def reason(case_name: str, rival: str | None = None) -> str:
    """The reason on record: the longest key that the case starts with."""
    suffix = f" / {rival}" if rival else ""
    fitting = [key for key in REASONS if _fits(key, case_name, suffix)]
    return REASONS[max(fitting, key=len)] if fitting else "not looked into yet"


def _fits(key: str, case_name: str, suffix: str) -> bool:
    if not suffix:
        return " / " not in key and f"{case_name} ".startswith(f"{key} ")
    return key.endswith(suffix) and f"{case_name} ".startswith(key.removesuffix(suffix) + " ")
