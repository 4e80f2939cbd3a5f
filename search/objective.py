"""What a trial does, as a value that can be replaced: training on real data, a table, or a function that sleeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from search.record import Epoch
from spaces.config import Candidate, Frozen

Report = Callable[[Epoch], bool]
"""Called after every epoch; False asks the objective to stop."""


class Outcome(Frozen):
    """How a trial ended. ``metrics`` are final only for ``complete``."""

    status: Literal["complete", "stopped", "infeasible", "failed"]
    metrics: dict[str, float] = {}
    errors: dict[str, float] = {}
    reason: str | None = None


class Objective(Protocol):
    """Evaluates one candidate.

    ``folder`` is the candidate's own folder (a path or fsspec address), the same after a restart and on another
    node: what it needs to go on is there. A problem of the candidate (NaN, out of memory) is an `Outcome`; an
    exception is a problem of the infrastructure, or a defect.
    """

    def __call__(self, candidate: Candidate, folder: str, report: Report) -> Outcome: ...
