"""Contestants from other projects: Ax, and Syne Tune's multi-objective schedulers. Each package is imported on use.

None of their interfaces takes an objective that is known before training, bounds of one, or a cost that is no
objective, so none is told. What breaks a law of the space is given back at once (abandoned by Ax, an error for Syne
Tune), at no expense.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from benchmarks.race.simulator import Contestant, Problem
from search.pareto import Points
from search.samplers.domain import Buildable
from spaces.tree import Choice, Number, Parameter, Scalar

EPOCH = "epoch"
POPULATION = 20  # as for the other evolution strategies here
Config = dict[str, Any]


@dataclass(frozen=True)
class Menu:
    """A parameter with so many values; a peer sees the index of one."""

    options: tuple[Scalar, ...]
    ordered: bool


class Flat:
    """A space for those that know independent parameters only: each is always there, and is ignored where the point
    has no use for it."""

    def __init__(self, space: Buildable) -> None:
        self._space = space
        self._all = {name: _flat(parameter) for name, parameter in space.parameters().items()}
        self.parameters = {name: p for name, p in self._all.items() if isinstance(p, Number) or len(p.options) > 1}

    def build(self, config: Mapping[str, Any]) -> Any:
        """What a peer's proposal builds.

        Raises:
            ValueError: It breaks a law of the space.
        """

        def pick(name: str, _: Parameter) -> Scalar:
            flat = self._all[name]
            if isinstance(flat, Menu):
                return flat.options[int(config.get(name, 0))]
            value: Scalar = int(config[name]) if flat.integer else float(config[name])
            return value

        return self._space.build(pick)

    def config(self, point: Mapping[str, Scalar]) -> Config:
        """A point as a peer would have proposed it."""
        config: Config = {}
        for name, flat in self.parameters.items():
            if isinstance(flat, Menu):
                config[name] = flat.options.index(point[name]) if name in point else 0
            else:
                config[name] = point.get(name, flat.low)
        return config

    def draw(self, rng: random.Random) -> Config:
        return {
            name: rng.randrange(len(flat.options)) if isinstance(flat, Menu) else flat.sample(rng)
            for name, flat in self.parameters.items()
        }


def _flat(parameter: Parameter) -> Menu | Number:
    if isinstance(parameter, Choice):
        ordered = all(isinstance(o, int | float) and not isinstance(o, bool) for o in parameter.options)
        return Menu(tuple(sorted(parameter.options)) if ordered else parameter.labels, ordered)
    grid = None if parameter.log else parameter.grid()
    return parameter if grid is None else Menu(tuple(grid), ordered=True)


def _signs(problem: Problem) -> Points:
    return np.array([-1.0 if direction == "maximize" else 1.0 for direction in problem.directions])


class Ax:
    """Ax with the strategy that it chooses itself: the centre, Sobol points, then qLogNEHVI on Gaussian processes.

    A stopped trial is abandoned: Ax would take its last values for final ones.

    Args:
        scaled: Whether Ax is told the scale of the race (logarithms, on tables) and its reference point, which nobody
            else knows.
    """

    def __init__(self, problem: Problem, seed: int, scaled: bool = False) -> None:
        from ax.api.client import Client
        from ax.utils.common.logger import set_ax_logger_levels

        set_ax_logger_levels(logging.ERROR)
        self._scale: Callable[[Points], Points] = problem.scale if scaled else lambda values: _signs(problem) * values
        self._flat = Flat(problem.space)
        self._rng = random.Random(seed)
        self._offered: list[Config] = []
        self._names = [f"objective_{i}" for i in range(len(problem.objectives))]
        self._client = Client(random_seed=seed)
        self._client.configure_experiment(parameters=[_ax_parameter(*p) for p in self._flat.parameters.items()])
        self._client.configure_optimization(
            objective=", ".join(f"-{name}" for name in self._names),
            outcome_constraints=[f"{name} <= 1" for name in self._names] if scaled else [],
        )
        self._client.configure_generation_strategy(
            initialization_random_seed=seed,
            allow_exceeding_initialization_budget=True,  # four workers do not wait for the first results
        )

    def ask(self) -> tuple[Hashable, Any]:
        while True:
            number, config = self._next()
            try:
                return number, self._flat.build(config)
            except ValueError:  # breaks a law of the space
                self._client.mark_trial_abandoned(number)

    def _next(self) -> tuple[int, Config]:
        from ax.exceptions.core import SearchSpaceExhausted

        if not self._offered:
            try:
                return next(iter(self._client.get_next_trials(max_trials=1).items()))
            except SearchSpaceExhausted:
                self._offered.append(self._flat.draw(self._rng))
        config = self._offered.pop(0)
        return self._client.attach_trial(config), config

    def tell(self, ticket: Hashable, curve: Points, complete: bool) -> None:
        assert isinstance(ticket, int)
        if complete:
            values = self._scale(curve[-1:])[0].tolist()
            self._client.complete_trial(ticket, raw_data=dict(zip(self._names, values, strict=True)))
        else:
            self._client.mark_trial_abandoned(ticket)

    def offer(self, point: Mapping[str, Scalar]) -> None:
        self._offered.append(self._flat.config(point))


def _ax_parameter(name: str, flat: Menu | Number) -> Any:
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    if isinstance(flat, Menu):
        return ChoiceParameterConfig(name, list(range(len(flat.options))), "int", is_ordered=flat.ordered)
    kind = "int" if flat.integer else "float"
    return RangeParameterConfig(name, (flat.low, flat.high), kind, scaling="log" if flat.log else None)


@dataclass(eq=False)
class _Run:
    """A trial of Syne Tune's: what was reported of it, and whether its scheduler said stop."""

    trial: Any
    reported: int = 0
    stopped: bool = False


