"""What a candidate promises: models of what is uncertain, and the expected gain of the front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from search.pareto import Points, nondominated, ranks
from search.samplers.domain import Point
from search.samplers.improvement import expected_improvement, free_boxes
from search.samplers.quote import Quote
from search.samplers.surrogate import Array, GaussianProcess, Ints

QUANTILES = ndtri((np.arange(16) + 0.5) / 16)
LIMIT = 300  # observations that a model takes: a Cholesky factor of them costs some milliseconds


@dataclass(frozen=True, eq=False)
class Entry:
    """A priced point.

    Attributes:
        row: Features of the point [d].
        guessed: Whether the quote is a guess, to be replaced before the point is trained.
        prices: Logarithms of its exact values, NaN for what must be measured, and its further features [m + h].
        low, span: Bounds of what must be measured [m]: lower end and width, infinite where there are none.
    """

    point: Point
    quote: Quote
    row: Array
    guessed: bool = False
    prices: Array = field(init=False)
    low: Array = field(init=False)
    span: Array = field(init=False)

    def __post_init__(self) -> None:
        quote = self.quote
        logs = [math.nan if v is None else math.log(abs(v) + 1e-12) for v in quote.values]
        ends = [(0.0, math.inf) if b is None or b[1] <= b[0] else b for b in quote.bounds]
        object.__setattr__(self, "prices", np.array([*logs, *quote.features]))
        object.__setattr__(self, "low", np.array([low for low, _ in ends]))
        object.__setattr__(self, "span", np.array([high - low for low, high in ends]))


@dataclass
class Known:
    """Trials so far. ``values`` are minimised, and final only for ``complete``.

    Attributes:
        complete: Trained in full, with finite values [n, m] and the constraints that they were told.
        stopped: Ended early; ``curves`` has their values by epoch, as it has those of complete trials.
        broken: Failed as candidates (out of memory, diverged), by the name of what they broke.
        pending: On their way.
    """

    complete: list[Entry] = field(default_factory=list)
    values: Points = field(default_factory=lambda: np.zeros((0, 0)))
    constraints: list[Mapping[str, float]] = field(default_factory=list)
    curves: list[Mapping[int, Sequence[float]]] = field(default_factory=list)
    stopped: list[Entry] = field(default_factory=list)
    stopped_curves: list[Mapping[int, Sequence[float]]] = field(default_factory=list)
    broken: list[tuple[Entry, Mapping[str, float]]] = field(default_factory=list)
    pending: list[Entry] = field(default_factory=list)

    @property
    def started(self) -> int:
        return len(self.complete) + len(self.stopped) + len(self.broken) + len(self.pending)

    def entries(self) -> list[Entry]:
        return self.complete + self.stopped + [entry for entry, _ in self.broken] + self.pending

    def violations(self) -> npt.NDArray[np.float64]:
        """Total by which each complete trial breaks its constraints."""
        return np.array([sum(max(v, 0.0) for v in c.values()) for c in self.constraints])


class Axis:
    """One objective: the scale on which points are compared, and the scale on which it is modelled.

    With a known optimum the distance to it is compared on a logarithmic scale: a factor is worth the same
    everywhere. Where a measured value has bounds (energy between no spike and all spikes) the logarithm of its
    place between them is modelled: the firing rate, instead of the size of the network, which is known.
    """

    def __init__(self, sign: float, optimum: float | None, values: Array) -> None:
        self._sign = sign
        self._optimum = None if optimum is None else sign * optimum
        self._offset = 0.0
        if self._optimum is not None:
            distance = values - self._optimum
            positive = distance[distance > 0]
            if (distance <= 0).any():  # half a step beyond the best value that was told apart from the optimum
                self._offset = 0.5 * float(positive.min()) if len(positive) else 1.0

    def compared(self, values: Array) -> Array:
        if self._optimum is None:
            return values
        return np.log(np.maximum(values - self._optimum + self._offset, 1e-12))

    def modelled(self, values: Array, entries: Sequence[Entry], j: int) -> Array:
        """Values [n] of entries on the model's scale."""
        low, span = self._bounds(entries, j)
        with np.errstate(divide="ignore", invalid="ignore"):
            place = np.log(np.clip((values - low) / span, 1e-6, None))
        return np.where(np.isfinite(span), place, self.compared(values))

    def compared_from_model(self, z: Array, entries: Sequence[Entry], j: int) -> Array:
        """``z`` [n, s] on the model's scale as values on the compared one."""
        low, span = (column[:, None] for column in self._bounds(entries, j))
        bounded = np.isfinite(span[:, 0])
        out = z.copy()
        out[bounded] = self.compared(low[bounded] + span[bounded] * np.exp(np.minimum(z[bounded], 0.7)))
        return out

    def _bounds(self, entries: Sequence[Entry], j: int) -> tuple[Array, Array]:
        """The lower bound of the minimised value and the width."""
        low = np.array([entry.low[j] for entry in entries])
        span = np.array([entry.span[j] for entry in entries])
        with np.errstate(invalid="ignore"):
            return (low if self._sign > 0 else -(low + span)), span


