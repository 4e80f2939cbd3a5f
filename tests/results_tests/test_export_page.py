"""The commands and the snippets of docs/export.md, run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from results.front import pick
from search import folder as layout
from search.cli import main
from search.data import load
from search.study import records

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.mark.slow
def test_the_page_does_what_it_says(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnxruntime", "onnxscript", "nir"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/first-front").symlink_to(run_folder)
    identity = pick(records(run_folder), layout.load(run_folder), "knee").identity
    text = PAGE.read_text(encoding="utf-8").replace("IDENTITY", identity)
    commands = re.findall(r"^    lrf-search (.+)$", text, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        assert main(shlex.split(command)) == 0, command
    images = "import torch\nimages = torch.zeros(4, 1, 8, 8)\n"
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) >= 2
    environment = os.environ | {"PYTHONPATH": str(PAGE.parents[1])}
    for snippet in snippets:
        if "nir." in snippet:
            continue  # only LRF-Dyn networks have the file; tests/results_tests/test_formats.py reads it back
        folder = f"runs/first-front/exports/{identity}"
        where = {"cwd": tmp_path if "local-dir" in snippet else tmp_path / folder, "env": environment}
        result = subprocess.run([sys.executable, "-c", images + snippet], capture_output=True, text=True, **where)
        assert result.returncode == 0, result.stderr
    assert load("digits").split in Path(f"runs/first-front/exports/{identity}/README.md").read_text(encoding="utf-8")
