"""Spiking neurons: pure functions ``(input, state) → (spikes, state)``, and thin modules over them.

A module takes ``[T, ...]`` and steps over T from a zero state, so nothing survives a call. Where a neuron has a
fused form over all T it equals the stepped one to rounding, values and gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from lrf_models.layers import Edge
from spaces import config

# --- surrogate gradients: dH(u)/du as a function of u = v − θ -------------------------------------------------


def sigmoid_gradient(u: Tensor) -> Tensor:
    """α σ(αu)(1 − σ(αu)) with α = 4 (Spikformer), which is 1 − tanh²(2u)."""
    return torch.mul(u, 2.0).tanh_().square_().neg_().add_(1.0)


def triangle_gradient(u: Tensor) -> Tensor:
    """max(0, 1 − |u|) (PMSN)."""
    return (1 - u.abs()).clamp_(min=0)


def multi_gaussian_gradient(u: Tensor) -> Tensor:
    """γ[(1+h)N(u; 0, σ) − h N(u; σ, sσ) − h N(u; −σ, sσ)], h = 0.15, s = 6, σ = γ = 0.5 (Yin et al. 2021)."""
    h, s, sigma, gamma = 0.15, 6.0, 0.5, 0.5

    def normal(mean: float, deviation: float) -> Tensor:
        return torch.exp(-0.5 * ((u - mean) / deviation) ** 2) / (deviation * math.sqrt(2 * math.pi))

    return gamma * ((1 + h) * normal(0, sigma) - h * normal(sigma, s * sigma) - h * normal(-sigma, s * sigma))


def straight_through_gradient(u: Tensor) -> Tensor:
    """1 for |u| < 1/2, else 0."""
    return (u.abs() < 0.5).to(u.dtype)


SURROGATES: dict[config.Surrogate, Callable[[Tensor], Tensor]] = {
    "sigmoid": sigmoid_gradient,
    "triangle": triangle_gradient,
    "multi_gaussian": multi_gaussian_gradient,
    "straight_through": straight_through_gradient,
}


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: config.Surrogate) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return grads[0] * SURROGATES[ctx.surrogate](u), None


def spike(u: Tensor, surrogate: config.Surrogate) -> Tensor:
    """Heaviside step of u = v − θ, as 0 and 1 of u's type; the gradient is the surrogate's."""
    return cast(Tensor, _Spike.apply(u, surrogate))  # type: ignore[no-untyped-call]


# --- neurons as functions of one time step ---------------------------------------------------------------------


def lif_step(
    x: Tensor, v: Tensor, decay: float | Tensor, threshold: float, surrogate: config.Surrogate
) -> tuple[Tensor, Tensor]:
    """v ← v + (x − v)·decay;  s = H(v − θ);  v ← v(1 − s).  ``decay`` is 1/τ; the reset is detached."""
    v = v + (x - v) * decay
    s = spike(v - threshold, surrogate)
    return s, v * (1 - s.detach())


def if_step(x: Tensor, v: Tensor, threshold: float, surrogate: config.Surrogate) -> tuple[Tensor, Tensor]:
    """v ← v + x;  s = H(v − θ);  v ← v(1 − s)."""
    v = v + x
    s = spike(v - threshold, surrogate)
    return s, v * (1 - s.detach())


class _Levels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.levels = levels
        return x.clamp(0, levels).round_()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ((x >= 0) & (x <= ctx.levels)), None


def sfa(x: Tensor, levels: int) -> Tensor:
    """round(clip(x, 0, D)), an integer 0..D; gradient 1 inside [0, D] and 0 outside (Yao et al. 2025)."""
    return cast(Tensor, _Levels.apply(x, levels))  # type: ignore[no-untyped-call]


# --- fused multi-step LIF --------------------------------------------------------------------------------------


def _like_steps(x: Tensor) -> Tensor:
    """Uninitialised, of the shape of ``x`` [T, ...] and with the memory layout of its steps."""
    strides = (x[0].numel(), *torch.empty_like(x[0]).stride())
    return torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device)


class _LIFSequence(torch.autograd.Function):
    """`lif_step` over all T. Autograd over the loop would keep five tensors a step; this keeps one, and its output.

    Spikes serve as masks: on a CPU, operations that mix bool and float are several times slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, decay: float, threshold: float, surrogate: config.Surrogate) -> Tensor:
        charged, spikes = _like_steps(x), _like_steps(x)
        torch.mul(x[0], decay, out=charged[0])
        for t in range(len(x)):
            if t > 0:
                v = torch.addcmul(charged[t - 1], charged[t - 1], spikes[t - 1], value=-1)
                torch.lerp(v, x[t], decay, out=charged[t])
            torch.ge(charged[t], threshold, out=spikes[t])
        ctx.save_for_backward(charged, spikes)
        ctx.constants = decay, threshold, surrogate
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        charged, spikes = ctx.saved_tensors
        decay, threshold, surrogate = ctx.constants
        grad = SURROGATES[surrogate](charged - threshold).mul_(grads[0])
        for t in range(len(grad) - 2, -1, -1):  # where there was no reset the membrane carries the gradient on
            grad[t].add_(grad[t + 1], alpha=1 - decay).addcmul_(grad[t + 1], spikes[t], value=decay - 1)
        return grad.mul_(decay), None, None, None


