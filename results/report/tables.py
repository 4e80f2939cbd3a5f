"""The front as CSV, JSON and Markdown, for people without the page and for scripts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from results.analysis import commons, endings, progress
from results.describe import describe, escaped
from results.front import columns, front, interval, picks_of, tied
from search.config import RunConfig
from search.record import Record


def as_rows(records: Sequence[Record], run: RunConfig) -> list[dict[str, Any]]:
    """One flat row per member of the front; metrics in the units of search/metrics.py."""
    members = front(records, run)
    chosen = picks_of(members, run) if members else {}
    ties = tied(members, run)
    names = [*run.objectives, *sorted({name for r in members for name in r.metrics} - set(run.objectives))]
    tests = sorted({name for record in members for name in record.test or {}})
    rows = []
    for record in members:
        assert record.candidate is not None
        row: dict[str, Any] = {"identity": record.identity, "trial": record.number}
        for name in names:
            row[name] = record.metrics.get(name)
            if any(name in other.errors for other in members):
                row[f"{name}_se"] = record.errors.get(name)
        row |= {f"test_{name}": (record.test or {}).get(name) for name in tests}
        row |= {"tie": record.number in ties, "pick": " ".join(chosen.get(record.number, []))}
        row["network"] = describe(record.candidate)
        rows.append(row)
    return rows


def as_csv(records: Sequence[Record], run: RunConfig) -> str:
    """The rows of `as_rows` below a line of their names."""
    rows = as_rows(records, run)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["identity", "trial", *run.objectives])
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_json(records: Sequence[Record], run: RunConfig, provenance: dict[str, Any]) -> str:
    """The front with complete configurations and costs, and how it came about."""
    members = front(records, run)
    steps = progress(records, run)
    found = [
        row | {"candidate": r.candidate.model_dump(mode="json"), "cost": r.cost.model_dump() if r.cost else None}
        for row, r in zip(as_rows(records, run), members, strict=True)
        if r.candidate
    ]
    summary = {
        "run": run.model_dump(mode="json"),
        "objectives": list(run.objectives),
        "hypervolume": steps[-1].hypervolume if steps else None,
        "front": found,
        "provenance": provenance,
    }
    return json.dumps(summary, indent=2, allow_nan=False) + "\n"


def as_markdown(records: Sequence[Record], run: RunConfig, provenance: dict[str, Any]) -> str:
    """A summary to paste into a pull request or a paper's appendix."""
    members = front(records, run)
    lines = [f"# Front of {escaped(run.name)}", "", _sentence(records, run, members), ""]
    if members:
        cells = columns(members, run)
        lines += ["| " + " | ".join(cells) + " |", "|" + "---|" * len(cells)]
        lines += ["| " + " | ".join(map(escaped, row)) + " |" for row in zip(*cells.values(), strict=True)]
        lines += ["", f"{interval(members)}.", ""]
        lines += ["![The front](front.png)", ""]
    if shared := commons(records, run, members):
        lines += ["## What the front has in common", ""]
        lines += [
            f"* {escaped(c.text)}: {c.front} of {c.front_of} on the front, {c.rest} of {c.rest_of} of the rest"
            for c in shared
        ]
        lines.append("")
    if ended := endings(records):
        lines += ["## Trials that did not finish", ""]
        lines += [f"* {e.count} {e.status}: {escaped(e.example)}" for e in ended]
        lines.append("")
    lines += ["## Provenance", ""] + [f"* {key}: {escaped(str(value))}" for key, value in provenance.items()]
    return "\n".join(lines) + "\n"


def _sentence(records: Sequence[Record], run: RunConfig, members: Sequence[Record]) -> str:
    done = sum(record.status == "complete" for record in records)
    return (
        f"{len(members)} configurations on the front of {', '.join(run.objectives)}, "
        f"from {len(records)} trials of which {done} were trained in full."
    )
