"""Run folders: made whole or not at all, locked, named so that nothing lands outside of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import toys
from pydantic import ValidationError

from search import folder as layout
from search.config import RunConfig


def test_a_run_folder_holds_its_run_file(tmp_path: Path) -> None:
    folder = layout.create(toys.config(), tmp_path / "runs")
    assert layout.load(folder) == toys.config()
    assert sorted(path.name for path in folder.iterdir()) == ["host.yaml", layout.OWNER, layout.RUN_FILE]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["toy"]


def test_an_existing_folder_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "mine").write_text("keep")
    with pytest.raises(ValueError, match=r"the run folder .*toy exists; go on with it by `lrf-search resume"):
        layout.create(toys.config(), tmp_path)
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["mine"]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"cannot make the run folder .*: Not a directory"):
        layout.create(toys.config(), tmp_path / "file")


def test_a_read_only_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = layout.create(toys.config(), tmp_path)

    def refuse(self: Path) -> None:  # root ignores permissions, so the system's answer is played
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with (
        pytest.raises(ValueError, match=r"cannot write to the run folder .*: Permission denied"),
        layout.locked(folder),
    ):
        pass


def test_only_one_driver_at_a_time(tmp_path: Path) -> None:
    folder = layout.create(toys.config(), tmp_path)
    assert not layout.is_locked(folder)
    with layout.locked(folder) as owner:
        assert owner == (folder / layout.OWNER).read_text()
        other = (
            "import sys; from pathlib import Path; from search import folder as f\n"
            "print(f.is_locked(Path(sys.argv[1])))\n"
            "with f.locked(Path(sys.argv[1])): pass"
        )
        done = subprocess.run([sys.executable, "-c", other, str(folder)], capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "True"
        assert f"another driver is working on {folder} (process {os.getpid()} on" in done.stderr
    assert not layout.is_locked(folder)
    with layout.locked(folder) as again:
        assert again == owner


@pytest.mark.parametrize("name", ["../up", "/abs", "a/b", "", ".", "..", "-x", "a" * 65, "a\n", "a b", "ünïcode"])
def test_names_stay_inside_the_run_directory(name: str) -> None:
    with pytest.raises(ValidationError):
        RunConfig(name=name)


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is no run folder: it has no run\.yaml"):
        layout.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "is not YAML"),
        ("- a", "must hold a mapping, but holds list"),
        ("name: x\ntrails: 3", "trails"),
        ("name: x\ntrials: 0", "trials"),
        ("name: x\nobjectives: [speed]", "must be one of"),
        ("name: x\nbudgets: {energy_mj: {}}", "a budget needs min or max"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_damaged_run_file_is_said(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / layout.RUN_FILE).write_text(text)
    with pytest.raises(ValueError, match=message):
        layout.load(tmp_path)


def test_small_files_are_there_whole_or_not_at_all(tmp_path: Path) -> None:
    address = str(tmp_path / "deep" / "file.json")
    assert layout.read_text(address) is None
    layout.write_text(address, "one")
    layout.write_text(address, "two")
    assert layout.read_text(address) == "two"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file.json"]
    shared = "memory://bucket/file.json"
    assert layout.read_text(shared) is None
    layout.write_text(shared, "three")
    assert layout.read_text(shared) == "three"


@pytest.mark.parametrize("text", ["{a: [", "- 3\n- {machine: m}\n"])
def test_damaged_notes_of_the_host_keep_nobody_from_going_on(tmp_path: Path, text: str) -> None:
    folder = layout.create(toys.config(), tmp_path)
    (folder / layout.HOST).write_text(text)
    layout.note_session(folder)
    assert all(isinstance(session, dict) for session in layout.sessions(folder))
    assert layout.sessions(folder)[-1].keys() == {"versions", "machine"}
