"""The judge of cheap signals, on learning curves whose end is known; and the training-free scores."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import toys

from benchmarks.race.signals import (
    Lesson,
    best_found,
    ceiling,
    curve_signals,
    extrapolated,
    judge,
    markdown,
    read,
    taught,
)
from search.data import load
from search.signals import SIGNALS, agreement, scores


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
    final = accuracy[:, -1]
    found = {name: judge(name, signal, final, 0).spearman for name, (_, signal) in curve_signals(accuracy).items()}
    assert found["extrapolated from 4 epochs"] == pytest.approx(1.0)
    assert found["accuracy after epoch 1"] < found["accuracy after epoch 4"] < 0.99
    assert abs(judge("nonsense", rng.normal(size=50), final, 0).spearman) < 0.4


def test_the_best_tenth_counts_ties_by_what_can_be_expected() -> None:
    final = np.arange(100.0)
    assert best_found(final, final) == 1
    assert best_found(-final, final) == 0
    assert best_found(np.zeros(100), final) == pytest.approx(0.1)  # a signal that says nothing
    half = np.where(final >= 80, 1.0, 0.0)  # twenty tied networks, among them all of the best ten
    assert best_found(half, final) == pytest.approx(0.5)
    assert best_found(half, np.minimum(final, 80)) == 1  # twenty networks are equally the best


def test_seeds_that_agree_are_a_higher_ceiling_than_seeds_that_do_not() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 1))
    low, high = (ceiling(truth + noise * rng.normal(size=(60, 4)), 1.0).spearman for noise in (1.0, 0.1))
    assert 0.2 < low < 0.8 < 0.95 < high


def test_a_table_is_read_without_those_that_were_not_trained_in_full(tmp_path: Path) -> None:
    def rows(identity: str, seed: int, accuracies: list[float]) -> list[dict[str, object]]:
        costs = {"parameters": len(identity), "dense_macs": 1, "energy_mj_high": 1.0, "epochs": 2, "seconds": 0.5}
        return [
            {"identity": identity, "seed": seed, "epoch": e, "accuracy": a, **costs}
            for e, a in enumerate(accuracies, start=1)
        ]

    lines = [
        *rows("a", 0, [0.1, 0.2]),
        *rows("bb", 0, [0.2, 0.3]),
        *rows("dddd", 0, [0.9]),
        *rows("bb", 1, [0.2, 0.4]),
    ]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_pylist(lines), path)
    with pytest.raises(ValueError, match="must hold three networks that were trained in full, but holds 2"):
        read(path)
    pq.write_table(pa.Table.from_pylist([*lines, *rows("ccc", 0, [0.5, 0.1])]), path)
    table = read(path)
    assert table.identities == ["a", "bb", "ccc"]
    assert table.accuracy.tolist() == [[0.1, 0.2], [0.2, 0.3], [0.5, 0.1]]
    assert table.prices["parameters"].tolist() == [1, 2, 3]
    assert table.seconds.tolist() == [[0.5, 1.0]] * 3
    assert table.repeats.tolist() == [[0.3, 0.4]]
    with pytest.raises(ValueError, match="there is no table"):
        read(tmp_path / "none.parquet")


def test_verdicts_are_a_markdown_table() -> None:
    verdict = judge("x", np.arange(20.0), np.arange(20.0), 0.25)
    text = markdown([verdict], [Lesson("y", 0.1, 0.2, 0.3, 20)]).splitlines()
    assert text[2] == "| x | 1.000 | 100% | 20 | 0.25 |"
    assert text[-1] == "| y | 0.100 | 0.200 | 0.300 | 20 |"


def test_a_signal_that_knows_more_than_the_prices_teaches_the_model() -> None:
    rng = np.random.default_rng(0)
    rows, hidden = rng.random((140, 2)), rng.random(140)
    final = 1 - np.exp(-1 - rows[:, 0] - 2 * hidden)
    blind = taught(rows, np.arange(2), final, 30, repeats=2)
    assert taught(np.column_stack((rows, hidden)), np.arange(3), final, 30, repeats=2) > 0.95 > blind + 0.2


# --- training-free scores -----------------------------------------------------------------------------------


def test_agreement_is_the_number_of_equal_neurons() -> None:
    spikes = torch.tensor([[1.0, 0, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0]])
    assert agreement(spikes, sparse=False).tolist() == [[4, 2, 2], [2, 4, 2], [2, 2, 4]]


def test_sparse_patterns_that_are_independent_agree_in_half_of_all_neurons() -> None:
    generator = torch.Generator().manual_seed(0)
    for rate in (0.02, 0.2, 0.5):
        spikes = (torch.rand(2, 40_000, generator=generator) < rate).float()
        assert agreement(spikes, sparse=True)[0, 1].item() / 40_000 == pytest.approx(0.5, abs=0.02)
        assert agreement(spikes, sparse=False)[0, 1].item() / 40_000 == pytest.approx(
            1 - 2 * rate * (1 - rate), abs=0.02
        )
    assert agreement(torch.zeros(2, 10), sparse=True).tolist() == [[10, 10], [10, 10]]


@pytest.mark.parametrize("name", sorted(SIGNALS))
def test_a_score_is_the_same_whenever_it_is_asked_for_and_larger_where_more_neurons_tell_images_apart(
    name: str,
) -> None:
    data = load("digits")
    narrow, wide = toys.candidate(), toys.candidate(dim=48)
    (score,) = scores([name])
    first = score(narrow, data)
    torch.rand(3)
    assert score(narrow, data) == first < score(wide, data)
    silent = toys.candidate(neuron={"kind": "lif", "threshold": 1e6}, attention_threshold=1e6)
    assert np.isfinite(score(silent, data))
    assert score(silent, data) < first


def test_unknown_signals_are_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"a signal is one of \['hamming', 'sparse-hamming'\], but got 'autost'"):
        scores(["hamming", "autost"])
