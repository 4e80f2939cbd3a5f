"""Where a front comes from: what somebody needs to make it again, or to doubt it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from search.config import RunConfig
from search.record import Record

PACKAGES = ("lrf-search", "torch", "timm", "optuna", "ray", "numpy")


def facts(records: Sequence[Record], run: RunConfig, folder: Path) -> dict[str, str]:
    """Label → text, in the order of reading."""
    epochs = sum(len(record.history) for record in records)
    seconds = sum(record.seconds for record in records)
    return {
        "command": f"lrf-search run {folder / 'run.yaml'}",
        **facts_of_run(run),
        "effort": f"{len(records)} of {run.trials} trials, {epochs} epochs, {seconds / 60:.1f} trial-minutes",
        "versions": versions(),
        "report made on": machine(),
    }


def facts_of_run(run: RunConfig) -> dict[str, str]:
    """What the run file says."""
    budgets = ", ".join(
        f"{name} {sign} {value:g}"
        for name, bound in run.budgets.items()
        for sign, value in (("≥", bound.min), ("≤", bound.max))
        if value is not None
    )
    return {
        "data set": f"{run.data}, split {split(run.data, run.data_dir)}",
        "objectives": ", ".join(run.objectives),
        "budgets": budgets or "none",
        "search": f"{run.sampler.name} sampler, {_schedule(run)}, seed {run.seed}",
        "energy model": f"profile {run.profile}, convention {run.convention}: an estimate, not a measurement",
        "recipe": f"{run.recipe}, at most {run.epochs} epochs",
    }


def _schedule(run: RunConfig) -> str:
    if not run.schedule.enabled:
        return "no early stopping"
    return f"successive halving by Pareto rank (grace {run.schedule.grace}, reduction {run.schedule.reduction})"


@lru_cache
def split(data: str, data_dir: str | None) -> str:
    """Fingerprint of the data split; a report of a run whose data are elsewhere says so."""
    from search.data import load

    try:
        return load(data, data_dir).split
    except ValueError:
        return "unknown (the data are not on this machine)"


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def machine() -> str:
    """Processor, cores and system, without the name of the host."""
    processor = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{processor}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
