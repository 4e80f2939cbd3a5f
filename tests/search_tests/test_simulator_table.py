"""A table of trainings: built with resumption, packed, and raced on."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.race.contestants import make
from benchmarks.race.simulator import Simulation
from benchmarks.race.table import table
from benchmarks.tables import build as builder
from search.config import RunConfig, Schedule, load_run_config
from search.scheduler import Halving
from spaces.config import Candidate
from spaces.cost import Cost

RUN = """
data: digits
epochs: 6
space:
  model:
    backbone: spikformer
    pools: 1
    heads: 2
    timesteps: {choice: [1, 2]}
    dim: {choice: [16, 24, 32]}
    blocks: [{one_of: [{kind: ssa}, {kind: lrf_dyn, dilations: [1], dendrites: {choice: [1, 4]}}]}]
"""


def fake_training(run: RunConfig, candidate: Candidate) -> dict[str, Any]:
    work = candidate.model.timesteps * candidate.model.dim  # type: ignore[union-attr]
    cost = Cost(
        parameters=work, dense_macs=work**2, weights_bytes=work, state_bytes=work, attention_bytes=2 * work,
        peak_bytes=work, energy_mj_low=0.1 * work, energy_mj_high=work,
    )  # fmt: skip
    history = [
        {"accuracy": 1 - 8 / work / epoch, "energy_mj": 0.3 * work * (1 - 0.5 / epoch), "seconds": 0.1}
        for epoch in range(1, run.epochs + 1)
    ]
    return {
        "identity": builder.reseeded(candidate, 0).identity,
        "seed": candidate.training.seed,
        "candidate": candidate.model_dump(mode="json"),
        "cost": cost.model_dump(mode="json"),
        "history": history,
        "seconds": 1.0,
    }


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    (tmp_path / "small.yaml").write_text(RUN)
    monkeypatch.setattr(builder, "train_one", fake_training)
    return load_run_config(tmp_path / "small.yaml")


def test_plan_has_every_candidate_once_and_further_seeds_of_some(run: RunConfig) -> None:
    space = builder.bound_space(run)
    plan = builder.plan(space, repeats=5, seeds=3)
    assert len(plan) == 18 + 15
    assert len({candidate.identity for candidate in plan}) == 33
    assert len({builder.reseeded(candidate, 0).identity for candidate in plan}) == 18
    assert sorted(candidate.training.seed for candidate in plan[18:]) == [1] * 5 + [2] * 5 + [3] * 5


def test_a_killed_build_goes_on_and_its_table_can_be_raced(
    run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, out = builder.bound_space(run), tmp_path / "small.parquet"
    plan = builder.plan(space, repeats=2, seeds=1)
    builder.build(run, out, plan[:7], 0, 1)
    journal = tmp_path / "small.jsonl"
    journal.write_text(journal.read_text()[:-40])  # killed while it wrote the seventh
    assert builder.pack(out, run.epochs, space) == 6 * run.epochs
    with pytest.raises(ValueError, match="lacks 12 candidates"):
        table(out)

    trained: list[Candidate] = []
    monkeypatch.setattr(builder, "train_one", lambda r, c: trained.append(c) or fake_training(r, c))  # type: ignore[func-returns-value]
    builder.build(run, out, plan, 0, 2)
    builder.build(run, out, plan, 1, 2)
    assert len(trained) == 20 - 6
    assert len([json.loads(line) for line in journal.read_text().splitlines()[:6]]) == 6
    assert builder.pack(out, run.epochs, space) == 20 * run.epochs

    problem = table(out)
    everything = Simulation(problem, make("random", problem, 0), seed=0).run(trials=18)
    assert everything.share[-1] == pytest.approx(1.0)
    stop = Halving(problem.objectives, {}, Schedule(grace=2, reduction=3), problem.epochs).report
    full = Simulation(problem, make("priced", problem, 0), seed=0).run(trials=12)
    assert full.share[-1] > 0.9
    knowing = Simulation(problem, make("oracle", problem, 0), seed=0).run(trials=12)
    assert knowing.share[-1] > 0.9
    stopped = Simulation(problem, make("priced", problem, 0), stop=stop, seed=0).run(trials=12)
    assert 0 < len(stopped.share) < 12
    assert stopped.epochs[-1] < full.epochs[-1] == 12 * run.epochs
