"""``lrf-search compare RUN RUN …``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from results.compare import picture, read, summary
from search import folder as layout


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or names of runs in runs/")
    parser.add_argument("--out", type=Path, default=Path("comparison.png"), help="the picture (default: %(default)s)")
    parser.add_argument("--format", choices=["text", "json"], default="text")


def execute(args: argparse.Namespace) -> int:
    entries = read([layout.find(run) for run in args.runs])
    rows = summary(entries)
    try:
        args.out.write_bytes(picture(entries))
    except OSError as error:
        raise ValueError(f"cannot write {args.out}: {error.strerror}") from None
    if args.format == "json":
        print(json.dumps({"picture": str(args.out), "runs": rows}, indent=2))
        return 0
    width = max(len(row["run"]) for row in rows)
    print(f"{'run':<{width}}  {'seed':>4}  {'trials':>6}  {'epochs':>7}  {'front':>5}  hypervolume")
    for row in sorted(rows, key=lambda row: -row["hypervolume"]):
        counts = f"{row['seed']:>4}  {row['trials']:>6}  {row['epochs']:>7}  {row['front']:>5}"
        print(f"{row['run']:<{width}}  {counts}  {row['hypervolume']:.4f}")
    print(f"\nOne box around all feasible trials of all runs, reference point 10 % beyond it. Picture: {args.out}")
    return 0
