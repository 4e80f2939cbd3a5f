"""How `lrf-search count` shows what it found: tables, CSV, bars."""

from __future__ import annotations

import csv as csv_format
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch

from lrf_models.counters.energy import Amount, Work
from lrf_models.counters.events import Events
from lrf_models.counters.trace import Row

Table = Sequence[dict[str, Any]]
COLUMNS = {
    "module": "module",
    "kind": "kind",
    "edges": "edge",
    "calls": "calls",
    "dense_macs": "dense MACs",
    "in_bounds": "in bounds",
    "events": "events",
    "value_events": "value events",
    "rate": "rate",
    "class": "class",
    "mac": "MAC",
    "ac": "AC",
    "energy_uj": "µJ",
}


def _mean(amount: Amount) -> float:
    return torch.as_tensor(amount, dtype=torch.float64).mean().item()


def row(name: str, row: Row, events: Events | None, work: Work, measured: bool) -> dict[str, Any]:
    """One line of the per-module table, means over images."""
    facts = row.facts
    mac, ac = _mean(work.mac), _mean(work.ac)
    return {
        "module": name,
        "kind": facts.kind,
        "edges": "·".join(facts.edges),
        "calls": facts.calls,
        "dense_macs": facts.dense,
        "in_bounds": facts.gated + facts.real + facts.decay,
        "events": events.events.mean().item() if events is not None and measured else None,
        "value_events": events.values.mean().item() if events is not None and measured else None,
        "rate": events.rate.mean().item() if events is not None and measured else None,
        "class": "+".join(label for label, amount in (("MAC", mac), ("AC", ac or facts.gated)) if amount),
        "mac": mac,
        "ac": ac,
        "energy_uj": _mean(work.energy_pj) * 1e-6,
        "state_bytes": 4 * facts.state,
        "attention_bytes": 4 * (facts.maps + facts.scores),
    }


