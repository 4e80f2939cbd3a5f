"""What came out of one trial: the value that passes from the search to its results."""

from __future__ import annotations

from typing import Literal

from spaces.config import Candidate
from spaces.cost import Cost
from spaces.operators import Frozen

Status = Literal[
    "complete",  # trained in full, finite: only these can enter a front (if they keep the budgets)
    "stopped",  # ended early by the scheduler, or hopeless against the front
    "rejected",  # breaks a law or a budget that is known before training
    "infeasible",  # out of memory, diverged, NaN: a result about the candidate
    "failed",  # exception or lost infrastructure, after the retries
    "duplicate",  # same identity as an earlier trial, answered from its record
    "running",
    "waiting",
]


class Epoch(Frozen):
    """Validation metrics after one training epoch. ``seconds`` is the wall time of that epoch."""

    epoch: int
    metrics: dict[str, float]
    seconds: float


class Record(Frozen):
    """One trial of a run.

    Attributes:
        number: Number of the Optuna trial.
        identity: `Candidate.identity`; empty where the suggestion breaks a law and no candidate exists.
        reason: Why it was stopped, rejected, infeasible or failed: one sentence.
        metrics: Final values by metric name (search/metrics.py), on the full validation set.
        errors: Standard error of a metric over validation images, where one is known, and over ``seeds`` if several.
        seeds: How many trainings ``metrics`` are the mean of: more than 1 for confirmed members of a front.
        violations: By how much each broken budget is exceeded; empty if all are kept.
        history: One entry per epoch that was trained.
        test: Metrics on the test set, measured once, for members of the final front only.
        seconds: Wall time of the trial; ``started`` is a POSIX time stamp.
        attempt: 1, or more after lost infrastructure.
        origin: Who proposed it: "sampler", "start" (a starting point) or "warm" (an earlier run).
    """

    number: int
    status: Status
    identity: str = ""
    candidate: Candidate | None = None
    parameters: dict[str, str | int | float | bool | None] = {}
    reason: str | None = None
    cost: Cost | None = None
    metrics: dict[str, float] = {}
    errors: dict[str, float] = {}
    seeds: int = 1
    violations: dict[str, float] = {}
    history: tuple[Epoch, ...] = ()
    test: dict[str, float] | None = None
    started: float = 0.0
    seconds: float = 0.0
    attempt: int = 1
    origin: str = "sampler"
    duplicate_of: int | None = None
