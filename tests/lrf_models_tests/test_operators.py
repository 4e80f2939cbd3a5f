"""One contract for every operator, and the identities between their forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrf_models import build_model
from lrf_models.attention import LRFDyn, Mixer, build_mixer
from lrf_models.dynamics import Dendrites, causal_convolution, circular_convolution
from lrf_models.layers import Conv2d
from spaces import config, operators

# isort: split
import timm  # after lrf_models, which makes torchvision importable

T, B, WIDTH, HEADS, GRID = 2, 3, 8, 2, (4, 6)

OPERATORS = [
    operators.SSA(form="kv"),
    operators.SSA(form="qk"),
    operators.LRFSSA(dilations=(1, 3)),
    operators.CausalSSA(),
    operators.LRFCausalSSA(dilations=(1,)),
    operators.TokenQK(),
    *(operators.LRFDyn(dilations=(1, 3), token=token) for token in ("v", "qkv", "x")),
    *(operators.LRFDyn(dilations=(1,), sharing=sharing) for sharing in ("layer", "channel")),
    *(operators.LRFDyn(dilations=(1,), coupling=coupling) for coupling in ("none", "symmetric", "skew")),
    *(operators.LRFDyn(dilations=(1,), scan=scan) for scan in ("column", "bidirectional")),
    operators.LRFDyn(dilations=(), dendrites=1),
    operators.LRFDyn(dilations=(1,), field="token"),
    operators.LRFDyn(dilations=(1,), taps="past"),
    operators.LRFDyn(dilations=(1,), padding="circular"),
    operators.LRFDyn(dilations=(1,), spacing="linear", learnable=False),
]


def mixer_of(operator: operators.Frozen, dtype: torch.dtype = torch.float64) -> Mixer:
    torch.manual_seed(0)
    mixer = build_mixer(
        operator,
        width=WIDTH,
        heads=HEADS,
        grid=GRID,
        scale=0.25,
        edge="binary",
        input_edge="binary",
        fire=lambda _: torch.nn.Identity(),
    )
    return mixer.to(dtype)


def spikes(seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(T, B, WIDTH, *GRID, generator=generator) < 0.4).to(dtype)


def run(mixer: Mixer, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    needs = mixer.needs
    return mixer(q if "q" in needs else None, k if "k" in needs else None, v)


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_contract(operator: operators.Frozen) -> None:
    """Shape, finite values, independence of the images of a batch, and a gradient for every parameter."""
    mixer = mixer_of(operator)
    q, k, v = (spikes(seed).requires_grad_() for seed in (1, 2, 3))
    y = run(mixer, q, k, v)
    assert y.shape == v.shape
    assert torch.isfinite(y).all()
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=y.dtype)).sum().backward()
    for name, parameter in mixer.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    mixer.eval()
    alone = run(mixer, q[:, :1], k[:, :1], v[:, :1])
    torch.testing.assert_close(run(mixer, q, k, v)[:, :1], alone)


@pytest.mark.parametrize("operator", [op for op in OPERATORS if isinstance(op, operators.LRFDyn)], ids=str)
def test_causal_unless_said_otherwise(operator: operators.LRFDyn) -> None:
    """Without a centred field, H_n does not see tokens after n; bidirectional and circular do."""
    mixer = mixer_of(operator)
    assert isinstance(mixer, LRFDyn)
    u = spikes(3)
    later = u.clone()
    column = operator.scan == "column"
    flat = later.transpose(-1, -2).flatten(-2) if column else later.flatten(-2)
    flat = flat.clone()
    flat[..., 10:] = 1 - flat[..., 10:]
    later = flat.unflatten(-1, (GRID[1], GRID[0])).transpose(-1, -2) if column else flat.unflatten(-1, GRID)
    a, b = mixer.scan(u), mixer.scan(later)
    first = [x.transpose(-1, -2).flatten(-2)[..., :10] if column else x.flatten(-2)[..., :10] for x in (a, b)]
    same = torch.allclose(first[0], first[1], atol=1e-12)
    assert same == (operator.scan != "bidirectional" and operator.padding == "causal")


def test_kv_and_qk_are_one_operator() -> None:
    q, k, v = spikes(1), spikes(2), spikes(3)
    kv, qk = mixer_of(operators.SSA(form="kv")), mixer_of(operators.SSA(form="qk"))
    torch.testing.assert_close(run(kv, q, k, v), run(qk, q, k, v), atol=1e-12, rtol=0)


def test_causal_ssa_is_the_running_sum() -> None:
    """Y_n = s q_n Σ_{j ≤ n} k_jᵀ v_j, token by token."""
    q, k, v = spikes(1), spikes(2), spikes(3)
    y = run(mixer_of(operators.CausalSSA()), q, k, v).flatten(-2)
    heads = [x.flatten(-2).unflatten(-2, (HEADS, -1)) for x in (q, k, v)]
    state = torch.zeros(T, B, HEADS, WIDTH // HEADS, WIDTH // HEADS, dtype=q.dtype)
    for n in range(y.shape[-1]):
        q_n, k_n, v_n = (x[..., n] for x in heads)
        state = state + k_n[..., :, None] * v_n[..., None, :]
        expected = 0.25 * (q_n[..., None, :] @ state).squeeze(-2).flatten(-2)
        torch.testing.assert_close(y[..., n], expected, atol=1e-12, rtol=0)


def test_one_undamped_dendrite_is_causal_ssa_with_heads_of_size_one() -> None:
    settings_ = operators.LRFDyn(
        token="qkv", dendrites=1, coupling="none", tau_min=1e9, tau_max=1e9, dilations=(), sharing="channel"
    )
    mixer = mixer_of(settings_)
    assert isinstance(mixer, LRFDyn)
    with torch.no_grad():
        mixer.dendrites.gamma_Gk.fill_(1.0)
        mixer.dendrites.readout_Gk.fill_(0.25)
    mixer.eval()
    causal = build_mixer(
        operators.CausalSSA(),
        width=WIDTH,
        heads=WIDTH,
        grid=GRID,
        scale=0.25,
        edge="binary",
        input_edge="binary",
        fire=lambda _: torch.nn.Identity(),
    )
    q, k, v = spikes(1), spikes(2), spikes(3)
    scale = (1 + mixer.bn.eps) ** 0.5  # a fresh BN in eval mode divides by it
    torch.testing.assert_close(run(mixer, q, k, v) * scale, run(causal, q, k, v), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("coupling", ["none", "symmetric", "skew", "general"])
@pytest.mark.parametrize("tokens", [1, 7, 64, 196])
def test_parallel_and_recurrent_forms_agree(coupling: str, tokens: int, dtype: torch.dtype, tolerance: float) -> None:
    """Values and gradients of the convolution equal those of the recurrence, to rounding."""
    torch.manual_seed(1)
    dendrites = Dendrites(operators.LRFDyn(coupling=coupling), 2, tokens).to(dtype)
    u = (torch.rand(3, 2, 4, tokens) < 0.3).to(dtype).requires_grad_()
    weight = torch.randn(3, 2, 4, tokens, dtype=dtype)
    results = []
    for form in (dendrites.forward, dendrites.recurrent):
        h = form(u)
        wanted = [u, *(p for p in dendrites.parameters() if p.requires_grad)]
        results.append([h, *torch.autograd.grad((h * weight).sum(), wanted)])
    for parallel, recurrent in zip(*results, strict=True):
        scale = recurrent.abs().max().clamp(min=1)
        torch.testing.assert_close(parallel / scale, recurrent / scale, atol=tolerance, rtol=0)


def test_the_unpadded_fft_is_another_operator() -> None:
    torch.manual_seed(2)
    kernel, u = torch.rand(2, 64, dtype=torch.float64), torch.rand(3, 2, 4, 64, dtype=torch.float64)
    causal, circular = causal_convolution(kernel, u), circular_convolution(kernel, u)
    torch.testing.assert_close(causal[..., -1], circular[..., -1])  # the last token sees all either way
    assert not torch.allclose(causal[..., 0], circular[..., 0], atol=1e-3)


@pytest.mark.parametrize("dilation", [1, 3, 5])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("kernel", "groups"), [(3, 4), (1, 1)])
def test_convolutions_on_a_cpu_equal_torchs_own(kernel: int, groups: int, dilation: int, last: bool) -> None:
    """Values and gradients, for both memory layouts; a field of dilation 5 reaches past this map."""
    torch.manual_seed(0)
    conv = Conv2d(4, 4, kernel, edge="real", dilation=dilation, groups=groups).double()
    memory_format = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(3, 4, 5, 7, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
    weight = torch.randn(3, 4, 5, 7, dtype=torch.float64)
    results = []
    for form in (conv, lambda x: torch.nn.Conv2d.forward(conv, x)):
        y = form(x[None])[0] if form is conv else form(x)
        results.append((y, *torch.autograd.grad((y * weight).sum(), (x, conv.weight))))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)


@settings(max_examples=100, deadline=None)
@given(
    coupling=st.sampled_from(["none", "symmetric", "skew", "general"]),
    k=st.integers(1, 12),
    spread=st.floats(0.1, 30),
    seed=st.integers(0, 2**16),
)
def test_stable_for_any_parameter_value(coupling: str, k: int, spread: float, seed: int) -> None:
    torch.manual_seed(seed)
    dendrites = Dendrites(operators.LRFDyn(coupling=coupling, dendrites=k), 3, 16).double()
    with torch.no_grad():
        for parameter in dendrites.parameters():
            parameter.copy_(spread * torch.randn_like(parameter))
        dendrites.log_tau_Gk.clamp_(-5, 12)  # τ from 0.007 to 160,000 tokens
        a, _ = dendrites.hold()
    assert torch.linalg.matrix_norm(a, 2).max() < 1


def test_a_past_field_is_causal() -> None:
    mixer = mixer_of(operators.LRFDyn(dilations=(1, 3), taps="past")).eval()
    u = spikes(3)
    later = u.flatten(-2).clone()
    later[..., 12:] = 1 - later[..., 12:]
    a, b = run(mixer, u, u, u), run(mixer, u, u, later.unflatten(-1, GRID))
    torch.testing.assert_close(a.flatten(-2)[..., :12], b.flatten(-2)[..., :12])


def test_spikformer_parameter_counts() -> None:
    """The official counts, less their unused LayerNorm and the biases before BN: 10·d values per block."""
    for (depth, dim, heads), official in {
        (8, 384, 6): 16_828_312,
        (6, 512, 8): 23_385_640,
        (8, 512, 8): 29_705_768,
        (10, 512, 8): 36_025_896,
        (8, 768, 12): 66_363_208,
    }.items():
        with torch.device("meta"):
            model = build_model(config.SpikformerConfig(dim=dim, heads=heads, blocks=(operators.SSA(),) * depth))
        assert sum(p.numel() for p in model.parameters()) + 10 * dim * depth == official


def test_spikformer_parameter_counts_of_the_cifar_form() -> None:
    """The official count of 4-384 for 100 classes, less 13·d per block: there q, k and v have biases too."""
    with torch.device("meta"):
        model = timm.create_model("ssa_spikformer_4_384_cifar")
    assert sum(p.numel() for p in model.parameters()) + 13 * 384 * 4 == 9_365_524


@pytest.mark.parametrize(("operator", "parameters"), [("lrf_ssa", 29_783_592), ("lrf_dyn", 29_783_896)])
def test_spikformer_8_512_with_a_local_field(operator: str, parameters: int) -> None:
    """Dilations 1, 3, 5 and their BN on top of SSA; the paper prints the count without a field."""
    with torch.device("meta"):
        model = timm.create_model(f"{operator}_spikformer_8_512")
        plain = timm.create_model("ssa_spikformer_8_512")
    total, base = (sum(p.numel() for p in m.parameters()) for m in (model, plain))
    assert total == parameters
    field = 8 * (3 * 9 * 512 + 2 * 512)
    dendrites = 8 * (3 * 8 + 2 * 7) if operator == "lrf_dyn" else 0
    assert total - base == field + dendrites
