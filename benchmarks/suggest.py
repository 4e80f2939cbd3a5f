"""What one suggestion costs as a search grows.

    OMP_NUM_THREADS=1 python -m benchmarks.suggest              the samplers at 100 to 2,000 trials
    OMP_NUM_THREADS=1 python -m benchmarks.suggest --samplers gp --sizes 100 500 --asks 4

The digits space with the real prices; what a training would have given is made up from them. Seconds are those of the
processor in this process, so that other work on the machine matters little. ``first`` is a sampler's first
suggestion, which reads all trials as after a restart; ``next`` is the median of those that follow.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections.abc import Sequence

import optuna

from benchmarks.tables.build import bound_space
from search.config import RunConfig, Sampler
from search.engine import Price, Search
from search.objective import Outcome
from search.record import Epoch
from search.samplers import make_sampler
from search.session import priced_by
from search.study import open_study
from search.worker import Result, Task
from spaces.space import Space

EPOCHS = 9
STOPPED = 3  # the epoch after which two of three trials end


def made_up(task: Task, price: Price) -> Result:
    """What a training gives: larger networks err less, and each fires at a rate of its own."""
    cost, rng = price(task.candidate), random.Random(task.identity)
    error = min(0.9, 2.0 * cost.dense_macs**-0.2 * math.exp(rng.gauss(0, 0.2)))
    energy = cost.energy_mj_low + rng.uniform(0.05, 0.4) * (cost.energy_mj_high - cost.energy_mj_low)
    stopped = rng.random() < 2 / 3
    history = tuple(
        Epoch(epoch=epoch, metrics={"accuracy": 1 - error ** (epoch / EPOCHS), "energy_mj": energy}, seconds=1.0)
        for epoch in range(1, (STOPPED if stopped else EPOCHS) + 1)
    )
    if stopped:
        return Result(outcome=Outcome(status="stopped", reason="not among the best"), history=history)
    return Result(outcome=Outcome(status="complete", metrics=history[-1].metrics), history=history)


def grown(config: RunConfig, space: Space, price: Price, trials: int) -> optuna.Study:
    """A study of so many random trials, as our engine writes it."""
    study = open_study(config, optuna.storages.InMemoryStorage())
    study.sampler = make_sampler(config, space, price)
    search = Search(config, space, study, trials="", price=price)
    while len(study.get_trials(deepcopy=False)) < trials and (task := search.next()) is not None:
        search.finish(task.number, made_up(task, price))
    return study


def timed(config: RunConfig, space: Space, price: Price, past: optuna.Study, size: int, asks: int) -> list[float]:
    """Processor seconds of each of some suggestions after the first ``size`` trials of a study."""
    study = open_study(config, optuna.storages.InMemoryStorage())
    study.add_trials(past.get_trials(deepcopy=False)[:size])
    study.sampler = make_sampler(config, space, price)
    search = Search(config, space, study, trials="", price=price)
    seconds = []
    for _ in range(asks):
        started = time.process_time()
        task = search.next()
        seconds.append(time.process_time() - started)
        assert task is not None
        search.finish(task.number, made_up(task, price))
    return seconds


def report(samplers: Sequence[str], sizes: Sequence[int], asks: int) -> None:
    run = RunConfig(name="suggest", trials=10 * max(sizes), epochs=EPOCHS, sampler=Sampler(name="random"))
    space, price = bound_space(run), priced_by(run)
    past = grown(run, space, price, max(sizes))
    print("| sampler | trials | first, s | next, s |\n|---|---|---|---|")
    for name in samplers:
        for size in sizes:
            config = run.model_copy(update={"sampler": Sampler(name=name), "seed": 1})
            # Its own price: what was paid for the past is in the records, what is new must be paid again.
            first, *following = timed(config, space, priced_by(config), past, size, asks)
            print(f"| {name} | {size} | {first:.2f} | {statistics.median(following):.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", default=["priced", "tpe", "nsga2"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 500, 1000, 2000])
    parser.add_argument("--asks", type=int, default=8)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    report(arguments.samplers, arguments.sizes, arguments.asks)


if __name__ == "__main__":
    main()
