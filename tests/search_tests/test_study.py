"""Studies that are damaged, foreign, shared: nothing is lost, and each is refused with one sentence."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import optuna
import pytest
import toys

from search import folder as layout
from search import storage as storage_module
from search import study as book
from search.storage import Journal, hide_password, is_transient, open_storage, patiently


def run(folder: Path, **values: object) -> None:
    toys.drive(toys.opened(toys.config(**values), folder))


def test_records_survive_the_journal(tmp_path: Path) -> None:
    search = toys.opened(
        toys.config(budgets={"memory_kib": {"max": 60}}, trials=8), tmp_path / "toy", price=toys.price
    )
    toys.drive(search)
    assert book.records(tmp_path / "toy") == book.study_records(search.study)
    record = book.records(tmp_path / "toy")[0]
    assert record.candidate is not None
    assert record.candidate.identity == record.identity
    assert record.cost == toys.price(record.candidate)


def test_test_metrics_are_kept_beside_their_record(tmp_path: Path) -> None:
    run(tmp_path / "toy", trials=3, schedule={"enabled": False})
    identity = book.records(tmp_path / "toy")[1].identity
    book.store_test(tmp_path / "toy", identity, {"accuracy": 0.5})
    assert {r.identity: r.test for r in book.records(tmp_path / "toy")}[identity] == {"accuracy": 0.5}
    assert sum(r.test is not None for r in book.records(tmp_path / "toy")) == 1


def test_a_longer_run_goes_on_where_it_was(tmp_path: Path) -> None:
    run(tmp_path / "toy", trials=4)
    before = book.records(tmp_path / "toy")
    run(tmp_path / "toy", trials=9)
    after = book.records(tmp_path / "toy")
    assert after[: len(before)] == before
    assert len({r.identity for r in after if r.status in ("complete", "stopped")}) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": ["accuracy", "memory_kib"]}, r"has the directions \['maximize', 'minimize', 'minimize'\]"),
        ({"objectives": ["accuracy", "sops", "memory_kib"]}, r"the run file says objectives = .*sops.*energy_mj"),
        ({"epochs": 12}, "the run file says epochs = 12, but its study was made with 9"),
        ({"profile": "other"}, 'the run file says profile = "other"'),
        ({"space": toys.tree(dims=(16, 24))}, "the run file says space = .*but its study was made with"),
    ],
)
def test_a_changed_run_file_is_refused_with_both_values(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    run(tmp_path / "toy", trials=3)
    before = (tmp_path / "toy" / layout.JOURNAL).read_bytes()
    with pytest.raises(ValueError, match=message):
        toys.opened(toys.config(**change), tmp_path / "toy")
    assert (tmp_path / "toy" / layout.JOURNAL).read_bytes() == before


def test_what_may_change_may_change(tmp_path: Path) -> None:
    run(tmp_path / "toy", trials=3)
    run(tmp_path / "toy", trials=5, sampler={"name": "tpe"}, resources={"cpu": 2}, seed=7)


def test_a_torn_last_line_is_trimmed(tmp_path: Path) -> None:
    run(tmp_path / "toy", trials=3)
    path = tmp_path / "toy" / layout.JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 4, "work')
    assert len(book.records(tmp_path / "toy")) == 3  # a reader leaves it alone
    assert path.read_bytes() != whole
    run(tmp_path / "toy", trials=4)
    assert len({r.identity for r in book.records(tmp_path / "toy")}) == 4


@pytest.mark.parametrize("damage", [b"\x00" * 64 + b"\n", b"not json\n", b'{"op_code": 99}\n', b"[]\n"])
def test_a_damaged_journal_is_refused_and_not_touched(damage: bytes, tmp_path: Path) -> None:
    run(tmp_path / "toy", trials=3)
    path = tmp_path / "toy" / layout.JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    for rest in (lines[10:], []):  # Optuna itself passes over a last line
        path.write_bytes(b"".join([*lines[:10], damage, *rest]))
        before = path.read_bytes()
        for action in (lambda: book.records(tmp_path / "toy"), lambda: toys.opened(toys.config(), tmp_path / "toy")):
            with pytest.raises(ValueError, match=r"study .*study\.journal is damaged .*it was not changed"):
                action()
        assert path.read_bytes() == before


def test_a_missing_journal_is_said(tmp_path: Path) -> None:
    run(tmp_path / "toy", trials=3)
    (tmp_path / "toy" / layout.JOURNAL).unlink()
    with pytest.raises(ValueError, match=r"the study .*study\.journal is missing"):
        book.records(tmp_path / "toy")


def test_a_study_of_someone_else_is_not_taken_over(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/other.db"
    study = optuna.create_study(storage=url, study_name="toy", directions=["maximize", "minimize", "minimize"])
    study.ask()
    with pytest.raises(ValueError, match="exists in this storage and was not made by lrf-search"):
        toys.opened(toys.config(storage=url), tmp_path / "toy")


def test_sqlite_by_url(tmp_path: Path) -> None:
    run(tmp_path / "toy", storage=f"sqlite:///{tmp_path}/study.db", trials=4)
    assert len(book.records(tmp_path / "toy")) >= 4


@pytest.mark.parametrize("content", [b"this is no database", b"SQLite format 3\x00 and then nothing"])
def test_a_damaged_database_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(content)
    with pytest.raises(ValueError, match="cannot open the study at sqlite:///"):
        toys.opened(toys.config(storage=f"sqlite:///{tmp_path}/study.db"), tmp_path / "toy")
    assert (tmp_path / "study.db").read_bytes() == content


def test_a_database_that_is_not_there_is_refused_at_once_without_its_password() -> None:
    with pytest.raises(ValueError, match="cannot open the study at") as caught:
        open_storage("postgresql://me:secret@127.0.0.1:1/none", alone=False)
    assert "secret" not in str(caught.value)
    assert hide_password("postgresql://me:secret@host/db") == "postgresql://me@host/db"


def test_a_full_disk_is_waited_for_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module.time, "sleep", lambda seconds: None)
    journal = Journal(tmp_path / "study.journal")
    journal.append_logs([{"a": 1}])
    sync, failures = storage_module.os.fsync, iter([OSError(errno.ENOSPC, "No space left on device")] * 3)

    def full(descriptor: int) -> None:
        if (error := next(failures, None)) is not None:
            raise error
        sync(descriptor)

    monkeypatch.setattr(storage_module.os, "fsync", full)
    journal.append_logs([{"b": 2}])
    lines = (tmp_path / "study.journal").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"a": 1}, {"b": 2}]


def test_patience_ends_and_is_only_for_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(storage_module, "PATIENCE_S", 0.0)
    calls = []

    def away() -> None:
        calls.append(1)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    with pytest.raises(ConnectionRefusedError):
        patiently(away, "test")
    assert calls
    assert not is_transient(FileNotFoundError(errno.ENOENT, "no such file"))
    assert not is_transient(KeyError("x"))
