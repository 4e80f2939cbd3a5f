"""``lrf-search report RUN``."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from results.front import front, table
from results.report import write_report
from results.report.tables import as_rows
from search import folder as layout
from search.study import records


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder, or the name of a run in runs/; it may still be running")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=10.0,
        metavar="SECONDS",
        help="write the report again whenever the run got on, until every trial has ended; the page reloads itself",
    )
    parser.add_argument("--format", choices=["text", "json"], default="text")


def execute(args: argparse.Namespace) -> int:
    folder = layout.find(args.run)
    if args.watch is not None and not args.watch > 0:
        raise ValueError(f"--watch needs more than 0 seconds, but got {args.watch:g}")
    page = _watch(folder, args.watch) if args.watch else write_report(folder)
    run, found = layout.load(folder), records(folder)
    if args.format == "json":
        print(json.dumps({"report": str(page), "front": as_rows(found, run)}, indent=2))
        return 0
    print(table(found, run))
    print(f"\n{len(front(found, run))} on the front of {len(found)} trials: {page}")
    return 0


def _watch(folder: Path, seconds: float) -> Path:
    """Write the report until the run is over; Ctrl-C ends it with a page that no longer reloads itself."""
    run = layout.load(folder)
    before = -1
    try:
        while True:
            found = records(folder)
            ended = [record for record in found if record.status not in ("running", "waiting")]
            if len(ended) != before and any(record.status == "complete" for record in ended):
                print(f"{len(ended)} of {run.trials} trials: {write_report(folder, refresh=seconds)}", flush=True)
                before = len(ended)
            if len(ended) >= run.trials and len(ended) == len(found):
                break
            time.sleep(seconds)
    except KeyboardInterrupt:
        print()
    return write_report(folder)
