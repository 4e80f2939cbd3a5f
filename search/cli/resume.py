"""``lrf-search resume RUN``: go on with a run that was interrupted, or make a finished one longer."""

from __future__ import annotations

import argparse

from search import folder as layout
from search import study as book
from search.cli.work import add_options, where, work


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder, or the name of a run in runs/")
    parser.add_argument("--trials", type=int, metavar="N", help="train N candidates in all (default: as before)")
    add_options(parser)


def execute(args: argparse.Namespace) -> int:
    place = where(args)
    folder = layout.find(args.run)
    config = layout.load(folder)
    if args.trials is not None:
        if args.trials < 1:
            raise ValueError(f"trials >= 1 must hold, but got {args.trials}")
        config = config.model_copy(update={"trials": args.trials})
        if (done := len(book.over(book.records(folder)))) > args.trials:
            raise ValueError(f"trials >= {done}, which are over already, must hold, but got {args.trials}")
    return work(folder, config, place)
