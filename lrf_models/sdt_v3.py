"""Spike-driven Transformer V3 with any attention operator per block.

Source: "Scaling Spike-driven Transformer with Efficient Spike Firing Approximation Training", Yao et al., TPAMI 2025.
Pre-activation (neuron, convolution, BN) with shortcuts between membranes, so the residual stream is real-valued.
Parameters equal the official code's. Its neuron puts out an integer over D, ours the integer: only the scale of the
attention products knows the difference, since every other consumer is a convolution before a BN.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from lrf_models.attention import LRFDyn, build_mixer
from lrf_models.backbone import Size, SpikingBackbone, create, default_cfg, register_sizes
from lrf_models.dynamics import Dendrites
from lrf_models.layers import Conv2d, ConvBN, Linear, LocalField, MatMul
from lrf_models.neurons import build_neuron
from spaces import config, operators


class NeuronConv(nn.Module):
    """Neuron, convolution, BN: membranes to membranes."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        neuron: operators.Neuron,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.neuron = build_neuron(neuron, in_channels)
        self.conv = ConvBN(
            in_channels, out_channels, kernel, edge=self.neuron.edge, stride=stride, groups=groups, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.neuron(x))
        return y


class SepConv(nn.Sequential):
    """Pointwise to 2d, depthwise, pointwise back to d."""

    def __init__(self, width: int, kernel: int, neuron: operators.Neuron) -> None:
        super().__init__(
            NeuronConv(width, 2 * width, 1, neuron),
            NeuronConv(2 * width, 2 * width, kernel, neuron, groups=2 * width),
            NeuronConv(2 * width, width, 1, neuron),
        )


class MLP(nn.Sequential):
    """d → ratio·d → d."""

    def __init__(self, width: int, kernel: int, model: config.SDTV3Config, *, bias: bool) -> None:
        hidden = max(int(width * model.mlp_ratio), 1)
        super().__init__(
            NeuronConv(width, hidden, kernel, model.neuron, bias=bias),
            NeuronConv(hidden, width, kernel, model.neuron, bias=bias),
        )


