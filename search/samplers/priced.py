"""``priced``: draw many candidates, price them for nothing, buy the one that promises the largest front.

Peers treat every objective as an expensive black box. Here the costs of a candidate are exact before training and
its energy is bounded, so only the rest is modelled (a Gaussian process per objective), candidates that break a
budget or were seen before are dropped at no expense, and the next one is that of the largest expected hypervolume
improvement. On a space that it knows nothing about it is a model-based sampler like any other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.pareto import nondominated
from search.samplers.domain import Buildable, Domain, FlatSpace, Point, distribution_of, parameter_of
from search.samplers.judge import Entry, Judge, Known
from search.samplers.quote import Quote, QuoteOf, unknown
from search.samplers.surrogate import Array
from spaces.space import Scalar

Curve = Callable[[FrozenTrial], Mapping[int, Sequence[float]]]
"""Objective values by epoch of a finished trial, in the study's order and direction."""

_CACHE = 20_000
_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class PricedSampler(BaseSampler):
    """Multi-objective sampler with exact prices.

    Args:
        space: The declared space; None to learn it from the trials, as Optuna's own samplers do.
        quote: Prices what ``space`` builds.
        optimum: Best imaginable value per objective (accuracy 1, energy 0). The distance to it is modelled and
            compared on a logarithmic scale; None takes the values as they are.
        curve: Reads the values by epoch of a trial, so that stopped ones teach something too.
        seed: Makes a run on one worker repeatable.
        startup: Trials before the models are trusted; they are spread over the prices.
        pool: How many priced candidates are compared; ``fresh`` of them are new in each trial.
    """

    def __init__(
        self,
        *,
        space: Buildable | None = None,
        quote: QuoteOf | None = None,
        optimum: Sequence[float | None] | None = None,
        curve: Curve | None = None,
        seed: int | None = None,
        startup: int = 8,
        pool: int = 2000,
        fresh: int = 300,
    ) -> None:
        self._quote = quote
        self._optimum = optimum
        self._curve = curve
        self._seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        self._startup = startup
        self._pool_size = pool
        self._fresh = fresh
        self._intersection = IntersectionSearchSpace()
        self._domain = Domain(space) if space is not None else None
        self._seen: dict[frozenset[tuple[str, Scalar]], Entry | None] = {}
        self._curves: dict[int, Mapping[int, Sequence[float]]] = {}
        self._pool: list[Entry] = []
        self._thetas: dict[str, Array] = {}

    # --- Optuna's interface -------------------------------------------------------------------------------

    def reseed_rng(self) -> None:
        self._seed = random.SystemRandom().getrandbits(32)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if self._domain is not None:
            return {name: distribution_of(p) for name, p in self._domain.parameters.items()}
        return {name: d for name, d in self._intersection.calculate(study).items() if not d.single()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        label = parameter_of(param_distribution).sample(self._rng(trial, param_name))
        return _to_optuna(param_distribution, label)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        if self._domain is not None:
            point = self._choose(study, trial, self._domain, lambda other: {**other.params})
            return {name: value for name, value in point.items() if name in search_space}
        # The space may differ from that of the last trial: nothing is kept but the constants of the models.
        self._pool, self._seen = [], {}
        domain = Domain(FlatSpace({name: parameter_of(d) for name, d in search_space.items()}))
        point = self._choose(study, trial, domain, lambda other: _from_optuna(other, search_space))
        return {name: _to_optuna(search_space[name], label) for name, label in point.items()}

    def _rng(self, trial: FrozenTrial, name: str) -> random.Random:
        return random.Random(f"{self._seed} {trial.number} {name}")

    # --- choosing -----------------------------------------------------------------------------------------

    def _choose(
        self, study: Study, trial: FrozenTrial, domain: Domain, point_of: Callable[[FrozenTrial], Point | None]
    ) -> Point:
        rng = self._rng(trial, "")
        signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions])
        known = self._observe(study, trial, domain, signs, point_of)
        taken = {entry.quote.identity for entry in known.entries()}
        pool = {e.quote.identity: e for e in self._pool if e.quote.identity not in taken}
        draws = self._fresh if pool else 2 * self._fresh
        self._draw(domain, [{}] * (draws // 2), pool, taken, len(signs), rng)
        self._draw(domain, self._near(domain, self._parents(known), draws // 2, rng), pool, taken, len(signs), rng)
        if not pool:
            return self._least_bad(domain, len(signs), rng)
        entries = list(pool.values())
        self._pool = entries
        if known.started < self._startup or len(known.complete) < 2:
            return _spread(entries, known, rng).point
        judge = Judge(signs, self._optimum, domain.groups, known, entries, self._thetas)
        score = judge.score(entries)
        best = [entries[i].point for i in np.argsort(-score)[:10]]
        near: dict[str, Entry] = {}
        self._draw(
            domain, self._near(domain, best, self._fresh // 2, rng), near, taken | pool.keys(), len(signs), rng
        )
        if near:
            entries += near.values()
            score = np.append(score, judge.score(list(near.values())))
        order = np.argsort(-score, kind="stable")
        self._pool = [entries[i] for i in order[: self._pool_size - self._fresh]]
        return entries[order[0]].point

    def _observe(
        self,
        study: Study,
        trial: FrozenTrial,
        domain: Domain,
        signs: Array,
        point_of: Callable[[FrozenTrial], Point | None],
    ) -> Known:
        """The trials, each candidate once."""
        known, values, taken = Known(), [], set()
        for other in study.get_trials(deepcopy=False, states=_STATES):
            point = point_of(other) if other.params and other.number != trial.number else None
            entry = self._entry(domain, point, len(signs)) if point else None
            if entry is None or entry.quote.identity in taken:
                continue
            taken.add(entry.quote.identity)
            if other.state == TrialState.RUNNING:
                known.pending.append(entry)
            elif other.state == TrialState.COMPLETE and np.isfinite(other.values).all():
                known.complete.append(entry)
                known.constraints.append(other.constraints)
                known.curves.append(self._signed_curve(other, signs))
                values.append(signs * other.values)
            elif any(value > 0 for value in other.constraints.values()):
                known.broken.append((entry, other.constraints))
            else:
                known.stopped.append(entry)
                known.stopped_curves.append(self._signed_curve(other, signs))
        known.values = np.array(values).reshape(-1, len(signs))
        return known

    def _signed_curve(self, trial: FrozenTrial, signs: Array) -> Mapping[int, Sequence[float]]:
        if self._curve is None:
            return {}
        if trial.number not in self._curves:
            curve = {epoch: (signs * values).tolist() for epoch, values in self._curve(trial).items()}
            self._curves[trial.number] = {e: v for e, v in curve.items() if np.isfinite(v).all()}
        return self._curves[trial.number]

    def _entry(self, domain: Domain, point: Point, objectives: int, built: Any = None) -> Entry | None:
        """A point with its price; None if it breaks a law. ``built`` saves building it again."""
        key = frozenset(point.items())
        if key in self._seen:
            return self._seen[key]
        if len(self._seen) > _CACHE:
            self._seen.clear()
        try:
            if built is None:
                point, built = domain.complete(point, random.Random(0))
            quote = (
                self._quote(built) if self._quote is not None else unknown(repr(sorted(point.items())), objectives)
            )
            entry = Entry(point, quote, domain.encode(point))
        except ValueError:
            entry = None
        self._seen[key] = entry
        return entry

    def _draw(
        self,
        domain: Domain,
        wanted: Sequence[Mapping[str, Scalar]],
        into: dict[str, Entry],
        taken: set[str],
        objectives: int,
        rng: random.Random,
    ) -> None:
        """Price candidates; keep those that are new and can keep the budgets."""
        for start in wanted:
            filled = domain.fill(start, rng)
            entry = self._entry(domain, filled[0], objectives, filled[1]) if filled is not None else None
            if entry is not None and entry.quote.violation <= 0 and entry.quote.identity not in taken:
                into[entry.quote.identity] = entry

    def _near(self, domain: Domain, parents: Sequence[Point], count: int, rng: random.Random) -> list[Point]:
        """Neighbours of the parents; random points where there are none."""
        if not parents:
            return [{} for _ in range(count)]
        near = []
        for _ in range(count):
            start = rng.choice(parents)
            if len(parents) > 1 and rng.random() < 0.5:
                start = domain.crossed(start, rng.choice(parents), rng)
            near.append(domain.mutated(start, rng))
        return near

    @staticmethod
    def _parents(known: Known) -> list[Point]:
        """The front of those that break their constraints least."""
        if not known.complete:
            return []
        broken = known.violations()
        rows = np.flatnonzero(broken == broken.min())
        return [known.complete[i].point for i in rows[nondominated(known.values[rows])]]

    def _least_bad(self, domain: Domain, objectives: int, rng: random.Random) -> Point:
        """Where no new candidate keeps the budgets: the one that breaks them least, or any at all."""
        filled = [pair for _ in range(self._fresh) if (pair := domain.fill({}, rng)) is not None]
        entries = [
            entry for pair in filled if (entry := self._entry(domain, pair[0], objectives, pair[1])) is not None
        ]
        if entries:
            return min(entries, key=lambda entry: entry.quote.violation).point
        return {name: parameter.sample(rng) for name, parameter in domain.parameters.items()}


def _spread(pool: Sequence[Entry], known: Known, rng: random.Random) -> Entry:
    """The candidate farthest from all trials in its exact prices; any where nothing is priced."""
    exact = [j for j, value in enumerate(pool[0].quote.values) if value is not None]
    others = known.entries()
    if not exact or not others:
        return rng.choice(list(pool))

    def prices(quotes: Sequence[Quote]) -> Array:
        return np.log(np.abs([[quote.values[j] or 0.0 for j in exact] for quote in quotes]) + 1e-12)

    here, there = prices([e.quote for e in pool]), prices([e.quote for e in others])
    scale = np.ptp(here, axis=0) + 1e-12
    gap = (((here[:, None] - there[None]) / scale) ** 2).sum(-1).min(1)
    return pool[int(np.argmax(gap))]


def _to_optuna(distribution: BaseDistribution, label: Any) -> Any:
    return distribution.choices[label] if isinstance(distribution, CategoricalDistribution) else label


def _from_optuna(trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]) -> Point | None:
    """The labels of a trial; None if it lacks a parameter or has a value that is no longer in the space."""
    point: Point = {}
    for name, distribution in search_space.items():
        if name not in trial.params:
            return None
        value = trial.params[name]
        if isinstance(distribution, CategoricalDistribution):
            point[name] = int(distribution.to_internal_repr(value))
        else:
            point[name] = value
    return point
