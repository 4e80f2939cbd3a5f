"""``priced``: draw many candidates, price them for nothing, buy the one that promises the largest front.

Peers treat every objective as an expensive black box. Here the costs of a candidate are exact before training and
its energy is bounded, so only the rest is modelled (a Gaussian process per objective), candidates that break a
budget or were seen before are dropped at no expense, and the next one is that of the largest expected hypervolume
improvement. On a space that it knows nothing about it is a model-based sampler like any other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
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
from search.samplers.pricing import Pricing, SlowQuotes
from search.samplers.quote import QuoteOf
from search.samplers.surrogate import Array

Curve = Callable[[FrozenTrial], Mapping[int, Sequence[float]]]
"""Objective values by epoch of a finished trial, in the study's order and direction."""

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
        startup: Trials before the models are trusted: spread over the prices, or at random where nothing is priced.
            None for 8 with prices, and for two per parameter (8 to 20) without.
        pool: How many priced candidates are compared; ``fresh`` of them are new in each trial.
        prices: How many guessed prices one suggestion may replace by exact ones (`SlowQuotes` only).
    """

    _judge = Judge

    def __init__(
        self,
        *,
        space: Buildable | None = None,
        quote: QuoteOf | SlowQuotes | None = None,
        optimum: Sequence[float | None] | None = None,
        curve: Curve | None = None,
        seed: int | None = None,
        startup: int | None = None,
        pool: int = 2000,
        fresh: int = 300,
        prices: int = 8,
    ) -> None:
        self._quote = quote
        self._optimum = optimum
        self._curve = curve
        self._seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        self._startup = startup
        self._pool_size = pool
        self._fresh = fresh
        self._intersection = IntersectionSearchSpace()
        self._prices = prices
        self._domain = Domain(space) if space is not None else None
        self._pricing: Pricing | None = None
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
        m = len(study.directions)
        if self._domain is not None:
            self._pricing = self._pricing or Pricing(self._domain, self._quote, m)
            point = self._choose(study, trial, self._pricing, lambda other: {**other.params})
            return {name: value for name, value in point.items() if name in search_space}
        # The space may differ from that of the last trial: nothing is kept but the constants of the models.
        self._pool = []
        domain = Domain(FlatSpace({name: parameter_of(d) for name, d in search_space.items()}))
        point = self._choose(study, trial, Pricing(domain, None, m), lambda other: _from_optuna(other, search_space))
        return {name: _to_optuna(search_space[name], label) for name, label in point.items()}

    def _rng(self, trial: FrozenTrial, name: str) -> random.Random:
        return random.Random(f"{self._seed} {trial.number} {name}")

    # --- choosing -----------------------------------------------------------------------------------------

    def _choose(
        self, study: Study, trial: FrozenTrial, pricing: Pricing, point_of: Callable[[FrozenTrial], Point | None]
    ) -> Point:
        rng, domain = self._rng(trial, ""), pricing.domain
        signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in study.directions])
        known = self._observe(study, trial, pricing, signs, point_of)
        taken = {entry.quote.identity for entry in known.entries()}
        pool = {e.quote.identity: e for e in self._pool if e.quote.identity not in taken}
        half = self._fresh // 2 if pool else self._fresh
        drawn = pricing.draw([{}] * half, rng)
        drawn += pricing.draw(self._near(domain, self._parents(known), half, rng), rng)
        pool |= _new(drawn, taken)
        if not pool:
            return self._least_bad(drawn, domain, rng)
        entries = list(pool.values())
        blind = min(max(8, 2 * len(domain.parameters)), 20)
        startup = self._startup or (blind if pricing.blind else 8)
        if known.started < startup or len(known.complete) < 2:
            self._pool = entries
            return self._paid(_spread(entries, known, rng), pricing)[0].point
        judge = self._judge(signs, self._optimum, domain.groups, known, entries, self._thetas)
        score = judge.score(entries)
        best = [entries[i].point for i in np.argsort(-score)[:10]]
        near = pricing.draw(self._near(domain, best, self._fresh // 2, rng), rng)
        new = {
            e.quote.identity: e
            for e in near
            if e.quote.violation <= 0 and e.quote.identity not in taken | pool.keys()
        }
        if new:
            entries += new.values()
            score = np.append(score, judge.score(list(new.values())))
        order = np.argsort(-score, kind="stable")
        ranked = [entries[i] for i in order]
        self._pool = ranked[: self._pool_size - self._fresh]
        final = self._paid(ranked, pricing)
        if len(final) > 1:
            return final[int(np.argmax(judge.score(final)))].point
        return final[0].point

    def _paid(self, ranked: Sequence[Entry], pricing: Pricing) -> list[Entry]:
        """Those of the first candidates that keep the budgets at their exact price; the first one if none does."""
        if not ranked[0].guessed:
            return [ranked[0]]
        exact: dict[str, Entry] = {}
        for entry in ranked[: self._prices]:
            paid = pricing.exact(entry.point) if entry.guessed else entry
            if paid is not None:
                exact[paid.quote.identity] = paid
        self._pool = [exact.get(entry.quote.identity, entry) for entry in self._pool]
        self._pool = [entry for entry in self._pool if entry.quote.violation <= 0]
        return [entry for entry in exact.values() if entry.quote.violation <= 0] or [ranked[0]]

    def _observe(
        self,
        study: Study,
        trial: FrozenTrial,
        pricing: Pricing,
        signs: Array,
        point_of: Callable[[FrozenTrial], Point | None],
    ) -> Known:
        """The trials, each candidate once."""
        known, values, taken = Known(), [], set()
        for other in study.get_trials(deepcopy=False, states=_STATES):
            point = point_of(other) if other.params and other.number != trial.number else None
            entry = pricing.exact(point, trial=other) if point else None
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

    @staticmethod
    def _least_bad(drawn: Sequence[Entry], domain: Domain, rng: random.Random) -> Point:
        """Where no new candidate keeps the budgets: the one that breaks them least, or any at all."""
        if drawn:
            return min(drawn, key=lambda entry: entry.quote.violation).point
        return {name: parameter.sample(rng) for name, parameter in domain.parameters.items()}


def _new(entries: Sequence[Entry], taken: Collection[str]) -> dict[str, Entry]:
    """Those that were not seen and can keep the budgets, by identity."""
    return {e.quote.identity: e for e in entries if e.quote.violation <= 0 and e.quote.identity not in taken}


def _spread(pool: Sequence[Entry], known: Known, rng: random.Random) -> list[Entry]:
    """The candidate farthest from all trials in its prices first, and so on; any order where nothing is priced."""
    prices = np.array([entry.prices for entry in (*pool, *known.entries())])
    prices = prices[:, np.isfinite(prices).all(0)]
    here, there = prices[: len(pool)], prices[len(pool) :]
    if not len(there) or not prices.shape[1]:
        return rng.sample(list(pool), len(pool))
    gap = (((here[:, None] - there[None]) / (np.ptp(here, axis=0) + 1e-12)) ** 2).sum(-1).min(1)
    return [pool[i] for i in np.argsort(-gap, kind="stable")]


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
