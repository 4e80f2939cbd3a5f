"""Prices and measurements of small networks: the seams that the search uses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lrf_models import build_model
from lrf_models.counters import CONVENTIONS, Measurement, counting, load_profile, measure, measurement, price
from lrf_models.counters.prior import expect
from lrf_models.layers import Conv2d
from spaces import config, operators
from spaces.cost import Cost

OPERATORS = [
    operators.SSA(),
    operators.SSA(form="qk"),
    operators.LRFSSA(dilations=(1,)),
    operators.CausalSSA(),
    operators.LRFCausalSSA(dilations=(1,)),
    operators.TokenQK(),
    *(operators.LRFDyn(dilations=(1,), token=token) for token in ("v", "qkv", "x")),
    operators.LRFDyn(dilations=(1,), field="token", taps="past"),
    operators.LRFDyn(dilations=(1,), scan="bidirectional", coupling="none"),
    operators.LRFDyn(dilations=(), padding="circular", dendrites=1),
]


def small(operator: operators.Frozen, **fields: object) -> config.SpikformerConfig:
    base = {"img_size": 8, "in_chans": 1, "num_classes": 10, "dim": 16, "pools": 1, "heads": 2, "mlp_ratio": 2.0}
    lively = {"neuron": {"kind": "lif", "tau": 1.25, "threshold": 0.3}, "attention_threshold": 0.1}
    return config.SpikformerConfig.model_validate({**base, **lively, "blocks": (operator, operator), **fields})


def images(n: int, seed: int = 0) -> Tensor:
    return 4 * torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def fresh(settings: config.Model) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(settings)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # so that neurons fire
            module.running_var.fill_(0.02)
    return model


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_a_price_holds_what_is_measured(operator: operators.Frozen) -> None:
    """Equal weights and operations; the measured energy lies between the bounds, in every convention."""
    settings = small(operator)
    model = fresh(settings)
    for convention in CONVENTIONS:
        cost = price(settings, convention=convention)
        found = measure(model, [images(3), images(2, seed=1)], convention=convention)
        assert cost.parameters == sum(p.numel() for p in model.parameters())
        assert cost.energy_mj_low <= found.energy_mj <= cost.energy_mj_high
        assert found.n == 5
        assert found.sops > 0
    assert Cost.model_validate_json(cost.model_dump_json()) == cost
    assert Measurement.model_validate_json(found.model_dump_json()) == found


def test_price_is_cached_by_the_network_not_by_the_training() -> None:
    settings = small(operators.SSA())
    a, b = (config.Candidate(model=settings, training=config.Training(lr=lr)) for lr in (1e-3, 1e-2))
    assert price(a) is price(b) is price(settings)


def test_measuring_may_share_the_accuracy_pass() -> None:
    model = fresh(small(operators.LRFDyn(dilations=(1,)))).eval()
    with torch.no_grad(), counting(model) as counter:
        model(images(4))
    assert measurement(counter) == measure(model, [images(4)])


def test_nothing_about_the_model_changes() -> None:
    model = fresh(small(operators.LRFSSA(dilations=(1,)))).train()
    frozen = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    measure(model, [images(4)])
    assert torch.equal(torch.get_rng_state(), rng)
    assert model.training
    assert not frozen.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    model.eval()
    plain = model(images(4))
    with counting(model):
        assert torch.equal(model(images(4)), plain)


def test_a_binary_edge_that_carries_a_fraction_is_named() -> None:
    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Conv2d(1, 2, 3, edge="binary")

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            return y

    model = Leaky()
    with pytest.raises(ValueError, match=r"conv declares a binary input, .* but got 0\.3"):
        measure(model, [torch.full((2, 1, 4, 4), 0.3)])
    assert not model.conv._forward_hooks
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    ("call", "law"),
    [
        (lambda m: measure(m, []), "two images or more, but got 0"),
        (lambda m: measure(m, [images(1)]), "two images or more, but got 1"),
        (lambda m: measure(m, [images(0)]), "at least one image"),
        (lambda m: measure(m, [images(2) * float("nan")]), "finite"),
        (lambda m: measure(m, [images(2)], "speck"), "a profile is one of .* but got 'speck'"),
        (lambda m: measure(m, [images(2)], convention="memory", profile="truenorth"), "sram_pj.*truenorth lacks"),
        (lambda m: price(m.settings, convention="nominal"), "a convention is one of"),
    ],
)
def test_bad_input_is_one_sentence(call: object, law: str) -> None:
    model = fresh(small(operators.SSA()))
    with pytest.raises(ValueError, match=law):
        call(model)  # type: ignore[operator]
    with counting(model), pytest.raises(ValueError, match="evaluation mode"):
        model(images(2))


@pytest.mark.parametrize(
    ("change", "law"),
    [({"mac_pj": -1}, "mac_pj"), ({"ac_pj": None}, "ac_pj"), ({"colour": 1}, "colour"), ({"sram_pj": {}}, "sram_pj")],
)
def test_a_profile_with_a_wrong_field_is_refused(tmp_path: object, change: dict[str, object], law: str) -> None:
    import yaml

    good = load_profile("45nm-fp32").model_dump()
    path = f"{tmp_path}/own.yaml"
    with open(path, "w") as file:
        yaml.safe_dump({**good, **change, "name": "own"}, file)
    with pytest.raises(ValueError, match=law):
        load_profile(path)


def test_an_expectation_from_neighbours() -> None:
    """A network's own measurement predicts it, but for what its blocks differ by; another's keeps the bounds."""
    settings, wider = small(operators.LRFSSA(dilations=(1,))), small(operators.LRFSSA(dilations=(1,)), dim=32)
    known = measure(fresh(settings), [images(8)])
    assert expect(settings, [known]).energy_mj == pytest.approx(known.energy_mj, rel=0.2)
    cost, other = price(wider), expect(wider, [known, known])
    assert cost.energy_mj_low < other.energy_mj < cost.energy_mj_high
    assert other.low == other.energy_mj == other.high
    with pytest.raises(ValueError, match="a measured neighbour or more"):
        expect(settings, [])
