"""``run``, ``resume`` and ``status``: bad input is one sentence and exit code 2, and nothing is left behind."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import toys
import yaml

from results.front import front
from search import folder as layout
from search import study
from search.cli import main
from search.cli.run import prepared, warmed
from search.session import moved
from search.study import study_records
from spaces.presets import load_space


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    toys.drive(toys.opened(toys.config(trials=6), tmp_path / "toy"))
    return tmp_path / "toy"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails: 3", "trails: there is no such key"),
        ("training: {lrr: 1}", "training: there is no 'lrr'"),
        ("sampler: best", "a sampler is one of"),
        ("objectives: accuracy", "objectives: must be a list, but got 'accuracy'"),
        ("budgets: {memory_kib: 64}", "budgets.memory_kib: must be a mapping, but got 64"),
        ("sampler: {name: best}", "a sampler is one of"),
        ("data: moon", "data must be one of"),
        ("recipe: soup", "recipe must be one of"),
        ("space: nowhere", "a space is one of"),
        ("name: ../out", "name"),
        ("space: {model: {backbone: spikformer, dim: 17}}", "no feasible point in 2000 random draws"),
        ("start: [lrf]", "a starting point of this space is one of"),
        (
            "sampler: {name: priced}\nobjectives: [accuracy, energy_mj, memory_kib, sops]",
            "sampler 'priced' takes at most 3 objectives",
        ),
        ("storage: sqlite:////nowhere/at/all.db", "cannot open the study at sqlite:////nowhere/at/all.db"),
        ("trials: 1\nstart: [ssa, lrf_dyn]", "starting points <= trials must hold"),
        ("objectives: [speed]", "must be one of"),
        ("convention: mine", "convention"),
        ("profile: nochip", "a profile is one of"),
        ("convention: memory\nprofile: truenorth", "needs prices of memory accesses"),
        ("epochs: 1e9999", "epochs"),
    ],
)
def test_a_bad_run_file_is_one_sentence(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    assert main(["run", str(tmp_path / "bad.yaml"), "--run-dir", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("lrf-search run: ")
    assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_that_exists_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished.parent / "toy.yaml").write_text("trials: 3")
    before = (finished / layout.JOURNAL).read_bytes()
    assert main(["run", str(finished.parent / "toy.yaml"), "--run-dir", str(finished.parent)]) == 2
    assert f"the run folder {finished} exists" in capsys.readouterr().err
    assert (finished / layout.JOURNAL).read_bytes() == before


def test_an_environment_without_authentication_is_refused(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert main(["resume", str(finished), "--trials", "7"]) == 2
    assert "RAY_AUTH_MODE=token must hold" in capsys.readouterr().err


def test_a_client_address_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "toy.yaml").write_text("trials: 3")
    command = ["run", str(tmp_path / "toy.yaml"), "--run-dir", str(tmp_path / "runs")]
    assert main([*command, "--address", "ray://head:10001"]) == 2
    said = capsys.readouterr().err
    assert "the driver must run inside the cluster" in said
    assert "use `ray job submit -- lrf-search … --address auto`, or HOST:PORT" in said
    assert main([*command, "--runtime-env", str(tmp_path / "gone.yaml")]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_resume_of_nothing_and_of_a_changed_run_file(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(finished / "gone")]) == 2
    assert "is no run folder" in capsys.readouterr().err
    text = (finished / layout.RUN_FILE).read_text()
    (finished / layout.RUN_FILE).write_text(text.replace("convention: event", "convention: paper"))
    assert main(["resume", str(finished)]) == 2
    assert 'the run file says convention = "paper", but its study was made with "event"' in capsys.readouterr().err


def test_resume_for_fewer_trials_than_there_are(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (finished / layout.RUN_FILE).read_text()
    assert main(["resume", str(finished), "--trials", "5"]) == 2
    assert "trials >= 6, which are over already, must hold, but got 5" in capsys.readouterr().err
    assert (finished / layout.RUN_FILE).read_text() == before


def test_resume_beside_another_driver(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with layout.locked(finished):
        assert main(["resume", str(finished)]) == 2
    assert "another driver is working on" in capsys.readouterr().err


def test_status_counts_what_is_there(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    search = toys.opened(toys.config(trials=8), finished)
    assert search.next() is not None
    assert main(["status", str(finished), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["done"], found["trials"], found["states"]["running"]) == (6, 6, 1)
    assert not found["active"]
    assert main(["status", str(finished)]) == 0
    assert "toy: 6 of 6 trials are over" in capsys.readouterr().out


def test_status_of_a_damaged_study(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for damage in (b"garbage\n", b"garbage\n" * 3):
        (finished / layout.JOURNAL).write_bytes(damage)
        assert main(["status", str(finished)]) == 2
        assert "is damaged" in capsys.readouterr().err


# --- warm start -------------------------------------------------------------------------------------------------


def test_fronts_of_earlier_runs_come_first(finished: Path, tmp_path: Path) -> None:
    """Half of the widths are in the new space; the training is the new one's."""
    space = toys.tree(dims=(40, 48, 56, 64, 72, 80), img_size=[8, 8])
    space["training"] = {}
    fresh = prepared(toys.config(space=space, name="fresh", epochs=5, trials=20, start=["default"]))
    warm = warmed(fresh, [str(finished)])
    assert 0 < len(warm.warm_start) <= 5
    search = toys.opened(warm, tmp_path / "fresh")
    first = search.next()
    assert first is not None
    toys.train(search, first)
    tasks = [task for task in (search.next() for _ in warm.warm_start) if task is not None]
    records = {record.number: record for record in study_records(search.study)}
    assert [records[task.number].origin for task in (first, *tasks)] == ["start"] + ["warm"] * len(tasks)
    assert {task.candidate.training.epochs for task in tasks} == {5}
    widths = {r.candidate.model.dim for r in front(study.records(finished), layout.load(finished)) if r.candidate}
    assert {task.candidate.model.dim for task in tasks} <= widths


def test_a_value_that_is_a_list_survives_a_warm_start(tmp_path: Path) -> None:
    """Optuna knows it by its text, a run file by what it is."""
    config = prepared(toys.config(space="digits", name="lists"))
    space = load_space(config.space)
    rng = random.Random(0)
    drawn = [space.build(lambda name, parameter: parameter.sample(rng)) for _ in range(20)]
    values = moved(drawn, space, {})
    assert any(isinstance(value, list) for one in values for value in one.values())
    warm = config.model_copy(update={"warm_start": tuple(values[:5])})
    folder = layout.create(warm, tmp_path)
    search = toys.opened(layout.load(folder), folder)
    tasks = [search.next() for _ in range(5)]
    assert [task.identity for task in tasks if task] == [candidate.identity for candidate in drawn[:5]]


def test_a_warm_start_that_cannot_help_is_one_sentence(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.yaml").write_text("space: digits\ntrials: 3")
    command = ["run", str(tmp_path / "new.yaml"), "--run-dir", str(tmp_path / "runs"), "--warm-start"]
    assert main([*command, str(tmp_path / "gone")]) == 2
    assert "is no run folder" in capsys.readouterr().err
    toys.opened(toys.config(name="empty"), tmp_path / "empty")
    assert main([*command, str(tmp_path / "empty")]) == 2
    assert "it has no finished trial" in capsys.readouterr().err
    (tmp_path / "new.yaml").write_text(yaml.safe_dump({"space": toys.tree(dims=(200, 208)), "trials": 3}))
    assert main([*command, str(finished)]) == 2
    said = capsys.readouterr().err
    assert "the space of this run contains none of its front" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()
