"""A run that never was: plausible records over the real space of the digits."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from lrf_models import SpikingBackbone, build_model
from results.front import front
from search import folder
from search.checkpoint import save_weights
from search.config import Bound, RunConfig
from search.data import load
from search.record import Epoch, Record
from search.storage import open_storage
from search.study import open_study, tell
from spaces.config import Candidate, Training
from spaces.cost import Cost
from spaces.presets import digits

IMAGES = 360  # validation images that the standard errors stand for
Synthetic = Callable[..., tuple[list[Record], RunConfig]]


def priced(candidate: Candidate) -> Cost:
    """A cost with the right order of magnitude; the real one needs torch."""
    model = candidate.model
    assert model.backbone == "spikformer"
    tokens = model.grid[0] * model.grid[1]
    macs = sum(12 * model.dim**2 * tokens for _ in model.blocks) * model.timesteps
    attention = max(getattr(b, "dendrites", model.dim) * model.dim for b in model.blocks) * 4
    return Cost(
        parameters=12 * model.dim**2 * model.depth,
        dense_macs=macs,
        weights_bytes=48 * model.dim**2 * model.depth,
        state_bytes=tokens * model.dim * 4,
        attention_bytes=attention + 3 * tokens * model.dim * 4,
        peak_bytes=8 * tokens * model.dim * 4,
        energy_mj_low=macs * 1e-12,
        energy_mj_high=macs * 4.6e-9,
    )


def _accuracy(candidate: Candidate, rng: random.Random) -> float:
    model = candidate.model
    assert model.backbone == "spikformer"
    local = sum(1 for b in model.blocks if b.radius) / model.depth
    learned = -abs(math.log(candidate.training.lr / 7e-3)) * 0.02
    size = math.log2(model.dim * model.depth * model.timesteps)
    chance = rng.gauss(0, 0.012)
    share = 1 - 0.16 * math.exp(-0.22 * size) * math.exp(-local) + learned + chance
    return round(min(max(share, 0.1), 0.99) * IMAGES) / IMAGES


def _record(number: int, candidate: Candidate, rng: random.Random, run: RunConfig) -> Record:
    cost = priced(candidate)
    accuracy = _accuracy(candidate, rng)
    energy = cost.dense_macs * 0.9e-9 * rng.uniform(0.1, 0.3)
    metrics = {"accuracy": accuracy, "energy_mj": energy, "memory_kib": cost.memory_bytes / 1024}
    draw = rng.random()
    fate = {"number": number, "identity": candidate.identity, "candidate": candidate, "cost": cost}
    fate |= {"started": 1.7e9 + 6.0 * number, "seconds": rng.uniform(3, 9)}
    epochs = 30 if draw < 0.55 or number < 3 else rng.choice([3, 9])
    history = tuple(
        Epoch(epoch=e, metrics={**metrics, "accuracy": accuracy * (1 - 0.8 * 0.7**e)}, seconds=0.2)
        for e in range(1, epochs + 1)
    )
    if epochs == 30:
        errors = {"accuracy": math.sqrt(accuracy * (1 - accuracy) / IMAGES), "energy_mj": energy * 0.004}
        broken = {name: v for name, bound in run.budgets.items() if (v := bound.violation(metrics[name])) > 0}
        done = {"status": "complete", "metrics": metrics, "errors": errors, "violations": broken}
        return Record.model_validate({**fate, **done, "history": history})
    if draw < 0.85:
        reason = f"rung {epochs}: rank {rng.randint(4, 12)} of 12, the best 4 go on"
        return Record.model_validate({**fate, "status": "stopped", "reason": reason, "history": history})
    if draw < 0.93:
        reason = f"memory_kib <= 24 must hold, but got (memory_kib={metrics['memory_kib']:.2f})"
        return Record.model_validate({**fate, "status": "rejected", "reason": reason, "seconds": 0.0})
    if draw < 0.98:
        reason = f"the loss is not finite in epoch {rng.randint(1, 5)}"
        return Record.model_validate({**fate, "status": "infeasible", "reason": reason})
    return Record.model_validate({**fate, "status": "failed", "reason": "worker lost three times", "attempt": 3})


def synthetic(trials: int = 60, seed: int = 0, name: str = "made-up") -> tuple[list[Record], RunConfig]:
    """Records and run file of ``trials`` trials, the same for the same seed."""
    rng = random.Random(seed)
    space = digits().bound({"img_size": 8, "in_chans": 1, "num_classes": 10}, {})
    run = RunConfig(name=name, trials=trials, seed=seed, budgets={"memory_kib": Bound(max=24)})
    records = [_record(i, space.sample(rng), rng, run) for i in range(trials)]
    records[0] = records[0].model_copy(update={"origin": "start"})
    return records, run


@pytest.fixture(scope="session")
def made() -> tuple[list[Record], RunConfig]:
    return synthetic()


def network(candidate: Candidate, seed: int = 0) -> SpikingBackbone:
    """A network without training in which every neuron fires now and then, so that outputs tell networks apart."""
    torch.manual_seed(seed)
    model = build_model(candidate.model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 1.0, 3.0)
            torch.nn.init.uniform_(module.bias, 0.0, 1.0)
            module.momentum = None  # the mean over few batches, whatever the statistics began with
    assert isinstance(model.head, torch.nn.Linear)
    torch.nn.init.normal_(model.head.weight)
    for x, _ in islice(load("digits").train.batches(128, Training(batch_size=128), seed), 2):
        model(x)
    return model.eval()


def make_run_folder(parent: Path, trials: int = 24) -> Path:
    """A run folder as the engine leaves it: run file, study, weights of the finished trials on the front."""
    records, run = synthetic(trials, name="small")
    run_folder = folder.create(run, parent)
    study = open_study(run, open_storage(folder.storage_address(run_folder, run), alone=True))
    for record in records:
        tell(study, study.ask(), record, run.objectives, run.budgets)
    for record in front(records, run):
        assert record.candidate is not None
        where = f"{folder.trials_address(run_folder, run)}/{record.identity}"
        save_weights(where, network(record.candidate), {})
    return run_folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run_folder(tmp_path_factory.mktemp("runs"))
