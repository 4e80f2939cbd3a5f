"""What a search costs beside its trainings: the start, and every trial.

    python -m benchmarks.overhead                   trainings of the small space on digits
    python -m benchmarks.overhead --sleep 2         trials that sleep: what Ray, the engine and the journal cost

One worker, so that trials follow each other. On an idle machine only: it measures time.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search import folder as layout
from search import runner
from search import study as book
from search.cli.run import prepared
from search.config import RunConfig
from search.objective import Objective, Outcome, Report, TrainingObjective
from search.record import Epoch
from search.session import open_search, priced_by
from spaces.config import Candidate


@dataclass(frozen=True)
class Sleeping:
    """A trial of so many seconds."""

    seconds: float

    def __call__(self, candidate: Candidate, folder: str, report: Report) -> Outcome:
        time.sleep(self.seconds)
        metrics = {"accuracy": 0.5, "energy_mj": 1.0, "memory_kib": 1.0}
        report(Epoch(epoch=1, metrics=metrics, seconds=self.seconds))
        return Outcome(status="complete", metrics=metrics)


def age() -> float:
    """Seconds since this process started."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


class Clock:
    """Notes when and for how long the driver is in the search."""

    def __init__(self) -> None:
        self.calls: dict[str, list[tuple[float, float]]] = {}

    def timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        noted = self.calls.setdefault(name, [])

        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                noted.append((start, time.perf_counter() - start))

        return call

    def total(self) -> float:
        return sum(spent for calls in self.calls.values() for _, spent in calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--sleep", type=float, metavar="SECONDS", help="do not train, sleep")
    args = parser.parse_args()
    config = prepared(
        RunConfig.model_validate(
            {
                "name": "overhead",
                "trials": args.trials,
                "epochs": args.epochs,
                "sampler": {"name": args.sampler},
                "schedule": {"enabled": False},
                "resources": {"concurrent": 1},
            }
        )
    )
    objective: Objective = TrainingObjective(config) if args.sleep is None else Sleeping(args.sleep)
    clock, began = Clock(), time.perf_counter() - age()
    with tempfile.TemporaryDirectory() as scratch:
        folder = layout.create(config, Path(scratch))
        search = open_search(config, folder, "0", priced_by(config))
        for name in ("next", "report", "finish", "tick"):
            setattr(search, name, clock.timed(name, getattr(search, name)))
        with runner.connected(config.resources):
            connected = time.perf_counter()
            runner.run(search, objective, folder, config)
        records = [record for record in book.records(folder) if record.history]
    ends = [start for start, _ in clock.calls["finish"]]
    inside = np.array([record.seconds for record in records])
    trained = np.array([sum(epoch.seconds for epoch in record.history) for record in records])
    between = np.diff(ends) - inside[1:]
    first = clock.calls["report"][0][0] - records[0].history[0].seconds
    print(f"start-up: Ray after {connected - began:.1f} s, the first epoch after {first - began:.1f} s")
    print(
        f"{len(records)} trials, of {np.median(trained):.2f} s of training; after the first, per trial (median, max):"
    )
    for what, values in (
        ("driver, Ray and journal", between),
        ("worker beside the epochs", (inside - trained)[1:]),
        ("both", between + (inside - trained)[1:]),
    ):
        print(f"  {what:<26} {np.median(values):.3f} s  {values.max():.3f} s")
    for name, calls in clock.calls.items():
        spent = [seconds for _, seconds in calls]
        print(f"  search.{name:<8} {len(spent):>5} calls  {sum(spent) / len(records) * 1e3:>8.1f} ms a trial")
    share = clock.total() / len(records) / 10
    print(f"suggest, price and tell: {share:.2%} of a run with one worker whose trials take 10 s")


if __name__ == "__main__":
    main()
