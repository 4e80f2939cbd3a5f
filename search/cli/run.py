"""``lrf-search run CONFIG``: a search from a run file to a front, a report and an export."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from search import folder as layout
from search.cli.work import add_options, where, work
from search.config import RunConfig, load_run_config
from search.session import resolve


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="a run file (YAML); every key has a default")
    parser.add_argument(
        "--run-dir", type=Path, default=Path("runs"), help="where run folders are made (default: runs)"
    )
    add_options(parser)


def execute(args: argparse.Namespace) -> int:
    place = where(args)
    config = prepared(load_run_config(args.config))
    folder = layout.create(config, args.run_dir)
    print(f"run folder {folder}; follow it from elsewhere with `lrf-search status {folder}`", file=sys.stderr)
    return work(folder, config, place)


def prepared(config: RunConfig) -> RunConfig:
    """The run file, complete and checked against its data set, before anything is written."""
    from search import loggers
    from search.data import load
    from search.recipes import training_fields

    loggers.check(config.loggers)
    data = load(config.data, config.data_dir)
    return resolve(config, data.model_fields(), training_fields(config))
