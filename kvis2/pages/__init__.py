"""The pages that commands write: one template each, with one head and one style."""

from kvis2.pages.rendering import rendered

__all__ = ["rendered"]
