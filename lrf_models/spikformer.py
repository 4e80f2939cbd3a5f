"""Spikformer with any attention operator per block.

Source: "Spikformer: When Spiking Neural Network Meets Transformer", Zhou et al., ICLR 2023. Differences from the
official code: no bias where a BN follows, and no unused LayerNorm (10·d values per block less).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from lrf_models.backbone import Block, ConvNeuron, SpikingBackbone, create, default_cfg, initialise
from lrf_models.layers import ConvBN
from lrf_models.neurons import build_neuron
from spaces import config


class Stem(nn.Module):
    """Spiking patch splitting: four 3×3 convolutions of width d/8 … d, the last ``pools`` of them with a max-pool,
    and a convolutional position embedding x + SN(BN(Conv(x)))."""

    def __init__(self, settings: config.SpikformerConfig) -> None:
        super().__init__()
        widths = [settings.dim // 8, settings.dim // 4, settings.dim // 2, settings.dim]
        self.first = ConvBN(settings.in_chans, widths[0], 3, edge="analog")
        self.neuron = build_neuron(settings.neuron, widths[0])
        self.convs = nn.ModuleList(
            ConvNeuron(a, b, 3, settings.neuron, edge=self.neuron.edge) for a, b in pairwise(widths)
        )
        self.pool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.pools = settings.pools
        self.position = ConvNeuron(settings.dim, settings.dim, 3, settings.neuron, edge=self.neuron.edge)

    def forward(self, x: Tensor, timesteps: int) -> Tensor:
        x = self.first(x)
        x = self.neuron(x.expand(timesteps, *x.shape[1:]))
        for i in range(4):
            if i:
                x = self.convs[i - 1](x)
            if i >= 4 - self.pools:
                x = self.pool(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return x + self.position(x)


class Spikformer(SpikingBackbone):
    """Stem, blocks of attention and MLP with residual sums of spikes, mean, linear head."""

    def __init__(self, settings: config.SpikformerConfig) -> None:
        super().__init__(settings, settings.dim)
        self.stem = Stem(settings)
        self.blocks = nn.ModuleList(Block(block, settings, settings.dim, settings.grid) for block in settings.blocks)
        initialise(self)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.stem(self.to_steps(x), self.settings.timesteps)
        for block in self.blocks:
            x = self.run(block, x)
        return x


default_cfgs = generate_default_cfgs({"spikformer": default_cfg()})


@register_model
def spikformer(pretrained: bool = False, **fields: Any) -> SpikingBackbone:
    """A Spikformer from the fields of `spaces.config.SpikformerConfig`."""
    return create(Spikformer, config.SpikformerConfig, "spikformer", pretrained, **fields)
