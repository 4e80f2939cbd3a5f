"""The simulator of the race, on problems small enough to count by hand."""

import itertools
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pytest

from benchmarks.race.contestants import CONTESTANTS, make
from benchmarks.race.problems import SYNTHETIC, problem, true_front
from benchmarks.race.simulator import Problem, Simulation, Trace
from search.config import Schedule
from search.pareto import Points
from search.samplers.domain import FlatSpace
from search.samplers.quote import Quote
from search.scheduler import Halving
from spaces.tree import Choice, Scalar

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


@pytest.mark.parametrize("name", sorted(set(CONTESTANTS) - {"gp", "oracle"}))
def test_every_contestant_can_be_raced(name: str) -> None:
    trace = Simulation(staircase(), make(name, staircase(), 0), seed=0).run(trials=12)
    assert trace.trials[-1] == 12
    assert 0 < trace.share[-1] <= 1 + 1e-9
    assert np.all(np.diff(trace.share) >= 0)


def test_the_oracle_needs_a_table() -> None:
    with pytest.raises(ValueError, match="needs a table of trainings, but got"):
        make("oracle", staircase(), 0)


def test_same_seed_same_race() -> None:
    def trace() -> Trace:
        return Simulation(staircase(), make("tpe", staircase(), 1), seed=1).run(trials=10)

    assert trace().share == trace().share


@pytest.mark.parametrize(
    ("name", "volume"),
    # Below the front: ∫(1-√x), ∫(1-x²) over [0,1]; an octant of a ball; the simplex of side ½.
    [
        ("zdt1", 1 / 3),
        ("zdt2", 2 / 3),
        ("zdt4", 1 / 3),
        ("dtlz2", np.pi / 6),
        ("dtlz4", np.pi / 6),
        ("dtlz1", 1 / 48),
    ],
)
def test_true_fronts_have_the_hypervolume_of_their_formula(name: str, volume: float) -> None:
    known = problem(name)
    top = np.full(len(known.objectives), 0.5 if name == "dtlz1" else 1.0)
    assert known.best == pytest.approx(1 - volume / float(np.prod(1.1 * top)), rel=2e-3)


@pytest.mark.parametrize(("number", "volume"), [(1, 120 + 2 / 3), (2, 120 + 1 / 3), (3, 128.7781), (6, 117.5186)])
def test_zdt_fronts_have_the_hypervolume_of_the_literature(number: int, volume: float) -> None:
    """The published limits are for the reference (11, 11)."""
    low, top, share = true_front("zdt", number)
    below = (11 - top[1]) * (top[0] - low[0]) + (11 - top[0]) * (11 - low[1])
    assert share * np.prod(top - low) + below == pytest.approx(volume, abs=1.5e-3)


def test_ends_of_the_disconnected_front_of_dtlz7() -> None:
    low, top, _ = true_front("dtlz", 7)
    assert low == pytest.approx([0, 0, 2.61400864], abs=1e-3)
    assert low + (top - low) / 1.1 == pytest.approx([0.859400, 0.859400, 6], abs=1e-3)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_optima_of_the_function_fill_the_front_and_nothing_more(name: str) -> None:
    known = problem(name)
    free = len(known.objectives) - 1
    steps = np.linspace(0, 1, 600 if free == 1 else 24)
    if name == "dtlz4":  # crowds its points at one end
        steps **= 0.01
    still = 0.5 if name == "zdt4" or (name[0] == "d" and name != "dtlz7") else 0.0
    rest = {f"x{i}": still for i in range(free, 6)}
    points = [{**{f"x{i}": x for i, x in enumerate(xs)}, **rest} for xs in itertools.product(steps, repeat=free)]
    share = known.share(np.vstack([known.curve(point) for point in points]))
    assert (0.98 if free == 1 else 0.94) < share < 1.0005


def test_unknown_names_are_listed() -> None:
    with pytest.raises(ValueError, match="a problem is"):
        problem("dtlz5")
    with pytest.raises(ValueError, match="a contestant is one of"):
        make("clairvoyant", staircase(), 0)
