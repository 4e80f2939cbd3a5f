"""Dense counts against closed forms, published totals, FlopCounterMode and fvcore; memory against hand counts."""

from __future__ import annotations

import lrf_models  # noqa: F401  isort: skip  (before timm)
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from lrf_models import build_model
from lrf_models.counters import Policy, counting, latency, load_profile, measure, price
from lrf_models.counters.audit import counted_macs, flop_counter_macs, fvcore_macs
from lrf_models.counters.energy import work
from lrf_models.counters.memory import LiveBytes, attention_blocks, peak_bytes
from lrf_models.counters.operations import Facts
from lrf_models.counters.trace import Trace, shell, trace
from lrf_models.layers import Conv2d, LocalField
from spaces import config, operators

FRAMES = (4, 1, 3, 224, 224)
NAMES = [name for name in timm.list_models() if timm.model_entrypoint(name).__module__.startswith("lrf_models")]


def spikformer(dim: int, heads: int, operator: operators.Frozen, depth: int = 8) -> config.SpikformerConfig:
    return config.SpikformerConfig.model_validate({"dim": dim, "heads": heads, "blocks": (operator,) * depth})


def traced(settings: config.Model, shape: tuple[int, ...] = (1, 3, 224, 224)) -> Trace:
    return trace(shell(lambda: build_model(settings)), shape, strict=True)


def registered(name: str, **fields: Any) -> tuple[nn.Module, tuple[int, ...]]:
    model = shell(lambda: timm.create_model(name, **fields))
    s = model.settings
    return model, (s.timesteps, 1, s.in_chans, *s.img_size)


