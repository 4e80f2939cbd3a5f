"""Search spaces: what can be suggested, drawn, enumerated and read back, as candidates."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spaces.config import Candidate, candidate_from
from spaces.tree import Node, Parameter, Pick, Scalar, Trial, build, every, leaves, match, parse, size


@dataclass(frozen=True)
class Space:
    """A declared search space.

    Attributes:
        name: What reports call it.
        raw: The plain tree that YAML holds, with ``model`` and ``training``.
    """

    name: str
    raw: Mapping[str, Any]

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.raw) - {"model", "training"}):
            raise ValueError(f"space: unknown key {unknown[0]!r}; known are ['model', 'training']")
        for key, part in self.raw.items():
            if not isinstance(part, Mapping):
                raise ValueError(f"space: {key} must hold a mapping, but holds {type(part).__name__}")
        size(self._tree)  # parses everything, and checks the repeat counts

    @property
    def _tree(self) -> dict[str, Node]:
        cached: dict[str, Node] | None = self.__dict__.get("_parsed")
        if cached is None:
            parsed = parse(self.raw, "")
            assert isinstance(parsed, dict)
            cached = self.__dict__["_parsed"] = parsed
        return cached

    def bound(self, model: Mapping[str, Any], training: Mapping[str, Any]) -> Space:
        """The same space with what the data set and the run decide filled in (the space's own values win)."""
        merged = {
            "model": {**model, **self.raw.get("model", {})},
            "training": {**training, **self.raw.get("training", {})},
        }
        return Space(self.name, merged)

    def parameters(self) -> dict[str, Parameter]:
        """Every parameter by its dotted name, conditional ones included."""
        return dict(leaves(self._tree, ""))

    def combinations(self) -> int:
        """Number of combinations of the discrete parameters, before the laws across fields."""
        return size(self._tree)

    def continuous(self) -> list[str]:
        """Names of the parameters with infinitely many values."""
        return [name for name, parameter in self.parameters().items() if parameter.grid() is None]

    def build(self, pick: Pick) -> Candidate:
        """The candidate that ``pick(name, parameter)`` decides.

        Raises:
            ValueError: The picked values break a law across fields (heads do not divide the width).
        """
        return candidate_from(build(self._tree, "", pick))

    def suggest(self, trial: Trial) -> Candidate:
        """The candidate that an Optuna trial suggests; ValueError as in `build`."""
        return self.build(lambda name, parameter: parameter.suggest(trial, name))

    def draw(self, rng: random.Random) -> dict[str, Scalar]:
        """Random parameter values, uniform per parameter; they may break a law across fields."""
        values: dict[str, Scalar] = {}

        def pick(name: str, parameter: Parameter) -> Scalar:
            values[name] = parameter.sample(rng)
            return values[name]

        build(self._tree, "", pick)
        return values

    def sample(self, rng: random.Random, tries: int = 1000) -> Candidate:
        """A random candidate that keeps the laws.

        Raises:
            ValueError: None of ``tries`` draws did; the message holds the last law broken.
        """
        law = ""
        for _ in range(tries):
            values = self.draw(rng)
            try:
                return self.build(lambda name, _, values=values: values[name])  # type: ignore[misc]
            except ValueError as error:
                law = str(error)
        raise ValueError(f"space {self.name!r} has no feasible point in {tries} random draws: {law}")

    def enumerate(self) -> Iterator[Candidate]:
        """Every different candidate of a discrete space that keeps the laws, once.

        Raises:
            ValueError: A parameter is continuous.
        """
        seen: set[str] = set()
        for raw in every(self._tree, ""):
            try:
                candidate = candidate_from(raw)
            except ValueError:
                continue
            if candidate.identity not in seen:
                seen.add(candidate.identity)
                yield candidate

    def values_of(self, candidate: Candidate) -> dict[str, Scalar]:
        """The parameter values that build ``candidate``, the inverse of `build`.

        Raises:
            ValueError: The candidate does not lie in the space; the message names where.
        """
        return dict(match(self._tree, candidate.model_dump(mode="json"), ""))
