"""Exact events against oracles that really convolve and multiply, and what must not change them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrf_models import build_model
from lrf_models.attention import CausalSSA, TokenQK
from lrf_models.counters import Policy, counting, load_profile, measure, measurement
from lrf_models.counters.energy import bound_events, estimate, work
from lrf_models.counters.events import Events
from lrf_models.counters.trace import trace
from lrf_models.dynamics import Dendrites
from lrf_models.layers import Conv2d, Gate, Linear, LocalField, MatMul
from lrf_models.sdt_v3 import replay
from spaces import config, operators


class Steps(nn.Module):
    """Runs one module on frames [T, B, ...]; several operands travel in the last dimension."""

    def __init__(self, module: nn.Module, operands: int = 1) -> None:
        super().__init__()
        self.module = module
        self.operands = operands

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.module(*x.chunk(self.operands, -1)) if self.operands > 1 else self.module(x)
        return y


def spikes(*shape: int, top: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, top + 1, shape, generator=generator).float()


def events_of(module: nn.Module, x: Tensor, operands: int = 1) -> Events:
    model = Steps(module, operands).eval()
    with torch.no_grad(), counting(model) as counter:
        model(x)
    return counter.events()["module"]


@pytest.mark.parametrize(
    "geometry", [{}, {"stride": 2}, {"dilation": 3}, {"groups": 2}, {"stride": 2, "groups": 4}], ids=str
)
@pytest.mark.parametrize("edge", ["binary", "integer"])
def test_a_convolution_counts_what_a_convolution_of_ones_adds_up(geometry: dict[str, int], edge: Any) -> None:
    """Padding, stride, dilation, groups, a map that is not square; a value v is v events in `values` only."""
    conv = Conv2d(4, 8, 3, edge=edge, **geometry)
    x = spikes(2, 3, 4, 7, 5, top=1 if edge == "binary" else 4)
    found = events_of(conv, x)
    ones = torch.ones_like(conv.weight)
    for counted, values in ((found.events, (x != 0).float()), (found.values, x)):
        oracle = F.conv2d(values.flatten(0, 1), ones, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        assert counted.tolist() == oracle.unflatten(0, (2, 3)).sum((0, 2, 3, 4)).tolist()
    assert found.rate.tolist() == pytest.approx(x.mean((0, 2, 3, 4)).tolist())


def test_masked_taps_cause_no_events() -> None:
    field = LocalField(3, (1,), edge="binary", taps="past").eval()
    x = spikes(2, 2, 3, 5, 6)
    with torch.no_grad(), counting(field) as counter:
        field(x)
    kernel = torch.tensor([[1.0, 1, 1], [1, 1, 0], [0, 0, 0]]).expand(3, 1, 3, 3)
    oracle = F.conv2d(x.flatten(0, 1), kernel, padding=1, groups=3).unflatten(0, (2, 2)).sum((0, 2, 3, 4))
    assert counter.events()["kernels.0"].events.tolist() == oracle.tolist()


@pytest.mark.parametrize(
    "edges", [("binary", "binary"), ("integer", "integer"), ("binary", "real"), ("real", "binary")]
)
def test_a_product_counts_coincidences_or_is_gated_by_its_spikes(edges: tuple[Any, Any]) -> None:
    a, b = (
        torch.randn(2, 3, 2, 4, 4)
        if edge == "real"
        else spikes(2, 3, 2, 4, 4, top=3 if edge == "integer" else 1, seed=i)
        for i, edge in enumerate(edges)
    )
    found = events_of(MatMul(edges), torch.cat([a, b], -1), operands=2)
    fired = [
        torch.ones_like(x) if edge == "real" else (x != 0).float() for x, edge in zip((a, b), edges, strict=True)
    ]
    assert found.events.tolist() == (fired[0] @ fired[1]).sum((0, 2, 3, 4)).tolist()
    if "real" not in edges:
        assert found.values.tolist() == (a @ b).sum((0, 2, 3, 4)).tolist()
        least = torch.minimum(a.mean((0, 2, 3, 4)), b.mean((0, 2, 3, 4)))
        assert found.rate.tolist() == pytest.approx(least.tolist())


def test_a_binary_gate_is_free_and_an_integer_one_is_not() -> None:
    x = spikes(2, 2, 3, 4, 8, top=2)
    a, b = x.chunk(2, -1)
    found = events_of(Gate(("integer", "integer")), x, operands=2)
    assert found.values.tolist() == (a * b).sum((0, 2, 3, 4)).tolist()
    model = Steps(Gate(("binary", "real")), 2)
    with torch.no_grad(), counting(model.eval()) as counter:
        model(x.clamp(max=1))
    assert counter.events() == {}


def test_the_scan_injects_once_per_dendrite() -> None:
    u = spikes(2, 3, 2, 4, 9)
    found = events_of(Dendrites(operators.LRFDyn(dendrites=5), 2, 9), u)
    assert found.events.tolist() == (5 * u.sum((0, 2, 3, 4))).tolist()


def test_causal_attention_in_its_recurrent_form() -> None:
    """Coincidences of each token's k and v, and a row of the state per spike of q."""
    heads, d, tokens = 2, 3, 8
    q, k, v = (
        spikes(2, 3, heads * d, 2, 4, seed=1),
        spikes(2, 3, heads * d, 2, 4, seed=2),
        spikes(2, 3, 6, 2, 4, seed=3),
    )
    mixer = CausalSSA(heads, 1.0, "binary")

    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixer = mixer

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.mixer(*x.chunk(3, -3))
            return y

    model = Split().eval()
    with torch.no_grad(), counting(model) as counter:
        model(torch.cat([q, k, v], -3))
    assert list(counter.events()) == ["mixer"]
    k_, v_ = (x.flatten(-2).unflatten(-2, (heads, d)).transpose(-1, -2) for x in (k, v))  # [T, B, h, N, d]
    outer = (k_[..., :, None] * v_[..., None, :]).sum((0, 2, 3, 4, 5))
    assert k_.shape[-2] == tokens
    assert counter.events()["mixer"].events.tolist() == (outer + d * q.sum((0, 2, 3, 4))).tolist()


