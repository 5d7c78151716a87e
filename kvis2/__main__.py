"""`python -m kvis2 gallery MODEL IMAGE... --out DIR`: see `kvis2.gallery`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kvis2 import gallery


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of kvis2.

    Args:
        arguments: What follows `python -m kvis2`; by default those of the process.

    Returns:
        The exit status: 0, or 1 if something could not be made, or a picture could not be read.
        Wrong arguments, and pictures of which none can be read, exit with 2.
    """
    parser = argparse.ArgumentParser(prog="python -m kvis2")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "gallery",
        help="every picture of a model and photographs, with one page that shows them",
        description=gallery.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    gallery.add_arguments(command)
    options = parser.parse_args(arguments)
    try:
        return gallery.run(options)
    except ValueError as error:
        command.error(str(error))
    except OSError as error:  # a full disk, a folder that may not be written to
        print(f"{command.prog}: error: could not write: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