@pytest.mark.parametrize(
    ("dim", "heads", "kv", "qk", "without"),
    [
        (384, 12, 18_795_912_192, 19_585_883_136, 18_641_771_520),
        (512, 8, 33_436_192_768, 34_283_966_464, 33_025_150_976),
        (768, 12, 74_662_656_000, 75_934_316_544, 74_046_093_312),
    ],
)
def test_published_totals_and_the_closed_form(dim: int, heads: int, kv: int, qk: int, without: int) -> None:
    """T [9 Σ c_i c_{i+1} r_i² + L (12 d² N + a)] + 1000 d, frames in, so that the first convolution runs T times."""
    widths, sides = (3, dim // 8, dim // 4, dim // 2, dim, dim), (224, 112, 56, 28, 14)
    stem = 9 * sum(a * b * r * r for a, b, r in zip(widths, widths[1:], sides, strict=False))
    for form, published in (("kv", kv), ("qk", qk)):
        rows = traced(spikformer(dim, heads, operators.SSA(form=form)), FRAMES).facts
        products = sum(row.dense for row in rows.values() if row.kind == "matmul")
        d_h = dim // heads
        expected = 4 * 8 * (2 * heads * 196 * d_h**2 if form == "kv" else 2 * heads * 196**2 * d_h)
        assert products == expected
        total = sum(row.dense for row in rows.values())
        assert total == published == 4 * (stem + 8 * 12 * dim**2 * 196) + expected + 1000 * dim
        assert total - products == without


def test_energy_of_the_paper_from_its_synaptic_operations() -> None:
    """0.9 pJ × 11.09 G + 4.6 pJ × MACs of the first convolution, T times = 11.577 mJ to its four digits of SOPs."""
    row = traced(spikformer(512, 8, operators.SSA())).rows["stem.first.conv"]
    first = work(row, None, load_profile("45nm-fp32"), "paper", Policy(), timesteps=4)
    assert first.mac == 4 * 9 * 3 * 64 * 224**2
    assert 0.9e-9 * 11.09e9 + first.energy_pj * 1e-9 == pytest.approx(11.577, abs=0.005)
    assert (
        work(row, None, load_profile("45nm-fp32"), "event", Policy(), timesteps=4).mac == 3 * 64 * (3 * 224 - 2) ** 2
    )


def test_the_scan_by_policy() -> None:
    """25.7 M decays of 8-512 at k = 8: 0.118 mJ as multiplications, 0.023 mJ as shifts; coupled 3 − 2/k as many."""
    uncoupled, coupled = (
        traced(spikformer(512, 8, operators.LRFDyn(coupling=coupling))).rows["blocks.0.attention.mixer.dendrites"]
        for coupling in ("none", "general")
    )
    assert 8 * uncoupled.facts.decay == 25_690_112
    assert coupled.facts.decay * 8 == uncoupled.facts.decay * (3 * 8 - 2)
    assert uncoupled.facts.dense == 3 * uncoupled.facts.decay
    assert uncoupled.facts.training == 4 * 196 * 196 * 512
    profile, millijoules = load_profile("45nm-fp32"), {}
    for decay in ("multiply", "shift"):
        with_decay = work(uncoupled, None, profile, "event", Policy(decay=decay)).energy_pj
        readout = uncoupled.facts.real * 4.6
        millijoules[decay] = 8e-9 * (with_decay - readout)
    assert millijoules == pytest.approx({"multiply": 0.118, "shift": 0.023}, abs=5e-4)


@pytest.mark.parametrize(
    ("side", "dilation", "padding"), [(8, 1, 576 / 484), (14, 3, 42**2 / 36**2), (14, 5, 42**2 / 32**2)]
)
def test_padding_is_no_work(side: int, dilation: int, padding: float) -> None:
    """rate × dense would be 19, 36 and 72 % too much."""
    field = LocalField(4, (dilation,), edge="binary").eval()
    row = trace(field, (2, 1, 4, side, side)).facts["kernels.0"]
    assert row.dense == 2 * 4 * 9 * side**2
    assert row.dense / row.gated == pytest.approx(padding)


@pytest.mark.parametrize("name", ["lrf_dyn_qkformer_4_384_cifar", "ssa_sdt_v3_t", "lrf_ssa_spikformer_2_256_dvs"])
def test_audit(name: str) -> None:
    model, shape = registered(name)
    found = trace(model, shape)
    assert found.ledger == ()
    assert counted_macs(found) == flop_counter_macs(model, shape) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_audit_of_every_registered_model(name: str) -> None:
    test_audit(name)


@pytest.mark.parametrize(
    ("operator", "neuron"),
    [
        (operators.SSA(form="qk"), {"kind": "lif"}),
        (operators.LRFSSA(dilations=(1, 3)), {"kind": "if"}),
        (operators.LRFCausalSSA(dilations=(1,)), {"kind": "alif"}),
        (operators.LRFDyn(dilations=(1, 3), token="qkv"), {"kind": "plif"}),
        (operators.LRFDyn(dilations=(1,), scan="bidirectional", taps="past"), {"kind": "dh_lif", "branches": 2}),
        (operators.TokenQK(), {"kind": "sfa"}),
    ],
    ids=str,
)
def test_every_operator_and_neuron_is_counted_whole(operator: operators.Frozen, neuron: dict[str, object]) -> None:
    """Ledger empty; FlopCounterMode and fvcore agree; the peak over shapes is the peak of a real pass."""
    small = {"img_size": 8, "in_chans": 1, "dim": 16, "pools": 1, "heads": 2, "num_classes": 10}
    settings = config.SpikformerConfig.model_validate({**small, "blocks": (operator,), "neuron": neuron})
    model = build_model(settings).eval()
    found = trace(model, (1, 1, 8, 8), strict=True)
    assert counted_macs(found) == flop_counter_macs(model, (1, 1, 8, 8))
    assert found.peak_bytes == peak_bytes(model, torch.zeros(1, 1, 8, 8))
    assert sum(fvcore_macs(model, (1, 1, 8, 8)).values()) == counted_macs(found)


def test_scaling_with_time_and_once_for_an_image() -> None:
    """T is counted once: everything but the first convolution and the head doubles."""
    for steps in (1, 2, 4):
        settings = config.SpikformerConfig.model_validate(
            {"img_size": 16, "dim": 16, "heads": 2, "pools": 1, "blocks": (operators.SSA(),), "timesteps": steps}
        )
        rows = traced(settings, (1, 3, 16, 16)).facts
        fixed = rows.pop("stem.first.conv").dense, rows.pop("head").dense
        total = sum(row.dense for row in rows.values())
        if steps == 1:
            once = fixed, total
        assert (fixed, total) == (once[0], steps * once[1])


def test_a_module_called_twice_counts_twice_and_an_alias_once() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = Conv2d(2, 2, 3, edge="binary")
            self.other = self.one

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.other(self.one(x))
            return y

    rows = trace(Shared().eval(), (1, 2, 4, 4)).facts
    assert list(rows) == ["one"]
    assert (rows["one"].calls, rows["one"].dense) == (2, 2 * 2 * 2 * 9 * 16)


def test_masked_taps_are_dense_but_no_events() -> None:
    row = trace(LocalField(1, (1,), edge="binary", taps="past").eval(), (1, 1, 8, 8)).facts["kernels.0"]
    assert row.dense == 9 * 64
    assert row.gated == 64 + 56 + 56 + 49 + 49


def test_masked_channels_stay_dense() -> None:
    """A pruned filter is still multiplied by hardware that does not know it: zero weights change no count."""
    torch.manual_seed(0)
    model = nn.Sequential(Conv2d(4, 6, 3, edge="binary")).eval()
    x = torch.randint(0, 2, (3, 4, 5, 5)).float()

    def counts() -> tuple[int, Tensor]:
        with torch.no_grad(), counting(model) as counter:
            model(x)
        return trace(model, (1, 4, 5, 5)).facts["0"].dense, counter.events()["0"].events

    dense, events = counts()
    with torch.no_grad():
        model[0].weight[:3] = 0
    pruned, after = counts()
    assert dense == pruned == 4 * 6 * 9 * 25
    assert torch.equal(events, after)


def test_dropout_is_off_while_costs_are_measured() -> None:
    """A model left in training mode costs what it costs in evaluation mode, and stays in training mode."""

    class Dropped(nn.Sequential):
        settings = None

    torch.manual_seed(0)
    model = Dropped(nn.Dropout(0.9), Conv2d(4, 6, 3, edge="integer")).train()
    x = torch.randint(0, 3, (3, 4, 5, 5)).float()
    trained = measure(model, [x])
    assert model.training
    assert trained == measure(model.eval(), [x])
    assert trained.sops > 0


def test_host_latency_of_pairs() -> None:
    """The interval holds the ratio; one layer needs less than four in a row; threads are left as they were."""
    torch.manual_seed(0)
    one = nn.Linear(400, 400)
    four, x = nn.Sequential(one, one, one, one), torch.randn(400, 400)
    threads = torch.get_num_threads()
    found = latency.compare(one, four, x, pairs=9)
    assert found.low <= found.ratio <= found.high < 1
    assert found.pairs == 9
    assert torch.get_num_threads() == threads
    with pytest.raises(ValueError, match=r"pairs >= 1 must hold, but got \(pairs=0\)"):
        latency.compare(one, four, x, pairs=0)


@pytest.mark.parametrize("form", ["bare", "einsum"])
def test_a_loose_product_is_in_the_ledger(form: str) -> None:
    class Loose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = Conv2d(2, 2, 1, edge="binary")

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return y @ y.transpose(-1, -2) if form == "bare" else torch.einsum("bchw,bcvw->bchv", y, y)

    model = Loose().eval()
    found = trace(model, (1, 2, 4, 4))
    assert found.ledger == ("model: bmm outside a counted module, 1×",)
    assert flop_counter_macs(model, (1, 2, 4, 4)) - counted_macs(found) == 2 * 4**3
    with pytest.raises(ValueError, match="nothing may go uncounted, but got no rule for model: bmm"):
        trace(model, (1, 2, 4, 4), strict=True)


def test_a_foreign_module_is_in_the_ledger() -> None:
    model = nn.Sequential(Conv2d(1, 2, 1, edge="analog"), nn.Conv2d(2, 2, 1), nn.GELU()).eval()
    found = trace(model, (1, 1, 4, 4))
    assert found.ledger[:2] == ("1: Conv2d", "2: GELU")
    with pytest.raises(ValueError, match="2: GELU"):
        trace(model, (1, 1, 4, 4), strict=True)


# --- memory --------------------------------------------------------------------------------------------------


def test_live_bytes_against_a_hand_count() -> None:
    x = torch.zeros(1000)
    with torch.no_grad(), LiveBytes() as tracker:
        tracker.watch(x)
        a = x + 1  # 4000 bytes more
        b = a.view(10, 100).double()  # 8000 bytes; the view is free
        del a  # the view is gone too
        b[0] = 1
        c = b.sum()
        assert tracker.live == 4000 + 8000 + 8
        del b, c
    assert (tracker.live, tracker.peak) == (4000, 4000 + 4000 + 8000)


@pytest.mark.parametrize(
    ("operator", "kib"),
    [
        (operators.SSA(form="qk"), {"maps": 1176, "scores": 1200.5, "recurrent": 0, "window": 0}),
        (operators.SSA(), {"maps": 1176, "scores": 0, "recurrent": 128, "window": 0}),
        (operators.LRFSSA(), {"maps": 1176, "scores": 0, "recurrent": 128, "window": 0}),
        (operators.LRFDyn(token="qkv"), {"maps": 1176, "scores": 0, "recurrent": 16, "window": 302}),
        (operators.LRFDyn(token="qkv", dilations=()), {"maps": 1176, "scores": 0, "recurrent": 16, "window": 0}),
        (operators.LRFDyn(), {"maps": 392, "scores": 0, "recurrent": 16, "window": 302}),
        (operators.LRFDyn(taps="past"), {"maps": 392, "scores": 0, "recurrent": 16, "window": 152}),
        (operators.LRFDyn(field="token"), {"maps": 392, "scores": 0, "recurrent": 16, "window": 0}),
    ],
    ids=str,
)
def test_attention_memory_of_one_block(operator: operators.Frozen, kib: dict[str, float]) -> None:
    """Spikformer-8-512, float32, one step: the published accounting, and the −49.84 % and −8.6 % that follow."""
    facts = traced(spikformer(512, 8, operator, depth=1)).facts
    (block,) = attention_blocks(facts).values()
    assert {part: values * 4 / 1024 for part, values in block.items()} == kib


def test_percentages_of_the_accounting() -> None:
    totals = {}
    for name, operator in {
        "qk": operators.SSA(form="qk"),
        "kv": operators.SSA(),
        "dyn": operators.LRFDyn(token="qkv", dilations=()),
    }.items():
        (block,) = attention_blocks(traced(spikformer(512, 8, operator, depth=1)).facts).values()
        totals[name] = sum(block.values())
    assert 1 - totals["dyn"] / totals["qk"] == pytest.approx(0.4984, abs=5e-5)
    assert 1 - totals["dyn"] / totals["kv"] == pytest.approx(0.086, abs=5e-4)


def test_state_of_the_whole_network() -> None:
    """All membranes of 8-512 are 56.6 MB; nothing survives a single step; KV state is on top."""
    settings = spikformer(512, 8, operators.SSA())
    membranes = 4 * sum(row.membranes for row in traced(settings).facts.values())
    assert membranes == 56_598_528
    assert price(settings).state_bytes == membranes + 8 * 128 * 1024
    assert price(settings.model_copy(update={"timesteps": 1})).state_bytes == 8 * 128 * 1024


def test_facts_of_calls_add_up_but_state_does_not() -> None:
    a = Facts("scan", dense=3, recurrent=2, outputs=1)
    assert a.merge(a) == Facts("scan", calls=2, dense=6, recurrent=2, outputs=2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_of_the_cuda_allocator() -> None:
    """The allocator rounds and the kernels need scratch, so it is no less than the tracker's count."""
    settings = config.SpikformerConfig.model_validate(
        {"img_size": 32, "dim": 64, "heads": 2, "pools": 2, "blocks": (operators.SSA(),)}
    )
    model = build_model(settings).cuda()
    x = torch.zeros(1, 3, 32, 32, device="cuda")
    assert peak_bytes(model, x) >= traced(settings, (1, 3, 32, 32)).peak_bytes
