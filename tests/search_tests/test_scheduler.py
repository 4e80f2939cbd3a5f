"""Successive halving against cases that can be worked out by hand."""

import math

import numpy as np
import pytest

from search.config import Bound, Schedule
from search.record import Epoch, Record
from search.scheduler import LESSONS, Halving, minimised, rungs, violation

OBJECTIVES = ("accuracy", "energy_mj")


def halving(grace: int = 3, reduction: int = 3, epochs: int = 27, **budgets: Bound) -> Halving:
    return Halving(OBJECTIVES, budgets, Schedule(grace=grace, reduction=reduction), epochs)


def at(accuracy: float, energy: float) -> dict[str, float]:
    return {"accuracy": accuracy, "energy_mj": energy}


def test_rungs_lie_below_the_full_training() -> None:
    assert rungs(Schedule(grace=3, reduction=3), 27) == [3, 9]
    assert rungs(Schedule(grace=3, reduction=3), 28) == [3, 9, 27]
    assert rungs(Schedule(grace=3, reduction=3), 3) == []
    assert rungs(Schedule(grace=3, reduction=2, enabled=False), 27) == []


def test_nothing_is_judged_between_rungs() -> None:
    scheduler = halving()
    assert all(scheduler.report(str(i), epoch, at(0.9 - i / 10, 1 + i)) for i in range(9) for epoch in (1, 2, 4, 8))


def test_the_best_third_goes_on() -> None:
    scheduler = halving()
    assert scheduler.report("a", 3, at(0.5, 1.0))  # alone, hence the best
    assert not scheduler.report("b", 3, at(0.4, 2.0))
    assert scheduler.report("c", 3, at(0.6, 0.5))
    assert scheduler.report("d", 3, at(0.55, 0.9))  # second of four: ⌈4/3⌉ = 2 go on
    assert not scheduler.report("e", 3, at(0.3, 3.0))


def test_a_chain_of_dominated_points_keeps_one_in_three() -> None:
    scheduler = halving()
    kept = [scheduler.report(str(i), 3, at(0.9 - 0.01 * i, 1 + i)) for i in range(30)]
    # Each newcomer is last: place i of i + 1, kept if i < ⌈(i + 1)/3⌉, which holds for the first one only.
    assert kept == [True] + [False] * 29
    better = halving()
    assert all(better.report(str(i), 3, at(0.5 + 0.01 * i, 1 - 0.01 * i)) for i in range(30))


def test_epochs_are_compared_only_with_themselves() -> None:
    scheduler = halving()
    for i in range(9):
        scheduler.report(str(i), 3, at(0.9, 0.001))  # before anything fires: cheap
    assert scheduler.report("late", 9, at(0.8, 5.0))


def test_a_kept_budget_goes_before_a_better_point() -> None:
    scheduler = halving(energy_mj=Bound(max=1.0))
    assert scheduler.report("a", 3, at(0.1, 0.9))
    assert not scheduler.report("b", 3, at(0.99, 1.5))
    assert not scheduler.report("c", 3, at(0.99, 1.2))
    assert violation({"energy_mj": Bound(max=1.0)}, at(0.9, 1.5)) == pytest.approx(0.5)


def test_of_equal_rank_the_lonelier_goes_on() -> None:
    scheduler = halving(reduction=2)
    points = [(0.1, 0.1), (0.9, 0.9), (0.5, 0.5), (0.52, 0.52), (0.51, 0.51)]
    for i, (accuracy, energy) in enumerate(points):
        last = scheduler.report(str(i), 3, at(accuracy, energy))
    assert not last  # in the crowd; three of five go on: the two ends, and one of the crowd's edges


def test_what_is_not_known_is_not_judged() -> None:
    scheduler = halving()
    scheduler.report("a", 3, at(0.9, 0.1))
    assert scheduler.report("b", 3, {"accuracy": 0.1})
    assert scheduler.report("c", 3, at(math.nan, 0.1))
    assert not scheduler.report("d", 3, at(0.1, 0.2))
    assert minimised(OBJECTIVES, at(0.25, 2.0)) == [-0.25, 2.0]


