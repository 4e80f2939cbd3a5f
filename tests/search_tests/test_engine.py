"""The search without Ray: what is handed out, what is told, what ends it."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import toys
from optuna.trial import TrialState

from search import study as book
from search.config import RunConfig
from search.engine import LOSSES, Search
from search.metrics import priced_metrics
from search.objective import Outcome, Report
from search.record import Epoch, Record
from search.samplers import SAMPLERS, caveats, make_sampler
from search.session import resolve
from spaces.config import Candidate
from spaces.presets import load_space


def statuses(search: Search) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in book.study_records(search.study):
        found[record.status] = found.get(record.status, 0) + 1
    return found


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_trains_different_candidates_up_to_the_budget(sampler: str) -> None:
    search = toys.opened(toys.config(sampler={"name": sampler}, trials=14), price=toys.price)
    toys.drive(search, workers=3)
    trained = [r for r in book.study_records(search.study) if r.status in ("complete", "stopped")]
    assert len(trained) == len({r.identity for r in trained}) == search.used == 14
    assert search.finished
    assert not search.study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))


def test_only_full_trainings_are_complete() -> None:
    search = toys.opened(toys.config(trials=24))
    toys.drive(search, workers=2)
    stopped = [r for r in book.study_records(search.study) if r.status == "stopped"]
    assert stopped
    for record in stopped:
        assert search.study.trials[record.number].state == TrialState.PRUNED
        assert [e.epoch for e in record.history] == [1, 2, 3]
        assert record.reason == "not among the best 1/3 after 3 epochs"
    for trial in search.study.get_trials(states=(TrialState.COMPLETE,)):
        full = toys.metrics_of(load_space(toys.tree()).build(lambda name, _, t=trial: t.params[name]))
        assert trial.values == [full[name] for name in search.config.objectives]


def test_one_worker_and_one_seed_repeat_a_run() -> None:
    runs = []
    for _ in range(2):
        search = toys.opened(toys.config(sampler={"name": "tpe"}, trials=16, seed=3))
        toys.drive(search)
        runs.append([(r.number, r.status, r.identity) for r in book.study_records(search.study)])
    assert runs[0] == runs[1]


def test_a_space_that_is_used_up_ends_the_run() -> None:
    search = toys.opened(toys.config(space=toys.tree(dims=(16, 24, 32)), trials=100, schedule={"enabled": False}))
    toys.drive(search, workers=2)
    assert search.used == 12
    assert search.finished
    assert search.exhausted == "every candidate has been trained"


def test_a_budget_that_nothing_meets_is_said_with_its_law() -> None:
    search = toys.opened(toys.config(budgets={"memory_kib": {"max": 4}}), price=toys.price)
    with pytest.raises(ValueError, match=r"no feasible point: the budget memory_kib <= 4 KiB must hold, but") as said:
        toys.drive(search)
    assert not search.used
    least = min(priced_metrics(toys.price(c))["memory_kib"] for c in search.space.enumerate())
    assert str(said.value).endswith(f"but got {least:g} in the nearest candidate found")


def test_energy_below_what_silence_costs_is_rejected_before_training() -> None:
    search = toys.opened(toys.config(budgets={"energy_mj": {"max": 1e-5}}), price=toys.price)
    with pytest.raises(ValueError, match="the budget energy_mj <= 1e-05 mJ must hold"):
        toys.drive(search)


def test_a_space_without_a_lawful_point_is_said_with_the_law() -> None:
    search = toys.opened(toys.config(space=toys.tree(heads=11, blocks=[{"kind": "ssa"}])))
    with pytest.raises(ValueError, match=r"no feasible point: .*heads must divide the width"):
        toys.drive(search)


def test_exact_budgets_cost_no_training() -> None:
    search = toys.opened(toys.config(budgets={"memory_kib": {"max": 40}}, trials=10), price=toys.price)
    toys.drive(search)
    records = book.study_records(search.study)
    rejected = [r for r in records if r.status == "rejected"]
    assert rejected
    assert all(
        r.violations["memory_kib"] == r.metrics.get("memory_kib", r.cost.memory_bytes / 1024) - 40
        for r in rejected
        if r.cost
    )
    for record in rejected:
        trial = search.study.trials[record.number]
        assert trial.state == TrialState.PRUNED
        assert trial.constraints == record.violations
        assert not record.history
    assert all(r.metrics["memory_kib"] <= 40 for r in records if r.status == "complete")
    assert search.used == 10


def test_a_measured_budget_is_a_constraint_of_a_complete_trial() -> None:
    search = toys.opened(toys.config(budgets={"accuracy": {"min": 0.8}}, schedule={"enabled": False}))
    toys.drive(search)
    for record in book.study_records(search.study):
        trial = search.study.trials[record.number]
        assert trial.state == TrialState.COMPLETE
        assert trial.constraints == {"accuracy": pytest.approx(0.8 - record.metrics["accuracy"])}
        assert bool(record.violations) == (record.metrics["accuracy"] < 0.8)


def test_a_repeat_is_answered_from_its_original() -> None:
    search = toys.opened(toys.config(space=toys.tree(dims=(16, 24)), trials=8, schedule={"enabled": False}))
    toys.drive(search)
    repeats = [r for r in book.study_records(search.study) if r.status == "duplicate"]
    assert repeats
    for record in repeats:
        assert record.duplicate_of is not None
        mine, original = search.study.trials[record.number], search.study.trials[record.duplicate_of]
        assert mine.state == original.state == TrialState.COMPLETE
        assert mine.values == original.values
        assert record.metrics == book.study_records(search.study)[record.duplicate_of].metrics


def test_a_repeat_of_a_running_trial_waits_for_it() -> None:
    search = toys.opened(toys.config(space=toys.tree(dims=(16,)), trials=8, schedule={"enabled": False}))
    tasks = []
    while (task := search.next()) is not None:
        tasks.append(task)
    assert len(tasks) == 4
    assert not search.finished
    waiting = [r for r in book.study_records(search.study) if r.status == "duplicate"]
    assert waiting
    assert all(search.study.trials[r.number].state == TrialState.RUNNING for r in waiting)
    for task in tasks:
        toys.train(search, task)
    assert search.finished
    assert not search.study.get_trials(states=(TrialState.RUNNING,))


def returns(**outcome: Any) -> Any:
    return lambda candidate, folder, report: Outcome(**outcome)


def raises(error: BaseException) -> Any:
    def objective(candidate: Candidate, folder: str, report: Report) -> Outcome:
        raise error

    return objective


def full(**metrics: float) -> Any:
    return returns(status="complete", metrics={"accuracy": 0.9, "energy_mj": 1.0, "memory_kib": 1.0, **metrics})


@pytest.mark.parametrize(
    ("objective", "status", "reason"),
    [
        (
            full(accuracy=math.nan),
            "infeasible",
            "diverged: accuracy is nan",
        ),
        (
            full(energy_mj=math.inf),
            "infeasible",
            "diverged: energy_mj is inf",
        ),
        (
            returns(status="complete", metrics={"accuracy": 0.9}),
            "failed",
            "the objective returned no energy_mj, memory_kib",
        ),
        (returns(status="infeasible", reason="diverged: loss"), "infeasible", "diverged: loss"),
        (raises(MemoryError("no room")), "infeasible", "out of memory: no room"),
        (raises(RuntimeError("CUDA out of memory. Tried")), "infeasible", "out of memory: CUDA out of memory. Tried"),
        (raises(KeyError("weight")), "failed", r"KeyError: 'weight' \(test_engine.py:\d+\)"),
    ],
)
def test_a_failure_of_the_candidate_is_told_as_a_broken_constraint(
    objective: Any, status: str, reason: str, tmp_path: Path
) -> None:
    search = toys.opened(toys.config(trials=3), tmp_path / "toy")
    toys.drive(search, objective)
    records = book.study_records(search.study)
    assert len(records) == 3  # the run went on, and nothing was tried twice
    for record in records:
        assert record.status == status
        assert record.reason is not None
        assert re.fullmatch(reason, record.reason)
        trial = search.study.trials[record.number]
        assert (trial.state, trial.constraints) == (TrialState.PRUNED, {status: 1.0})


def test_a_lost_candidate_is_queued_again_and_in_the_end_given_up() -> None:
    search = toys.opened(toys.config(trials=1))
    identities = set()
    for attempt in range(1, LOSSES + 1):
        task = search.next()
        assert task is not None
        assert task.attempt == attempt
        assert search.next() is None
        assert not search.finished
        identities.add(task.identity)
        search.lost(task.number, "node died")
    assert len(identities) == 1
    assert search.finished
    records = book.study_records(search.study)
    assert [search.study.trials[r.number].state.name for r in records] == ["FAIL", "FAIL", "PRUNED"]
    assert records[-1].reason == "its workers died 3 times: node died"
    assert search.used == 1


def test_starting_points_come_first_and_are_trained_in_full() -> None:
    run = toys.config(start=["default", {"model.dim": 16, "model.timesteps": 1}], trials=10)
    run = resolve(run, {}, {})
    from search.session import starts

    search = toys.opened(run)
    for values, candidate in starts(run, load_space(run.space)):
        book.enqueue(search.study, values, candidate.identity, origin="start")
    toys.drive(search)
    records = book.study_records(search.study)
    assert [r.origin for r in records[:3]] == ["start", "start", "sampler"]
    assert all(r.status == "complete" for r in records[:2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampler": {"name": "cma"}}, r"a sampler is one of \[.*'tpe'.*\], but got 'cma'"),
        ({"sampler": {"name": "tpe", "options": {"fast": True}}}, "sampler 'tpe' does not take these options"),
        ({"start": ["lrf"]}, r"a starting point of this space is one of \['default'\], but got 'lrf'"),
        ({"start": [{"model.depth": 2}]}, "no parameter of the space is called 'model.depth'"),
        ({"start": [{"model.dim": 16}]}, "the parameter 'model.timesteps' has no value"),
        ({"start": [{"model.dim": 17, "model.timesteps": 1}]}, "start: model.dim must be one of"),
        ({"start": ["default"], "trials": 1, "space": "no-such-space"}, "a space is one of"),
    ],
)
def test_a_run_that_cannot_work_is_refused_before_it_starts(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(toys.config(**values), {}, {})


def test_more_starting_points_than_trials_are_refused() -> None:
    points = [{"model.dim": 16, "model.timesteps": t} for t in (1, 2)]
    with pytest.raises(ValueError, match=r"starting points <= trials must hold, but got \(start=2, trials=1\)"):
        resolve(toys.config(start=points, trials=1), {}, {})


def test_brute_force_refuses_a_continuous_space() -> None:
    space = load_space(toys.tree(mlp_ratio={"float": [1, 4]}))
    with pytest.raises(ValueError, match=r"needs a discrete space, but model\.mlp_ratio is continuous"):
        make_sampler(toys.config(sampler={"name": "brute-force"}), space)


def test_listeners_hear_of_every_trial_once() -> None:
    heard: list[Record] = []
    search = toys.opened(toys.config(trials=10), listen=heard.append)
    toys.drive(search, workers=2)
    assert sorted(r.number for r in heard) == sorted(
        r.number for r in book.study_records(search.study) if r.status != "duplicate"
    )


def test_epochs_of_an_unknown_trial_stop_it() -> None:
    search = toys.opened(toys.config())
    assert not search.report(99, [Epoch(epoch=1, metrics={}, seconds=0.0)])


def test_priced_trains_in_full_unless_the_run_file_has_a_schedule() -> None:
    assert toys.config().schedule.enabled
    assert not toys.config(sampler={"name": "priced"}).schedule.enabled
    assert toys.config(sampler={"name": "priced"}, schedule={"grace": 2}).schedule.enabled


def test_the_default_sampler_is_the_best_that_takes_the_objectives() -> None:
    three, four = ["accuracy", "energy_mj", "memory_kib"], ["accuracy", "energy_mj", "memory_kib", "sops"]
    plain = RunConfig.model_validate({"name": "t", "objectives": three})
    assert plain.sampler.name == "priced"
    assert not plain.schedule.enabled
    many = RunConfig.model_validate({"name": "t", "objectives": four})
    assert many.sampler.name == "tpe"
    assert many.schedule.enabled


def test_a_sampler_says_what_it_cannot_do() -> None:
    whole = load_space(toys.tree())
    kinds = {"one_of": [{"kind": "ssa"}, {"kind": "lrf_dyn", "dendrites": toys.choice(1, 2)}]}
    partly = load_space(toys.tree(blocks=[kinds]))
    budgets = {"accuracy": {"min": 0.5}, "memory_kib": {"max": 9.0}}
    for name in SAMPLERS:
        said = " ".join(caveats(toys.config(sampler={"name": name}, budgets=budgets), whole))
        assert ("goes on proposing what breaks that on accuracy" in said) == (
            name in ("random", "qmc", "brute-force")
        )
        assert "memory_kib" not in said
        said = " ".join(caveats(toys.config(sampler={"name": name}), partly))
        assert ("draws at random (model.blocks.0" in said) == (name in ("nsga2", "nsga3", "gp", "qmc")), said
