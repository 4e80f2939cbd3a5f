"""The grammar of search spaces: a tree in the shape of a candidate whose leaves are constants or parameters.

Conditions need no syntax of their own, because a parameter lives inside the choice that it belongs to:

    dim: {choice: [16, 32]}            any JSON values
    depth: {int: [1, 4], step: 1}      inclusive; ``log: true`` for a logarithmic scale
    lr: {float: [1.0e-3, 1.0e-2], log: true}
    neuron: {one_of: [{kind: lif, tau: {float: [1.5, 4]}}, {kind: if}]}
    blocks: {repeat: {int: [1, 3]}, of: {…}, each: true}     each: false draws once for all

One walk over the tree (`build`) serves suggesting, sampling, mutating and replaying: they differ only in who
picks the value of a parameter. No torch in here, and no Optuna: a trial is anything with its suggest methods.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Scalar = str | int | float | bool | None


class Trial(Protocol):
    """The part of an Optuna trial that a space needs."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...
    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...
    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...


# --- leaves: what a sampler picks ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """One of several values. A value that Optuna cannot store as it is (a list) goes by its JSON text."""

    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError("a choice needs at least one option, but got []")
        labels = self.labels
        if len({(type(label), label) for label in labels}) != len(labels):
            raise ValueError(f"the options of a choice must differ, but got {list(self.options)}")

    @property
    def labels(self) -> tuple[Scalar, ...]:
        """What a trial stores for each option."""
        return tuple(o if isinstance(o, Scalar) else json.dumps(o) for o in self.options)

    def value(self, label: Scalar) -> Any:
        """The option of a label."""
        return self.options[self.labels.index(label)]

    def label(self, value: Any) -> Scalar:
        """The label of a value; a ValueError that says what is allowed if it has none."""
        for option, label in zip(self.options, self.labels, strict=True):
            if option == value or (isinstance(value, tuple) and option == list(value)):
                return label
        raise ValueError(f"must be one of {list(self.options)}, but got {value!r}")

    def suggest(self, trial: Trial, name: str) -> Scalar:
        """The label that a trial suggests."""
        picked: Scalar = trial.suggest_categorical(name, self.labels)
        return picked

    def sample(self, rng: random.Random) -> Scalar:
        """A label at random."""
        return rng.choice(self.labels)

    def grid(self) -> Sequence[Scalar] | None:
        """Every label."""
        return self.labels


@dataclass(frozen=True)
class Number:
    """An integer or real range, both ends inclusive."""

    low: float
    high: float
    step: float | None = None
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"low <= high must hold, but got (low={self.low:g}, high={self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"low > 0 must hold on a logarithmic scale, but got (low={self.low:g})")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step > 0 must hold, but got (step={self.step:g})")
        if self.log and self.step is not None and not (self.integer and self.step == 1):
            raise ValueError(f"a logarithmic range has no step, but got (step={self.step:g})")
        if self.integer and not all(float(x).is_integer() for x in (self.low, self.high, self.step or 1)):
            raise ValueError(f"an int range has whole ends and step, but got [{self.low:g}, {self.high:g}]")

    def value(self, label: Scalar) -> Any:
        """A number is its own label."""
        return label

    def label(self, value: Any) -> Scalar:
        """The label of a value; a ValueError that says what is allowed if it has none."""
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        grid = self.grid()
        if inside and grid is not None:
            inside = any(math.isclose(value, point, rel_tol=1e-9) for point in map(_number, grid))
        if not inside:
            steps = "" if self.step is None else f" in steps of {self.step:g}"
            raise ValueError(f"must lie in [{self.low:g}, {self.high:g}]{steps}, but got {value!r}")
        return int(value) if self.integer else float(value)

    def suggest(self, trial: Trial, name: str) -> Scalar:
        """The label that a trial suggests."""
        if self.integer:
            return trial.suggest_int(name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)

    def sample(self, rng: random.Random) -> Scalar:
        """A label at random, even on the logarithm where ``log`` is set."""
        grid = self.grid()
        if grid is not None and not self.log:
            return rng.choice(grid)
        if self.log:
            value = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = rng.uniform(self.low, self.high)
        value = min(max(value, self.low), self.high)
        return round(value) if self.integer else value

    def grid(self) -> Sequence[Scalar] | None:
        """Every value, or None for a continuous range."""
        if self.integer:
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        if self.low == self.high:
            return [self.low]
        if self.step is None:
            return None
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        return [min(self.low + i * self.step, self.high) for i in range(count)]  # rounding must not pass the end


