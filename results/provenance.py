"""Where a front comes from: what somebody needs to make it again, or to doubt it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from search import folder as layout
from search.config import RunConfig
from search.host import machine, versions
from search.record import Record


def facts(records: Sequence[Record], run: RunConfig, folder: Path) -> dict[str, str]:
    """Label → text, in the order of reading."""
    epochs = sum(len(record.history) for record in records)
    seconds = sum(record.seconds for record in records)
    return {
        "command": f"lrf-search run {folder / 'run.yaml'}",
        **facts_of_run(run),
        "effort": f"{len(records)} of {run.trials} trials, {epochs} epochs, {seconds / 60:.1f} trial-minutes",
        **_made_with(folder),
    }


def _made_with(folder: Path) -> dict[str, str]:
    """Packages and machine of each session that brought others; without a note, those of the report, and so named."""
    sessions = layout.sessions(folder)
    if not sessions:
        return {"versions of this report": versions(), "machine of this report": machine()}
    found: dict[str, str] = {}
    for number, session in enumerate(sessions, 1):
        for key, text in session.items():
            found[key if len(sessions) == 1 else f"{key} ({number} of {len(sessions)})"] = str(text)
    return found


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
