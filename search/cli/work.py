"""What ``run`` and ``resume`` share: a session on a run folder, its progress, and what a finished run leaves."""

from __future__ import annotations

import argparse
import logging
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results.describe import describe, show
from results.front import front, table
from search import folder as layout
from search import runner
from search import study as book
from search.config import RunConfig
from search.confirm import confirm
from search.engine import Search
from search.objective import TrainingObjective, evaluate_test
from search.record import Record
from search.session import open_search, priced_by
from spaces.config import load_mapping


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help="a Ray cluster: auto or HOST:PORT (default: this machine)",
    )
    parser.add_argument(
        "--runtime-env",
        type=Path,
        metavar="FILE",
        help="YAML with Ray's runtime_env of the workers, such as py_modules: [./search, ./spaces]",
    )
    parser.add_argument(
        "--confirm",
        type=int,
        default=0,
        metavar="N",
        help="train the members of the final front with N fresh seeds, and report means and intervals",
    )


@dataclass(frozen=True)
class Where:
    """Where the trials run, what their workers are sent, and how many fresh seeds the front gets.

    From the command line only: a run folder that someone hands over must not bring code along.
    """

    address: str | None
    runtime_env: dict[str, Any]
    confirm: int = 0


def where(args: argparse.Namespace) -> Where:
    """The options of `add_options`, checked before anything is written.

    Raises:
        ValueError: They cannot work, or the environment is not safe.
    """
    runner.check(args.address)
    if args.confirm and args.confirm < 2:
        raise ValueError(f"--confirm >= 2 must hold, or there is no interval, but got {args.confirm}")
    environment = load_mapping(args.runtime_env) if args.runtime_env is not None else {}
    return Where(args.address, environment, args.confirm)


def work(folder: Path, config: RunConfig, place: Where) -> int:
    """Search until the run is finished, then evaluate, report and export. Returns the exit code."""
    logging.basicConfig(format="%(message)s")
    with layout.locked(folder) as owner:
        progress = Progress(config)
        search = open_search(config, folder, owner, priced_by(config), progress)
        layout.write_run_file(folder, config)
        layout.note_session(folder)
        progress.search = search
        if not search.finished:
            with runner.connected(config.resources, place.address, runtime_env=place.runtime_env):
                runner.run(search, TrainingObjective(config), folder, config, cluster=place.address is not None)
        if not search.finished:
            print(f"interrupted; go on with: lrf-search resume {folder}", file=sys.stderr)
            return 1
        if search.exhausted is not None:
            print(f"ended after {search.used} of {config.trials} trials: {search.exhausted}", file=sys.stderr)
        if place.confirm:
            repeat_seeds(folder, config, place)
        return finish(folder, config)


def repeat_seeds(folder: Path, config: RunConfig, place: Where) -> None:
    """Confirm the front; what was trained before is taken from where it lies."""

    def members() -> list[Record]:
        return front(book.records(folder), config)

    if {record.identity for record in members()} <= book.confirmed(folder):
        return
    trials = layout.trials_address(folder, config)
    with runner.connected(config.resources, place.address, runtime_env=place.runtime_env):
        confirm(
            members,
            place.confirm,
            lambda identity: f"{trials}/{identity}",
            lambda tasks: runner.train_all(tasks, TrainingObjective(config), config.resources),
            lambda identity, repeats: book.store_repeats(folder, identity, repeats),
            lambda: book.confirmed(folder),
        )


def finish(folder: Path, config: RunConfig) -> int:
    """Evaluate the front on the test part, write the report, export one configuration. Returns the exit code."""
    from results.export import export  # with the report the heaviest imports: a run starts without them
    from results.report import write_report

    records = book.records(folder)
    members = front(records, config)
    if not members:
        print(f"no front: {table(records, config)}", file=sys.stderr)
        with suppress(ValueError):
            print(f"report  {write_report(folder)}")
        return 1
    for record in members:
        if record.test is None and record.candidate is not None:
            address = f"{layout.trials_address(folder, config)}/{record.identity}"
            book.store_test(folder, record.identity, evaluate_test(config, record.candidate, address))
    print(f"\n{table(book.records(folder), config)}\n")
    print(f"report  {write_report(folder)}")
    print(f"export  {export(folder, 'knee', force=True)}")
    return 0


class Progress:
    """Prints one line per trial that is over."""

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._over = 0
        self.search: Search | None = None

    def __call__(self, record: Record) -> None:
        if record.status == "rejected" or self.search is None:
            return
        values = [
            f"{name.partition('_')[0]} {show(name, record.metrics[name])}"
            for name in self._config.objectives
            if name in record.metrics
        ]
        network = describe(record.candidate) if record.candidate is not None else ""
        note = record.reason or ", ".join(values)
        done = self.search.used - self.search.running
        width = len(str(self._config.trials))
        print(f"{done:>{width}}/{self._config.trials}  {record.status:<10}  {network:<60}  {note}", flush=True)
