"""The search itself, without Ray: proposes candidates, judges epochs, keeps the study. A simulator can drive it too.

task = search.next()                        a candidate to train, or None: nothing now
search.report(task.number, epochs)          False: stop it
search.finish(task.number, result)          what came out
search.lost(task.number, reason)            the worker died for good
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import optuna

from search import study as book
from search.config import RunConfig
from search.ledger import Ledger
from search.metrics import METRICS, priced_metrics
from search.objective import Outcome
from search.record import Epoch, Record
from search.samplers.domain import Domain, Point
from search.scheduler import Halving, violation
from search.worker import Result, Task
from spaces.config import Candidate
from spaces.cost import Cost
from spaces.space import Space

Price = Callable[[Candidate], Cost]

ASKS = 50
"""Suggestions in a row that may be rejected or repeats before a random new candidate is looked for."""
DRAWS = 2000
"""Draws that may fail in a row before a space counts as used up, ..."""
PRICES = 300
"""... and how many of them may exceed a budget, as long as nothing at all was found to keep it."""
LOSSES = 3
"""How often a session hands out a candidate whose workers keep dying (Ray has retried each of them already)."""


@dataclass
class _Live:
    trial: optuna.Trial
    record: Record
    history: dict[int, Epoch] = field(default_factory=dict)
    stopped: str | None = None


class Search:
    """One driver's work on one study.

    Args:
        config: The run.
        space: What is searched, bound to the run's data and training.
        study: Made by `search.study.open_study`, with its sampler.
        trials: Address of the folders of trials.
        price: The exact cost of a candidate; None where there is nothing to price (tables, tests).
        owner: Name under which this driver signs; None if no other driver can be at work on the study.
        listen: Called with the record of every trial of this driver that is over.
    """

    def __init__(
        self,
        config: RunConfig,
        space: Space,
        study: optuna.Study,
        *,
        trials: str,
        price: Price | None = None,
        owner: str | None = None,
        listen: Callable[[Record], None] = lambda record: None,
    ) -> None:
        self.config, self.space, self.study, self.price = config, space, study, price
        self.exhausted: str | None = None
        """Why the space holds no further candidate, once that is known."""
        self._trials = trials
        self._listen = listen
        self._rng = random.Random(config.seed)
        self._live: dict[int, _Live] = {}
        self._losses: Counter[str] = Counter()
        self._law = ""
        self._ledger = Ledger(config, study, owner, self._folder)
        self._ledger.reconcile()
        self.halving = Halving(config.objectives, config.budgets, config.schedule, config.epochs)
        self.halving.rebuild(book.study_records(study))

    def _folder(self, identity: str) -> str:
        return f"{self._trials}/{identity}"

    @property
    def used(self) -> int:
        """Different candidates handed out so far, over all sessions and drivers."""
        return self._ledger.used

    @property
    def running(self) -> int:
        """Trials that this driver waits for."""
        return len(self._live)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to hand out or to wait for."""
        over = self.exhausted is not None or self.used >= self.config.trials
        return over and not self._live and not self._ledger.retries

    def tick(self) -> None:
        """To be called now and then, also when there is nothing to do: other drivers want a sign of life."""
        self._ledger.tick()

    # --- proposing ---

    def next(self) -> Task | None:
        """The next candidate to train; None if there is none, now or (`finished`) at all.

        Raises:
            ValueError: Nothing in the space keeps the laws and budgets.
        """
        self._ledger.sync()
        misses = 0
        while self._ledger.retries or (self.exhausted is None and self.used < self.config.trials):
            if misses >= ASKS and not self._ledger.retries:
                misses = 0
                if not self._queue_unseen():
                    self.exhausted = self._law or "every candidate has been trained"
                    if not self.used:
                        raise ValueError(f"space {self.space.name!r} has no feasible point: {self.exhausted}")
                    return None
            if (task := self._propose(self.study.ask())) is not None:
                return task
            misses += 1
            self._ledger.sync()
        return None

    def _propose(self, trial: optuna.Trial) -> Task | None:
        """Turn a suggestion into a task, or tell the sampler at once why it is none."""
        known = trial.user_attrs
        record = Record(
            number=trial.number,
            status="running",
            started=time.time(),
            attempt=known.get(book.ATTEMPT, 1),
            origin=known.get(book.ORIGIN, "sampler"),
        )
        try:
            candidate = self.space.suggest(trial)
            record = record.model_copy(update={"identity": candidate.identity, "candidate": candidate})
            if (holder := self._ledger.holders.get(record.identity)) is not None:
                self._ledger.repeat(trial, record, holder)
                return None
            record = record.model_copy(update={"cost": self._check(candidate)})
        except _OverBudget as error:
            self._reject(
                trial, record.model_copy(update={"cost": error.cost, "violations": error.broken}), str(error)
            )
            return None
        except ValueError as error:
            self._reject(trial, record, str(error))
            return None
        if not self._ledger.claim(trial, record):
            return None
        self._live[trial.number] = _Live(trial, record)
        return Task(
            number=record.number,
            identity=record.identity,
            candidate=candidate,
            folder=self._folder(record.identity),
            attempt=record.attempt,
        )

    def _reject(self, trial: optuna.Trial, record: Record, law: str) -> None:
        self._law = law
        record = record.model_copy(update={"status": "rejected", "reason": law})
        self._ledger.end(trial, record)
        self._listen(record)

    def _check(self, candidate: Candidate) -> Cost | None:
        """The price of a candidate; ValueError if it cannot be built or is certain to break a budget."""
        if self.price is None:
            return None
        cost = self.price(candidate)
        # Not even a network that never fires needs less than the lower bound of the energy.
        known = {**priced_metrics(cost), "energy_mj": cost.energy_mj_low}
        broken, laws = {}, []
        for name, bound in self.config.budgets.items():
            if name not in known or (name == "energy_mj" and bound.max is None):
                continue
            upper = bound.max is not None and known[name] > bound.max
            if upper or (name != "energy_mj" and bound.violation(known[name]) > 0):
                broken[name] = bound.violation(known[name])
                limit = f"<= {bound.max:g}" if upper else f">= {bound.min:g}"
                unit = f" {METRICS[name].unit}" if METRICS[name].unit else ""
                laws.append(f"the budget {name} {limit}{unit} must hold, but got {known[name]:g}")
        if broken:
            excess = violation({name: self.config.budgets[name] for name in broken}, known)
            raise _OverBudget("; ".join(laws), cost, broken, excess)
        return cost

    def _queue_unseen(self) -> bool:
        """Queue a new candidate that keeps the laws; False if none was found.

        Every second draw is a step from what breaks the budgets least so far: prices take time, and chance alone
        hardly ever meets a tight budget.
        """
        domain, nearest = Domain(self.space), Point()
        least, over = math.inf, 0
        for draw in range(DRAWS):
            wanted = domain.mutated(nearest, self._rng) if nearest and draw % 2 else {}
            try:
                values, candidate = domain.complete(wanted, self._rng)
                if candidate.identity in self._ledger.holders:
                    continue
                self._check(candidate)
            except _OverBudget as error:
                over += 1
                if error.excess < least:
                    nearest, least, self._law = values, error.excess, f"{error} in the nearest candidate found"
                if over == PRICES and not self.used:
                    return False
                continue
            except ValueError as error:
                if not nearest:
                    self._law = str(error)
                continue
            book.enqueue(self.study, values, candidate.identity, origin="sampler")
            return True
        return False

    # --- what the workers say ---

    def report(self, number: int, epochs: Iterable[Epoch]) -> bool:
        """Take the epochs that a worker has trained; False if it should stop.

        Starting points are never stopped: the front is to be no worse than what a person would have tried.
        """
        live = self._live.get(number)
        if live is None:
            return False
        exact = priced_metrics(live.record.cost) if live.record.cost is not None else {}
        reason = None
        for epoch in epochs:
            live.history[epoch.epoch] = epoch
            reason = self.halving.judge(live.record.identity, epoch.epoch, {**exact, **epoch.metrics})
        live.stopped = reason if live.record.origin != "start" else None
        return live.stopped is None

    def was_stopped(self, number: int) -> bool:
        """Whether `report` asked this running trial to stop."""
        live = self._live.get(number)
        return live is not None and live.stopped is not None

    def finish(self, number: int, result: Result | None) -> None:
        """Take what a worker found; None means that it was stopped as `report` had asked."""
        live = self._live.pop(number, None)
        if live is None:
            return
        if result is None:
            result = self._so_far(live, Outcome(status="stopped", reason=live.stopped))
        self._close(live, result)

    def lost(self, number: int, reason: str) -> None:
        """A worker died and Ray could not replace it: queue the candidate again, or give it up."""
        live = self._live.pop(number, None)
        if live is None:
            return
        self._losses[live.record.identity] += 1
        if self._losses[live.record.identity] >= LOSSES:
            outcome = Outcome(status="failed", reason=f"its workers died {LOSSES} times: {reason}")
            self._close(live, self._so_far(live, outcome))
        else:
            self._ledger.requeue(live.trial, live.record, reason)

    @staticmethod
    def _so_far(live: _Live, outcome: Outcome) -> Result:
        history = tuple(live.history[epoch] for epoch in sorted(live.history))
        return Result(outcome=outcome, history=history, seconds=time.time() - live.record.started)

    def _close(self, live: _Live, result: Result) -> None:
        record = book.final(live.record, result, self.config)
        self.halving.outlook.forget(record.identity)
        self._ledger.end(live.trial, record)
        self._listen(record)


class _OverBudget(ValueError):
    """A budget that a candidate is certain to break."""

    def __init__(self, law: str, cost: Cost, broken: dict[str, float], excess: float) -> None:
        super().__init__(law)
        self.cost, self.broken, self.excess = cost, broken, excess
