"""SIGKILL to the whole driver at random moments, again and again, under Ray; and SIGINT, which ends in order."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "search_tests"))
import driver
import toys

from search import study as book
from search.worker import DONE

KILLS = int(os.environ.get("LRF_KILLS", "30"))
EPOCH_S = 0.3


def start(folder: Path, trials: int) -> subprocess.Popen[str]:
    command = [sys.executable, driver.__file__, str(folder), str(trials), str(EPOCH_S)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def over(folder: Path) -> Counter[str]:
    return Counter(r.identity for r in book.records(folder) if r.status in ("complete", "stopped"))


def trained(folder: Path) -> int:
    """Epochs so far, those that were trained again included."""
    return sum(map(len, driver.logged(folder).values()))


@pytest.mark.slow
def test_the_driver_is_killed_again_and_again(tmp_path: Path) -> None:
    """One in five dies while it starts, the others after so many epochs that nobody knows beforehand."""
    folder, rng, kills, trials = tmp_path / "toy", random.Random(0), 0, 60
    before: set[str] = set()
    while kills < KILLS:
        process = start(folder, trials)
        assert process.stdout is not None
        if kills % 5 == 4:
            time.sleep(rng.uniform(0.0, 15.0))
        else:
            more = trained(folder) + rng.randrange(40)
            while process.poll() is None and trained(folder) < more:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, EPOCH_S))
            if process.poll() is not None:
                continue  # Ray did not start: a busy machine, and no kill
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        finished = set(over(folder)) | {path.parent.name for path in folder.glob(f"trials/*/{DONE}")}
        assert before <= finished, "a finished trial was lost"
        before = finished
        print(f"kill {kills}: {len(before)} trials finished, {trained(folder)} epochs", flush=True)
        trials = max(trials, len(before) + 6)  # there is always something left to kill
    for _ in range(3):
        process = start(folder, trials)
        said, _ = process.communicate()
        if "finished" in said:
            break
    found = over(folder)
    assert set(found.values()) == {1}
    assert len(found) == trials
    assert before <= set(found)
    records = book.records(folder)
    assert not [r for r in records if r.status in ("running", "waiting")]
    metrics = {r.number: r.metrics for r in records if r.status in ("complete", "duplicate")}
    study = toys.opened(driver.config(trials), folder).study
    assert study.best_trials
    for trial in study.best_trials:
        assert trial.values == [metrics[trial.number][name] for name in toys.config().objectives]
    needed = sum(len(r.history) for r in records if r.status in ("complete", "stopped"))
    print(f"\n{kills} kills, {trials} trials, {needed} epochs needed, {trained(folder) - needed} trained again")


@pytest.mark.slow
def test_an_interrupt_ends_in_order(tmp_path: Path) -> None:
    process = start(tmp_path / "toy", 30)
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert "interrupted" in said
    before = over(tmp_path / "toy")
    again = start(tmp_path / "toy", 30)
    said, _ = again.communicate(timeout=600)
    assert "finished" in said
    assert set(before) <= set(over(tmp_path / "toy"))
    assert len(over(tmp_path / "toy")) == 30
