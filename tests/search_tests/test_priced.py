"""The ``priced`` sampler on problems whose answers are known."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from search.config import RunConfig
from search.pareto import hypervolume
from search.samplers import make_sampler
from search.samplers.domain import Domain, FlatSpace, distribution_of, parameter_of
from search.samplers.priced import PricedSampler
from search.samplers.quote import Quote, Quotes
from spaces.config import Candidate
from spaces.cost import Cost
from spaces.presets import digits
from spaces.space import Space
from spaces.tree import Choice, Number, Scalar

optuna.logging.set_verbosity(optuna.logging.ERROR)
DATA = {"img_size": 8, "in_chans": 1, "num_classes": 10}

GRID = FlatSpace({name: Choice(tuple(range(6))) for name in "abcd"})


def cost_of(point: dict[str, Any]) -> float:
    return 1.0 + sum(2.0 ** point[name] for name in "abcd")


def error_of(point: dict[str, Any]) -> float:
    """More is better, ``a`` above all, and ``d`` hardly."""
    return float(np.exp(-0.5 * point["a"] - 0.3 * point["b"] - 0.2 * point["c"] - 0.02 * point["d"]))


def quote_of(point: dict[str, Any], limit: float = np.inf) -> Quote:
    price = cost_of(point)
    return Quote(str(sorted(point.items())), (None, price), (None, None), violation=max(price - limit, 0.0))


def run(sampler: optuna.samplers.BaseSampler, trials: int) -> list[dict[str, Any]]:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    for _ in range(trials):
        trial = study.ask()
        point = GRID.build(lambda name, parameter, trial=trial: parameter.suggest(trial, name))  # type: ignore[misc]
        study.tell(trial, [error_of(point), cost_of(point)])
    return [trial.params for trial in study.trials]


def volume(points: list[dict[str, Any]]) -> float:
    values = np.log([[error_of(p), cost_of(p)] for p in points])
    return hypervolume(values, np.array([0.0, np.log(130.0)]))


def test_finds_more_than_random_search_and_repeats_nothing() -> None:
    ours = run(PricedSampler(space=GRID, quote=quote_of, optimum=(0, 0), seed=0), 30)
    assert len({str(point) for point in ours}) == 30
    randoms = [volume(run(optuna.samplers.RandomSampler(seed=seed), 30)) for seed in range(5)]
    assert volume(ours) > max(randoms)


def test_same_seed_same_search() -> None:
    def sampler(seed: int) -> PricedSampler:
        return PricedSampler(space=GRID, quote=quote_of, optimum=(0, 0), seed=seed)

    assert run(sampler(3), 14) == run(sampler(3), 14) != run(sampler(4), 14)


def test_what_breaks_a_budget_for_certain_is_never_proposed() -> None:
    points = run(PricedSampler(space=GRID, quote=lambda p: quote_of(p, 20.0), optimum=(0, 0), seed=0), 25)
    assert max(cost_of(point) for point in points) <= 20.0


def test_least_bad_candidate_where_no_budget_can_be_kept() -> None:
    points = run(PricedSampler(space=GRID, quote=lambda p: quote_of(p, 1.0), optimum=(0, 0), seed=0), 3)
    assert max(cost_of(point) for point in points) < 40  # the mean of the grid is 43, its least 5


def test_workers_at_once_get_different_candidates() -> None:
    sampler = PricedSampler(space=GRID, quote=quote_of, optimum=(0, 0), seed=0)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    for _ in range(4):
        trials = [study.ask() for _ in range(4)]
        points = [GRID.build(lambda n, p, t=trial: p.suggest(t, n)) for trial in trials]  # type: ignore[misc]
        for trial, point in zip(trials, points, strict=True):
            study.tell(trial, [error_of(point), cost_of(point)])
    assert len({str(trial.params) for trial in study.trials}) == 16


def measured_budget(sampler: optuna.samplers.BaseSampler, trials: int) -> float:
    """Share of the last half of the trials that keeps error ≤ 0.04."""
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    kept = []
    for _ in range(trials):
        trial = study.ask()
        point = GRID.build(lambda n, p, t=trial: p.suggest(t, n))  # type: ignore[misc]
        trial.set_constraint("error", error_of(point) - 0.04)
        kept.append(error_of(point) <= 0.04)
        study.tell(trial, [error_of(point), cost_of(point)])
    return float(np.mean(kept[trials // 2 :]))


def test_measured_budgets_are_learned() -> None:
    ours = measured_budget(PricedSampler(space=GRID, quote=quote_of, optimum=(0, 0), seed=0), 30)
    assert ours > 0.6 > 2 * measured_budget(optuna.samplers.RandomSampler(seed=0), 30)


def test_candidates_that_fail_are_avoided() -> None:
    """Out of memory wherever a = 5: told PRUNED with a broken constraint, as the engine does."""
    sampler = PricedSampler(space=GRID, quote=quote_of, optimum=(0, 0), seed=1)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    for _ in range(40):
        trial = study.ask()
        point = GRID.build(lambda n, p, t=trial: p.suggest(t, n))  # type: ignore[misc]
        if point["a"] == 5:
            trial.set_constraint("infeasible", 1.0)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [error_of(point), cost_of(point)])
    late = [trial.params["a"] for trial in study.trials[20:]]
    assert late.count(5) <= 4


# --- declared spaces ------------------------------------------------------------------------------------------


def fake_price(candidate: Candidate) -> Cost:
    model = candidate.model
    work = model.timesteps * sum(8 + 4 * len(str(block)) for block in model.attention_blocks)
    fields = {"parameters": work, "dense_macs": work**2, "weights_bytes": 4 * work, "peak_bytes": 9 * work}
    return Cost(
        **fields,
        state_bytes=2 * work,
        attention_bytes=3 * work,
        energy_mj_low=1e-4 * work,
        energy_mj_high=1e-2 * work,
    )


def search_digits(config: RunConfig, price: Callable[[Candidate], Cost], trials: int) -> list[Candidate]:
    space = digits().bound(DATA, {})
    study = optuna.create_study(
        directions=["maximize", "minimize", "minimize"], sampler=make_sampler(config, space, price)
    )
    found = []
    for _ in range(trials):
        trial = study.ask()
        found.append(candidate := space.suggest(trial))
        cost = price(candidate)
        accuracy = 1 - 1 / (1 + cost.parameters**0.5)
        study.tell(trial, [accuracy, 0.2 * cost.energy_mj_high, cost.memory_bytes / 1024])
    return found


def test_declared_space_with_conditions_and_budgets() -> None:
    asked: list[str] = []

    def counted(candidate: Candidate) -> Cost:
        asked.append(candidate.identity)
        return fake_price(candidate)

    config = RunConfig(
        name="t", sampler={"name": "priced", "options": {"fresh": 60}}, budgets={"memory_kib": {"max": 4.0}}
    )
    found = search_digits(config, counted, 14)
    assert len({candidate.identity for candidate in found}) == 14
    assert all(fake_price(candidate).memory_bytes <= 4 * 1024 for candidate in found)
    assert len(asked) < 14 * 12 + 64 < 14 * 60  # most candidates are guessed, not priced


def test_equal_networks_are_priced_once() -> None:
    calls: list[Candidate] = []
    quotes = Quotes(RunConfig(name="t"), lambda c: calls.append(c) or fake_price(c))  # type: ignore[func-returns-value]
    space = digits().bound(DATA, {})
    one = space.sample(random.Random(0))
    other = one.model_copy(update={"training": one.training.model_copy(update={"lr": 0.1})})
    assert quotes(one).identity != quotes(other).identity
    assert len(calls) == 1
    assert quotes.guessed(one, quotes.logs(one)).values == pytest.approx(quotes(one).values)


def test_scores_are_asked_for_once_and_become_features() -> None:
    asked: list[str] = []

    def score(candidate: Candidate) -> float:
        asked.append(candidate.identity)
        return 3.5

    plain, scored = Quotes(RunConfig(name="t"), fake_price), Quotes(RunConfig(name="t"), fake_price, [score])
    one = digits().bound(DATA, {}).sample(random.Random(0))
    assert not scored.at_hand(one)
    assert scored(one).features == (*plain(one).features, 3.5) == scored(one).features
    assert scored.at_hand(one)
    assert asked == [one.identity]
    assert scored.guessed(one, scored.logs(one)).features == pytest.approx(scored(one).features)


def with_signals(*signals: str) -> RunConfig:
    options = {"fresh": 8, "prices": 1, "startup": 2, "signals": signals}
    return RunConfig(name="t", sampler={"name": "priced", "options": options})


def test_unknown_signals_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a signal is one of \['hamming', 'sparse-hamming'\], but got 'magic'"):
        make_sampler(with_signals("magic"), digits())  # before there are prices, as a run file is checked


@pytest.mark.slow
def test_a_search_may_use_signals() -> None:
    assert len(search_digits(with_signals("hamming"), fake_price, 3)) == 3


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ValueError, match="does not take these options"):
        make_sampler(RunConfig(name="t", sampler={"name": "priced", "options": {"speed": 1}}), digits(), fake_price)


# --- points ---------------------------------------------------------------------------------------------------


@pytest.fixture
def domain() -> Domain:
    return Domain(digits().bound(DATA, {}))


def test_neighbours_build_or_break_a_law_of_the_space(domain: Domain) -> None:
    rng = random.Random(0)
    point, _ = domain.fill({}, rng) or pytest.fail("no point")
    for _ in range(200):
        other, _ = domain.fill({}, rng) or pytest.fail("no point")
        near = domain.mutated(domain.crossed(point, other, rng), rng)
        if (filled := domain.fill(near, rng)) is not None:
            point, candidate = filled
            again, same = domain.complete(point, rng)
            assert (again, same) == (point, candidate)
            row = domain.encode(point)
            assert row.shape == domain.groups.shape
            assert ((row >= 0) & (row <= 1)).all()


def test_crossover_inherits_blocks_whole(domain: Domain) -> None:
    rng = random.Random(1)
    parents = [domain.fill({"model.blocks.count": 2}, rng) or pytest.fail("no point") for _ in range(2)]
    a, b = parents[0][0], parents[1][0]
    for _ in range(20):
        child = domain.crossed(a, b, rng)
        for i in range(3):
            block = {name: value for name, value in child.items() if name.startswith(f"model.blocks.{i}.")}
            assert any(all(parent.get(name) == value for name, value in block.items()) for parent in (a, b))


@pytest.mark.parametrize(
    "parameter",
    [
        Choice(("x", "y")), Choice((1, 2, 4)), Number(0.0, 2.0, 0.5), Number(1.0, 8.0, log=True),
        Number(1, 9, 2, integer=True), Number(1, 64, log=True, integer=True),
    ],
)  # fmt: skip
def test_parameters_and_distributions_agree(parameter: Choice | Number) -> None:
    rng = random.Random(0)
    distribution = distribution_of(parameter)
    for _ in range(50):
        assert distribution._contains(distribution.to_internal_repr(parameter.sample(rng)))
    if isinstance(parameter, Number):
        again = parameter_of(distribution)
        assert isinstance(again, Number)
        assert (again.low, again.high, again.log, again.integer) == (
            parameter.low, parameter.high, parameter.log, parameter.integer,
        )  # fmt: skip


def test_labels_that_compare_equal_are_told_apart() -> None:
    """1 == True in Python, but not in a space."""
    space = Space("t", {"training": {"clip_grad": {"choice": [1.0, 2.0]}}, "model": {"heads": {"choice": [1, 2]}}})
    domain = Domain(space)
    labels: list[dict[str, Scalar]] = [{"model.heads": 1, "training.clip_grad": 1.0}, {"model.heads": 2}]
    rows = [domain.encode(point) for point in labels]
    assert rows[0].tolist() != rows[1].tolist()
