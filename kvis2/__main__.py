"""The command: `kvis2 COMMAND ...`, or `python -m kvis2 COMMAND ...`."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kvis2 import audit, dataset, export, gallery


class Command(NamedTuple):
    """A command, which is offered by a room.

    Attributes:
        help: One line.
        description: What `--help` says before the arguments.
        add_arguments: Adds them to a parser.
        run: Does it, and returns the exit status.
    """

    help: str
    description: str | None
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = {
    "explain": Command(
        "maps, predictions and measures of a whole data set",
        dataset.__doc__,
        dataset.add_arguments,
        dataset.run,
    ),
    "compare": Command(
        "several methods on pictures of a source, by several measures",
        None,
        dataset.add_compare_arguments,
        dataset.run_compare,
    ),
    "audit": Command(
        "classes that are recognised by something that is not the class",
        audit.__doc__,
        dataset.add_audit_arguments,
        dataset.run_audit,
    ),
    "report": Command(
        "the page of what was explained, or of how far two models are apart",
        dataset.report.__doc__,
        dataset.add_report_arguments,
        dataset.run_report,
    ),
    "describe": Command(
        "what is in a model, and what there is to look at",
        None,
        dataset.add_describe_arguments,
        dataset.run_describe,
    ),
    "export": Command(
        "prediction and heatmap in one file: SavedModel, LiteRT, ONNX or OpenVINO",
        export.__doc__,
        dataset.add_export_arguments,
        dataset.run_export,
    ),
    "gallery": Command(
        "every picture of a model and photographs, with one page that shows them",
        gallery.__doc__,
        gallery.add_arguments,
        gallery.run,
    ),
}
"""All commands, in the order in which they are listed."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of kvis2.

    Args:
        arguments: What follows `kvis2`; by default those of the process.

    Returns:
        The exit status: 0, or 1 if something could not be made, or a picture could not be read.
        Wrong arguments, and pictures of which none can be read, exit with 2.
    """
    parser = argparse.ArgumentParser(prog="kvis2")
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    known = {}
    for name, command in COMMANDS.items():
        known[name] = parsers.add_parser(
            name,
            help=command.help,
            description=_said_before_arguments(command.description),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(known[name])
    options = parser.parse_args(arguments)
    chosen = known[options.command]
    try:
        return COMMANDS[options.command].run(options)
    except ValueError as error:
        chosen.error(str(error))
    except OSError as error:  # a full disk, a folder that may not be written to
        print(f"{chosen.prog}: error: could not write: {error}", file=sys.stderr)
        return 1


def _said_before_arguments(documentation: str | None) -> str:
    """What a docstring says before its lists: they are about arguments of Python."""
    return inspect.cleandoc(documentation or "").partition("\n\nArgs:")[0]


if __name__ == "__main__":
    sys.exit(main())
