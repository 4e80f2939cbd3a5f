"""Early stopping with several objectives: asynchronous successive halving by violation, rank and spread.

At every rung (grace·reduction^i epochs) a trial is compared with all trials that have been there, on the objectives
as they stood at that same epoch: the firing rate of a spiking network, hence its energy, rises during training, so
numbers of different epochs say nothing about each other. Between rungs a trial is stopped only if it is hopeless: not
even the best course that any training has taken from here would bring it to the front (`Outlook`). Only plain Python
here; the Ray adapter is in searcher.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from search.config import Bound, Schedule
from search.metrics import METRICS, priced_metrics
from search.pareto import Fronts, crowding
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
        self._taught: set[str] = set()
        self._lessons: Counter[int] = Counter()
        self._factors: dict[int, dict[str, float]] = {}
        self._front: list[list[float]] = []

    def note(self, identity: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take note of where a trial stands; after the last epoch it teaches the others."""
        known = {name: metrics[name] for name in self._names if math.isfinite(metrics.get(name, math.nan))}
        self._curves.setdefault(identity, {})[epoch] = known
        if epoch >= self._epochs and len(known) == len(self._names) and identity not in self._taught:
            self._taught.add(identity)
            self._learn(self._curves.pop(identity), known)

    def forget(self, identity: str) -> None:
        """Drop the curve of a trial that is over and was not trained in full: it teaches nothing."""
        self._curves.pop(identity, None)

    def _learn(self, curve: Mapping[int, Mapping[str, float]], final: Mapping[str, float]) -> None:
        """The least factor of every epoch, and the front, as one more complete trial leaves them."""
        for epoch, before in curve.items():
            if len(before) == len(self._names):
                self._lessons[epoch] += 1
                least = self._factors.setdefault(epoch, dict.fromkeys(self._names, math.inf))
                for name in self._names:
                    least[name] = min(least[name], _distance(name, final[name]) / _distance(name, before[name]))
        point = minimised(self._objectives, final)
        if point is None or violation(self._budgets, final) > 0 or any(_no_worse(p, point) for p in self._front):
            return
        self._front = [other for other in self._front if not _no_worse(point, other)] + [point]

    def best(self, epoch: int, metrics: Mapping[str, float]) -> dict[str, float] | None:
        """The best imaginable final metrics; None while too little is known."""
        if self._lessons[epoch] < LESSONS or any(name not in metrics for name in self._names):
            return None
        found = {}
        for name in self._names:
            factor = 1.0 if METRICS[name].priced else self._factors[epoch][name]
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
        if point is not None and any(_no_worse(p, point) for p in self._front if p != point):
            return f"cannot reach the front any more: after {epoch} epochs at best {text}"
        return None


def _no_worse(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True))


def _distance(name: str, value: float) -> float:
    """From the best imaginable value: 1 for a share, 0 for a cost."""
    return max(1.0 - value if METRICS[name].direction == "maximize" else value, 1e-9)


def _at_distance(name: str, distance: float) -> float:
    return 1.0 - distance if METRICS[name].direction == "maximize" else distance


class _Rung:
    """Where every trial stood after one epoch."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}
        self._broken = np.empty(0)
        self._fronts: Fronts | None = None

    def __len__(self) -> int:
        return len(self._index)

    def place(self, identity: str, broken: float, point: Sequence[float]) -> int:
        """Note where a trial stands, and count those before it: less violation, lower rank, more space."""
        row = np.array(point)
        if self._fronts is None:
            self._fronts = Fronts(np.empty((0, len(row))))
        if (index := self._index.get(identity)) is None:
            index = self._index[identity] = len(self._index)
            self._broken = np.append(self._broken, broken)
            self._fronts.add(row)
        elif self._broken[index] != broken or (self._fronts.points[index] != row).any():  # trained again
            self._broken[index] = broken
            self._fronts.points[index] = row
            self._fronts = Fronts(self._fronts.points)
        rank, equal = self._fronts.ranks, self._broken == broken
        mates = np.flatnonzero(equal & (rank == rank[index]))
        spread = crowding(self._fronts.points[mates])
        mine = int(np.searchsorted(mates, index))
        lonelier = (spread > spread[mine]).sum() + (spread[:mine] == spread[mine]).sum()
        return int((self._broken < broken).sum() + (equal & (rank < rank[index])).sum() + lonelier)


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
        self._rungs = {level: _Rung() for level in self.levels}
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
            place = rung.place(identity, violation(self._budgets, metrics), point)
            if place >= math.ceil(len(rung) / self._reduction):
                return f"not among the best 1/{self._reduction} after {epoch} epochs"
        return self.outlook.hopeless(epoch, metrics)

    def rebuild(self, records: Iterable[Record]) -> None:
        """Fill the rungs from the trials of an earlier session."""
        for record in records:
            exact = priced_metrics(record.cost) if record.cost is not None else {}
            if record.status == "duplicate":
                continue
            for epoch in record.history:
                self.judge(record.identity, epoch.epoch, {**exact, **epoch.metrics})
            if record.status not in ("running", "waiting"):
                self.outlook.forget(record.identity)
