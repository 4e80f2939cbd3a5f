"""A table of real trainings (benchmarks/tables/build.py) as a problem to race on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.race.problems import log_scale
from benchmarks.race.simulator import Problem
from benchmarks.tables.build import bound_space
from search.config import load_run_config
from search.metrics import METRICS
from search.pareto import Points, hypervolume, nondominated
from search.samplers.quote import HINTS, Quote
from spaces.config import Candidate

ERROR_FLOOR = 0.5
"""In images: an error of none of n validation images counts as half of one, so that it has a logarithm."""


@cache
def table(path: Path, images: int = 359) -> Problem:
    """The problem of a Parquet file; its run file lies beside it, with the same name.

    Values are those of seed 0. The hypervolume takes error, energy and memory on logarithmic scales between the best
    and the worst of all fully trained candidates.

    Raises:
        ValueError: There is no such file, or it does not hold every candidate of the space.
    """
    import pyarrow.parquet as pq

    if not path.exists():
        raise ValueError(f"there is no table {path}; benchmarks/tables/build.py makes it")
    run = load_run_config(path.with_suffix(".yaml"))
    space = bound_space(run)
    columns = pq.read_table(path).to_pandas()
    columns = columns[columns.seed == 0].sort_values(["identity", "epoch"])
    curves: dict[str, Points] = {}
    quotes: dict[str, Quote] = {}
    for identity, rows in columns.groupby("identity"):
        curves[str(identity)] = rows[list(run.objectives)].to_numpy(dtype=np.float64)
        quotes[str(identity)] = _quote(str(identity), rows.iloc[0], run.objectives)
    missing = sum(1 for candidate in space.enumerate() if candidate.identity not in curves)
    if missing:
        raise ValueError(
            f"{path} lacks {missing} candidates of its space; benchmarks/tables/build.py goes on with it"
        )
    macs = dict(columns.groupby("identity").dense_macs.first())
    mean = float(np.mean(list(macs.values())))

    def costs(values: Points) -> Points:
        return _costs(values, run.objectives, images)

    everything = costs(np.array([curve[-1] for curve in curves.values() if len(curve) == run.epochs]))
    logarithmic = log_scale(everything)

    def quote(candidate: Candidate) -> Quote:
        return quotes[candidate.identity]

    def curve(candidate: Candidate) -> Points:
        return curves[candidate.identity]

    def duration(candidate: Any) -> float:
        return float(0.5 + 0.5 * macs[candidate.identity] / mean)  # half of an epoch is overhead on small networks

    return Problem(
        name=run.name,
        space=space,
        objectives=run.objectives,
        directions=tuple(METRICS[name].direction for name in run.objectives),
        optimum=tuple(1.0 if METRICS[name].direction == "maximize" else 0.0 for name in run.objectives),
        curve=curve,
        quote=quote,
        scale=lambda values: logarithmic(costs(values)),
        best=hypervolume(logarithmic(everything[nondominated(everything)]), np.ones(len(run.objectives))),
        epochs=run.epochs,
        duration=duration,
    )


def _costs(values: Points, objectives: tuple[str, ...], images: int) -> Points:
    """Values [n, m] of every objective as something to be minimised, positive."""
    minimised = values.copy()
    for j, name in enumerate(objectives):
        if METRICS[name].direction == "maximize":
            minimised[:, j] = np.maximum(1 - values[:, j], ERROR_FLOOR / images)
    return minimised


def _quote(identity: str, row: Any, objectives: tuple[str, ...]) -> Quote:
    """What is known of a candidate before training, from one of its rows."""
    energy = (float(row.energy_mj_low), float(row.energy_mj_high))
    return Quote(
        identity=identity,
        values=tuple(float(row[name]) if METRICS[name].priced else None for name in objectives),
        bounds=tuple(energy if name == "energy_mj" else None for name in objectives),
        features=tuple(float(np.log(row[name])) for name in HINTS if name not in objectives),
    )
