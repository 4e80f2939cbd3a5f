"""Early stopping with several objectives: asynchronous successive halving by violation, rank and spread.

At every rung (grace·reduction^i epochs) a trial is compared with all trials that have been there, on the objectives
as they stood at that same epoch: the firing rate of a spiking network, hence its energy, rises during training, so
numbers of different epochs say nothing about each other. Between rungs a trial is stopped only if it is hopeless: not
even the best course that any training has taken from here would bring it to the front (`Outlook`). Only plain Python
here; the Ray adapter is in searcher.py.
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


LESSONS = 9
"""Complete trainings before a course counts as the best there is: one more beats all of n with chance 1/(n + 1)."""


class Outlook:
    """What a trial can still reach: exact costs as they are, the rest as if it went on as well as any trial did.

    The distance of a measured objective to its optimum (error for accuracy) is multiplied by the smallest factor
    between this epoch and the end among all complete trials, each objective by itself.
    """

    def __init__(self, objectives: Sequence[str], budgets: Mapping[str, Bound], epochs: int) -> None:
        self._objectives = tuple(objectives)
        self._names = tuple(dict.fromkeys((*objectives, *budgets)))
        self._budgets = dict(budgets)
        self._epochs = epochs
        self._curves: dict[str, dict[int, dict[str, float]]] = {}
        self._complete: dict[str, dict[str, float]] = {}

    def note(self, identity: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take note of where a trial stands; after the last epoch it teaches the others."""
        known = {name: metrics[name] for name in self._names if math.isfinite(metrics.get(name, math.nan))}
        self._curves.setdefault(identity, {})[epoch] = known
        if epoch >= self._epochs and len(known) == len(self._names):
            self._complete[identity] = known

    def best(self, epoch: int, metrics: Mapping[str, float]) -> dict[str, float] | None:
        """The best imaginable final metrics; None while too little is known."""
        lessons = [
            (self._curves[identity][epoch], final)
            for identity, final in self._complete.items()
            if len(self._curves[identity].get(epoch, {})) == len(self._names)
        ]
        if len(lessons) < LESSONS or any(name not in metrics for name in self._names):
            return None
        found = {}
        for name in self._names:
            factors = [_distance(name, after[name]) / _distance(name, before[name]) for before, after in lessons]
            factor = 1.0 if METRICS[name].priced else min(factors)
            found[name] = _at_distance(name, factor * _distance(name, metrics[name]))
        return found

    def hopeless(self, epoch: int, metrics: Mapping[str, float]) -> str | None:
        """Why the trial cannot reach the front any more, in one sentence; None if it can."""
        best = self.best(epoch, metrics)
        if best is None:
            return None
        text = ", ".join(f"{name} {best[name]:.4g}" for name in self._names)
        if violation(self._budgets, best) > 0:
            return f"cannot keep the budgets any more: after {epoch} epochs at best {text}"
        point = minimised(self._objectives, best)
        for final in self._complete.values():
            other = minimised(self._objectives, final)
            if point is None or other is None or violation(self._budgets, final) > 0:
                continue
            if other != point and all(a <= b for a, b in zip(other, point, strict=True)):
                return f"cannot reach the front any more: after {epoch} epochs at best {text}"
        return None


def _distance(name: str, value: float) -> float:
    """From the best imaginable value: 1 for a share, 0 for a cost."""
    return max(1.0 - value if METRICS[name].direction == "maximize" else value, 1e-9)


def _at_distance(name: str, distance: float) -> float:
    return 1.0 - distance if METRICS[name].direction == "maximize" else distance


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
        self._judged = range(schedule.grace, epochs if schedule.enabled else 0)
        self.outlook = Outlook(objectives, budgets, epochs)

    def report(self, identity: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Note where a trial stands after an epoch; False if it should stop."""
        return self.judge(identity, epoch, metrics) is None

    def judge(self, identity: str, epoch: int, metrics: Mapping[str, float]) -> str | None:
        """Note where a trial stands after an epoch; why it should stop, or None if it goes on.

        It goes on at a rung if it is among the best 1/reduction of those that reached it so far, and elsewhere
        unless it is hopeless. One whose objectives are not all known is not judged.
        """
        self.outlook.note(identity, epoch, metrics)
        point = minimised(self._objectives, metrics)
        if epoch not in self._judged or point is None:
            return None
        if (rung := self._rungs.get(epoch)) is not None:
            rung[identity] = [violation(self._budgets, metrics), *point]
            place = self._order(np.array(list(rung.values())))[list(rung).index(identity)]
            if place >= math.ceil(len(rung) / self._reduction):
                return f"not among the best 1/{self._reduction} after {epoch} epochs"
        return self.outlook.hopeless(epoch, metrics)

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
                self.judge(record.identity, epoch.epoch, {**exact, **epoch.metrics})