def test_a_trial_that_reports_again_replaces_itself() -> None:
    scheduler = halving()
    scheduler.report("a", 3, at(0.9, 0.1))
    for _ in range(5):  # five lost workers
        assert not scheduler.report("b", 3, at(0.5, 0.2))
    assert scheduler.report("a", 3, at(0.9, 0.1))


def test_a_resumed_scheduler_decides_as_the_first_one() -> None:
    rng = np.random.default_rng(0)
    points = {f"{i:03}": at(*rng.random(2)) for i in range(40)}
    first = halving()
    for identity, point in points.items():
        first.report(identity, 3, point)
    second = halving()
    second.rebuild(
        Record(number=i, status="stopped", identity=identity, history=(Epoch(epoch=3, metrics=point, seconds=0.0),))
        for i, (identity, point) in enumerate(points.items())
    )
    news = {f"n{i}": at(*rng.random(2)) for i in range(40)}
    assert [first.report(k, 3, p) for k, p in news.items()] == [second.report(k, 3, p) for k, p in news.items()]


# --- what a trial can still reach -----------------------------------------------------------------------------


def taught(final: dict[str, float], **budgets: Bound) -> Halving:
    """Nine trainings whose error halves at least from epoch 4 to the end, and whose energy doubles; no rungs."""
    scheduler = halving(grace=4, reduction=100, epochs=5, **budgets)
    for i in range(LESSONS):
        error = (1 - final["accuracy"]) * (1 + i / 10)
        scheduler.report(f"c{i}", 4, at(1 - 2 * error, final["energy_mj"] / 2))
        scheduler.report(f"c{i}", 5, at(1 - error, final["energy_mj"]))
    scheduler._rungs.clear()
    return scheduler


def test_a_trial_is_hopeless_if_the_best_course_ends_behind_the_front() -> None:
    scheduler = taught(at(0.9, 1.0))
    assert scheduler.judge("far", 4, at(0.79, 0.6)) == (
        "cannot reach the front any more: after 4 epochs at best accuracy 0.895, energy_mj 1.2"
    )
    assert scheduler.judge("nearer", 4, at(0.81, 0.6)) is None  # 0.905 if its error halves
    assert scheduler.judge("cheaper", 4, at(0.1, 0.4)) is None  # 0.8 mJ if its energy doubles


def test_nothing_is_hopeless_while_little_is_known() -> None:
    scheduler = halving(grace=4, reduction=100, epochs=5)
    for i in range(LESSONS - 1):
        scheduler.report(f"c{i}", 4, at(0.8, 0.5))
        scheduler.report(f"c{i}", 5, at(0.9, 1.0))
    scheduler._rungs.clear()
    assert scheduler.judge("far", 4, at(0.1, 9.0)) is None


def test_a_budget_that_cannot_be_kept_any_more_is_hopeless() -> None:
    scheduler = taught(at(0.9, 1.0), accuracy=Bound(min=0.85))
    assert "cannot keep the budgets" in (scheduler.judge("far", 4, at(0.6, 0.01)) or "")
    assert scheduler.judge("near", 4, at(0.75, 0.01)) is None


def test_what_broke_a_budget_makes_nothing_hopeless() -> None:
    scheduler = taught(at(0.9, 1.0), energy_mj=Bound(max=0.9))
    assert scheduler.judge("kept", 4, at(0.5, 0.45)) is None


def test_a_resumed_outlook_judges_as_the_first_one() -> None:
    second = halving(grace=4, reduction=100, epochs=5)
    second.rebuild(
        Record(
            number=i, status="complete", identity=f"c{i}",
            history=tuple(Epoch(epoch=e, metrics=at(*p), seconds=0.0) for e, p in ((4, (0.8, 0.5)), (5, (0.9, 1.0)))),
        )
        for i in range(LESSONS)
    )  # fmt: skip
    assert "cannot reach" in (second.outlook.hopeless(4, at(0.7, 0.6)) or "")
