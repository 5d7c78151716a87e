"""The version of kvis2."""

__version__ = "0.2.0"
