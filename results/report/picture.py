"""The front as one PNG for papers and READMEs."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from results.describe import Unit, unit
from results.front import finished, front, half_width, keeps_budgets, points
from search.config import RunConfig
from search.metrics import METRICS
from search.pareto import nondominated
from search.record import Record

GREY, INK, CROSS = "#b9bec7", "#1d2430", "#d98c8c"


def png(records: Sequence[Record], run: RunConfig) -> bytes:
    """PNG bytes: one panel per pair of objectives, the third as colour, errors as 95 % intervals."""
    pairs = list(itertools.combinations(run.objectives, 2)) or [(run.objectives[0], run.objectives[0])]
    columns = min(len(pairs), 3)
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.9 * rows), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    units = {name: unit(name, [r.metrics[name] for r in finished(records, run)]) for name in run.objectives}
    for axis, (y, x) in zip(axes.flat, pairs, strict=False):
        _panel(figure, axis, records, run, x, y, units)
    entries = {text: mark for axis in axes.flat for mark, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(
        entries.values(), entries, fontsize=8, frameon=False, loc="outside lower center", ncols=len(entries)
    )
    for axis in list(axes.flat)[len(pairs) :]:
        axis.set_visible(False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160, metadata={"Software": None})
    return out.getvalue()


def _values(records: Sequence[Record], name: str, units: dict[str, Unit]) -> np.ndarray[Any, Any]:
    return np.array([record.metrics[name] * units[name].scale for record in records])


def _panel(
    figure: Figure,
    axis: Any,
    records: Sequence[Record],
    run: RunConfig,
    x: str,
    y: str,
    units: dict[str, Unit],
) -> None:
    pool = finished(records, run)
    members = front(records, run)
    on = {record.number for record in members}
    others = [record for record in pool if record.number not in on and keeps_budgets(record, run)]
    broken = [record for record in pool if not keeps_budgets(record, run)]
    axis.scatter(_values(others, x, units), _values(others, y, units), s=14, c=GREY, lw=0, label="dominated")
    if broken:
        crosses = (_values(broken, x, units), _values(broken, y, units))
        axis.scatter(*crosses, s=18, c=CROSS, marker="x", lw=1, label="over a budget")
    if members:
        _members(figure, axis, members, run, x, y, units)
    starts = [record for record in pool if record.origin == "start"]
    if starts:
        spots = (_values(starts, x, units), _values(starts, y, units))
        axis.scatter(
            *spots, s=70, facecolors="none", edgecolors=INK, marker="D", lw=1.2, label="starting point or baseline"
        )
    for name, values in ((x, axis.set_xlabel), (y, axis.set_ylabel)):
        title = name.removesuffix("_mj").removesuffix("_kib").replace("_", " ")
        values(f"{title} [{units[name].label}]" if units[name].label else title)
    _scales(axis, pool, x, y, units)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, lw=0.6)
    axis.tick_params(labelsize=8)


def _members(
    figure: Figure,
    axis: Any,
    members: Sequence[Record],
    run: RunConfig,
    x: str,
    y: str,
    units: dict[str, Unit],
) -> None:
    xs, ys = _values(members, x, units), _values(members, y, units)
    widths = [[(half_width(record, name) or 0.0) * units[name].scale for record in members] for name in (x, y)]
    axis.errorbar(xs, ys, xerr=widths[0], yerr=widths[1], fmt="none", ecolor=INK, alpha=0.35, lw=1)
    two = points(members, run)[:, [run.objectives.index(x), run.objectives.index(y)]]
    edge = np.flatnonzero(nondominated(two))
    edge = edge[np.argsort(two[edge, 0], kind="stable")]
    axis.step(xs[edge], ys[edge], where="post", c=INK, lw=1.2, zorder=2, label="front of these two objectives")
    third = next((name for name in run.objectives if name not in (x, y)), None)
    colours = _values(members, third, units) if third else None
    look = {"c": colours, "cmap": "viridis"} if third else {"c": INK}
    dots = axis.scatter(xs, ys, s=44, **look, edgecolors="white", lw=0.8, zorder=3, label="front, ± 95 %")
    if third:
        bar = figure.colorbar(dots, ax=axis, pad=0.01, aspect=30)
        bar.set_label(f"{third.removesuffix('_mj').removesuffix('_kib')} [{units[third].label}]", fontsize=8)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=8)
        bar.locator = MaxNLocator(4)
        bar.update_ticks()


def _scales(axis: Any, pool: Sequence[Record], x: str, y: str, units: dict[str, Unit]) -> None:
    """A logarithmic axis for a cost that spans more than a factor of five."""
    for name, set_scale in ((x, axis.set_xscale), (y, axis.set_yscale)):
        values = _values(pool, name, units)
        if METRICS[name].direction == "minimize" and len(values) and 0 < values.min() * 5 < values.max():
            set_scale("log")
            line = axis.xaxis if name == x else axis.yaxis
            line.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            line.set_major_formatter(lambda value, _: f"{value:g}")
            line.set_minor_formatter(NullFormatter())
