"""A cluster of 64 workers that sleep, on the real engine and the real journal: how much of their time they work.

    python -m benchmarks.load --trials 5000

Sleeping takes no time here: workers live on a simulated clock, on which every call of the driver takes what it really
took. One driver serves them one after another, as Tune's loop does; what Ray itself adds is not in it.
"""

from __future__ import annotations

import argparse
import heapq
import multiprocessing
import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search import folder as layout
from search.config import RunConfig
from search.engine import Search
from search.objective import Outcome
from search.record import Epoch
from search.session import open_search
from search.storage import open_storage
from search.worker import Result, Task
from spaces.config import Candidate, SpikformerConfig
from spaces.cost import Cost

EPOCHS = 9


def config(sampler: str, trials: int) -> RunConfig:
    """A space of 1.5 million networks that nobody builds."""
    blocks = {"choice": [[{"kind": "ssa"}] * depth for depth in range(1, 9)]}
    model = {"backbone": "spikformer", "img_size": [32, 32], "heads": 1, "pools": 2, "blocks": blocks}
    searched = {
        "dim": {"int": [16, 1024], "step": 8},
        "timesteps": {"int": [1, 8]},
        "mlp_ratio": {"choice": [1.0, 2.0, 4.0]},
        "neuron": {"kind": "lif", "tau": {"float": [1.5, 4.0], "step": 0.05}},
    }
    return RunConfig.model_validate(
        {
            "name": "load",
            "space": {"name": "load", "model": {**model, **searched}, "training": {"epochs": EPOCHS}},
            "epochs": EPOCHS,
            "trials": trials,
            "sampler": {"name": sampler},
        }
    )


def price(candidate: Candidate) -> Cost:
    """A price that grows with the network as a real one does, for nothing."""
    model = candidate.model
    assert isinstance(model, SpikformerConfig)
    size = float(model.dim) ** 2 * len(model.attention_blocks)
    macs = int(size) * model.timesteps
    return Cost(
        parameters=int(size),
        dense_macs=macs,
        weights_bytes=int(4 * size),
        state_bytes=int(4 * size**0.5),
        attention_bytes=1024,
        peak_bytes=2048,
        energy_mj_low=macs * 1e-9,
        energy_mj_high=macs * 4e-9,
    )


def metrics(cost: Cost, epoch: int) -> dict[str, float]:
    """Larger networks are better and need more; what they do changes from epoch to epoch."""
    learnt = 1 - np.exp(-epoch / 3)
    noise = np.random.default_rng(cost.dense_macs + epoch).normal(0, 0.02)
    return {
        "accuracy": float(learnt * (1 - 1 / np.log10(cost.dense_macs)) + noise),
        "energy_mj": float((1 + learnt) * cost.energy_mj_low),
        "memory_kib": cost.memory_bytes / 1024,
    }


@dataclass
class Sleeper:
    """One trial on one worker."""

    task: Task
    cost: Cost
    history: list[Epoch] = field(default_factory=list)


@dataclass
class Cluster:
    """So many workers, one driver, one clock.

    Args:
        search: The driver's search.
        workers: How many.
        epoch_s: How long an epoch sleeps.
    """

    search: Search
    workers: int
    epoch_s: float
    now: float = 0.0
    worked: list[tuple[float, float]] = field(default_factory=list)
    suggests: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def _call(self, action: Any, *arguments: Any) -> Any:
        start = time.perf_counter()
        found = action(*arguments)
        self.calls.append(time.perf_counter() - start)
        self.now += self.calls[-1]
        return found

    def run(self) -> float:
        """Work until the search is finished.

        Returns:
            The share of the workers' time that they worked, until the last trial was handed out.
        """
        queue: list[tuple[float, int, Sleeper]] = []
        idle, ticket, last = self.workers, 0, 0.0
        while True:
            while idle:
                task = self._call(self.search.next)
                if task is None:
                    break
                self.suggests.append(self.calls[-1])
                idle, ticket = idle - 1, ticket + 1
                heapq.heappush(queue, (self.now + self.epoch_s, ticket, Sleeper(task, price(task.candidate))))
                last = self.now
            if not queue:
                return sum(max(0.0, min(end, last) - start) for start, end in self.worked) / (self.workers * last)
            when, _, sleeper = heapq.heappop(queue)
            self.now = max(self.now, when)
            self.worked.append((when - self.epoch_s, when))
            if self._epoch(sleeper):
                ticket += 1
                heapq.heappush(queue, (when + self.epoch_s, ticket, sleeper))
            else:
                idle += 1

    def _epoch(self, sleeper: Sleeper) -> bool:
        """One epoch is over; whether another one begins. A worker does not wait for the driver's answer."""
        number, epoch = sleeper.task.number, len(sleeper.history) + 1
        found = Epoch(epoch=epoch, metrics=metrics(sleeper.cost, epoch), seconds=self.epoch_s)
        sleeper.history.append(found)
        if not self._call(self.search.report, number, [found]):
            self._call(self.search.finish, number, None)
        elif epoch == EPOCHS:
            outcome = Outcome(status="complete", metrics=found.metrics)
            self._call(self.search.finish, number, Result(outcome=outcome, history=tuple(sleeper.history)))
        else:
            return True
        self.memory.append(memory())
        return False


def memory() -> float:
    """MiB that this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def opening(folder: Path) -> float:
    """MiB that a process needs to hold the study of a run, and nothing else."""
    before = memory()
    storage = open_storage(folder / layout.JOURNAL, alone=False, write=False)
    held = storage.get_all_studies()
    return memory() - before if held else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--epoch-s", type=float, default=10.0, help="seconds of one of nine epochs (default 10)")
    parser.add_argument("--sampler", default="random")
    args = parser.parse_args()
    run = config(args.sampler, args.trials)
    with tempfile.TemporaryDirectory() as scratch:
        folder = layout.create(run, Path(scratch))
        cluster = Cluster(open_search(run, folder, "0", price), args.workers, args.epoch_s)
        share = cluster.run()
        journal = (folder / layout.JOURNAL).stat().st_size
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            study = pool.apply(opening, (folder,))
    print(f"{args.workers} workers, {args.trials} trials of {EPOCHS} epochs of {args.epoch_s:g} s, {args.sampler}")
    print(f"utilisation {share:.1%}; driver {sum(cluster.calls) / args.trials * 1e3:.1f} ms a trial in all")
    grown = cluster.memory[-1] - cluster.memory[0]
    print(f"journal {journal / args.trials / 1024:.1f} KiB a trial")
    print(f"driver grew by {grown:.0f} MiB; the study alone, opened in a fresh process, takes {study:.0f} MiB")
    print("trials   suggest ms (median)   memory MiB")
    for part in np.array_split(np.arange(args.trials), 5):
        suggest = np.median(np.array(cluster.suggests)[part]) * 1e3
        print(f"{part[-1] + 1:>6}   {suggest:>19.2f}   {cluster.memory[part[-1]]:>10.0f}")


if __name__ == "__main__":
    main()
