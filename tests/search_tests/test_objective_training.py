"""What a trial does on real data: outcomes, the done weights, and the test part that it never opens."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lrf_models import build_model
from search import checkpoint
from search import data as data_sets
from search import train as training
from search.config import RunConfig
from search.data import DataSet
from search.metrics import METRICS
from search.objective import TrainingObjective, evaluate_test, measure_all
from search.recipes import training_fields
from search.record import Epoch
from spaces.config import Candidate, candidate_from

RUN = RunConfig(name="small", epochs=2, seed=3)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A slice of digits whose test part tells when it is opened."""
    digits = data_sets.load("digits")
    opened: list[str] = []

    def open_test() -> object:
        opened.append("test")
        return digits.test.subset(range(50))

    parts = {"train": digits.train.subset(range(96)), "validation": digits.validation.subset(range(80))}
    sliced = replace(digits, **parts, open_test=open_test)
    object.__setattr__(sliced, "opened", opened)
    monkeypatch.setattr(data_sets, "load", lambda *_: sliced)
    return sliced


@pytest.fixture
def candidate(small: DataSet) -> Candidate:
    model = {
        "backbone": "spikformer",
        "pools": 1,
        "timesteps": 2,
        "dim": 16,
        "heads": 2,
        "mlp_ratio": 1.0,
        "neuron": {"kind": "lif", "tau": 1.5, "threshold": 0.5},
        "blocks": [{"kind": "lrf_dyn", "dilations": [1], "dendrites": 2}],
    }
    return candidate_from({"model": {**model, **small.model_fields()}, "training": training_fields(RUN)})


def test_a_complete_trial(candidate: Candidate, small: DataSet, tmp_path: Path) -> None:
    epochs: list[Epoch] = []
    objective = pickle.loads(pickle.dumps(TrainingObjective(RUN)))
    outcome = objective(candidate, str(tmp_path), lambda epoch: epochs.append(epoch) is None)
    assert outcome.status == "complete"
    assert set(outcome.metrics) == set(METRICS)
    assert all(set(epoch.metrics) == {*METRICS, "loss"} for epoch in epochs)
    assert outcome.metrics.items() <= epochs[-1].metrics.items()  # measured once, on all validation images
    assert outcome.metrics["memory_kib"] == epochs[0].metrics["memory_kib"]  # exact before training
    assert 0 < outcome.errors["energy_mj"] < outcome.metrics["energy_mj"]
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors"}  # no checkpoint is left
    assert not small.opened  # type: ignore[attr-defined]

    model = build_model(candidate.model)
    checkpoint.load_weights(str(tmp_path), model)
    again, _ = measure_all(RUN, model, small.validation)
    assert again["accuracy"] == outcome.metrics["accuracy"]
    assert again["energy_mj"] == pytest.approx(outcome.metrics["energy_mj"])
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert Candidate.model_validate_json(file.metadata()["candidate"]) == candidate
        assert file.metadata()["split"] == small.split


def test_the_test_part_is_measured_once_it_is_asked_for(candidate: Candidate, small: DataSet, tmp_path: Path) -> None:
    TrainingObjective(RUN)(candidate, str(tmp_path), lambda _: True)
    found = evaluate_test(RUN, candidate, str(tmp_path))
    assert small.opened == ["test"]  # type: ignore[attr-defined]
    assert found["images"] == 50
    assert {"accuracy", "accuracy_se", "energy_mj", "energy_mj_se"} <= set(found)


def test_a_stopped_trial_keeps_its_last_metrics(candidate: Candidate, tmp_path: Path) -> None:
    outcome = TrainingObjective(RUN)(candidate, str(tmp_path), lambda epoch: False)
    assert outcome.status == "stopped"
    assert outcome.metrics["energy_mj"] > 0
    assert not (tmp_path / "model.safetensors").exists()


def fails(error: Exception) -> Callable[..., float]:
    def epoch(self: object) -> float:
        raise error

    return epoch


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (training.Diverged("the training loss is nan in epoch 1"), "diverged: the training loss is nan in epoch 1"),
        (MemoryError("1 GB"), "out of memory: 1 GB"),
        (torch.OutOfMemoryError("tried to allocate 9 GiB"), "out of memory: tried to allocate 9 GiB"),
    ],
)
def test_problems_of_a_candidate_are_results(
    error: Exception, reason: str, candidate: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.Learner, "epoch", fails(error))
    outcome = TrainingObjective(RUN)(candidate, str(tmp_path), lambda _: True)
    assert (outcome.status, outcome.reason) == ("infeasible", reason)


def test_a_defect_is_not_a_result(candidate: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.Learner, "epoch", fails(KeyError("x")))
    with pytest.raises(KeyError):
        TrainingObjective(RUN)(candidate, str(tmp_path), lambda _: True)


def test_it_uses_the_threads_of_its_resources(candidate: Candidate, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        run = RUN.model_copy(update={"resources": RUN.resources.model_copy(update={"cpu": 2.0})})
        TrainingObjective(run)(candidate, str(tmp_path), lambda _: False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
