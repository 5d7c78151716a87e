"""`kvis2 report`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvis2.dataset.page import report


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `kvis2 report`."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="written by kvis2 explain")
    parser.add_argument(
        "other", metavar="OTHER", type=Path, nargs="?",
        help="of the same pictures and another model: how far their maps are apart",
    )  # fmt: skip
    parser.add_argument("--most", type=int, default=100_000, metavar="N",
                        help="pictures on the page at most; %(default)s")  # fmt: skip


def run_report(options: argparse.Namespace) -> int:
    """Write the page.

    Args:
        options: As `add_report_arguments` reads them.

    Returns:
        0.

    Raises:
        ValueError: If a folder has no explanations.
    """
    sys.stdout.write(f"{report(options.folder, options.other, most=options.most)}\n")
    return 0