Parameter = Choice | Number


def _number(value: Scalar) -> float:
    assert isinstance(value, int | float), f"the grid of a range holds {value!r}"
    return value


# --- inner nodes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OneOf:
    """Alternatives, each a mapping with a constant ``kind`` and parameters of its own."""

    options: dict[str, Node]

    @property
    def choice(self) -> Choice:
        return Choice(tuple(self.options))


@dataclass(frozen=True)
class Repeat:
    """A list of ``count`` items, drawn one by one (``each``) or once for all."""

    count: Node
    of: Node
    each: bool


Node = dict[str, Any] | OneOf | Repeat | Choice | Number | Scalar | list[Any]
Pick = Callable[[str, Parameter], Scalar]


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def parse(raw: Any, path: str) -> Node:
    """The node that a piece of YAML describes.

    Raises:
        ValueError: It is none; the sentence names the place.
    """
    try:
        if isinstance(raw, Mapping):
            keys = set(raw)
            if "choice" in keys:
                _only(raw, {"choice"})
                return Choice(tuple(raw["choice"]))
            if keys & {"int", "float"}:
                _only(raw, {"int", "float", "step", "log"})
                low, high = raw.get("int", raw.get("float"))
                return Number(low, high, raw.get("step"), bool(raw.get("log", False)), "int" in keys)
            if "one_of" in keys:
                _only(raw, {"one_of"})
                options = {str(o["kind"]): parse(o, _join(path, o["kind"])) for o in raw["one_of"]}
                if len(options) != len(raw["one_of"]) or not options:
                    raise ValueError(f"one_of needs different kinds, but got {[o['kind'] for o in raw['one_of']]}")
                return OneOf(options)
            if "repeat" in keys:
                _only(raw, {"repeat", "of", "each"})
                of = parse(raw["of"], path)
                return Repeat(parse(raw["repeat"], _join(path, "count")), of, bool(raw.get("each", True)))
            return {str(key): parse(value, _join(path, key)) for key, value in raw.items()}
        if isinstance(raw, list | tuple):
            return [parse(value, _join(path, i)) for i, value in enumerate(raw)]
        if isinstance(raw, Scalar):
            return raw
        raise ValueError(f"cannot be part of a space: {raw!r}")
    except (KeyError, TypeError) as error:
        raise ValueError(f"space: {path}: not understood ({error}): {raw!r}") from None
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith("space: ") else f"space: {path}: {text}") from None


def _only(raw: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(raw) - known):
        raise ValueError(f"unknown key {unknown[0]!r}; known are {sorted(known)}")


def build(node: Node, path: str, pick: Pick) -> Any:
    """The plain value of a node when ``pick`` decides its parameters."""
    match node:
        case Choice() | Number():
            return node.value(pick(path, node))
        case OneOf():
            kind = str(pick(_join(path, "kind"), node.choice))
            return build(node.options[kind], _join(path, kind), pick)
        case Repeat():
            count = build(node.count, _join(path, "count"), pick)
            if not node.each:
                return [build(node.of, path, pick)] * count
            return [build(node.of, _join(path, i), pick) for i in range(count)]
        case dict():
            return {key: build(value, _join(path, key), pick) for key, value in node.items()}
        case list():
            return [build(value, _join(path, i), pick) for i, value in enumerate(node)]
        case _:
            return node


