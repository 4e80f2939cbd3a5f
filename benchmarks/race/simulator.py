"""Replays a search against known results: a simulated clock, asynchronous workers, no training.

A problem knows what every point would have given after every epoch. A contestant proposes points and hears of them
what a real search would tell it, no earlier than a real search would. One unit of expense is one training epoch.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from search.pareto import Points, hypervolume
from search.samplers.domain import Buildable
from search.samplers.quote import Quote
from spaces.tree import Scalar

MISSES = 50
"""Repeats in a row after which a contestant gets a random new point (as in search/engine.py)."""

Stopper = Callable[[str, int, Mapping[str, float]], bool]
"""(identity, epoch, metrics): whether the trial goes on; `search.scheduler.Halving.report` is one."""


@dataclass(frozen=True)
class Problem:
    """Something with known answers.

    Attributes:
        name: As reports call it.
        space: What is searched.
        objectives: Names, in the order of all values.
        directions: ``minimize`` or ``maximize``, per objective.
        optimum: Best imaginable value per objective; None where there is none.
        curve: Values after each epoch [epochs, m] of what the space builds.
        quote: What is known before training; its identity is that of a point.
        scale: Brings values [n, m] to the scale of the hypervolume, minimised, reference 1 and ideal 0.
        best: Hypervolume of the true front on that scale.
        epochs: Of a full training.
        duration: Simulated time of one epoch; expense is counted in epochs, this only sets who comes first.
    """

    name: str
    space: Buildable
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    optimum: tuple[float | None, ...]
    curve: Callable[[Any], Points]
    quote: Callable[[Any], Quote]
    scale: Callable[[Points], Points]
    best: float
    epochs: int = 1
    duration: Callable[[Any], float] = lambda built: 1.0

    def share(self, values: Points) -> float:
        """Hypervolume of some points [n, m] over that of the true front."""
        return hypervolume(self.scale(values), np.ones(len(self.objectives))) / self.best


class Contestant(Protocol):
    """A search algorithm under test; a ticket is its own name for a proposal."""

    def ask(self) -> tuple[Hashable, Any]:
        """A ticket and what the proposed point builds."""

    def tell(self, ticket: Hashable, curve: Points, complete: bool) -> None:
        """What a proposal gave, after the last epoch that was trained."""

    def offer(self, point: Mapping[str, Scalar]) -> None:
        """Have this point come next: everything proposed of late was known already."""


@runtime_checkable
class Stopping(Contestant, Protocol):
    """A contestant that stops trials early by its own rules."""

    def goes_on(self, identity: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Whether a trial goes on after an epoch; a `Stopper`."""


@dataclass
class Trace:
    """What a search had at each moment a full training ended.

    Attributes:
        epochs: Epochs trained so far by all workers together.
        trials: Different points started so far.
        share: Hypervolume over that of the true front.
        ask_seconds: The contestant's own time for all its proposals; ``asks`` is how many it made.
    """

    epochs: list[int] = field(default_factory=list)
    trials: list[int] = field(default_factory=list)
    share: list[float] = field(default_factory=list)
    ask_seconds: float = 0.0
    asks: int = 0

    def at(self, budget: float, of: str = "epochs") -> float:
        """The share after a budget in epochs or trials."""
        spent: list[int] = getattr(self, of)
        known = [share for cost, share in zip(spent, self.share, strict=True) if cost <= budget]
        return known[-1] if known else 0.0

    def until(self, share: float, of: str = "epochs") -> float:
        """Epochs or trials until a share is reached; infinite if it is not."""
        spent: list[int] = getattr(self, of)
        return next((c for c, s in zip(spent, self.share, strict=True) if s >= share), float("inf"))


@dataclass
class _Trial:
    ticket: Hashable
    identity: str
    curve: Points
    duration: float
    epoch: int = 0
    complete: bool = False
    over: bool = False
    twins: list[Hashable] = field(default_factory=list)


