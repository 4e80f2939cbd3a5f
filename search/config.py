"""What a run is: the content of a run file, validated before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from search.metrics import METRICS
from search.samplers import MOST_PRICED
from spaces.config import Training, explain, load_mapping
from spaces.operators import AtLeast1, Frozen, Positive

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Bound(Frozen):
    """A budget on one metric: ``{max: 0.5}`` or ``{min: 0.9}``."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("a budget needs min or max")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min <= max must hold, but got (min={self.min:g}, max={self.max:g})")
        return self

    def violation(self, value: float) -> float:
        """By how much ``value`` breaks the bound; 0 if it keeps it."""
        below = self.min - value if self.min is not None else 0.0
        above = value - self.max if self.max is not None else 0.0
        return max(below, above, 0.0)


class Sampler(Frozen):
    """A sampler by name (search/samplers) and its own options. A run with more objectives than ``priced`` takes has
    ``tpe`` by default."""

    name: str = "priced"
    options: dict[str, Any] = {}


class Schedule(Frozen):
    """Multi-objective successive halving: rungs at grace·reduction^i epochs, the best 1/reduction go on.

    Off by default with the sampler ``priced``: its proposals lie so close together that to stop most of them costs
    more front than the epochs are worth (docs/search-benchmark.md).
    """

    grace: AtLeast1 = 3
    reduction: Annotated[int, Field(ge=2)] = 3
    enabled: bool = True


class Resources(Frozen):
    """What one trial gets, on one node, which has all ``labels`` (Ray's) if there are any.

    ``concurrent=None`` takes as many trials at once as the cluster holds.
    """

    cpu: Positive = 1.0
    gpu: Annotated[float, Field(ge=0)] = 0.0
    custom: dict[str, Positive] = {}
    labels: dict[str, str] = {}
    concurrent: AtLeast1 | None = None
    time_limit_s: Positive | None = None


class RunConfig(Frozen):
    """A search, complete: the same file and seed on one worker give the same run.

    Attributes:
        data: Name of a registered data set; ``data_dir`` is where its files are, if it needs any.
        space: A named space (spaces/presets.py) or a tree as in spaces/space.py.
        training: Values over the ``recipe``, for all candidates; the space's own win.
        budgets: Bounds on metrics; exact ones are checked before training.
        start: Starting candidates: operators, as in `spaces.presets.starting_points`, or parameter values by
            dotted name.
        warm_start: Candidates of earlier runs as parameter values, tried after the starting points; what
            ``--warm-start`` writes.
        loggers: Where else the trials are shown (search/loggers.py).
        storage: Optuna storage: None for the journal file in the run folder, a database URL, or ``journal:PATH``.
        storage_path: Where the folders of trials are, for several nodes: a shared folder or an fsspec address.
    """

    name: Name
    data: str = "digits"
    data_dir: str | None = None
    space: str | dict[str, Any] = "digits"
    objectives: Annotated[tuple[str, ...], Field(min_length=1)] = ("accuracy", "energy_mj", "memory_kib")
    budgets: dict[str, Bound] = {}
    sampler: Sampler = Sampler()
    schedule: Schedule = Schedule()
    trials: AtLeast1 = 30
    epochs: AtLeast1 = 30
    recipe: str = "search"
    training: dict[str, Any] = {}
    start: tuple[str | dict[str, Any], ...] = ()
    warm_start: tuple[dict[str, Any], ...] = ()
    seed: Annotated[int, Field(ge=0)] = 0
    profile: str = "45nm-fp32"
    convention: Literal["paper", "event", "extended", "memory"] = "event"
    resources: Resources = Resources()
    loggers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    storage: str | None = None
    storage_path: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, raw: Any) -> Any:
        """A sampler by its name alone; where the run file has none, the sampler and the schedule that suit it."""
        if not isinstance(raw, dict):
            return raw
        objectives = raw.get("objectives")
        many = isinstance(objectives, list | tuple) and len(objectives) > MOST_PRICED
        sampler = raw.get("sampler", "tpe" if many else "priced")
        if isinstance(sampler, str):
            sampler = {"name": sampler}
        name = sampler.get("name", "priced") if isinstance(sampler, dict) else getattr(sampler, "name", None)
        return {"schedule": {"enabled": name != "priced"}, **raw, "sampler": sampler}

    @field_validator("training")
    @classmethod
    def _known_training(cls, value: dict[str, Any]) -> dict[str, Any]:
        if unknown := sorted(value.keys() - Training.model_fields.keys()):
            raise ValueError(f"there is no {unknown[0]!r}; known are {sorted(Training.model_fields)}")
        return value

    @field_validator("objectives")
    @classmethod
    def _known_objectives(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in METRICS:
                raise ValueError(f"must be one of {sorted(METRICS)}, but got {name!r}")
        if len(set(value)) != len(value):
            raise ValueError(f"objectives must differ, but got {list(value)}")
        return value

    @field_validator("budgets")
    @classmethod
    def _known_budgets(cls, value: Mapping[str, Bound]) -> Mapping[str, Bound]:
        for name in value:
            if name not in METRICS:
                raise ValueError(f"must be on one of {sorted(METRICS)}, but got {name!r}")
        return value


def load_run_config(path: Path) -> RunConfig:
    """Read a run file.

    Raises:
        ValueError: `load_mapping` refuses it, or it breaks a law: one sentence with the place and the value.
    """
    raw = load_mapping(path)
    raw.setdefault("name", path.stem)
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error)}") from None
