"""A small space, objectives that need no training, and a driver without Ray: what the tests of the engine share."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import optuna

from search import folder as layout
from search import study as book
from search.config import RunConfig
from search.engine import Search
from search.objective import Objective, Outcome, Report
from search.record import Epoch
from search.samplers import make_sampler
from search.session import open_search
from search.worker import Task, evaluate
from spaces.config import Candidate
from spaces.cost import Cost
from spaces.presets import load_space

EPOCHS = 9
_SCRATCH = tempfile.TemporaryDirectory(prefix="toys-")


def choice(*options: Any) -> dict[str, Any]:
    return {"choice": list(options)}


def tree(dims: tuple[int, ...] = (16, 24, 32, 40, 48, 56, 64, 72), **model: Any) -> dict[str, Any]:
    """A space of 4 × len(dims) networks."""
    return {
        "name": "toy",
        "model": {
            "backbone": "spikformer",
            "img_size": [8, 8],
            "in_chans": 1,
            "num_classes": 10,
            "pools": 1,
            "heads": 1,
            "blocks": [{"kind": "ssa"}],
            "dim": choice(*dims),
            "timesteps": choice(1, 2, 3, 4),
            **model,
        },
        "training": {"epochs": EPOCHS, "warmup_epochs": 1},
    }


def candidate(**model: Any) -> Candidate:
    """A network for the digits, of one block of width 16."""
    fixed = {**tree()["model"], "dim": 16, "timesteps": 2}
    return Candidate.model_validate({"model": {**fixed, **model}})


def config(**values: Any) -> RunConfig:
    given = {"name": "toy", "space": tree(), "epochs": EPOCHS, "trials": 12, "sampler": {"name": "random"}}
    return RunConfig.model_validate({**given, **values})


def metrics_of(candidate: Candidate, epoch: int = EPOCHS) -> dict[str, float]:
    """More width and steps: more accurate, and more expensive; accuracy and energy rise while it trains."""
    dim, steps = candidate.model.dim, candidate.model.timesteps  # type: ignore[union-attr]
    quality = 1 - 4 / dim - 0.1 / steps
    return {
        "accuracy": quality * (1 - math.exp(-epoch / 2)),
        "energy_mj": dim * steps * 1e-4 * (1 - math.exp(-epoch)),
        "memory_kib": float(dim),
    }


def learn(candidate: Candidate, folder: str, report: Report) -> Outcome:
    """Train at once."""
    for epoch in range(1, EPOCHS + 1):
        if not report(Epoch(epoch=epoch, metrics=metrics_of(candidate, epoch), seconds=0.0)):
            return Outcome(status="stopped")
    return Outcome(status="complete", metrics=metrics_of(candidate), errors={"accuracy": 0.01})


def price(candidate: Candidate) -> Cost:
    dim = candidate.model.dim  # type: ignore[union-attr]
    return Cost(
        parameters=dim * dim,
        dense_macs=dim * dim * 16,
        weights_bytes=4 * dim * dim,
        state_bytes=0,
        attention_bytes=1024 * dim,
        peak_bytes=2048 * dim,
        energy_mj_low=dim * 1e-5,
        energy_mj_high=dim * 1e-2,
    )


def opened(run: RunConfig, folder: Path | None = None, owner: str = "0", **options: Any) -> Search:
    """A search on a study in memory, or in a run folder that exists or is made."""
    if folder is not None:
        if not folder.exists():
            layout.create(run, folder.parent)
        return open_search(run, folder, owner, options.pop("price", None), **options)
    space = load_space(run.space)
    study = book.open_study(run, optuna.storages.InMemoryStorage())
    study.sampler = make_sampler(run, space, options.get("price"))
    return Search(run, space, study, trials=tempfile.mkdtemp(dir=_SCRATCH.name), **options)


def train(search: Search, task: Task, objective: Objective = learn) -> None:
    """What the runner does with a task, without Ray."""
    stopped = False

    def send(epochs: tuple[Epoch, ...]) -> bool:
        nonlocal stopped
        stopped = not search.report(task.number, epochs)
        return not stopped

    result = evaluate(objective, task, send)
    search.finish(task.number, None if stopped else result)


def drive(search: Search, objective: Objective = learn, workers: int = 1) -> None:
    """Work until nothing more is handed out; ``workers`` tasks are open at a time, first in, first out."""
    tasks: list[Task] = []
    while True:
        while len(tasks) < workers and (task := search.next()) is not None:
            tasks.append(task)
        if not tasks:
            return
        train(search, tasks.pop(0), objective)
