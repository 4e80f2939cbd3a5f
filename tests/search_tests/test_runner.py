"""The search under Ray Tune: a run in which workers die, hang, raise and run out of memory, and what it leaves."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray.cloudpickle
import toys

from search import runner
from search import study as book
from search.config import Resources, RunConfig
from search.objective import Outcome, Report
from search.record import Epoch
from search.runner import connected
from search.searcher import TuneSearcher
from spaces.config import Candidate

ray.cloudpickle.register_pickle_by_value(toys)  # workers do not find the folder of the tests
RESOURCES = Resources(time_limit_s=8)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected(RESOURCES, processors=2):
        yield


def search_for(folder: Path, run: RunConfig, objective: object) -> list[book.Record]:
    search = toys.opened(run, folder, price=toys.price)
    assert runner.run(search, objective, folder, run)  # type: ignore[arg-type]
    return book.records(folder)


def test_a_run_with_every_kind_of_trouble(cluster: None, tmp_path: Path) -> None:
    def trouble(candidate: Candidate, folder: str, report: Report) -> Outcome:
        """What happens depends on the width; the worker of width 24 is killed once, after its second epoch."""
        dim = candidate.model.dim  # type: ignore[union-attr]
        done = Path(folder) / "checkpoint"
        start = int(done.read_text()) if done.exists() else 0
        for epoch in range(start + 1, toys.EPOCHS + 1):
            if dim == 16 and epoch == 2:
                raise RuntimeError("a defect")
            if dim == 24 and epoch == 3 and start == 0:
                os._exit(1)
            if dim == 32 and epoch == 2:
                raise MemoryError("too wide")
            if dim == 40 and epoch == 2:
                time.sleep(3600)
            report(Epoch(epoch=epoch, metrics=toys.metrics_of(candidate, epoch), seconds=0.0))
            done.parent.mkdir(parents=True, exist_ok=True)
            done.write_text(str(epoch))
        metrics = toys.metrics_of(candidate)
        return Outcome(status="complete", metrics={**metrics, "accuracy": float("nan")} if dim == 48 else metrics)

    space = toys.tree(dims=(16, 24, 32, 40, 48, 56), timesteps=1)
    run = toys.config(space=space, trials=6, schedule={"enabled": False}, resources=RESOURCES.model_dump())
    records = {
        r.metrics["memory_kib"]: r for r in search_for(tmp_path / "toy", run, trouble) if r.status != "duplicate"
    }
    found = {dim: (r.status, (r.reason or "").partition(" (")[0]) for dim, r in records.items()}
    assert found == {
        16: ("failed", "RuntimeError: a defect"),
        24: ("complete", ""),
        32: ("infeasible", "out of memory: too wide"),
        40: ("failed", "the time limit of 8 s passed"),
        48: ("infeasible", "diverged: accuracy is nan"),
        56: ("complete", ""),
    }
    assert [e.epoch for e in records[24].history] == list(range(1, toys.EPOCHS + 1))  # from its checkpoint


def test_trials_are_stopped_early_and_workers_used_again(cluster: None, tmp_path: Path) -> None:
    def learn(candidate: Candidate, folder: str, report: Report) -> Outcome:
        outcome = toys.learn(candidate, folder, report)
        return outcome.model_copy(update={"errors": {"accuracy": float(os.getpid())}})

    records = search_for(tmp_path / "toy", toys.config(trials=16), learn)
    stopped = [r for r in records if r.status == "stopped"]
    assert stopped
    assert all([e.epoch for e in r.history] == [1, 2, 3] for r in stopped)
    assert len({r.errors["accuracy"] for r in records if r.status == "complete"}) <= 2


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (
            str(ray.exceptions.OutOfMemoryError("Task was killed due to the node running low on memory.")),
            "infeasible",
        ),
        ("ray.exceptions.OutOfMemoryError: Worker killed by the memory monitor", "infeasible"),
        ("The actor died because its node has died", "waiting"),
    ],
)
def test_a_worker_that_is_killed_for_its_memory_is_a_result_and_one_that_is_lost_is_tried_again(
    error: str, status: str
) -> None:
    search = toys.opened(toys.config(trials=3))
    searcher = TuneSearcher(search)
    searcher.suggest("a")
    searcher.on_error("a", error)
    searcher.on_trial_complete("a", error=True)
    record = book.study_records(search.study)[-1]
    assert record.status == status
    assert status == "waiting" or (record.reason or "").startswith("out of memory, the worker was killed: ")


def test_a_trial_that_fits_nowhere_is_refused(cluster: None, tmp_path: Path) -> None:
    run = toys.config(resources={"gpu": 8})
    with pytest.raises(ValueError, match="one trial must fit a node, but it asks for"):
        search_for(tmp_path / "toy", run, toys.learn)
