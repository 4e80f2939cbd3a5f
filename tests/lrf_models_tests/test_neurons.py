"""Neurons: every equation written out once more in plain Python, every surrogate against its formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lrf_models import build_model
from lrf_models.neurons import SURROGATES, Neuron, build_neuron, lif_sequence, lif_step, sfa, spike
from spaces import config, operators

NEURONS: list[operators.Neuron] = [
    operators.IF(),
    operators.LIF(),
    operators.LIF(tau=1.3, threshold=0.6, surrogate="triangle"),
    operators.PLIF(tau=3.0),
    operators.ALIF(threshold=0.5),
    operators.DHLIF(branches=1, threshold=0.5),
    operators.DHLIF(branches=3, threshold=0.5),
    operators.SFA(),
]
T, CHANNELS = 6, 7


def currents(seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(T, 2, CHANNELS, 3, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 1.5


def neuron_of(settings_: operators.Neuron, threshold: float | None = None) -> Neuron:
    torch.manual_seed(0)
    return build_neuron(settings_, CHANNELS, threshold).double()


def trace(settings_: operators.Neuron, module: Neuron, x: list[list[float]], channel: int) -> list[float]:
    """Spikes of one neuron, by the equations of the published tables; ``x[t][c]`` are the currents of its place."""
    p = {name: value.detach() for name, value in module.named_parameters()}
    v = eta = s = 0.0
    spikes = []
    d = [0.0] * getattr(settings_, "branches", 0)
    for row in x:
        i = row[channel]
        match settings_:
            case operators.IF():
                v = v * (1 - s) + i
                theta = settings_.threshold
            case operators.LIF() | operators.PLIF():
                v = v * (1 - s)
                v = v + (i - v) / settings_.tau
                theta = settings_.threshold
            case operators.ALIF():
                a, r = math.exp(-1 / settings_.tau_membrane), math.exp(-1 / settings_.tau_adaptation)
                eta = r * eta + (1 - r) * s
                theta = settings_.threshold + settings_.adaptation * eta
                v = a * v + (1 - a) * i - theta * s
            case operators.DHLIF():
                a = float(p["membrane_logit_C"][channel].sigmoid())
                theta = settings_.threshold
                for b in range(settings_.branches):
                    decay = float(p["branch_logit_bC"][b, channel].sigmoid())
                    source = (channel + b * (CHANNELS // settings_.branches)) % CHANNELS
                    current = float(p["weight_bC"][b, channel]) * row[source]
                    d[b] = decay * d[b] + (1 - decay) * current
                v = a * v + (1 - a) * sum(d) - theta * s
            case operators.SFA():
                spikes.append(float(round(min(max(i, 0), settings_.levels))))
                continue
        s = float(v >= theta)
        spikes.append(s)
    return spikes


@pytest.mark.parametrize("settings_", NEURONS, ids=str)
def test_spikes_follow_the_equations(settings_: operators.Neuron) -> None:
    module = neuron_of(settings_)
    x = currents() * (4 if isinstance(settings_, operators.DHLIF) else 1)
    s = module(x)
    assert 0.02 < s.mean() / s.max() < 0.9
    for image, channel, row, column in [(0, 0, 0, 0), (1, 3, 2, 4), (0, CHANNELS - 1, 1, 2), (1, 5, 0, 1)]:
        place = x[:, image, :, row, column].tolist()
        assert trace(settings_, module, place, channel) == s[:, image, channel, row, column].tolist()


@pytest.mark.parametrize("settings_", NEURONS, ids=str)
def test_forward_is_the_loop_over_steps(settings_: operators.Neuron) -> None:
    """The fused forms equal the stepped one, values and gradients, and inference equals training."""
    module = neuron_of(settings_)
    weight = currents(1)
    results = []
    for forward in (module, lambda x: Neuron.forward(module, x)):
        x = currents().requires_grad_()
        s = forward(x)
        results.append((s.detach(), *torch.autograd.grad((s * weight).sum(), [x, *module.parameters()])))
    for fused, stepped in zip(*results, strict=True):
        torch.testing.assert_close(fused, stepped, atol=1e-12, rtol=0)
    with torch.no_grad():
        assert torch.equal(module(currents()), results[0][0])


@pytest.mark.parametrize("settings_", NEURONS, ids=str)
def test_every_constant_gets_a_gradient_and_no_state_survives(settings_: operators.Neuron) -> None:
    module = neuron_of(settings_)
    first = module(currents())
    if isinstance(settings_, operators.PLIF | operators.ALIF | operators.DHLIF):
        (first * currents(1)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).all(), name
    module(currents(2))
    assert torch.equal(module(currents()), first)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.integers(1, 6),
    decay=st.floats(0.05, 1),
    threshold=st.floats(0.1, 2),
    surrogate=st.sampled_from(sorted(SURROGATES)),
    layout=st.sampled_from(["contiguous", "channels_last", "expanded"]),
)
def test_the_fused_lif_for_any_constants_and_layout(
    steps: int, decay: float, threshold: float, surrogate: operators.Surrogate, layout: str
) -> None:
    x, weight = currents(3)[:steps], currents(4)[:steps]
    if layout == "channels_last":
        x = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, x.shape[:2])
    if layout == "expanded":
        x = x[:1]

    def stepped(x: Tensor) -> Tensor:
        v, out = torch.zeros_like(x[0]), []
        for x_t in x:
            s, v = lif_step(x_t, v, decay, threshold, surrogate)
            out.append(s)
        return torch.stack(out)

    results = []
    for form in (lambda x: lif_sequence(x, decay, threshold, surrogate), stepped):
        leaf = x.clone().requires_grad_()
        s = form(leaf.expand_as(weight))
        results.append((s.detach(), torch.autograd.grad((s * weight).sum(), leaf)[0]))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-12, rtol=0)


def sigmoid_by_hand(u: float) -> float:
    s = 1 / (1 + math.exp(-4 * u))
    return 4 * s * (1 - s)


def gaussians_by_hand(u: float) -> float:
    def normal(mean: float, deviation: float) -> float:
        return math.exp(-((u - mean) ** 2) / (2 * deviation**2)) / (deviation * math.sqrt(2 * math.pi))

    return 0.5 * (1.15 * normal(0, 0.5) - 0.15 * normal(0.5, 3) - 0.15 * normal(-0.5, 3))


BY_HAND: dict[str, Callable[[float], float]] = {
    "sigmoid": sigmoid_by_hand,
    "triangle": lambda u: max(0.0, 1 - abs(u)),
    "multi_gaussian": gaussians_by_hand,
    "straight_through": lambda u: float(abs(u) < 0.5),
}


@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
def test_surrogates(surrogate: operators.Surrogate) -> None:
    u = torch.linspace(-3, 3, 61, dtype=torch.float64).add_(1e-3).requires_grad_()
    s = spike(u, surrogate)
    assert torch.equal(s.detach(), torch.tensor([float(x >= 0) for x in u.tolist()], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(s.sum(), u)
    expected = torch.tensor([BY_HAND[surrogate](x) for x in u.tolist()], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, atol=1e-12, rtol=0)


def test_a_membrane_at_the_threshold_fires() -> None:
    assert spike(torch.zeros(1), "sigmoid").item() == 1
    x = torch.full((1, 1, 1), 2.0)
    assert lif_sequence(x, 0.5, 1.0, "sigmoid").item() == 1
    assert lif_sequence(x.requires_grad_(), 0.5, 1.0, "sigmoid").item() == 1


def test_sfa_counts_to_its_levels() -> None:
    x = torch.tensor([-1.0, -0.1, 0.0, 0.4, 0.6, 2.2, 3.9, 4.0, 4.1, 9.0], requires_grad=True)
    y = sfa(x, 4)
    assert y.tolist() == [0, 0, 0, 0, 1, 2, 4, 4, 4, 4]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]


def test_the_attention_threshold_replaces_the_neurons_own() -> None:
    x = torch.full((1, 1, CHANNELS), 1.2, dtype=torch.float64)
    for settings_ in (operators.LIF(), operators.LIF(threshold=0.1)):
        assert neuron_of(settings_, 0.5)(x).all()
        assert not neuron_of(settings_, 0.7)(x).any()


def test_more_branches_than_channels_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"branches <= channels must hold, but got \(branches=4, channels=3\)"):
        build_neuron(operators.DHLIF(branches=4), 3)


@pytest.mark.parametrize(
    "settings_", [n for n in NEURONS if n != operators.DHLIF(branches=1, threshold=0.5)], ids=str
)
def test_a_spikformer_of_any_neuron_trains_a_step(settings_: operators.Neuron) -> None:
    """Every place of the network takes the neuron; its constants move, and are found as dynamics."""
    torch.manual_seed(0)
    blocks = (operators.LRFDyn(dilations=(1,), dendrites=2), operators.SSA())
    model = build_model(
        config.SpikformerConfig(
            img_size=(16, 16), dim=32, heads=4, pools=1, num_classes=3, blocks=blocks, neuron=settings_, scale=0.5
        )
    )
    constants = {name for name, _ in model.dynamics()}
    neurons = {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, Neuron)
        for name, _ in module.named_parameters()
    }
    assert neurons <= constants
    loss = torch.nn.functional.cross_entropy(model(torch.randn(8, 3, 16, 16)), torch.arange(8) % 3)
    loss.backward()
    for name, parameter in model.named_parameters():
        if name in neurons:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.step()
    assert all(torch.isfinite(p).all() for p in model.parameters())
