"""The command line: the one place that sees the whole project.

Exit codes: 0 done, 1 the job failed, 2 bad input (one sentence on standard error, no traceback).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

# Command → module with ``configure(parser)`` and ``execute(args) -> int``. A module is imported when its command is
# used, so that ``status`` does not wait for torch.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("search.cli.run", "start a search from a run file"),
    "resume": ("search.cli.resume", "go on with a run that was interrupted, or make it longer"),
    "status": ("search.cli.status", "how far a run is"),
    "report": ("search.cli.report", "write the Pareto-front report of a run"),
    "export": ("search.cli.export", "export configurations of a run"),
    "compare": ("search.cli.compare", "fronts of several runs in one picture, hypervolume in one box"),
    "dashboard": ("search.cli.dashboard", "open the study of a run in optuna-dashboard, on this machine only"),
    "train": ("search.cli.train", "train one configuration in full"),
    "evaluate": ("search.cli.evaluate", "measure exported weights on a data set"),
    "count": ("search.cli.count", "operations, energy and memory of a model"),
    "show": ("search.cli.show", "a search space: its parameters, conditions and size"),
}


def _sentence(error: ValueError) -> str:
    from pydantic import ValidationError  # its own text has several lines

    from spaces.config import explain

    return explain(error) if isinstance(error, ValidationError) else str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="lrf-search",
        description="Find the best spiking transformer for a device: accuracy-memory-energy Pareto fronts.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if arguments and arguments[0] == name:
            importlib.import_module(module).configure(command)
    args = parser.parse_args(arguments)
    try:
        code: int = importlib.import_module(COMMANDS[args.command][0]).execute(args)
    except ValueError as error:  # the law of the house: ValueError is what a user gave
        print(f"lrf-search {args.command}: {_sentence(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except OSError as error:  # the input was right; the cluster was not there, or the disk stayed full
        print(f"lrf-search {args.command}: {error}", file=sys.stderr)
        return 1
    return code