def lif_sequence(x: Tensor, decay: float, threshold: float, surrogate: config.Surrogate) -> Tensor:
    """`lif_step` over the first dimension of ``[T, ...]``, from a zero membrane."""
    if torch.is_grad_enabled() and x.requires_grad:
        return cast(Tensor, _LIFSequence.apply(x, decay, threshold, surrogate))  # type: ignore[no-untyped-call]
    spikes = _like_steps(x)
    v = x[0] * decay
    for t in range(len(x)):
        if t > 0:
            v.lerp_(x[t], decay)
        torch.ge(v, threshold, out=spikes[t])
        v.addcmul_(v, spikes[t], value=-1)
    return spikes


# --- modules ---------------------------------------------------------------------------------------------------


class Neuron(nn.Module):
    """``[T, ...] → [T, ...]`` spikes, from a zero state.

    Attributes:
        edge: Kind of the output.
        states: Values of state per neuron (membranes, adaptation, branches).
        leaks: Whether every value of the state decays, one multiplication a step.
    """

    edge: Edge = "binary"
    states: ClassVar[int] = 1
    leaks: ClassVar[bool] = True

    def initial(self, x: Tensor) -> tuple[Tensor, ...]:
        """Zero state for an input of one time step."""
        return tuple(torch.zeros_like(x) for _ in range(self.states))

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Spikes and next state of one time step."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        state = self.initial(x[0])
        spikes = []
        for x_t in x:
            s, state = self.step(x_t, state)
            spikes.append(s)
        return torch.stack(spikes)


class IF(Neuron):
    """`if_step` over T."""

    leaks = False

    def __init__(self, settings: config.IF) -> None:
        super().__init__()
        self.settings = settings

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        s, v = if_step(x, state[0], self.settings.threshold, self.settings.surrogate)
        return s, (v,)

    def extra_repr(self) -> str:
        return str(self.settings)


class LIF(Neuron):
    """`lif_step` over T, fused."""

    def __init__(self, settings: config.LIF) -> None:
        super().__init__()
        self.settings = settings

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        s, v = lif_step(x, state[0], 1 / self.settings.tau, self.settings.threshold, self.settings.surrogate)
        return s, (v,)

    def forward(self, x: Tensor) -> Tensor:
        return lif_sequence(x, 1 / self.settings.tau, self.settings.threshold, self.settings.surrogate)

    def extra_repr(self) -> str:
        return str(self.settings)


class SFA(Neuron):
    """`sfa` elementwise: no leak, no state."""

    edge: Edge = "integer"
    states = 0

    def __init__(self, settings: config.SFA) -> None:
        super().__init__()
        self.settings = settings

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return sfa(x, self.settings.levels), ()

    def forward(self, x: Tensor) -> Tensor:
        return sfa(x, self.settings.levels)

    def extra_repr(self) -> str:
        return str(self.settings)


_MODULES: dict[type[config.Frozen], Callable[[Any], Neuron]] = {config.IF: IF, config.LIF: LIF, config.SFA: SFA}


def build_neuron(settings: config.Frozen, channels: int, threshold: float | None = None) -> Neuron:
    """The module of a neuron's settings for ``channels`` feature maps, at another threshold if given."""
    if threshold is not None and "threshold" in type(settings).model_fields:
        settings = settings.model_copy(update={"threshold": threshold})
    return _MODULES[type(settings)](settings)
