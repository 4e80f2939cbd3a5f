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

from search import study as book
from search.worker import DONE

KILLS = int(os.environ.get("LRF_KILLS", "30"))
DRIVER = Path(__file__).with_name("driver.py")


def start(folder: Path, trials: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(DRIVER), str(folder), str(trials)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def over(folder: Path) -> Counter[str]:
    return Counter(r.identity for r in book.records(folder) if r.status in ("complete", "stopped"))


@pytest.mark.slow
def test_the_driver_is_killed_again_and_again(tmp_path: Path) -> None:
    folder, rng, kills, trials = tmp_path / "toy", random.Random(0), 0, 30
    before: set[str] = set()
    while kills < KILLS:
        driver = start(folder, trials)
        assert driver.stdout is not None
        if driver.stdout.readline() != "working\n":
            driver.wait()
            continue  # Ray did not start: a busy machine, and no kill
        time.sleep(rng.uniform(1.0, 8.0))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        kills += 1
        finished = set(over(folder)) | {path.parent.name for path in folder.glob(f"trials/*/{DONE}")}
        assert before <= finished, "a finished trial was lost"
        before = finished
        trials = max(trials, len(before) + 6)  # there is always something left to kill
        trials = min(trials, 32)
    for _ in range(3):
        driver = start(folder, trials)
        said, _ = driver.communicate()
        if "finished" in said:
            break
    found = over(folder)
    assert set(found.values()) == {1}
    assert len(found) == trials
    assert before <= set(found)
    records = book.records(folder)
    assert not [r for r in records if r.status in ("running", "waiting")]
    epochs = [line for path in folder.glob("trials/*/log") for line in path.read_text().split()]
    needed = sum(len(r.history) for r in records if r.status in ("complete", "stopped"))
    print(f"\n{kills} kills, {trials} trials, {needed} epochs needed, {len(epochs) - needed} trained again")


@pytest.mark.slow
def test_an_interrupt_ends_in_order(tmp_path: Path) -> None:
    driver = start(tmp_path / "toy", 30)
    assert driver.stdout is not None
    assert driver.stdout.readline() == "working\n"
    time.sleep(6)
    driver.send_signal(signal.SIGINT)
    said, _ = driver.communicate(timeout=120)
    assert "interrupted" in said
    before = over(tmp_path / "toy")
    again = start(tmp_path / "toy", 30)
    said, _ = again.communicate(timeout=600)
    assert "finished" in said
    assert set(before) <= set(over(tmp_path / "toy"))
    assert len(over(tmp_path / "toy")) == 30
