"""A trial fills the memory of its node: Ray's memory monitor kills its worker, and the search calls it infeasible."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "search_tests"))
import ray.cloudpickle
import toys

from search import runner
from search import study as book
from search.config import Resources
from search.objective import Outcome, Report
from spaces.config import Candidate

ray.cloudpickle.register_pickle_by_value(toys)  # workers do not find the folder of the tests
GIB = 2**30


def in_use() -> tuple[float, float]:
    """Bytes in use and in all."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    sizes = {line.split(":")[0]: float(line.split()[1]) * 1024 for line in lines}
    return sizes["MemTotal"] - sizes["MemAvailable"], sizes["MemTotal"]


@pytest.mark.slow
def test_a_worker_that_fills_the_memory_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used, total = in_use()
    if total - used < 8 * GIB:
        pytest.skip("needs 8 GiB of free memory")
    monkeypatch.setenv("RAY_memory_usage_threshold", str((used + 3 * GIB) / total))

    def greedy(candidate: Candidate, folder: str, report: Report) -> Outcome:
        hoard = []
        while candidate.model.dim == 16 and sum(map(len, hoard)) < 6 * GIB:  # type: ignore[union-attr]
            hoard.append(bytearray(b"x") * (64 * 2**20))
            time.sleep(0.05)
        return toys.learn(candidate, folder, report)

    run = toys.config(space=toys.tree(dims=(16, 24, 32), timesteps=1), trials=3, schedule={"enabled": False})
    with runner.connected(Resources(), processors=2):
        search = toys.opened(run, tmp_path / "toy", price=toys.price)
        assert runner.run(search, greedy, tmp_path / "toy", run)
    records = {r.metrics["memory_kib"]: r for r in book.records(tmp_path / "toy") if r.status != "duplicate"}
    assert {size: r.status for size, r in records.items()} == {16: "infeasible", 24: "complete", 32: "complete"}
    reason = records[16].reason or ""
    print(f"\n{reason}")
    assert reason.startswith("out of memory, the worker was killed")