def leaves(node: Node, path: str) -> Iterator[tuple[str, Parameter]]:
    """Every parameter that may occur, conditional ones included."""
    match node:
        case Choice() | Number():
            yield path, node
        case OneOf():
            yield _join(path, "kind"), node.choice
            for kind, option in node.options.items():
                yield from leaves(option, _join(path, kind))
        case Repeat():
            yield from leaves(node.count, _join(path, "count"))
            if not node.each:
                yield from leaves(node.of, path)
            else:
                for i in range(max(_counts(node))):
                    yield from leaves(node.of, _join(path, i))
        case dict():
            for key, value in node.items():
                yield from leaves(value, _join(path, key))
        case list():
            for i, value in enumerate(node):
                yield from leaves(value, _join(path, i))


def _counts(node: Repeat) -> Sequence[int]:
    grid = node.count.grid() if isinstance(node.count, Choice | Number) else [node.count]
    counts = [n for n in grid or () if isinstance(n, int) and n >= 0]
    if grid is None or len(counts) < len(grid):
        raise ValueError(f"space: repeat needs whole numbers, but got {node.count!r}")
    return counts


def size(node: Node) -> int:
    """Number of value combinations, a continuous range counted as one."""
    match node:
        case Choice() | Number():
            grid = node.grid()
            return 1 if grid is None else len(grid)
        case OneOf():
            return sum(size(option) for option in node.options.values())
        case Repeat():
            one = size(node.of)
            return sum(one**n if node.each else one for n in _counts(node))
        case dict():
            return math.prod(size(value) for value in node.values())
        case list():
            return math.prod(size(value) for value in node)
        case _:
            return 1


def every(node: Node, path: str) -> Iterator[Any]:
    """Every value of a discrete node.

    Raises:
        ValueError: A range in it is continuous.
    """
    match node:
        case Choice() | Number():
            grid = node.grid()
            if grid is None:
                raise ValueError(f"space: {path} is continuous, so the space cannot be enumerated")
            yield from (node.value(label) for label in grid)
        case OneOf():
            for kind, option in node.options.items():
                yield from every(option, _join(path, kind))
        case Repeat():
            for n in _counts(node):
                if node.each:
                    yield from (list(items) for items in itertools.product(*[list(every(node.of, path))] * n))
                else:
                    yield from ([item] * n for item in every(node.of, path))
        case dict():
            columns = [list(every(value, _join(path, key))) for key, value in node.items()]
            yield from (dict(zip(node, row, strict=True)) for row in itertools.product(*columns))
        case list():
            yield from (list(row) for row in itertools.product(*[list(every(v, path)) for v in node]))
        case _:
            yield node


def match(node: Node, value: Any, path: str) -> Iterator[tuple[str, Scalar]]:
    """The parameter values that make `build` return ``value``.

    Raises:
        ValueError: No values do; the sentence names the place.
    """
    match node:
        case Choice() | Number():
            try:
                yield path, node.label(value)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path} {error}") from None
        case OneOf():
            kind = value["kind"]
            if kind not in node.options:
                raise ValueError(f"{path}.kind must be one of {list(node.options)}, but got {kind!r}")
            yield _join(path, "kind"), kind
            yield from match(node.options[kind], value, _join(path, kind))
        case Repeat():
            yield from match(node.count, len(value), _join(path, "count"))
            if not node.each and any(item != value[0] for item in value):
                raise ValueError(f"{path} must be the same in every block")
            items = value if node.each else value[:1]
            for i, item in enumerate(items):
                yield from match(node.of, item, _join(path, i) if node.each else path)
        case dict():
            for key, child in node.items():
                yield from match(child, value[key], _join(path, key))
        case list():
            for i, child in enumerate(node):
                yield from match(child, value[i], _join(path, i))
        case _:
            if node != value:
                raise ValueError(f"{path} is fixed to {node!r}, but got {value!r}")
