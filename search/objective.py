"""What a trial does, as a value that can be replaced: training on real data, a table, or a function that sleeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from search.config import RunConfig
from search.metrics import priced_metrics
from search.record import Epoch
from spaces.config import Candidate
from spaces.operators import Frozen

if TYPE_CHECKING:  # the driver and the reports read outcomes without waiting for torch
    from torch import nn

    from search.data.dataset import DataSet, Part

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


MEASURED_IMAGES = 64
"""How many validation images measure the energy after an epoch; always the same. After the last, all do."""

Measured = tuple[dict[str, float], dict[str, float]]
"""Metrics, and standard errors of some of them."""


@dataclass(frozen=True)
class TrainingObjective:
    """Trains a candidate on real data, and measures it: what the trials of a run do.

    It holds the run file only, so it is small to send; the data are read once per worker process.
    """

    run: RunConfig

    def __call__(self, candidate: Candidate, folder: str, report: Report) -> Outcome:
        import torch

        from lrf_models.counters import price
        from search import checkpoint, distributed
        from search.data import load
        from search.evaluate import evaluate
        from search.train import Diverged, train

        torch.set_num_threads(max(1, int(self.run.resources.cpu)))
        data = load(self.run.data, self.run.data_dir)
        few = data.validation.subset(range(min(MEASURED_IMAGES, len(data.validation))))
        exact = priced_metrics(price(candidate, self.run.profile, self.run.convention))

        final: Measured | None = None

        def validate(model: nn.Module, last: bool) -> dict[str, float]:
            nonlocal final
            if last:
                final = measure_all(self.run, model, data.validation)
                return {**final[0], **exact}
            return {**measure_all(self.run, model, few)[0], **evaluate(model, data.validation).metrics, **exact}

        try:
            trained = train(candidate, data, folder, report, validate)
        except Diverged as error:
            return Outcome(status="infeasible", reason=f"diverged: {error}")
        except (MemoryError, torch.OutOfMemoryError) as error:
            return Outcome(status="infeasible", reason=f"out of memory: {error}")
        if trained.stopped:
            return Outcome(status="stopped", metrics=trained.history[-1].metrics)
        # Lost with a worker that died after its last epoch.
        metrics, errors = final or measure_all(self.run, trained.model, data.validation)
        if distributed.leads():
            checkpoint.save_weights(folder, trained.model, about(candidate, data))
            checkpoint.remove(folder, checkpoint.STATE)
        return Outcome(status="complete", metrics={**metrics, **exact}, errors=errors)


def measure_all(run: RunConfig, model: nn.Module, part: Part) -> Measured:
    """Quality, energy and operations on every image of a part, in one pass: for search and test alike."""
    from lrf_models.counters import counting, measurement
    from search.evaluate import evaluate

    with counting(model) as counter:
        quality = evaluate(model, part)
    found = measurement(counter, run.profile, run.convention)
    metrics = {**quality.metrics, "energy_mj": found.energy_mj, "sops": found.sops}
    return metrics, {**quality.errors, "energy_mj": found.energy_mj_se, "sops": found.sops_se}


def about(candidate: Candidate, data: DataSet) -> dict[str, str]:
    """What the header of a weights file says of its origin."""
    return {
        "candidate": candidate.model_dump_json(),
        "identity": candidate.identity,
        "data": data.name,
        "split": data.split,
    }


def evaluate_test(run: RunConfig, candidate: Candidate, folder: str) -> dict[str, float]:
    """Metrics of a trained candidate on the test images, with their standard errors as ``NAME_se``.

    For members of a final front only: it is the one place of a search that opens the test part.

    Raises:
        ValueError: ``folder`` holds no weights, or those of another architecture.
    """
    from lrf_models import build_model
    from search import checkpoint
    from search.data import load

    data = load(run.data, run.data_dir)
    model = build_model(candidate.model)
    checkpoint.load_weights(folder, model)
    metrics, errors = measure_all(run, model.eval(), data.test)
    return {**metrics, **{f"{name}_se": error for name, error in errors.items()}, "images": float(len(data.test))}