class Simulation:
    """One search.

    Args:
        stop: Early stopping; None leaves it to the contestant (`Stopping`), most of which train everything in full.
        workers: Trials at once.
        seed: For the random points of last resort.
        goal: The search ends when this share is reached.
    """

    def __init__(
        self,
        problem: Problem,
        contestant: Contestant,
        *,
        stop: Stopper | None = None,
        workers: int = 4,
        seed: int = 0,
        goal: float = 2.0,
    ) -> None:
        if stop is None and isinstance(contestant, Stopping):
            stop = contestant.goes_on
        self.problem, self.contestant, self.stop, self.goal = problem, contestant, stop, goal
        self.trace = Trace()
        self._workers = workers
        self._rng = random.Random(seed)
        self._trials: dict[str, _Trial] = {}
        self._front = np.zeros((0, len(problem.objectives)))
        self._spent = 0

    def run(self, epochs: float = float("inf"), trials: float = float("inf")) -> Trace:
        """Search until a budget is spent; what is running then is not waited for."""
        order = itertools.count()
        events: list[tuple[float, int, _Trial]] = []
        now = 0.0
        while True:
            while len(events) < self._workers and len(self._trials) < trials:
                trial = self._next()
                if trial is None:
                    break
                heapq.heappush(events, (now + trial.duration, next(order), trial))
            if not events or self._spent >= epochs or (self.trace.share and self.trace.share[-1] >= self.goal):
                return self.trace
            now, _, trial = heapq.heappop(events)
            self._spent += 1
            trial.epoch += 1
            if self._goes_on(trial):
                heapq.heappush(events, (now + trial.duration, next(order), trial))
            else:
                self._end(trial)

    def _next(self) -> _Trial | None:
        """The next point that is new; repeats are answered from what is known, at no expense."""
        for attempt in range(2 * MISSES):
            if attempt == MISSES and not self._offer_new():
                return None
            started = time.perf_counter()
            ticket, built = self.contestant.ask()
            self.trace.ask_seconds += time.perf_counter() - started
            self.trace.asks += 1
            identity = self.problem.quote(built).identity
            if (known := self._trials.get(identity)) is None:
                trial = _Trial(ticket, identity, self.problem.curve(built), self.problem.duration(built))
                self._trials[identity] = trial
                return trial
            if known.over:
                self.contestant.tell(ticket, known.curve[: known.epoch], known.complete)
            else:
                known.twins.append(ticket)
        return None

    def _offer_new(self) -> bool:
        """Offer a random point that was not tried; False if none was found."""
        for _ in range(2000):
            point: dict[str, Scalar] = {}

            def pick(name: str, parameter: Any, point: dict[str, Scalar] = point) -> Scalar:
                point[name] = parameter.sample(self._rng)
                return point[name]

            if self.problem.quote(self.problem.space.build(pick)).identity not in self._trials:
                self.contestant.offer(point)
                return True
        return False

    def _goes_on(self, trial: _Trial) -> bool:
        ends = trial.epoch >= len(trial.curve)
        if self.stop is None:
            return not ends
        values = dict(zip(self.problem.objectives, trial.curve[trial.epoch - 1].tolist(), strict=True))
        return self.stop(trial.identity, trial.epoch, values) and not ends

    def _end(self, trial: _Trial) -> None:
        trial.over = True
        trial.complete = trial.epoch >= len(trial.curve)
        for ticket in (trial.ticket, *trial.twins):
            self.contestant.tell(ticket, trial.curve[: trial.epoch], trial.complete)
        if not trial.complete:
            return
        values = trial.curve[-1]
        share = self.trace.share[-1] if self.trace.share else 0.0
        signs = np.array([-1.0 if d == "maximize" else 1.0 for d in self.problem.directions])
        if not (signs * self._front <= signs * values).all(1).any():  # else nothing new in front
            self._front = np.vstack((self._front, values))
            share = self.problem.share(self._front)
        self.trace.epochs.append(self._spent)
        self.trace.trials.append(len(self._trials))
        self.trace.share.append(share)
