"""Spiking neurons: pure functions ``(input, state) → (spikes, state)``, and thin modules over them.

A module takes ``[T, B, C, ...]`` and steps over T from a zero state, so nothing survives a call. The LIF also has
a fused form over all T; it equals the stepped one to rounding, values and gradients.

Notation: x input, v membrane, s spike, θ threshold, H the Heaviside step with a surrogate gradient. Resets are
detached: no gradient flows through a spike's effect on its own membrane.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from lrf_models.layers import Edge
from spaces import operators

# --- surrogate gradients: dH(u)/du times the gradient of the spikes, u = v − θ ---------------------------------
# They may overwrite u, which keeps the passes over memory few. A comparison out of place gives bool, and arithmetic
# that mixes bool and float is several times slower on a CPU; in place it gives 0 and 1 of the tensor's own type.


def sigmoid_gradient(u: Tensor, grad: Tensor) -> Tensor:
    """α σ(αu)(1 − σ(αu)) with α = 4 (Spikformer), which is 1 − tanh²(2u), the derivative of tanh at 2u."""
    tanh = u.mul_(2.0).tanh_()
    return torch.ops.aten.tanh_backward.grad_input(grad, tanh, grad_input=tanh)


def triangle_gradient(u: Tensor, grad: Tensor) -> Tensor:
    """max(0, 1 − |u|) (PMSN)."""
    return u.abs_().neg_().add_(1.0).clamp_(min=0).mul_(grad)


def multi_gaussian_gradient(u: Tensor, grad: Tensor) -> Tensor:
    """γ[(1+h)N(u; 0, σ) − h N(u; σ, sσ) − h N(u; −σ, sσ)], h = 0.15, s = 6, σ = γ = 0.5 (Yin et al. 2021)."""
    h, s, sigma, gamma = 0.15, 6.0, 0.5, 0.5

    def normal(mean: float, deviation: float) -> Tensor:
        scale = 1 / (deviation * math.sqrt(2 * math.pi))
        return torch.sub(u, mean).square_().mul_(-0.5 / deviation**2).exp_().mul_(scale)

    sides = normal(sigma, s * sigma).add_(normal(-sigma, s * sigma))
    return normal(0, sigma).mul_(1 + h).sub_(sides, alpha=h).mul_(gamma).mul_(grad)


def straight_through_gradient(u: Tensor, grad: Tensor) -> Tensor:
    """1 for |u| < 1/2, else 0."""
    return u.abs_().lt_(0.5).mul_(grad)


SURROGATES: dict[operators.Surrogate, Callable[[Tensor, Tensor], Tensor]] = {
    "sigmoid": sigmoid_gradient,
    "triangle": triangle_gradient,
    "multi_gaussian": multi_gaussian_gradient,
    "straight_through": straight_through_gradient,
}


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, surrogate: operators.Surrogate) -> Tensor:
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return u.clone().ge_(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return SURROGATES[ctx.surrogate](u.clone(), grads[0]), None


def spike(u: Tensor, surrogate: operators.Surrogate) -> Tensor:
    """Heaviside step of u = v − θ, as 0 and 1 of u's type; the gradient is the surrogate's."""
    return cast(Tensor, _Spike.apply(u, surrogate))  # type: ignore[no-untyped-call]


# --- neurons as functions of one time step ---------------------------------------------------------------------


def if_step(x: Tensor, v: Tensor, threshold: float, surrogate: operators.Surrogate) -> tuple[Tensor, Tensor]:
    """v ← v + x;  s = H(v − θ);  v ← v(1 − s)."""
    v = v + x
    s = spike(v - threshold, surrogate)
    return s, v * (1 - s.detach())


def lif_step(
    x: Tensor, v: Tensor, decay: float | Tensor, threshold: float, surrogate: operators.Surrogate
) -> tuple[Tensor, Tensor]:
    """v ← v + (x − v)·decay;  s = H(v − θ);  v ← v(1 − s).  ``decay`` is 1/τ, a tensor where it is learned (PLIF)."""
    v = torch.lerp(v, x, decay)
    s = spike(v - threshold, surrogate)
    return s, v * (1 - s.detach())


def alif_step(
    x: Tensor,
    rest: Tensor,
    eta: Tensor,
    a: Tensor,
    r: Tensor,
    threshold: float,
    adaptation: float,
    surrogate: operators.Surrogate,
) -> tuple[Tensor, Tensor, Tensor]:
    """v = rest + (1−a)x;  s = H(v − θ), θ = b₀ + bη;  η ← rη + (1−r)s;  rest ← av − θs with the new θ.

    The table of Yin et al. (2021), v ← av + (1−a)x − θs, with the part that the past fixes carried as ``rest``:
    it needs no memory of the last spike. The gradient of a spike passes through η, not through its reset.
    """
    v = rest + (1 - a) * x
    s = spike(v - (threshold + adaptation * eta), surrogate)
    eta = torch.lerp(s, eta, r)
    return s, a * v - (threshold + adaptation * eta) * s.detach(), eta


def dh_lif_step(
    currents_b: Tensor,
    rest: Tensor,
    d_b: Tensor,
    branch_decay_b: Tensor,
    a: Tensor,
    threshold: float,
    surrogate: operators.Surrogate,
) -> tuple[Tensor, Tensor, Tensor]:
    """d_b ← B_b d_b + (1−B_b) I_b;  v = rest + (1−a) Σ_b d_b;  s = H(v − θ);  rest ← av − θs (Zheng et al. 2024).

    Args:
        currents_b: I_b = W_b x of each branch, ``[branches, ...]`` like ``d_b``.
        rest: What the past fixes of the membrane, as in `alif_step`.
        branch_decay_b: B_b of each branch; ``a`` is the membrane's.
    """
    d_b = torch.lerp(currents_b, d_b, branch_decay_b)
    v = rest + (1 - a) * d_b.sum(0)
    s = spike(v - threshold, surrogate)
    return s, a * v - threshold * s.detach(), d_b


class _Levels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.levels = levels
        return x.clamp(0, levels).round_()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return x.clamp(0, ctx.levels).eq_(x).mul_(grads[0]), None


def sfa(x: Tensor, levels: int) -> Tensor:
    """round(clip(x, 0, D)), an integer 0..D; gradient 1 inside [0, D] and 0 outside (Yao et al. 2025)."""
    return cast(Tensor, _Levels.apply(x, levels))  # type: ignore[no-untyped-call]


# --- fused multi-step LIF --------------------------------------------------------------------------------------


class _LIFSequence(torch.autograd.Function):
    """`lif_step` over all T. Autograd over the loop would keep five tensors a step; this keeps one, and its output.

    Spikes serve as masks: on a CPU, operations that mix bool and float are several times slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, decay: float, threshold: float, surrogate: operators.Surrogate) -> Tensor:
        charged, spikes = torch.empty_like(x), torch.empty_like(x)
        before = None
        for x_t, v, s in zip(x.unbind(), charged.unbind(), spikes.unbind(), strict=True):
            if before is None:
                torch.mul(x_t, decay, out=v)
            else:
                torch.lerp(torch.addcmul(before[0], *before, value=-1), x_t, decay, out=v)
            torch.ge(v, threshold, out=s)
            before = v, s
        ctx.save_for_backward(charged, spikes)
        ctx.constants = decay, threshold, surrogate
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        charged, spikes = ctx.saved_tensors
        decay, threshold, surrogate = ctx.constants
        grad = SURROGATES[surrogate](charged - threshold, grads[0])
        later = None
        for grad_t, s in zip(reversed(grad.unbind()), reversed(spikes.unbind()), strict=True):
            if later is not None:  # where there was no reset the membrane carries the gradient on
                grad_t.add_(later, alpha=1 - decay).addcmul_(later, s, value=decay - 1)
            later = grad_t
        return grad.mul_(decay), None, None, None


