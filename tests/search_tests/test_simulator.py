"""The simulator of the race, on problems small enough to count by hand."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pytest

from benchmarks.race.contestants import CONTESTANTS, make
from benchmarks.race.problems import problem, synthetic
from benchmarks.race.simulator import Problem, Simulation, Trace
from search.config import Schedule
from search.pareto import Points, hypervolume
from search.samplers.domain import FlatSpace
from search.samplers.quote import Quote
from search.scheduler import Halving
from spaces.space import Choice, Scalar

EPOCHS = 9


def staircase(n: int = 8) -> Problem:
    """Points (i, n-1-i), and behind each a second one that is worse by a half."""
    space = FlatSpace({"i": Choice(tuple(range(n))), "behind": Choice((0, 1))})

    def curve(point: dict[str, Any]) -> Points:
        final = np.array([point["i"], n - 1 - point["i"]]) + 0.5 * point["behind"]
        return np.array([final * (2 - epoch / EPOCHS) for epoch in range(1, EPOCHS + 1)])

    return Problem(
        name="staircase",
        space=space,
        objectives=("energy_mj", "memory_kib"),
        directions=("minimize", "minimize"),
        optimum=(0.0, 0.0),
        curve=curve,
        quote=lambda p: Quote(f"{p['i']} {p['behind']}", (None, None), (None, None)),
        scale=lambda values: values / n,
        best=(n * n - n * (n - 1) / 2) / n**2,
        epochs=EPOCHS,
    )


class Listed:
    """Proposes a list of points, and notes what it is told and when."""

    def __init__(self, points: list[dict[str, Scalar]]) -> None:
        self.points, self.told, self.offered = list(points), {}, 0

    def ask(self) -> tuple[Hashable, Any]:
        ticket = len(self.told) + 1000 * len(self.points)
        return ticket, self.points.pop(0) if len(self.points) > 1 else self.points[0]

    def tell(self, ticket: Hashable, curve: Points, complete: bool) -> None:
        self.told[ticket] = (len(curve), complete)

    def offer(self, point: Mapping[str, Scalar]) -> None:
        self.points.insert(0, dict(point))
        self.offered += 1


def test_expense_counts_every_epoch_of_every_worker() -> None:
    points: list[dict[str, Scalar]] = [{"i": i, "behind": 0} for i in range(8)]
    trace = Simulation(staircase(), Listed(points), workers=4).run(trials=8)
    assert trace.epochs[-1] == 8 * EPOCHS
    assert trace.share[-1] == pytest.approx(1.0)
    assert trace.epochs[0] == 4 * EPOCHS - 3  # four run side by side; the first of them is over first
    assert trace.until(0.999) == 8 * EPOCHS
    assert trace.at(4 * EPOCHS) == trace.share[3]


def test_one_worker_is_a_plain_loop() -> None:
    points: list[dict[str, Scalar]] = [{"i": i, "behind": 0} for i in range(3)]
    trace = Simulation(staircase(), Listed(points), workers=1).run(trials=3)
    assert trace.epochs == [EPOCHS, 2 * EPOCHS, 3 * EPOCHS]
    assert trace.trials == [1, 2, 3]


def test_repeats_cost_nothing_and_end_in_a_random_point() -> None:
    contestant = Listed([{"i": 0, "behind": 0}])
    trace = Simulation(staircase(), contestant, workers=1).run(trials=3)
    assert trace.epochs[-1] == 3 * EPOCHS
    assert contestant.offered == 2
    assert trace.asks > 100


def test_exhausted_space_ends_the_search() -> None:
    contestant = Listed([{"i": 0, "behind": 0}])
    trace = Simulation(staircase(2), contestant, workers=2).run(trials=50)
    assert trace.trials[-1] == 4


def test_early_stopping_saves_epochs_and_only_full_trainings_count() -> None:
    points: list[dict[str, Scalar]] = [{"i": i, "behind": b} for b in (0, 1) for i in range(8)]
    halving = Halving(("energy_mj", "memory_kib"), {}, Schedule(grace=3, reduction=3), EPOCHS)
    contestant = Listed(points)
    trace = Simulation(staircase(), contestant, stop=halving.report, workers=1).run(trials=16)
    lengths = [length for length, _ in contestant.told.values()]
    assert 3 in lengths
    assert trace.epochs[-1] <= sum(lengths) < 16 * EPOCHS
    assert len(trace.share) == sum(complete for _, complete in contestant.told.values())


@pytest.mark.parametrize("name", sorted(set(CONTESTANTS) - {"gp"}))
def test_every_contestant_can_be_raced(name: str) -> None:
    trace = Simulation(staircase(), make(name, staircase(), 0), seed=0).run(trials=12)
    assert trace.trials[-1] == 12
    assert 0 < trace.share[-1] <= 1 + 1e-9
    assert np.all(np.diff(trace.share) >= 0)


def test_same_seed_same_race() -> None:
    def trace() -> Trace:
        return Simulation(staircase(), make("tpe", staircase(), 1), seed=1).run(trials=10)

    assert trace().share == trace().share


@pytest.mark.parametrize(
    ("name", "volume"),
    # Below the front: ∫(1-√x), ∫(1-x²) over [0,1]; an octant of a ball; the simplex of side ½.
    [("zdt1", 1 / 3), ("zdt2", 2 / 3), ("dtlz2", np.pi / 6), ("dtlz1", 1 / 48)],
)
def test_true_fronts_have_the_hypervolume_of_their_formula(name: str, volume: float) -> None:
    known = problem(name)
    top = np.full(len(known.objectives), 0.5 if name == "dtlz1" else 1.0)
    box = float(np.prod(1.1 * top))
    assert known.best == pytest.approx(1 - volume / box, abs=0.03)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6])
def test_zdt_optima_lie_on_the_front(number: int) -> None:
    known = synthetic("zdt", number, 4)
    still = 0.5 if number == 4 else 0.0
    points = [{"x0": x, **{f"x{i}": still for i in (1, 2, 3)}} for x in np.linspace(0, 1, 300)]
    values = np.vstack([known.curve(point) for point in points])
    assert hypervolume(known.scale(values), np.ones(2)) == pytest.approx(known.best, rel=0.02)


def test_unknown_names_are_listed() -> None:
    with pytest.raises(ValueError, match="a problem is"):
        problem("mnist")
    with pytest.raises(ValueError, match="a contestant is one of"):
        make("oracle", staircase(), 0)
