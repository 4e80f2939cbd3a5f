"""SDT-V3 against the official parameter counts; its integer spikes replayed as binary ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lrf_models import build_model
from lrf_models.layers import Conv2d, Linear, MatMul
from lrf_models.sdt_v3 import Replay, replay
from spaces import config, operators

# isort: split
import timm

OPERATORS: list[Any] = [
    operators.SSA(form="qk"),
    operators.SSA(form="kv"),
    operators.CausalSSA(),
    operators.LRFSSA(dilations=(1,)),
    operators.TokenQK(),
    operators.LRFDyn(token="v", dilations=(1,)),
    operators.LRFDyn(token="qkv", dilations=(1,)),
    operators.LRFDyn(token="x", dilations=(1,), field="token"),
]


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name).parameters())


@pytest.mark.parametrize(
    ("size", "official"), [("t", 2_702_048), ("s", 5_105_608), ("m", 10_023_112), ("l", 18_987_504)]
)
def test_parameters_equal_the_official_ones(size: str, official: int) -> None:
    assert parameters(f"ssa_sdt_v3_{size}") == official


@pytest.mark.parametrize("operator", ["lrf_ssa", "lrf_dyn"])
def test_the_paper_counts_5_24_and_19_25_million(operator: str) -> None:
    assert round(parameters(f"{operator}_sdt_v3_s") / 1e6, 2) == 5.24
    assert round(parameters(f"{operator}_sdt_v3_l") / 1e6, 2) == 19.25


def network(operator: Any, neuron: Any) -> nn.Module:
    torch.manual_seed(0)
    settings = config.SDTV3Config(
        dims=(8, 16, 16, 32),
        heads=2,
        img_size=(48, 48),
        num_classes=5,
        split=1,
        neuron=neuron,
        blocks=(operator, operator),
    )
    model = build_model(settings).double().train()
    for _ in range(20):
        model(torch.randn(4, 3, 48, 48, dtype=torch.float64))
    return model.eval()


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
@pytest.mark.parametrize("levels", [1, 4])
def test_binary_spikes_replay_the_integers(operator: Any, levels: int) -> None:
    """Equal outputs, and nothing but 0 and 1 enters an operation on spikes."""
    model = network(operator, operators.SFA(levels=levels))
    binary = replay(model)
    seen: list[Tensor] = []

    def look(module: nn.Module, operands: tuple[Tensor, ...]) -> None:
        seen.extend(operands)

    wrappers = [m for m in binary.modules() if isinstance(m, Replay)]
    for wrapper in wrappers:
        if all(wrapper.trains):
            wrapper.operation.register_forward_pre_hook(look)
    x = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    with torch.no_grad():
        expected, replayed = model.forward_features(x), binary.forward_features(x)
        torch.testing.assert_close(binary(x), model(x), atol=1e-9, rtol=0)
    torch.testing.assert_close(replayed, expected, atol=1e-9, rtol=0)
    assert all(((s == 0) | (s == 1)).all() for s in seen)
    assert any(s.sum() > 0 for s in seen)
    left = [m for m in binary.modules() if isinstance(m, Conv2d | Linear | MatMul) and "integer" in kinds(m)]
    assert {id(m) for m in left} <= {id(w.operation) for w in wrappers}


def kinds(module: nn.Module) -> tuple[str, ...]:
    return module.edges if isinstance(module, MatMul) else (module.edge,)


@pytest.mark.parametrize("neuron", [operators.LIF(), operators.SFA(levels=2)], ids=str)
def test_other_neurons_and_time_steps(neuron: Any) -> None:
    torch.manual_seed(0)
    settings = config.SDTV3Config(
        dims=(8, 16, 16, 32),
        heads=2,
        img_size=(32, 32),
        timesteps=2,
        neuron=neuron,
        blocks=(operators.SSA(),),
        split=0,
    )
    y = build_model(settings).train()(torch.randn(2, 3, 32, 32))
    assert torch.isfinite(y).all()


def test_scale_is_that_of_spikes_over_d() -> None:
    """(Q/D)(K/D)ᵀ(V/D) times 2/√(d/h), as in the official code, from integer Q, K and V."""
    model = network(operators.SSA(form="qk"), operators.SFA(levels=4))
    attention = model.get_submodule("stages.3.0.attention")
    q, k, v = (torch.randint(0, 5, (1, 1, c, 3, 3)).double() for c in (16, 16, 64))
    heads = [x.flatten(3).unflatten(2, (2, -1)) / 4 for x in (q, k, v)]
    expected = 2 / 8**0.5 * torch.einsum("tbhcn,tbhcm,tbhdm->tbhdn", *heads).flatten(2, 3).unflatten(-1, (3, 3))
    torch.testing.assert_close(attention.mixer(q, k, v), expected)