class Judge:
    """Models fitted to what is known, ready to score candidates.

    Args:
        signs: 1 for an objective to be minimised, -1 for one to be maximised.
        optimum: Best imaginable value per objective, or None.
        groups: Length-scale group of each feature of an entry.
        known: The trials.
        around: Candidates, which fix the range of the prices.
        thetas: Constants of earlier models by name; updated.
    """

    def __init__(
        self,
        signs: Array,
        optimum: Sequence[float | None] | None,
        groups: Ints,
        known: Known,
        around: Sequence[Entry],
        thetas: dict[str, Array],
    ) -> None:
        self._known, self._thetas = known, thetas
        everything = [*known.entries(), *around]
        m = len(signs)
        prices = np.array([entry.prices for entry in everything])
        self._priced = np.isfinite(prices).all(0)
        self._exact = self._priced[:m].tolist()
        prices = prices[:, self._priced]
        self._low, self._span = prices.min(0), np.ptp(prices, axis=0)
        self._span[self._span == 0] = 1.0
        first = int(groups.max(initial=-1)) + 1
        self._groups = np.append(groups, first + np.arange(prices.shape[1])).astype(np.int64)
        self._signs = signs
        best = [None] * m if optimum is None else list(optimum)
        self._axes = [Axis(signs[j], best[j], known.values[:, j]) for j in range(m)]
        self._chosen = _subset(known.values, LIMIT - min(len(known.stopped), LIMIT // 2))
        self._models = [None if self._exact[j] else self._objective(j) for j in range(m)]
        self._chances = self._constraint_models()
        self._boxes = self._free(everything)

    # --- features ---------------------------------------------------------------------------------------------

    def _features(self, entries: Sequence[Entry]) -> Array:
        rows = np.array([entry.row for entry in entries])
        prices = np.array([entry.prices for entry in entries])[:, self._priced]
        return np.hstack((rows, (prices - self._low) / self._span))

    # --- models -----------------------------------------------------------------------------------------------

    def _objective(self, j: int) -> GaussianProcess:
        """The model of one measured objective, conditioned on its own guesses for what is on its way."""
        known, axis = self._known, self._axes[j]
        target = axis.modelled(known.values[:, j], known.complete, j)
        entries, extra = list(known.complete), np.zeros(len(target))
        guessed, values, variance = self._extrapolated(j, target)
        afresh = (len(entries) + len(guessed)) % 4 == 0
        chosen = self._chosen
        entries = [entries[i] for i in chosen] + guessed[-(LIMIT // 2) :]
        target = np.append(target[chosen], values[-(LIMIT // 2) :])
        extra = np.append(extra[chosen], variance[-(LIMIT // 2) :])
        model = self._fit(f"objective {j}", entries, target, extra, afresh)
        if known.pending:
            features = self._features(known.pending)
            guess, _ = model.predict(features)
            model.condition(
                np.vstack((self._features(entries), features)),
                np.append(target, guess),
                np.append(extra, np.zeros(len(guess))),
            )
        return model

    def _fit(self, name: str, entries: Sequence[Entry], target: Array, extra: Array, afresh: bool) -> GaussianProcess:
        theta = self._thetas.get(name)
        if theta is not None and len(theta) != int(self._groups.max()) + 3:
            theta = None
        model = GaussianProcess(self._groups, theta).fit(self._features(entries), target, extra, afresh)
        assert model.theta is not None
        self._thetas[name] = model.theta
        return model

    def _extrapolated(self, j: int, final: Array) -> tuple[list[Entry], Array, Array]:
        """What stopped trials would have reached: a line from their last epoch to the end, fitted on complete ones.

        The line's slope is drawn to 1; its residual variance is the noise of the guess.
        """
        known, axis = self._known, self._axes[j]
        entries: list[Entry] = []
        values: list[float] = []
        variances: list[float] = []
        lines: dict[int, tuple[float, float, float] | None] = {}
        for entry, curve in zip(known.stopped, known.stopped_curves, strict=True):
            epoch = max(curve, default=0)
            if epoch not in lines:
                lines[epoch] = self._line(epoch, j, final)
            line = lines[epoch]
            if line is None:
                continue
            there = axis.modelled(np.array([curve[epoch][j]]), [entry], j)[0]
            entries.append(entry)
            values.append(line[0] + line[1] * there)
            variances.append(line[2])
        return entries, np.array(values), np.array(variances)

    def _line(self, epoch: int, j: int, final: Array) -> tuple[float, float, float] | None:
        known, axis = self._known, self._axes[j]
        rows = [i for i, curve in enumerate(known.curves) if epoch in curve]
        if len(rows) < 3:
            return None
        partial = np.array([known.curves[i][epoch][j] for i in rows])
        x = axis.modelled(partial, [known.complete[i] for i in rows], j)
        y = final[rows]
        spread = ((x - x.mean()) ** 2).sum() + 1e-12
        ridge = spread / len(rows)
        slope = (((x - x.mean()) * (y - y.mean())).sum() + ridge) / (spread + ridge)
        left = y - y.mean() - slope * (x - x.mean())
        return float(y.mean() - slope * x.mean()), float(slope), float((left**2).sum() / (len(rows) - 2))

    def _constraint_models(self) -> list[GaussianProcess]:
        """One model per constraint that was broken at least once; its sign says whether it is kept."""
        known, models = self._known, []
        told = [*known.constraints, *(broken for _, broken in known.broken)]
        entries = [*known.complete, *(entry for entry, _ in known.broken)]
        for name in sorted({name for c in told for name, value in c.items() if value > 0}):
            budget = any(name in c for c in known.constraints)
            rows = [i for i, c in enumerate(told) if name in c or not budget]
            afresh, rows = len(rows) % 4 == 0, rows[-LIMIT:]
            target = np.array([told[i].get(name, -1.0) for i in rows])
            if len(rows) > 1:
                models.append(self._fit(name, [entries[i] for i in rows], target, np.zeros(len(rows)), afresh))
        return models

    # --- the front --------------------------------------------------------------------------------------------

    def _free(self, everything: Sequence[Entry]) -> tuple[Points, Points]:
        """What can still be gained, as boxes.

        Where nothing is priced, nobody says what the worst acceptable values are, and the reference decides: far out,
        the ends of the front are worth everything, close by, its middle is. So every second trial has it close by.
        """
        known = self._known
        close = known.started % 2 == 1 and not any(self._exact)
        keeps = known.violations() <= 0
        reached = np.column_stack([axis.compared(known.values[:, j]) for j, axis in enumerate(self._axes)])
        near = _clear_front(reached[keeps] if keeps.any() else reached) if close else reached
        columns, reference = [], []
        for j, axis in enumerate(self._axes):
            if self._exact[j]:
                worst = axis.compared(self._price(everything, j)).max()
            else:
                worst = near[:, j].max() + 0.1 * (np.ptp(near[:, j]) or np.ptp(reached[:, j]))
            expected = self._draws(known.pending, j).mean(1) if known.pending else np.zeros(0)
            columns.append(np.append(reached[keeps, j], expected))
            reference.append(worst)
        return free_boxes(np.column_stack(columns), np.array(reference))

    def _price(self, entries: Sequence[Entry], j: int) -> Array:
        return np.array([self._signs[j] * (e.quote.values[j] or 0.0) for e in entries])

    def _draws(self, entries: Sequence[Entry], j: int) -> Array:
        """Equally likely values on the compared scale [n, s]; s is 1 where the price is exact."""
        model, axis = self._models[j], self._axes[j]
        if model is None:
            return axis.compared(self._price(entries, j))[:, None]
        mean, sd = model.predict(self._features(entries))
        return axis.compared_from_model(mean[:, None] + sd[:, None] * QUANTILES, entries, j)

    def score(self, entries: Sequence[Entry]) -> npt.NDArray[np.float64]:
        """Expected gain in hypervolume of each candidate, times its chance to keep every measured budget [n]."""
        gain = expected_improvement([self._draws(entries, j) for j in range(len(self._axes))], self._boxes)
        if not self._chances:
            return gain
        features = self._features(entries)
        chance = np.ones(len(entries))
        for model in self._chances:
            mean, sd = model.predict(features)
            chance *= ndtr(-mean / sd)
        if not (self._known.violations() <= 0).any():
            gain = 1e-3 + gain / max(gain.max(), 1e-12)  # first something that keeps the budgets
        scored: Array = gain * chance
        return scored


def _clear_front(values: Points) -> Points:
    """The front without those members that another one beats clearly (8 % of the front's range) in one objective and
    equals nearly (2 %) in all others."""
    front = values[nondominated(values)]
    span = np.ptp(front, axis=0)
    scaled = (front - front.min(0)) / np.where(span > 0, span, 1.0)
    near = (scaled[None] <= scaled[:, None] + 0.02).all(-1)
    clear = (scaled[None] < scaled[:, None] - 0.08).any(-1)
    kept: Points = front[~(near & clear).any(1)]
    return kept if len(kept) else front


def _subset(values: Points, limit: int) -> npt.NDArray[np.int64]:
    """The best ranks for one half, an even sample of the rest for the other."""
    if len(values) <= limit:
        return np.arange(len(values))
    order = np.argsort(ranks(values), kind="stable")
    best, rest = order[: limit // 2], np.sort(order[limit // 2 :])
    even = np.linspace(0, len(rest) - 1, limit - len(best)).astype(np.int64)
    return np.sort(np.append(best, rest[even]))
