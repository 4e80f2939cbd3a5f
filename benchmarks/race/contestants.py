"""Contestants by name: Optuna's samplers, each as recommended, and ``priced``; other packages' are in `peers`."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from benchmarks.race.simulator import Contestant, Problem
from search.pareto import Points
from search.samplers.priced import PricedSampler
from spaces.tree import Scalar

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

CURVE = "curve"


class Optuna:
    """Any Optuna sampler; a stopped trial is told PRUNED, as our engine does."""

    def __init__(self, problem: Problem, sampler: BaseSampler) -> None:
        self._problem = problem
        self._study = optuna.create_study(
            directions=[StudyDirection[name.upper()] for name in problem.directions], sampler=sampler
        )

    def ask(self) -> tuple[Hashable, Any]:
        while True:
            trial = self._study.ask()
            try:
                built = self._problem.space.build(lambda name, parameter, trial=trial: parameter.suggest(trial, name))  # type: ignore[misc]
            except ValueError:  # breaks a law of the space
                trial.set_constraint("law", 1.0)
                self._study.tell(trial, state=TrialState.PRUNED)
                continue
            return trial, built

    def tell(self, ticket: Hashable, curve: Points, complete: bool) -> None:
        assert isinstance(ticket, optuna.Trial)
        ticket.set_user_attr(CURVE, curve.tolist())
        if complete:
            self._study.tell(ticket, curve[-1].tolist())
        else:
            self._study.tell(ticket, state=TrialState.PRUNED)

    def offer(self, point: Mapping[str, Scalar]) -> None:
        self._study.enqueue_trial(dict(point))


def read_curve(trial: FrozenTrial) -> Mapping[int, Sequence[float]]:
    return dict(enumerate(trial.user_attrs.get(CURVE, []), start=1))


class Random:
    """Random search as a person would script it: draws with no memory at all."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem, self._rng = problem, random.Random(seed)

    def ask(self) -> tuple[Hashable, Any]:
        while True:
            try:
                return None, self._problem.space.build(lambda name, parameter: parameter.sample(self._rng))
            except ValueError:
                continue

    def tell(self, ticket: Hashable, curve: Points, complete: bool) -> None:
        return

    def offer(self, point: Mapping[str, Scalar]) -> None:
        return


def _priced(problem: Problem, seed: int, **options: Any) -> Contestant:
    known = {"space": problem.space, "quote": problem.quote, "optimum": problem.optimum, "curve": read_curve}
    return Optuna(problem, PricedSampler(**{**known, "seed": seed, **options}))


def _oracle(problem: Problem, seed: int) -> Contestant:
    from benchmarks.race.oracle import Oracle  # with torch, by the reader of tables

    return Optuna(problem, Oracle(problem, seed=seed))


CONTESTANTS: dict[str, Callable[[Problem, int], Contestant]] = {
    "random": Random,
    "nsga2": lambda problem, seed: Optuna(problem, NSGAIISampler(seed=seed, population_size=20)),
    "nsga3": lambda problem, seed: Optuna(problem, NSGAIIISampler(seed=seed, population_size=20)),
    "tpe": lambda problem, seed: Optuna(
        problem, TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    ),
    "gp": lambda problem, seed: Optuna(problem, GPSampler(seed=seed)),
    "priced": _priced,
    "oracle": _oracle,
    "priced, no prices": lambda problem, seed: Optuna(problem, PricedSampler(seed=seed)),
}


def make(name: str, problem: Problem, seed: int) -> Contestant:
    """A contestant by name.

    Raises:
        ValueError: There is none of that name, or its package is not installed.
    """
    from benchmarks.race.peers import PEERS

    known = CONTESTANTS | PEERS
    if name not in known:
        raise ValueError(f"a contestant is one of {sorted(known)}, but got {name!r}")
    try:
        return known[name](problem, seed)
    except ModuleNotFoundError as error:
        raise ValueError(f"contestant {name!r} needs {error.name}; `make peers` installs it") from None
