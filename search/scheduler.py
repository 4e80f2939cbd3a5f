"""Early stopping with several objectives: asynchronous successive halving by violation, rank and spread.

At every rung (grace·reduction^i epochs) a trial is compared with all trials that have been there, on the objectives
as they stood at that same epoch: the firing rate of a spiking network, hence its energy, rises during training, so
numbers of different epochs say nothing about each other. Only plain Python here; the Ray adapter is in searcher.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from search.config import Bound, Schedule
from search.metrics import METRICS, priced_metrics
from search.pareto import crowding, ranks
from search.record import Record


def rungs(schedule: Schedule, epochs: int) -> list[int]:
    """The epochs at which trials are compared: below ``epochs``, where nothing is left to save."""
    levels: list[int] = []
    level = schedule.grace
    while schedule.enabled and level < epochs:
        levels.append(level)
        level *= schedule.reduction
    return levels


def minimised(objectives: Sequence[str], metrics: Mapping[str, float]) -> list[float] | None:
    """The objectives as numbers to be minimised; None if one is missing or not finite."""
    values = [metrics.get(name, math.nan) for name in objectives]
    if not all(math.isfinite(value) for value in values):
        return None
    return [
        -value if METRICS[name].direction == "maximize" else value
        for name, value in zip(objectives, values, strict=True)
    ]


def violation(budgets: Mapping[str, Bound], metrics: Mapping[str, float]) -> float:
    """By how much the budgets are exceeded in total, each relative to its limit."""
    total = 0.0
    for name, bound in budgets.items():
        if (amount := bound.violation(metrics.get(name, math.nan))) > 0:
            limit = bound.max if bound.max is not None else bound.min
            total += amount / max(abs(limit or 0.0), 1e-12)
    return total


class Halving:
    """The rungs of one run.

    Args:
        objectives: Names of metrics (search/metrics.py).
        budgets: Bounds; a trial that breaks them less goes first.
        schedule: Grace period and reduction.
        epochs: Epochs of a full training.
    """

    def __init__(
        self, objectives: Sequence[str], budgets: Mapping[str, Bound], schedule: Schedule, epochs: int
    ) -> None:
        self.levels = rungs(schedule, epochs)
        self._objectives = tuple(objectives)
        self._budgets = dict(budgets)
        self._reduction = schedule.reduction
        self._rungs: dict[int, dict[str, list[float]]] = {level: {} for level in self.levels}

    def report(self, identity: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Note where a trial stands after an epoch; False if it should stop.

        It goes on if it is among the best 1/reduction of those that reached this rung so far. One whose objectives
        are not all known is not judged.
        """
        rung = self._rungs.get(epoch)
        point = minimised(self._objectives, metrics)
        if rung is None or point is None:
            return True
        rung[identity] = [violation(self._budgets, metrics), *point]
        place = self._order(np.array(list(rung.values())))[list(rung).index(identity)]
        return bool(place < math.ceil(len(rung) / self._reduction))

    def _order(self, table: np.ndarray) -> np.ndarray:
        """The place of each row [violation, objectives…]: 0 for the best."""
        levels = np.unique(table[:, 0], return_inverse=True)[1]
        rank = ranks(table[:, 1:])
        spread = np.zeros(len(table))
        for level, front in {(a, b) for a, b in zip(levels.tolist(), rank.tolist(), strict=True)}:
            same = (levels == level) & (rank == front)
            spread[same] = crowding(table[same, 1:])
        order = np.lexsort((-spread, rank, levels))
        places = np.empty(len(table), dtype=np.int64)
        places[order] = np.arange(len(table))
        return places

    def rebuild(self, records: Iterable[Record]) -> None:
        """Fill the rungs from the trials of an earlier session."""
        for record in records:
            exact = priced_metrics(record.cost) if record.cost is not None else {}
            if record.status == "duplicate":
                continue
            for epoch in record.history:
                if epoch.epoch in self._rungs:
                    self.report(record.identity, epoch.epoch, {**exact, **epoch.metrics})
