"""Dominance, ranks and hypervolume against closed forms and brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from search.pareto import Fronts, crowding, dominates, hypervolume, nondominated, ranks

# A coarse grid, so that ties and duplicates are common.
points = st.integers(1, 4).flatmap(
    lambda m: arrays(np.float64, st.tuples(st.integers(0, 8), st.just(m)), elements=st.integers(0, 5))
)


def cells(rows: np.ndarray, side: int) -> int:
    """Hypervolume on whole numbers: the unit cells that some row dominates."""
    m = rows.shape[1]
    return sum(any(all(row <= np.array(cell)) for row in rows) for cell in itertools.product(range(side), repeat=m))


@given(points)
def test_hypervolume_counts_dominated_cells(rows: np.ndarray) -> None:
    assert hypervolume(rows, np.full(rows.shape[1], 4.0)) == pytest.approx(cells(rows, 4))


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_hypervolume_of_a_staircase(n: int) -> None:
    stairs = np.array([[i, n - 1 - i] for i in range(n)], dtype=float)
    assert hypervolume(stairs, np.full(2, float(n))) == n * n - n * (n - 1) / 2


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_hypervolume_of_one_point_is_a_box(m: int) -> None:
    assert hypervolume(np.full((1, m), 0.25), np.ones(m)) == pytest.approx(0.75**m)


def test_hypervolume_of_the_simplex_staircase() -> None:
    n = 6  # the rows with x + y + z = n - 1 leave the tetrahedron of cells below them
    rows = np.array([(x, y, n - 1 - x - y) for x in range(n) for y in range(n - x)], dtype=float)
    below = sum(x + y + z < n - 1 for x, y, z in itertools.product(range(n), repeat=3))
    assert hypervolume(rows, np.full(3, float(n))) == n**3 - below


def test_hypervolume_ignores_what_does_not_beat_the_reference() -> None:
    rows = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, -5.0]])
    assert hypervolume(rows, np.ones(2)) == 0.0
    assert hypervolume(np.zeros((0, 3)), np.ones(3)) == 0.0


@given(points)
def test_adding_a_point_never_loses_volume(rows: np.ndarray) -> None:
    reference = np.full(rows.shape[1], 5.5)
    volumes = [hypervolume(rows[:i], reference) for i in range(len(rows) + 1)]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(volumes))


@given(points)
def test_front_and_ranks_agree_with_brute_force(rows: np.ndarray) -> None:
    beats = dominates(rows, rows)
    for i, j in itertools.product(range(len(rows)), repeat=2):
        assert beats[i, j] == (all(rows[i] <= rows[j]) and any(rows[i] < rows[j]))
    assert (nondominated(rows) == ~beats.any(0)).all()
    rank = ranks(rows)
    assert ((rank == 0) == nondominated(rows)).all()
    for j in range(len(rows)):  # one behind the worst rank that dominates it
        ahead = rank[beats[:, j]]
        assert rank[j] == (ahead.max() + 1 if len(ahead) else 0)


def test_crowding_prefers_the_ends_and_the_lonely() -> None:
    line = np.array([[0.0, 10.0], [1.0, 9.0], [2.0, 8.0], [6.0, 4.0], [10.0, 0.0]])
    distance = crowding(line)
    assert np.isinf(distance[[0, -1]]).all()
    assert distance[3] > distance[2] > distance[1]
    assert distance[1] == pytest.approx(2 / 10 + 2 / 10)


def test_crowding_of_equal_points_is_finite_inside() -> None:
    distance = crowding(np.ones((4, 3)))
    assert not np.isnan(distance).any()
    assert crowding(np.zeros((0, 2))).shape == (0,)


def test_points_that_come_one_by_one_are_ranked_as_all_at_once() -> None:
    rng = np.random.default_rng(0)
    for columns, values in ((2, 5), (3, 1000), (4, 3)):
        points = rng.integers(0, values, (120, columns)).astype(float)
        fronts = Fronts(points[:7])
        for row in points[7:]:
            fronts.add(row)
        np.testing.assert_array_equal(fronts.ranks, ranks(points))
        np.testing.assert_array_equal(fronts.points, points)