def test_token_attention_adds_what_fires() -> None:
    q = spikes(2, 3, 4, 2, 2)

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mixer = TokenQK(2, nn.Identity(), "binary")

        def forward(self, x: Tensor) -> Tensor:
            self.mixer.gate.edges = ("integer", "binary")  # no neuron here, so the sum itself gates
            y: Tensor = self.mixer(x, x, x)
            return y

    model = Pair().eval()
    with torch.no_grad(), counting(model) as counter:
        model(q)
    assert counter.events()["mixer"].events.tolist() == q.sum((0, 2, 3, 4)).tolist()


# --- batches, precision, and leaving things alone ------------------------------------------------------------


def sdt() -> config.SDTV3Config:
    return config.SDTV3Config.model_validate(
        {
            "img_size": 32,
            "dims": (8, 8, 8, 8),
            "heads": 2,
            "split": 1,
            "num_classes": 5,
            "blocks": ({"kind": "ssa"},) * 2,
        }
    )


def lively(settings: config.Model) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(settings).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(0.02)
    return model


def spikformer(**fields: object) -> config.SpikformerConfig:
    base = {"img_size": 8, "in_chans": 1, "num_classes": 10, "dim": 16, "pools": 1, "heads": 2}
    neuron = {"kind": "lif", "tau": 1.25, "threshold": 0.3}
    blocks = ({"kind": "lrf_dyn", "dilations": (1,)}, {"kind": "lrf_ssa", "dilations": (1,)})
    return config.SpikformerConfig.model_validate({**base, "neuron": neuron, "blocks": blocks, **fields})


def pictures(n: int, seed: int = 0) -> Tensor:
    return 4 * torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_batches_do_not_matter() -> None:
    """One batch, a ragged last one, or each image alone: the same events, and no state from one to the next."""
    model, x = lively(spikformer()), pictures(5)
    whole = measure(model, [x])
    for parts in (x.split(3), x.split(1), [(x, torch.zeros(5))]):
        assert measure(model, parts).sops == whole.sops
        assert measure(model, parts).sops_se == whole.sops_se
    values = torch.tensor([measure(model, [x[[i, i]]]).sops for i in range(5)], dtype=torch.float64)
    assert values.mean().item() == whole.sops
    assert (values.std() / 5**0.5).item() == pytest.approx(whole.sops_se)


def test_frames_and_repeated_images_agree_but_for_the_first_convolution() -> None:
    model = lively(spikformer())
    image, frames = pictures(3), pictures(3).expand(4, 3, 1, 8, 8)
    a, b = measure(model, [image]), measure(model, [frames])
    assert a.sops == b.sops
    first = trace(model, (1, 1, 8, 8)).facts["stem.first.conv"].real
    assert b.energy_mj - a.energy_mj == pytest.approx(3 * first * 4.6e-9)
    assert measure(model, [image], convention="paper").energy_mj == pytest.approx(
        measure(model, [frames], convention="paper").energy_mj
    )


@pytest.mark.parametrize("context", [torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16)])
def test_inference_mode_and_autocast(context: Any) -> None:
    model = lively(spikformer())
    with context, counting(model) as counter:
        model(pictures(3))
    assert measurement(counter).sops > 0


def test_sums_beyond_the_whole_numbers_of_float32() -> None:
    conv = Conv2d(1, 3, 1, edge="binary")
    x = torch.ones(1, 2, 1, 4100, 4100)
    assert events_of(conv, x).events.tolist() == [3 * 4100.0**2] * 2
    assert 4100**2 > 2**24


def test_hooks_go_when_the_model_raises() -> None:
    model = lively(spikformer())
    with counting(model), pytest.raises(ValueError, match="input must be"):
        model(torch.zeros(2, 1, 9, 9))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_not_a_number_on_a_spike_edge_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"module declares a integer input.*nan"):
        events_of(Conv2d(1, 1, 1, edge="integer"), torch.full((1, 2, 1, 2, 2), float("nan")))


