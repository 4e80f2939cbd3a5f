"""Repeated seeds for a final front: what is trained, what is believed, and when it ends."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import toys

from results.front import front, table
from search import folder as layout
from search import study as book
from search.cli import main
from search.confirm import confirm, settled
from search.objective import Outcome
from search.record import Record
from search.worker import Result, Task


def record(number: int, accuracy: float, energy: float, **fields: object) -> Record:
    return Record.model_validate(
        {"number": number, "status": "complete", "identity": f"{number:012x}", **fields}
        | {"metrics": {"accuracy": accuracy, "energy_mj": energy, "memory_kib": 2.0}}
    )


def test_means_and_intervals_over_fresh_seeds() -> None:
    repeats = [{"accuracy": a, "energy_mj": 1.0, "memory_kib": 2.0} for a in (0.90, 0.92, 0.94)]
    one = settled(record(0, 0.99, 5.0, errors={"accuracy": 0.03}), repeats)
    assert (one.metrics["accuracy"], one.metrics["energy_mj"], one.seeds) == (pytest.approx(0.92), 1.0, 3)
    # t(2 degrees of freedom, 97.5 %) = 4.303; standard error over seeds 0.02/sqrt(3); over images 0.03
    half = 4.302652729911275 * 0.02 / np.sqrt(3)
    assert 1.959963984540054 * one.errors["accuracy"] == pytest.approx(np.hypot(half, 1.959963984540054 * 0.03))
    assert "memory_kib" not in one.errors  # exact


def test_one_repeat_says_nothing() -> None:
    lucky = record(0, 0.99, 5.0)
    assert settled(lucky, [{"accuracy": 0.5, "energy_mj": 1.0}]) is lucky


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(2000):
        one = settled(record(0, 0.9, 1.0), [{"accuracy": float(a)} for a in rng.normal(0.5, 0.1, 3)])
        hits.append(abs(one.metrics["accuracy"] - 0.5) <= 1.959963984540054 * one.errors["accuracy"])
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02)


def test_whoever_is_let_in_is_confirmed_too(tmp_path: Path) -> None:
    toys.drive(search := toys.opened(toys.config(trials=2)))
    first, second = book.study_records(search.study)
    stored: list[str] = []
    confirm(
        lambda: [first, second] if stored else [first],
        2,
        str,
        lambda tasks: ((task, Result(outcome=Outcome(status="complete"))) for task in tasks),
        lambda identity, repeats: stored.append(identity),
        lambda: set(stored),
    )
    assert stored == [first.identity, second.identity]


def test_a_confirmed_front_is_not_trained_again(tmp_path: Path) -> None:
    run = toys.config(trials=16)
    folder = tmp_path / "toy"
    toys.drive(toys.opened(run, folder))
    before = {r.identity for r in front(book.records(folder), run)}
    trained: list[Task] = []

    def train_all(tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        for task in tasks:
            trained.append(task)
            metrics = toys.metrics_of(task.candidate)
            metrics["accuracy"] *= 0.66 + 0.001 * (task.candidate.training.seed % 2)
            yield task, Result(outcome=Outcome(status="complete", metrics=metrics))

    def again() -> None:
        confirm(
            lambda: front(book.records(folder), run),
            3,
            lambda identity: f"{tmp_path}/{identity}",
            train_all,
            lambda identity, repeats: book.store_repeats(folder, identity, repeats),
            lambda: book.confirmed(folder),
        )

    again()
    members = front(book.records(folder), run)
    assert {member.seeds for member in members} == {3}
    assert before <= book.confirmed(folder)
    assert len({task.identity for task in trained}) == len(trained) == 3 * len(book.confirmed(folder))
    assert "means of 3 fresh seeds" in table(book.records(folder), run)
    again()
    assert len(trained) == 3 * len(book.confirmed(folder))  # nothing is trained twice


def test_a_member_whose_repeats_fail_keeps_its_value_and_ends_the_search_for_more(tmp_path: Path) -> None:
    run = toys.config(trials=6)
    folder = tmp_path / "toy"
    toys.drive(toys.opened(run, folder))
    before = front(book.records(folder), run)
    confirm(
        lambda: front(book.records(folder), run),
        2,
        str,
        lambda tasks: ((task, Result(outcome=Outcome(status="infeasible", reason="diverged"))) for task in tasks),
        lambda identity, repeats: book.store_repeats(folder, identity, repeats),
        lambda: book.confirmed(folder),
    )
    assert front(book.records(folder), run) == before
    assert book.confirmed(folder) == {member.identity for member in before}


def test_one_seed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toys.drive(toys.opened(toys.config(trials=2), tmp_path / "toy"))
    assert main(["resume", str(tmp_path / "toy"), "--confirm", "1"]) == 2
    assert "--confirm >= 2 must hold" in capsys.readouterr().err
    assert layout.load(tmp_path / "toy").trials == 2
