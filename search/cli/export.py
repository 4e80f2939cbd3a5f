"""``lrf-search export RUN --pick …``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from results.export import export
from results.front import pick
from search import folder as layout
from search.cli.train import show_epoch
from search.recipes import load_recipe
from search.study import records


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
    parser.add_argument("--retrain", action="store_true", help="train the pick by the final recipe first")
    parser.add_argument("--epochs", type=int, help="with --retrain: for so many epochs (default: the recipe's)")
    parser.add_argument(
        "--quantize", choices=["int8"], help="also write the weights as 8-bit integers, with their accuracy"
    )
    parser.add_argument("--format", choices=["text", "json"], default="text")


def execute(args: argparse.Namespace) -> int:
    folder = layout.find(args.run)
    run, found = layout.load(folder), records(folder)
    if args.epochs is not None and not args.retrain:
        raise ValueError(f"--epochs needs --retrain, but got --epochs {args.epochs} alone")
    epochs = args.epochs or load_recipe("final")["epochs"]
    retraining = {"retrain": args.retrain, "epochs": args.epochs, "heard": lambda epoch: show_epoch(epoch, epochs)}
    # All picks are resolved before anything is written; two that mean the same configuration are one export.
    chosen = {wanted: pick(found, run, wanted).identity for wanted in args.pick}
    formats = [*args.formats, *([args.quantize] if args.quantize else [])]
    made: dict[str, Path] = {}
    for identity in dict.fromkeys(chosen.values()):
        out = args.out / identity if args.out and len(args.pick) > 1 else args.out
        made[identity] = export(folder, identity, out, formats, force=args.force, **retraining)
    if args.format == "json":
        print(json.dumps({wanted: str(made[identity]) for wanted, identity in chosen.items()}, indent=2))
    else:
        for wanted, identity in chosen.items():
            print(f"{wanted}: {made[identity]}" if len(chosen) > 1 else made[identity])
    return 0
