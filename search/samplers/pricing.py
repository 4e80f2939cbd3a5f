"""Prices for points, within what a suggestion may cost: exact where that is cheap, guessed until it matters."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from optuna.trial import FrozenTrial

from search.samplers.domain import Domain, Point
from search.samplers.guess import Guess
from search.samplers.judge import Entry
from search.samplers.quote import Quote, QuoteOf, unknown
from search.samplers.surrogate import Array
from spaces.tree import Scalar

_CACHE = 20_000
_LESSONS = 32  # exact prices before the first guess


@runtime_checkable
class SlowQuotes(Protocol):
    """Quotes that take long enough to be guessed first; `search.samplers.quote.Quotes` are."""

    def __call__(self, built: Any) -> Quote: ...
    def identity(self, built: Any) -> str: ...
    def at_hand(self, built: Any) -> bool: ...
    def recall(self, trial: FrozenTrial, built: Any) -> None: ...
    def logs(self, built: Any) -> Array: ...
    def guessed(self, built: Any, logs: Array) -> Quote: ...


class Pricing:
    """Entries for the points of a domain.

    Args:
        quote: Prices what the domain builds; None where nothing is known.
    """

    def __init__(self, domain: Domain, quote: QuoteOf | SlowQuotes | None, objectives: int) -> None:
        self.domain = domain
        self.blind = quote is None
        """Whether nothing is priced."""
        self._quote = quote
        self._slow = quote if isinstance(quote, SlowQuotes) else None
        self._objectives = objectives
        self._guess = Guess(domain.groups)
        self._lessons = 0
        self._seen: dict[frozenset[tuple[str, Scalar]], Entry | None] = {}

    def exact(self, point: Point, built: Any = None, trial: FrozenTrial | None = None) -> Entry | None:
        """A point with its exact price; None if it breaks a law. ``trial`` may know the price."""
        key = frozenset(point.items())
        if key in self._seen:
            return self._seen[key]
        if len(self._seen) > _CACHE:
            self._seen.clear()
        entry = None
        try:
            if built is None:
                point, built = self.domain.complete(point, random.Random(0))
            if trial is not None and self._slow is not None:
                self._slow.recall(trial, built)
            entry = Entry(point, self._exact_quote(point, built), self.domain.encode(point))
            if self._slow is not None:
                self._guess.learn(entry.row, self._slow.logs(built))
                self._lessons += 1
        except ValueError:
            pass
        self._seen[key] = entry
        return entry

    def _exact_quote(self, point: Point, built: Any) -> Quote:
        if self._quote is None:
            return unknown(repr(sorted(point.items())), self._objectives)
        return self._quote(built)

    def draw(self, wanted: Sequence[Mapping[str, Scalar]], rng: random.Random) -> list[Entry]:
        """Entries for points that are completed at random; those that break a law are left out."""
        entries: list[Entry] = []
        later: list[tuple[Point, Any]] = []
        for start in wanted:
            if (filled := self.domain.fill(start, rng)) is None:
                continue
            point, built = filled
            if self._slow is None or self._lessons < _LESSONS or self._slow.at_hand(built):
                if (entry := self.exact(point, built)) is not None:
                    entries.append(entry)
            else:
                later.append(filled)
        return entries + self._guessed(later)

    def _guessed(self, filled: Sequence[tuple[Point, Any]]) -> list[Entry]:
        if not filled or self._slow is None:
            return []
        rows = np.array([self.domain.encode(point) for point, _ in filled])
        logs = self._guess(rows)
        return [
            Entry(point, self._slow.guessed(built, log), row, guessed=True)
            for (point, built), row, log in zip(filled, rows, logs, strict=True)
        ]
