"""How often the bound that stops hopeless trials is wrong, on a table whose every training is known to its end.

    python -m benchmarks.race.bound benchmarks/tables/digits.parquet

Networks come one after another in random order. A trial is stopped at the first epoch at which
`search.scheduler.Outlook` calls it hopeless; that was wrong if its end would have joined the front of all that was
trained in full before it. A stopped trial teaches nothing, as in a search.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.race.problems import problem
from benchmarks.race.simulator import Problem
from search.config import Schedule
from search.pareto import nondominated
from search.scheduler import Outlook


@dataclass
class Tally:
    """Trials of one order, those that were stopped, those wrongly, and the epochs that stopping saved."""

    trials: int = 0
    stopped: int = 0
    wrong: int = 0
    saved: int = 0


def count(table: Problem, order: Sequence[Any], grace: int) -> Tally:
    """The tally over networks, of what the table's space builds, in this order."""
    outlook = Outlook(table.objectives, {}, table.epochs)
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in table.directions])
    front = np.zeros((0, len(signs)))
    tally = Tally()
    for built in order:
        identity, curve = table.quote(built).identity, table.curve(built)
        tally.trials += 1
        joined = np.vstack((front, signs * curve[-1]))
        keeps = nondominated(joined)
        for epoch, values in enumerate(curve, start=1):
            metrics = dict(zip(table.objectives, values.tolist(), strict=True))
            outlook.note(identity, epoch, metrics)
            if grace <= epoch < table.epochs and outlook.hopeless(epoch, metrics) is not None:
                tally.stopped += 1
                tally.wrong += bool(keeps[-1])
                tally.saved += table.epochs - epoch
                outlook.forget(identity)
                break
        else:
            front = joined[keeps]
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, default=20, help="random orders")
    parser.add_argument("--trials", type=int, default=300, help="networks of each order")
    arguments = parser.parse_args()
    try:
        table = problem(str(arguments.table))
    except ValueError as error:
        parser.error(str(error))
    everything = list(table.space.enumerate())
    found = []
    for seed in range(arguments.seeds):
        random.Random(seed).shuffle(order := everything.copy())
        found.append(count(table, order[: arguments.trials], Schedule().grace))
    trials, stopped = sum(one.trials for one in found), sum(one.stopped for one in found)
    wrong, saved = sum(one.wrong for one in found), sum(one.saved for one in found)
    print(
        f"{arguments.seeds} orders of {arguments.trials} networks: {stopped / trials:.1%} stopped, which saves "
        f"{saved / (trials * table.epochs):.1%} of the epochs; {wrong} of {stopped} stopped trials "
        f"({wrong / max(stopped, 1):.1%}) would have joined the front"
    )


if __name__ == "__main__":
    main()
