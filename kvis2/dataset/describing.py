"""`kvis2 describe`: what is in a model, and what there is to look at."""

from __future__ import annotations

import argparse

from kvis2.gallery import add_loading_arguments, load_model
from kvis2.inspection import describe


def add_describe_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `kvis2 describe`."""
    add_loading_arguments(parser)


def run_describe(options: argparse.Namespace) -> int:
    """Describe a model.

    Args:
        options: As `add_describe_arguments` reads them.

    Returns:
        0.

    Raises:
        ValueError: If no model can be loaded.
    """
    model, _ = load_model(options.model, options.random_weights, trust=options.trust)
    describe(model)
    return 0
