"""The token-mixing operators behind one signature, each beside its equation.

A mixer turns the spikes q, k, v (maps ``[T, B, C, H, W]``) into the membrane input Y of the attention neuron.
Projections before and after it belong to the backbone. ``needs`` names the maps a mixer reads, so the backbone
builds no others; a mixer without ``v`` reads the block's input in its place.

Numbers of equations are those of arXiv 2603.19290.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from lrf_models.dynamics import Dendrites
from lrf_models.layers import BatchNorm2d, Edge, Gate, LocalField, MatMul
from spaces import operators


def to_heads(x_TBCHW: Tensor, heads: int) -> Tensor:
    """``[T, B, C, H, W] → [T, B, h, N, d]``.

    C is split where it is the last dimension: so its gradient is channels last too, like the maps in training.
    """
    return x_TBCHW.flatten(-2).transpose(-1, -2).unflatten(-1, (heads, -1)).transpose(-2, -3)


def to_map(y_TBhNd: Tensor, grid: tuple[int, int]) -> Tensor:
    """``[T, B, h, N, d] → [T, B, C, H, W]``, the inverse of `to_heads`, channels last in memory like the maps."""
    return y_TBhNd.transpose(-3, -2).flatten(-2).transpose(-1, -2).unflatten(-1, grid)


class Mixer(nn.Module):
    """``(q, k, v) → Y``, all ``[T, B, C, H, W]``; q and k may be narrower than v (SDT-V3)."""

    needs: tuple[str, ...] = ("q", "k", "v")
    fires: ClassVar[bool] = False
    """Whether Y is spikes already, so that no attention neuron follows."""

    def forward(self, q: Tensor | None, k: Tensor | None, v: Tensor) -> Tensor:
        raise NotImplementedError


class SSA(Mixer):
    """Spiking self-attention, Y = s Q Kᵀ V (Eqs. 5-7), without softmax, so KᵀV may come first."""

    def __init__(self, settings: operators.SSA | operators.LRFSSA, heads: int, scale: float, edge: Edge) -> None:
        super().__init__()
        self.form = settings.form
        self.heads = heads
        self.scale = scale
        self.inner = MatMul((edge, edge))
        self.outer = MatMul((edge, "real") if self.form == "kv" else ("real", edge))

    def forward(self, q: Tensor | None, k: Tensor | None, v: Tensor) -> Tensor:
        assert q is not None
        assert k is not None
        q_, k_, v_ = (to_heads(x, self.heads) for x in (q, k, v))
        if self.form == "kv":
            y = self.outer(q_, self.inner(k_.transpose(-1, -2), v_))
        else:
            y = self.outer(self.inner(q_, k_.transpose(-1, -2)), v_)
        return to_map(y * self.scale, (v.shape[-2], v.shape[-1]))


class CausalSSA(Mixer):
    """Y_n = s q_n Σ_{j ≤ n} k_jᵀ v_j: the first term of Eq. 11, tokens in raster order."""

    def __init__(self, heads: int, scale: float, edge: Edge) -> None:
        super().__init__()
        self.heads = heads
        self.scale = scale
        self.inner = MatMul((edge, edge))
        self.outer = MatMul(("real", edge))

    def forward(self, q: Tensor | None, k: Tensor | None, v: Tensor) -> Tensor:
        assert q is not None
        assert k is not None
        q_, k_, v_ = (to_heads(x, self.heads) for x in (q, k, v))
        y = self.outer(self.inner(q_, k_.transpose(-1, -2)).tril(), v_)
        return to_map(y * self.scale, (v.shape[-2], v.shape[-1]))


class WithLocalField(Mixer):
    """Y = mixer(q, k, v) + BN(Σ_r DWConv_r(v)): the local term of Eqs. 8 and 11."""

    def __init__(self, mixer: Mixer, width: int, dilations: tuple[int, ...], edge: Edge) -> None:
        super().__init__()
        self.mixer = mixer
        self.local = LocalField(width, dilations, edge=edge)
        self.bn = BatchNorm2d(width)

    def forward(self, q: Tensor | None, k: Tensor | None, v: Tensor) -> Tensor:
        y: Tensor = self.mixer(q, k, v) + self.bn(self.local(v))
        return y


class LRFDyn(Mixer):
    """LRF-Dyn (Eq. 12): H = K ∗ u over tokens, Y = BN(H + Σ_r DWConv_r(H)).

    The token u is v, the block's input x, or k ⊙ v; the last is gated by q after the BN:
    Y = q ⊙ BN(H + Σ_r DWConv_r(H)). With one undamped dendrite it is causal SSA with heads of size 1.
    """

    def __init__(self, settings: operators.LRFDyn, width: int, heads: int, grid: tuple[int, int], edge: Edge) -> None:
        super().__init__()
        self.settings = settings
        self.needs = {"v": ("v",), "qkv": ("q", "k", "v"), "x": ()}[settings.token]
        groups = {"head": heads, "layer": 1, "channel": width}[settings.sharing]
        tokens = grid[0] * grid[1]
        both = settings.scan == "bidirectional"
        self.dendrites = Dendrites(settings, groups, tokens, edge=edge)
        self.backward_dendrites = Dendrites(settings, groups, tokens, edge=edge) if both else None
        field_edge: Edge = "real" if settings.field == "membrane" else edge
        self.local = LocalField(width, settings.dilations, edge=field_edge, taps=settings.taps)
        self.bn = BatchNorm2d(width)
        if settings.token == "qkv":
            self.select = Gate((edge, edge))
            self.gate = Gate((edge, "real"))

    def forward(self, q: Tensor | None, k: Tensor | None, v: Tensor) -> Tensor:
        u = v if k is None else self.select(k, v)
        h = self.scan(u)
        if self.settings.dilations:
            h = h + self.local(h if self.settings.field == "membrane" else u)
        y: Tensor = self.bn(h)
        return y if q is None else self.gate(q, y)

    def scan(self, u: Tensor) -> Tensor:
        """H of ``u`` [T, B, C, H, W] in the order of the settings."""
        if self.settings.scan == "column":
            u = u.transpose(-1, -2)
        grid = u.shape[-2:]
        u_TBGDN = to_heads(u, self.dendrites.groups).transpose(-1, -2)
        h: Tensor = self.dendrites(u_TBGDN)
        if self.backward_dendrites is not None:
            h = h + self.backward_dendrites(u_TBGDN.flip(-1)).flip(-1)
        y = to_map(h.transpose(-1, -2), (grid[0], grid[1]))
        return y.transpose(-1, -2) if self.settings.scan == "column" else y


class TokenQK(Mixer):
    """QKFormer's token attention: one {0, 1} mask per head and token, SN(Σ_channels q), on k."""

    needs = ("q", "k")
    fires = True

    def __init__(self, heads: int, neuron: nn.Module, edge: Edge) -> None:
        super().__init__()
        self.heads = heads
        self.edge = edge
        self.neuron = neuron
        self.gate = Gate(("binary", edge))

    def forward(self, q: Tensor | None, k: Tensor | None, v: Tensor) -> Tensor:
        assert q is not None
        assert k is not None
        mask_TBh1HW = self.neuron(q.unflatten(-3, (self.heads, -1)).sum(-3, keepdim=True).squeeze(-3)).unsqueeze(-3)
        return self.gate(mask_TBh1HW, k.unflatten(-3, (self.heads, -1))).flatten(-4, -3)


def build_mixer(
    settings: operators.Frozen,
    *,
    width: int,
    heads: int,
    grid: tuple[int, int],
    scale: float,
    edge: Edge,
    input_edge: Edge,
    fire: Callable[[int], nn.Module],
) -> Mixer:
    """The mixer of an operator's settings.

    Args:
        width: Channels of v (and of Y).
        edge: Kind of q, k and v; ``input_edge`` is the kind of the block's input.
        fire: Builds the attention neuron for so many channels, for an operator that fires by itself.
    """
    match settings:
        case operators.SSA():
            return SSA(settings, heads, scale, edge)
        case operators.CausalSSA():
            return CausalSSA(heads, scale, edge)
        case operators.LRFSSA():
            return WithLocalField(SSA(settings, heads, scale, edge), width, settings.dilations, edge)
        case operators.LRFCausalSSA():
            return WithLocalField(CausalSSA(heads, scale, edge), width, settings.dilations, edge)
        case operators.TokenQK():
            return TokenQK(heads, fire(heads), edge)
        case operators.LRFDyn():
            return LRFDyn(settings, width, heads, grid, input_edge if settings.token == "x" else edge)
    raise ValueError(f"no mixer for {type(settings).__name__}")
