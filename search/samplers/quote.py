"""What a candidate is known to cost before it is trained, as the ``priced`` sampler reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
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
        features: Further numbers for a model: logarithms of costs that are no objective, and scores.
    """

    identity: str
    values: tuple[float | None, ...]
    bounds: tuple[tuple[float, float] | None, ...]
    violation: float = 0.0
    features: tuple[float, ...] = ()


_CONSTANTS = {"threshold", "attention_threshold", "surrogate", "tau_min", "tau_max", "spacing"}

HINTS = ("parameters", "dense_macs", "state_kib")

QuoteOf = Callable[[Any], Quote]
"""Prices what a space builds; ValueError for what breaks a law."""


def unknown(identity: str, objectives: int) -> Quote:
    """The quote where nothing is known."""
    return Quote(identity, (None,) * objectives, (None,) * objectives)


class Quotes:
    """The quotes of a run: exact metrics, energy within its bounds, budgets where known.

    To price a network takes tens of milliseconds, too long for the hundreds of candidates of one suggestion. So
    prices are kept by what they depend on, and a sampler may ask for the quote that `guessed` costs would give.

    Args:
        signals: Scores of a candidate (search/signals.py) that become features; guessed as prices are.
    """

    def __init__(
        self,
        config: RunConfig,
        price: Callable[[Candidate], Cost],
        signals: Sequence[Callable[[Candidate], float]] = (),
    ) -> None:
        self._config, self._price, self._signals = config, price, signals
        self._costs: dict[str, Cost] = {}
        self._scores: dict[str, tuple[float, ...]] = {}
        self._budgets = dict(config.budgets)
        energy = self._budgets.pop("energy_mj", None)
        if energy is not None and energy.max is not None:  # the least possible energy can only break a maximum
            self._budgets["energy_mj"] = Bound(max=energy.max)

    def __call__(self, candidate: Candidate) -> Quote:
        key = _network(candidate)
        if key not in self._costs:
            self._costs[key] = self._price(candidate)
        if candidate.identity not in self._scores:
            self._scores[candidate.identity] = tuple(signal(candidate) for signal in self._signals)
        return self._quote(candidate, self._costs[key], self._scores[candidate.identity])

    def identity(self, candidate: Candidate) -> str:
        return candidate.identity

    def at_hand(self, candidate: Candidate) -> bool:
        """Whether the exact quote costs nothing: the same network was priced, and scored, before."""
        scored = not self._signals or candidate.identity in self._scores
        return scored and _network(candidate) in self._costs

    def recall(self, trial: FrozenTrial, candidate: Candidate) -> None:
        """Take the price from the record of an earlier session."""
        if _network(candidate) not in self._costs:
            record = record_of(trial)
            if record is not None and record.cost is not None:
                self._costs[_network(candidate)] = record.cost

    def logs(self, candidate: Candidate) -> npt.NDArray[np.float64]:
        """Logarithms of the costs of a priced candidate, and its scores, to learn from."""
        cost = self._costs[_network(candidate)]
        logs = np.log([max(float(getattr(cost, name)), 1e-12) for name in Cost.model_fields])
        return np.append(logs, self._scores[candidate.identity])

    def guessed(self, candidate: Candidate, logs: npt.NDArray[np.float64]) -> Quote:
        """The quote if the costs, and the scores, were these."""
        whole = {name: field.annotation is int for name, field in Cost.model_fields.items()}
        values = np.exp(logs[: len(whole)]).tolist()
        costs = {n: round(v) if whole[n] else v for n, v in zip(whole, values, strict=True)}
        return self._quote(candidate, Cost.model_validate(costs), tuple(logs[len(whole) :].tolist()))

    def _quote(self, candidate: Candidate, cost: Cost, scores: tuple[float, ...]) -> Quote:
        config, exact = self._config, priced_metrics(cost)
        known = {**exact, "energy_mj": cost.energy_mj_low}
        bounds = (cost.energy_mj_low, cost.energy_mj_high)
        return Quote(
            identity=candidate.identity,
            values=tuple(exact.get(name) for name in config.objectives),
            bounds=tuple(bounds if name == "energy_mj" else None for name in config.objectives),
            violation=violation({n: b for n, b in self._budgets.items() if n in known}, known),
            features=(*(math.log(max(exact[n], 1e-12)) for n in HINTS if n not in config.objectives), *scores),
        )


def _network(candidate: Candidate) -> str:
    """What a price depends on: the network without the constants that change no operation and no byte."""

    def stripped(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: stripped(v) for k, v in value.items() if k not in _CONSTANTS}
        return [stripped(v) for v in value] if isinstance(value, list) else value

    return json.dumps(stripped(candidate.model.model_dump(mode="json")))


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
