"""``lrf-search run CONFIG``: a search from a run file to a front, a report and an export."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results.front import front
from search import folder as layout
from search import study as book
from search.cli.work import add_options, where, work
from search.config import RunConfig, load_run_config
from search.samplers import caveats
from search.session import moved, resolve
from search.storage import open_storage
from spaces.presets import load_space


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="a run file (YAML); every key has a default")
    parser.add_argument(
        "--run-dir", type=Path, default=Path("runs"), help="where run folders are made (default: runs)"
    )
    parser.add_argument(
        "--warm-start",
        nargs="+",
        default=[],
        metavar="RUN",
        help="earlier runs, whose front members are tried early if the space contains them",
    )
    add_options(parser)


def execute(args: argparse.Namespace) -> int:
    place = where(args)
    config = warmed(prepared(load_run_config(args.config)), args.warm_start)
    for caveat in caveats(config, load_space(config.space)):
        print(f"note: {caveat}", file=sys.stderr)
    if config.storage is not None:  # before a folder is made that nothing would come into
        open_storage(config.storage, alone=False)
    folder = layout.create(config, args.run_dir)
    print(f"run folder {folder}; follow it from elsewhere with `lrf-search status {folder}`", file=sys.stderr)
    return work(folder, config, place)


def prepared(config: RunConfig) -> RunConfig:
    """The run file, complete and checked against its data set and its prices, before anything is written."""
    from lrf_models.counters.energy import check, load_profile
    from search import loggers
    from search.data import load
    from search.recipes import training_fields

    loggers.check(config.loggers)
    check(load_profile(config.profile), config.convention)
    data = load(config.data, config.data_dir)
    return resolve(config, data.model_fields(), training_fields(config))


def warmed(config: RunConfig, runs: Sequence[str]) -> RunConfig:
    """A prepared run file with the fronts of earlier runs as candidates to try early.

    At most a quarter of the trials goes to them, taken evenly along the fronts: what was best elsewhere is a guess.

    Raises:
        ValueError: One is no run, has no front, or none of its front lies in the space.
    """
    if not runs:
        return config
    from search.data import load

    space, fields = load_space(config.space), load(config.data, config.data_dir).model_fields()
    found: list[dict[str, Any]] = []
    for run in runs:
        folder = layout.find(run)
        members = front(book.records(folder), layout.load(folder))
        if not members:
            raise ValueError(f"--warm-start {run}: it has no finished trial that keeps its budgets")
        values = moved((record.candidate for record in members if record.candidate), space, fields)
        if not values:
            raise ValueError(f"--warm-start {run}: the space of this run contains none of its front ({len(members)})")
        found += [one for one in values if one not in found]
    room = max(1, config.trials // 4)
    if len(found) > room:
        found = [found[round(i * (len(found) - 1) / max(room - 1, 1))] for i in range(room)]
    return config.model_copy(update={"warm_start": (*config.warm_start, *found)})
