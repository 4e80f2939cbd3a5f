"""Several drivers on one study at a time: no candidate twice, no trial too many, and the dead are replaced."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from optuna.trial import FrozenTrial

sys.path.insert(0, str(Path(__file__).parents[1] / "search_tests"))
import toys

from search import ledger as ledger_module
from search import study as book
from search.config import RunConfig
from search.engine import Search
from search.objective import Outcome, Report
from search.record import Record
from spaces.config import Candidate

TRIALS = 24


class Server(NamedTuple):
    """A PostgreSQL server of our own on loopback."""

    url: str
    start: Callable[[], None]
    stop: Callable[[], None]
    signal: Callable[[int], None]
    """Sends a signal to all its processes."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """It runs as an ordinary user, because PostgreSQL refuses to run as root."""
    found = sorted(glob("/usr/lib/postgresql/*/bin/pg_ctl"))
    control = found[-1] if found else shutil.which("pg_ctl")
    if control is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    pytest.importorskip("pg8000", reason="the driver pg8000 is not installed (extra `postgresql`)")
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own folders are closed to other users
    shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def do(*words: str) -> None:
        as_user = ["runuser", "-u", "postgres", "--"]
        subprocess.run([*as_user, *words], check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=120)

    data = str(folder / "data")
    options = f"-p {port} -k {folder} -h 127.0.0.1 -c fsync=off"
    do(str(Path(control).with_name("initdb")), "-D", data, "-A", "trust", "-U", "postgres")

    def start() -> None:
        do(control, "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start")

    def stop() -> None:
        do(control, "-D", data, "-m", "immediate", "-w", "stop")

    def send(number: int) -> None:
        master = (folder / "data" / "postmaster.pid").read_text(encoding="utf-8").split()[0]
        children = Path(f"/proc/{master}/task/{master}/children").read_text(encoding="utf-8").split()
        for process in (master, *children):
            os.kill(int(process), number)

    start()
    yield Server(f"postgresql+pg8000://postgres@127.0.0.1:{port}/postgres", start, stop, send)
    stop()
    shutil.rmtree(folder)


def storage_of(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    if kind == "postgresql":
        return str(request.getfixturevalue("server").url)
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/study.db"
    return f"journal:{tmp_path}/shared.journal"


def race(run: Any, tmp_path: Path, objective: Any, drivers: int = 2) -> list[Search]:
    """Let drivers, each with its own run folder, work on one study at once."""
    searches: list[Search] = []
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            search = toys.opened(run, tmp_path / str(index) / run.name, owner=f"{index:012x}", price=toys.price)
            searches.append(search)
            toys.drive(search, objective, workers=3)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(index,)) for index in range(drivers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    assert not errors, errors
    return searches


@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_two_drivers_share_a_run(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    trained: Counter[str] = Counter()

    def objective(candidate: Candidate, folder: str, report: Report) -> Outcome:
        trained[candidate.identity] += 1
        return toys.learn(candidate, folder, report)

    run = toys.config(name=f"race-{kind}", storage=storage_of(kind, tmp_path, request), trials=TRIALS)
    searches = race(run, tmp_path, objective)
    records = book.study_records(searches[0].study)
    over = Counter(r.identity for r in records if r.status in ("complete", "stopped"))
    assert len(over) == TRIALS
    assert set(over.values()) == {1}
    assert trained == over
    assert not [r for r in records if r.status in ("running", "waiting")]


def test_a_claim_that_is_confirmed_while_another_driver_looks_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower driver reads the study between claim and confirmation of the faster one."""
    run = toys.config(storage=f"journal:{tmp_path}/shared.journal", trials=6)
    fast, slow = (toys.opened(run, tmp_path / owner / "toy", owner=owner) for owner in "ab")
    first, second = fast.study.ask(), slow.study.ask()
    both = toys.candidate()
    record = {"status": "running", "identity": both.identity, "candidate": both}
    first.set_user_attr(book.OWNER, "a")
    first.set_user_attr(book.INTENT, both.identity)
    looks = [lambda: fast._ledger.confirm(first, Record(number=first.number, **record))]

    def look() -> list[FrozenTrial]:
        seen = sync()
        if looks:
            looks.pop()()
        return seen

    sync = slow._ledger.sync
    monkeypatch.setattr(slow._ledger, "sync", look)
    assert not slow._ledger.claim(second, Record(number=second.number, **record))


def test_two_drivers_that_want_the_same_candidate_agree(tmp_path: Path) -> None:
    """A space of four: both drivers propose the same things all the time."""
    run = toys.config(
        storage=f"journal:{tmp_path}/shared.journal",
        trials=20,
        space=toys.tree(dims=(16,)),
        schedule={"enabled": False},
    )
    searches = race(run, tmp_path, toys.learn)
    records = book.study_records(searches[0].study)
    assert Counter(r.identity for r in records if r.status == "complete").most_common(1)[0][1] == 1
    assert len({r.identity for r in records if r.status == "complete"}) == 4
    assert all(search.finished for search in searches)