def number(value: object) -> str:
    """A number as a person reads it."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def table(rows: Table) -> str:
    """The modules that do or hold something, aligned."""
    shown = [r for r in rows if r["dense_macs"] or r["energy_uj"] or r["rate"] is not None]
    cells = [list(COLUMNS.values()), *([number(r[key]) for key in COLUMNS] for r in shown)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    text = {0, 1, 2, 9}
    return "\n".join(
        "  ".join(
            f"{c:<{w}}" if i in text else f"{c:>{w}}" for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )


def totals(summary: dict[str, Any], profile: str, convention: str) -> str:
    """The numbers of the whole network, in words."""
    kib = {key: summary[key] / 1024 for key in summary if key.endswith("_bytes")}
    lines = [
        f"{summary['name']}: {summary['parameters']:,} parameters, {summary['dense_macs']:,} dense MACs per image",
        f"memory, KiB: weights {kib['weights_bytes']:,.1f}, state {kib['state_bytes']:,.1f}, attention working set "
        f"{kib['attention_bytes']:,.1f}, peak of a pass {kib['peak_bytes']:,.1f} beyond the weights",
    ]
    if "measured" in summary:
        m = summary["measured"]
        lines.append(
            f"energy: {m['energy_mj']:.4g} ± {m['energy_mj_se']:.2g} mJ, {m['sops']:,.0f} ± {m['sops_se']:,.0f} "
            f"synaptic operations per image (n = {m['n']} images, {summary['weights']} weights; {profile}, "
            f"{convention})"
        )
    else:
        lines.append(
            f"energy: {summary['energy_mj_low']:.4g} to {summary['energy_mj_high']:.4g} mJ, no neuron firing to all "
            f"firing ({profile}, {convention}); the table is for all firing, --data counts events"
        )
    if summary["not_priced"]:
        lines.append(f"not priced by {profile}: {', '.join(summary['not_priced'])}")
    lines.append(f"not counted: {', '.join(summary['not_counted']) or 'nothing'}")
    return "\n".join(lines)


def side_by_side(summaries: Sequence[dict[str, Any]]) -> str:
    """Two networks, and the second as a share of the first."""
    first, second = ({**s, **s.get("measured", {})} for s in summaries)
    keys = [k for k, v in first.items() if isinstance(v, int | float) and isinstance(second.get(k), int | float)]
    lines = [["", str(first["name"]), str(second["name"]), "ratio"]]
    for key in keys:
        ratio = f"{second[key] / first[key]:.3f}" if first[key] else ""
        lines.append([key, number(first[key]), number(second[key]), ratio])
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join(
        "  ".join(f"{c:>{w}}" if i else f"{c:<{w}}" for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )


def csv(rows: Table) -> str:
    """The table with all its columns."""
    buffer = io.StringIO()
    writer = csv_format.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def groups(rows: Table) -> dict[str, dict[str, float]]:
    """Energy and memory by part of the network: a stem's module, or a block's attention or MLP."""
    parts: dict[str, dict[str, float]] = {}
    for r in rows:
        path = r["module"].split(".")
        depth = next((i for i, step in enumerate(path) if not step.isdigit() and i > 0 and path[i - 1].isdigit()), 1)
        total = parts.setdefault(
            ".".join(path[: depth + 1]), {"energy, µJ": 0.0, "state, KiB": 0.0, "working set, KiB": 0.0}
        )
        total["energy, µJ"] += r["energy_uj"]
        total["state, KiB"] += r["state_bytes"] / 1024
        total["working set, KiB"] = max(total["working set, KiB"], r["attention_bytes"] / 1024)
    return {name: total for name, total in parts.items() if any(total.values())}


def png(models: Sequence[tuple[str, Table]]) -> bytes:
    """Bars of energy, state and working set by part, one row of panels for each model."""
    from matplotlib.figure import Figure

    parts = [(name, groups(rows)) for name, rows in models]
    height = sum(1.2 + 0.22 * len(found) for _, found in parts)
    figure = Figure(figsize=(13, height), layout="constrained")
    axes = figure.subplots(len(parts), 3, squeeze=False, height_ratios=[max(len(found), 1) for _, found in parts])
    for line, (name, found) in zip(axes, parts, strict=True):
        labels = list(found)[::-1]
        for axis, quantity in zip(line, next(iter(found.values())), strict=True):
            axis.barh(labels, [found[label][quantity] for label in labels], color="#2f6f9f")
            axis.set_title(f"{name}: {quantity}" if axis is line[0] else quantity, fontsize=9, loc="left")
            axis.tick_params(labelsize=7, labelleft=axis is line[0])
            axis.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def html(models: Sequence[tuple[str, Table]]) -> str:
    """The same bars as a page that needs no network."""
    sections = []
    for name, rows in models:
        found = groups(rows)
        top = {q: max(total[q] for total in found.values()) or 1.0 for q in next(iter(found.values()))}
        head = "".join(f"<th>{escape(quantity)}</th>" for quantity in top)
        body = "".join(
            f"<tr><td>{escape(part)}</td>"
            + "".join(
                f'<td><i style="width:{160 * total[q] / top[q]:.0f}px"></i>{number(total[q])}</td>' for q in top
            )
            + "</tr>"
            for part, total in found.items()
        )
        sections.append(f"<h2>{escape(name)}</h2><table><tr><th></th>{head}</tr>{body}</table>")
    style = (
        "body{font:14px system-ui;margin:2em}td,th{padding:2px 12px;text-align:left}"
        "i{display:inline-block;height:11px;background:#2f6f9f;margin-right:6px}"
    )
    return f'<!doctype html><meta charset="utf-8"><title>count</title><style>{style}</style>{"".join(sections)}'


def write(path: Path, content: bytes) -> None:
    """Write a file; what keeps it from being written is a ValueError."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ValueError(f"cannot write {path}: {error.strerror}") from None
