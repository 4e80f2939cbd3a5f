"""``lrf-search evaluate EXPORT``: measure exported weights on a data set."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lrf_models import build_model
from lrf_models.counters import CONVENTIONS, profile_names
from search import checkpoint
from search.cli.train import add_data, read_candidate
from search.config import RunConfig
from search.data import load
from search.objective import measure_all


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("export", type=Path, help="a folder with candidate.yaml and model.safetensors")
    add_data(parser)
    parser.add_argument("--part", choices=["test", "validation", "train"], default="test")
    parser.add_argument("--profile", default="45nm-fp32", help=f"one of {', '.join(profile_names())}")
    parser.add_argument("--convention", choices=list(CONVENTIONS), default="event")
    parser.add_argument("--format", choices=["text", "json"], default="text")


def execute(args: argparse.Namespace) -> int:
    candidate = read_candidate(args.export / "candidate.yaml", None, None, None, {})
    data = load(args.data, args.data_dir, args.download)
    data.check(candidate.model)
    model = build_model(candidate.model).eval()
    checkpoint.load_weights(str(args.export), model)
    run = RunConfig(name="evaluate", profile=args.profile, convention=args.convention)
    part = getattr(data, args.part)
    metrics, errors = measure_all(run, model, part)
    if args.format == "json":
        found = {"data": data.name, "split": data.split, "part": args.part, "images": len(part)}
        print(json.dumps({**found, "metrics": metrics, "errors": errors}, indent=2))
        return 0
    print(f"{args.part} part of {data.name}, {len(part)} images")
    for name, value in metrics.items():
        print(f"{name:<10}  {value:.6g}" + (f" (se {errors[name]:.2g})" if name in errors else ""))
    return 0
