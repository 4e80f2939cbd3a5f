"""Comparisons: one box for all, and attainment over seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from results.compare import attainment, read
from search.cli import main


def test_attainment_counts_the_runs_that_reach_a_point() -> None:
    fronts = [np.array([[1.0, 5.0], [2.0, 3.0]]), np.array([[2.0, 4.0]]), np.array([[1.0, 2.0]])]
    grid = np.array([0.5, 1.0, 2.0])
    assert attainment(fronts, 0.0, grid).tolist() == [np.inf, 2.0, 2.0]
    assert attainment(fronts, 0.5, grid).tolist() == [np.inf, 5.0, 3.0]
    assert attainment(fronts, 1.0, grid).tolist() == [np.inf, np.inf, 4.0]


def test_a_run_against_itself_has_equal_hypervolume(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "both.png"
    assert main(["compare", str(run_folder), str(run_folder), "--out", str(out), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["runs"]
    assert rows[0]["hypervolume"] == rows[1]["hypervolume"]
    assert 0 < rows[0]["hypervolume"] < 1
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_comparison_needs_two_runs(run_folder: Path) -> None:
    with pytest.raises(ValueError, match="at least 2 runs, but got 1"):
        read([run_folder])
