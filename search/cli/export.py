"""``lrf-search export RUN --pick …``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from results.export import export
from search import folder as layout


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder, or the name of a run in runs/")
    parser.add_argument(
        "--pick",
        nargs="+",
        default=["knee"],
        metavar="PICK",
        help='knee, best-accuracy, min-energy, min-memory, an identity, or a condition such as "energy_mj<0.2"',
    )
    parser.add_argument("--out", type=Path, help="folder of the export (of several: the folder that holds them)")
    parser.add_argument("--force", action="store_true", help="replace an existing export")
    parser.add_argument(
        "--formats", nargs="+", default=[], metavar="FORMAT", help="further formats: pt2, streaming, onnx, nir"
    )
    parser.add_argument("--format", choices=["text", "json"], default="text")


def execute(args: argparse.Namespace) -> int:
    folder = layout.find(args.run)
    several = len(args.pick) > 1
    made: dict[str, Path] = {}
    for pick in dict.fromkeys(args.pick):
        made[pick] = export(folder, pick, args.out, args.formats, force=args.force)
    if args.format == "json":
        print(json.dumps({pick: str(path) for pick, path in made.items()}, indent=2))
    else:
        for pick, path in made.items():
            print(f"{pick}: {path}" if several else path)
    return 0
