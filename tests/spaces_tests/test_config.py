"""Candidates: laws, round trips, and identity over what is used."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from spaces.config import Candidate, QKFormerConfig, SDTV3Config, SpikformerConfig, Training, candidate_from, explain
from spaces.operators import IF, LIF, LRFSSA, SSA, LRFDyn


def small(**fields: object) -> SpikformerConfig:
    return SpikformerConfig.model_validate({"img_size": 8, "dim": 32, "pools": 1, "heads": 4, **fields})


@pytest.mark.parametrize(
    "model",
    [small(blocks=[LRFDyn(dilations=(1,)), SSA()]), QKFormerConfig(), SDTV3Config()],
    ids=lambda m: m.backbone,
)
def test_json_round_trip(model: SpikformerConfig | QKFormerConfig | SDTV3Config) -> None:
    candidate = Candidate(model=model)
    again = Candidate.model_validate_json(candidate.model_dump_json())
    assert again == candidate
    assert again.identity == candidate.identity


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # one dendrite has nothing to couple, and one constant has no upper end and no spacing
        (
            LRFDyn(dendrites=1, coupling="general", tau_max=16, dilations=()),
            LRFDyn(dendrites=1, coupling="none", dilations=()),
        ),
        (LRFDyn(dendrites=1, spacing="linear", dilations=()), LRFDyn(dendrites=1, dilations=())),
        # without a local field it does not matter what it would act on
        (LRFDyn(dilations=(), field="token", taps="past"), LRFDyn(dilations=())),
        # 16 tokens: the open upper end is 16
        (LRFDyn(dilations=(1,), tau_max=16), LRFDyn(dilations=(1,))),
        (LRFDyn(dilations=(3, 1)), LRFDyn(dilations=(1, 3))),
    ],
)
def test_unused_freedoms_do_not_change_the_identity(one: LRFDyn, other: LRFDyn) -> None:
    assert Candidate(model=small(blocks=[one])).identity == Candidate(model=small(blocks=[other])).identity


def test_heads_count_only_where_an_operator_has_them() -> None:
    headless = LRFDyn(sharing="layer", dilations=(1,))
    identities = [Candidate(model=small(blocks=[headless], heads=h)).identity for h in (1, 2, 4)]
    assert len(set(identities)) == 1
    assert len({Candidate(model=small(blocks=[headless, SSA()], heads=h)).identity for h in (1, 2, 4)}) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (small(blocks=[SSA()]), small(blocks=[SSA(form="qk")])),  # equal values, unequal memory
        (small(neuron=LIF(), blocks=[SSA()]), small(neuron=IF(), blocks=[SSA()])),
        (small(blocks=[LRFDyn(dilations=(1,))]), small(blocks=[LRFDyn(dilations=(1,), learnable=False)])),
        (small(blocks=[SSA()]), small(blocks=[SSA(), SSA()])),
    ],
)
def test_different_networks_differ(one: SpikformerConfig, other: SpikformerConfig) -> None:
    assert Candidate(model=one).identity != Candidate(model=other).identity


def test_training_is_part_of_the_identity() -> None:
    model = small(blocks=[SSA()])
    assert Candidate(model=model).identity != Candidate(model=model, training=Training(seed=1)).identity


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"dim": 30}, "model.spikformer.dim: Input should be a multiple of 8, but got 30"),
        ({"heads": 3}, "heads must divide the width, but got (width=32, heads=3)"),
        ({"timesteps": 0}, "greater than or equal to 1, but got 0"),
        ({"blocks": [{"kind": "lrf_dyn", "dilations": [5]}]}, "but got (dilation=5, map=4×4)"),
        ({"blocks": [{"kind": "lrf_dyn", "dendrites": 0}]}, "greater than or equal to 1, but got 0"),
        ({"blocks": [{"kind": "lrf_ssa", "dilations": []}]}, "a local field needs at least one dilation"),
        ({"blocks": [{"kind": "lrf_ssa", "dilations": [1, 1]}]}, "must differ from each other, but got [1, 1]"),
        ({"blocks": [{"kind": "lrf_dyn", "tau_min": 9, "tau_max": 3}]}, "(tau_min=9, tau_max=3)"),
        ({"blocks": [{"kind": "softmax"}]}, "softmax"),
        ({"blocks": []}, "at least 1 item"),
        ({"widht": 32}, "widht"),
        ({"neuron": {"kind": "lif", "tau": float("nan")}}, "tau"),
    ],
)
def test_a_broken_law_is_one_sentence(raw: dict[str, object], sentence: str) -> None:
    base = {"backbone": "spikformer", "img_size": 8, "dim": 32, "pools": 1, "heads": 4, "blocks": [{"kind": "ssa"}]}
    with pytest.raises(ValueError, match=re.escape(sentence)) as caught:
        candidate_from({"model": {**base, **raw}})
    assert "\n" not in str(caught.value)


def test_explain_names_the_place() -> None:
    with pytest.raises(ValidationError) as caught:
        Training(epochs=3, warmup_epochs=3)
    assert explain(caught.value) == "warmup_epochs < epochs must hold, but got (warmup_epochs=3, epochs=3)"


def test_a_default_field_fits_the_default_map() -> None:
    assert SpikformerConfig(blocks=(LRFSSA(),)).grid == (14, 14)
    assert SDTV3Config(blocks=(LRFDyn(),) * 8).grid == (14, 14)
