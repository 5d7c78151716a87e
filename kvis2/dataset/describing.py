"""`kvis2 describe`: what is in a model, and what there is to look at."""

from __future__ import annotations

import argparse

from kvis2.gallery import load_model
from kvis2.inspection import describe


def add_describe_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `kvis2 describe`."""
    parser.add_argument(
        "model", metavar="MODEL", help="a .keras or .h5 file, or a name in keras.applications"
    )
    parser.add_argument("--random-weights", action="store_true", help="for a keras.applications")
    parser.add_argument(
        "--trust", action="store_true", help="run the code of a model file, as of its Lambda layers"
    )


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
