"""The driver dies at every single write of a run, also in the middle of the line: nothing finished is lost.

A SIGKILL is between two instructions, but only writes leave a mark, so killing at every write is killing everywhere.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "search_tests"))
import toys

from search import study as book
from search.config import RunConfig
from search.engine import Search
from search.storage import Journal
from search.worker import DONE

TRIALS = 4


class Killed(BaseException):
    """SIGKILL: nothing in the program catches it."""


def config() -> RunConfig:
    return toys.config(
        space=toys.tree(dims=(16, 24)), trials=TRIALS, start=[{"model.dim": 16, "model.timesteps": 2}], seed=1
    )


def session(
    folder: Path, kill_at: int | None, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> tuple[Search | None, int]:
    """One life of a driver; returns the finished search, or None if it was killed, and its number of writes."""
    writes = 0
    whole = Journal._append

    def append(self: Journal, lines: bytes, sync: bool) -> None:
        nonlocal writes
        if writes == kill_at:
            if torn:
                with open(self.path, "ab") as file:
                    file.write(lines[: random.Random(writes).randrange(1, len(lines))])
            raise Killed
        whole(self, lines, sync)
        writes += 1

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_append", append)
        try:
            search = toys.opened(config(), folder, price=toys.price)
            toys.drive(search, workers=2)
        except Killed:
            return None, writes
    return search, writes


def finished_trials(folder: Path) -> set[str]:
    """Candidates of which a result exists, in the study or as a done-marker."""
    marked = {path.parent.name for path in folder.glob(f"trials/*/{DONE}")}
    told = {r.identity for r in book.records(folder) if r.status in ("complete", "stopped")}
    return marked | told


def check(folder: Path, search: Search, before: set[str]) -> None:
    records = book.records(folder)
    over = [r for r in records if r.status in ("complete", "stopped")]
    assert Counter(r.identity for r in over).most_common(1)[0][1] == 1, "a candidate is there twice"
    assert len(over) == TRIALS
    assert before <= {r.identity for r in over}, "a finished trial was lost"
    assert not [r for r in records if r.status in ("running", "waiting")]
    complete = {r.number: r for r in records if r.status in ("complete", "duplicate")}
    for trial in search.study.best_trials:
        assert trial.values == [complete[trial.number].metrics[name] for name in search.config.objectives]


def test_a_driver_killed_at_any_write_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: Counter[str] = Counter()
    learn = toys.learn

    def counting(*args: Any) -> Any:
        outcome = learn(*args)
        if outcome.status == "complete":
            trained[args[0].identity] += 1
        return outcome

    monkeypatch.setattr(toys.drive, "__defaults__", (counting, 1))
    search, writes = session(tmp_path / "whole" / "toy", None, monkeypatch, False)
    assert search is not None
    assert writes > 40
    for kill_at in range(writes):
        folder = tmp_path / str(kill_at) / "toy"
        trained.clear()
        killed, _ = session(folder, kill_at, monkeypatch, torn=kill_at % 2 == 1)
        assert killed is None
        before = finished_trials(folder) if (folder / "study.journal").exists() and kill_at > 5 else set()
        search, _ = session(folder, None, monkeypatch, False)
        assert search is not None
        assert search.finished
        check(folder, search, before)
        assert max(trained.values(), default=0) <= 1, "a finished candidate was trained again"


def test_a_driver_killed_again_and_again_gets_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "toy"
    rng = random.Random(0)
    before: set[str] = set()
    for life in range(200):
        search, _ = session(folder, rng.randrange(1, 15), monkeypatch, torn=life % 2 == 0)
        if search is not None:
            break
        if life > 2:
            assert before <= finished_trials(folder)
            before = finished_trials(folder)
    assert search is not None
    assert life > 4
    check(folder, search, before)


def test_a_lock_that_a_killed_driver_left_does_not_stop_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "toy"
    search = toys.opened(config(), folder)
    assert search.next() is not None
    os.symlink("gone", folder / "study.journal.lock")
    again = toys.opened(config(), folder)
    toys.drive(again)
    assert again.finished
