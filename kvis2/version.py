"""The version of kvis2."""

__version__ = "0.1.0"
