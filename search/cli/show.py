"""``lrf-search show SPACE``."""

from __future__ import annotations

import argparse
import json
import random

from spaces.presets import load_space
from spaces.tree import Number

DRAWS = 1000
"""Uniform draws that estimate how much of a space keeps the laws."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("space", help="a named space, or a YAML file with one")
    parser.add_argument("--format", choices=["text", "json"], default="text")


def execute(args: argparse.Namespace) -> int:
    space = load_space(args.space)
    rng = random.Random(0)
    kept = 0
    for _ in range(DRAWS):
        values = space.draw(rng)
        try:
            space.build(lambda name, _, values=values: values[name])  # type: ignore[misc]
            kept += 1
        except ValueError:
            pass
    parameters = space.parameters()
    if args.format == "json":
        listed = {
            name: (
                {"low": p.low, "high": p.high, "step": p.step, "log": p.log, "integer": p.integer}
                if isinstance(p, Number)
                else {"choice": list(p.options)}
            )
            for name, p in parameters.items()
        }
        summary = {
            "name": space.name,
            "combinations": space.combinations(),
            "continuous": space.continuous(),
            "share_that_keeps_the_laws": kept / DRAWS,
            "parameters": listed,
        }
        print(json.dumps(summary, indent=2))
        return 0
    width = max((len(name) for name in parameters), default=0)
    for name, p in parameters.items():
        if isinstance(p, Number):
            scale = " (log)" if p.log else ""
            kind = "int" if p.integer else "float"
            print(f"{name:<{width}}  {kind} {p.low:g} … {p.high:g}{scale}")
        else:
            print(f"{name:<{width}}  {' | '.join(str(option) for option in p.options)}")
    continuous = space.continuous()
    infinite = f" × {len(continuous)} continuous ({', '.join(continuous)})" if continuous else ""
    print(f"\n{space.name}: {len(parameters)} parameters, {space.combinations():,} combinations{infinite}")
    print(
        f"{kept / DRAWS:.1%} of {DRAWS} uniform draws keep the laws across fields (the rest is rejected for nothing)"
    )
    return 0
