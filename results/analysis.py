"""What a run teaches: hypervolume as it grew, what the front shares, which choices matter, how trials ended."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from results.describe import Feature, features
from results.front import finished, keeps_budgets, points
from search.config import RunConfig
from search.metrics import METRICS
from search.pareto import Points, hypervolume
from search.record import Record

MIN_TRIALS = 20  # below this, a model of the objectives says nothing
REPEATS = 5


@dataclass(frozen=True)
class Frame:
    """The box in which hypervolume is measured: objectives are scaled to 0 at ``ideal`` and 1 at ``worst``."""

    ideal: Points
    worst: Points

    def scaled(self, values: Points) -> Points:
        """``values`` [n, m] with the ideal at 0 and the worst at 1."""
        span = np.where(self.worst > self.ideal, self.worst - self.ideal, 1.0)
        scaled: Points = (values - self.ideal) / span
        return scaled

    def volume(self, values: Points) -> float:
        """Share of the box that ``values`` [n, m] dominate; the reference point lies 10 % beyond the worst."""
        m = len(self.ideal)
        return hypervolume(self.scaled(values), np.full(m, 1.1)) / 1.1**m


def frame(values: Points) -> Frame:
    """The box around all of ``values`` [n, m], n ≥ 1."""
    return Frame(values.min(0), values.max(0))


@dataclass(frozen=True)
class Step:
    """The state of a search when one of its trials ended."""

    trials: int
    epochs: int
    seconds: float
    hypervolume: float


def progress(records: Sequence[Record], run: RunConfig, box: Frame | None = None) -> list[Step]:
    """Hypervolume after each trial, with what had been spent by then. Empty without a feasible trial."""
    members = [record for record in finished(records, run) if keeps_budgets(record, run)]
    if not members:
        return []
    box = box or frame(points(members, run))
    counted = {record.number for record in members}
    ended = [record for record in records if record.status not in ("running", "waiting")]
    ended.sort(key=lambda record: (record.started + record.seconds, record.number))
    begin = min((r.started for r in ended if r.started > 0), default=0.0)
    steps: list[Step] = []
    reached = np.empty((0, len(run.objectives)))
    volume, epochs, clock = 0.0, 0, 0.0
    for count, record in enumerate(ended, 1):
        epochs += len(record.history)
        clock = max(clock, record.started + record.seconds - begin)
        if record.number in counted:
            point = points([record], run)
            if not (reached <= point).all(1).any():
                reached = np.vstack([reached[~(point <= reached).all(1)], point])
                volume = box.volume(reached)
        steps.append(Step(count, epochs, clock, volume))
    return steps


@dataclass(frozen=True)
class Ending:
    """Trials that ended in the same way for the same reason, numbers in it aside."""

    status: str
    count: int
    example: str
    trials: tuple[int, ...]


def endings(records: Sequence[Record]) -> list[Ending]:
    """Why trials did not finish, most frequent first within each status."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.status not in ("complete", "running", "waiting", "duplicate"):
            reason = record.reason or "no reason was recorded"
            groups.setdefault((record.status, re.sub(r"[-+]?\d[\d.,e+-]*", "#", reason)), []).append(record)
    found = [
        Ending(status, len(same), same[0].reason or "no reason was recorded", tuple(r.number for r in same))
        for (status, _), same in groups.items()
    ]
    return sorted(found, key=lambda ending: (ending.status, -ending.count))


# --- choices ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Common:
    """A choice that the front makes more often than the other finished trials."""

    text: str
    front: int
    front_of: int
    rest: int
    rest_of: int

    @property
    def gain(self) -> float:
        return self.front / self.front_of - self.rest / self.rest_of


def commons(records: Sequence[Record], run: RunConfig, members: Sequence[Record], limit: int = 8) -> list[Common]:
    """The choices by which the front differs most from the rest of the finished trials."""
    on = {record.number for record in members}
    everyone = [(r.number in on, features(r.candidate)) for r in finished(records, run) if r.candidate]
    front = [f for member, f in everyone if member]
    rest = [f for member, f in everyone if not member]
    if not front or not rest:
        return []
    found = []
    for name in sorted({key for _, f in everyone for key in f}):
        labels = _labels(name, [f.get(name) for _, f in everyone])
        mine = Counter(label for label, (member, _) in zip(labels, everyone, strict=True) if member)
        others = Counter(label for label, (member, _) in zip(labels, everyone, strict=True) if not member)
        label = max(mine, key=lambda text: (mine[text] / len(front) - others[text] / len(rest), text))
        found.append(Common(label, mine[label], len(front), others[label], len(rest)))
    texts = {common.text for common in found}
    noticed = [
        common
        for common in found
        if common.gain >= 0.15
        and common.front * 2 >= common.front_of
        and not (common.text.startswith("only ") and f"operators = {common.text[5:]}" in texts)  # says the same
    ]
    return sorted(noticed, key=lambda common: (-common.gain, common.text))[:limit]


