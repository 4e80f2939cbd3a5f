"""Everything that the page shows, as plain data: the one seam between Python and the scripts of the page."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from results import analysis
from results.describe import BACKBONES, OPERATORS, Unit, describe, features, unit
from results.front import finished, front, half_width, interval, keeps_budgets, picks_of, tied
from search.config import RunConfig
from search.metrics import METRICS
from search.record import Record

Data = dict[str, Any]

COSTS = ("parameters", "dense_macs", "weights_bytes", "state_bytes", "attention_bytes", "peak_bytes")
STATUSES = ("complete", "stopped", "rejected", "infeasible", "failed", "duplicate", "running", "waiting")


def gather(records: Sequence[Record], run: RunConfig, folder: str, provenance: Data, details: Data) -> Data:
    """What page.js reads.

    Args:
        folder: The run folder as commands should name it.
        details: Identity → where energy and memory go, part by part (results/breakdown.py).
    """
    members = front(records, run)
    units = {name: unit(name, [r.metrics[name] for r in finished(records, run)]) for name in run.objectives}
    names = _varying(records)
    return {
        "name": run.name,
        "folder": folder,
        "interval": interval(members),
        "objectives": [_objective(name, units[name], run) for name in run.objectives],
        "features": names,
        "shared": _shared(records),
        "operators": OPERATORS,
        "backbones": BACKBONES,
        "trials": _trials(records, run, members, units, names),
        "counts": _counts(records),
        "progress": _progress(records, run),
        "endings": [vars(e) | {"trials": e.trials[:20]} for e in analysis.endings(records)],
        "commons": [vars(c) for c in analysis.commons(records, run, members)],
        "importance": [
            {"objective": i.objective, "explained": i.explained, "shares": _rounded(i.shares[:8])}
            for i in analysis.importances(records, run)
        ],
        "provenance": provenance,
        "details": _rounded(details),
    }


def _objective(name: str, best: Unit, run: RunConfig) -> Data:
    bound = run.budgets.get(name)
    metric = METRICS[name]
    return {
        "name": name,
        "title": name.removesuffix("_mj").removesuffix("_kib").replace("_", " "),
        "unit": best.label,
        "up": metric.direction == "maximize",
        "text": metric.text,
        "min": None if bound is None or bound.min is None else bound.min * best.scale,
        "max": None if bound is None or bound.max is None else bound.max * best.scale,
    }


def _counts(records: Sequence[Record]) -> dict[str, int]:
    found = Counter(str(record.status) for record in records)
    return {status: found[status] for status in STATUSES if found[status]}


def _varying(records: Sequence[Record]) -> list[str]:
    """Names of the features in which the candidates differ, in the order of `features`."""
    seen: dict[str, set[Any]] = {}
    rows = [features(record.candidate) for record in records if record.candidate]
    for row in rows:
        for name, value in row.items():
            seen.setdefault(name, set()).add(value)
    return [
        name
        for name, values in seen.items()
        if len(values) > 1 or (name in rows[0] and any(name not in row for row in rows))
    ]


def _shared(records: Sequence[Record]) -> Data:
    """The fields that have one value in all candidates, and every different attention block once."""
    dumps = [record.candidate.model_dump(mode="json") for record in records if record.candidate]
    shared: Data = {"blocks": [], "model": {}, "training": {}}
    texts: dict[str, Any] = {}
    for part in ("model", "training"):
        for key, value in (dumps[0][part] if dumps else {}).items():
            if not _is_blocks(value) and all(d[part].get(key, _ABSENT) == value for d in dumps):
                shared[part][key] = value
    for dump in dumps:
        for value in dump["model"].values():
            if _is_blocks(value):
                texts.update((json.dumps(block), block) for block in value)
    shared["blocks"] = list(texts.values())
    return shared


_ABSENT = object()


def _is_blocks(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _trials(
    records: Sequence[Record], run: RunConfig, members: Sequence[Record], units: dict[str, Unit], names: list[str]
) -> list[Data]:
    """One row per trial, with short keys because there may be thousands."""
    on = {record.number for record in members}
    by_tie = tied(members, run)
    chosen = picks_of(list(members), run) if members else {}
    shared = _shared(records)
    index = {json.dumps(block): i for i, block in enumerate(shared["blocks"])}
    rows = []
    for record in records:
        row: Data = {"n": record.number, "i": record.identity, "s": record.status}
        if record.status == "complete":
            scaled = [(record.metrics.get(name, math.nan), units[name].scale) for name in run.objectives]
            row["v"] = [_round(value * scale) for value, scale in scaled]
            row["h"] = [_round((half_width(record, name) or 0) * units[name].scale) for name in run.objectives]
            row["b"] = not keeps_budgets(record, run)
        if record.number in on:
            row["f"] = 2 if record.number in by_tie else 1
            row["p"] = chosen.get(record.number, [])
        if record.test and "accuracy" in record.test:
            row["t"] = _round(record.test["accuracy"] * 100)
        if record.origin != "sampler":
            row["o"] = record.origin
        if record.reason:
            row["r"] = record.reason[:300]
        row |= {"e": len(record.history), "w": round(record.seconds, 1)}
        if record.candidate is not None:
            found = features(record.candidate)
            row["x"] = [_rounded(found.get(name)) for name in names]
            row["d"] = describe(record.candidate)
            row["c"] = _own(record, shared, index)
            if record.cost is not None:
                row["k"] = [getattr(record.cost, name) for name in COSTS]
        rows.append(row)
    return rows


def _own(record: Record, shared: Data, index: dict[str, int]) -> Data:
    """A candidate less what all have in common; a list of blocks as positions in the shared list."""
    assert record.candidate is not None
    own: Data = {}
    for part, values in record.candidate.model_dump(mode="json").items():
        own[part] = {
            key: {"blocks": [index[json.dumps(block)] for block in value]} if _is_blocks(value) else _rounded(value)
            for key, value in values.items()
            if key not in shared[part]
        }
    return own


def _progress(records: Sequence[Record], run: RunConfig) -> list[list[float]]:
    """[trials, epochs, seconds, hypervolume] where the hypervolume changes, and at the end."""
    steps = analysis.progress(records, run)
    kept = [
        step
        for before, step in zip([None, *steps], steps, strict=False)
        if before is None or step.hypervolume != before.hypervolume
    ]
    if steps and kept[-1] is not steps[-1]:
        kept.append(steps[-1])
    return [[s.trials, s.epochs, round(s.seconds, 2), round(s.hypervolume, 6)] for s in kept]


def _round(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _rounded(value: Any) -> Any:
    """The same with six significant digits in every float."""
    if isinstance(value, float):
        return _round(value)
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value


def embedded(data: Data) -> str:
    """JSON that can stand inside a ``<script>`` element, whatever the strings in it hold."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