class SyneTune:
    """A scheduler of Syne Tune's, driven as its own tuner drives it; it stops trials itself.

    Args:
        make: The scheduler for a space of Syne Tune's and the names of the metrics, all to be minimised.
    """

    def __init__(self, problem: Problem, seed: int, make: Callable[[Config, list[str]], Any]) -> None:
        np.random.seed(seed)  # noqa: NPY002 - Syne Tune draws from numpy's global state
        self._problem, self._flat = problem, Flat(problem.space)
        self._scheduler = make(
            {name: _syne_domain(flat) for name, flat in self._flat.parameters.items()}, list(problem.objectives)
        )
        self._signs = _signs(problem).tolist()
        self._numbers = itertools.count()
        self._offered: list[Config] = []
        self._running: dict[str, _Run] = {}

    def ask(self) -> tuple[Hashable, Any]:
        from syne_tune.backend.trial_status import Trial

        while True:
            config = self._offered.pop(0) if self._offered else self._scheduler.suggest().config
            trial = Trial(next(self._numbers), config, datetime.now())
            self._scheduler.on_trial_add(trial)
            try:
                built = self._flat.build(config)
            except ValueError:  # breaks a law of the space
                self._scheduler.on_trial_error(trial)
                continue
            run = _Run(trial)
            self._running.setdefault(self._problem.quote(built).identity, run)
            return run, built

    def goes_on(self, identity: str, epoch: int, metrics: Mapping[str, float]) -> bool:
        return self._report(self._running[identity], [metrics[name] for name in self._problem.objectives])

    def _report(self, run: _Run, values: list[float]) -> bool:
        from syne_tune.optimizer.scheduler import SchedulerDecision

        run.reported += 1
        decision = self._scheduler.on_trial_result(run.trial, self._result(run, values))
        run.stopped = decision == SchedulerDecision.STOP and run.reported < self._problem.epochs
        return not run.stopped

    def _result(self, run: _Run, values: list[float]) -> dict[str, float]:
        signed = {n: s * v for n, s, v in zip(self._problem.objectives, self._signs, values, strict=True)}
        return {EPOCH: run.reported, **signed}

    def tell(self, ticket: Hashable, curve: Points, complete: bool) -> None:
        assert isinstance(ticket, _Run)
        self._running = {identity: run for identity, run in self._running.items() if run is not ticket}
        if (
            not ticket.reported
        ):  # A repeat, answered by a cache in front of the scheduler: its rungs count a point once.
            ticket.reported = len(curve)
        if complete and not ticket.stopped:
            self._scheduler.on_trial_complete(ticket.trial, self._result(ticket, curve[-1].tolist()))
        else:
            self._scheduler.on_trial_remove(ticket.trial)

    def offer(self, point: Mapping[str, Scalar]) -> None:
        self._offered.append(self._flat.config(point))


def _syne_domain(flat: Menu | Number) -> Any:
    from syne_tune import config_space

    if isinstance(flat, Menu):
        indices = list(range(len(flat.options)))
        return config_space.ordinal(indices, kind="equal") if flat.ordered else config_space.choice(indices)
    if flat.integer:
        return (config_space.lograndint if flat.log else config_space.randint)(int(flat.low), int(flat.high))
    return (config_space.loguniform if flat.log else config_space.uniform)(flat.low, flat.high)


def _moasha(problem: Problem, seed: int, grace: int = 1) -> Contestant:
    """MOASHA proposes at random; non-dominated sorting with an epsilon-net decides at its rungs who goes on."""
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

    def make(space: Config, metrics: list[str]) -> Any:
        shortest = min(grace, problem.epochs)
        return MOASHA(space, metrics, time_attr=EPOCH, max_t=problem.epochs, grace_period=shortest, random_seed=seed)

    return SyneTune(problem, seed, make)


def _evolution(problem: Problem, seed: int) -> Contestant:
    """Regularised evolution for several objectives."""
    from syne_tune.optimizer.schedulers.multiobjective import MultiObjectiveRegularizedEvolution
    from syne_tune.optimizer.schedulers.single_fidelity_scheduler import SingleFidelityScheduler

    def make(space: Config, metrics: list[str]) -> Any:
        searcher = MultiObjectiveRegularizedEvolution(space, population_size=POPULATION, random_seed=seed)
        return SingleFidelityScheduler(space, metrics, searcher=searcher, random_seed=seed)

    return SyneTune(problem, seed, make)


PEERS: dict[str, Callable[[Problem, int], Contestant]] = {
    "ax": Ax,
    "ax, told the scale": lambda problem, seed: Ax(problem, seed, scaled=True),
    "moasha": _moasha,
    "moasha, grace 3": lambda problem, seed: _moasha(problem, seed, grace=3),
    "mo-rea": _evolution,
}
