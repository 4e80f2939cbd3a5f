"""``oracle``: what a search could do that knows everything but luck.

It is `priced` with models that have seen the end of every other training of the table. What it still has to train
for is what a network's own training adds to that, so nobody can be expected to need much less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.race.signals import scaled
from benchmarks.race.simulator import Problem
from search.samplers.domain import Domain
from search.samplers.judge import QUANTILES, Axis, Entry, Judge
from search.samplers.priced import PricedSampler
from search.samplers.pricing import Pricing
from search.samplers.surrogate import Array, GaussianProcess
from spaces.space import Space

FOLDS = 20


class Oracle(PricedSampler):
    """`PricedSampler` for a table, with `foresight` in the place of its models."""

    def __init__(self, problem: Problem, **options: Any) -> None:
        super().__init__(space=problem.space, quote=problem.quote, optimum=problem.optimum, startup=2, **options)
        known = foresight(problem)

        class Seeing(Judge):
            def _draws(self, entries: Sequence[Entry], j: int) -> Array:
                if self._models[j] is None:
                    return super()._draws(entries, j)
                mean, sd = np.array([known[entry.quote.identity][j] for entry in entries]).T[:, :, None]
                return self._axes[j].compared_from_model(mean + sd * QUANTILES, entries, j)

        self._judge = Seeing


def foresight(problem: Problem) -> dict[str, Array]:
    """By identity, mean and deviation [m, 2] of what a training will measure, on the model's scale, from a model of
    all networks of the other folds.

    Raises:
        ValueError: The space of the problem cannot be listed.
    """
    if not isinstance(problem.space, Space):
        raise ValueError(f"contestant 'oracle' needs a table of trainings, but got {problem.name}")
    domain, m = Domain(problem.space), len(problem.objectives)
    pricing, signs = Pricing(domain, problem.quote, m), [1.0 if d == "minimize" else -1.0 for d in problem.directions]
    candidates = list(problem.space.enumerate())
    entries = [pricing.exact(problem.space.values_of(candidate)) for candidate in candidates]
    known = [entry for entry in entries if entry is not None]
    assert len(known) == len(candidates), "a table's space lists only what keeps its laws"
    values = np.array([problem.curve(candidate)[-1] for candidate in candidates]) * signs
    prices = np.array([entry.prices for entry in known])
    exact = np.isfinite(prices).all(0)
    features = np.hstack((np.array([entry.row for entry in known]), scaled(prices[:, exact])))
    groups = np.append(domain.groups, domain.groups.max() + 1 + np.arange(exact.sum())).astype(np.int64)
    fold = np.random.default_rng(0).permutation(len(known)) % min(FOLDS, len(known))
    said = np.zeros((len(known), m, 2))
    for j in np.flatnonzero(~exact[:m]):
        y = Axis(signs[j], problem.optimum[j], values[:, j]).modelled(values[:, j], known, j)
        model = GaussianProcess(groups).fit(features, y, np.zeros(len(y)))
        for out in (fold == k for k in range(fold.max() + 1)):
            model.condition(features[~out], y[~out], np.zeros((~out).sum()))
            said[out, j] = np.column_stack(model.predict(features[out]))
    return {entry.quote.identity: row for entry, row in zip(known, said, strict=True)}
