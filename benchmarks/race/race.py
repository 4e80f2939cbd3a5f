"""Race search algorithms on known answers, and write what came out.

    python -m benchmarks.race.race run nb201:cifar10 zdt1 dtlz2 --contestants random tpe priced --seeds 20
    python -m benchmarks.race.race page        # docs/search-benchmark.md and its plots from all results

Every search is one line of benchmarks/race/results/PROBLEM.jsonl and is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from benchmarks.race.simulator import Problem, Simulation, Trace

RESULTS = Path(__file__).parent / "results"
HALVING = "+ halving"


def search(problem: Problem, contestant: str, seed: int, epochs: float, grace: int, reduction: int) -> Trace:
    """One search; a name that ends in "+ halving" stops early by our scheduler."""
    from benchmarks.race.contestants import make

    stop = None
    name = contestant.removesuffix(HALVING).strip()
    if contestant.endswith(HALVING):
        from search.config import Schedule
        from search.scheduler import Halving

        schedule = Schedule(grace=grace, reduction=reduction)
        stop = Halving(problem.objectives, {}, schedule, problem.epochs).report
    return Simulation(problem, make(name, problem, seed), stop=stop, seed=seed).run(epochs=epochs)


def line_of(contestant: str, seed: int, epochs: float, trace: Trace) -> dict[str, Any]:
    """A trace without the moments at which nothing changed."""
    kept = [
        i
        for i in range(len(trace.share))
        if i == 0 or i == len(trace.share) - 1 or trace.share[i] != trace.share[i - 1]
    ]
    return {
        "contestant": contestant,
        "seed": seed,
        "budget": epochs,
        "epochs": [trace.epochs[i] for i in kept],
        "trials": [trace.trials[i] for i in kept],
        "share": [round(trace.share[i], 6) for i in kept],
        "asks": trace.asks,
        "ask_seconds": round(trace.ask_seconds, 3),
    }


def results(name: str) -> list[dict[str, Any]]:
    path = RESULTS / f"{file_name(name)}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def file_name(problem: str) -> str:
    return Path(problem).stem.replace(":", "-")


def race(name: str, contestants: list[str], seeds: range, trials: int, grace: int, reduction: int) -> None:
    """Run what is not there yet."""
    from benchmarks.race.problems import problem as load

    problem = load(name)
    epochs = trials * problem.epochs
    done = {(line["contestant"], line["seed"], line["budget"]) for line in results(name)}
    RESULTS.mkdir(exist_ok=True)
    for seed in seeds:  # all contestants seed by seed: a race that is cut short is still fair
        for contestant in contestants:
            if (contestant, seed, epochs) in done:
                continue
            trace = search(problem, contestant, seed, epochs, grace, reduction)
            with open(RESULTS / f"{file_name(name)}.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(line_of(contestant, seed, epochs, trace)) + "\n")
            print(
                f"{name}: {contestant}, seed {seed}: {trace.share[-1]:.3f} after {trace.epochs[-1]} epochs, "
                f"0.95 after {trace.until(0.95):g}, {trace.ask_seconds / trace.asks:.3f} s per suggestion",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("problems", nargs="+")
    run.add_argument("--contestants", nargs="+", default=["random", "nsga2", "tpe", "priced"])
    run.add_argument("--first", type=int, default=0, help="first seed")
    run.add_argument("--seeds", type=int, default=20)
    run.add_argument("--trials", type=int, default=100, help="budget, in full trainings")
    run.add_argument("--grace", type=int, default=3)
    run.add_argument("--reduction", type=int, default=3)
    commands.add_parser("page")
    arguments = parser.parse_args()
    if arguments.command == "page":
        from benchmarks.race.page import write

        write()
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    try:
        for name in arguments.problems:
            race(name, arguments.contestants, seeds, arguments.trials, arguments.grace, arguments.reduction)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
