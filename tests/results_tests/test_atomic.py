"""An export is killed for real, at many moments: there is the old folder or the new one, whole."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch

from results import export as exporting
from results.export import export
from search.cli import main


def content(folder: Path) -> dict[str, str]:
    """A digest of every file. The notes in a safetensors header have no order, so they are sorted first."""
    found = {}
    for path in folder.iterdir():
        data = path.read_bytes()
        if path.suffix == ".safetensors":
            size = 8 + int.from_bytes(data[:8], "little")
            data = json.dumps(json.loads(data[8:size]), sort_keys=True).encode() + data[size:]
        found[path.name] = hashlib.sha256(data).hexdigest()
    return found


def kill_after(seconds: float, run_folder: Path, out: Path) -> None:
    """Export one pick and the other in turn in a process of its own, and end that with SIGKILL."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            while True:
                export(run_folder, "knee", out, force=True)
                export(run_folder, "min-energy", out, force=True)
        finally:
            os._exit(1)
    time.sleep(seconds)
    assert os.waitpid(child, os.WNOHANG) == (0, 0), "the export ended by itself"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("exchanged", [True, False], ids=["exchange", "two renames"])
def test_a_killed_export_leaves_the_old_folder_or_the_new_one(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanged: bool
) -> None:
    torch.set_num_threads(1)
    out = tmp_path / "out"
    whole = [content(export(run_folder, pick, out, force=True)) for pick in ("min-energy", "knee")]
    assert whole[0] != whole[1]
    if not exchanged:
        monkeypatch.setattr(exporting, "_exchange", lambda one, other: False)
    rng = random.Random(0)
    found = []
    for _ in range(8):
        kill_after(rng.uniform(0.02, 0.6), run_folder, out)
        aside = [path for path in tmp_path.iterdir() if path.name.startswith(".out.old")]
        if not out.exists():  # between two renames: only where the system cannot exchange folders
            assert not exchanged
            aside[0].rename(out)
        found.append(whole.index(content(out)))
    assert set(found) <= {0, 1}


def test_a_disk_that_takes_no_more_leaves_the_old_folder(run_folder: Path, tmp_path: Path) -> None:
    out = export(run_folder, "knee", tmp_path / "out")
    before = content(out)
    child = os.fork()
    if child == 0:
        code = 99
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
            code = main(["export", str(run_folder), "--pick", "min-energy", "--out", str(out), "--force"])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
    assert content(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_where_folders_cannot_be_exchanged_they_are_renamed(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export(run_folder, "knee", tmp_path / "out")
    before = content(out)
    monkeypatch.setattr(exporting, "_exchange", lambda one, other: False)
    export(run_folder, "min-energy", out, force=True)
    assert content(out) != before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
