"""The parts of the ``priced`` sampler that have an answer in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.pareto import hypervolume
from search.samplers.improvement import expected_improvement, free_boxes
from search.samplers.judge import Axis, Entry, Judge, Known
from search.samplers.quote import Quote
from search.samplers.surrogate import GaussianProcess, _squared_distances


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_improvement_of_a_known_point_is_the_gain_in_hypervolume(m: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    front = rng.integers(0, 6, (n, m)).astype(float)
    new = rng.integers(-1, 7, (10, m)) + 0.25 * rng.integers(0, 2, (10, m))
    reference = np.full(m, 5.5)
    gain = expected_improvement([new[:, [j]] for j in range(m)], free_boxes(front, reference))
    before = hypervolume(front, reference)
    assert gain == pytest.approx([hypervolume(np.vstack((front, row)), reference) - before for row in new])


def test_boxes_are_few_and_disjoint() -> None:
    rng = np.random.default_rng(0)
    front = rng.random((60, 3))
    front /= np.linalg.norm(front, axis=1, keepdims=True)
    lower, upper = free_boxes(front, np.full(3, 1.1))
    assert len(lower) <= 4 * len(front)
    at = rng.random((500, 3)) * 1.1
    inside = ((lower[None] <= at[:, None]) & (at[:, None] < upper[None])).all(-1).sum(1)
    dominated = (front[None] <= at[:, None]).all(-1).any(1)
    assert (inside == ~dominated).all()


def test_expected_improvement_is_the_mean_over_independent_values() -> None:
    rng = np.random.default_rng(1)
    boxes = free_boxes(rng.random((8, 3)), np.ones(3))
    a, b, c = rng.random((5, 4)), rng.random((5, 3)), rng.random((5, 1))
    every = np.mean(
        [expected_improvement([a[:, [i]], b[:, [j]], c], boxes) for i in range(4) for j in range(3)], axis=0
    )
    assert expected_improvement([a, b, c], boxes) == pytest.approx(every)


def test_gradient_of_the_posterior_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(2)
    x, groups = rng.random((25, 4)), np.array([0, 1, 1, 2])
    y = np.sin(4 * x[:, 0]) + x[:, 3] + 0.1 * rng.normal(size=25)
    model = GaussianProcess(groups).fit(x, y, np.zeros(25))
    assert model.theta is not None
    apart = np.array([_squared_distances(x[:, groups == g], x[:, groups == g]) for g in range(3)])
    args = (apart, (y - y.mean()) / y.std(), rng.random(25) * 0.1)
    at = model.theta + 0.3
    numeric = [(model._loss(at + h, *args)[0] - model._loss(at - h, *args)[0]) / 2e-5 for h in np.eye(5) * 1e-5]
    assert model._loss(at, *args)[1] == pytest.approx(numeric, rel=1e-4, abs=1e-5)


def test_process_learns_a_function_and_knows_where_it_does_not() -> None:
    rng = np.random.default_rng(3)
    x = rng.random((60, 3)) * [0.5, 1, 1]
    y = np.sin(5 * x[:, 0]) + 3
    model = GaussianProcess(np.arange(3)).fit(x, y, np.zeros(60))
    near, far = rng.random((50, 3)) * [0.5, 1, 1], rng.random((50, 3)) * [0.1, 1, 1] + [1.5, 0, 0]
    mean, near_sd = model.predict(near)
    assert np.abs(mean - np.sin(5 * near[:, 0]) - 3).max() < 0.05
    assert model.predict(far)[1].min() > 5 * near_sd.max()


def test_prediction_is_of_an_observation_with_its_noise() -> None:
    rng = np.random.default_rng(4)
    x = rng.random((200, 1))
    model = GaussianProcess(np.zeros(1, dtype=np.int64)).fit(x, x[:, 0] + rng.normal(0, 0.5, 200), np.zeros(200))
    assert model.predict(np.array([[0.5]]))[1][0] == pytest.approx(0.5, rel=0.2)


def test_extra_noise_makes_an_observation_count_less() -> None:
    x, y = np.array([[0.0], [0.5], [0.5], [1.0]]), np.array([0.0, 1.0, 5.0, 0.5])
    model = GaussianProcess(np.zeros(1, dtype=np.int64)).fit(x, y, np.array([0.0, 0.0, 100.0, 0.0]))
    assert abs(model.predict(np.array([[0.5]]))[0][0] - 1.0) < 1.0


def entry(x: float, *, cost: float, energy: tuple[float, float] | None = None) -> Entry:
    quote = Quote(f"{x}", (None, None, cost), (None, energy, None))
    return Entry({"x": x}, quote, np.array([x]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_model_scale_round_trips_between_bounds(sign: float) -> None:
    values = sign * np.array([2.0, 3.0, 9.0])
    entries = [entry(0.1, cost=1, energy=(1.0, 10.0))] * 3
    axis = Axis(sign, 0.0 if sign > 0 else 11.0, values)
    z = axis.modelled(values, entries, 1)
    assert axis.compared_from_model(z[:, None], entries, 1)[:, 0] == pytest.approx(axis.compared(values))


def test_stopped_trials_are_extrapolated_from_complete_ones() -> None:
    """Final error is a third of that at epoch 3; one stopped trial is far better there than all complete ones."""
    xs = np.linspace(0.0, 0.9, 8)
    final = 0.1 + 0.5 * xs
    known = Known(
        complete=[entry(x, cost=1 + x) for x in xs],
        values=np.column_stack((final, np.ones(8), 1 + xs)),
        constraints=[{}] * 8,
        curves=[{3: [3 * f, 1.0, 1.0]} for f in final],
        stopped=[entry(1.0, cost=2.0)],
        stopped_curves=[{3: [3 * 0.02, 1.0, 1.0]}],
    )
    judge = Judge(np.ones(3), (0.0, None, 0.0), np.zeros(1, dtype=np.int64), known, known.complete, {})
    found, values, variance = judge._extrapolated(0, judge._axes[0].modelled(final, known.complete, 0))
    assert [e.point for e in found] == [{"x": 1.0}]
    assert np.exp(values[0]) == pytest.approx(0.02, rel=0.05)
    assert variance[0] < 1e-3
