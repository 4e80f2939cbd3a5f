"""Contestants from other packages: what they propose and are told, on a problem small enough to count by hand."""

import random
import sys
from typing import Any

import numpy as np
import pytest

from benchmarks.race.contestants import make
from benchmarks.race.peers import Flat, Menu
from benchmarks.race.simulator import Problem, Simulation, Stopping, Trace
from search.pareto import Points
from search.samplers.quote import Quote
from spaces.tree import Choice, Number, Parameter, Pick

EPOCHS = 9
KINDS = Choice(("plain", "wide", [1, 2]))
WIDTH = Number(1, 4, integer=True)
RATE = Number(1e-3, 1e-1, log=True)


class Conditional:
    """A width only where the kind has one; a law that forbids one width; a parameter with a single option."""

    def parameters(self) -> dict[str, Parameter]:
        return {"kind": KINDS, "wide.width": WIDTH, "rate": RATE, "only": Choice((7,))}

    def build(self, pick: Pick) -> dict[str, Any]:
        built = {"kind": KINDS.value(pick("kind", KINDS)), "width": 0}
        if built["kind"] == "wide":
            built["width"] = pick("wide.width", WIDTH)
        if built["width"] == 3:
            raise ValueError("width != 3 must hold, but got 3")
        return {**built, "rate": round(float(pick("rate", RATE)), 3), "only": pick("only", Choice((7,)))}  # type: ignore[arg-type]


def conditional() -> Problem:
    def curve(built: dict[str, Any]) -> Points:
        final = np.array([(1 + built["width"]) / 6, 10 * built["rate"] + 0.05 * (4 - built["width"])])
        curve = np.array([[1 - final[0] * (2 - epoch / EPOCHS) / 2, final[1]] for epoch in range(1, EPOCHS + 1)])
        return curve  # type: ignore[no-any-return]

    return Problem(
        name="conditional",
        space=Conditional(),
        objectives=("accuracy", "energy_mj"),
        directions=("maximize", "minimize"),
        optimum=(1.0, 0.0),
        curve=curve,
        quote=lambda built: Quote(repr(built), (None, None), (None, None)),
        scale=lambda values: np.column_stack((1 - values[:, 0], values[:, 1] / 2)),
        best=1.0,
        epochs=EPOCHS,
    )


def trace_of(name: str, trials: int = 12, seed: int = 0) -> Trace:
    problem = conditional()
    return Simulation(problem, make(name, problem, seed), seed=seed).run(trials=trials)


def test_flat_space_names_the_options_and_forgets_what_does_not_exist() -> None:
    flat = Flat(Conditional())
    assert set(flat.parameters) == {"kind", "wide.width", "rate"}
    assert flat.parameters["wide.width"] == Menu((1, 2, 3, 4), ordered=True)
    assert flat.build({"kind": 0, "wide.width": 2, "rate": 0.01})["width"] == 0
    assert flat.build({"kind": 2, "wide.width": 2, "rate": 0.01})["kind"] == [1, 2]
    with pytest.raises(ValueError, match="width != 3"):
        flat.build({"kind": 1, "wide.width": 2, "rate": 0.01})
    config = flat.config({"kind": "wide", "wide.width": 4, "rate": 0.02, "only": 7})
    assert config == {"kind": 1, "wide.width": 3, "rate": 0.02}
    assert flat.build(config) == {"kind": "wide", "width": 4, "rate": 0.02, "only": 7}
    drawn = [flat.draw(random.Random(seed)) for seed in range(20)]
    assert {config["kind"] for config in drawn} == {0, 1, 2}


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ax.api.client", None)
    monkeypatch.setitem(sys.modules, "ax", None)
    with pytest.raises(ValueError, match="contestant 'ax' needs ax"):
        make("ax", conditional(), 0)


@pytest.mark.parametrize("name", ["moasha", "moasha, grace 3", "mo-rea"])
def test_syne_tune_can_be_raced(name: str) -> None:
    pytest.importorskip("syne_tune")
    trace = trace_of(name, trials=40)
    assert trace.asks >= 40
    assert 0 < trace.share[-1] <= 1
    assert trace.share == trace_of(name, trials=40).share
    assert trace.share != trace_of(name, trials=40, seed=1).share


def test_moasha_stops_at_its_own_rungs() -> None:
    pytest.importorskip("syne_tune")
    for name, rungs in (("moasha", {1, 3}), ("moasha, grace 3", {3})):
        problem = conditional()
        contestant = make(name, problem, 0)
        assert isinstance(contestant, Stopping)
        lengths: list[int] = []
        tell = contestant.tell

        def note(ticket: Any, curve: Points, complete: bool, tell: Any = tell, lengths: list[int] = lengths) -> None:
            lengths.append(len(curve))
            tell(ticket, curve, complete)

        contestant.tell = note  # type: ignore[method-assign]
        Simulation(problem, contestant, seed=0).run(trials=40)
        assert rungs <= set(lengths) <= rungs | {EPOCHS}


def test_moasha_agrees_that_the_worst_of_many_is_stopped() -> None:
    pytest.importorskip("syne_tune")
    problem = conditional()
    contestant = make("moasha, grace 3", problem, 0)
    assert isinstance(contestant, Stopping)
    goes_on = []
    for worst in range(10):
        contestant.offer({"kind": "plain", "rate": 0.001 + 0.01 * worst})
        ticket, built = contestant.ask()
        identity, curve = problem.quote(built).identity, problem.curve(built)
        for epoch in (1, 2, 3):
            metrics = dict(zip(problem.objectives, curve[epoch - 1].tolist(), strict=True))
            goes_on.append(contestant.goes_on(identity, epoch, metrics))
        contestant.tell(ticket, curve[:3], False)
    assert goes_on == [True] * 3 + [True, True, False] * 9


def test_ax_can_be_raced() -> None:
    pytest.importorskip("ax.api.client")
    problem = conditional()
    contestant = make("ax, told the scale", problem, 0)
    contestant.offer({"kind": "wide", "wide.width": 4, "rate": 0.001, "only": 7})
    trace = Simulation(problem, contestant, workers=2, seed=0).run(trials=7)  # five to start with, then the model
    assert trace.trials[-1] == 7
    assert 0 < trace.share[-1] <= 1


def test_ax_is_not_told_of_stopped_trials() -> None:
    pytest.importorskip("ax.api.client")
    trace = Simulation(conditional(), make("ax", conditional(), 0), stop=lambda *_: False).run(trials=4)
    assert trace.share == []
    assert trace.asks >= 4
