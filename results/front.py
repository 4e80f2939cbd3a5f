"""The Pareto front of a run: who is on it, what to take from it, and a table of it.

Only finished trials with finite objectives that keep every budget can be members. Two trials whose difference is
smaller than its 95 % confidence interval are a tie: a trial that is beaten by such differences alone stays. Nothing
here reads test metrics except to print them.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence

import numpy as np

from results.describe import describe, unit
from search.config import RunConfig
from search.metrics import METRICS, Z95
from search.pareto import Points, nondominated
from search.record import Record

Chooser = Callable[[list[Record], RunConfig], Record]


def half_width(record: Record, name: str) -> float | None:
    """Half the 95 % confidence interval of a metric; None where it is exact."""
    error = record.errors.get(name)
    return Z95 * error if error else None


def keeps_budgets(record: Record, run: RunConfig) -> bool:
    """Whether a record breaks none of the run's bounds, as far as its metrics are known."""
    known = ((bound, record.metrics[name]) for name, bound in run.budgets.items() if name in record.metrics)
    return not record.violations and all(bound.violation(value) == 0 for bound, value in known)


def finished(records: Sequence[Record], run: RunConfig) -> list[Record]:
    """The records with a full, finite measurement of every objective, whether or not they keep the budgets."""
    return [
        record
        for record in records
        if record.status == "complete"
        and record.candidate is not None
        and all(math.isfinite(record.metrics.get(name, math.nan)) for name in run.objectives)
    ]


def points(records: Sequence[Record], run: RunConfig) -> Points:
    """The objectives [n, m] as numbers to be minimised."""
    signs = [-1.0 if METRICS[name].direction == "maximize" else 1.0 for name in run.objectives]
    rows = [[sign * r.metrics[name] for sign, name in zip(signs, run.objectives, strict=True)] for r in records]
    return np.array(rows, dtype=np.float64).reshape(len(records), len(run.objectives))


def front(records: Sequence[Record], run: RunConfig) -> list[Record]:
    """The members of the Pareto front, best value of the first objective first.

    These are the trials that no other trial dominates by its estimates, and those that tie with the front: no
    member beats them in any objective by more than the 95 % confidence interval of the difference, taken as
    1.96 √(se² + se²). An objective without a standard error is exact.
    """
    pool = [record for record in finished(records, run) if keeps_budgets(record, run)]
    if not pool:
        return []
    values = points(pool, run)
    errors = np.array([[record.errors.get(name, 0.0) for name in run.objectives] for record in pool])
    strict = nondominated(values)
    keep = strict.copy()
    for i in np.flatnonzero(~strict):
        gain = values[i] - values[strict]
        noise = Z95 * np.hypot(errors[i], errors[strict])
        dominated = (gain >= 0).all(1)
        keep[i] = not ((gain > noise).any(1) & dominated).any()
    members = [pool[i] for i in np.flatnonzero(keep)]
    order = np.lexsort(points(members, run).T[::-1])
    return [members[i] for i in order]


def tied(members: Sequence[Record], run: RunConfig) -> set[int]:
    """Numbers of the members that are on the front by a tie only."""
    if not members:
        return set()
    strict = nondominated(points(members, run))
    return {record.number for record, on in zip(members, strict, strict=True) if not on}


# --- picks --------------------------------------------------------------------------------------------------


def knee(members: Sequence[Record], run: RunConfig) -> Record:
    """The member that gives the most in all objectives together.

    With every objective scaled to [0, 1] between its best and worst value on the front, the smallest sum: the point
    that bulges furthest from the plane through the ends of the front (Das 1999).
    """
    values = points(members, run)
    low, high = values.min(0), values.max(0)
    scaled = (values - low) / np.where(high > low, high - low, 1.0)
    return members[int(scaled.sum(1).argmin())]


def _best(name: str) -> Chooser:
    def choose(members: list[Record], run: RunConfig) -> Record:
        known = [record for record in members if name in record.metrics]
        if not known:
            raise ValueError(f"the run did not measure {name}; its objectives are {list(run.objectives)}")
        sign = -1.0 if METRICS[name].direction == "maximize" else 1.0
        return min(known, key=lambda record: (sign * record.metrics[name], tuple(points([record], run)[0])))

    return choose


PICKS: dict[str, Chooser] = {
    "knee": knee,
    "best-accuracy": _best("accuracy"),
    "min-energy": _best("energy_mj"),
    "min-memory": _best("memory_kib"),
}

