"""Comparisons: one box for all, and attainment over seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import synthetic
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from results import compare
from results.compare import Entry, attainment, groups, read
from results.front import front
from search.cli import main
from search.cli.run import prepared
from search.config import RunConfig, Sampler


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


def resolved(sampler: str, seed: int) -> Entry:
    records, _ = synthetic(60, seed)
    run = prepared(RunConfig(name=f"{sampler}-{seed}", sampler=Sampler(name=sampler), seed=seed))
    return Entry(run.name, run, records, front(records, run))


def test_runs_that_differ_in_their_seed_only_are_one_band_around_a_median() -> None:
    entries = [resolved(sampler, seed) for sampler in ("tpe", "random") for seed in (0, 1, 2)]
    found = {name: [entry.name for entry in same] for name, same in groups(entries).items()}
    assert found == {"tpe-0": ["tpe-0", "tpe-1", "tpe-2"], "random-0": ["random-0", "random-1", "random-2"]}
    axis = Figure().subplots()
    compare._panel(axis, entries[:3], "accuracy", "energy_mj")
    (band,) = [drawn for drawn in axis.collections if isinstance(drawn, PolyCollection)]
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    median = axis.lines[0].get_ydata()
    assert axis.lines[0].get_label() == "tpe-0 (3 seeds)"
    assert low <= median.min() <= median.max() <= high
    assert low < high


def test_a_comparison_needs_two_runs(run_folder: Path) -> None:
    with pytest.raises(ValueError, match="at least 2 runs, but got 1"):
        read([run_folder])