def test_a_part_of_a_pass_is_no_inference() -> None:
    model = lively(spikformer())
    with counting(model), pytest.raises(ValueError, match="whole passes"):
        model.forward_features(pictures(2))


def test_one_call_twice_adds_up() -> None:
    conv = Conv2d(2, 2, 1, edge="integer").eval()
    nn.init.ones_(conv.weight)
    model = nn.Sequential(conv, conv).eval()
    x = spikes(1, 2, 2, 3, 3)
    with torch.no_grad(), counting(model) as counter:
        model(x)
    assert counter.events()["0"].values.tolist() == (2 * x.sum((0, 2, 3, 4)) + 2 * 2 * x.sum((0, 2, 3, 4))).tolist()


def test_integers_replayed_as_spikes_are_the_same_events() -> None:
    """A value v on a synapse is v spikes: SDT-V3's integers, and its binary replay, count alike."""
    model = lively(sdt())
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 4
    with torch.no_grad(), counting(model) as integers:
        model(x)
    played = replay(model).eval()
    with torch.no_grad(), counting(played) as binary:
        played(x)
    whole = {f"{name}.operation": events.values for name, events in integers.events().items()}
    compared = 0
    for name, events in binary.events().items():
        if name in whole:
            assert torch.equal(events.events, whole[name]), name
            compared += 1
    assert compared > 10


def test_target_error_stops_early() -> None:
    model = lively(spikformer())
    batches = [pictures(16, seed) for seed in range(6)]
    full = measure(model, batches)
    early = measure(model, batches, target_error=2 * full.energy_mj_se / full.energy_mj)
    assert 30 <= early.n < full.n == 96
    assert early.energy_mj_se <= 2 * full.energy_mj_se * 1.5


# --- energy --------------------------------------------------------------------------------------------------


def test_conventions_by_hand() -> None:
    model = nn.Sequential(Conv2d(2, 4, 3, edge="binary"), Conv2d(4, 1, 1, edge="real")).eval()
    x = spikes(1, 2, 2, 6, 6)
    with torch.no_grad(), counting(model) as counter:
        model(x)
    events, rows, profile = counter.events(), trace(model, (1, 1, 2, 6, 6)).rows, load_profile("45nm-fp32")
    dense, real = 4 * 2 * 9 * 36, 4 * 36
    paper = estimate(rows, events, profile, "paper")
    assert paper.sops.tolist() == pytest.approx((x.mean((0, 2, 3, 4)) * dense).tolist())
    exact = estimate(rows, events, profile, "event")
    assert exact.energy_mj.tolist() == pytest.approx([(0.9 * n + 4.6 * real) * 1e-9 for n in exact.sops.tolist()])
    assert (exact.sops < paper.sops * 1.2).all()
    accesses = (
        estimate(rows, events, profile, "memory").energy_mj - estimate(rows, events, profile, "extended").energy_mj
    )
    by_hand = [1e-9 * (n * 30 + real * 20) for n in exact.sops.tolist()]  # everything fits in 8 KB, 10 pJ an access
    assert accesses.tolist() == pytest.approx(by_hand)


def test_what_is_not_priced_is_named() -> None:
    model = lively(spikformer())
    assert measure(model, [pictures(2)], "loihi-1").unpriced == ("multiply-accumulates",)
    assert "additions" in measure(model, [pictures(2)], "loihi-1", "extended").unpriced
    event, extended = (measure(model, [pictures(2)], "truenorth", c) for c in ("event", "extended"))
    assert event.energy_mj == extended.energy_mj == pytest.approx(event.sops * 26e-9)
    assert event.unpriced == ()


def test_a_strict_policy_multiplies_integers() -> None:
    model = nn.Sequential(Linear(3, 2, edge="integer", bias=False)).eval()
    x = torch.tensor([[2.0, 0, 3], [1, 1, 1]])
    with torch.no_grad(), counting(model) as counter:
        model(x)
    row, events = trace(model, (1, 3)).rows["0"], counter.events()["0"]
    profile = load_profile("45nm-fp32")
    loose, strict = (work(row, events, profile, "event", Policy(integers=p)) for p in ("accumulate", "multiply"))
    assert torch.as_tensor(loose.ac).tolist() == [10, 6]
    assert torch.as_tensor(strict.mac).tolist() == [4, 6]
    assert strict.ac == 0


def test_bounds_follow_the_residual_stream() -> None:
    """An integer edge can carry as many spikes as were summed; the upper bound of the energy knows it."""
    rows = trace(lively(spikformer()), (1, 1, 8, 8)).rows
    assert rows["blocks.0.attention.maps.v.conv.conv"].bounds == (2.0,)
    assert rows["blocks.0.mlp.expand.conv.conv"].bounds == (3.0,)
    assert rows["blocks.1.attention.maps.v.conv.conv"].bounds == (4.0,)
    row = rows["blocks.1.attention.maps.v.conv.conv"]
    assert bound_events(row, True).values.item() == 4 * row.facts.gated
    assert bound_events(row, False).values.item() == 0
