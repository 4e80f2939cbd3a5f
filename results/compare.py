"""Several runs side by side: fronts in one picture, hypervolume in one box, attainment over seeds."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from results.analysis import Frame, frame
from results.describe import unit
from results.front import finished, front, keeps_budgets, points
from search import folder as layout
from search.config import RunConfig
from search.metrics import METRICS
from search.pareto import Points, nondominated
from search.record import Record
from search.study import records as read_records

_FREE = {"name", "seed", "storage", "storage_path", "data_dir", "resources", "loggers"}


@dataclass(frozen=True)
class Entry:
    """One run of a comparison."""

    name: str
    run: RunConfig
    records: Sequence[Record]
    members: Sequence[Record]

    @property
    def setting(self) -> str:
        """Equal for runs that differ in their seed only."""
        content = self.run.model_dump(mode="json", exclude=_FREE)
        if isinstance(content["space"], dict):  # resolved: the seed of the run is that of its trainings
            content["space"].get("training", {}).pop("seed", None)
        return json.dumps(content, sort_keys=True)


def read(folders: Sequence[Path]) -> list[Entry]:
    """The runs in ``folders``.

    Raises:
        ValueError: Fewer than two, one has no front, or they cannot be compared (other objectives, data or energy
            model): what differs.
    """
    if len(folders) < 2:
        raise ValueError(f"a comparison needs at least 2 runs, but got {len(folders)}")
    entries = []
    for folder in folders:
        run, records = layout.load(folder), read_records(folder)
        members = front(records, run)
        if not members:
            raise ValueError(f"{folder} has no finished trial that keeps its budgets, so it has no front to compare")
        entries.append(Entry(str(folder), run, records, members))
    first = entries[0].run
    for entry in entries[1:]:
        for key in ("objectives", "data", "profile", "convention"):
            here, there = getattr(first, key), getattr(entry.run, key)
            if here != there:
                raise ValueError(f"runs can be compared if {key} is equal, but got {here!r} and {there!r}")
    return entries


def common_frame(entries: Sequence[Entry]) -> Frame:
    """The box around every finished trial of every run that keeps the budgets of its run."""
    pools = [[r for r in finished(e.records, e.run) if keeps_budgets(r, e.run)] for e in entries]
    return frame(np.concatenate([points(pool, e.run) for pool, e in zip(pools, entries, strict=True)]))


def summary(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """One row per run: hypervolume in the common box, and what it cost to get there."""
    box = common_frame(entries)
    return [
        {
            "run": entry.name,
            "seed": entry.run.seed,
            "sampler": entry.run.sampler.name,
            "trials": len(entry.records),
            "epochs": sum(len(record.history) for record in entry.records),
            "front": len(entry.members),
            "hypervolume": box.volume(points(entry.members, entry.run)),
        }
        for entry in entries
    ]


def groups(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Runs that differ in their seed only, under the name of the first."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.setting, []).append(entry)
    return {same[0].name: same for same in found.values()}


def attainment(fronts: Sequence[Points], share: float, grid: Points) -> Points:
    """The best second objective that a ``share`` of the runs attains at each value of the first.

    Empirical attainment surface (Grunert da Fonseca et al. 2001) in two objectives, both minimised.

    Args:
        fronts: One [n, 2] per run.
        grid: Values of the first objective [g].

    Returns:
        [g]; infinite where too few runs have any point that far left.
    """
    best = np.full((len(fronts), len(grid)), np.inf)
    for row, values in zip(best, fronts, strict=True):
        reached = values[:, None, 0] <= grid[None]
        row[:] = np.where(reached, values[:, None, 1], np.inf).min(0)
    need = max(int(np.ceil(share * len(fronts))), 1)
    surface: Points = np.sort(best, 0)[need - 1]
    return surface


def picture(entries: Sequence[Entry]) -> bytes:
    """PNG: every other objective against the first; median attainment and the range over seeds per group."""
    objectives = entries[0].run.objectives
    others = objectives[1:] or objectives
    figure = Figure(figsize=(5.2 * len(others), 4.2), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(others), squeeze=False)[0]
    for axis, cost in zip(axes, others, strict=True):
        _panel(axis, entries, objectives[0], cost)
    axes[0].legend(fontsize=8, frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
    return out.getvalue()


def _panel(axis: Any, entries: Sequence[Entry], first: str, cost: str) -> None:
    everyone = [record for entry in entries for record in entry.members]
    units = {name: unit(name, [record.metrics[name] for record in everyone]) for name in (first, cost)}
    sign = -1.0 if METRICS[first].direction == "maximize" else 1.0
    side = -1.0 if METRICS[cost].direction == "maximize" else 1.0

    def plane(entry: Entry) -> Points:
        both = np.array([[side * r.metrics[cost], sign * r.metrics[first]] for r in entry.members])
        return both[nondominated(both)]

    grid = np.unique(np.concatenate([plane(entry)[:, 0] for entry in entries]))
    for index, (name, same) in enumerate(groups(entries).items()):
        colour = f"C{index}"
        fronts = [plane(entry) for entry in same]
        median = attainment(fronts, 0.5, grid)
        label = f"{name} ({len(same)} seeds)" if len(same) > 1 else name
        x, y = side * grid * units[cost].scale, sign * median * units[first].scale
        shown = np.isfinite(median)
        axis.step(x[shown], y[shown], where="post", c=colour, lw=1.8, label=label)
        if len(same) > 1:
            low, high = attainment(fronts, 1.0, grid), attainment(fronts, 0.0, grid)
            ok = np.isfinite(low)
            ends = [sign * values[ok] * units[first].scale for values in (low, high)]
            axis.fill_between(x[ok], *ends, step="post", color=colour, alpha=0.15, lw=0)
        for values in fronts:
            dots = (side * values[:, 0] * units[cost].scale, sign * values[:, 1] * units[first].scale)
            axis.scatter(*dots, s=18, c=colour, lw=0)
    axis.set_xlabel(f"{cost.removesuffix('_mj').removesuffix('_kib')} [{units[cost].label}]")
    axis.set_ylabel(f"{first} [{units[first].label}]")
    if side > 0 and (grid > 0).all() and grid.max() > 5 * grid.min():
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, lw=0.6)
