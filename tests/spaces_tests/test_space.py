"""Spaces: size, enumeration, inverse, YAML, and what a wrong one says."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.config import SpikformerConfig
from spaces.operators import LRFDyn
from spaces.presets import SPACES, digits, load_space, starting_points
from spaces.space import Space

DATA = {"img_size": [8, 8], "in_chans": 1, "num_classes": 10}


def tree(**model: Any) -> dict[str, Any]:
    fixed = {"backbone": "spikformer", **DATA, "pools": 1, "heads": 2, "dim": 16, "blocks": [{"kind": "ssa"}]}
    return {"model": {**fixed, **model}}


BLOCK = {
    "one_of": [
        {"kind": "ssa", "form": {"choice": ["kv", "qk"]}},
        {"kind": "lrf_dyn", "dilations": {"choice": [[], [1]]}, "dendrites": {"int": [1, 4]}},
    ]
}


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        (tree(), 1),
        (tree(dim={"choice": [16, 32]}, heads={"choice": [1, 2]}), 4),
        (tree(blocks={"repeat": 2, "of": BLOCK}), 10**2),
        (tree(blocks={"repeat": {"int": [1, 2]}, "of": BLOCK}), 10 + 10**2),
        (tree(blocks={"repeat": {"int": [1, 2]}, "of": BLOCK, "each": False}), 10 + 10),
        (tree(mlp_ratio={"float": [1, 2], "step": 0.5}), 3),
        (tree(timesteps={"int": [1, 7], "step": 2}), 4),
    ],
)
def test_a_space_states_its_size_and_enumerates_it(raw: dict[str, Any], size: int) -> None:
    space = Space("t", raw)
    assert space.combinations() == size
    candidates = list(space.enumerate())
    assert len({c.identity for c in candidates}) == len(candidates)
    assert len(candidates) == size  # nothing here is unused or breaks a law


def test_enumeration_merges_what_builds_the_same_network() -> None:
    block = {"kind": "lrf_dyn", "dilations": [], "dendrites": 1, "coupling": {"choice": ["none", "general"]}}
    space = Space("t", tree(blocks=[block]))
    assert space.combinations() == 2
    assert len(list(space.enumerate())) == 1


def test_enumeration_leaves_out_what_breaks_a_law() -> None:
    space = Space("t", tree(dim={"choice": [16, 24]}, heads={"choice": [2, 16]}))
    assert space.combinations() == 4
    assert len(list(space.enumerate())) == 3


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_values_of_is_the_inverse_of_build(seed: int) -> None:
    space = digits().bound(DATA, {"epochs": 5})
    candidate = space.sample(random.Random(seed))
    values = space.values_of(candidate)
    assert space.build(lambda name, _: values[name]) == candidate


def test_conditional_parameters_are_suggested_only_under_their_choice() -> None:
    space = digits().bound(DATA, {})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        candidate = space.suggest(trial)
        assert space.values_of(candidate) == trial.params
        assert isinstance(candidate.model, SpikformerConfig)
        with_dendrites = sum(isinstance(block, LRFDyn) for block in candidate.model.blocks)
        assert sum(name.endswith(".dendrites") for name in trial.params) == with_dendrites
        study.tell(trial, 0.0)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_named_spaces_survive_yaml(name: str, tmp_path: Path) -> None:
    space = load_space(name)
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({"name": name, **space.raw}), encoding="utf-8")
    again = load_space(str(path))
    assert again.name == name
    assert again.parameters() == space.parameters()


def test_bound_fills_in_but_does_not_override() -> None:
    space = Space("t", {"model": {"num_classes": 7}}).bound({"num_classes": 10, "in_chans": 1}, {"seed": 3})
    assert space.raw == {"model": {"num_classes": 7, "in_chans": 1}, "training": {"seed": 3}}


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (tree(dim={"int": [32, 16]}), "space: model.dim: low <= high must hold, but got (low=32, high=16)"),
        (tree(dim={"choice": []}), "space: model.dim: a choice needs at least one option, but got []"),
        (tree(dim={"choice": [16, 16]}), "the options of a choice must differ"),
        (tree(dim={"choice": [16], "stpe": 1}), "unknown key 'stpe'"),
        (tree(dim={"float": [0, 1], "log": True}), "low > 0 must hold on a logarithmic scale, but got (low=0)"),
        (tree(dim={"int": [1.5, 2]}), "whole ends"),
        (tree(dim={"int": [1]}), "space: model.dim"),
        (tree(dim={"int": "ab"}), "space: model.dim"),
        (tree(dim={"float": [float("nan"), 1]}), "low <= high must hold"),
        (tree(blocks={"repeat": {"choice": ["a"]}, "of": {"kind": "ssa"}}), "repeat needs whole numbers"),
        (tree(blocks={"repeat": 1}), "'of'"),
        (tree(blocks={"one_of": [{"kind": "ssa"}, {"kind": "ssa"}]}), "different kinds"),
        (tree(blocks={"one_of": [3]}), "space: model.blocks"),
        ({"models": {}}, "unknown key 'models'"),
    ],
)
def test_a_wrong_space_is_one_sentence(raw: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        Space("t", raw)
    assert "\n" not in str(caught.value)


def test_a_space_without_a_feasible_point_says_which_law() -> None:
    space = Space("t", tree(dim=32, heads={"choice": [3, 5]}))
    with pytest.raises(ValueError, match=r"no feasible point in 50 .* heads must divide the width"):
        space.sample(random.Random(0), tries=50)


def test_an_unknown_space_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one of \['digits'"):
        load_space("digit")
    with pytest.raises(ValueError, match="cannot read"):
        load_space(str(tmp_path / "none.yaml"))
    (tmp_path / "bad.yaml").write_text("model: [", encoding="utf-8")
    with pytest.raises(ValueError, match="is not YAML"):
        load_space(str(tmp_path / "bad.yaml"))


def test_starting_points_are_uniform_and_lie_in_the_space() -> None:
    space = digits().bound(DATA, {})
    points = starting_points(space)
    assert set(points) == {"ssa", "lrf_ssa", "lrf_dyn"}
    for kind, candidate in points.items():
        assert {block.kind for block in candidate.model.attention_blocks} == {kind}  # type: ignore[attr-defined]
        assert candidate.model.timesteps == 2
        values = space.values_of(candidate)
        assert space.build(lambda name, _, values=values: values[name]) == candidate  # type: ignore[misc]
