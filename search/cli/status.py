"""``lrf-search status RUN``: how far a run is. Reads only, while a driver may be at work."""

from __future__ import annotations

import argparse
import json
from collections import Counter

from search import folder as layout
from search import study as book


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder, or the name of a run in runs/")
    parser.add_argument("--format", choices=["text", "json"], default="text")


def execute(args: argparse.Namespace) -> int:
    folder = layout.find(args.run)
    config = layout.load(folder)
    found = book.records(folder)
    counts = Counter(record.status for record in found)
    done = len(book.over(found))
    reasons = Counter(r.reason for r in found if r.status in ("rejected", "infeasible", "failed") and r.reason)
    epochs = sum(len(record.history) for record in found if record.status != "duplicate")
    summary = {
        "run": config.name,
        "folder": str(folder),
        "trials": config.trials,
        "done": done,
        "states": dict(counts),
        "epochs": epochs,
        "active": layout.is_locked(folder),
        "reasons": dict(reasons.most_common(10)),
    }
    if args.format == "json":
        print(json.dumps(summary, indent=2))
        return 0
    driver = "a driver is at work" if summary["active"] else "no driver is at work on this machine"
    print(f"{config.name}: {done} of {config.trials} trials are over, {epochs} epochs trained; {driver}")
    if counts:
        print("  " + ", ".join(f"{count} {status}" for status, count in counts.most_common()))
    for reason, count in reasons.most_common(10):
        print(f"  {count:>4} × {reason}")
    if not summary["active"] and done < config.trials:
        print(f"go on with: lrf-search resume {folder}")
    return 0