def lif_sequence(x: Tensor, decay: float, threshold: float, surrogate: operators.Surrogate) -> Tensor:
    """`lif_step` over the first dimension of ``[T, ...]``, from a zero membrane."""
    if torch.is_grad_enabled() and x.requires_grad:
        return cast(Tensor, _LIFSequence.apply(x, decay, threshold, surrogate))  # type: ignore[no-untyped-call]
    spikes = torch.empty_like(x)
    v = x[0] * decay
    for t, (x_t, s) in enumerate(zip(x.unbind(), spikes.unbind(), strict=True)):
        if t > 0:
            v.lerp_(x_t, decay)
        torch.ge(v, threshold, out=s)
        v.addcmul_(v, s, value=-1)
    return spikes


# --- modules ---------------------------------------------------------------------------------------------------


class Neuron(nn.Module):
    """``[T, B, C, ...] → [T, B, C, ...]`` spikes, from a zero state.

    Attributes:
        edge: Kind of the output.
        states: Values of state per neuron (membranes, adaptation, branches).
        multiplications: Of one update at inference; a factor on the input folds into the BN before it.
    """

    edge: Edge = "binary"
    states: int = 1
    multiplications: int = 1

    def __init__(self, settings: Any, channels: int = 1) -> None:
        super().__init__()
        self.settings = settings
        self.channels = channels

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

    def extra_repr(self) -> str:
        return str(self.settings)


class IF(Neuron):
    """`if_step` over T."""

    multiplications = 0
    settings: operators.IF

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        s, v = if_step(x, state[0], self.settings.threshold, self.settings.surrogate)
        return s, (v,)


class LIF(Neuron):
    """`lif_step` over T, fused."""

    settings: operators.LIF

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        s, v = lif_step(x, state[0], 1 / self.settings.tau, self.settings.threshold, self.settings.surrogate)
        return s, (v,)

    def forward(self, x: Tensor) -> Tensor:
        return lif_sequence(x, 1 / self.settings.tau, self.settings.threshold, self.settings.surrogate)


