"""A space as a sampler handles it: points, their neighbourhood, and their features for a model.

A point is a mapping from parameter name to label, as an Optuna trial stores it. What depends on a choice is absent
where it does not exist; `Domain.complete` walks the space and keeps, draws or drops accordingly, so mutation and
crossover need no repair of their own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.samplers.surrogate import Array, Ints
from spaces.tree import Choice, Number, Parameter, Pick, Scalar

Point = dict[str, Scalar]


class Buildable(Protocol):
    """What a domain needs of a space; `spaces.space.Space` is one."""

    def parameters(self) -> dict[str, Parameter]: ...
    def build(self, pick: Pick) -> Any: ...


class FlatSpace:
    """Independent parameters; a point builds itself."""

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._parameters = dict(parameters)

    def parameters(self) -> dict[str, Parameter]:
        return self._parameters

    def build(self, pick: Pick) -> Point:
        return {name: pick(name, parameter) for name, parameter in self._parameters.items()}


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """The Optuna distribution that ``parameter.suggest`` asks for."""
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.labels)
    if parameter.integer:
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log, step=step)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def parameter_of(distribution: BaseDistribution) -> Parameter:
    """The inverse of `distribution_of`; a categorical one becomes a choice of its indices."""
    if isinstance(distribution, CategoricalDistribution):
        return Choice(tuple(range(len(distribution.choices))))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    integer = isinstance(distribution, IntDistribution)
    return Number(distribution.low, distribution.high, distribution.step, distribution.log, integer)


def _unit(name: str) -> str:
    """What crossover inherits whole: a block of the architecture, or a single parameter."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: i + 1])
    return name


class Domain:
    """Points of a space."""

    def __init__(self, space: Buildable) -> None:
        self.space = space
        self.parameters = space.parameters()
        self._units = {name: _unit(name) for name in self.parameters}
        self._columns: dict[str, int] = {}
        self._codes: dict[str, Callable[[Scalar], Sequence[float]]] = {}
        groups: list[int] = []
        names: dict[str, int] = {}
        blank: list[float] = []
        for name, parameter in self.parameters.items():
            # One length scale for the same parameter of every block: a few trials cannot tell more apart.
            group = names.setdefault(".".join(p for p in name.split(".") if not p.isdigit()), len(names))
            width = len(parameter.options) if isinstance(parameter, Choice) and _is_nominal(parameter) else 1
            self._columns[name] = len(groups)
            self._codes[name] = _coder(parameter)
            groups += [group] * width
            blank += [0.0] * width if width > 1 else [0.5]
        self.groups: Ints = np.array(groups, dtype=np.int64)
        self._blank: Array = np.array(blank)

    def complete(self, wanted: Mapping[str, Scalar], rng: random.Random) -> tuple[Point, Any]:
        """The point that keeps ``wanted`` where it exists and draws the rest, and what it builds.

        Raises:
            ValueError: The point breaks a law of the space.
        """
        point: Point = {}

        def pick(name: str, parameter: Parameter) -> Scalar:
            point[name] = wanted[name] if name in wanted else parameter.sample(rng)
            return point[name]

        return point, self.space.build(pick)

    def fill(self, wanted: Mapping[str, Scalar], rng: random.Random, tries: int = 10) -> tuple[Point, Any] | None:
        """As `complete`; None if ``tries`` attempts broke a law."""
        for _ in range(tries if len(wanted) < len(self.parameters) else 1):
            try:
                return self.complete(wanted, rng)
            except ValueError:
                continue
        return None

    def mutated(self, point: Point, rng: random.Random) -> Point:
        """``point`` with one or more changes; feed it to `complete`."""
        point = dict(point)
        if rng.random() < 0.2 and (blocks := self._blocks(point)):
            self._copy_block(point, blocks, rng)
        else:
            names = sorted(point)
            changes = 1 + min(int(rng.expovariate(1.0)), len(names) - 1)
            for name in rng.sample(names, changes):
                point[name] = _neighbour(self.parameters[name], point[name], rng)
        return point

    def crossed(self, a: Point, b: Point, rng: random.Random) -> Point:
        """Each block and each other parameter from one of two parents."""
        parents = {unit: rng.choice((a, b)) for unit in sorted({self._units[name] for name in (*a, *b)})}
        first = {name: value for name, value in a.items() if parents[self._units[name]] is a}
        return first | {name: value for name, value in b.items() if parents[self._units[name]] is b}

    def _blocks(self, point: Point) -> list[str]:
        blocks = sorted({self._units[name] for name in point if self._units[name] != name})
        return blocks if len(blocks) > 1 else []

    def _copy_block(self, point: Point, blocks: Sequence[str], rng: random.Random) -> None:
        source, target = rng.sample(blocks, 2)
        if source.rpartition(".")[0] != target.rpartition(".")[0]:
            return
        for name in [name for name in point if self._units[name] == target]:
            del point[name]
        for name, value in list(point.items()):
            if self._units[name] == source and target + name.removeprefix(source) in self.parameters:
                point[target + name.removeprefix(source)] = value

    def encode(self, point: Mapping[str, Scalar]) -> Array:
        """Features in [0, 1], [d]: nominal choices one-hot over √2; what a point lacks is 0, or ½ if ordered."""
        row = self._blank.copy()
        for name, label in point.items():
            code = self._codes[name](label)
            start = self._columns[name]
            row[start : start + len(code)] = code
        return row


def _is_nominal(parameter: Parameter) -> bool:
    if isinstance(parameter, Number):
        return False
    return not all(isinstance(o, int | float) and not isinstance(o, bool) for o in parameter.options)


def _coder(parameter: Parameter) -> Callable[[Scalar], Sequence[float]]:
    """The features of a label."""
    if isinstance(parameter, Choice):
        labels = parameter.labels
        if _is_nominal(parameter):
            table = {
                (type(label), label): [math.sqrt(0.5) * (i == k) for k in range(len(labels))]
                for i, label in enumerate(labels)
            }
        else:
            last = max(len(labels) - 1, 1)
            table = {(type(label), label): [i / last] for i, label in enumerate(sorted(parameter.options))}
        return lambda label: table[type(label), label]
    number = parameter

    def scaled(label: Scalar) -> Sequence[float]:
        assert isinstance(label, int | float)
        low, high, value = number.low, number.high, float(label)
        if number.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        return [(value - low) / (high - low) if high > low else 0.5]

    return scaled


def _neighbour(parameter: Parameter, label: Scalar, rng: random.Random) -> Scalar:
    """Another value: a step on a scale half of the time, anything else otherwise."""
    grid = parameter.grid()
    near = not _is_nominal(parameter) and rng.random() < 0.5
    if grid is not None:
        if len(grid) == 1:
            return label
        if near:
            ordered = sorted(grid)  # type: ignore[type-var]
            where = min(range(len(ordered)), key=lambda i: abs(ordered[i] - label))  # type: ignore[operator]
            return ordered[min(max(where + rng.choice((-1, 1)), 0), len(ordered) - 1)]
        return rng.choice([value for value in grid if value != label])
    if not near:
        return parameter.sample(rng)
    assert isinstance(parameter, Number)
    assert isinstance(label, int | float)
    step: Callable[[float], float] = math.log if parameter.log else float
    low, high = step(parameter.low), step(parameter.high)
    moved = min(max(step(label) + rng.gauss(0, 0.1) * (high - low), low), high)
    return min(max(math.exp(moved) if parameter.log else moved, parameter.low), parameter.high)