def _labels(name: str, values: list[Feature | None]) -> list[str]:
    """``name=value``; real numbers with many values are cut into thirds."""
    known = [v for v in values if v is not None]
    if len(set(known)) <= 8 or not all(isinstance(v, int | float) for v in known):
        return [_label(name, v) for v in values]
    low, high = np.quantile([float(v) for v in known], [1 / 3, 2 / 3])
    texts = (f"{name} ≤ {low:.3g}", f"{low:.3g} < {name} ≤ {high:.3g}", f"{name} > {high:.3g}")

    def third(value: Feature | None) -> str:
        if value is None:
            return f"no {name}"
        return texts[0] if float(value) <= low else texts[1] if float(value) <= high else texts[2]

    return [third(value) for value in values]


def _label(name: str, value: Feature | None) -> str:
    what = name.removeprefix("share of ")
    if value is None or (what != name and value == 0):
        return f"no {what}"
    if what != name:
        return f"only {what}" if value == 1 else f"{value:.0%} {what}"
    return f"{name} = {value:.3g}" if isinstance(value, float) else f"{name} = {value}"


@dataclass(frozen=True)
class Importance:
    """How much of one objective the choices explain.

    Attributes:
        explained: R² of the model on held-out trials; the rest below means nothing where this is small.
        shares: Choice → loss of R² when its values are shuffled, with the deviation over repeats; largest first.
    """

    objective: str
    explained: float
    shares: tuple[tuple[str, float, float], ...]


def importances(records: Sequence[Record], run: RunConfig, seed: int = 0) -> list[Importance]:
    """Permutation importance of every choice for every objective, by a random forest on the finished trials.

    A third of the trials (at most 500) is held out; what is shuffled is always held out (Breiman 2001). Costs are
    modelled on a logarithmic scale. Empty below `MIN_TRIALS` finished trials.
    """
    pool = [record for record in finished(records, run) if record.candidate is not None]
    if len(pool) < MIN_TRIALS:
        return []
    names, table = _encoded([features(r.candidate) for r in pool if r.candidate])
    if not names:
        return []
    rows = np.random.default_rng(seed).permutation(len(pool))
    cut = min(len(rows) // 3, 500)
    train, held = rows[cut:], rows[:cut]
    found = []
    for objective in run.objectives:
        values = np.array([record.metrics[objective] for record in pool])
        if METRICS[objective].direction == "minimize" and (values > 0).all():
            values = np.log(values)
        found.append(_importance(objective, names, table, values, train, held, seed))
    return found


def _importance(
    objective: str,
    names: list[str],
    table: Points,
    values: Points,
    train: np.ndarray[tuple[int], np.dtype[np.int64]],
    held: np.ndarray[tuple[int], np.dtype[np.int64]],
    seed: int,
) -> Importance:
    from sklearn.ensemble import RandomForestRegressor  # half a second that a front table need not wait for

    forest = RandomForestRegressor(n_estimators=64, min_samples_leaf=2, random_state=seed, n_jobs=1)
    forest.fit(table[train], values[train])
    rng = np.random.default_rng(seed)
    rows = np.tile(table[held], (len(names), REPEATS, 1, 1))  # [feature, repeat, trial, feature]
    for i, repeats in enumerate(rows):
        for repeat in repeats:
            repeat[:, i] = rng.permutation(repeat[:, i])
    guesses = forest.predict(np.concatenate([table[held], rows.reshape(-1, len(names))]))  # one call: it has overhead
    truth = values[held]
    total = float(((truth - truth.mean()) ** 2).sum())
    if total == 0:
        return Importance(objective, 0.0, ())
    errors = ((guesses.reshape(-1, len(held)) - truth) ** 2).sum(1) / total
    loss = errors[1:].reshape(len(names), REPEATS) - errors[0]
    order = np.argsort(-loss.mean(1), kind="stable")
    shares = tuple((names[i], float(loss[i].mean()), float(loss[i].std())) for i in order)
    return Importance(objective, float(1 - errors[0]), shares)


def _encoded(rows: list[dict[str, Feature]]) -> tuple[list[str], Points]:
    """Features that vary, as numbers: words by rank, absent as -1."""
    names = sorted({name for row in rows for name in row})
    columns: dict[str, list[float]] = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if len(set(values)) < 2:
            continue
        words = sorted({v for v in values if isinstance(v, str)})
        columns[name] = [
            -1.0 if v is None else float(words.index(v)) if isinstance(v, str) else float(v) for v in values
        ]
    return list(columns), np.array(list(columns.values()), dtype=np.float64).T.reshape(len(rows), len(columns))
