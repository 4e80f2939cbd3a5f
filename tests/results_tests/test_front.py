"""Who is on a front, and what is picked from it."""

from __future__ import annotations

from typing import Any

import pytest

from results.front import finished, front, knee, pick, table, tied
from search.config import Bound, RunConfig
from search.record import Record
from spaces.config import Candidate, SpikformerConfig, Training

Made = tuple[list[Record], RunConfig]


def point(number: int, accuracy: float, energy: float, memory: float = 8.0, **other: Any) -> Record:
    training = Training(lr=1e-3 * (number + 1))
    candidate = Candidate(model=SpikformerConfig(img_size=(8, 8), dim=16, pools=1, num_classes=10), training=training)
    values = {
        "number": number,
        "status": "complete",
        "identity": candidate.identity,
        "candidate": candidate,
        "metrics": {"accuracy": accuracy, "energy_mj": energy, "memory_kib": memory},
    }
    return Record.model_validate(values | other)


def numbers(records: list[Record]) -> list[int]:
    return [record.number for record in records]


RUN = RunConfig(name="points")


def test_dominated_points_are_left_out_and_the_best_comes_first() -> None:
    records = [point(0, 0.90, 2.0), point(1, 0.95, 3.0), point(2, 0.90, 2.5), point(3, 0.80, 1.0), point(4, 0.8, 1.0)]
    assert numbers(front(records, RUN)) == [1, 0, 3, 4]  # equal points do not dominate each other


@pytest.mark.parametrize(
    "spoiled",
    [
        {"status": "stopped"},
        {"status": "infeasible"},
        {"status": "duplicate"},
        {"violations": {"energy_mj": 0.1}},
        {"metrics": {"accuracy": 0.99, "energy_mj": float("nan"), "memory_kib": 1.0}},
        {"metrics": {"accuracy": 0.99, "energy_mj": 1.0}},
    ],
)
def test_only_full_finite_trials_that_keep_the_budgets_are_members(spoiled: dict[str, object]) -> None:
    records = [point(0, 0.5, 2.0), point(1, 0.99, 1.0, 1.0, **spoiled)]
    assert numbers(front(records, RUN)) == [0]


def test_budgets_of_the_run_hold_even_where_the_record_does_not_know_them() -> None:
    records = [point(0, 0.9, 1.0), point(1, 0.99, 3.0)]
    tight = RUN.model_copy(update={"budgets": {"energy_mj": Bound(max=2.0)}})
    assert numbers(front(records, RUN)) == [1, 0]
    assert numbers(front(records, tight)) == [0]


def test_a_difference_within_its_confidence_interval_is_a_tie() -> None:
    noise = {"errors": {"accuracy": 0.01}}
    better, within = point(0, 0.950, 1.0, **noise), point(1, 0.930, 1.0, **noise)
    beyond = point(2, 0.920, 1.0, **noise)  # 1.96·√2·0.01 = 0.0277
    members = front([better, within, beyond], RUN)
    assert numbers(members) == [0, 1]
    assert tied(members, RUN) == {1}
    costlier = point(3, 0.949, 1.001, **noise)  # energy is exact here, so any difference counts
    assert numbers(front([better, costlier], RUN)) == [0]


def test_test_metrics_never_decide() -> None:
    records = [point(0, 0.9, 1.0, test={"accuracy": 0.1}), point(1, 0.8, 1.0, test={"accuracy": 1.0})]
    assert numbers(front(records, RUN)) == [0]
    assert pick(records, RUN, "best-accuracy").number == 0


def test_the_knee_gives_most_in_all_objectives_together() -> None:
    records = [point(0, 0.99, 10.0), point(1, 0.97, 2.0), point(2, 0.80, 1.0)]
    assert knee(front(records, RUN), RUN).number == 1
    assert knee([records[0]], RUN).number == 0


def test_picks_by_name_condition_and_identity() -> None:
    records = [point(0, 0.99, 10.0, 5.0), point(1, 0.97, 2.0, 9.0), point(2, 0.80, 1.0, 7.0), point(3, 0.5, 20.0)]
    assert pick(records, RUN, "best-accuracy").number == 0
    assert pick(records, RUN, "min-energy").number == 2
    assert pick(records, RUN, "min-memory").number == 0
    assert pick(records, RUN, "energy_mj<10").number == 1
    assert pick(records, RUN, "energy_mj<=10").number == 0
    assert pick(records, RUN, "accuracy < 0.9").number == 2
    assert pick(records, RUN, records[3].identity).number == 3  # any finished trial, on the front or not
    assert pick(records, RUN, records[3].identity[:8]).number == 3


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("energy_mj<0.5", r"nothing on the front has energy_mj<0\.5; the nearest is \w{12} with energy_mj=1"),
        ("speed<1", r"a condition is on one of \['accuracy', 'energy_mj', 'memory_kib'\], but got 'speed'"),
        ("energy_mj<1e", "a condition compares with a number, but got '1e'"),
        ("0123456789ab", "no finished trial has the identity '0123456789ab'; the nearest on the front is"),
        ("../../etc", "a pick is one of"),
        ("<script>alert(1)</script>", "a pick is one of"),
        ("", "a pick is one of"),
    ],
)
def test_a_pick_that_nothing_matches_says_what_is_near(wanted: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pick([point(0, 0.99, 10.0), point(1, 0.8, 1.0)], RUN, wanted)


def test_without_a_front_a_pick_is_refused_and_the_table_says_so() -> None:
    unfinished = [point(0, 0.9, 1.0, status="stopped")]
    with pytest.raises(ValueError, match="no finished trial that keeps its budgets"):
        pick(unfinished, RUN, "knee")
    assert front([], RUN) == []
    assert table(unfinished, RUN) == "No finished trial keeps the budgets yet (0 finished)."


def test_a_run_without_accuracy_has_the_other_picks() -> None:
    run = RunConfig(name="costs", objectives=("energy_mj", "memory_kib"))
    record = point(0, 0.9, 1.0).model_copy(update={"metrics": {"energy_mj": 1.0, "memory_kib": 2.0}})
    with pytest.raises(ValueError, match="did not measure accuracy"):
        pick([record], run, "best-accuracy")
    assert "min-energy" in table([record], run)


def test_the_table_shows_every_member_with_units(made: Made) -> None:
    records, run = made
    text = table(records, run)
    members = front(records, run)
    assert finished(records, run) != members
    assert all(record.identity in text for record in members)
    assert "accuracy [%]" in text
    assert "energy [nJ]" in text
    assert "memory [KiB]" in text
    assert "test [%]" not in text
    measured = [r.model_copy(update={"test": {"accuracy": 0.951}}) if r in members else r for r in records]
    assert "test [%]" in table(measured, run)
    assert "95.1" in table(measured, run)
