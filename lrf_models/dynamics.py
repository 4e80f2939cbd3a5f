"""Dendritic dynamics over tokens: the recurrence of LRF-Dyn and its convolution form.

Per group of channels, k dendrites follow dx/dn = T x + Γ u(n) with u held constant for one token (zero-order
hold), so that, exactly,

    X_n = A X_{n-1} + B u_n,   H_n = C X_n,   A = exp(T),  B = ∫₀¹ exp(Ts) ds Γ            (Eqs. 12, 13)
    H = K ∗ u,                 K[m] = C Aᵐ B                                                 (Eq. 15)

T is tridiagonal: −1/τ_i on the diagonal, couplings β beside it. It is stable for any parameter value:
τ_i = exp(θ_i) > 0, the symmetric part of a coupling is bounded by ρ/(2√(τ_i τ_{i+1})) with ρ = 0.9, and the
skew part moves no energy; hence ‖A‖₂ < 1.

Source: "Neural Dynamics Self-Attention for Spiking Transformers", arXiv 2603.19290.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lrf_models.layers import Edge
from spaces.operators import LRFDyn

RHO = 0.9

# Up to this many tokens the N×N product beats the zero-padded FFT (benchmarks/operators.py, docs/operators.md).
TOEPLITZ_LIMIT = 512


def toeplitz_convolution(kernel_GN: Tensor, u_FGDN: Tensor) -> Tensor:
    """K ∗ u as a product with the N×N lower-triangular M[n, j] = K[n − j]."""
    n = kernel_GN.shape[-1]
    matrix_GNN = torch.nn.functional.pad(kernel_GN, (n - 1, 0)).unfold(-1, n, 1).flip(-1)
    u_GNM = u_FGDN.permute(1, 3, 0, 2).flatten(2)
    h_GNFD = torch.bmm(matrix_GNN, u_GNM).unflatten(2, (u_FGDN.shape[0], -1))
    return h_GNFD.permute(2, 0, 3, 1)


def fft_convolution(kernel_GN: Tensor, u_FGDN: Tensor) -> Tensor:
    """K ∗ u by the FFT of sequences that are padded to 2N with zeros, so that nothing wraps around (Eq. 15)."""
    n = kernel_GN.shape[-1]
    spectrum = torch.fft.rfft(kernel_GN, 2 * n)[:, None] * torch.fft.rfft(u_FGDN, 2 * n)
    return torch.fft.irfft(spectrum, 2 * n)[..., :n]


def causal_convolution(kernel_GN: Tensor, u_FGDN: Tensor) -> Tensor:
    """K ∗ u over the last dimension, inclusive and causal: H_n = Σ_{m ≤ n} K[m] u_{n−m}, in the faster form.

    Channels that share a kernel share its Toeplitz matrix, so their product runs at full speed; a channel by itself
    would need an N×N matrix of its own. A direct convolution with N taps never was the fastest.

    Args:
        kernel_GN: One kernel per group.
        u_FGDN: F folded batch, G groups, D channels that share a kernel, N tokens.
    """
    shared = u_FGDN.shape[-2] > 1 and u_FGDN.shape[-1] <= TOEPLITZ_LIMIT
    return (toeplitz_convolution if shared else fft_convolution)(kernel_GN, u_FGDN)


def circular_convolution(kernel_GN: Tensor, u_FGDN: Tensor) -> Tensor:
    """The unpadded FFT: not causal, every token sees every token. Shapes as in `causal_convolution`."""
    n = u_FGDN.shape[-1]
    spectrum = torch.fft.rfft(kernel_GN, n)[:, None] * torch.fft.rfft(u_FGDN, n)
    return torch.fft.irfft(spectrum, n)


class Dendrites(nn.Module):
    """k coupled dendrites per group, read out by one soma value: ``[..., G, D, N] → [..., G, D, N]``.

    Args:
        settings: Number of dendrites, coupling, range and spacing of the time constants in tokens.
        groups: Number of independent dynamics.
        tokens: N of the training form; also the largest time constant where the settings leave it open.
        edge: Kind of the tokens.
    """

    symmetric_Gk: Tensor | None
    skew_Gk: Tensor | None

    def __init__(self, settings: LRFDyn, groups: int, tokens: int, *, edge: Edge = "binary") -> None:
        super().__init__()
        self.settings = settings
        self.edge = edge
        self.groups = groups
        self.tokens = tokens
        k = settings.dendrites
        tau_max = settings.tau_max if settings.tau_max is not None else max(float(tokens), settings.tau_min)
        if settings.spacing == "log":
            log_tau_k = torch.linspace(math.log(settings.tau_min), math.log(tau_max), k)
        else:
            log_tau_k = torch.linspace(settings.tau_min, tau_max, k).log()
        jitter_Gk = 1 + 0.1 * (2 * torch.rand(groups, k) - 1)
        log_tau_Gk = log_tau_k + jitter_Gk.log()
        frozen = not settings.learnable
        self.log_tau_Gk = nn.Parameter(log_tau_Gk, requires_grad=not frozen)
        self.gamma_Gk = nn.Parameter(torch.exp(-log_tau_Gk))  # 1/τ: unit gain at rest
        self.readout_Gk = nn.Parameter(1 / k + torch.randn(groups, k) / k)
        for name in ("symmetric", "skew"):
            used = settings.coupling in (name, "general") and k > 1
            weight = nn.Parameter(0.1 * torch.randn(groups, k - 1), requires_grad=not frozen) if used else None
            self.register_parameter(f"{name}_Gk", weight)

    def transition(self) -> Tensor:
        """T [G, k, k], the tridiagonal generator of Eq. 13."""
        tau_Gk = self.log_tau_Gk.exp()
        matrix = torch.diag_embed(-1 / tau_Gk)
        s = a = torch.zeros_like(tau_Gk[:, 1:])
        if self.symmetric_Gk is not None:
            s = RHO / 2 * torch.tanh(self.symmetric_Gk) / torch.sqrt(tau_Gk[:, 1:] * tau_Gk[:, :-1])
        if self.skew_Gk is not None:
            a = torch.tanh(self.skew_Gk)
        return matrix + torch.diag_embed(s + a, 1) + torch.diag_embed(s - a, -1)

    def hold(self) -> tuple[Tensor, Tensor]:
        """A [G, k, k] and B [G, k] of the zero-order hold, from one exponential of [[T, Γ], [0, 0]].

        No inverse of T, so it holds for τ → ∞.
        """
        k = self.settings.dendrites
        generator = torch.cat([self.transition(), self.gamma_Gk[..., None]], -1)
        exponential = torch.linalg.matrix_exp(torch.nn.functional.pad(generator, (0, 0, 0, 1)))
        return exponential[:, :k, :k], exponential[:, :k, k]

    def kernel(self, tokens: int) -> Tensor:
        """K [G, N] with K[m] = C Aᵐ B, by doubling: the powers 0..2i−1 give those of 2i..4i−1."""
        power, b_Gk = self.hold()
        v_GkM = b_Gk[..., None]
        while v_GkM.shape[-1] < tokens:
            v_GkM = torch.cat([v_GkM, power @ v_GkM], -1)
            power = power @ power
        return torch.einsum("gk,gkm->gm", self.readout_Gk, v_GkM[..., :tokens])

    def forward(self, u: Tensor) -> Tensor:
        """The parallel (training) form over the last dimension."""
        convolve = circular_convolution if self.settings.padding == "circular" else causal_convolution
        lead = u.shape[:-3]
        h = convolve(self.kernel(u.shape[-1]), u.reshape(-1, *u.shape[-3:]))
        return h.unflatten(0, lead)

    def recurrent(self, u: Tensor) -> Tensor:
        """The recurrent (inference) form: carries k values per channel over the tokens."""
        return torch.stack(list(self.stream(u.unbind(-1))), -1)

    def stream(self, tokens: list[Tensor] | tuple[Tensor, ...]) -> Iterator[Tensor]:
        """H_n for each u_n ``[..., G, D]``, one after the other."""
        if self.settings.padding == "circular":
            raise ValueError("padding='circular' is not causal and has no recurrent form")
        a_Gkk, b_Gk = self.hold()
        x = torch.zeros(*tokens[0].shape, self.settings.dendrites, dtype=b_Gk.dtype, device=b_Gk.device)
        for u in tokens:
            x = torch.einsum("gij,...gdj->...gdi", a_Gkk, x) + b_Gk[:, None] * u[..., None]
            yield torch.einsum("gk,...gdk->...gd", self.readout_Gk, x)

    def extra_repr(self) -> str:
        return f"groups={self.groups}, tokens={self.tokens}, {self.settings}"
