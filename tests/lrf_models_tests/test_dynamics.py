"""The dendrites: their forms, their exact hold, their limits."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from lrf_models.dynamics import TOEPLITZ_LIMIT, Dendrites, causal_convolution, fft_convolution, toeplitz_convolution
from spaces import operators


def definition(kernel: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """H_n = Σ_{m ≤ n} K[m] u_{n−m}, written as the sum it is."""
    h = torch.zeros_like(u)
    for m in range(u.shape[-1]):
        shifted = torch.nn.functional.pad(u, (m, 0))[..., : u.shape[-1]]
        h = h + kernel[:, m, None, None] * shifted
    return h


@pytest.mark.parametrize("form", [toeplitz_convolution, fft_convolution, causal_convolution])
@pytest.mark.parametrize(("channels", "tokens"), [(1, 1), (1, 6), (4, 5), (4, 49)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_every_form_equals_the_definition(
    form: Callable[..., torch.Tensor], channels: int, tokens: int, dtype: torch.dtype, tolerance: float
) -> None:
    """Values and gradients, on maps that are channels first and channels last in memory."""
    torch.manual_seed(2)
    kernel = (torch.randn(2, tokens, dtype=dtype) / tokens).requires_grad_()
    weight = torch.randn(3, 2, channels, tokens, dtype=dtype)
    for u in (torch.rand(3, 2, channels, tokens, dtype=dtype), torch.rand(3, tokens, 2, channels, dtype=dtype)):
        u = (u if u.shape[1] == 2 and u.shape[-1] == tokens else u.permute(0, 2, 3, 1)).requires_grad_()
        results = []
        for convolve in (form, definition):
            h = convolve(kernel, u)
            results.append((h, *torch.autograd.grad((h * weight).sum(), (kernel, u))))
        for ours, expected in zip(*results, strict=True):
            scale = expected.abs().max().clamp(min=1)
            torch.testing.assert_close(ours / scale, expected / scale, atol=tolerance, rtol=0)


def test_both_sides_of_the_rule_agree() -> None:
    torch.manual_seed(3)
    kernel = torch.randn(1, TOEPLITZ_LIMIT + 1, dtype=torch.float64)
    u = torch.randn(1, 1, 2, TOEPLITZ_LIMIT + 1, dtype=torch.float64)
    beyond = causal_convolution(kernel, u)
    within = causal_convolution(kernel[:, :TOEPLITZ_LIMIT], u[..., :TOEPLITZ_LIMIT])
    torch.testing.assert_close(beyond[..., :TOEPLITZ_LIMIT], within, atol=1e-10, rtol=0)


def test_one_dendrite_is_the_exact_leaky_integrator() -> None:
    """k = 1: A = e^(−1/τ) and B = γτ(1 − e^(−1/τ)), in closed form; for τ → ∞, A = 1 and B = γ."""
    dendrites = Dendrites(operators.LRFDyn(dendrites=1, tau_min=3.0, tau_max=3.0), 4, 16).double()
    a, b = dendrites.hold()
    tau, gamma = dendrites.log_tau_Gk.exp()[:, 0], dendrites.gamma_Gk[:, 0]
    torch.testing.assert_close(a[:, 0, 0], torch.exp(-1 / tau))
    torch.testing.assert_close(b[:, 0], gamma * tau * (1 - torch.exp(-1 / tau)))
    with torch.no_grad():
        dendrites.log_tau_Gk.fill_(math.log(1e12))
        dendrites.gamma_Gk.fill_(1.0)
        a, b = dendrites.hold()
    torch.testing.assert_close(torch.stack([a[:, 0, 0], b[:, 0]]), torch.ones(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("tokens", [1, 2, 5, 16, 33])
def test_doubling_gives_every_power(tokens: int) -> None:
    torch.manual_seed(0)
    dendrites = Dendrites(operators.LRFDyn(dendrites=3), 2, tokens).double()
    a, b = dendrites.hold()
    kernel = dendrites.kernel(tokens)
    for m in range(tokens):
        expected = torch.einsum("gk,gkj,gj->g", dendrites.readout_Gk, torch.linalg.matrix_power(a, m), b)
        torch.testing.assert_close(kernel[:, m], expected, atol=1e-12, rtol=0)


def test_start_values() -> None:
    """τ from 1 to N tokens within the jitter, and unit gain at rest: τΓ = 1 for each dendrite by itself."""
    dendrites = Dendrites(operators.LRFDyn(coupling="none"), 5, 64).double()
    tau = dendrites.log_tau_Gk.exp()
    assert (tau[:, 0] / 1.0 - 1).abs().max() <= 0.1 + 1e-6
    assert (tau[:, -1] / 64.0 - 1).abs().max() <= 0.1 + 1e-6
    torch.testing.assert_close(tau * dendrites.gamma_Gk, torch.ones_like(tau))
    gain = torch.linalg.solve(-dendrites.transition(), dendrites.gamma_Gk[..., None])
    torch.testing.assert_close(gain, torch.ones_like(gain))


def test_frozen_constants_stay_out_of_training() -> None:
    dendrites = Dendrites(operators.LRFDyn(learnable=False), 2, 16)
    learned = {name for name, parameter in dendrites.named_parameters() if parameter.requires_grad}
    assert learned == {"gamma_Gk", "readout_Gk"}


def test_the_circular_form_has_no_recurrence() -> None:
    dendrites = Dendrites(operators.LRFDyn(padding="circular"), 1, 4)
    with pytest.raises(ValueError, match=r"circular.*not causal"):
        dendrites.recurrent(torch.ones(1, 1, 2, 4))