class ConvBlock(nn.Module):
    """x + separable 7×7, then x + 3×3 to 4d and back."""

    def __init__(self, width: int, model: config.SDTV3Config) -> None:
        super().__init__()
        self.conv = SepConv(width, 7, model.neuron)
        self.mlp = MLP(width, 3, model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.conv(x)
        y: Tensor = x + self.mlp(x)
        return y


class Attention(nn.Module):
    """proj(SN(mixer(q, k, v))) of the spikes of x; q and k have d channels, v has 4d.

    SSA's scale is 2/√(d/h) for spikes in [0, 1]; three factors of D make up for integer spikes.
    """

    def __init__(
        self, settings: operators.Attention, model: config.SDTV3Config, width: int, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.neuron = build_neuron(model.neuron, width)
        spikes = self.neuron.edge
        levels = model.neuron.levels if isinstance(model.neuron, operators.SFA) else 1
        wide = not isinstance(settings, operators.TokenQK) and getattr(settings, "token", "v") != "x"
        mixed = 4 * width if wide else width
        gate = operators.SFA(levels=1) if isinstance(model.neuron, operators.SFA) else model.neuron
        self.mixer = build_mixer(
            settings,
            width=mixed,
            heads=model.heads,
            grid=grid,
            scale=2 * (width / model.heads) ** -0.5 / levels**3,
            edge=spikes,
            input_edge=spikes,
            fire=partial(build_neuron, gate, threshold=model.attention_threshold),
        )
        widths = {name: mixed if name == "v" else width for name in self.mixer.needs}
        self.maps = nn.ModuleDict({name: ConvBN(width, d, 1, edge=spikes) for name, d in widths.items()})
        self.neurons = nn.ModuleDict({name: build_neuron(model.neuron, d) for name, d in widths.items()})
        self.repeats = mixed // width if isinstance(self.mixer, LRFDyn) else 1
        if isinstance(self.mixer, LRFDyn) and "q" in self.mixer.needs:
            nn.init.constant_(self.mixer.bn.weight, 1 / levels)  # the gate q has D levels
        self.fire = (
            nn.Identity() if self.mixer.fires else build_neuron(model.neuron, mixed, model.attention_threshold)
        )
        self.proj = ConvBN(mixed, width, 1, edge=spikes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.neuron(x)
        maps = {name: self.neurons[name](conv(x)) for name, conv in self.maps.items()}
        q, k = (self.widen(maps.get(name)) for name in ("q", "k"))
        y: Tensor = self.proj(self.fire(self.mixer(q, k, maps.get("v", x))))
        return y

    def widen(self, x: Tensor | None) -> Tensor | None:
        """A channel of q or k beside each of the channels of v that it gates."""
        return x if x is None or self.repeats == 1 else x.repeat_interleave(self.repeats, -3)


class Block(nn.Module):
    """x + separable 3×3, x + attention, x + MLP."""

    def __init__(
        self, settings: operators.Attention, model: config.SDTV3Config, width: int, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        self.conv = SepConv(width, 3, model.neuron)
        self.attention = Attention(settings, model, width, grid)
        self.mlp = MLP(width, 1, model, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.conv(x)
        x = x + self.attention(x)
        y: Tensor = x + self.mlp(x)
        return y


class SDTV3(SpikingBackbone):
    """Five levels: a convolution block each at strides 2 and 4, two at 8, attention blocks at 16, twice.

    ``timesteps=1`` is the official form; an image is repeated after its first BN otherwise.
    """

    out_indices = (0, 1, 2, 3, 4)

    def __init__(self, settings: config.SDTV3Config) -> None:
        d = settings.dims
        widths = [d[0] // 2, *d]
        one_step = settings.timesteps == 1
        neuron = build_neuron(settings.neuron, d[3])
        super().__init__(
            settings, list(zip(widths, (2, 4, 8, 16, 16), strict=True)), head_edge=neuron.edge if one_step else "real"
        )
        self.first = ConvBN(settings.in_chans, widths[0], 7, edge="analog", stride=2, bias=True)
        self.downs = nn.ModuleList(
            NeuronConv(widths[i], widths[i + 1], 3, settings.neuron, stride=2 if i < 3 else 1, bias=True)
            for i in range(4)
        )
        split, blocks, grid = settings.split, settings.blocks, settings.grid
        self.stages = nn.ModuleList(
            [
                nn.ModuleList([ConvBlock(widths[0], settings)]),
                nn.ModuleList([ConvBlock(widths[1], settings)]),
                nn.ModuleList([ConvBlock(widths[2], settings) for _ in range(2)]),
                nn.ModuleList([Block(block, settings, d[2], grid) for block in blocks[:split]]),
                nn.ModuleList([Block(block, settings, d[3], grid) for block in blocks[split:]]),
            ]
        )
        self.neuron = neuron

    def levels(self, x: Tensor) -> Iterator[Tensor]:
        x = self.first(self.to_steps(x))
        x = x.expand(self.settings.timesteps, *x.shape[1:])
        for i, stage in enumerate(self.stages):
            assert isinstance(stage, nn.ModuleList)
            x = self.downs[i - 1](x) if i else x
            for block in stage:
                x = self.run(block, x)
            yield x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Mean over tokens, neuron, mean over T, classifier."""
        x = self.neuron(x.mean((3, 4), keepdim=True)).mean((0, 3, 4))
        return x if pre_logits else self.head(x)


# --- inference as binary spikes ----------------------------------------------------------------------------------


class Replay(nn.Module):
    """An operation whose integer operands arrive as D binary spikes each: op(x) = Σ_j op([x > j]), j < D.

    Args:
        trains: Which operands are spikes; the others are sums that the receiver holds already.
        bias: Added once, not with each of the D spikes.
    """

    def __init__(self, operation: nn.Module, levels: int, trains: Sequence[bool], bias: Tensor | None = None) -> None:
        super().__init__()
        self.operation = operation
        self.levels = levels
        self.trains = tuple(trains)
        self.once = bias

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.operation, name)

    def forward(self, *operands: Tensor) -> Tensor:
        frames = [
            [(x > j).to(x.dtype) for j in range(self.levels)] if train else [x]
            for x, train in zip(operands, self.trains, strict=True)
        ]
        first, *rest = (self.operation(*spikes) for spikes in itertools.product(*frames))
        total: Tensor = sum(rest, first)
        return total if self.once is None else total + self.once


def replay(model: SDTV3) -> nn.Module:
    """A copy of a model with SFA neurons that computes with D binary spikes instead of the integers 0..D.

    Every operation on spikes is linear in each operand, so outputs are equal to rounding.

    Raises:
        ValueError: The neuron is another one, whose spikes are binary already.
    """
    neuron = model.settings.neuron
    if not isinstance(neuron, operators.SFA):
        raise ValueError(f"only the spikes of sfa neurons are replayed, but got neuron {neuron.kind!r}")
    copied = copy.deepcopy(model)
    for parent in list(copied.modules()):
        # A token k ⊙ v has D² levels: one spike for each pair.
        levels = neuron.levels**2 if isinstance(parent, LRFDyn | LocalField) else neuron.levels
        for name, child in list(parent.named_children()):
            if isinstance(child, Conv2d | Linear | Dendrites | MatMul):
                edges = child.edges if isinstance(child, MatMul) else (child.edge,)
                trains = [edge == "integer" for edge in edges]
                bias = None
                if isinstance(child, Conv2d) and child.bias is not None and any(trains):
                    bias, child.bias = child.bias[:, None, None], None
                elif isinstance(child, Linear) and any(trains):
                    bias, child.bias = child.bias, None  # type: ignore[assignment]
                setattr(parent, name, Replay(child, levels, trains, bias) if any(trains) else child)
    return copied


default_cfgs = generate_default_cfgs({"sdt_v3": default_cfg(first_conv="first.conv")})


@register_model
def sdt_v3(pretrained: bool = False, **fields: Any) -> nn.Module:
    """An SDT-V3 from the fields of `spaces.config.SDTV3Config`."""
    return create(SDTV3, config.SDTV3Config, "sdt_v3", pretrained, **fields)


register_sizes(
    __name__,
    SDTV3,
    config.SDTV3Config,
    "first.conv",
    {
        "t": Size(8, "qk", {"dims": (24, 48, 96, 128)}),
        "s": Size(8, "qk", {"dims": (32, 64, 128, 192)}),
        "m": Size(8, "qk", {"dims": (48, 96, 192, 240)}),
        "l": Size(8, "qk", {"dims": (64, 128, 256, 360)}),
    },
)