def test_the_trials_of_a_dead_driver_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "BEAT_S", 0.01)
    monkeypatch.setattr(ledger_module, "DEAD_S", 0.2)
    run = toys.config(storage=f"journal:{tmp_path}/shared.journal", trials=6)
    dead = toys.opened(run, tmp_path / "a" / "toy", owner="a")
    left = [dead.next(), dead.next()]
    dead.tick()
    alive = toys.opened(run, tmp_path / "b" / "toy", owner="b")
    toys.drive(alive)
    orphans = {task.identity for task in left if task}
    assert {r.identity for r in book.study_records(alive.study) if r.status == "running"} == orphans
    until = time.monotonic() + 20
    while not alive._ledger.retries and time.monotonic() < until:
        alive.tick()
        time.sleep(0.015)
    toys.drive(alive)
    records = book.study_records(alive.study)
    assert not [r for r in records if r.status == "running"]
    attempts = {r.identity: r.attempt for r in records if r.status in ("complete", "stopped")}
    assert {identity for identity, attempt in attempts.items() if attempt == 2} == orphans
    for task in left:  # the dead one was only asleep: its word comes too late, and changes nothing
        assert task is not None
        toys.train(dead, task)
    assert book.study_records(alive.study) == records


def test_a_living_driver_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "BEAT_S", 0.01)
    monkeypatch.setattr(ledger_module, "DEAD_S", 0.2)
    run = toys.config(storage=f"journal:{tmp_path}/shared.journal", trials=6)
    first = toys.opened(run, tmp_path / "a" / "toy", owner="a")
    assert first.next() is not None
    second = toys.opened(run, tmp_path / "b" / "toy", owner="b")
    until = time.monotonic() + 1
    while time.monotonic() < until:
        first.tick()
        second.tick()
        time.sleep(0.015)
    assert first.running == 1
    assert not second._ledger.retries


def work_alone(run: RunConfig, folder: Path, owner: str, log: Path) -> None:
    """A driver process; notes what it trains in a log that both share."""

    def objective(candidate: Candidate, folder: str, report: Report) -> Outcome:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{candidate.identity} {owner}\n")
        return toys.learn(candidate, folder, report)

    toys.drive(toys.opened(run, folder, owner=owner, price=toys.price), objective, workers=3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_two_driver_processes_share_80_trials(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    space = toys.tree(dims=tuple(range(16, 336, 8)))
    run = toys.config(name=f"pair-{kind}", storage=storage_of(kind, tmp_path, request), trials=80, space=space)
    context, log = multiprocessing.get_context("spawn"), tmp_path / "log"
    owners = ["a" * 12, "b" * 12]
    drivers = [
        context.Process(target=work_alone, args=(run, tmp_path / owner / run.name, owner, log)) for owner in owners
    ]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join(timeout=500)
    assert [driver.exitcode for driver in drivers] == [0, 0]
    records = book.records(tmp_path / owners[0] / run.name)
    over = Counter(r.identity for r in records if r.status in ("complete", "stopped"))
    trained = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    assert Counter(identity for identity, _ in trained) == over == Counter(list(over))
    assert len(over) == 80
    share = Counter(owner for _, owner in trained)
    assert len(share) == 2
    repeats = sum(r.status == "duplicate" for r in records)
    print(f"\n{kind}: 80 trials, each once, {sorted(share.values())} by driver; {repeats} repeats answered")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_a_database_that_is_away_for_20_s_is_waited_for(how: str, tmp_path: Path, server: Server) -> None:
    run = toys.config(name=f"outage-{how}", storage=server.url, trials=30)
    under_way = threading.Event()
    begun: list[str] = []

    def slow(candidate: Candidate, folder: str, report: Report) -> Outcome:
        begun.append(candidate.identity)
        if len(begun) == 5:
            under_way.set()
        time.sleep(0.1)
        return toys.learn(candidate, folder, report)

    def outage() -> None:
        assert under_way.wait(120)
        if how == "stopped":
            server.stop()
            time.sleep(20)
            server.start()
        else:
            server.signal(signal.SIGSTOP)
            time.sleep(20)
            server.signal(signal.SIGCONT)

    interruption = threading.Thread(target=outage)
    interruption.start()
    searches = race(run, tmp_path, slow)
    interruption.join()
    over = Counter(r.identity for r in book.study_records(searches[0].study) if r.status in ("complete", "stopped"))
    assert len(over) == 30
    assert set(over.values()) == {1}
