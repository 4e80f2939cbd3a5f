"""The judge of cheap signals, on learning curves whose end is known."""

import numpy as np
import pytest

from benchmarks.race.signals import extrapolated, judged


def test_a_power_law_is_continued_exactly() -> None:
    a, b = np.array([0.5, 0.4]), np.array([0.3, 0.9])
    errors = a[:, None] * np.arange(1, 13) ** -b[:, None]
    for seen in (3, 4, 7):
        assert extrapolated(errors[:, :seen], 12) == pytest.approx(errors[:, -1])


def test_errors_that_rise_are_not_continued() -> None:
    rising = np.array([[0.2, 0.3, 0.4]])
    assert extrapolated(rising, 30)[0] <= 0.4


def test_extrapolation_ranks_curves_that_cross_and_the_last_accuracy_does_not() -> None:
    rng = np.random.default_rng(0)
    start, speed = rng.uniform(0.3, 0.6, 50), rng.uniform(0.2, 1.2, 50)
    accuracy = 1 - start[:, None] * np.arange(1, 13) ** -speed[:, None]
    found = judged(accuracy, {"nonsense": rng.normal(size=50)})
    assert found["extrapolated from 4 epochs"] == pytest.approx(1.0)
    assert found["accuracy after 1 epochs"] < found["accuracy after 4 epochs"] < 0.99
    assert abs(found["nonsense"]) < 0.4