class PLIF(Neuron):
    """`lif_step` over T with a learned decay 1/τ = σ(w), one per layer (Fang et al. 2021)."""

    settings: operators.PLIF

    def __init__(self, settings: operators.PLIF, channels: int = 1) -> None:
        super().__init__(settings, channels)
        self.decay_logit = nn.Parameter(torch.tensor(-math.log(settings.tau - 1)))

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        decay = torch.sigmoid(self.decay_logit)
        s, v = lif_step(x, state[0], decay, self.settings.threshold, self.settings.surrogate)
        return s, (v,)


class ALIF(Neuron):
    """`alif_step` over T; a = e^(−1/τ_m) and r = e^(−1/τ_a), one of each per layer, learned as log τ.

    With T = 1 the adaptation never acts, and τ_a gets no gradient.
    """

    states = 2
    multiplications = 3
    settings: operators.ALIF

    def __init__(self, settings: operators.ALIF, channels: int = 1) -> None:
        super().__init__(settings, channels)
        self.log_tau_membrane = nn.Parameter(torch.tensor(math.log(settings.tau_membrane)))
        self.log_tau_adaptation = nn.Parameter(torch.tensor(math.log(settings.tau_adaptation)))

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        rest, eta = state
        a, r = (torch.exp(-torch.exp(-log_tau)) for log_tau in (self.log_tau_membrane, self.log_tau_adaptation))
        own = self.settings
        s, rest, eta = alif_step(x, rest, eta, a, r, own.threshold, own.adaptation, own.surrogate)
        return s, (rest, eta)


class DHLIF(Neuron):
    """`dh_lif_step` over T, with b branches on disjoint inputs and the decays B = σ(τ_n), a = σ(τ_m) per channel.

    In the paper a branch has its own synapses onto a share of the presynaptic layer. A neuron that follows a
    convolution and its BN no longer sees that layer, but only the C channels of currents. So these are the inputs
    here: branch b of channel c reads the one channel (c + b⌊C/branches⌋) mod C, at the same place of the map, with
    a learned weight. The branches of a neuron thus see disjoint inputs, for b·C weights and no other convolution.

    Weights start at 1/√branches, so that the sum of the currents keeps the variance of the BN. The paper's start
    τ_n, τ_m ~ U(0, 4) is for sequences of hundreds of steps: within T = 4 such neurons practically never fire
    (docs/operators.md). Here both start in U(−4, 0), and may grow.

    Raises:
        ValueError: There are more branches than channels.
    """

    settings: operators.DHLIF

    def __init__(self, settings: operators.DHLIF, channels: int = 1) -> None:
        super().__init__(settings, channels)
        b = settings.branches
        if b > channels:
            raise ValueError(f"branches <= channels must hold, but got (branches={b}, channels={channels})")
        self.states = 1 + b
        self.multiplications = 1 + 2 * b
        self.shifts = [-(i * (channels // b)) for i in range(b)]
        self.weight_bC = nn.Parameter(torch.full((b, channels), b**-0.5))
        self.branch_logit_bC = nn.Parameter(torch.empty(b, channels).uniform_(-4, 0))
        self.membrane_logit_C = nn.Parameter(torch.empty(channels).uniform_(-4, 0))

    def initial(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.zeros_like(x), x.new_zeros(self.settings.branches, *x.shape)

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        rest, d_b = state
        own, per_channel = self.settings, (1, self.channels, *(1,) * (x.ndim - 2))
        weight_b, decay_b = (p.unflatten(1, per_channel) for p in (self.weight_bC, self.branch_logit_bC.sigmoid()))
        currents_b = weight_b * torch.stack([x.roll(shift, 1) for shift in self.shifts])
        a = self.membrane_logit_C.sigmoid().view(per_channel)
        s, rest, d_b = dh_lif_step(currents_b, rest, d_b, decay_b, a, own.threshold, own.surrogate)
        return s, (rest, d_b)


class SFA(Neuron):
    """`sfa` elementwise: no leak, no state."""

    edge: Edge = "integer"
    states = 0
    multiplications = 0
    settings: operators.SFA

    def step(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return sfa(x, self.settings.levels), ()

    def forward(self, x: Tensor) -> Tensor:
        return sfa(x, self.settings.levels)


_MODULES: dict[type[operators.Frozen], type[Neuron]] = {
    operators.IF: IF,
    operators.LIF: LIF,
    operators.PLIF: PLIF,
    operators.ALIF: ALIF,
    operators.DHLIF: DHLIF,
    operators.SFA: SFA,
}


def build_neuron(settings: operators.Frozen, channels: int, threshold: float | None = None) -> Neuron:
    """The module of a neuron's settings for ``channels`` feature maps, at another threshold if given."""
    if threshold is not None and "threshold" in type(settings).model_fields:
        settings = settings.model_copy(update={"threshold": threshold})
    return _MODULES[type(settings)](settings, channels)
