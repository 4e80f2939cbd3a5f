"""What a candidate is known to cost before it is trained, as the ``priced`` sampler reads it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from search.config import Bound, RunConfig
from search.metrics import METRICS, priced_metrics
from search.scheduler import violation
from search.study import record_of
from spaces.config import Candidate
from spaces.cost import Cost


@dataclass(frozen=True)
class Quote:
    """What is known of a candidate before it is trained.

    Attributes:
        identity: Equal for candidates that build the same.
        values: Exact value per objective, in the study's order and direction; None for what must be measured.
        bounds: Lowest and highest possible value of what must be measured, where known.
        violation: Total by which budgets are broken for certain; 0 if none is.
        features: Further numbers for a model: logarithms of costs that are no objective.
    """

    identity: str
    values: tuple[float | None, ...]
    bounds: tuple[tuple[float, float] | None, ...]
    violation: float = 0.0
    features: tuple[float, ...] = ()


HINTS = ("parameters", "dense_macs", "state_kib")

QuoteOf = Callable[[Any], Quote]
"""Prices what a space builds; ValueError for what breaks a law."""


def unknown(identity: str, objectives: int) -> Quote:
    """The quote where nothing is known."""
    return Quote(identity, (None,) * objectives, (None,) * objectives)


def quotes(config: RunConfig, price: Callable[[Candidate], Cost]) -> QuoteOf:
    """The quotes of a run: exact metrics from ``price``, energy within its bounds, budgets where known."""

    budgets = dict(config.budgets)
    if (energy := budgets.pop("energy_mj", None)) is not None and energy.max is not None:
        budgets["energy_mj"] = Bound(max=energy.max)  # the least energy that is possible can only break a maximum

    def quote(candidate: Candidate) -> Quote:
        cost = price(candidate)
        exact = priced_metrics(cost)
        known = {**exact, "energy_mj": cost.energy_mj_low}
        bounds = (cost.energy_mj_low, cost.energy_mj_high)
        return Quote(
            identity=candidate.identity,
            values=tuple(exact.get(name) for name in config.objectives),
            bounds=tuple(bounds if name == "energy_mj" else None for name in config.objectives),
            violation=violation({n: b for n, b in budgets.items() if n in known}, known),
            features=tuple(math.log(max(exact[n], 1e-12)) for n in HINTS if n not in config.objectives),
        )

    return quote


def optima(config: RunConfig) -> tuple[float, ...]:
    """The best imaginable value per objective: 1 for what is maximised (a share), 0 for a cost."""
    return tuple(1.0 if METRICS[name].direction == "maximize" else 0.0 for name in config.objectives)


def curves(config: RunConfig) -> Callable[[FrozenTrial], dict[int, list[float]]]:
    """Reads the objectives by epoch from a trial's record."""

    def curve(trial: FrozenTrial) -> dict[int, list[float]]:
        record = record_of(trial)
        if record is None:
            return {}
        exact = priced_metrics(record.cost) if record.cost is not None else {}
        rows = {epoch.epoch: {**exact, **epoch.metrics} for epoch in record.history}
        return {
            epoch: [metrics[name] for name in config.objectives]
            for epoch, metrics in rows.items()
            if all(name in metrics for name in config.objectives)
        }

    return curve
