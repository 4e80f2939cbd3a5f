"""A small file system, filled to the brim in the middle of a run: it waits, and nothing finished is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "search_tests"))
import driver
import toys

from search import storage as storage_module
from search import study as book
from search.objective import Outcome, Report
from search.worker import DONE
from spaces.config import Candidate

TRIALS = 12


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take every byte that is left."""
    filler = place / "filler"
    with suppress(OSError), open(filler, "ab", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    assert os.statvfs(place).f_bavail == 0
    return filler


def finished(folder: Path) -> Counter[str]:
    return Counter(r.identity for r in book.records(folder) if r.status in ("complete", "stopped"))


def check(folder: Path, before: set[str]) -> None:
    over = finished(folder)
    assert before <= set(over), "a finished trial was lost"
    assert len(over) == TRIALS
    assert set(over.values()) == {1}
    assert not [r for r in book.records(folder) if r.status in ("running", "waiting")]


def test_a_full_disk_is_waited_for(small: Path) -> None:
    folder, trained = small / "toy", Counter[str]()
    full: list[Path] = []

    def learn(candidate: Candidate, folder: str, report: Report) -> Outcome:
        if len(trained) == 5 and not full:
            full.append(fill(small))
            threading.Timer(3.0, full[0].unlink).start()
        outcome = toys.learn(candidate, folder, report)
        trained[candidate.identity] += outcome.status == "complete"
        return outcome

    search = toys.opened(toys.config(trials=TRIALS, schedule={"enabled": False}), folder, price=toys.price)
    start = time.monotonic()
    toys.drive(search, learn, workers=2)
    assert full
    assert time.monotonic() - start > 3.0  # it did wait
    assert set(trained.values()) == {1}
    check(folder, set())


def test_a_disk_that_stays_full_ends_the_session_and_resume_loses_nothing(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, run = small / "toy", toys.config(trials=TRIALS)
    begun: list[str] = []

    def learn(candidate: Candidate, folder: str, report: Report) -> Outcome:
        begun.append(candidate.identity)
        if len(begun) == 6:
            fill(small)
        return toys.learn(candidate, folder, report)

    def results() -> set[str]:
        return set(finished(folder)) | {path.parent.name for path in folder.glob(f"trials/*/{DONE}")}

    monkeypatch.setattr(storage_module, "PATIENCE_S", 0.3)
    search = toys.opened(run, folder, price=toys.price)
    with pytest.raises(OSError, match="No space left on device"):
        toys.drive(search, learn, workers=2)
    before = results()
    assert len(before) == 5
    with pytest.raises(OSError, match="No space left on device"):
        toys.opened(run, folder, price=toys.price)
    assert before <= results()
    monkeypatch.undo()
    (small / "filler").unlink()
    toys.drive(toys.opened(run, folder, price=toys.price))
    check(folder, before)


@pytest.mark.slow
def test_a_disk_that_is_full_for_20_s_under_ray(small: Path) -> None:
    """Tune's own scratch is on the full disk too."""
    command = [sys.executable, driver.__file__, str(small / "toy"), str(TRIALS), "0.3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and sum(map(len, driver.logged(small / "toy").values())) < 20:
        time.sleep(0.1)
    filler = fill(small)
    before = set(finished(small / "toy"))
    assert process.poll() is None
    assert 0 < len(before) < TRIALS
    time.sleep(20)
    filler.unlink()
    said, complaints = process.communicate(timeout=300)
    if "finished" not in said:  # Tune itself may give up; the run goes on where it was
        print(f"\nthe session ended: {complaints.strip().splitlines()[-1:]}")
        again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=300)
        assert "finished" in again.stdout
    check(small / "toy", before)