_CONDITION = re.compile(r"^\s*([a-z_]+)\s*(<=|>=|<|>)\s*([-+0-9.eE]+)\s*$")
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def pick(records: Sequence[Record], run: RunConfig, wanted: str) -> Record:
    """The record that ``wanted`` names.

    ``wanted`` is one of `PICKS`; a condition such as ``energy_mj<0.2``, which takes the best member in the first
    objective that keeps it; or the identity of any finished trial (six digits or more).

    Raises:
        ValueError: The run has no front yet, or nothing matches; the message names the nearest.
    """
    members = front(records, run)
    if wanted in PICKS:
        return PICKS[wanted](_some(members, run), run)
    if condition := _CONDITION.match(wanted):
        return _conditional(_some(members, run), *condition.groups())
    if re.fullmatch(r"[0-9a-f]{6,12}", wanted):
        matches = {r.identity: r for r in finished(records, run) if r.identity.startswith(wanted)}
        if len(matches) == 1:
            return next(iter(matches.values()))
        if len(matches) > 1:
            raise ValueError(f"{wanted!r} fits {len(matches)} trials: {sorted(matches)}")
        nearest = min((r.identity for r in _some(members, run)), key=lambda name: -_common(name, wanted))
        raise ValueError(f"no finished trial has the identity {wanted!r}; the nearest on the front is {nearest!r}")
    raise ValueError(
        f'a pick is one of {sorted(PICKS)}, an identity, or a condition like "energy_mj<0.2", but got {wanted!r}'
    )


def _some(members: list[Record], run: RunConfig) -> list[Record]:
    if not members:
        raise ValueError(
            f"run {run.name!r} has no finished trial that keeps its budgets, so there is nothing to pick"
        )
    return members


def _common(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _conditional(members: list[Record], name: str, sign: str, limit: str) -> Record:
    try:
        bound = float(limit)
    except ValueError:
        raise ValueError(f"a condition compares with a number, but got {limit!r}") from None
    known = [record for record in members if name in record.metrics]
    if not known:
        raise ValueError(f"a condition is on one of {sorted(members[0].metrics)}, but got {name!r}")
    for record in known:  # best first
        if _COMPARE[sign](record.metrics[name], bound):
            return record
    nearest = min(known, key=lambda record: abs(record.metrics[name] - bound))
    raise ValueError(
        f"nothing on the front has {name}{sign}{bound:g}; the nearest is {nearest.identity} "
        f"with {name}={nearest.metrics[name]:.4g}"
    )


def picks_of(members: list[Record], run: RunConfig) -> dict[int, list[str]]:
    """Which named picks fall on which member, by trial number."""
    found: dict[int, list[str]] = {}
    for name, choose in PICKS.items():
        try:
            found.setdefault(choose(members, run).number, []).append(name)
        except ValueError:  # that metric is not part of this run
            continue
    return found


# --- the table ----------------------------------------------------------------------------------------------


def columns(members: Sequence[Record], run: RunConfig) -> dict[str, list[str]]:
    """The front as columns of text: objectives with 95 % intervals, test values where measured, network, identity."""
    cells: dict[str, list[str]] = {}
    for name in run.objectives:
        best = unit(name, [record.metrics[name] for record in members])
        title = name.removesuffix("_mj").removesuffix("_kib")
        cells[f"{title} [{best.label}]" if best.label else title] = [
            best.interval(record.metrics[name], half_width(record, name)) for record in members
        ]
        tests = [(record.test or {}).get(name) for record in members]
        if name == "accuracy" and any(value is not None for value in tests):
            cells["test [%]"] = ["-" if value is None else best.number(value) for value in tests]
    cells["network"] = [describe(record.candidate) for record in members if record.candidate]
    cells["id"] = [record.identity for record in members]
    chosen = picks_of(list(members), run)
    cells["pick"] = [", ".join(chosen.get(record.number, [])) for record in members]
    return cells


def interval(members: Sequence[Record]) -> str:
    """What the ± of these records is."""
    text = "± is half a 95 % confidence interval over validation images"
    if repeated := [record.seeds for record in members if record.seeds > 1]:
        text += f"; {len(repeated)} of {len(members)} are means of {min(repeated)} fresh seeds, with their scatter"
    return text


def table(records: Sequence[Record], run: RunConfig) -> str:
    """The front for a terminal; one sentence where there is none yet."""
    members = front(records, run)
    if not members:
        return f"No finished trial keeps the budgets yet ({len(finished(records, run))} finished)."
    cells = columns(members, run)
    widths = {title: max(len(title), *map(len, column)) for title, column in cells.items()}
    numeric = [title for title in cells if title not in ("network", "id", "pick")]
    lines = ["  ".join(f"{t:>{w}}" if t in numeric else f"{t:<{w}}" for t, w in widths.items()).rstrip()]
    lines.append("  ".join("─" * width for width in widths.values()))
    for row in zip(*cells.values(), strict=True):
        parts = zip(row, widths.items(), strict=True)
        lines.append("  ".join(f"{c:>{w}}" if t in numeric else f"{c:<{w}}" for c, (t, w) in parts).rstrip())
    notes = [interval(members)]
    if marks := tied(members, run):
        notes.append(f"{len(marks)} of {len(members)} are here because they tie with a better one")
    return "\n".join([*lines, "; ".join(notes) + "."])
